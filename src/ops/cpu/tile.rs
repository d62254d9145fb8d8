//! The product that everything heavy is made of: a tile of up to 12 rows by 32 columns.

/// Calls `tile::<R>(arguments)`, or `tile::<Kind, R>(arguments)`, for the number of rows at hand: sums stay in registers only if the compiler knows it.
#[cfg(target_arch = "x86_64")]
macro_rules! for_rows {
    ($rows:expr, $tile:ident $(<$kind:ty>)? ($($argument:expr),*)) => {
        match $rows {
            1 => $tile::<$($kind,)? 1>($($argument),*),
            2 => $tile::<$($kind,)? 2>($($argument),*),
            3 => $tile::<$($kind,)? 3>($($argument),*),
            4 => $tile::<$($kind,)? 4>($($argument),*),
            5 => $tile::<$($kind,)? 5>($($argument),*),
            6 => $tile::<$($kind,)? 6>($($argument),*),
            7 => $tile::<$($kind,)? 7>($($argument),*),
            8 => $tile::<$($kind,)? 8>($($argument),*),
            9 => $tile::<$($kind,)? 9>($($argument),*),
            10 => $tile::<$($kind,)? 10>($($argument),*),
            11 => $tile::<$($kind,)? 11>($($argument),*),
            _ => $tile::<$($kind,)? ROWS>($($argument),*),
        }
    };
}

/// Does `$body` for each row below `$rows`, one after the other: in a loop, sums would leave their registers.
#[cfg(target_arch = "x86_64")]
macro_rules! unrolled {
    ($rows:ident, $row:ident => $body:block) => {
        unrolled!(@ $rows, $row => $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $rows:ident, $row:ident => $body:block, $($at:literal)*) => {
        $(if $at < $rows {
            let $row = $at;
            $body
        })*
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512bf16;
#[cfg(target_arch = "x86_64")]
mod integers;
mod portable;

use super::isa::Isa;
use super::shared::Slot;
use std::marker::PhantomData;
use std::ops::Range;

/// The most rows of a tile.
pub const ROWS: usize = 12;
/// The columns of a tile.
pub const COLUMNS: usize = 32;

/// A stretch of the depth in the left operand: for each row of a tile, where its numbers lie.
///
/// They are read from where they are: no row is copied or transposed before it is multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a, T> {
    starts: [*const T; ROWS],
    /// From a row's number to its next.
    step: usize,
    length: usize,
    rows: usize,
    owner: PhantomData<&'a [T]>,
}

impl<'a, T> Run<'a, T> {
    /// Up to [`ROWS`] rows of one length, each contiguous.
    ///
    /// # Panics
    /// If there are none or too many, or their lengths differ.
    pub fn of_rows(rows: &[&'a [T]]) -> Self {
        let length = rows[0].len();
        assert!(rows.len() <= ROWS && rows.iter().all(|row| row.len() == length), "rows have one length");
        let mut starts = [rows[0].as_ptr(); ROWS];
        for (start, row) in starts.iter_mut().zip(rows) {
            *start = row.as_ptr();
        }
        Self { starts, step: 1, length, rows: rows.len(), owner: PhantomData }
    }

    /// The columns `part` of up to [`ROWS`] rows `[rows, width]`.
    ///
    /// # Panics
    /// If there are none or too many, or they do not fill `values`.
    pub fn of_matrix(values: &'a [T], width: usize, part: Range<usize>) -> Self {
        let rows = values.len() / width;
        assert!((1..=ROWS).contains(&rows) && values.len() == rows * width, "up to {ROWS} whole rows");
        let first = values[..width][part.clone()].as_ptr();
        let starts = std::array::from_fn(|row| first.wrapping_add(row.min(rows - 1) * width));
        Self { starts, step: 1, length: part.len(), rows, owner: PhantomData }
    }

    /// A part of the depth.
    ///
    /// # Panics
    /// If it does not lie within.
    pub fn part(&self, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= self.length, "a part lies within");
        let starts = self.starts.map(|start| start.wrapping_add(part.start * self.step));
        Self { starts, length: part.len(), ..*self }
    }

    /// `rows` rows that lie side by side: `values` is `[length, rows]`.
    ///
    /// # Panics
    /// If there are none or too many, or they do not fill `values`.
    pub fn of_columns(values: &'a [T], rows: usize) -> Self {
        assert!(
            (1..=ROWS).contains(&rows) && values.len().is_multiple_of(rows),
            "whole columns of up to {ROWS} rows"
        );
        let length = values.len() / rows;
        // A last row's start lies within `values` unless there is nothing to read.
        let starts = std::array::from_fn(|row| values.as_ptr().wrapping_add(row.min(rows - 1)));
        Self { starts, step: rows, length, rows, owner: PhantomData }
    }
}

/// The right operand of a tile: `[k, 32]`.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a, T> {
    /// Its numbers, row by row.
    pub numbers: &'a [T],
    /// How many columns are asked for: those behind them may be left out, and what the result holds there is anything.
    pub used: usize,
    /// Rows between the one that is multiplied and one that is fetched into the cache, which may lie behind `numbers`: where
    /// they are multiplied once, what is multiplied after them.
    pub ahead: usize,
}

/// Rows that are fetched ahead where columns lie in some cache: with six cycles for each they come from the third level in time.
const AHEAD: usize = 24;

impl<'a, T> From<&'a [T]> for Columns<'a, T> {
    fn from(numbers: &'a [T]) -> Self {
        Self { numbers, used: COLUMNS, ahead: AHEAD }
    }
}

