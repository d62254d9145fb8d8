//! Vectors of f32 in registers, for loops that the compiler leaves in memory.

mod portable;

use super::isa::{Isa, dispatched};

/// Numbers of the widest vector.
pub const WIDEST: usize = 16;
/// The bits of one: its exponent's lowest is the 24th.
const ONE: i32 = 127 << 23;
/// What is added to bits to round them to bf16.
const HALF: i32 = 1 << 15;
/// The upper half of 32 bits.
const UPPER: i32 = !0xffff;

/// As many numbers as fill a register of some set of instructions.
///
/// Its functions must be inlined into one that has the instructions, and called where the processor has them.
pub trait Vector: Copy {
    /// How many numbers there are.
    const LANES: usize;

    /// All the same.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// The numbers from `from` on.
    ///
    /// # Safety
    /// The processor must have the instructions, and there must be [`Vector::LANES`] numbers.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes the numbers from `to` on.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn store(self, to: *mut f32);

    /// `self + other`.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn plus(self, other: Self) -> Self;

    /// `self - other`.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn minus(self, other: Self) -> Self;

    /// `self * other`.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn times(self, other: Self) -> Self;

    /// `self * factor + summand`, rounded once where the instructions have that, for a factor of each lane.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn times_each_plus(self, factor: Self, summand: Self) -> Self;

    /// [`Vector::times_each_plus`] for one factor.
    ///
    /// # Safety
    /// The processor must have the instructions.
    #[inline(always)]
    unsafe fn times_plus(self, factor: f32, summand: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.times_each_plus(Self::splat(factor), summand) }
    }

    /// The greater numbers; those of `other` where one of the two is not a number.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn greater(self, other: Self) -> Self;

    /// Two to the power of the whole number in the lowest nine bits, from -127 to 127; zero for -127.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn power_of_bits(self) -> Self;

    /// For each lane, `self` or the magnitude of `other`, whichever has the greater bits: magnitudes are in the order of their bits.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn or_greater_magnitude(self, other: Self) -> Self;

    /// The first and the second numbers of pairs of bf16, the first of which is in the lower half.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_pairs(from: *const u32) -> [Self; 2];

    /// Writes pairs of the lower halves of two vectors' bits, the first in the lower half.
    ///
    /// # Safety
    /// As [`Vector::store`].
    unsafe fn store_halves(pair: [Self; 2], to: *mut u32);

    /// The nearest numbers that bf16 has, ties away from zero.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn rounded(self) -> Self;

    /// Writes pairs of the upper halves of two vectors' bits, the first in the lower half.
    ///
    /// # Safety
    /// As [`Vector::store`].
    unsafe fn store_upper_halves(pair: [Self; 2], to: *mut u32);

    /// Writes the lower halves of the bits.
    ///
    /// # Safety
    /// As [`Vector::store`].
    unsafe fn store_lower_halves(self, to: *mut u16);
}

/// The lower half of each number of 32 bits.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn lower_halves(wide: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m128i {
    use std::arch::x86_64::{
        _mm_packus_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
        _mm256_set1_epi32,
    };
    // SAFETY: the callers have AVX2.
    unsafe {
        let halves = _mm256_and_si256(wide, _mm256_set1_epi32(0xffff));
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
    }
}

