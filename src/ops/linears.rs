//! Several linear maps of one input.

use super::linear::Linear;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// Linear maps without bias that read the same input and make results of one width.
#[derive(Debug)]
pub struct Linears {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Apart(Vec<Linear>),
    /// One map whose outputs are those of all.
    #[cfg(feature = "cuda")]
    Joined {
        linear: super::cuda::linear::Linear,
        outputs: usize,
    },
}

impl Linears {
    /// Reads the `weight` `[outputs, inputs]` of each map.
    pub fn load_no_bias(maps: &[VarBuilder], inputs: usize, outputs: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if maps.iter().any(|vb| vb.device().is_cuda()) {
            let weights = maps.iter().map(|vb| vb.get((outputs, inputs), "weight"));
            let weight = Tensor::cat(&weights.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
            let linear = super::cuda::linear::Linear::new(&weight, None)?;
            return Ok(Self { kind: Kind::Joined { linear, outputs } });
        }
        let maps = maps.iter().map(|vb| Linear::load_no_bias(vb, inputs, outputs));
        Ok(Self { kind: Kind::Apart(maps.collect::<Result<_>>()?) })
    }

    /// What each map makes of `[B, L, inputs]`: `[B, L, outputs]`, on a GPU side by side in memory.
    pub fn forward(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        match &self.kind {
            Kind::Apart(maps) => maps.iter().map(|map| map.forward(x)).collect(),
            #[cfg(feature = "cuda")]
            Kind::Joined { linear, outputs } => {
                let all = linear.forward(x, None)?;
                let count = linear.outputs()? / outputs;
                Ok((0..count)
                    .map(|map| all.narrow(2, map * outputs, *outputs))
                    .collect::<candle_core::Result<_>>()?)
            }
        }
    }
}
