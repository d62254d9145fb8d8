//! Tiles as plain loops over small arrays, which every compiler vectorises to what its target has.

use super::{COLUMNS, Run};

/// The columns summed at once: two vectors of four.
const PART: usize = 8;
/// The rows summed at once.
const PART_ROWS: usize = 4;

/// [`super::multiply`] for any processor.
///
/// # Safety
/// The operands must fit together as it says.
pub(super) unsafe fn multiply(rows: usize, a: &[Run<f32>], b: &[f32], c: &mut [f32], fresh: bool) {
    let (mut b, mut fresh) = (b, fresh);
    for run in a {
        let (columns, rest) = b.split_at(run.length * COLUMNS);
        // SAFETY: the caller's promise.
        unsafe { stretch(rows, run, columns, c, fresh) };
        (b, fresh) = (rest, false);
    }
}

/// # Safety
/// As [`multiply`], over one run.
unsafe fn stretch(rows: usize, run: &Run<f32>, b: &[f32], c: &mut [f32], fresh: bool) {
    for row in (0..rows).step_by(PART_ROWS) {
        for column in (0..COLUMNS).step_by(PART) {
            // SAFETY: the part lies within the tile; the rest is the caller's promise.
            let sums = unsafe {
                match rows - row {
                    1 => part::<1>(run, b, (row, column)),
                    2 => part::<2>(run, b, (row, column)),
                    3 => part::<3>(run, b, (row, column)),
                    _ => part::<PART_ROWS>(run, b, (row, column)),
                }
            };
            for (part, sums) in sums.iter().enumerate().take(rows - row) {
                let at = (row + part) * COLUMNS + column;
                for (c, sum) in c[at..at + PART].iter_mut().zip(sums) {
                    *c = if fresh { *sum } else { *c + sum };
                }
            }
        }
    }
}

/// # Safety
/// As [`stretch`], for `R` rows and 8 columns from the place given on.
#[inline(always)]
unsafe fn part<const R: usize>(
    run: &Run<f32>,
    b: &[f32],
    (row, column): (usize, usize),
) -> [[f32; PART]; PART_ROWS] {
    let mut sums = [[0f32; PART]; R];
    for (i, b) in b.chunks_exact(COLUMNS).enumerate() {
        let b = &b[column..column + PART];
        for (sums, start) in sums.iter_mut().zip(&run.starts[row..]) {
            // SAFETY: each row has `length` numbers, `step` apart.
            let a = unsafe { *start.add(i * run.step) };
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    let mut all = [[0f32; PART]; PART_ROWS];
    all[..R].copy_from_slice(&sums);
    all
}
