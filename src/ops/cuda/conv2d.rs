//! Two-dimensional convolution on `[B, H, W, C]`, in f16 or bf16.

use super::dnn::{self, Sizes};
use super::gpu::{Gpu, address, empty};
use super::pointwise::{enlarge, shift};
use super::tiles::{Doubled, Follow, Weights, pays, takes as takes_tiles, takes_doubled};
use crate::error::Result;
use crate::ops::{ConvShape, Padding};
use candle_core::{DType, Tensor};
use std::sync::OnceLock;

/// A convolution with bias. Channels are filled up to a multiple of eight with zeros, as tensor cores take them.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Conv2d {
    weight: Tensor, // [out, kernel, kernel, in]
    bias: Tensor,   // [out]
    tiles: Option<Weights>,
    /// Whether it can be folded into that of an enlarged picture.
    doubles: bool,
    /// Made when a picture is first enlarged.
    doubled: OnceLock<Doubled>,
    shape: ConvShape,
}

/// What is added to a convolution besides its bias.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::ops) struct Added<'a> {
    /// Of the result's shape.
    pub residual: Option<&'a Tensor>,
    /// `[B, 1, outputs]`, the same for all of a row's pixels.
    pub shift: Option<&'a Tensor>,
}

/// Numbers that tensor cores take at a time.
const RUN: usize = 8;

/// Whether there are kernels for pictures stored in `dtype`.
pub(in crate::ops) fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

impl Conv2d {
    /// The convolution of `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: &Tensor, shape: ConvShape) -> Result<Self> {
        let (inputs, outputs) = (shape.inputs.next_multiple_of(RUN), shape.outputs.next_multiple_of(RUN));
        let weight = weight.permute((0, 2, 3, 1))?;
        let weight = weight.pad_with_zeros(3, 0, inputs - shape.inputs)?;
        let weight = weight.pad_with_zeros(0, 0, outputs - shape.outputs)?.contiguous()?;
        let bias = bias.pad_with_zeros(0, 0, outputs - shape.outputs)?.contiguous()?;
        let (gpu, sizes) = (Gpu::of(&weight)?, [outputs, inputs]);
        let three = shape.kernel == 3 && shape.padding == Padding::Same(1) && shape.stride == 1;
        let one = shape.kernel == 1 && shape.stride == 1;
        let tiled = (three || one) && takes_tiles(gpu, weight.dtype(), sizes);
        let doubles = three && takes_doubled(gpu, weight.dtype(), sizes);
        let tiles = tiled.then(|| Weights::new(&weight, [Some(&bias), None], false)).transpose()?;
        Ok(Self { weight, bias, tiles, doubles, doubled: OnceLock::new(), shape })
    }

    /// Convolves what `[B, H, W, inputs]` becomes when it is enlarged to `seen`, height and width.
    pub fn forward(&self, x: &Tensor, seen: (usize, usize), added: Added) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        let x = x.pad_with_zeros(3, 0, self.weight.dim(3)? - x.dim(3)?)?.contiguous()?;
        if let Some(y) = self.run_doubled(&x, seen, added)? {
            return Ok(y);
        }
        let x = if seen == (x.dim(1)?, x.dim(2)?) { x } else { enlarge(&x, seen)? };
        if self.shape.outputs == self.bias.dim(0)? {
            return self.run(&x, added);
        }
        // What is added has no zeros behind its last channel; only first and last layers come this way, without any.
        let y = self.run(&x, Added::default())?.narrow(3, 0, self.shape.outputs)?.contiguous()?;
        let y = added.residual.map_or_else(|| Ok(y.clone()), |residual| &y + residual)?;
        Ok(added.shift.map_or_else(|| Ok(y.clone()), |shift| y.broadcast_add(&shift.unsqueeze(1)?))?)
    }

    fn run(&self, x: &Tensor, added: Added) -> Result<Tensor> {
        let gpu = Gpu::of(x)?;
        if let Some(y) = self.run_tiles(gpu, x, added)? {
            return Ok(y);
        }
        if self.shape.kernel == 1 && self.shape.stride == 1 && added.shift.is_none() {
            let weight = self.weight.flatten_from(1)?;
            return gpu.multiplier.multiply(gpu, x, (&weight, Some(&self.bias)), added.residual);
        }
        // Few of the library's plans take zeros on two sides alone.
        let (x, padding) = match self.shape.padding {
            Padding::BottomRight => (&x.pad_with_zeros(1, 0, 1)?.pad_with_zeros(2, 0, 1)?, (0, 0)),
            Padding::Same(zeros) => (x, (zeros, zeros)),
        };
        let (batch, height, width, inputs) = x.dims4()?;
        let ConvShape { kernel, stride, .. } = self.shape;
        let out = |side: usize| (side + padding.0 + padding.1 - kernel) / stride + 1;
        let to = (out(height), out(width));
        let outputs = self.bias.dim(0)?;
        let y = empty(&[batch, to.0, to.1, outputs], x)?;
        let sizes = Sizes {
            batch,
            from: (height, width),
            to,
            inputs,
            outputs,
            kernel,
            stride,
            padding,
            dtype: x.dtype(),
            added: match added {
                Added { residual: Some(_), .. } => dnn::Added::Residual,
                Added { .. } => dnn::Added::Nothing,
            },
        };
        let extra = added.residual.map(Tensor::contiguous).transpose()?;
        let extra = extra.as_ref().map(address).transpose()?.unwrap_or(0);
        let addresses = [address(x)?, address(&self.weight)?, address(&self.bias)?, extra, address(&y)?];
        gpu.convolver.run(gpu, sizes, addresses)?;
        // The library's graphs add a number for each channel, but not one for each channel of each row.
        added.shift.map_or(Ok(()), |by| shift(&y, by))?;
        Ok(y)
    }

    /// The convolution by our kernel, if that is the quicker way.
    fn run_tiles(&self, gpu: &Gpu, x: &Tensor, added: Added) -> Result<Option<Tensor>> {
        let Some(tiles) = &self.tiles else { return Ok(None) };
        let (batch, height, width, _) = x.dims4()?;
        let Added { residual, shift } = added;
        if residual.is_some() && shift.is_some() || !tiles.pays(gpu, [batch, height, width])? {
            return Ok(None);
        }
        Ok(Some(tiles.convolve(gpu, x, Follow { residual, shift, ..Follow::default() })?))
    }

    /// The convolution of `x` enlarged to twice its size by our kernel, if that is what is asked for.
    fn run_doubled(&self, x: &Tensor, seen: (usize, usize), added: Added) -> Result<Option<Tensor>> {
        let (batch, height, width, _) = x.dims4()?;
        let bare = added.residual.is_none() && added.shift.is_none();
        if !self.doubles || seen != (2 * height, 2 * width) || !bare {
            return Ok(None);
        }
        let gpu = Gpu::of(x)?;
        if !pays(gpu, [batch, height, width], self.bias.dim(0)?, false) {
            return Ok(None);
        }
        if self.doubled.get().is_none() {
            // A second thread would make the same weights.
            let _ = self.doubled.set(Doubled::new(&self.weight, &self.bias)?);
        }
        self.doubled.get().map(|doubled| doubled.convolve(gpu, x)).transpose()
    }
}
