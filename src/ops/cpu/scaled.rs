//! Rows and columns of products as integers of 16 bits, of which a processor multiplies twice as many at once as of f32, and what
//! their units are.
//!
//! A row is pairs, and behind them a unit for each of its chains, the greatest of which is as large an integer as may be: rounding
//! them errs by 14 bits of the greatest of a chain, where bf16 errs by 8 bits of each. A column has one unit.

use super::isa::{Isa, vectorised};
use super::scratch;
use super::shared::{Slot, halves};
use super::tile::{CHAIN, COLUMNS};
use super::weight::widen;

/// A number plus this has itself, rounded to the nearest integer, in its lower half.
pub const ROUNDED: f32 = 12_582_912.0;
/// The largest integer of a row.
const LARGEST: f32 = 8191.0;
/// The largest integer of a column.
const LARGEST_WEIGHT: f32 = 32767.0;
/// What the integers of a chain of a column may sum up to, signs apart, so that with the largest of a row their products fit in 32
/// bits: 2^31 over [`LARGEST`], less half a unit for the rounding of each.
const LONGEST: f32 = 262_000.0;
/// Numbers less than this count as zeros: the inverse of their unit would be infinite.
const LEAST: f32 = 1e-30;

/// Elements of a row of `count` numbers.
pub fn length(count: usize) -> usize {
    count / 2 + count.div_ceil(2 * CHAIN)
}

/// The pairs among `length` elements of a row.
pub fn pairs(length: usize) -> usize {
    length - length.div_ceil(CHAIN + 1)
}

vectorised!(
    /// Scales an even number of values to integers, in pairs, and puts the units of their chains behind them.
    pub fn scale_row(values: &[f32], out: &mut [Slot]) => scale_row_inner
);

#[inline(always)]
fn scale_row_inner<const FUSED: bool>(values: &[f32], out: &mut [Slot]) {
    let (pairs, units) = out.split_at_mut(values.len() / 2);
    let chains = values.chunks(2 * CHAIN).zip(pairs.chunks_mut(CHAIN));
    for ((values, pairs), out) in chains.zip(units) {
        // Magnitudes are in the order of their bits, of which the compiler takes the maximum by vectors.
        let greatest = values.iter().fold(0, |greatest, value| greatest.max(value.abs().to_bits()));
        let greatest = f32::from_bits(greatest);
        // What is not a number is not small either, and goes on in the unit.
        let factor = if greatest < LEAST { 0.0 } else { LARGEST / greatest };
        for (out, value) in halves(pairs).iter_mut().zip(values) {
            out.write((value * factor + ROUNDED).to_bits() as u16);
        }
        out.write(greatest / LARGEST);
    }
}

vectorised!(
    /// What a unit of each column of `[inputs, 32]` is.
    pub fn find_units(values: &[f32], units: &mut [f32]) => find_units_inner
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

/// The inverses of units, zero for none.
pub fn factors(units: &[f32]) -> Vec<f32> {
    units.iter().map(|unit| if *unit == 0.0 { 0.0 } else { 1.0 / unit }).collect()
}

/// Turns a panel of bf16 pairs into pairs of integers, and tells what a unit of each column is.
pub fn scale_panel(isa: Isa, panel: &mut [u32], units: &mut [f32]) {
    scratch::with([2 * panel.len()], |[wide]| {
        widen(isa, panel, wide);
        find_units(isa, wide, units);
    });
    rescale(isa, panel, &factors(units));
}

vectorised!(fn rescale(pairs: &mut [u32], factors: &[f32]) => rescale_inner);

#[inline(always)]
fn rescale_inner<const FUSED: bool>(pairs: &mut [u32], factors: &[f32]) {
    for row in pairs.chunks_exact_mut(COLUMNS) {
        for (pair, factor) in row.iter_mut().zip(factors) {
            let first = f32::from_bits(*pair << 16) * factor + ROUNDED;
            let second = f32::from_bits(*pair & 0xffff_0000) * factor + ROUNDED;
            *pair = (first.to_bits() & 0xffff) | (second.to_bits() << 16);
        }
    }
}

vectorised!(
    /// The numbers that rows of pairs of integers stand for, as twice as many rows.
    pub fn widen_integers(pairs: &[u32], units: &[f32], wide: &mut [f32]) => widen_integers_inner
);

#[inline(always)]
fn widen_integers_inner<const FUSED: bool>(pairs: &[u32], units: &[f32], wide: &mut [f32]) {
    for (wide, pairs) in wide.chunks_exact_mut(2 * COLUMNS).zip(pairs.chunks_exact(COLUMNS)) {
        let (first, second) = wide.split_at_mut(COLUMNS);
        for (column, pair) in pairs.iter().enumerate() {
            first[column] = f32::from(*pair as u16 as i16) * units[column];
            second[column] = f32::from((*pair >> 16) as u16 as i16) * units[column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::bits;
    use super::super::shared::filled;
    use super::*;
    use crate::ops::testing::numbers;

    fn scaled(isa: Isa, row: &[f32]) -> Vec<f32> {
        // SAFETY: the row and its units are written.
        unsafe { filled(length(row.len()), |out| scale_row(isa, row, out)) }
    }

    /// The numbers that integers of one chain and their unit stand for.
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
                let scaled = scaled(isa, &row);
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
            assert!(values(&scaled(isa, &[0.0; 32])).iter().all(|value| *value == 0.0));
            for odd in [f32::NAN, f32::INFINITY] {
                let mut row = vec![1.0; 32];
                row[5] = odd;
                assert!(values(&scaled(isa, &row))[5].is_nan(), "{isa:?}: {odd}");
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
                    assert!(one >= 1000, "{one} has few bits");
                }
            }
        }
    }
}
