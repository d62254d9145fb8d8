//! The product that everything heavy is made of: a tile of up to 12 rows by 32 columns.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
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
        Isa::Avx512 => unsafe { avx512::multiply(rows, operands) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the lengths were checked above, the features by `Isa::available`.
        Isa::Avx2 => unsafe { avx2::multiply(rows, operands) },
        _ => portable::multiply(a, b, c, fresh),
    }
}

/// The operands of [`multiply`] as pointers, whose lengths have been checked.
#[derive(Clone, Copy)]
struct Operands {
    k: usize,
    a: *const f32,
    b: *const f32,
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
