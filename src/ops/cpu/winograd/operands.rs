//! What pixels and weights are at the points: f32, or, where weights are bf16, integers of 16 bits, of which the processor
//! multiplies twice as many at once.

use super::super::isa::{Isa, vectorised};
use super::super::scratch::{self, bits, bits_mut, halves_mut};
use super::super::tile::{self, CHAIN, COLUMNS, Columns, Integers, ROWS, Run};
use super::super::weight::Weight;
use super::filters::{Filter, TAPS};
use super::points::{self, ROUNDED};

/// The largest integer of a pixel.
const LARGEST: f32 = 8191.0;
/// The largest integer of a weight.
const LARGEST_WEIGHT: f32 = 32767.0;
/// What the integers of a chain of weights may sum up to, signs apart, so that with the largest pixels their products fit in 32
/// bits: 2^31 over [`LARGEST`], less half a unit for the rounding of each.
const LONGEST: f32 = 262_000.0;
/// Numbers less than this count as zeros: the inverse of their unit would be infinite.
const LEAST: f32 = 1e-30;

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
        out: (&mut [f32], usize),
    );

    /// The products `[rows, 32]` of up to [`ROWS`] `rows` of one length and of columns as long.
    fn multiply(isa: Isa, rows: &[&[f32]], columns: Columns<f32>, c: &mut [f32]);
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
        (out, step): (&mut [f32], usize),
    ) {
        points::map_pixels::<F, R, P>(isa, pixels, out, step);
    }

    fn multiply(isa: Isa, rows: &[&[f32]], columns: Columns<f32>, c: &mut [f32]) {
        tile::multiply(isa, &[Run::of_rows(rows)], columns, c, true);
    }
}

/// Pairs of integers, and behind them what a unit of theirs is: the greatest of a row or column, of all channels at a point, is
/// as large an integer as may be. That errs less than bf16 does: by 14 bits of the greatest, not by 8 of each.
#[derive(Debug, Clone, Copy)]
pub struct Scaled;

impl Operands for Scaled {
    fn length(channels: usize) -> usize {
        channels / 2 + 1
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
        let factors: Vec<f32> =
            units.iter().map(|unit| if *unit == 0.0 { 0.0 } else { 1.0 / unit }).collect();
        let step = Self::length(depth / (TAPS * TAPS)) * COLUMNS;
        let taps = weight.pairs(panel, 0..depth).expect("the weight is in pairs");
        points::map_pairs::<F, R, P>(isa, taps, &factors, (bits_mut(points), step));
        for (points, units) in points.chunks_exact_mut(step).zip(units.chunks_exact(COLUMNS)) {
            points[step - COLUMNS..].copy_from_slice(units);
        }
    }

    fn room(count: usize) -> usize {
        count
    }

    fn map_pixels<F: Filter<R, P>, const R: usize, const P: usize>(
        isa: Isa,
        pixels: &[[&[f32]; P]; P],
        room: &mut [f32],
        (out, step): (&mut [f32], usize),
    ) {
        let channels = pixels[0][0].len();
        points::map_pixels::<F, R, P>(isa, pixels, room, channels);
        for (from, to) in room.chunks_exact(channels).zip(out.chunks_mut(step)) {
            scale_row(isa, from, &mut to[..Self::length(channels)]);
        }
    }

    fn multiply(isa: Isa, rows: &[&[f32]], columns: Columns<f32>, c: &mut [f32]) {
        let pairs = rows[0].len() - 1;
        let (mut a, mut units) = ([bits(&rows[0][..pairs]); ROWS], [0.0; ROWS]);
        for ((a, unit), row) in a.iter_mut().zip(&mut units).zip(rows) {
            (*a, *unit) = (bits(&row[..pairs]), row[pairs]);
        }
        let (numbers, scales) = columns.numbers.split_at(pairs * COLUMNS);
        let b = Columns { numbers: bits(numbers), used: columns.used, ahead: columns.ahead };
        let tile = Integers { a: Run::of_rows(&a[..rows.len()]), b, rows: units, columns: scales };
        tile::multiply_integers(isa, &tile, c);
    }
}

vectorised!(
    /// Scales an even number of values to integers, in pairs, and puts their unit behind them.
    fn scale_row(values: &[f32], out: &mut [f32]) => scale_row_inner
);

#[inline(always)]
fn scale_row_inner<const FUSED: bool>(values: &[f32], out: &mut [f32]) {
    // Magnitudes are in the order of their bits, of which the compiler takes the maximum by vectors.
    let greatest = values.iter().fold(0, |greatest, value| greatest.max(value.abs().to_bits()));
    let greatest = f32::from_bits(greatest);
    // What is not a number is not small either, and goes on in the unit.
    let factor = if greatest < LEAST { 0.0 } else { LARGEST / greatest };
    let (pairs, unit) = out.split_at_mut(values.len() / 2);
    for (out, value) in halves_mut(pairs).iter_mut().zip(values) {
        *out = (value * factor + ROUNDED).to_bits() as u16;
    }
    unit[0] = greatest / LARGEST;
}

