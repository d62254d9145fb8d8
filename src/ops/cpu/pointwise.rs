//! Maps of each element by itself.

use super::isa::{Isa, vectorised};
use super::math;
use super::shared::{Slot, filled};
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
    let write = |out: &mut [Slot]| {
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| bend(isa, curve, x, out));
    };
    // SAFETY: each of the elements has its map.
    unsafe { filled(x.len(), write) }
}

vectorised!(fn bend(curve: Curve, x: &[f32], out: &mut [Slot]) => bend_inner);

#[inline(always)]
fn bend_inner<const FUSED: bool>(curve: Curve, x: &[f32], out: &mut [Slot]) {
    let pairs = out.iter_mut().zip(x);
    match curve {
        Curve::Silu => pairs.for_each(|(out, x)| _ = out.write(math::silu::<FUSED>(*x))),
        Curve::Gelu => pairs.for_each(|(out, x)| _ = out.write(math::gelu::<FUSED>(*x))),
        Curve::QuickGelu => pairs.for_each(|(out, x)| _ = out.write(x * math::sigmoid::<FUSED>(1.702 * x))),
    }
}
