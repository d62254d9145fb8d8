//! Tiles of bf16 pairs with AVX-512: as those of f32, but each step is two of the depth.

use super::{COLUMNS, Operands, ROWS};
use std::arch::x86_64::{
    __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm512_add_ps, _mm512_cvtneps_pbh, _mm512_dpbf16_ps,
    _mm512_loadu_epi32, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::hint::black_box;
use std::mem::transmute;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The pointers must be good for the lengths that [`super::dot`] states, and the processor must have AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(rows: usize, operands: Operands<u32>) {
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
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize>(operands: Operands<u32>) {
    let Operands { k, mut a, mut b, c, fresh } = operands;
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    for _ in 0..k {
        // SAFETY: step i reads a[i * R..][..R] and b[i * 32..][..32], within the caller's lengths; 512 bits are 32 bf16.
        unsafe {
            let columns = [_mm512_loadu_epi32(b.cast()), _mm512_loadu_epi32(b.add(16).cast())];
            let columns = columns.map(|bits| transmute::<__m512i, __m512bh>(bits));
            for (row, sums) in sums.iter_mut().enumerate() {
                let pair = transmute::<__m512i, __m512bh>(_mm512_set1_epi32((*a.add(row)).cast_signed()));
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, columns[1]);
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

/// Rounds and packs `x`.
///
/// # Safety
/// `out` must have half as many elements, rounded up, and the processor must have AVX512-BF16, BW and VL.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub(super) unsafe fn pair_up(x: &[f32], out: &mut [u32]) {
    for (x, out) in x.chunks(16).zip(out.chunks_mut(8)) {
        let some = ((1u32 << x.len()) - 1) as u16;
        let whole = ((1u32 << (2 * out.len())) - 1) as u16;
        // SAFETY: the masks end where `x` and `out` do; what is not loaded is zero.
        unsafe {
            let values = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x.as_ptr()));
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), whole, transmute(values));
        }
    }
}

/// Adds products of ones to 20 sums in registers, `steps` times, and returns the operations of a step.
///
/// # Safety
/// The processor must have the features.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(in super::super) unsafe fn burn(steps: usize) -> usize {
    // SAFETY: 512 bits are 32 bf16.
    let one = black_box(unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(0x3f80_3f80)) });
    // Opaque, or the compiler would see that all sums are the same.
    let mut sums = black_box([_mm512_setzero_ps(); 20]);
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, one, one);
        }
    }
    black_box(sums);
    20 * 32 * 2
}
