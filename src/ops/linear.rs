//! The affine map of the last axis.

use super::rows::each_row;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor, // [out, in], as the checkpoint holds it
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn load(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        let bias = vb.get(outputs, "bias")?;
        Ok(Self { bias: Some(bias), ..Self::load_no_bias(vb, inputs, outputs)? })
    }

    /// Reads `weight` `[outputs, inputs]` alone.
    pub fn load_no_bias(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self { weight: vb.get((outputs, inputs), "weight")?, bias: None })
    }

    /// The width of what it makes.
    pub fn outputs(&self) -> Result<usize> {
        Ok(self.weight.dim(0)?)
    }

    /// Maps `[B, L, inputs]` to `[B, L, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let weight = self.weight.t()?; // [in, out], a view
        let y = each_row(x, |row| Ok(row.squeeze(0)?.matmul(&weight)?.unsqueeze(0)?))?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}
