//! What pixels and weights are at the points: f32, or, where weights are bf16, integers of 16 bits, of which the processor
//! multiplies twice as many at once.

use super::super::isa::Isa;
use super::super::scaled::{self, Cut, LARGEST_ALONE, find_units, scale_rows};
use super::super::scratch::{self, bits, bits_mut};
use super::super::shared::{Slot, slots};
use super::super::tile::{self, COLUMNS, Columns, Run};
use super::super::vector::WIDEST;
use super::super::weight::Weight;
use super::filters::{Filter, TAPS};
use super::points;

/// The kind of numbers that are multiplied.
pub trait Operands {
    /// Numbers of 32 bits that `channels` take, of a pixel or of a column of weights, at a point.
    fn length(channels: usize) -> usize;

    /// Maps a panel to the points `[P * P, length, 32]`.
    fn map_panel<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        weight: &Weight,
        panel: usize,
        points: &mut [f32],
    );

    /// Numbers that `count` of pixels at the points take on their way.
    fn room(count: usize) -> usize;

    /// Maps a tile's pixels to the points; those of a point lie as far behind those of the point before as `out` says.
    fn map_pixels<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        pixels: &[[&[f32]; P]; P],
        room: &mut [f32],
        out: (&mut [Slot], usize),
    );

    /// Whether a pixel's numbers at a point are zeros.
    fn vanish(row: &[f32]) -> bool;

    /// The products `[rows, 32]` of up to [`ROWS`](tile::ROWS) rows of `length` numbers and of columns as long.
    fn multiply(isa: Isa, rows: (&[f32], usize), columns: Columns<f32>, c: &mut [f32]);
}

/// Plain f32.
#[derive(Debug, Clone, Copy)]
pub struct Floats;

impl Operands for Floats {
    fn length(channels: usize) -> usize {
        channels
    }

    fn map_panel<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        weight: &Weight,
        panel: usize,
        points: &mut [f32],
    ) {
        scratch::with([room_for_taps(weight)], |[wide]| {
            let taps = weight.panel(isa, panel, 0..weight.depth(), wide);
            points::map_taps::<F, R, P>(isa, taps, points);
        });
    }

    fn room(_: usize) -> usize {
        0
    }

    fn map_pixels<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        pixels: &[[&[f32]; P]; P],
        _: &mut [f32],
        (out, step): (&mut [Slot], usize),
    ) {
        points::map_pixels::<F, R, P>(isa, pixels, out, step);
    }

    fn vanish(row: &[f32]) -> bool {
        // Not number by number: that could not be done by vectors.
        row.chunks(WIDEST).all(|part| part.iter().fold(0, |bits, number| bits | number.to_bits()) == 0)
    }

    fn multiply(isa: Isa, (rows, length): (&[f32], usize), columns: Columns<f32>, c: &mut [f32]) {
        tile::multiply(isa, &[Run::of_matrix(rows, length, 0..length)], columns, c, true);
    }
}

/// Pairs of integers, and behind them what units of theirs are, of a row's chains and of a column: the greatest of a chain, or of a
/// column at a point, is as large an integer as may be. That errs less than bf16 does: by 14 bits of the greatest, not by 8 of each.
#[derive(Debug, Clone, Copy)]
pub struct Scaled;

impl Operands for Scaled {
    fn length(channels: usize) -> usize {
        Cut::of(channels / 2).length()
    }

    fn map_panel<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        weight: &Weight,
        panel: usize,
        points: &mut [f32],
    ) {
        let depth = weight.depth();
        let units = weight.units(F::TILES, || all_units::<F, R, P>(isa, weight));
        let units = &units[panel * P * P * COLUMNS..][..P * P * COLUMNS];
        let factors = scaled::factors(units);
        let step = Self::length(depth / (TAPS * TAPS)) * COLUMNS;
        let taps = weight.pairs(panel, 0..depth).expect("the weight is in pairs");
        points::map_pairs::<F, R, P>(isa, taps, &factors, (bits_mut(points), step));
        for (points, units) in points.chunks_exact_mut(step).zip(units.chunks_exact(COLUMNS)) {
            points[depth / (2 * TAPS * TAPS) * COLUMNS..][..COLUMNS].copy_from_slice(units);
        }
    }

    fn room(count: usize) -> usize {
        count
    }

    fn map_pixels<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        pixels: &[[&[f32]; P]; P],
        room: &mut [f32],
        (out, step): (&mut [Slot], usize),
    ) {
        let channels = pixels[0][0].len();
        // SAFETY: mapping writes numbers alone.
        points::map_pixels::<F, R, P>(isa, pixels, unsafe { slots(room) }, channels);
        scale_rows(isa, &room[..P * P * channels], channels, (out, step));
    }

    fn vanish(row: &[f32]) -> bool {
        row[Cut::of_length(row.len()).pairs..].iter().all(|unit| *unit == 0.0)
    }

    fn multiply(isa: Isa, rows: (&[f32], usize), columns: Columns<f32>, c: &mut [f32]) {
        let cut = Cut::of_length(rows.1);
        let (numbers, units) = columns.numbers.split_at(cut.pairs * COLUMNS);
        let columns = Columns { numbers: bits(numbers), used: columns.used, ahead: columns.ahead };
        for chain in 0..cut.chains() {
            scaled::multiply_chain(isa, rows, (columns, &units[..COLUMNS]), chain, c);
        }
    }
}

/// What a unit of each column is, `[panels, P * P, 32]`. On this thread alone, as all that is kept with a weight.
fn all_units<F: Filter<R, P>, const R: usize, const P: usize>(isa: Isa, weight: &Weight) -> Vec<f32> {
    let each = weight.depth() / (TAPS * TAPS) * COLUMNS;
    let mut units = vec![0.0; weight.panels() * P * P * COLUMNS];
    scratch::with([room_for_taps(weight), P * P * each], |[wide, points]| {
        for (panel, units) in units.chunks_exact_mut(P * P * COLUMNS).enumerate() {
            points::map_taps::<F, R, P>(isa, weight.panel(isa, panel, 0..weight.depth(), wide), points);
            for (points, units) in points.chunks_exact(each).zip(units.chunks_exact_mut(COLUMNS)) {
                find_units(isa, points, LARGEST_ALONE, units);
            }
        }
    });
    units
}

/// Numbers of a panel's taps, in f32.
fn room_for_taps(weight: &Weight) -> usize {
    weight.depth().next_multiple_of(2) * COLUMNS
}
