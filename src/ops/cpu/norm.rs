//! Normalisation in two passes: statistics summed in f64 from short f32 sums, then one map of every element.

use super::isa::{Isa, vectorised};
use super::math::silu;
use super::product::ranges;
use super::scratch;
use super::shared::{Slot, filled, slots};
use super::values::{Values, Wide};
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
    let maps: Vec<Vec<f32>> = x
        .par_chunks(picture)
        .map(|picture| {
            let mut moments = Moments::new(channels);
            moments.add(isa, std::iter::once(Values::F32(picture)));
            moments.maps(groups, affine)
        })
        .collect();
    let write = |out: &mut [Slot]| {
        out.par_chunks_mut(picture).zip(x.par_chunks(picture)).zip(&maps).for_each(|((out, x), map)| {
            out.par_chunks_mut(chunk)
                .zip(x.par_chunks(chunk))
                .for_each(|(out, x)| map_channels(isa, Values::F32(x), (map, active), out));
        });
    };
    // SAFETY: whole pixels make up each chunk, chunks each picture and pictures the batch.
    unsafe { filled(x.len(), write) }
}

/// Means of a picture's channels and sums of squared distances from them, joined chunk by chunk (Chan, Golub and LeVeque,
/// "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
#[derive(Debug)]
pub struct Moments {
    pixels: f64,
    /// A mean and a sum for each channel.
    channels: Vec<(f64, f64)>,
}

impl Moments {
    /// Those of no pixel yet.
    pub fn new(channels: usize) -> Self {
        Self { pixels: 0.0, channels: vec![(0.0, 0.0); channels] }
    }

    /// Adds the next pixels of the picture, in parts `[.., C]`.
    pub fn add<'a>(&mut self, isa: Isa, parts: impl Iterator<Item = Values<'a>>) {
        let channels = self.channels.len();
        // All at once: a line of a small picture is too little to share out.
        let cut = |part: Values<'a>| ranges(part.len(), PIXELS * channels).map(move |range| part.part(range));
        let chunks: Vec<Values> = parts.flat_map(cut).collect();
        let mut moments = vec![0f32; chunks.len() * 2 * channels];
        moments
            .par_chunks_mut(2 * channels)
            .zip(&chunks)
            .for_each(|(moments, pixels)| channel_moments(isa, *pixels, moments));
        for (pixels, moments) in chunks.iter().zip(moments.chunks_exact(2 * channels)) {
            self.join((pixels.len() / channels) as f64, moments.split_at(channels));
        }
    }

    /// Joins the moments of `count` pixels.
    fn join(&mut self, count: f64, (means, squares): (&[f32], &[f32])) {
        let share = count / (self.pixels + count);
        let weight = self.pixels * share;
        for ((known, mean), square) in self.channels.iter_mut().zip(means).zip(squares) {
            let distance = f64::from(*mean) - known.0;
            known.0 += distance * share;
            known.1 += f64::from(*square) + distance * distance * weight;
        }
        self.pixels += count;
    }

    /// Factors, then summands, for each channel, which give each group mean 0 and variance 1.
    pub fn maps(&self, groups: usize, affine: Affine) -> Vec<f32> {
        let channels = self.channels.len();
        let width = channels / groups;
        let mut map = vec![0f32; 2 * channels];
        for (group, members) in self.channels.chunks_exact(width).enumerate() {
            let mean = members.iter().map(|(mean, _)| mean).sum::<f64>() / width as f64;
            let squares = members.iter().map(|(m, square)| square + self.pixels * (m - mean).powi(2));
            let variance = squares.sum::<f64>() / (self.pixels * width as f64);
            let scale = 1.0 / (variance + affine.eps).sqrt();
            for channel in group * width..(group + 1) * width {
                let factor = f64::from(affine.weight[channel]) * scale;
                map[channel] = factor as f32;
                map[channels + channel] = (f64::from(affine.bias[channel]) - mean * factor) as f32;
            }
        }
        map
    }
}

vectorised!(
    /// Mean and sum of squared distances from it of each channel of up to [`PIXELS`] pixels, into zeros.
    fn channel_moments(pixels: Values, moments: &mut [f32]) => channel_moments_inner
);

#[inline(always)]
fn channel_moments_inner<const FUSED: bool>(pixels: Values, moments: &mut [f32]) {
    match pixels {
        Values::F32(pixels) => moments_of(pixels, moments),
        Values::Bf16(pixels) => moments_of(pixels, moments),
    }
}

#[inline(always)]
fn moments_of<T: Wide>(pixels: &[T], moments: &mut [f32]) {
    let channels = moments.len() / 2;
    let (means, squares) = moments.split_at_mut(channels);
    let share = 1.0 / (pixels.len() / channels) as f32;
    for pixel in pixels.chunks_exact(channels) {
        for (sum, value) in means.iter_mut().zip(pixel) {
            *sum += value.wide();
        }
    }
    means.iter_mut().for_each(|sum| *sum *= share);
    for pixel in pixels.chunks_exact(channels) {
        for ((sum, mean), value) in squares.iter_mut().zip(means.iter()).zip(pixel) {
            *sum += (value.wide() - mean) * (value.wide() - mean);
        }
    }
}

vectorised!(
    /// Scales and shifts each channel, then applies SiLU if asked.
    pub fn map_channels(x: Values, map: (&[f32], bool), out: &mut [Slot]) => map_channels_inner
);

#[inline(always)]
fn map_channels_inner<const FUSED: bool>(x: Values, map: (&[f32], bool), out: &mut [Slot]) {
    match x {
        Values::F32(x) => map_of::<FUSED, _>(x, map, out),
        Values::Bf16(x) => map_of::<FUSED, _>(x, map, out),
    }
}

#[inline(always)]
fn map_of<const FUSED: bool, T: Wide>(x: &[T], (map, active): (&[f32], bool), out: &mut [Slot]) {
    let channels = map.len() / 2;
    let (factors, summands) = map.split_at(channels);
    for (x, out) in x.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
        let terms = out.iter_mut().zip(x).zip(factors).zip(summands);
        if active {
            terms.for_each(|(((out, x), factor), summand)| {
                out.write(silu::<FUSED>(x.wide() * factor + summand));
            });
        } else {
            terms.for_each(|(((out, x), factor), summand)| _ = out.write(x.wide() * factor + summand));
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

/// Gives `work` rows as `norm` makes them, if there is one.
pub fn normalised(isa: Isa, rows: &[f32], norm: Option<Affine>, work: impl FnOnce(&[f32])) {
    let Some(norm) = norm else { return work(rows) };
    scratch::with([rows.len()], |[room]| {
        // SAFETY: normalising writes numbers alone.
        normalise_rows(isa, rows, norm, unsafe { slots(room) });
        work(room);
    });
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
