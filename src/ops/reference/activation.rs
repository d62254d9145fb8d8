//! Pointwise non-linearities. What is stored in 16 bits is bent in f32: rounded once, not after every part of a formula.

use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// `x * sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    in_f32(x, |x| Ok(x.silu()?))
}

/// Halves the last axis: the first half times the exact (erf) GELU of the second, as in diffusers' `GEGLU`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    in_f32(x, |x| {
        let value = x.narrow(D::Minus1, 0, half)?;
        let gate = x.narrow(D::Minus1, half, half)?.contiguous()?;
        Ok((value * gate.gelu_erf()?)?)
    })
}

/// The exact (erf) GELU, `x * Phi(x)`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    in_f32(x, |x| Ok(x.gelu_erf()?))
}

/// `x * sigmoid(1.702 x)`.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    in_f32(x, |x| Ok((x * candle_nn::ops::sigmoid(&(x * 1.702)?)?)?))
}

/// What `bend` makes of `x` in f32, stored like `x`.
fn in_f32(x: &Tensor, bend: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    Ok(bend(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype())?)
}
