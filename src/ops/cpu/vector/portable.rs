//! Vectors of plain numbers.

use super::{HALF, ONE, UPPER, Vector};
use std::array::from_fn;

/// What any processor has: the compiler finds the instructions. A product and a sum are rounded each by itself.
impl Vector for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        from_fn(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    unsafe fn times_each_plus(self, factor: Self, summand: Self) -> Self {
        from_fn(|lane| self[lane] * factor[lane] + summand[lane])
    }

    #[inline(always)]
    unsafe fn greater(self, other: Self) -> Self {
        from_fn(|lane| if self[lane] > other[lane] { self[lane] } else { other[lane] })
    }

    #[inline(always)]
    unsafe fn power_of_bits(self) -> Self {
        self.map(|value| f32::from_bits((value.to_bits() << 23).wrapping_add(ONE.cast_unsigned())))
    }

    #[inline(always)]
    unsafe fn or_greater_magnitude(self, other: Self) -> Self {
        from_fn(|lane| f32::from_bits(self[lane].to_bits().max(other[lane].abs().to_bits())))
    }

    #[inline(always)]
    unsafe fn load_pairs(from: *const u32) -> [Self; 2] {
        // SAFETY: the caller's promise.
        let pairs = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
        [pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000))]
    }

    #[inline(always)]
    unsafe fn store_halves([first, second]: [Self; 2], to: *mut u32) {
        let pairs: [u32; 4] = from_fn(|lane| second[lane].to_bits() << 16 | first[lane].to_bits() & 0xffff);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(pairs) }
    }

    #[inline(always)]
    unsafe fn rounded(self) -> Self {
        self.map(|value| f32::from_bits((value.to_bits().wrapping_add_signed(HALF)) & UPPER.cast_unsigned()))
    }

    #[inline(always)]
    unsafe fn store_upper_halves([first, second]: [Self; 2], to: *mut u32) {
        let pairs: [u32; 4] =
            from_fn(|lane| second[lane].to_bits() & UPPER.cast_unsigned() | first[lane].to_bits() >> 16);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(pairs) }
    }

    #[inline(always)]
    unsafe fn store_lower_halves(self, to: *mut u16) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; 4]>().write_unaligned(self.map(|value| value.to_bits() as u16)) }
    }
}
