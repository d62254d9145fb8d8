//! Tiles with AVX2: parts of 6 rows by 16 columns, whose 12 sums stay in registers.

use super::{COLUMNS, Columns, Run, halves};
use std::arch::x86_64::{
    _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::array::from_fn;
use std::hint::black_box;

/// The most rows of a part.
const PART_ROWS: usize = 6;
/// The columns of a part.
const PART_COLUMNS: usize = 16;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The operands must fit together as [`super::multiply`] says, and the processor must have the features.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply(rows: usize, a: &[Run<f32>], b: Columns<f32>, c: &mut [f32], fresh: bool) {
    let (mut from, mut fresh) = (b.numbers.as_ptr(), fresh);
    for run in a {
        for column in (0..b.used).step_by(PART_COLUMNS) {
            for rows in halves(rows, PART_ROWS) {
                let c = c.as_mut_ptr().wrapping_add(rows.start * COLUMNS + column);
                let part =
                    Part { run, first: rows.start, b: from.wrapping_add(column), ahead: b.ahead, c, fresh };
                // SAFETY: the part's rows and columns lie within the tile's; the rest is the caller's promise.
                unsafe {
                    match rows.len() {
                        0 => {}
                        1 => part.multiply::<1>(),
                        2 => part.multiply::<2>(),
                        3 => part.multiply::<3>(),
                        4 => part.multiply::<4>(),
                        5 => part.multiply::<5>(),
                        _ => part.multiply::<PART_ROWS>(),
                    }
                }
            }
        }
        from = from.wrapping_add(run.length * COLUMNS);
        fresh = false;
    }
}

/// Some rows of a run, from `first` on, and 16 columns of the right operand and of the result.
struct Part<'a> {
    run: &'a Run<'a, f32>,
    first: usize,
    b: *const f32,
    ahead: usize,
    c: *mut f32,
    fresh: bool,
}

impl Part<'_> {
    /// Multiplies `R` rows.
    ///
    /// # Safety
    /// There must be as many; each has numbers for the whole run, `b` and `c` 32 from row to row, 16 of which are the part's;
    /// and the processor must have the features.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn multiply<const R: usize>(self) {
        let Self { run, first, mut b, ahead, c, fresh } = self;
        let (step, ahead) = (run.step, ahead * COLUMNS);
        let starts: [*const f32; R] = from_fn(|row| run.starts[first + row]);
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        let mut at = 0;
        for _ in 0..run.length {
            // SAFETY: each row has `length` numbers, `step` apart, and b 32 for each of them, 16 of which are the part's.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(ahead).cast());
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
        // As many steps as the compiler knows of: otherwise sums would go through memory on their way.
        for (row, mut sums) in sums.into_iter().enumerate() {
            // SAFETY: the result has 32 columns, 16 of which are the part's.
            unsafe {
                let c = c.add(row * COLUMNS);
                if !fresh {
                    sums[0] = _mm256_add_ps(_mm256_loadu_ps(c), sums[0]);
                    sums[1] = _mm256_add_ps(_mm256_loadu_ps(c.add(8)), sums[1]);
                }
                _mm256_storeu_ps(c, sums[0]);
                _mm256_storeu_ps(c.add(8), sums[1]);
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
