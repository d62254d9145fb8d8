//! The affine map of the last axis.

use super::rows::each_row;
use crate::error::Result;
use candle_core::Tensor;

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor, // [out, in], as the checkpoint holds it
    bias: Option<Tensor>,
}

impl Linear {
    /// The map of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The width of what it makes.
    pub fn outputs(&self) -> Result<usize> {
        Ok(self.weight.dim(0)?)
    }

    /// Maps `[B, L, inputs]` to `[B, L, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        let weight = self.weight.t()?; // [in, out], a view
        let y = each_row(&x, |row| Ok(row.squeeze(0)?.matmul(&weight)?.unsqueeze(0)?))?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}
