//! Pointwise non-linearities.

use crate::error::Result;
use candle_core::{D, Tensor};

/// `x * sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    Ok(x.silu()?)
}

/// Halves the last axis: the first half times the exact (erf) GELU of the second, as in diffusers' `GEGLU`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let value = x.narrow(D::Minus1, 0, half)?;
    let gate = x.narrow(D::Minus1, half, half)?.contiguous()?;
    Ok((value * gate.gelu_erf()?)?)
}

/// The non-linearity of a text encoder's MLP, as its `hidden_act` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`, of CLIP ViT-L.
    QuickGelu,
    /// The exact GELU, `x * Phi(x)`, of OpenCLIP ViT-bigG.
    Gelu,
}

impl Activation {
    /// Applies the non-linearity to every element.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::QuickGelu => (x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?,
            Self::Gelu => x.gelu_erf()?,
        })
    }
}
