//! Tiles of 16-bit integers in pairs: products are summed in 32 bits, twice as many an instruction as of f32, and the sums brought
//! to f32 by a scale for each row and each column.

use super::{CHAIN, COLUMNS, Integers, ROWS, halves};
use crate::ops::cpu::vector::Vector;
use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_cvtepi32_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm512_add_epi32,
    _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_loadu_epi32, _mm512_madd_epi16, _mm512_set1_epi32,
    _mm512_setzero_si512,
};
use std::array::from_fn;

/// Does `$body` for each row below `$rows`, one after the other: in a loop, sums would leave their registers.
macro_rules! unrolled {
    ($rows:ident, $row:ident => $body:block) => {
        unrolled!(@ $rows, $row => $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $rows:ident, $row:ident => $body:block, $($at:literal)*) => {
        $(if $at < $rows {
            let $row = $at;
            $body
        })*
    };
}

/// Numbers of 32 bits in a register, to which products of pairs are added.
///
/// Its functions must be inlined into one that has the instructions, and called where the processor has them.
trait Sums: Copy {
    /// The same numbers in f32.
    type Floats: Vector;
    /// How many numbers there are.
    const LANES: usize = Self::Floats::LANES;
    /// The most rows of a tile whose sums stay in registers, for two of these a row.
    const ROWS: usize;
    /// Whether fetching columns ahead repays its instruction.
    const FETCHES: bool;

    unsafe fn zeros() -> Self;

    /// The same pair in each lane.
    unsafe fn splat(pair: u32) -> Self;

    unsafe fn load(from: *const u32) -> Self;

    /// `self` plus both products of each pair.
    unsafe fn plus_products(self, a: Self, b: Self) -> Self;

    unsafe fn floats(self) -> Self::Floats;

    /// The sums times `unit`, plus what is at `to` unless `fresh`.
    #[inline(always)]
    unsafe fn scaled(self, unit: Self::Floats, to: *const f32, fresh: bool) -> Self::Floats {
        // SAFETY: the caller's promise.
        unsafe {
            let value = self.floats().times(unit);
            if fresh { value } else { value.plus(Self::Floats::load(to)) }
        }
    }
}

/// 16 sums; products are added by one instruction where they are `FUSED` (AVX512-VNNI), otherwise by two.
#[derive(Clone, Copy)]
struct Wide<const FUSED: bool>(__m512i);
/// 8 sums.
#[derive(Clone, Copy)]
struct Narrow(__m256i);

/// Implements [`Sums`] by the processor's own functions.
macro_rules! sums {
    ([$($generics:tt)*] $type:ty, $floats:ident, ($rows:expr, $fetches:literal), $zero:ident, $splat:ident, $load:ident, $dot:expr, $convert:ident) => {
        // The safety of all of it is the callers' promise.
        impl<$($generics)*> Sums for $type {
            type Floats = $floats;
            const ROWS: usize = $rows;
            const FETCHES: bool = $fetches;

            #[inline(always)]
            unsafe fn zeros() -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $zero() })
            }

            #[inline(always)]
            unsafe fn splat(pair: u32) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $splat(pair.cast_signed()) })
            }

            #[inline(always)]
            unsafe fn load(from: *const u32) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $load(from.cast()) })
            }

            #[inline(always)]
            unsafe fn plus_products(self, a: Self, b: Self) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $dot(self.0, a.0, b.0) })
            }

            #[inline(always)]
            unsafe fn floats(self) -> Self::Floats {
                // SAFETY: the caller's promise.
                unsafe { $convert(self.0) }
            }
        }
    };
}

sums!(
    [const FUSED: bool] Wide<FUSED>,
    __m512,
    (ROWS, false),
    _mm512_setzero_si512,
    _mm512_set1_epi32,
    _mm512_loadu_epi32,
    |sum, a, b| if FUSED {
        _mm512_dpwssd_epi32(sum, a, b)
    } else {
        _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
    },
    _mm512_cvtepi32_ps
);
sums!(
    [] Narrow,
    __m256,
    (6, true),
    _mm256_setzero_si256,
    _mm256_set1_epi32,
    _mm256_loadu_si256,
    |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)),
    _mm256_cvtepi32_ps
);

impl Integers<'_> {
    /// Multiplies `rows` with AVX512-VNNI.
    ///
    /// # Safety
    /// The operands must fit together as [`super::multiply_integers`] says, and the processor must have the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) unsafe fn fused(&self, rows: usize, c: &mut [f32], fresh: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.multiply::<Wide<true>>(rows, c, fresh) }
    }

    /// Multiplies `rows` with AVX-512.
    ///
    /// # Safety
    /// As [`Integers::fused`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn wide(&self, rows: usize, c: &mut [f32], fresh: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.multiply::<Wide<false>>(rows, c, fresh) }
    }

    /// Multiplies `rows` with AVX2.
    ///
    /// # Safety
    /// As [`Integers::fused`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn narrow(&self, rows: usize, c: &mut [f32], fresh: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.multiply::<Narrow>(rows, c, fresh) }
    }

    #[inline(always)]
    unsafe fn multiply<S: Sums>(&self, rows: usize, c: &mut [f32], fresh: bool) {
        for column in (0..self.b.used).step_by(2 * S::LANES) {
            for rows in halves(rows, S::ROWS).into_iter().filter(|rows| !rows.is_empty()) {
                let at = (rows.start, column);
                // SAFETY: the part's rows and columns lie within the tile's; the rest is the caller's promise.
                unsafe { for_rows!(rows.len(), part<S>(self, at, c, fresh)) }
            }
        }
    }
}

/// Multiplies `R` rows in two registers' columns from the row and column given on.
#[inline(always)]
unsafe fn part<S: Sums, const R: usize>(
    tile: &Integers,
    (first, column): (usize, usize),
    c: &mut [f32],
    fresh: bool,
) {
    let (length, ahead) = (tile.a.length, tile.b.ahead * COLUMNS);
    let starts: [*const u32; R] = from_fn(|row| tile.a.starts[first + row]);
    let mut b = tile.b.numbers.as_ptr().wrapping_add(column);
    for from in (0..length).step_by(CHAIN) {
        // SAFETY: each row has `length` pairs side by side, b 32 for each of them, and so do scales and the result.
        unsafe {
            let mut sums = [[S::zeros(); 2]; R];
            for at in from..length.min(from + CHAIN) {
                if S::FETCHES {
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(ahead).cast());
                }
                let columns = [S::load(b), S::load(b.wrapping_add(S::LANES))];
                for (sums, start) in sums.iter_mut().zip(&starts) {
                    let pair = S::splat(*start.add(at));
                    sums[0] = sums[0].plus_products(pair, columns[0]);
                    sums[1] = sums[1].plus_products(pair, columns[1]);
                }
                // Behind the last step there may be less than a row of columns.
                b = b.wrapping_add(COLUMNS);
            }
            let scales = tile.columns.filter(|_| from + CHAIN >= length);
            unrolled!(R, row => {
                let unit = S::Floats::splat(*tile.units[first + row].get_unchecked(from / CHAIN));
                for (half, sums) in sums[row].into_iter().enumerate() {
                    let column = column + half * S::LANES;
                    let to = c.as_mut_ptr().add((first + row) * COLUMNS + column);
                    let value = sums.scaled(unit, to, fresh && from == 0);
                    let value = match scales {
                        Some(scales) => value.times(Vector::load(scales.as_ptr().add(column))),
                        None => value,
                    };
                    value.store(to);
                }
            });
        }
    }
}
