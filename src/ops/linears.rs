//! Several linear maps of one input.

use super::linear::Linear;
use super::norm::LayerNorm;
use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

/// Linear maps without bias that read the same input and make results of one width.
#[derive(Debug)]
pub struct Linears {
    kind: Kind,
    /// The width of each result.
    outputs: usize,
}

#[derive(Debug)]
enum Kind {
    Apart(Vec<Linear>),
    /// One map whose outputs are those of all.
    #[cfg(feature = "cuda")]
    Joined(super::cuda::linear::Linear),
}

impl Linears {
    /// Reads the `weight` `[outputs, inputs]` of each map.
    pub fn load_no_bias(maps: &[VarBuilder], inputs: usize, outputs: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if maps.iter().any(|vb| vb.device().is_cuda()) {
            let weights = maps.iter().map(|vb| vb.get((outputs, inputs), "weight"));
            let weight = Tensor::cat(&weights.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
            let linear = super::cuda::linear::Linear::new(&weight, None)?;
            return Ok(Self { kind: Kind::Joined(linear), outputs });
        }
        let maps = maps.iter().map(|vb| Linear::load_no_bias(vb, inputs, outputs));
        Ok(Self { kind: Kind::Apart(maps.collect::<Result<_>>()?), outputs })
    }

    /// What each map makes of `[B, L, inputs]`, normalised if there is a norm: `[B, L, outputs]`, on a GPU side by side in memory.
    pub fn forward(&self, x: &Tensor, norm: Option<&LayerNorm>) -> Result<Vec<Tensor>> {
        match &self.kind {
            Kind::Apart(maps) => Linear::forward_each(maps, x, norm),
            #[cfg(feature = "cuda")]
            Kind::Joined(linear) => self.split(&linear.forward(&LayerNorm::forward_if(norm, x)?, None)?),
        }
    }

    /// [`Linears::forward`] without a norm, with the results side by side: `[B, L, maps * outputs]`.
    pub fn forward_joined(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Apart(_) => Ok(Tensor::cat(&self.forward(x, None)?, D::Minus1)?),
            #[cfg(feature = "cuda")]
            Kind::Joined(linear) => linear.forward(x, None),
        }
    }

    /// The results that [`Linears::forward_joined`] put side by side.
    pub fn split(&self, joined: &Tensor) -> Result<Vec<Tensor>> {
        let outputs = self.outputs;
        let count = joined.dim(D::Minus1)? / outputs;
        Ok((0..count)
            .map(|map| joined.narrow(D::Minus1, map * outputs, outputs))
            .collect::<candle_core::Result<_>>()?)
    }
}
