//! Rows and columns of products as integers of 16 bits, of which a processor multiplies twice as many at once as of f32, and what
//! their units are.
//!
//! A row is pairs, and behind them a unit for each of its chains; a column has one unit. Units are such that the sum of a chain's
//! products fits in 32 bits, which by the inequality of Cauchy and Schwarz is less than the length of the one vector times that of the
//! other. Only the whole sum has to fit: what passes 32 bits on the way comes back.

use super::isa::{Isa, vectorised};
use super::norm::{Affine, normalised};
use super::scratch::{self, bits};
use super::shared::{Slot, filled, halves};
use super::tile::{COLUMNS, Columns, Integers, ROWS, Run, Units, multiply_integers};
use super::vector::{Loop, Vector, WIDEST, run};
use super::weight::widen;
use rayon::prelude::*;
use std::ops::Range;

/// A number plus this has itself, rounded to the nearest integer, in its lower half.
pub const ROUNDED: f32 = 12_582_912.0;
/// The largest integer of a row, and of a column that may be added to others: four of them together still have 16 bits.
pub const LARGEST: f32 = 8191.0;
/// The largest integer of a column that is not added to others.
pub const LARGEST_ALONE: f32 = 32767.0;
/// The length of a chain's integers as a vector: the root of 2^31, less what rounding adds to it, half a unit each.
const LONGEST: f32 = 46_300.0;
/// The most pairs of a short chain: the length of such a row is not looked for, but at most the root of its count times [`LARGEST`].
const SHORT: usize = 128;
/// Numbers less than this count as zeros: the inverse of their unit would be infinite.
const LEAST: f32 = 1e-30;
/// The same for columns, whose squares must not vanish.
const LEAST_COLUMN: f32 = 1e-18;
/// The most pairs of a chain.
pub const CHAIN: usize = 640;
/// Rows, or pieces of as many rows each, that a task scales.
const AT_ONCE: usize = 8;

/// How the pairs of a depth are cut into chains, as even as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// All pairs.
    pub pairs: usize,
    /// Those of a chain; the last may have fewer.
    pub chain: usize,
}

impl Cut {
    /// Cuts so many pairs.
    pub fn of(pairs: usize) -> Self {
        let chains = pairs.div_ceil(CHAIN).max(1);
        Self { pairs, chain: pairs.div_ceil(chains).max(1) }
    }

    /// What makes rows of `length` elements.
    pub fn of_length(length: usize) -> Self {
        Self::of(length - length.div_ceil(CHAIN + 1))
    }

    /// The number of chains.
    pub fn chains(&self) -> usize {
        self.pairs.div_ceil(self.chain)
    }

    /// The pairs of a chain.
    pub fn range(&self, chain: usize) -> Range<usize> {
        chain * self.chain..self.pairs.min((chain + 1) * self.chain)
    }

    /// Elements of a row: its pairs and its units.
    pub fn length(&self) -> usize {
        self.pairs + self.chains()
    }
}

/// What `scale` makes of pieces of `data`, normalised if there is a norm, `length` elements of each `count` numbers.
///
/// # Safety
/// `scale` must write every element.
pub unsafe fn scaled_pieces(
    isa: Isa,
    (data, norm): (&[f32], Option<Affine>),
    count: usize,
    length: usize,
    scale: impl Fn(&[f32], &mut [Slot]) + Sync,
) -> Vec<f32> {
    let write = |out: &mut [Slot]| {
        let chunks = data.par_chunks(AT_ONCE * count).zip(out.par_chunks_mut(AT_ONCE * length));
        chunks.for_each(|(data, out)| {
            let pieces = data.chunks_exact(count).zip(out.chunks_exact_mut(length));
            pieces.for_each(|(piece, out)| normalised(isa, piece, norm, |piece| scale(piece, out)));
        });
    };
    // SAFETY: the caller's promise.
    unsafe { filled(data.len() / count * length, write) }
}

/// Adds the products of a chain of up to [`ROWS`] rows of `length` elements, as [`scale_rows`] makes them, and of columns over their
/// whole depth to `c`, and scales them by the columns' `units` at the end.
pub fn multiply_chain(
    isa: Isa,
    (rows, length): (&[f32], usize),
    (columns, units): (Columns<u32>, &[f32]),
    chain: usize,
    c: &mut [f32],
) {
    let cut = Cut::of_length(length);
    let pairs = cut.range(chain);
    let b = Columns { numbers: &columns.numbers[pairs.start * COLUMNS..pairs.end * COLUMNS], ..columns };
    let complete = pairs.end == cut.pairs;
    let mut units = Units { rows: [0.0; ROWS], columns: complete.then_some(units) };
    for (unit, row) in units.rows.iter_mut().zip(rows.chunks_exact(length)) {
        *unit = row[cut.pairs + chain];
    }
    let tile = Integers { a: Run::of_matrix(bits(rows), length, pairs), b, next: None };
    multiply_integers(isa, &tile, units, c, chain == 0);
}

