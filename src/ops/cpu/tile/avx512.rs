//! Tiles with AVX-512: 24 sums in registers, two loads of columns a step, a broadcast a row.

use super::{COLUMNS, ROWS, Run};
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::hint::black_box;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The operands must fit together as [`super::multiply`] says, and the processor must have the features.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(rows: usize, a: &[Run<f32>], b: &[f32], c: &mut [f32], fresh: bool) {
    // SAFETY: the caller's promise, for the number of rows that each call is made for.
    unsafe { for_rows!(rows, tile(a, b, c, fresh)) }
}

/// # Safety
/// As [`multiply`], for `R` rows.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(a: &[Run<f32>], b: &[f32], c: &mut [f32], fresh: bool) {
    let mut b = b.as_ptr();
    let mut fresh = fresh;
    for run in a {
        // SAFETY: the caller's promise.
        unsafe { stretch::<R>(run, b, c, fresh) };
        b = b.wrapping_add(run.length * COLUMNS);
        fresh = false;
    }
}

/// # Safety
/// As [`multiply`], for `R` rows over one run.
#[target_feature(enable = "avx512f")]
unsafe fn stretch<const R: usize>(run: &Run<f32>, mut b: *const f32, c: &mut [f32], fresh: bool) {
    let (starts, step) = (run.starts, run.step);
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let mut at = 0;
    for _ in 0..run.length {
        // SAFETY: each row has `length` numbers, `step` apart, and b 32 for each of them.
        unsafe {
            let columns = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
            for (sums, start) in sums.iter_mut().zip(&starts) {
                let value = _mm512_set1_ps(*start.add(at));
                sums[0] = _mm512_fmadd_ps(value, columns[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(value, columns[1], sums[1]);
            }
            b = b.add(COLUMNS);
        }
        at += step;
    }
    // SAFETY: the caller's promise.
    unsafe { write(sums, c, fresh) };
}

/// Puts sums where they belong, or adds them to what is there unless `fresh`.
///
/// # Safety
/// The processor must have AVX-512.
///
/// # Panics
/// If `c` has fewer rows.
#[inline(always)]
pub(super) unsafe fn write<const R: usize>(sums: [[__m512; 2]; R], c: &mut [f32], fresh: bool) {
    assert!(c.len() >= R * COLUMNS, "a tile has {R} rows");
    // One after the other: in a loop, sums would go through memory on their way.
    unrolled!(R, row => {
        // SAFETY: c has a row of 32 numbers here; the rest is the caller's promise.
        unsafe {
            let (c, mut sums) = (c.as_mut_ptr().add(row * COLUMNS), sums[row]);
            if !fresh {
                sums[0] = _mm512_add_ps(_mm512_loadu_ps(c), sums[0]);
                sums[1] = _mm512_add_ps(_mm512_loadu_ps(c.add(16)), sums[1]);
            }
            _mm512_storeu_ps(c, sums[0]);
            _mm512_storeu_ps(c.add(16), sums[1]);
        }
    });
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
