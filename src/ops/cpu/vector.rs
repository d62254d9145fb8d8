//! Vectors of f32 in registers, for loops that the compiler leaves in memory.

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

    /// `self * factor + summand`, rounded once where the instructions have that.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn times_plus(self, factor: f32, summand: Self) -> Self;
}

/// Implements [`Vector`] by the processor's own functions.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($type:ident, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $fma:ident) => {
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
            unsafe fn times_plus(self, factor: f32, summand: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { std::arch::x86_64::$fma(self, Self::splat(factor), summand) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector!(
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_fmadd_ps
);
#[cfg(target_arch = "x86_64")]
vector!(
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_fmadd_ps
);

/// Compiles a function once for each set of instructions that has vectors: `with_vector!(fn name(arguments) => inner)` makes
/// `name(isa, arguments)` of `inner::<V>(arguments)`, which must be `#[inline(always)]`, `V` being the widest vector. It panics
/// where there are none, and otherwise asks of its caller what `inner` does.
macro_rules! with_vector {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) => $inner:ident) => {
        $(#[$doc])*
        $vis unsafe fn $name(isa: $crate::ops::cpu::isa::Isa, $($arg: $ty),*) {
            $crate::ops::cpu::isa::dispatched!(
                isa,
                ($($arg: $ty),*),
                // SAFETY: the caller's promise.
                avx512: unsafe { $inner::<std::arch::x86_64::__m512>($($arg),*) },
                // SAFETY: the caller's promise.
                avx2: unsafe { $inner::<std::arch::x86_64::__m256>($($arg),*) },
                plain: panic!("{isa:?} has no vectors")
            );
        }
    };
}
pub(super) use with_vector;