/// Implements [`Vector`] by the processor's own functions.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($type:ident, $lanes:literal, ($splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident, $greater:ident), ($set:ident, $read:ident, $write:ident, $left:ident, $right:ident, $and:ident, $or:ident, $sum:ident), ($to:ident, $from:ident, $max:ident, $narrow:expr, $put:ident)) => {
        // The safety of all of it is the callers' promise.
        impl Vector for std::arch::x86_64::$type {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$load(from) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$store(to, self) }
            }

            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$add(self, other) }
            }

            #[inline(always)]
            unsafe fn minus(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$sub(self, other) }
            }

            #[inline(always)]
            unsafe fn times(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$mul(self, other) }
            }

            #[inline(always)]
            unsafe fn times_each_plus(self, factor: Self, summand: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$fma(self, factor, summand) }
            }

            #[inline(always)]
            unsafe fn greater(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$greater(self, other) }
            }

            #[inline(always)]
            unsafe fn power_of_bits(self) -> Self {
                use std::arch::x86_64::{$from, $left, $set, $sum, $to};
                // SAFETY: the caller's promise.
                unsafe { $from($sum($left::<23>($to(self)), $set(ONE))) }
            }

            #[inline(always)]
            unsafe fn or_greater_magnitude(self, other: Self) -> Self {
                use std::arch::x86_64::{$and, $from, $max, $set, $to};
                // SAFETY: the caller's promise.
                unsafe { $from($max($to(self), $and($to(other), $set(i32::MAX)))) }
            }

            #[inline(always)]
            unsafe fn load_pairs(from: *const u32) -> [Self; 2] {
                use std::arch::x86_64::{$and, $from, $left, $read, $set};
                // SAFETY: the caller's promise.
                unsafe {
                    let pairs = $read(from.cast());
                    [$from($left::<16>(pairs)), $from($and(pairs, $set(UPPER)))]
                }
            }

            #[inline(always)]
            unsafe fn store_halves([first, second]: [Self; 2], to: *mut u32) {
                use std::arch::x86_64::{$and, $left, $or, $set, $to, $write};
                // SAFETY: the caller's promise.
                unsafe {
                    let first = $and($to(first), $set(0xffff));
                    $write(to.cast(), $or($left::<16>($to(second)), first));
                }
            }

            #[inline(always)]
            unsafe fn rounded(self) -> Self {
                use std::arch::x86_64::{$and, $from, $set, $sum, $to};
                // SAFETY: the caller's promise.
                unsafe { $from($and($sum($to(self), $set(HALF)), $set(UPPER))) }
            }

            #[inline(always)]
            unsafe fn store_upper_halves([first, second]: [Self; 2], to: *mut u32) {
                use std::arch::x86_64::{$and, $or, $right, $set, $to, $write};
                // SAFETY: the caller's promise.
                unsafe { $write(to.cast(), $or($and($to(second), $set(UPPER)), $right::<16>($to(first)))) }
            }

            #[inline(always)]
            unsafe fn store_lower_halves(self, to: *mut u16) {
                use std::arch::x86_64::{$put, $to};
                // SAFETY: the caller's promise.
                unsafe { $put(to.cast(), $narrow($to(self))) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector!(
    __m256,
    8,
    (
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps
    ),
    (
        _mm256_set1_epi32,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_slli_epi32,
        _mm256_srli_epi32,
        _mm256_and_si256,
        _mm256_or_si256,
        _mm256_add_epi32
    ),
    (_mm256_castps_si256, _mm256_castsi256_ps, _mm256_max_epu32, lower_halves, _mm_storeu_si128)
);
#[cfg(target_arch = "x86_64")]
vector!(
    __m512,
    16,
    (
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps
    ),
    (
        _mm512_set1_epi32,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_slli_epi32,
        _mm512_srli_epi32,
        _mm512_and_si512,
        _mm512_or_si512,
        _mm512_add_epi32
    ),
    (
        _mm512_castps_si512,
        _mm512_castsi512_ps,
        _mm512_max_epu32,
        std::arch::x86_64::_mm512_cvtepi32_epi16,
        _mm256_storeu_si256
    )
);

/// A loop over vectors, compiled for each set of instructions.
pub trait Loop {
    /// Runs it; must be `#[inline(always)]`, so that it is compiled where the instructions are.
    ///
    /// # Safety
    /// The processor must have the vectors' instructions.
    unsafe fn run<V: Vector>(self);
}

/// Runs a loop with the widest vectors of `isa`.
///
/// # Safety
/// What the loop asks for; the instructions were found by [`Isa::available`].
pub unsafe fn run(isa: Isa, what: impl Loop) {
    dispatched!(
        isa,
        (what: impl Loop),
        // SAFETY: the caller's promise.
        avx512: unsafe { what.run::<std::arch::x86_64::__m512>() },
        // SAFETY: the caller's promise.
        avx2: unsafe { what.run::<std::arch::x86_64::__m256>() },
        // SAFETY: the caller's promise.
        plain: unsafe { what.run::<[f32; 4]>() }
    );
}