/// The rows of a tile's parts, of at most `most` rows: in even halves where one part is too low, because a part of two rows takes as
/// long as one of four.
#[cfg(target_arch = "x86_64")]
fn halves(rows: usize, most: usize) -> [Range<usize>; 2] {
    let upper = if rows > most { rows.div_ceil(2) } else { rows };
    [0..upper, upper..rows]
}

/// What a tile's operands consist of: f32, or pairs of bf16 that each are two steps of the depth.
pub trait Element: Copy + Send + Sync {
    /// Steps of the depth in an element.
    const STEPS: usize;

    /// Multiplies a tile, as [`multiply`] and [`dot`] do.
    fn multiply(isa: Isa, a: &[Run<Self>], b: Columns<Self>, c: &mut [f32], fresh: bool);
}

impl Element for f32 {
    const STEPS: usize = 1;

    fn multiply(isa: Isa, a: &[Run<f32>], b: Columns<f32>, c: &mut [f32], fresh: bool) {
        multiply(isa, a, b, c, fresh);
    }
}

impl Element for u32 {
    const STEPS: usize = 2;

    fn multiply(isa: Isa, a: &[Run<u32>], b: Columns<u32>, c: &mut [f32], fresh: bool) {
        dot(isa, a, b, c, fresh);
    }
}

/// `c = a^T b`, or `c += a^T b` unless `fresh`, over the depth `k` of all runs of `a` together and of `b` `[k, 32]`; `c` is
/// `[rows, 32]` with at most [`ROWS`] rows.
///
/// In each run an element is one chain of multiply-adds from zero; runs are added to `c` one after the other.
///
/// # Panics
/// If the lengths do not fit together.
pub fn multiply(isa: Isa, a: &[Run<f32>], b: Columns<f32>, c: &mut [f32], fresh: bool) {
    let rows = checked(a, b.numbers, c);
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512::multiply(rows, a, b.numbers, c, fresh) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx2 => unsafe { avx2::multiply(rows, a, b, c, fresh) },
        // SAFETY: the lengths were checked above.
        _ => unsafe { portable::multiply(rows, a, b.numbers, c, fresh) },
    }
}