/// What a unit of each column is, `[panels, P * P, 32]`. On this thread alone, as all that is kept with a weight.
fn all_units<F: Filter<R, P>, const R: usize, const P: usize>(isa: Isa, weight: &Weight) -> Vec<f32> {
    let each = weight.depth() / (TAPS * TAPS) * COLUMNS;
    let mut units = vec![0.0; weight.panels() * P * P * COLUMNS];
    scratch::with([room_for_taps(weight), P * P * each], |[wide, points]| {
        for (panel, units) in units.chunks_exact_mut(P * P * COLUMNS).enumerate() {
            points::map_taps::<F, R, P>(isa, weight.panel(isa, panel, 0..weight.depth(), wide), points);
            for (points, units) in points.chunks_exact(each).zip(units.chunks_exact_mut(COLUMNS)) {
                find_units(isa, points, units);
            }
        }
    });
    units
}

/// Numbers of a panel's taps, in f32.
fn room_for_taps(weight: &Weight) -> usize {
    weight.depth().next_multiple_of(2) * COLUMNS
}

vectorised!(
    /// What a unit of each column of `[inputs, 32]` is.
    fn find_units(values: &[f32], units: &mut [f32]) => find_units_inner
);

#[inline(always)]
fn find_units_inner<const FUSED: bool>(values: &[f32], units: &mut [f32]) {
    // Magnitudes are in the order of their bits.
    let (mut greatest, mut longest) = ([0; COLUMNS], [0f32; COLUMNS]);
    for chain in values.chunks(2 * CHAIN * COLUMNS) {
        let mut length = [0f32; COLUMNS];
        for row in chain.chunks_exact(COLUMNS) {
            for column in 0..COLUMNS {
                length[column] += row[column].abs();
                greatest[column] = row[column].abs().to_bits().max(greatest[column]);
            }
        }
        for (longest, length) in longest.iter_mut().zip(length) {
            *longest = longest.max(length);
        }
    }
    for ((unit, greatest), longest) in units.iter_mut().zip(greatest.map(f32::from_bits)).zip(longest) {
        *unit = match greatest {
            ..LEAST => 0.0,
            // Not a number, as what becomes of it.
            _ if !greatest.is_finite() => f32::NAN,
            _ => (greatest / LARGEST_WEIGHT).max(longest / LONGEST),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::numbers;

    /// The numbers that integers and their unit stand for.
    fn values(scaled: &[f32]) -> Vec<f32> {
        let (pairs, unit) = scaled.split_at(scaled.len() - 1);
        let halves = bits(pairs).iter().flat_map(|pair| [*pair as u16, (pair >> 16) as u16]);
        halves.map(|half| f32::from(half.cast_signed()) * unit[0]).collect()
    }

    #[test]
    fn a_row_is_rounded_to_fourteen_bits_of_its_greatest() {
        for isa in Isa::available() {
            for (factor, worst) in [(1.0, -3.0), (1e-20, 2.0), (1e20, 5.0)] {
                let mut row: Vec<f32> = numbers(48, 1).iter().map(|value| value * factor).collect();
                row[17] = worst * factor;
                let mut scaled = vec![0.0; Scaled::length(48)];
                scale_row(isa, &row, &mut scaled);
                let greatest = row.iter().fold(0f32, |greatest, value| greatest.max(value.abs()));
                for (got, want) in values(&scaled).iter().zip(&row) {
                    assert!((got - want).abs() <= 0.501 * greatest / LARGEST, "{isa:?}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn zeros_stay_and_what_is_not_finite_does_not_vanish() {
        for isa in Isa::available() {
            let mut scaled = vec![1.0; Scaled::length(32)];
            scale_row(isa, &[0.0; 32], &mut scaled);
            assert!(values(&scaled).iter().all(|value| *value == 0.0));
            for odd in [f32::NAN, f32::INFINITY] {
                let mut row = vec![1.0; 32];
                row[5] = odd;
                scale_row(isa, &row, &mut scaled);
                assert!(values(&scaled)[5].is_nan(), "{isa:?}: {odd}");
                let mut column = vec![1.0; 32 * COLUMNS];
                column[7 * COLUMNS + 3] = odd;
                let mut units = [0.0; COLUMNS];
                find_units(isa, &column, &mut units);
                assert!(!units[3].is_finite() && units[4].is_finite(), "{isa:?}: {odd}");
            }
        }
    }

    /// The worst sums: all weights of a chain are as large as the largest, or one is and the others are half a unit.
    #[test]
    fn no_chain_of_products_overflows() {
        let largest = LARGEST as i64;
        for isa in Isa::available() {
            for (many, one) in [(1.0, 1.0), (0.3, 1.0), (1e-5, 1.0), (0.0, 1.0), (0.249_99, 0.25)] {
                let inputs = 4 * CHAIN;
                let mut column = vec![many; inputs * COLUMNS];
                column[..COLUMNS].fill(one);
                let mut units = [0.0; COLUMNS];
                find_units(isa, &column, &mut units);
                for unit in units {
                    let factor = 1.0 / unit;
                    let [many, one] = [many, one].map(|value: f32| (value * factor).round() as i64);
                    assert!(one <= LARGEST_WEIGHT as i64, "{one} is more than 16 bits");
                    let sum = largest * (one + (2 * CHAIN as i64 - 1) * many);
                    assert!(sum <= i64::from(i32::MAX), "{isa:?}: {sum}");
                    assert!(one >= 2000, "{one} has few bits");
                }
            }
        }
    }
}
