//! Linear maps, plain and gated.

use super::gpu::Gpu;
use super::pointwise::{geglu, takes_gate};
use crate::error::Result;
use crate::ops::reference;
use candle_core::Tensor;

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Linear {
    weight: Tensor, // [out, in], as the checkpoint holds it
    bias: Option<Tensor>,
}

impl Linear {
    /// The map of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Ok(Self { weight: weight.contiguous()?, bias: bias.cloned() })
    }

    /// The width of what it makes.
    pub fn outputs(&self) -> Result<usize> {
        Ok(self.weight.dim(0)?)
    }

    /// Maps `[.., inputs]` to `[.., outputs]`, plus `residual` of the result's shape.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        let gpu = Gpu::of(&x)?;
        gpu.multiplier.multiply(gpu, &x, (&self.weight, self.bias.as_ref()), residual)
    }

    /// Maps `[.., inputs]` to half of `outputs`, gated by the other half.
    pub fn forward_gated(&self, x: &Tensor) -> Result<Tensor> {
        let both = self.forward(x, None)?;
        if takes_gate(self.outputs()? / 2) { geglu(&both) } else { reference::geglu(&both) }
    }
}
