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
    pub fn is_plain(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.seen == self.stored
    }

    /// Where the first tap of result `m` lies.
    fn origin(&self, m: usize) -> Origin {
        if self.is_plain() {
            return Origin { first: m, y: 0, x: 0 };
        }
        let (line, x) = (m / self.out.1, m % self.out.1);
        let (picture, y) = (line / self.out.0, line % self.out.0);
        let before = self.before.cast_signed();
        Origin {
            first: picture * self.stored.0 * self.stored.1,
            y: (y * self.stride).cast_signed() - before,
            x: (x * self.stride).cast_signed() - before,
        }
    }

    /// The stored line that line `y` of what is seen is, padding included; none in the padding.
    pub fn seen_line(&self, y: usize) -> Option<usize> {
        stored(y.cast_signed() - self.before.cast_signed(), self.seen.0, self.stored.0)
    }

    /// The stored column that column `x` of what is seen is, padding included; none in the padding.
    pub fn seen_column(&self, x: usize) -> Option<usize> {
        stored(x.cast_signed() - self.before.cast_signed(), self.seen.1, self.stored.1)
    }

    /// The stored pixel that a result sees through the tap at `y` and `x` of the kernel; none in the padding.
    fn pixel(&self, origin: Origin, y: usize, x: usize) -> Option<usize> {
        if self.is_plain() {
            return Some(origin.first);
        }
        let y = stored(origin.y + y.cast_signed(), self.seen.0, self.stored.0)?;
        let x = stored(origin.x + x.cast_signed(), self.seen.1, self.stored.1)?;
        Some(origin.first + y * self.stored.1 + x)
    }
}

/// The stored place that place `at` of `seen` repeats, of a line or column; none in the padding.
fn stored(at: isize, seen: usize, stored: usize) -> Option<usize> {
    let at = usize::try_from(at).ok().filter(|at| *at < seen)?;
    Some(if seen == stored { at } else { at * stored / seen })
}

/// Where a result's taps begin.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// The first stored pixel of the picture, or of the matrix the row itself.
    first: usize,
    /// The line of the first tap; negative in the padding.
    y: isize,
    /// Its place in the line.
    x: isize,
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
        let mut origins = [Origin { first: 0, y: 0, x: 0 }; ROWS];
        for (origin, row) in origins.iter_mut().zip(rows.clone()) {
            *origin = self.walk.origin(row);
        }
        let mut at = depth.start;
        while at < depth.end {
            let (tap, channel) = (at / self.channels, at % self.channels);
            let (y, x) = (tap / self.walk.kernel, tap % self.walk.kernel);
            let length = (self.channels - channel).min(depth.end - at);
            let mut sources = [&zeros[..length]; ROWS];
            for (source, origin) in sources[..rows.len()].iter_mut().zip(&origins) {
                if let Some(pixel) = self.walk.pixel(*origin, y, x) {
                    *source = &self.data[pixel * self.channels + channel..][..length];
                }
            }
            out.push(Run::of_rows(&sources[..rows.len()]));
            at += length;
        }
    }
}