/// Scales rows of `count` numbers, an even count, to integers in pairs, and puts the units of their chains behind them; what each row
/// becomes begins `step` elements behind what the row before does.
///
/// # Panics
/// If rows are not whole, or do not fit.
pub fn scale_rows(isa: Isa, rows: &[f32], count: usize, (out, step): (&mut [Slot], usize)) {
    let cut = Cut::of(count / 2);
    assert!(rows.len().is_multiple_of(count) && count == 2 * cut.pairs, "rows are whole");
    assert!(rows.len() / count == out.len().div_ceil(step) && step >= cut.length(), "all rows fit");
    // SAFETY: vectors lie within chains.
    unsafe { run(isa, Rows { rows, count, cut, out, step }) }
}

struct Rows<'a> {
    rows: &'a [f32],
    count: usize,
    cut: Cut,
    out: &'a mut [Slot],
    step: usize,
}

impl Loop for Rows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { rows, count, cut, out, step } = self;
        for chain in 0..cut.chains() {
            let pairs = cut.range(chain);
            let numbers = 2 * pairs.start..2 * pairs.end;
            // All units first: then one row's division does not wait for that of the row before.
            for (row, out) in rows.chunks_exact(count).zip(out.chunks_mut(step)) {
                // SAFETY: the caller's promise.
                out[cut.pairs + chain].write(unsafe { unit::<V>(&row[numbers.clone()], cut.chain) });
            }
            for (row, out) in rows.chunks_exact(count).zip(out.chunks_mut(step)) {
                // SAFETY: the caller's promise; the unit was written above.
                unsafe {
                    let factor = factor(out[cut.pairs + chain].assume_init());
                    scale::<V>(&row[numbers.clone()], factor, halves(&mut out[pairs.clone()]));
                }
            }
        }
    }
}

/// The integers nearest to `values` times `factor`.
#[inline(always)]
unsafe fn scale<V: Vector>(values: &[f32], factor: f32, out: &mut [Slot<u16>]) {
    let whole = values.len() / V::LANES * V::LANES;
    for at in (0..whole).step_by(V::LANES) {
        // SAFETY: vectors lie within the values, the results beside them; the rest is the caller's promise.
        unsafe {
            let value = V::load(values.as_ptr().add(at)).times(V::splat(factor)).plus(V::splat(ROUNDED));
            value.store_lower_halves(out.as_mut_ptr().add(at).cast());
        }
    }
    for (out, value) in out[whole..].iter_mut().zip(&values[whole..]) {
        out.write(rounded(*value, factor));
    }
}

/// The unit of a chain of a row, where chains have up to `chain` pairs.
///
/// # Safety
/// The processor must have the vectors' instructions.
#[inline(always)]
pub unsafe fn unit<V: Vector>(values: &[f32], chain: usize) -> f32 {
    // SAFETY: the caller's promise.
    let greatest = unsafe { greatest::<V>(values) };
    if greatest < LEAST {
        return 0.0;
    }
    if chain <= SHORT {
        return greatest * (1.0 / LARGEST);
    }
    // SAFETY: the caller's promise.
    let length = unsafe { relative_length::<V>(values, greatest) };
    // What is not a number is not small either, and goes on in the unit.
    greatest * (1.0 / LARGEST).max(length / LONGEST)
}

/// The greatest magnitude; what is not a number is greater than all.
#[inline(always)]
unsafe fn greatest<V: Vector>(values: &[f32]) -> f32 {
    let mut lanes = [0.0; WIDEST];
    // SAFETY: no vector is wider than what is written; the rest is the caller's promise.
    unsafe {
        let (mut greatest, mut other) = (V::splat(0.0), V::splat(0.0));
        for at in (0..values.len()).step_by(2 * V::LANES) {
            greatest = greatest.or_greater_magnitude(vector(values, at));
            other = other.or_greater_magnitude(vector(values, at + V::LANES));
        }
        greatest.or_greater_magnitude(other).store(lanes.as_mut_ptr());
    }
    // Magnitudes are in the order of their bits.
    f32::from_bits(lanes.into_iter().map(f32::to_bits).fold(0, u32::max))
}

