//! Numbers in the type that they are kept in, and the way there and back.

use super::isa::{Isa, vectorised};
use super::shared::{Slot, append};
use half::bf16;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers that a task converts at once.
const CHUNK: usize = 1 << 15;

/// Numbers to read.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// The upper 16 of 32 bits.
    Bf16(&'a [bf16]),
}

impl Values<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Those in `range`.
    pub fn part(&self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }
}

/// Numbers that are kept.
#[derive(Debug)]
pub enum Kept {
    /// 32 bits.
    F32(Vec<f32>),
    /// The upper 16 of 32 bits.
    Bf16(Vec<bf16>),
}

impl Kept {
    /// All of them.
    pub fn values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => Values::F32(values),
            Self::Bf16(values) => Values::Bf16(values),
        }
    }
}

/// A type whose numbers are f32's.
pub trait Wide: Copy {
    /// The same number as f32.
    fn wide(self) -> f32;
}

impl Wide for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }
}

impl Wide for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Adds `values` to `out`, rounded to bf16, to nearest and ties to even.
pub fn append_rounded(isa: Isa, values: &[f32], out: &mut Vec<bf16>) {
    let write = |out: &mut [Slot<bf16>]| {
        let chunks = out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(out, values)| round(isa, values, out));
    };
    // SAFETY: every number is rounded.
    unsafe { append(out, values.len(), write) };
}

vectorised!(fn round(values: &[f32], out: &mut [Slot<bf16>]) => round_inner);

#[inline(always)]
fn round_inner<const FUSED: bool>(values: &[f32], out: &mut [Slot<bf16>]) {
    for (out, value) in out.iter_mut().zip(values) {
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding up could turn what is not a number into one.
        let rounded = if value.is_nan() { (bits >> 16) | 0x40 } else { nearest };
        out.write(bf16::from_bits(rounded as u16));
    }
}

vectorised!(
    /// Each of `pixels` `[.., channels]` as f32, `times` over.
    pub fn repeat(pixels: Values, shape: (usize, usize), out: &mut [Slot]) => repeat_inner
);

#[inline(always)]
fn repeat_inner<const FUSED: bool>(pixels: Values, shape: (usize, usize), out: &mut [Slot]) {
    match pixels {
        Values::F32(pixels) => repeated(pixels, shape, out),
        Values::Bf16(pixels) => repeated(pixels, shape, out),
    }
}

#[inline(always)]
fn repeated<T: Wide>(pixels: &[T], (channels, times): (usize, usize), out: &mut [Slot]) {
    for (pixel, out) in pixels.chunks_exact(channels).zip(out.chunks_exact_mut(times * channels)) {
        for out in out.chunks_exact_mut(channels) {
            out.iter_mut().zip(pixel).for_each(|(out, value)| _ = out.write(value.wide()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::filled;
    use super::*;
    use crate::ops::testing::numbers;

    #[test]
    fn numbers_are_rounded_as_half_rounds_them() {
        let odd = [
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE / 2.0,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
        ];
        let values: Vec<f32> = numbers(1000, 1).into_iter().chain(odd).collect();
        for isa in Isa::available() {
            let want: Vec<u16> = values.iter().map(|value| bf16::from_f32(*value).to_bits()).collect();
            let mut got = vec![bf16::from_f32(7.0)];
            append_rounded(isa, &values, &mut got);
            let got: Vec<u16> = got[1..].iter().map(|value| value.to_bits()).collect();
            assert_eq!(got, want, "{isa:?}");
        }
    }

    #[test]
    fn pixels_are_repeated_whole() {
        let pixels = [1.0, 2.0, 3.0, 4.0].map(bf16::from_f32);
        let write = |out: &mut [Slot]| repeat(Isa::current(), Values::Bf16(&pixels), (2, 2), out);
        // SAFETY: each of two pixels is written twice.
        let twice = unsafe { filled(8, write) };
        assert_eq!(twice, [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
    }
}
