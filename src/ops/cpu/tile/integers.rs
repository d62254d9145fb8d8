//! Tiles of 16-bit integers in pairs: products are summed in 32 bits, twice as many an instruction as of f32, and the sums brought
//! to f32 by a scale for each row and each column.

use super::{COLUMNS, Integers, ROWS, Settled, Step, Units, halves};
use crate::ops::cpu::isa::Isa;
use crate::ops::cpu::vector::Vector;
use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_add_epi32, _mm256_cvtepi32_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_loadu_epi32, _mm512_madd_epi16,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_epi32,
};
use std::array::from_fn;

/// Pairs in a cache line.
const LINE: usize = 16;

/// Numbers of 32 bits in a register, to which products of pairs are added.
///
/// Its functions must be inlined into one that has the instructions, and called where the processor has them.
pub(super) trait Sums: Copy {
    /// The same numbers in f32.
    type Floats: Vector;
    /// How many numbers there are.
    const LANES: usize = Self::Floats::LANES;
    /// The most rows of a tile whose sums stay in registers, for two of these a row.
    const ROWS: usize;

    unsafe fn zeros() -> Self;

    /// The same pair in each lane.
    unsafe fn splat(pair: u32) -> Self;

    unsafe fn load(from: *const u32) -> Self;

    /// `self` plus both products of each pair.
    unsafe fn plus_products(self, a: Self, b: Self) -> Self;

    unsafe fn plus(self, other: Self) -> Self;

    unsafe fn store(self, to: *mut u32);

    unsafe fn floats(self) -> Self::Floats;
}

/// 16 sums; products are added by one instruction where they are `FUSED` (AVX512-VNNI), otherwise by two.
#[derive(Clone, Copy)]
pub(super) struct Wide<const FUSED: bool>(__m512i);
/// 8 sums.
#[derive(Clone, Copy)]
pub(super) struct Narrow(__m256i);

/// Implements [`Sums`] by the processor's own functions.
macro_rules! sums {
    ([$($generics:tt)*] $type:ty, $floats:ident, $rows:expr, ($zero:ident, $splat:ident, $load:ident, $store:ident), $dot:expr, ($plus:ident, $convert:ident)) => {
        // The safety of all of it is the callers' promise.
        impl<$($generics)*> Sums for $type {
            type Floats = $floats;
            const ROWS: usize = $rows;

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
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $plus(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u32) {
                // SAFETY: the caller's promise.
                unsafe { $store(to.cast(), self.0) }
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
    ROWS,
    (_mm512_setzero_si512, _mm512_set1_epi32, _mm512_loadu_epi32, _mm512_storeu_epi32),
    |sum, a, b| if FUSED {
        _mm512_dpwssd_epi32(sum, a, b)
    } else {
        _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
    },
    (_mm512_add_epi32, _mm512_cvtepi32_ps)
);
sums!(
    [] Narrow,
    __m256,
    6,
    (_mm256_setzero_si256, _mm256_set1_epi32, _mm256_loadu_si256, _mm256_storeu_si256),
    |sum, a, b| _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)),
    (_mm256_add_epi32, _mm256_cvtepi32_ps)
);

/// Where sums of a tile go.
pub(super) trait Put {
    /// Puts the sums of `R` rows in two registers' columns from the row and column given on.
    ///
    /// # Safety
    /// They must lie within what there is, and the processor must have the instructions.
    unsafe fn put<S: Sums, const R: usize>(&mut self, sums: [[S; 2]; R], at: (usize, usize));
}

/// Sums in their units, in f32.
pub(super) struct Scaled<'a> {
    pub units: Units<'a>,
    pub c: &'a mut [f32],
    pub fresh: bool,
}

impl Put for Scaled<'_> {
    #[inline(always)]
    unsafe fn put<S: Sums, const R: usize>(&mut self, sums: [[S; 2]; R], (first, column): (usize, usize)) {
        let Self { units, c, fresh } = self;
        unrolled!(R, row => {
            for (half, sums) in sums[row].into_iter().enumerate() {
                let column = column + half * S::LANES;
                // SAFETY: the caller's promise; columns have 32 units.
                unsafe {
                    let to = c.as_mut_ptr().add((first + row) * COLUMNS + column);
                    scale(sums, (units, first + row, column), to, *fresh);
                }
            }
        });
    }
}

/// Puts sums of a row, from a column on, in their units, or adds them unless `fresh`.
#[inline(always)]
unsafe fn scale<S: Sums>(sums: S, (units, row, column): (&Units, usize, usize), to: *mut f32, fresh: bool) {
    // SAFETY: the callers' promise.
    unsafe {
        let value = sums.floats().times(Vector::splat(units.rows[row]));
        let value = if fresh { value } else { value.plus(Vector::load(to)) };
        let value = match units.columns {
            Some(units) => value.times(Vector::load(units.as_ptr().add(column))),
            None => value,
        };
        value.store(to);
    }
}

/// Sums as they are, added by `steps`, until they are complete.
pub(super) struct Added<'a> {
    pub steps: &'a [Step],
    pub c: &'a mut [u32],
    pub settled: Settled<'a>,
}

