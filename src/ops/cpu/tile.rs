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
use super::scaled;
use super::scratch::bits;
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

/// Pairs of the depth whose products are summed in 32 bits; their sum in f32 goes on from there.
pub const CHAIN: usize = 128;

/// A tile of integers.
#[derive(Debug, Clone, Copy)]
pub struct Integers<'a> {
    /// Its rows, of pairs.
    pub a: Run<'a, u32>,
    /// Its columns, of pairs.
    pub b: Columns<'a, u32>,
    /// What a unit is in each chain of each row.
    pub units: [&'a [f32]; ROWS],
    /// What a unit of each of the 32 columns is, where sums are complete.
    pub columns: Option<&'a [f32]>,
}

impl<'a> Integers<'a> {
    /// The product of up to [`ROWS`] rows of [`scaled`](super::scaled) numbers over some of their pairs, whole chains.
    pub fn of_scaled(
        rows: &[&'a [f32]],
        pairs: Range<usize>,
        b: Columns<'a, u32>,
        columns: Option<&'a [f32]>,
    ) -> Self {
        let all = scaled::pairs(rows[0].len());
        let chains = all + pairs.start / CHAIN..all + pairs.end.div_ceil(CHAIN);
        let row = |at: usize| rows[at.min(rows.len() - 1)];
        let a: [&[u32]; ROWS] = std::array::from_fn(|at| &bits(row(at))[pairs.clone()]);
        let units = std::array::from_fn(|at| &row(at)[chains.clone()]);
        Self { a: Run::of_rows(&a[..rows.len()]), b, units, columns }
    }
}

/// `c = a^T b`, or `c += a^T b` unless `fresh`, over pairs of 16-bit integers, each chain times its unit; then times what units of
/// the columns are, if they are told. `c` is `[rows, 32]`, of which those columns are written that `b` uses.
///
/// Sums over [`CHAIN`] pairs must fit in 32 bits.
///
/// # Panics
/// If the lengths do not fit together, rows are not contiguous, or `isa` is [`Isa::Portable`].
pub fn multiply_integers(isa: Isa, tile: &Integers, c: &mut [f32], fresh: bool) {
    let rows = checked(&[tile.a], tile.b.numbers, c);
    let chains = tile.a.length.div_ceil(CHAIN);
    assert!(
        tile.a.step == 1 && tile.units[..rows].iter().all(|units| units.len() == chains),
        "units of chains"
    );
    assert!(tile.columns.is_none_or(|columns| columns.len() == COLUMNS), "columns have units");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features here and by `Isa::available`.
        Isa::Avx512Bf16 | Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => unsafe {
            tile.fused(rows, c, fresh);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 | Isa::Avx512 => unsafe { tile.wide(rows, c, fresh) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { tile.narrow(rows, c, fresh) },
        _ => panic!("{rows} rows: {isa:?} has no products of integers"),
    }
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
                for pairs in [1, 2, 7, CHAIN, CHAIN + 1, 3 * CHAIN] {
                    // 2 * CHAIN products of these fit in 32 bits, whatever they are.
                    let a = integers(2 * pairs * rows, 8191.0, 1);
                    let b = integers(2 * pairs * COLUMNS, 2040.0, 2);
                    let (left, right) = (paired(&a, 1), paired(&b, COLUMNS));
                    let left: Vec<&[u32]> = left.chunks(pairs).collect();
                    let unit = |row: usize, chain: usize| 0.5 + row as f32 + 0.125 * chain as f32;
                    let chains = pairs.div_ceil(CHAIN);
                    let units: Vec<Vec<f32>> =
                        (0..ROWS).map(|row| (0..chains).map(|chain| unit(row, chain)).collect()).collect();
                    let units = std::array::from_fn(|row| &units[row][..]);
                    let columns: Vec<f32> = (0..COLUMNS).map(|column| 0.25 + column as f32).collect();
                    for used in [COLUMNS, 17, 3] {
                        let b = Columns { used, ..right[..].into() };
                        let mut tile = Integers { a: Run::of_rows(&left), b, units, columns: None };
                        let mut c = vec![f32::NAN; rows * COLUMNS];
                        multiply_integers(isa, &tile, &mut c, true);
                        tile.columns = Some(&columns);
                        multiply_integers(isa, &tile, &mut c, false);
                        for (at, got) in c.iter().enumerate().filter(|(at, _)| at % COLUMNS < used) {
                            let (row, column) = (at / COLUMNS, at % COLUMNS);
                            let product = |i| {
                                let product = a[row * 2 * pairs + i] * i32::from(right_at(&right, i, column));
                                f64::from(product) * f64::from(unit(row, i / (2 * CHAIN)))
                            };
                            let sum: f64 = (0..2 * pairs).map(product).sum();
                            let want = 2.0 * sum * f64::from(columns[column]);
                            // Each chain is exact until it becomes f32.
                            let size = 8191.0 * 2040.0 * 4.0 * pairs as f64;
                            let bound = 2e-7 * size * f64::from(unit(row, chains) * columns[column]);
                            assert!((f64::from(*got) - want).abs() <= bound, "{isa:?}: {got} for {want}");
                        }
                    }
                }
            }
        }
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