/// The length of `values` as a vector in units of the `greatest` of them, in which squares are at most ones.
#[inline(always)]
unsafe fn relative_length<V: Vector>(values: &[f32], greatest: f32) -> f32 {
    let mut lanes = [0.0; WIDEST];
    // SAFETY: no vector is wider than what is written; the rest is the caller's promise.
    unsafe {
        let inverse = V::splat(1.0 / greatest);
        let (mut squares, mut others) = (V::splat(0.0), V::splat(0.0));
        for at in (0..values.len()).step_by(2 * V::LANES) {
            let value = vector::<V>(values, at).times(inverse);
            squares = squares.plus(value.times(value));
            let value = vector::<V>(values, at + V::LANES).times(inverse);
            others = others.plus(value.times(value));
        }
        squares.plus(others).store(lanes.as_mut_ptr());
    }
    lanes.iter().sum::<f32>().sqrt()
}

/// The numbers from `at` on, if any, and zeros behind the last.
#[inline(always)]
unsafe fn vector<V: Vector>(values: &[f32], at: usize) -> V {
    if values.len() >= at + V::LANES {
        // SAFETY: there are as many numbers; the rest is the caller's promise.
        return unsafe { V::load(values.as_ptr().add(at)) };
    }
    let (mut last, rest) = ([0.0; WIDEST], values.get(at..).unwrap_or_default());
    last[..rest.len()].copy_from_slice(rest);
    // SAFETY: no vector is wider; the rest is the caller's promise.
    unsafe { V::load(last.as_ptr()) }
}

/// The greater of two units; what is not a number is greater than all.
#[inline(always)]
pub fn greater(unit: f32, other: f32) -> f32 {
    f32::from_bits(unit.to_bits().max(other.to_bits()))
}

/// The inverse of a unit, zero for none.
#[inline(always)]
pub fn factor(unit: f32) -> f32 {
    if unit == 0.0 { 0.0 } else { 1.0 / unit }
}

/// The 16 bits of the integer that is nearest to `value` times `factor`.
#[inline(always)]
pub fn rounded(value: f32, factor: f32) -> u16 {
    (value * factor + ROUNDED).to_bits() as u16
}

vectorised!(
    /// What a unit of each column of `[inputs, 32]` is, with integers up to `largest`.
    pub fn find_units(values: &[f32], largest: f32, units: &mut [f32]) => find_units_inner
);

#[inline(always)]
fn find_units_inner<const FUSED: bool>(values: &[f32], largest: f32, units: &mut [f32]) {
    // Magnitudes are in the order of their bits.
    let (mut greatest, mut longest) = ([0; COLUMNS], [0f32; COLUMNS]);
    let Cut { chain, .. } = Cut::of(values.len() / (2 * COLUMNS));
    for values in values.chunks(2 * chain * COLUMNS) {
        let mut squares = [0f32; COLUMNS];
        for row in values.chunks_exact(COLUMNS) {
            for column in 0..COLUMNS {
                squares[column] += row[column] * row[column];
                greatest[column] = row[column].abs().to_bits().max(greatest[column]);
            }
        }
        for (longest, square) in longest.iter_mut().zip(squares) {
            *longest = longest.max(square);
        }
    }
    for ((unit, greatest), longest) in units.iter_mut().zip(greatest.map(f32::from_bits)).zip(longest) {
        *unit = match greatest {
            ..LEAST_COLUMN => 0.0,
            // Not a number, as what becomes of it.
            _ if !greatest.is_finite() => f32::NAN,
            // Squares may be infinite: a vector is not longer than the root of its count times its greatest.
            _ => {
                let length = longest.sqrt().min(greatest * ((2 * chain) as f32).sqrt());
                (greatest / largest).max(length / longest_column(chain))
            }
        };
    }
}

/// The length of a column's integers as a vector, where chains have up to `chain` pairs.
fn longest_column(chain: usize) -> f32 {
    if chain > SHORT {
        return LONGEST;
    }
    let root = ((2 * chain) as f32).sqrt();
    // Less what rounding adds to it, and a thousandth for the roundings of all this.
    0.999 * (2f32.powi(31) / (LARGEST * root) - 0.5 * root)
}

/// The inverses of units, zero for none.
pub fn factors(units: &[f32]) -> Vec<f32> {
    units.iter().map(|unit| factor(*unit)).collect()
}

/// Turns panels of bf16 pairs, of `length` pairs each, into pairs of integers, and tells what a unit of each column is: the same in
/// all of these panels.
pub fn scale_panels(isa: Isa, panels: &mut [u32], length: usize, units: &mut [f32]) {
    scratch::with([2 * length], |[wide]| {
        for (panel, units) in panels.chunks_exact(length).zip(units.chunks_exact_mut(COLUMNS)) {
            widen(isa, panel, wide);
            find_units(isa, wide, LARGEST, units);
        }
    });
    share_units(units);
    let factors = factors(&units[..COLUMNS]);
    panels.chunks_exact_mut(length).for_each(|panel| rescale(isa, panel, &factors));
}

