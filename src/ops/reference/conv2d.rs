//! Two-dimensional convolution on `[B, H, W, C]`.

use super::rows::each_row;
use crate::error::Result;
use crate::ops::ConvShape;
use candle_core::Tensor;

/// A convolution with bias, as a sum of one matrix product for each tap of the kernel.
#[derive(Debug, Clone)]
pub struct Conv2d {
    taps: Vec<Tensor>, // kernel * kernel of [in, out]
    bias: Tensor,
    shape: ConvShape,
}

impl Conv2d {
    /// The convolution of `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: &Tensor, shape: ConvShape) -> Result<Self> {
        let ConvShape { inputs, outputs, kernel, .. } = shape;
        let weight = weight.permute((2, 3, 1, 0))?.reshape((kernel * kernel, inputs, outputs))?;
        let taps = (0..kernel * kernel).map(|tap| Ok(weight.get(tap)?)).collect::<Result<_>>()?;
        Ok(Self { taps, bias: bias.clone(), shape })
    }

    /// Convolves `[B, H, W, inputs]` to `[B, H', W', outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        each_row(x, |row| self.forward_row(row))
    }

    fn forward_row(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, inputs) = x.dims4()?;
        let ConvShape { kernel, stride, outputs, .. } = self.shape;
        let (before, after) = self.shape.padding.around();
        let out = |side: usize| (side + before + after - kernel) / stride + 1;
        let (out_h, out_w) = (out(height), out(width));
        // A tap at offset k reads `out * stride` pixels from k on, the last of them only to be skipped.
        let reach = |out: usize, side: usize| (kernel - 1 + out * stride).max(side + before) - side - before;
        let padded = x.squeeze(0)?.pad_with_zeros(0, before, reach(out_h, height))?.pad_with_zeros(
            1,
            before,
            reach(out_w, width),
        )?; // [H + .., W + .., in]
        let mut sum: Option<Tensor> = None;
        for (tap, weight) in self.taps.iter().enumerate() {
            let seen =
                padded.narrow(0, tap / kernel, out_h * stride)?.narrow(1, tap % kernel, out_w * stride)?;
            let seen = strided(&seen, (out_h, out_w), stride)?.reshape((out_h * out_w, inputs))?;
            let part = seen.matmul(weight)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
        let sum = sum.expect("a kernel has at least one tap");
        Ok(sum.broadcast_add(&self.bias)?.reshape((1, out_h, out_w, outputs))?)
    }
}

/// Every `stride`-th pixel of `[out_h * stride, out_w * stride, C]`, from the first on: `[out_h, out_w, C]`.
fn strided(x: &Tensor, (out_h, out_w): (usize, usize), stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.contiguous()?);
    }
    let channels = x.dim(2)?;
    let blocks = x.contiguous()?.reshape((out_h, stride, out_w, stride, channels))?;
    Ok(blocks.narrow(1, 0, 1)?.narrow(3, 0, 1)?.contiguous()?.reshape((out_h, out_w, channels))?)
}
