//! Tiles as plain loops over small arrays, which every compiler vectorises to what its target has.

use super::COLUMNS;

/// The columns summed at once: two vectors of four.
const PART: usize = 8;
/// The rows summed at once.
const PART_ROWS: usize = 4;

/// [`super::multiply`] for any processor.
pub(super) fn multiply(a: &[f32], b: &[f32], c: &mut [f32], fresh: bool) {
    let rows = c.len() / COLUMNS;
    for row in (0..rows).step_by(PART_ROWS) {
        for column in (0..COLUMNS).step_by(PART) {
            let sums = match rows - row {
                1 => part::<1>(a, b, (rows, row, column)),
                2 => part::<2>(a, b, (rows, row, column)),
                3 => part::<3>(a, b, (rows, row, column)),
                _ => part::<PART_ROWS>(a, b, (rows, row, column)),
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

#[inline(always)]
fn part<const R: usize>(
    a: &[f32],
    b: &[f32],
    (rows, row, column): (usize, usize, usize),
) -> [[f32; PART]; PART_ROWS] {
    let mut sums = [[0f32; PART]; R];
    for (a, b) in a.chunks_exact(rows).zip(b.chunks_exact(COLUMNS)) {
        let (a, b) = (&a[row..row + R], &b[column..column + PART]);
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    let mut all = [[0f32; PART]; PART_ROWS];
    all[..R].copy_from_slice(&sums);
    all
}