/// [`multiply`] over pairs of bf16: an element of `a` and `b` holds two steps of the depth, the first in its lower half.
///
/// In each run an element is one chain of sums of two products; what is too small for a normal number counts as zero.
///
/// # Panics
/// If the lengths do not fit together, or `isa` is not [`Isa::Avx512Bf16`].
pub fn dot(isa: Isa, a: &[Run<u32>], b: Columns<u32>, c: &mut [f32], fresh: bool) {
    let rows = checked(a, b.numbers, c);
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 => unsafe { avx512bf16::multiply(rows, a, b.numbers, c, fresh) },
        _ => panic!("{rows} rows: {isa:?} has no dot products of bf16 pairs"),
    }
}

/// A tile of integers.
#[derive(Debug, Clone, Copy)]
pub struct Integers<'a> {
    /// Its rows, of pairs.
    pub a: Run<'a, u32>,
    /// Its columns, of pairs.
    pub b: Columns<'a, u32>,
    /// What is fetched into the cache meanwhile, a line for each step of the depth; instead of what `b` says.
    pub next: Option<&'a [u32]>,
}

/// What units of a chain are.
#[derive(Debug, Clone, Copy)]
pub struct Units<'a> {
    /// For each row of a tile.
    pub rows: [f32; ROWS],
    /// For each of the 32 columns, where sums are complete.
    pub columns: Option<&'a [f32]>,
}

/// `c = a^T b`, or `c += a^T b` unless `fresh`, over the pairs of 16-bit integers of a chain, times what units of its rows are; then
/// times what units of the columns are, if they are told. `c` is `[rows, 32]`, of which those columns are written that `b` uses.
///
/// Sums must fit in 32 bits.
///
/// # Panics
/// If the lengths do not fit together, rows are not contiguous, or `isa` is [`Isa::Portable`].
pub fn multiply_integers(isa: Isa, tile: &Integers, units: Units, c: &mut [f32], fresh: bool) {
    let rows = checked(&[tile.a], tile.b.numbers, c);
    assert!(units.columns.is_none_or(|columns| columns.len() == COLUMNS), "columns have units");
    #[cfg(target_arch = "x86_64")]
    tile.multiply(isa, rows, &mut integers::Scaled { units, c, fresh });
    #[cfg(not(target_arch = "x86_64"))]
    panic!("{rows} rows, fresh: {fresh}: {isa:?} has no products of integers");
}

/// Adds the sums over the pairs of 16-bit integers of a chain to rows of what is in `c`, or to nothing, for each of `steps`, and puts
/// the result there, too, or scales it. `c` is `[2, rows, 2, 32]`, of which each step takes `[rows, 32]`; all of it is modulo 2^32.
///
/// # Panics
/// As [`multiply_integers`].
pub fn add_integers(isa: Isa, tile: &Integers, steps: &[Step], c: &mut [u32], settled: Settled) {
    let (rows, depth) = (c.len() / (4 * COLUMNS), tile.b.numbers.len() / COLUMNS);
    assert!(
        (1..=ROWS).contains(&rows) && tile.a.rows >= rows && tile.a.length == depth,
        "operands do not fit"
    );
    assert!(c.len() == 4 * rows * COLUMNS && settled.sums.len() == c.len(), "results do not fit");
    let end = (2 * rows - 1) * COLUMNS;
    assert!(
        steps.iter().all(|step| step.from.unwrap_or(0).max(step.to) + end <= c.len()),
        "steps lie within"
    );
    assert!(settled.units.columns.is_none_or(|columns| columns.len() == COLUMNS), "columns have units");
    #[cfg(target_arch = "x86_64")]
    tile.multiply(isa, rows, &mut integers::Added { steps, c, settled });
    #[cfg(not(target_arch = "x86_64"))]
    panic!("{isa:?} has no products of integers");
}

/// Where sums of integers are put, and what is added to them.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Where what is added begins; nothing if it is nowhere.
    pub from: Option<usize>,
    /// Where the result begins.
    pub to: usize,
    /// Whether it is complete, and scaled.
    pub last: bool,
}

