//! Numbers as vectors: the sinusoid of a timestep or a time id, and the two-layer map behind it.

use crate::error::Result;
use crate::ops::{Linear, silu};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;

/// How a number becomes a vector of `width` sines and cosines (`get_timestep_embedding` of diffusers).
#[derive(Debug, Clone, Copy)]
pub(super) struct Sinusoid {
    /// Length of the vector, even.
    pub width: usize,
    /// Whether the cosines come first.
    pub cosines_first: bool,
    /// Shift of the frequencies.
    pub shift: f64,
}

/// The longest wavelength over 2 pi (`max_period` of diffusers).
const MAX_PERIOD: f64 = 10_000.0;

impl Sinusoid {
    /// The vectors of `values`, `[values, width]` in f32: half precision rounds sizes above 2048 and makes noise
    /// of the high frequencies.
    pub fn of(&self, values: &[f32], device: &Device) -> Result<Tensor> {
        let half = self.width / 2;
        let step = -(MAX_PERIOD.ln() as f32) / (half as f32 - self.shift as f32);
        let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * step).exp()).collect();
        let mut rows = Vec::with_capacity(values.len() * self.width);
        for value in values {
            let sines = frequencies.iter().map(|f| (value * f).sin());
            let cosines = frequencies.iter().map(|f| (value * f).cos());
            if self.cosines_first {
                rows.extend(cosines.chain(sines));
            } else {
                rows.extend(sines.chain(cosines));
            }
        }
        Ok(Tensor::from_vec(rows, (values.len(), self.width), device)?)
    }
}

/// Linear, SiLU, linear.
#[derive(Debug)]
pub(super) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// Reads `linear_1` and `linear_2`.
    pub fn load(vb: &VarBuilder, inputs: usize, width: usize) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::load(&vb.pp("linear_1"), inputs, width)?,
            linear_2: Linear::load(&vb.pp("linear_2"), width, width)?,
        })
    }

    /// Maps `[B, 1, inputs]` to `[B, 1, width]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&silu(&self.linear_1.forward(x)?)?)
    }
}
