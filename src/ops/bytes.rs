//! Pictures as bytes.

use crate::error::Result;
use candle_core::{DType, Device, Tensor};

/// Numbers in -1..=1 as bytes, rounded to nearest as diffusers rounds; made on the device, where it can, because bytes are
/// sooner fetched.
pub fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() && x.elem_count().is_multiple_of(4) {
        return super::cuda::pointwise::bytes(x);
    }
    let values: Vec<f32> = x.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    let byte = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    Ok(values.iter().map(byte).collect())
}