/// Where complete sums go.
#[derive(Debug)]
pub struct Settled<'a> {
    /// What units of their rows and columns are.
    pub units: Units<'a>,
    /// As long as the sums.
    pub sums: &'a mut [f32],
    /// Whether they are not added to what is there.
    pub fresh: bool,
}

/// The rows of a tile, whose operands fit together.
fn checked<T>(a: &[Run<T>], b: &[T], c: &[f32]) -> usize {
    let rows = c.len() / COLUMNS;
    let depth: usize = a.iter().map(|run| run.length).sum();
    assert!((1..=ROWS).contains(&rows) && c.len() == rows * COLUMNS, "a tile has 1 to {ROWS} rows");
    assert!(b.len() == depth * COLUMNS && a.iter().all(|run| run.rows >= rows), "operands do not fit");
    rows
}

/// Rounds `x` to bf16, to nearest and ties to even, and packs it two by two, the first in the lower half; a last one
/// without a second gets a zero.
///
/// # Panics
/// If `out` is not half as long, or `isa` is not [`Isa::Avx512Bf16`].
pub fn pair_up(isa: Isa, x: &[f32], out: &mut [Slot<u32>]) {
    assert_eq!(out.len(), x.len().div_ceil(2), "two numbers make a pair");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features were found by `Isa::available`.
        Isa::Avx512Bf16 => unsafe { avx512bf16::pair_up(x, out) },
        _ => panic!("{isa:?} has no bf16 pairs"),
    }
}