impl Put for Added<'_> {
    #[inline(always)]
    unsafe fn put<S: Sums, const R: usize>(&mut self, sums: [[S; 2]; R], (first, column): (usize, usize)) {
        let Settled { units, sums: settled, fresh } = &mut self.settled;
        for Step { from, to, last } in self.steps {
            unrolled!(R, row => {
                for (half, sums) in sums[row].into_iter().enumerate() {
                    let column = column + half * S::LANES;
                    let at = (first + row) * 2 * COLUMNS + column;
                    // SAFETY: the caller's promise; what is settled is as long.
                    unsafe {
                        let c = self.c.as_mut_ptr().add(at);
                        let value = match from {
                            Some(from) => sums.plus(S::load(c.add(*from))),
                            None => sums,
                        };
                        if *last {
                            scale(value, (units, first + row, column), settled.as_mut_ptr().add(at + to), *fresh);
                        } else {
                            value.store(c.add(*to));
                        }
                    }
                }
            });
        }
    }
}

impl Integers<'_> {
    /// Multiplies `rows` by whatever instructions there are.
    ///
    /// # Panics
    /// If there is less to fetch than steps, rows are not contiguous, or `isa` is [`Isa::Portable`].
    pub(super) fn multiply(&self, isa: Isa, rows: usize, put: &mut impl Put) {
        assert!(self.a.step == 1 && self.next.is_none_or(|next| next.len() >= self.a.length * LINE));
        match isa {
            // SAFETY: the lengths were checked by the callers, the features here and by `Isa::available`.
            Isa::Avx512Bf16 | Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => unsafe {
                self.fused(rows, put);
            },
            // SAFETY: the lengths were checked by the callers, the features by `Isa::available`.
            Isa::Avx512Bf16 | Isa::Avx512 => unsafe { self.wide(rows, put) },
            // SAFETY: as above.
            Isa::Avx2 => unsafe { self.narrow(rows, put) },
            Isa::Portable => panic!("{rows} rows: {isa:?} has no products of integers"),
        }
    }

    /// Multiplies `rows` with AVX512-VNNI.
    ///
    /// # Safety
    /// The operands must fit together as [`super::multiply_integers`] says, and the processor must have the features.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn fused(&self, rows: usize, put: &mut impl Put) {
        // SAFETY: the caller's promise.
        unsafe { self.parts::<Wide<true>>(rows, put) }
    }

    /// Multiplies `rows` with AVX-512.
    ///
    /// # Safety
    /// As [`Integers::fused`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn wide(&self, rows: usize, put: &mut impl Put) {
        // SAFETY: the caller's promise.
        unsafe { self.parts::<Wide<false>>(rows, put) }
    }

    /// Multiplies `rows` with AVX2.
    ///
    /// # Safety
    /// As [`Integers::fused`].
    #[target_feature(enable = "avx2")]
    unsafe fn narrow(&self, rows: usize, put: &mut impl Put) {
        // SAFETY: the caller's promise.
        unsafe { self.parts::<Narrow>(rows, put) }
    }

    #[inline(always)]
    unsafe fn parts<S: Sums>(&self, rows: usize, put: &mut impl Put) {
        for column in (0..self.b.used).step_by(2 * S::LANES) {
            for rows in halves(rows, S::ROWS).into_iter().filter(|rows| !rows.is_empty()) {
                let at = (rows.start, column);
                // SAFETY: the part's rows and columns lie within the tile's; the rest is the caller's promise.
                unsafe { for_rows!(rows.len(), part<S>(self, at, put)) }
            }
        }
    }
}

/// Multiplies `R` rows in two registers' columns from the row and column given on.
#[inline(always)]
unsafe fn part<S: Sums, const R: usize>(
    tile: &Integers,
    (first, column): (usize, usize),
    put: &mut impl Put,
) {
    let starts: [*const u32; R] = from_fn(|row| tile.a.starts[first + row]);
    let mut b = tile.b.numbers.as_ptr().wrapping_add(column);
    let ahead = tile.b.ahead * COLUMNS;
    let (mut next, step) = tile.next.map_or((b.wrapping_add(ahead), COLUMNS), |next| (next.as_ptr(), LINE));
    // SAFETY: each row has `length` pairs side by side, b 32 for each of them, and so has the result.
    unsafe {
        let mut sums = [[S::zeros(); 2]; R];
        for at in 0..tile.a.length {
            _mm_prefetch::<_MM_HINT_T0>(next.cast());
            // Two registers may be two lines.
            if 2 * S::LANES > LINE {
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(ahead + LINE).cast());
            }
            let columns = [S::load(b), S::load(b.wrapping_add(S::LANES))];
            for (sums, start) in sums.iter_mut().zip(&starts) {
                let pair = S::splat(*start.add(at));
                sums[0] = sums[0].plus_products(pair, columns[0]);
                sums[1] = sums[1].plus_products(pair, columns[1]);
            }
            // Behind the last step there may be less than a row of columns.
            (b, next) = (b.wrapping_add(COLUMNS), next.wrapping_add(step));
        }
        put.put(sums, (first, column));
    }
}
