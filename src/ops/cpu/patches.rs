//! The rows of a matrix product that a convolution reads from its picture, never written out whole.

use super::isa::Isa;
use super::pack::transpose;
use super::scratch::bits_mut;
use super::tile::{ROWS, pair_up};
use std::ops::Range;

/// How a convolution walks over a picture. A matrix is a picture of 1 x 1 taps.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Height and width of the picture as it is stored.
    pub stored: (usize, usize),
    /// Height and width after each pixel was repeated to its nearest neighbours: what the convolution sees.
    pub seen: (usize, usize),
    /// Height and width of the result.
    pub out: (usize, usize),
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Pixels between two results.
    pub stride: usize,
    /// Zeros above and to the left.
    pub before: usize,
}

impl Walk {
    /// The walk over a matrix of `rows`.
    pub fn matrix(rows: usize) -> Self {
        let size = (rows, 1);
        Self { stored: size, seen: size, out: size, kernel: 1, stride: 1, before: 0 }
    }

    /// Whether row `m` of the product is simply pixel `m`.
    fn is_plain(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.seen == self.stored
    }

    /// The stored pixel that result `m` sees through `tap`; none in the padding.
    fn pixel(&self, m: usize, tap: usize) -> Option<usize> {
        if self.is_plain() {
            return Some(m);
        }
        let picture = m / (self.out.0 * self.out.1);
        let (y, x) = (m / self.out.1 % self.out.0, m % self.out.1);
        let place = |out: usize, tap: usize, seen: usize, stored: usize| {
            let at = (out * self.stride + tap).checked_sub(self.before).filter(|at| *at < seen)?;
            Some(if seen == stored { at } else { at * stored / seen })
        };
        let y = place(y, tap / self.kernel, self.seen.0, self.stored.0)?;
        let x = place(x, tap % self.kernel, self.seen.1, self.stored.1)?;
        Some((picture * self.stored.0 + y) * self.stored.1 + x)
    }
}

/// The left operand of a product: a row for each pixel of the result, a column for each tap and channel.
#[derive(Debug, Clone, Copy)]
pub struct Patches<'a> {
    /// Pictures `[B, H, W, C]`.
    pub data: &'a [f32],
    /// Their channels.
    pub channels: usize,
    /// The pixels that each row reads.
    pub walk: Walk,
}

impl Patches<'_> {
    /// The number of columns.
    pub fn depth(&self) -> usize {
        self.walk.kernel * self.walk.kernel * self.channels
    }

    /// Writes `rows`, in tiles of up to [`ROWS`], each as `[depth, rows of the tile]` for the `depth` given.
    ///
    /// `zeros` are at least as many as there are channels.
    pub fn pack(&self, rows: Range<usize>, depth: Range<usize>, zeros: &[f32], out: &mut [f32]) {
        let mut tiles = out;
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            let (tile, rest) = tiles.split_at_mut(count * depth.len());
            self.pack_tile(first..first + count, &depth, zeros, tile);
            tiles = rest;
        }
    }

    fn pack_tile(&self, rows: Range<usize>, depth: &Range<usize>, zeros: &[f32], out: &mut [f32]) {
        let count = rows.len();
        self.runs(rows, depth, zeros, |at, sources| transpose(sources, &mut out[at * count..], count));
    }

    /// Whether two neighbours of the depth always lie side by side, as [`Patches::pack_pairs`] needs them.
    pub fn has_pairs(&self) -> bool {
        self.channels.is_multiple_of(2)
    }

    /// [`Patches::pack`] in pairs of bf16, each tile as `[depth / 2, rows of the tile]`; `depth` begins at an even number.
    ///
    /// `halves` has room for [`ROWS`] rows of half the channels.
    pub fn pack_pairs(
        &self,
        isa: Isa,
        (rows, depth): (Range<usize>, Range<usize>),
        (zeros, halves): (&[f32], &mut [f32]),
        out: &mut [f32],
    ) {
        let mut tiles = out;
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            let (tile, rest) = tiles.split_at_mut(count * depth.len() / 2);
            self.runs(first..first + count, &depth, zeros, |at, sources| {
                let half = sources[0].len() / 2;
                for (source, half) in sources.iter().zip(halves.chunks_exact_mut(half)) {
                    pair_up(isa, source, bits_mut(half));
                }
                let mut rounded = [&halves[..0]; ROWS];
                for (rounded, half) in rounded.iter_mut().zip(halves.chunks_exact(half)) {
                    *rounded = half;
                }
                transpose(&rounded[..count], &mut tile[at / 2 * count..], count);
            });
            tiles = rest;
        }
    }

    /// Calls `take` with each stretch of the depth whose numbers lie side by side: how far it is behind the beginning,
    /// and the numbers of each of the `rows`.
    fn runs(
        &self,
        rows: Range<usize>,
        depth: &Range<usize>,
        zeros: &[f32],
        mut take: impl FnMut(usize, &[&[f32]]),
    ) {
        let count = rows.len();
        let mut at = depth.start;
        while at < depth.end {
            let (tap, channel) = (at / self.channels, at % self.channels);
            let length = (self.channels - channel).min(depth.end - at);
            let mut sources = [&zeros[..length]; ROWS];
            for (source, row) in sources.iter_mut().zip(rows.clone()) {
                if let Some(pixel) = self.walk.pixel(row, tap) {
                    *source = &self.data[pixel * self.channels + channel..][..length];
                }
            }
            take(at - depth.start, &sources[..count]);
            at += length;
        }
    }
}
