//! The product that everything heavy is made of: a tile of up to 12 rows by 32 columns.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512bf16;
mod portable;

use super::isa::Isa;

/// The most rows of a tile.
pub const ROWS: usize = 12;
/// The columns of a tile.
pub const COLUMNS: usize = 32;

/// `c = a^T b`, or `c += a^T b` unless `fresh`, over the depth `k` of `a` `[k, rows]` and `b` `[k, 32]`; `c` is
/// `[rows, 32]` with at most [`ROWS`] rows.
///
/// Each element is one chain of multiply-adds along `k` from zero, to which the old `c` is added last.
///
/// # Panics
/// If the lengths do not fit together.
pub fn multiply(isa: Isa, a: &[f32], b: &[f32], c: &mut [f32], fresh: bool) {
    let (k, rows) = (b.len() / COLUMNS, c.len() / COLUMNS);
    assert!((1..=ROWS).contains(&rows), "a tile has 1 to {ROWS} rows");
    assert_eq!((b.len(), c.len(), a.len()), (k * COLUMNS, rows * COLUMNS, k * rows), "operands do not fit");
    let operands = Operands { k, a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), fresh };
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512::multiply(rows, operands) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx2 => unsafe { avx2::multiply(rows, operands) },
        _ => portable::multiply(a, b, c, fresh),
    }
}

/// [`multiply`] over pairs of bf16: an element of `a` and `b` holds two steps of the depth, the first in its lower half.
///
/// Each element is one chain of sums of two products; what is too small for a normal number counts as zero.
///
/// # Panics
/// If the lengths do not fit together, or `isa` is not [`Isa::Avx512Bf16`].
pub fn dot(isa: Isa, a: &[u32], b: &[u32], c: &mut [f32], fresh: bool) {
    let (k, rows) = (b.len() / COLUMNS, c.len() / COLUMNS);
    assert!((1..=ROWS).contains(&rows), "a tile has 1 to {ROWS} rows");
    assert_eq!((b.len(), c.len(), a.len()), (k * COLUMNS, rows * COLUMNS, k * rows), "operands do not fit");
    let operands = Operands { k, a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), fresh };
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx512Bf16 => unsafe { avx512bf16::multiply(rows, operands) },
        _ => panic!("{isa:?} has no dot products of bf16 pairs"),
    }
}

/// Rounds `x` to bf16, to nearest and ties to even, and packs it two by two, the first in the lower half; a last one
/// without a second gets a zero.
///
/// # Panics
/// If `out` is not half as long, or `isa` is not [`Isa::Avx512Bf16`].
pub fn pair_up(isa: Isa, x: &[f32], out: &mut [u32]) {
    assert_eq!(out.len(), x.len().div_ceil(2), "two numbers make a pair");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features were found by `Isa::available`.
        Isa::Avx512Bf16 => unsafe { avx512bf16::pair_up(x, out) },
        _ => panic!("{isa:?} has no bf16 pairs"),
    }
}

/// The operands of a tile as pointers, whose lengths have been checked.
#[derive(Clone, Copy)]
struct Operands<T> {
    k: usize,
    a: *const T,
    b: *const T,
    c: *mut f32,
    fresh: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn every_instruction_set_multiplies_tiles_of_every_height() {
        for isa in Isa::available() {
            for rows in 1..=ROWS {
                for k in [1, 2, 7, 64, 333] {
                    let (a, b) = (numbers(k * rows, 1), numbers(k * COLUMNS, 2));
                    let mut c = numbers(rows * COLUMNS, 3);
                    let before = c.clone();
                    multiply(isa, &a, &b, &mut c, false);
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
    #[cfg(target_arch = "x86_64")]
    fn pairs_multiply_as_the_numbers_that_they_were_rounded_to() {
        let isa = Isa::Avx512Bf16;
        if !Isa::available().contains(&isa) {
            return;
        }
        for rows in 1..=ROWS {
            for k in [1, 2, 7, 64, 333] {
                let (a, b) = (numbers(2 * k * rows, 1), numbers(2 * k * COLUMNS, 2));
                let pairs = |values: &[f32]| {
                    let mut out = vec![0; values.len() / 2];
                    pair_up(isa, values, &mut out);
                    out
                };
                let mut c = numbers(rows * COLUMNS, 3);
                let before = c.clone();
                dot(isa, &pairs(&a), &pairs(&b), &mut c, false);
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
        let mut pairs = vec![0; values.len().div_ceil(2)];
        pair_up(isa, &values, &mut pairs);
        for (at, value) in values.iter().enumerate() {
            let half = (pairs[at / 2] >> (16 * (at % 2))) as u16;
            assert_eq!(half, half::bf16::from_f32(*value).to_bits(), "{value}");
        }
        assert_eq!(pairs[values.len() / 2] >> 16, 0, "the last has no second");
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
            multiply(isa, &a, &b, &mut c, true);
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
