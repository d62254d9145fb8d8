//! Tiles with AVX-512: 24 sums in registers, two loads of columns a step, a broadcast a row.

use super::{COLUMNS, Operands, ROWS};
use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::hint::black_box;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The pointers must be good for the lengths that [`super::multiply`] states, and the processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(rows: usize, operands: Operands<f32>) {
    // SAFETY: the caller's promise, for the number of rows that each call is made for.
    unsafe {
        match rows {
            1 => tile::<1>(operands),
            2 => tile::<2>(operands),
            3 => tile::<3>(operands),
            4 => tile::<4>(operands),
            5 => tile::<5>(operands),
            6 => tile::<6>(operands),
            7 => tile::<7>(operands),
            8 => tile::<8>(operands),
            9 => tile::<9>(operands),
            10 => tile::<10>(operands),
            11 => tile::<11>(operands),
            _ => tile::<ROWS>(operands),
        }
    }
}

/// # Safety
/// As [`multiply`], for `R` rows.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(operands: Operands<f32>) {
    let Operands { k, mut a, mut b, c, fresh } = operands;
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for _ in 0..k {
        // SAFETY: step i reads a[i * R..][..R] and b[i * 32..][..32], within the caller's lengths.
        unsafe {
            let columns = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.add(row));
                sums[0] = _mm512_fmadd_ps(value, columns[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(value, columns[1], sums[1]);
            }
            a = a.add(R);
            b = b.add(COLUMNS);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            // SAFETY: c has R rows of 32.
            unsafe {
                let at = c.add(row * COLUMNS + half * 16);
                let sum = if fresh { *sum } else { _mm512_add_ps(_mm512_loadu_ps(at), *sum) };
                _mm512_storeu_ps(at, sum);
            }
        }
    }
}

/// Adds products of ones to 20 sums in registers, `steps` times, and returns the operations of a step.
///
/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn burn(steps: usize) -> usize {
    let one = black_box(_mm512_set1_ps(1.0));
    // Opaque, or the compiler would see that all sums are the same.
    let mut sums = black_box([_mm512_setzero_ps(); 20]);
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(one, one, *sum);
        }
    }
    black_box(sums);
    20 * 16 * 2
}
