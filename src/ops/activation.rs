//! Pointwise non-linearities.

use super::cpu::isa::Isa;
use super::cpu::pointwise::{Curve, apply};
#[cfg(feature = "cuda")]
use super::cuda::pointwise as cuda;
use super::host::{holds, plain, read, tensor};
use super::reference;
use crate::error::Result;
use candle_core::Tensor;

/// `x * sigmoid(x)`.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return cuda::bent(x, cuda::Curve::Silu);
    }
    if holds(x) { bent(x, Curve::Silu) } else { reference::silu(x) }
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
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda::bent(
                x,
                match self {
                    Self::QuickGelu => cuda::Curve::QuickGelu,
                    Self::Gelu => cuda::Curve::Gelu,
                },
            );
        }
        match (self, holds(x)) {
            (Self::QuickGelu, true) => bent(x, Curve::QuickGelu),
            (Self::Gelu, true) => bent(x, Curve::Gelu),
            (Self::QuickGelu, false) => reference::quick_gelu(x),
            (Self::Gelu, false) => reference::gelu(x),
        }
    }
}

fn bent(x: &Tensor, curve: Curve) -> Result<Tensor> {
    let x = plain(x)?;
    tensor(apply(Isa::current(), curve, read(&x).slice()?), x.shape())
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;

    #[test]
    fn the_curves_are_those_of_the_reference() {
        each(|_| {
            for length in [1, 5, 16, 40_001] {
                // The 9 keeps the bound one of absolute size: far below zero the curves vanish.
                let x = (random(&[length], 1) * 9.0).unwrap();
                let x = Tensor::cat(&[&x, &(x.zeros_like().unwrap() + 9.0).unwrap()], 0).unwrap();
                assert_near(&silu(&x).unwrap(), &reference::silu(&x).unwrap(), 1e-6);
                let want = reference::quick_gelu(&x).unwrap();
                assert_near(&Activation::QuickGelu.forward(&x).unwrap(), &want, 1e-6);
                let want = reference::gelu(&x).unwrap();
                assert_near(&Activation::Gelu.forward(&x).unwrap(), &want, 1e-6);
            }
        });
    }
}
