//! Normalisation. Means and variances are taken in f32 or better whatever the activations are stored in.

use super::bands::{Bands, elsewhere};
use super::cpu::isa::Isa;
use super::cpu::norm::{Affine, Moments, group_norm, layer_norm};
#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{holds, plain, read, tensor, vector};
use super::reference;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// Normalises each group of channels of a picture to mean 0 and variance 1, then scales and shifts channels.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    kind: GroupKind,
}

#[derive(Debug, Clone)]
enum GroupKind {
    Cpu {
        scale: Scale,
        groups: usize,
    },
    #[cfg(feature = "cuda")]
    Cuda {
        scale: cuda::norm::Scale,
        groups: usize,
    },
    Elsewhere(reference::GroupNorm),
}

/// Factors and summands of the channels.
#[derive(Debug, Clone)]
struct Scale {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

impl Scale {
    fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { weight: vector(weight)?, bias: vector(bias)?, eps })
    }

    fn affine(&self) -> Affine<'_> {
        Affine { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}

impl GroupKind {
    fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Self> {
        if holds(weight) {
            return Ok(Self::Cpu { scale: Scale::new(weight, bias, eps)?, groups });
        }
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() && cuda::norm::takes_groups(weight.elem_count(), groups) {
            return Ok(Self::Cuda { scale: cuda::norm::Scale::new(weight, bias, eps)?, groups });
        }
        Ok(Self::Elsewhere(reference::GroupNorm::new(weight, bias, groups, eps)?))
    }
}

impl GroupNorm {
    /// Reads `weight` and `bias`, each `[channels]`.
    pub fn load(vb: &VarBuilder, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        Self::new(&vb.get(channels, "weight")?, &vb.get(channels, "bias")?, groups, eps)
    }

    /// The norm of `weight` and `bias`, each `[channels]`.
    fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Self> {
        Ok(Self { kind: GroupKind::new(weight, bias, groups, eps)? })
    }

    /// Normalises `[B, H, W, C]` or `[B, L, C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            GroupKind::Cpu { scale, groups } => on_cpu(x, scale, *groups, false),
            #[cfg(feature = "cuda")]
            GroupKind::Cuda { scale, groups } => cuda::norm::group_norm(x, scale, *groups, false),
            GroupKind::Elsewhere(norm) => norm.forward(x),
        }
    }

    /// [`GroupNorm::forward`], then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            GroupKind::Cpu { scale, groups } => on_cpu(x, scale, *groups, true),
            #[cfg(feature = "cuda")]
            GroupKind::Cuda { scale, groups } => cuda::norm::group_norm(x, scale, *groups, true),
            GroupKind::Elsewhere(norm) => norm.forward_silu(x),
        }
    }
}

impl GroupNorm {
    /// What the norm of all of `bands` does to each channel: factors, then summands.
    pub fn map(&self, bands: &Bands) -> Result<Vec<f32>> {
        let GroupKind::Cpu { scale, groups } = &self.kind else { return Err(elsewhere()) };
        let mut moments = Moments::new(bands.channels());
        moments.add(Isa::current(), bands.lines());
        Ok(moments.maps(*groups, scale.affine()))
    }
}

fn on_cpu(x: &Tensor, scale: &Scale, groups: usize, active: bool) -> Result<Tensor> {
    let x = plain(x)?;
    let rows = (x.dim(0)?, groups);
    let values = group_norm(Isa::current(), read(&x).slice()?, rows, scale.affine(), active);
    tensor(values, x.shape())
}

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts it.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    kind: LayerKind,
}

#[derive(Debug, Clone)]
enum LayerKind {
    Cpu(Scale),
    #[cfg(feature = "cuda")]
    Cuda(cuda::norm::Scale),
    Elsewhere(reference::LayerNorm),
}

