//! Maps of each element by itself.

use super::isa::{Isa, vectorised};
use super::math;
use super::shared::filled;
use rayon::prelude::*;

/// Elements of one task.
const CHUNK: usize = 1 << 14;

/// A non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// `x * sigmoid(x)`.
    Silu,
    /// The exact GELU.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

/// Applies `curve` to every element.
pub fn apply(isa: Isa, curve: Curve, x: &[f32]) -> Vec<f32> {
    filled(x.len(), |out| {
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| bend(isa, curve, x, out));
    })
}

vectorised!(fn bend(curve: Curve, x: &[f32], out: &mut [f32]) => bend_inner);

#[inline(always)]
fn bend_inner<const FUSED: bool>(curve: Curve, x: &[f32], out: &mut [f32]) {
    let pairs = out.iter_mut().zip(x);
    match curve {
        Curve::Silu => pairs.for_each(|(out, x)| *out = math::silu::<FUSED>(*x)),
        Curve::Gelu => pairs.for_each(|(out, x)| *out = math::gelu::<FUSED>(*x)),
        Curve::QuickGelu => pairs.for_each(|(out, x)| *out = x * math::sigmoid::<FUSED>(1.702 * x)),
    }
}

/// The first half of each `2 * width` numbers, times the exact GELU of the second.
pub fn geglu(isa: Isa, x: &[f32], width: usize) -> Vec<f32> {
    filled(x.len() / 2, |out| {
        out.par_chunks_mut(width).zip(x.par_chunks(2 * width)).for_each(|(out, x)| gate(isa, x, out));
    })
}

vectorised!(fn gate(x: &[f32], out: &mut [f32]) => gate_inner);

#[inline(always)]
fn gate_inner<const FUSED: bool>(x: &[f32], out: &mut [f32]) {
    let (values, gates) = x.split_at(out.len());
    for ((out, value), gate) in out.iter_mut().zip(values).zip(gates) {
        *out = value * math::gelu::<FUSED>(*gate);
    }
}
