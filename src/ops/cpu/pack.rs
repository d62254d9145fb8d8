//! Turning rows into columns, four by four.

/// Writes `rows`, at most 16 of one length, as columns: element `i` of row `r` goes to `out[i * stride + r]`.
///
/// # Panics
/// If the rows differ in length or `out` is too short.
pub fn transpose(rows: &[&[f32]], out: &mut [f32], stride: usize) {
    let Some(length) = rows.first().map(|row| row.len()) else { return };
    if length == 0 {
        return;
    }
    assert!(rows.iter().all(|row| row.len() == length), "rows have one length");
    assert!(
        rows.len() <= stride && out.len() >= (length - 1) * stride + rows.len(),
        "the columns do not fit"
    );
    let mut done = 0;
    for four in rows.chunks_exact(4) {
        quartet([four[0], four[1], four[2], four[3]], &mut out[done..], stride);
        done += 4;
    }
    for row in &rows[done..] {
        for (value, to) in row.iter().zip(out[done..].iter_mut().step_by(stride)) {
            *to = *value;
        }
        done += 1;
    }
}

#[cfg(target_arch = "x86_64")]
fn quartet(rows: [&[f32]; 4], out: &mut [f32], stride: usize) {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    let length = rows[0].len();
    let whole = length / 4 * 4;
    for at in (0..whole).step_by(4) {
        // SAFETY: SSE is part of x86-64; each row has four elements from `at` on, and `transpose` checked that `out`
        // reaches four elements past the last of them.
        unsafe {
            let mut columns = rows.map(|row| _mm_loadu_ps(row.as_ptr().add(at)));
            let [a, b, c, d] = &mut columns;
            _MM_TRANSPOSE4_PS(a, b, c, d);
            for (i, column) in columns.iter().enumerate() {
                _mm_storeu_ps(out.as_mut_ptr().add((at + i) * stride), *column);
            }
        }
    }
    singly(rows, whole, out, stride);
}

#[cfg(not(target_arch = "x86_64"))]
fn quartet(rows: [&[f32]; 4], out: &mut [f32], stride: usize) {
    singly(rows, 0, out, stride);
}

fn singly(rows: [&[f32]; 4], from: usize, out: &mut [f32], stride: usize) {
    for at in from..rows[0].len() {
        for (row, values) in rows.iter().enumerate() {
            out[at * stride + row] = values[at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_whatever_their_number_and_length() {
        for count in 1..=13 {
            for length in [1, 3, 4, 17, 32] {
                let values: Vec<f32> = (0..count * length).map(|i| i as f32).collect();
                let rows: Vec<&[f32]> = values.chunks(length).collect();
                for stride in [count, count + 3] {
                    let mut out = vec![-1.0; length * stride];
                    transpose(&rows, &mut out, stride);
                    for at in 0..length {
                        for (row, values) in rows.iter().enumerate() {
                            assert_eq!(out[at * stride + row], values[at]);
                        }
                        let padding = &out[at * stride + count..(at + 1) * stride];
                        assert!(padding.iter().all(|value| *value == -1.0), "the gap is left alone");
                    }
                }
            }
        }
    }
}