impl LayerKind {
    fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        if holds(weight) {
            return Ok(Self::Cpu(Scale::new(weight, bias, eps)?));
        }
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() && cuda::norm::takes_layer(weight.elem_count()) {
            return Ok(Self::Cuda(cuda::norm::Scale::new(weight, bias, eps)?));
        }
        Ok(Self::Elsewhere(reference::LayerNorm::new(weight, bias, eps)?))
    }
}

impl LayerNorm {
    /// Reads `weight` and `bias`, each `[channels]`.
    pub fn load(vb: &VarBuilder, channels: usize, eps: f64) -> Result<Self> {
        Self::new(&vb.get(channels, "weight")?, &vb.get(channels, "bias")?, eps)
    }

    /// The norm of `weight` and `bias`, each `[channels]`.
    fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { kind: LayerKind::new(weight, bias, eps)? })
    }

    /// What the norm does on a processor, if it lies there.
    pub(super) fn on_cpu(&self) -> Option<Affine<'_>> {
        match &self.kind {
            LayerKind::Cpu(scale) => Some(scale.affine()),
            _ => None,
        }
    }

    /// `x` as `norm` makes it, or as it is without one.
    pub(super) fn forward_if(norm: Option<&Self>, x: &Tensor) -> Result<Tensor> {
        norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
    }

    /// Normalises `[.., C]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            LayerKind::Cpu(scale) => {
                let x = plain(x)?;
                tensor(layer_norm(Isa::current(), read(&x).slice()?, scale.affine()), x.shape())
            }
            #[cfg(feature = "cuda")]
            LayerKind::Cuda(scale) => cuda::norm::layer_norm(x, scale),
            LayerKind::Elsewhere(norm) => norm.forward(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;

    #[test]
    fn groups_are_normalised_as_in_the_reference_even_far_from_zero() {
        each(|_| {
            for (shape, groups) in [
                ([1, 1, 1, 4], 2),
                ([2, 5, 7, 6], 3),
                ([3, 9, 9, 48], 8),
                ([1, 20, 17, 64], 32),
                ([2, 3, 1, 20], 1),
            ] {
                for offset in [0.0, 30.0] {
                    let x = (random(&shape, 1) + offset).unwrap();
                    let (weight, bias) = (random(&[shape[3]], 2), random(&[shape[3]], 3));
                    let want = reference::GroupNorm::new(&weight, &bias, groups, 1e-5).unwrap();
                    let norm = GroupNorm::new(&weight, &bias, groups, 1e-5).unwrap();
                    let bound = if offset == 0.0 { 3e-6 } else { 1e-4 };
                    assert_near(&norm.forward(&x).unwrap(), &want.forward(&x).unwrap(), bound);
                    assert_near(&norm.forward_silu(&x).unwrap(), &want.forward_silu(&x).unwrap(), bound);
                }
            }
        });
    }

    #[test]
    fn layers_are_normalised_as_in_the_reference() {
        each(|_| {
            for (rows, channels) in [(1, 1), (3, 5), (40, 33), (17, 64), (5, 640)] {
                let x = (random(&[rows, channels], 1) + 2.0).unwrap();
                let (weight, bias) = (random(&[channels], 2), random(&[channels], 3));
                let want = reference::LayerNorm::new(&weight, &bias, 1e-5).unwrap().forward(&x).unwrap();
                assert_near(&LayerNorm::new(&weight, &bias, 1e-5).unwrap().forward(&x).unwrap(), &want, 3e-6);
            }
        });
    }

    #[test]
    fn a_row_is_normalised_the_same_to_the_last_bit_alone_and_among_others() {
        each(|_| {
            let x = random(&[3, 11, 13, 40], 1);
            let norm = GroupNorm::new(&random(&[40], 2), &random(&[40], 3), 8, 1e-6).unwrap();
            let all = norm.forward_silu(&x).unwrap();
            for row in 0..3 {
                let alone = norm.forward_silu(&x.narrow(0, row, 1).unwrap()).unwrap();
                assert_near(&alone, &all.narrow(0, row, 1).unwrap(), 0.0);
            }
        });
    }
}