/// Gives each column the greatest unit that it has in any panel.
fn share_units(units: &mut [f32]) {
    for column in 0..COLUMNS {
        let shared = units[column..].iter().step_by(COLUMNS).copied().fold(0.0, greater);
        units[column..].iter_mut().step_by(COLUMNS).for_each(|unit| *unit = shared);
    }
}

vectorised!(fn rescale(pairs: &mut [u32], factors: &[f32]) => rescale_inner);

#[inline(always)]
fn rescale_inner<const FUSED: bool>(pairs: &mut [u32], factors: &[f32]) {
    for row in pairs.chunks_exact_mut(COLUMNS) {
        for (pair, factor) in row.iter_mut().zip(factors) {
            let first = rounded(f32::from_bits(*pair << 16), *factor);
            let second = rounded(f32::from_bits(*pair & 0xffff_0000), *factor);
            *pair = u32::from(first) | u32::from(second) << 16;
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
    use super::*;
    use crate::ops::testing::numbers;

    fn scaled(isa: Isa, row: &[f32]) -> Vec<f32> {
        let length = Cut::of(row.len() / 2).length();
        // SAFETY: the row and its units are written.
        unsafe { filled(length, |out| scale_rows(isa, row, row.len(), (out, length))) }
    }

    fn integers(pairs: &[u32]) -> impl Iterator<Item = i64> {
        pairs
            .iter()
            .flat_map(|pair| [*pair as u16, (pair >> 16) as u16])
            .map(|half| half.cast_signed().into())
    }

    /// The numbers that integers of one chain and their unit stand for.
    fn values(scaled: &[f32]) -> Vec<f32> {
        let (pairs, unit) = scaled.split_at(scaled.len() - 1);
        integers(bits(pairs)).map(|integer| integer as f32 * unit[0]).collect()
    }

    #[test]
    fn chains_are_even_and_make_up_the_depth() {
        for (pairs, chain, chains) in [(1, 1, 1), (320, 320, 1), (640, 640, 1), (641, 321, 2), (2560, 640, 4)]
        {
            let cut = Cut::of(pairs);
            assert_eq!((cut.chain, cut.chains()), (chain, chains));
            assert_eq!((0..chains).map(|chain| cut.range(chain).len()).sum::<usize>(), pairs);
            assert_eq!(Cut::of_length(cut.length()), cut);
        }
    }

    #[test]
    fn a_row_is_rounded_to_fourteen_bits_of_its_greatest() {
        for isa in Isa::available() {
            for (factor, worst) in [(1.0, -5.0), (1e-20, 6.0), (1e20, 9.0)] {
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
                let mut units = [0.0; 2 * COLUMNS];
                find_units(isa, &column, LARGEST, &mut units[..COLUMNS]);
                assert!(!units[3].is_finite() && units[4].is_finite(), "{isa:?}: {odd}");
                share_units(&mut units);
                assert!(!units[COLUMNS + 3].is_finite() && units[COLUMNS + 4] == units[4], "{isa:?}: {odd}");
            }
        }
    }

    /// Rows and columns that are alike have the greatest sums: all of a chain as large as the largest, some, one, or random ones.
    #[test]
    fn no_chain_of_products_overflows_and_none_is_coarse() {
        for pairs in [CHAIN, SHORT, SHORT + 1, 64] {
            sums_fit(pairs);
        }
    }

    fn sums_fit(pairs: usize) {
        let inputs = 2 * pairs;
        let alike = |many: f32, ones: usize| {
            let mut row = vec![many; inputs];
            row[..ones].fill(1.0);
            row
        };
        let rows =
            [alike(1.0, 1), alike(0.0, 1), alike(0.0, 60), alike(0.3, 1), alike(1e-5, 3), numbers(inputs, 7)];
        for isa in Isa::available() {
            for row in
                rows.iter().flat_map(|row| [1.0, 1e18].map(|size| row.iter().map(|x| x * size).collect()))
            {
                let row: Vec<f32> = row;
                let column: Vec<f32> = row.iter().flat_map(|value| [*value; COLUMNS]).collect();
                let mut units = [0.0; COLUMNS];
                find_units(isa, &column, LARGEST_ALONE, &mut units);
                let scaled = scaled(isa, &row);
                let left: Vec<i64> = integers(bits(&scaled[..pairs])).collect();
                let right = row.iter().map(|value| (value / units[0]).round() as i64);
                let sum: i64 = left.iter().zip(right).map(|(left, right)| left * right).sum();
                assert!(sum <= i64::from(i32::MAX), "{isa:?}: {sum}");
                let greatest = left.iter().map(|left| left.abs()).max().unwrap();
                assert!((1000..=8191).contains(&greatest), "{isa:?}: {greatest}");
            }
        }
    }
}
