//! Tiles with AVX2: parts of 6 rows by 16 columns, whose 12 sums stay in registers.

use super::{COLUMNS, Run};
use std::arch::x86_64::{
    _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::hint::black_box;

/// The most rows of a part.
const PART_ROWS: usize = 6;
/// The columns of a part.
const PART_COLUMNS: usize = 16;
/// Rows of columns that are fetched ahead: with six cycles for each they come from the third-level cache in time.
const AHEAD: usize = 24;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The operands must fit together as [`super::multiply`] says, and the processor must have the features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(rows: usize, a: &[Run<f32>], b: &[f32], c: &mut [f32], fresh: bool) {
    for column in (0..COLUMNS).step_by(PART_COLUMNS) {
        for row in (0..rows).step_by(PART_ROWS) {
            let place = Place { row, column };
            // SAFETY: the part's rows and columns lie within the tile's; the rest is the caller's promise.
            unsafe {
                match (rows - row).min(PART_ROWS) {
                    1 => tile::<1>(place, a, b, c, fresh),
                    2 => tile::<2>(place, a, b, c, fresh),
                    3 => tile::<3>(place, a, b, c, fresh),
                    4 => tile::<4>(place, a, b, c, fresh),
                    5 => tile::<5>(place, a, b, c, fresh),
                    _ => tile::<PART_ROWS>(place, a, b, c, fresh),
                }
            }
        }
    }
}

/// Where a part lies in its tile.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
}

/// # Safety
/// As [`multiply`], for `R` rows from `place` on.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(place: Place, a: &[Run<f32>], b: &[f32], c: &mut [f32], fresh: bool) {
    let mut b = b.as_ptr().wrapping_add(place.column);
    let mut fresh = fresh;
    for run in a {
        // SAFETY: the caller's promise.
        unsafe { stretch::<R>(place, run, b, c, fresh) };
        b = b.wrapping_add(run.length * COLUMNS);
        fresh = false;
    }
}

/// # Safety
/// As [`tile`], over one run.
#[target_feature(enable = "avx2,fma")]
unsafe fn stretch<const R: usize>(
    place: Place,
    run: &Run<f32>,
    mut b: *const f32,
    c: &mut [f32],
    fresh: bool,
) {
    let step = run.step;
    let starts: [*const f32; R] = std::array::from_fn(|row| run.starts[place.row + row]);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    let mut at = 0;
    for _ in 0..run.length {
        // SAFETY: each row has `length` numbers, `step` apart, and b 32 for each of them, 16 of which are the part's.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLUMNS).cast());
            let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (sums, start) in sums.iter_mut().zip(&starts) {
                let value = _mm256_set1_ps(*start.add(at));
                sums[0] = _mm256_fmadd_ps(value, columns[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(value, columns[1], sums[1]);
            }
        }
        // Behind the last step there may be less than a row of columns.
        b = b.wrapping_add(COLUMNS);
        at += step;
    }
    for (sums, c) in sums.iter().zip(c.chunks_exact_mut(COLUMNS).skip(place.row)) {
        for (sum, c) in sums.iter().zip(c[place.column..].chunks_exact_mut(8)) {
            // SAFETY: c has 8 numbers here.
            unsafe {
                let sum = if fresh { *sum } else { _mm256_add_ps(_mm256_loadu_ps(c.as_ptr()), *sum) };
                _mm256_storeu_ps(c.as_mut_ptr(), sum);
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