/// Rounds `x` `[depth, columns]` to bf16, to nearest and ties to even, and packs it two by two down its columns, the first in the
/// lower half: into bits `[depth / 2, columns]`, where an odd depth is filled up with zeros.
///
/// # Panics
/// If `out` is not as long, or `isa` is not [`Isa::Avx512Bf16`].
pub fn pair_rows(isa: Isa, x: &[f32], columns: usize, out: &mut [f32]) {
    assert!(x.len().is_multiple_of(columns), "rows are whole");
    assert_eq!(out.len(), (x.len() / columns).div_ceil(2) * columns, "two rows make one of pairs");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 => unsafe { avx512bf16::pair_rows(x, columns, out) },
        _ => panic!("{isa:?} has no bf16 pairs"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::filled;
    use super::*;
    use crate::ops::testing::numbers;

    fn paired(values: &[f32]) -> Vec<u32> {
        let write = |out: &mut [Slot<u32>]| pair_up(Isa::Avx512Bf16, values, out);
        // SAFETY: all numbers are packed.
        unsafe { filled(values.len().div_ceil(2), write) }
    }

    #[test]
    fn rows_are_read_from_where_they_lie_in_several_runs() {
        for isa in Isa::available() {
            for rows in 1..=ROWS {
                let (pool, b) = (numbers(5000, 1), numbers(50 * COLUMNS, 2));
                // Stretches of 20, 1 and 29 numbers for each row, from all over the place.
                let place = |row: usize, run: usize| (row * 377 + run * 1511) % 4900;
                let lengths = [20, 1, 29];
                let runs: Vec<Run<f32>> = (0..3)
                    .map(|run| {
                        let rows: Vec<&[f32]> =
                            (0..rows).map(|row| &pool[place(row, run)..][..lengths[run]]).collect();
                        Run::of_rows(&rows)
                    })
                    .collect();
                let mut c = vec![0.0; rows * COLUMNS];
                multiply(isa, &runs, b[..].into(), &mut c, true);
                let together: Vec<f32> = (0..3)
                    .flat_map(|run| {
                        (0..lengths[run]).flat_map(move |i| (0..rows).map(move |row| (row, run, i)))
                    })
                    .map(|(row, run, i)| pool[place(row, run) + i])
                    .collect();
                let (mut want, mut b, mut from) = (vec![0.0; rows * COLUMNS], &b[..], 0);
                for (run, length) in lengths.into_iter().enumerate() {
                    let (columns, rest) = b.split_at(length * COLUMNS);
                    let a = &together[from * rows..(from + length) * rows];
                    multiply(isa, &[Run::of_columns(a, rows)], columns.into(), &mut want, run == 0);
                    (b, from) = (rest, from + length);
                }
                assert_eq!(c, want, "{isa:?}, {rows} rows");
            }
        }
    }

    #[test]
    fn every_instruction_set_multiplies_tiles_of_every_height() {
        for isa in Isa::available() {
            for rows in 1..=ROWS {
                for k in [1, 2, 7, 64, 333] {
                    let (a, b) = (numbers(k * rows, 1), numbers(k * COLUMNS, 2));
                    let mut c = numbers(rows * COLUMNS, 3);
                    let before = c.clone();
                    multiply(isa, &[Run::of_columns(&a, rows)], b[..].into(), &mut c, false);
                    for (at, got) in c.iter().enumerate() {
                        let (row, column) = (at / COLUMNS, at % COLUMNS);
                        let product =
                            |i: usize| f64::from(a[i * rows + row]) * f64::from(b[i * COLUMNS + column]);
                        let want = f64::from(before[at]) + (0..k).map(product).sum::<f64>();
                        let bound = 1e-6 * (k as f64).sqrt().max(1.0);
                        assert!((f64::from(*got) - want).abs() < bound, "{isa:?} {rows} rows, depth {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn columns_that_are_used_are_the_same_without_the_others_and_whatever_is_fetched() {
        let (a, b) = (numbers(40 * ROWS, 1), numbers(40 * COLUMNS, 2));
        for isa in Isa::available() {
            for rows in 1..=ROWS {
                let a = [Run::of_columns(&a[..40 * rows], rows)];
                let mut all = vec![0.0; rows * COLUMNS];
                multiply(isa, &a, b[..].into(), &mut all, true);
                for used in 1..=COLUMNS {
                    let mut some = vec![0.0; rows * COLUMNS];
                    multiply(isa, &a, Columns { numbers: &b, used, ahead: 10_000 }, &mut some, true);
                    for (some, all) in some.chunks(COLUMNS).zip(all.chunks(COLUMNS)) {
                        assert_eq!(some[..used], all[..used], "{isa:?}, {used} of {rows} rows");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pairs_multiply_as_the_numbers_that_they_were_rounded_to() {
        let isa = Isa::Avx512Bf16;
        if !Isa::available().contains(&isa) {
            return;
        }
        for rows in 1..=ROWS {
            for k in [1, 2, 7, 64, 333] {
                let (a, b) = (numbers(2 * k * rows, 1), numbers(2 * k * COLUMNS, 2));
                let mut c = numbers(rows * COLUMNS, 3);
                let before = c.clone();
                let (left, right) = (paired(&a), paired(&b));
                dot(isa, &[Run::of_columns(&left, rows)], right[..].into(), &mut c, false);
                let rounded = |value: f32| f64::from(half::bf16::from_f32(value));
                for (at, got) in c.iter().enumerate() {
                    let (row, column) = (at / COLUMNS, at % COLUMNS);
                    let product = |i: usize| {
                        let (a, b) = (&a[2 * (i * rows + row)..], &b[2 * (i * COLUMNS + column)..]);
                        (0..2).map(|half| rounded(a[half]) * rounded(b[half])).sum::<f64>()
                    };
                    let want = f64::from(before[at]) + (0..k).map(product).sum::<f64>();
                    // The instruction rounds each pair's sum once more.
                    let bound = 2e-6 * (k as f64).sqrt().max(1.0);
                    assert!(
                        (f64::from(*got) - want).abs() < bound,
                        "{rows} rows, {k} pairs: {got} for {want}"
                    );
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pairs_are_rounded_to_nearest_and_ties_to_even() {
        let isa = Isa::Avx512Bf16;
        if !Isa::available().contains(&isa) {
            return;
        }
        let mut values = numbers(67, 4);
        values.extend([1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.0, 1e38, f32::INFINITY, 3e38]);
        let pairs = paired(&values);
        for (at, value) in values.iter().enumerate() {
            let half = (pairs[at / 2] >> (16 * (at % 2))) as u16;
            assert_eq!(half, half::bf16::from_f32(*value).to_bits(), "{value}");
        }
        assert_eq!(pairs[values.len() / 2] >> 16, 0, "the last has no second");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn rows_are_paired_down_their_columns() {
        let isa = Isa::Avx512Bf16;
        if !Isa::available().contains(&isa) {
            return;
        }
        for columns in [1, 4, 12, 16, 32] {
            for depth in [1, 2, 7, 40] {
                let x = numbers(depth * columns, 7);
                let mut out = vec![f32::NAN; depth.div_ceil(2) * columns];
                pair_rows(isa, &x, columns, &mut out);
                for (at, pair) in out.iter().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let number = |row: usize| {
                        x.get(row * columns + column).map_or(0, |x| half::bf16::from_f32(*x).to_bits())
                    };
                    let want = u32::from(number(2 * row)) | u32::from(number(2 * row + 1)) << 16;
                    assert_eq!(pair.to_bits(), want, "{depth} x {columns}");
                }
            }
        }
    }

    #[test]
    fn integers_multiply_exactly_and_are_scaled_by_row_and_column() {
        let pair = |first: i32, second: i32| (first as u32 & 0xffff) | (second as u32) << 16;
        let paired = |values: &[i32], step: usize| -> Vec<u32> {
            values.chunks(2 * step).flat_map(|two| (0..step).map(|i| pair(two[i], two[step + i]))).collect()
        };
        let integers = |count, most: f32, seed| -> Vec<i32> {
            numbers(count, seed).iter().map(|value| (value * most).clamp(-most, most) as i32).collect()
        };
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for rows in 1..=ROWS {
                for pairs in [1, 2, 7, 128, 129] {
                    // Sums of so many products of these fit in 32 bits, whatever they are.
                    let a = integers(2 * pairs * rows, 8191.0, 1);
                    let b = integers(2 * pairs * COLUMNS, 1000.0, 2);
                    let (left, right) = (paired(&a, 1), paired(&b, COLUMNS));
                    let left: Vec<&[u32]> = left.chunks(pairs).collect();
                    let unit = |row: usize| 0.5 + row as f32;
                    let columns: Vec<f32> = (0..COLUMNS).map(|column| 0.25 + column as f32).collect();
                    for used in [COLUMNS, 17, 3] {
                        let b = Columns { used, ..right[..].into() };
                        let tile = Integers { a: Run::of_rows(&left), b, next: None };
                        let mut units = Units { rows: std::array::from_fn(unit), columns: None };
                        let mut c = vec![f32::NAN; rows * COLUMNS];
                        multiply_integers(isa, &tile, units, &mut c, true);
                        units.columns = Some(&columns);
                        multiply_integers(isa, &tile, units, &mut c, false);
                        for (at, got) in c.iter().enumerate().filter(|(at, _)| at % COLUMNS < used) {
                            let (row, column) = (at / COLUMNS, at % COLUMNS);
                            let sum = exact_sum(&a[row * 2 * pairs..], &right, column);
                            let units = f64::from(unit(row) * columns[column]);
                            let want = 2.0 * sum as f64 * units;
                            // Sums are exact until they become f32.
                            assert!(
                                (f64::from(*got) - want).abs() <= 2e-7 * want.abs(),
                                "{isa:?}: {got} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn sums_of_integers_are_added_step_by_step() {
        let pairs = 37;
        let whole = |count, seed| -> Vec<u32> {
            numbers(count, seed).iter().map(|value| (value * 1e9) as i32 as u32).collect()
        };
        let (left, right) = (whole(ROWS * pairs, 1), whole(pairs * COLUMNS, 2));
        let line = vec![0; 16 * pairs];
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for rows in 1..=ROWS {
                let rows_of_pairs: Vec<&[u32]> = left.chunks(pairs).take(rows).collect();
                let a = Run::of_rows(&rows_of_pairs);
                let tile = Integers { a, b: right[..].into(), next: Some(&line) };
                let before = whole(4 * rows * COLUMNS, 3);
                let mut c = before.clone();
                let (second, third) = (COLUMNS, 2 * rows * COLUMNS);
                let steps = [(Some(second), third, false), (None, second, false), (Some(second), 0, true)];
                let steps = steps.map(|(from, to, last)| Step { from, to, last });
                let mut sums = vec![0.5; c.len()];
                let columns: Vec<f32> = (0..COLUMNS).map(|column| 0.25 + column as f32).collect();
                let units =
                    Units { rows: std::array::from_fn(|row| 1.0 + row as f32), columns: Some(&columns) };
                add_integers(isa, &tile, &steps, &mut c, Settled { units, sums: &mut sums, fresh: false });
                for (at, got) in c.iter().enumerate() {
                    let (row, place) = (at / (2 * COLUMNS), at % (2 * COLUMNS));
                    let sum = |row: usize| {
                        let left =
                            rows_of_pairs[row].iter().flat_map(|pair| [*pair as i16, (pair >> 16) as i16]);
                        exact_sum(&left.map(i32::from).collect::<Vec<_>>(), &right, place % COLUMNS) as u32
                    };
                    let want = match (row < rows, place < COLUMNS) {
                        (true, false) => sum(row),
                        (false, true) => {
                            before[(2 * row - 2 * rows + 1) * COLUMNS + place].wrapping_add(sum(row - rows))
                        }
                        _ => before[at],
                    };
                    assert_eq!(*got, want, "{isa:?}: {at} of {rows} rows");
                    let twice = sum(row % rows).wrapping_mul(2).cast_signed() as f32;
                    let settled = (0.5 + twice * units.rows[row % rows]) * columns[place % COLUMNS];
                    let want = if row < rows && place < COLUMNS { settled } else { 0.5 };
                    assert_eq!(sums[at], want, "{isa:?}: {at} of {rows} rows");
                }
            }
        }
    }

    /// The product of a row and a column of pairs.
    fn exact_sum(row: &[i32], right: &[u32], column: usize) -> i64 {
        let depth = 2 * right.len() / COLUMNS;
        (0..depth).map(|i| i64::from(row[i]) * i64::from(right_at(right, i, column))).sum()
    }

    /// Number `i` of a column of pairs.
    fn right_at(pairs: &[u32], i: usize, column: usize) -> i16 {
        (pairs[i / 2 * COLUMNS + column] >> (16 * (i % 2))) as u16 as i16
    }

    #[test]
    fn a_row_of_a_tile_does_not_depend_on_the_others() {
        let k = 100;
        let (rows, b) = (numbers(k * ROWS, 5), numbers(k * COLUMNS, 6)); // [12, k], [k, 32]
        let tile = |from: usize, count: usize, isa| {
            let a: Vec<f32> = (0..k)
                .flat_map(|i| (from..from + count).map(move |row| (row, i)))
                .map(|(row, i)| rows[row * k + i])
                .collect();
            let mut c = vec![0.0; count * COLUMNS];
            multiply(isa, &[Run::of_columns(&a, count)], b[..].into(), &mut c, true);
            c
        };
        for isa in Isa::available() {
            let whole = tile(0, ROWS, isa);
            for from in 0..ROWS {
                for count in 1..=ROWS - from {
                    let part = tile(from, count, isa);
                    assert_eq!(part, whole[from * COLUMNS..(from + count) * COLUMNS], "{isa:?}");
                }
            }
        }
    }
}
