//! How the copy engine of a Hopper GPU sees tensors.

use super::gpu::{address, fault};
use crate::error::Result;
use candle_core::{DType, Tensor};
use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::{self, CUtensorMap, CUtensorMapSwizzle as Swizzle};
use std::ffi::c_void;

/// A tensor, and the box of it that is copied at once.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Map(CUtensorMap);

// SAFETY: the driver made it to be passed to kernels as it is.
unsafe impl DeviceRepr for Map {}

/// A box of a picture: channels, columns, lines.
pub(super) type PictureBox = [usize; 3];

impl Map {
    /// The boxes of `rows` rows and 64 columns of `x` `[B, L, C]`, f16 or bf16, whose columns lie side by side; what lies
    /// beyond a picture's last row is read as zeros.
    pub fn rows(x: &Tensor, rows: usize) -> Result<Self> {
        let (batch, length, columns) = x.dims3()?;
        Self::encode(
            x,
            &[columns, length, batch],
            &[x.stride()[1], x.stride()[0]],
            (&[64, rows, 1], Swizzle::CU_TENSOR_MAP_SWIZZLE_128B),
        )
    }

    /// The boxes of `rows` rows and 64 columns of the matrix `[N, K]` that `weight` holds.
    pub fn weights(weight: &Tensor, rows: usize) -> Result<Self> {
        let (outputs, inputs) = (weight.dim(0)?, weight.elem_count() / weight.dim(0)?);
        let of = (&[64, rows][..], Swizzle::CU_TENSOR_MAP_SWIZZLE_128B);
        Self::encode(weight, &[inputs, outputs], &[inputs], of)
    }

    /// The boxes of pictures `[B, H, W, C]` whose channels lie side by side; 64, 32 or 16 channels wide, as many bytes of
    /// which are shuffled.
    pub fn pictures(x: &Tensor, of: PictureBox) -> Result<Self> {
        let (batch, height, width, channels) = x.dims4()?;
        let swizzle = match of[0] {
            64 => Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            32 => Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            _ => Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        };
        let strides = [x.stride()[2], x.stride()[1], x.stride()[0]];
        Self::encode(x, &[channels, width, height, batch], &strides, (&[of[0], of[1], of[2], 1], swizzle))
    }

    /// Sizes of the axes, the innermost first; strides of all others; extents of a box and how its rows are shuffled.
    fn encode(x: &Tensor, sizes: &[usize], strides: &[usize], of: (&[usize], Swizzle)) -> Result<Self> {
        let wide =
            |values: &[usize], factor: usize| values.iter().map(|v| (v * factor) as u64).collect::<Vec<_>>();
        let (sizes, strides) = (wide(sizes, 1), wide(strides, x.dtype().size_in_bytes()));
        let extents: Vec<u32> = of.0.iter().map(|extent| *extent as u32).collect();
        let steps = vec![1u32; extents.len()];
        let dtype = match x.dtype() {
            DType::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        // SAFETY: plain numbers, which the driver overwrites.
        let mut map: CUtensorMap = unsafe { std::mem::zeroed() };
        // SAFETY: the driver reads as many sizes, extents and steps as there are axes, one stride less, and writes one map.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                dtype,
                sizes.len() as u32,
                address(x)? as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                extents.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                of.1,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(fault)?;
        Ok(Self(map))
    }
}
