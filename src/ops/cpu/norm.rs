//! Normalisation in two passes: statistics summed in f64 from short f32 sums, then one map of every element.

use super::isa::{Isa, vectorised};
use super::math::silu;
use super::shared::{Slot, filled};
use rayon::prelude::*;

/// Pixels whose sums are taken in f32 before they go on in f64.
const PIXELS: usize = 64;
/// Rows that a task normalises at once.
const ROWS: usize = 16;

/// How normalised values are scaled and shifted.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// A factor for each channel.
    pub weight: &'a [f32],
    /// A summand for each channel.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f64,
}

/// Normalises `groups` groups of channels of each of `batch` pictures `[pixels, C]`, and applies SiLU if `active`.
pub fn group_norm(
    isa: Isa,
    x: &[f32],
    (batch, groups): (usize, usize),
    affine: Affine,
    active: bool,
) -> Vec<f32> {
    let channels = affine.weight.len();
    let picture = x.len() / batch;
    let chunk = PIXELS * channels;
    let chunks = picture.div_ceil(chunk);
    // Means and sums of squared distances from them, for each chunk of pixels: [B * chunks, 2, C].
    let mut moments = vec![0f32; batch * chunks * 2 * channels];
    moments.par_chunks_mut(2 * channels).enumerate().for_each(|(at, moments)| {
        let pixels = x[at / chunks * picture..][..picture].chunks(chunk).nth(at % chunks);
        channel_moments(isa, pixels.unwrap_or_default(), moments);
    });
    let maps: Vec<Vec<f32>> = (0..batch)
        .into_par_iter()
        .map(|row| {
            let moments = &moments[row * chunks * 2 * channels..][..chunks * 2 * channels];
            channel_maps(moments, picture / channels, groups, affine)
        })
        .collect();
    let write = |out: &mut [Slot]| {
        out.par_chunks_mut(picture).zip(x.par_chunks(picture)).zip(&maps).for_each(|((out, x), map)| {
            out.par_chunks_mut(chunk)
                .zip(x.par_chunks(chunk))
                .for_each(|(out, x)| map_channels(isa, x, (map, active), out));
        });
    };
    // SAFETY: whole pixels make up each chunk, chunks each picture and pictures the batch.
    unsafe { filled(x.len(), write) }
}

vectorised!(
    /// Mean and sum of squared distances from it of each channel of up to [`PIXELS`] pixels, into zeros.
    fn channel_moments(pixels: &[f32], moments: &mut [f32]) => channel_moments_inner
);

#[inline(always)]
fn channel_moments_inner<const FUSED: bool>(pixels: &[f32], moments: &mut [f32]) {
    let channels = moments.len() / 2;
    let (means, squares) = moments.split_at_mut(channels);
    let share = 1.0 / (pixels.len() / channels) as f32;
    for pixel in pixels.chunks_exact(channels) {
        for (sum, value) in means.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    means.iter_mut().for_each(|sum| *sum *= share);
    for pixel in pixels.chunks_exact(channels) {
        for ((sum, mean), value) in squares.iter_mut().zip(means.iter()).zip(pixel) {
            *sum += (value - mean) * (value - mean);
        }
    }
}

/// Factors, then summands, for each channel, from the moments of the chunks of one picture.
fn channel_maps(moments: &[f32], pixels: usize, groups: usize, affine: Affine) -> Vec<f32> {
    let channels = affine.weight.len();
    let width = channels / groups;
    let counts: Vec<f64> = (0..pixels).step_by(PIXELS).map(|at| PIXELS.min(pixels - at) as f64).collect();
    let chunks = || moments.chunks_exact(2 * channels).zip(&counts);
    let mut map = vec![0f32; 2 * channels];
    for group in 0..groups {
        let members = group * width..(group + 1) * width;
        let all = (pixels * width) as f64;
        let sum: f64 = chunks()
            .map(|(chunk, count)| count * chunk[members.clone()].iter().map(|m| f64::from(*m)).sum::<f64>())
            .sum();
        let mean = sum / all;
        let square: f64 = chunks()
            .map(|(chunk, count)| {
                let (means, squares) = chunk.split_at(channels);
                let members = means[members.clone()].iter().zip(&squares[members.clone()]);
                members.map(|(m, s)| f64::from(*s) + count * (f64::from(*m) - mean).powi(2)).sum::<f64>()
            })
            .sum();
        let scale = 1.0 / (square / all + affine.eps).sqrt();
        for channel in members {
            let factor = f64::from(affine.weight[channel]) * scale;
            map[channel] = factor as f32;
            map[channels + channel] = (f64::from(affine.bias[channel]) - mean * factor) as f32;
        }
    }
    map
}

vectorised!(
    /// Scales and shifts each channel, then applies SiLU if asked.
    fn map_channels(x: &[f32], map: (&[f32], bool), out: &mut [Slot]) => map_channels_inner
);

#[inline(always)]
fn map_channels_inner<const FUSED: bool>(x: &[f32], (map, active): (&[f32], bool), out: &mut [Slot]) {
    let channels = map.len() / 2;
    let (factors, summands) = map.split_at(channels);
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let terms = out.iter_mut().zip(x).zip(factors).zip(summands);
        if active {
            terms
                .for_each(|(((out, x), factor), summand)| _ = out.write(silu::<FUSED>(x * factor + summand)));
        } else {
            terms.for_each(|(((out, x), factor), summand)| _ = out.write(x * factor + summand));
        }
    }
}

/// Normalises each `[C]` of `[.., C]`.
pub fn layer_norm(isa: Isa, x: &[f32], affine: Affine) -> Vec<f32> {
    let chunk = ROWS * affine.weight.len();
    let write = |out: &mut [Slot]| {
        out.par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .for_each(|(out, x)| normalise_rows(isa, x, affine, out));
    };
    // SAFETY: whole rows make up each chunk, and chunks all there is.
    unsafe { filled(x.len(), write) }
}

vectorised!(fn normalise_rows(x: &[f32], affine: Affine, out: &mut [Slot]) => normalise_rows_inner);

#[inline(always)]
fn normalise_rows_inner<const FUSED: bool>(x: &[f32], affine: Affine, out: &mut [Slot]) {
    let channels = affine.weight.len();
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let mean = lanes(x, |value| value) / channels as f64;
        let mean = mean as f32;
        let variance = lanes(x, |value| (value - mean) * (value - mean)) / channels as f64;
        let scale = (1.0 / (variance + affine.eps).sqrt()) as f32;
        for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(affine.weight).zip(affine.bias) {
            out.write((x - mean) * scale * weight + bias);
        }
    }
}

/// The sum of `of` each value: 32 sums in f32, joined in f64.
#[inline(always)]
fn lanes(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    const LANES: usize = 32;
    let mut sums = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|value| f64::from(of(*value))).sum();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    rest + sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
}
