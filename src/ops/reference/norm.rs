//! Normalisation. Means and variances are taken in f32 whatever the activations are stored in.

use super::activation::silu;
use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// Normalises each group of channels of a picture to mean 0 and variance 1, then scales and shifts channels.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor, // [C]
    bias: Tensor,   // [C]
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// The norm of `weight` and `bias`, each `[channels]`.
    pub fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: weight.to_dtype(DType::F32)?, bias: bias.to_dtype(DType::F32)?, groups, eps })
    }

    /// Normalises `[B, H, W, C]` or `[B, L, C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.normed(x)?.to_dtype(x.dtype())?)
    }

    /// [`GroupNorm::forward`] in f32.
    fn normed(&self, x: &Tensor) -> Result<Tensor> {
        let channels = x.dim(D::Minus1)?;
        let rows = x.dim(0)?;
        let pixels = x.elem_count() / rows / channels;
        let grouped = x.to_dtype(DType::F32)?.reshape((rows, pixels, self.groups, channels / self.groups))?;
        let centred = grouped.broadcast_sub(&mean_of_groups(&grouped)?)?;
        let variance = mean_of_groups(&centred.sqr()?)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?.reshape(x.shape())?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }

    /// [`GroupNorm::forward`], then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(silu(&self.normed(x)?)?.to_dtype(x.dtype())?)
    }
}

/// Means of `[B, L, G, C/G]` over pixels and a group's channels: `[B, 1, G, 1]`. Channels first, so that
/// no long sum of f32 runs over more than the pixels.
fn mean_of_groups(x: &Tensor) -> Result<Tensor> {
    Ok(x.mean_keepdim(3)?.mean_keepdim(1)?)
}

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts it.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor, // [C]
    bias: Tensor,   // [C]
    eps: f64,
}

impl LayerNorm {
    /// The norm of `weight` and `bias`, each `[channels]`.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { weight: weight.to_dtype(DType::F32)?, bias: bias.to_dtype(DType::F32)?, eps })
    }

    /// Normalises `[.., C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?.to_dtype(x.dtype())?)
    }
}
