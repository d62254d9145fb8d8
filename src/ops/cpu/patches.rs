//! The rows of a matrix product that a convolution reads from its picture, never written out.

use super::tile::{ROWS, Run};
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
pub struct Patches<'a, T> {
    /// Pictures `[B, H, W, C]`.
    pub data: &'a [T],
    /// Their channels.
    pub channels: usize,
    /// The pixels that each row reads.
    pub walk: Walk,
}

impl<'a, T> Patches<'a, T> {
    /// The number of columns.
    pub fn depth(&self) -> usize {
        self.walk.kernel * self.walk.kernel * self.channels
    }

    /// Adds the runs of up to [`ROWS`] `rows` over the `depth` given: one for each tap.
    ///
    /// `zeros`, at least as many as there are channels, are what the padding holds.
    pub fn runs(&self, rows: Range<usize>, depth: &Range<usize>, zeros: &'a [T], out: &mut Vec<Run<'a, T>>) {
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
            out.push(Run::of_rows(&sources[..rows.len()]));
            at += length;
        }
    }
}
