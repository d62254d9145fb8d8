//! Tiles with AVX2: parts of 6 rows by 16 columns, whose 12 sums stay in registers.

use super::{COLUMNS, Operands};
use std::arch::x86_64::{
    _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::hint::black_box;

/// The most rows of a part.
const PART_ROWS: usize = 6;
/// The columns of a part.
const PART_COLUMNS: usize = 16;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The pointers must be good for the lengths that [`super::multiply`] states, and the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(rows: usize, operands: Operands<f32>) {
    for column in (0..COLUMNS).step_by(PART_COLUMNS) {
        for row in (0..rows).step_by(PART_ROWS) {
            // SAFETY: the part's rows and columns lie within the tile's; the rest is the caller's promise.
            unsafe {
                let part = Operands {
                    a: operands.a.add(row),
                    b: operands.b.add(column),
                    c: operands.c.add(row * COLUMNS + column),
                    ..operands
                };
                match (rows - row).min(PART_ROWS) {
                    1 => tile::<1>(rows, part),
                    2 => tile::<2>(rows, part),
                    3 => tile::<3>(rows, part),
                    4 => tile::<4>(rows, part),
                    5 => tile::<5>(rows, part),
                    _ => tile::<PART_ROWS>(rows, part),
                }
            }
        }
    }
}

/// # Safety
/// As [`multiply`], for `R` rows of a tile whose `a` has `stride` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(stride: usize, operands: Operands<f32>) {
    let Operands { k, mut a, mut b, c, fresh } = operands;
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for step in 0..k {
        // SAFETY: step i reads a[i * stride..][..R] and b[i * 32..][..16], within the caller's lengths.
        unsafe {
            let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*a.add(row));
                sums[0] = _mm256_fmadd_ps(value, columns[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(value, columns[1], sums[1]);
            }
            if step + 1 < k {
                a = a.add(stride);
                b = b.add(COLUMNS);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: c has R rows, 32 apart, of which this part owns 16 columns.
            unsafe {
                let at = c.add(row * COLUMNS + half * 8);
                let sum = if fresh { *sum } else { _mm256_add_ps(_mm256_loadu_ps(at), *sum) };
                _mm256_storeu_ps(at, sum);
            }
        }
    }
}

/// Adds products of ones to 12 sums in registers, `steps` times, and returns the operations of a step.
///
/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx2,fma")]
pub(in super::super) unsafe fn burn(steps: usize) -> usize {
    let one = black_box(_mm256_set1_ps(1.0));
    // Opaque, or the compiler would see that all sums are the same.
    let mut sums = black_box([_mm256_setzero_ps(); 12]);
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(one, one, *sum);
        }
    }
    black_box(sums);
    12 * 8 * 2
}
