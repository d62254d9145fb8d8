//! Tiles of bf16 pairs with AVX-512: as those of f32, but each step is two of the depth.

use super::avx512::write;
use super::{COLUMNS, ROWS, Run};
use crate::ops::cpu::shared::Slot;
use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_mask_storeu_epi16, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_epi32, _mm512_mask_storeu_epi32,
    _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_slli_epi32,
};
use std::hint::black_box;
use std::mem::transmute;

/// Multiplies a tile of `rows`.
///
/// # Safety
/// The operands must fit together as [`super::dot`] says, and the processor must have the features.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn multiply(rows: usize, a: &[Run<u32>], b: &[u32], c: &mut [f32], fresh: bool) {
    // SAFETY: the caller's promise, for the number of rows that each call is made for.
    unsafe { for_rows!(rows, tile(a, b, c, fresh)) }
}

/// # Safety
/// As [`multiply`], for `R` rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize>(a: &[Run<u32>], b: &[u32], c: &mut [f32], fresh: bool) {
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
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn stretch<const R: usize>(run: &Run<u32>, mut b: *const u32, c: &mut [f32], fresh: bool) {
    let (starts, step) = (run.starts, run.step);
    let mut sums = [[_mm512_setzero_ps(); 2]; R];
    let mut at = 0;
    for _ in 0..run.length {
        // SAFETY: each row has `length` pairs, `step` apart, and b 32 for each of them; 512 bits are 32 bf16.
        unsafe {
            let columns = [_mm512_loadu_epi32(b.cast()), _mm512_loadu_epi32(b.add(16).cast())];
            let columns = columns.map(|bits| transmute::<__m512i, __m512bh>(bits));
            for (sums, start) in sums.iter_mut().zip(&starts) {
                let pair = _mm512_set1_epi32((*start.add(at)).cast_signed());
                let pair = transmute::<__m512i, __m512bh>(pair);
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, columns[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, columns[1]);
            }
            b = b.add(COLUMNS);
        }
        at += step;
    }
    // SAFETY: the caller's promise.
    unsafe { write(sums, c, fresh) };
}

/// Rounds and packs `x`.
///
/// # Safety
/// `out` must have half as many elements, rounded up, and the processor must have AVX512-BF16, BW and VL.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub(super) unsafe fn pair_up(x: &[f32], out: &mut [Slot<u32>]) {
    for (x, out) in x.chunks(16).zip(out.chunks_mut(8)) {
        let some = ((1u32 << x.len()) - 1) as u16;
        let whole = ((1u32 << (2 * out.len())) - 1) as u16;
        // SAFETY: the masks end where `x` and `out` do; what is not loaded is zero.
        unsafe {
            let values = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x.as_ptr()));
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), whole, transmute::<__m256bh, __m256i>(values));
        }
    }
}

/// Rounds and packs `x` `[depth, columns]` down its columns.
///
/// # Safety
/// `out` must have half as many rows, rounded up, and the processor must have AVX512-BF16, BW and VL.
#[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
pub(super) unsafe fn pair_rows(x: &[f32], columns: usize, out: &mut [f32]) {
    for (rows, out) in x.chunks(2 * columns).zip(out.chunks_exact_mut(columns)) {
        let (first, second) = rows.split_at(columns);
        for from in (0..columns).step_by(16) {
            let some = ((1u32 << (columns - from).min(16)) - 1) as u16;
            let some_second = if second.is_empty() { 0 } else { some };
            // SAFETY: the masks end where the rows do; what is not loaded is zero.
            unsafe {
                let half = |mask, row: &[f32]| {
                    let values =
                        _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row.as_ptr().wrapping_add(from)));
                    _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(values))
                };
                let pairs =
                    _mm512_or_si512(half(some, first), _mm512_slli_epi32::<16>(half(some_second, second)));
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(from).cast(), some, pairs);
            }
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
