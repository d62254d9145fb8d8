//! Functions of one f32, without branches, so that loops over them vectorise, and of vectors where loops do not.

use super::vector::Vector;

/// `a * b + c`, rounded once where `FUSED`.
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23: adding it rounds to a whole number and leaves that number in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// Taylor coefficients of 2^f, from f^7 down to 1; on -0.5..=0.5 the rest is below 6e-9.
pub const EXP2: [f32; 8] = [
    1.525_273_4e-5,
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_411e-2,
    0.240_226_5,
    core::f32::consts::LN_2,
    1.0,
];

/// Coefficients of 2^f, from f^3 down to 1, whose greatest relative error on -0.5..=0.5 is least, 7.5e-5: for what is rounded to bf16,
/// which errs by 2e-3.
pub const EXP2_COARSE: [f32; 4] = [0.055_171_67, 0.242_611_12, 0.693_261, 0.999_928_1];

/// `2^x`, within two units in the last place for x in -126..=127; 0 below -127, and x above 127 counts as 127.
#[inline(always)]
pub fn exp2<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-127.0, 127.0);
    let shifted = x + ROUNDER;
    let fraction = x - (shifted - ROUNDER);
    let mut sum = EXP2[0];
    for coefficient in &EXP2[1..] {
        sum = multiply_add::<FUSED>(sum, fraction, *coefficient);
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `2^x` of each lane for numbers up to 127, by [`EXP2`] as [`exp2`] does, or by another polynomial such as [`EXP2_COARSE`].
///
/// # Safety
/// The processor must have the vectors' instructions.
#[inline(always)]
pub unsafe fn exp2_each<V: Vector>(x: V, polynomial: &[f32]) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        // In this order, what is not a number stays.
        let x = V::splat(-127.0).greater(x);
        let shifted = x.plus(V::splat(ROUNDER));
        let fraction = x.minus(shifted.minus(V::splat(ROUNDER)));
        let mut sum = V::splat(polynomial[0]);
        for coefficient in &polynomial[1..] {
            sum = sum.times_each_plus(fraction, V::splat(*coefficient));
        }
        sum.times(shifted.power_of_bits())
    }
}

/// `1 + e^-x`. Where the power errs by more than its last place, it is so large, or so small, that a sigmoid of it errs by less
/// than that of one.
#[inline(always)]
fn one_and_power<const FUSED: bool>(x: f32) -> f32 {
    1.0 + exp2::<FUSED>(-core::f32::consts::LOG2_E * x)
}

/// `1 / (1 + e^-x)`, within 2e-7.
#[inline(always)]
pub fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / one_and_power::<FUSED>(x)
}

/// `x * sigmoid(x)`, within 2e-7 of the greater of `x` and one.
#[inline(always)]
pub fn silu<const FUSED: bool>(x: f32) -> f32 {
    x / one_and_power::<FUSED>(x)
}

/// Numerator and denominator of erf(x) / x in x^2, highest power first: the rational approximation of
/// Eigen's `generic_fast_erf_float`.
const ERF_TOP: [f32; 7] = [
    -2.726_142e-10,
    2.770_681_4e-8,
    -2.101_024e-6,
    -5.692_506_4e-5,
    -7.349_906_4e-4,
    -2.954_6e-3,
    -1.609_603_3e-2,
];
const ERF_BOTTOM: [f32; 5] =
    [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];

/// The error function, within 4e-7.
#[inline(always)]
pub fn erf<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let (mut top, mut bottom) = (ERF_TOP[0], ERF_BOTTOM[0]);
    for coefficient in &ERF_TOP[1..] {
        top = multiply_add::<FUSED>(top, square, *coefficient);
    }
    for coefficient in &ERF_BOTTOM[1..] {
        bottom = multiply_add::<FUSED>(bottom, square, *coefficient);
    }
    x * top / bottom
}

/// The exact GELU, `x * Phi(x)`.
#[inline(always)]
pub fn gelu<const FUSED: bool>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<FUSED>(x * core::f32::consts::FRAC_1_SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-24_000..=24_000).map(|i| i as f32 / 1000.0)
    }

    #[test]
    fn powers_are_right_within_a_few_units_in_the_last_place() {
        for x in grid() {
            let want = f64::from(x).exp2();
            assert!((f64::from(exp2::<true>(x)) / want - 1.0).abs() < 3e-7, "2^{x}");
            assert!((f64::from(exp2::<false>(x)) / want - 1.0).abs() < 3e-7, "2^{x} without fused sums");
        }
    }

    #[test]
    fn powers_of_vectors_are_those_of_their_numbers_to_the_last_bit_and_keep_what_is_none() {
        let numbers: Vec<f32> = grid().map(|x| 6.0 * x).filter(|x| *x <= 127.0).collect();
        for four in numbers.as_chunks::<4>().0 {
            // SAFETY: plain numbers need no instructions.
            assert_eq!(unsafe { exp2_each(*four, &EXP2) }, four.map(exp2::<false>));
            // SAFETY: as above.
            let coarse = unsafe { exp2_each(*four, &EXP2_COARSE) };
            for (x, power) in four.iter().zip(coarse).filter(|(x, _)| **x >= -126.0) {
                let want = f64::from(*x).exp2();
                assert!((f64::from(power) / want - 1.0).abs() < 8e-5, "2^{x} is not {power}");
            }
        }
        // SAFETY: as above.
        let ends = unsafe { exp2_each([f32::NEG_INFINITY, -1e30, 0.0, f32::NAN], &EXP2) };
        assert_eq!(ends[..3], [0.0, 0.0, 1.0]);
        assert!(ends[3].is_nan());
    }

    #[test]
    fn powers_and_sigmoids_end_in_nothing_and_in_large_numbers_without_nan() {
        assert_eq!(exp2::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2::<true>(-1e30), 0.0);
        assert!(exp2::<true>(1e30) > 1e38);
        assert!(silu::<true>(-200.0).abs() < 1e-30);
        assert_eq!(silu::<true>(1e30), 1e30);
        assert!(sigmoid::<true>(-1e30) < 1e-38);
        assert_eq!(sigmoid::<true>(1e30), 1.0);
    }

    #[test]
    fn sigmoids_are_right_within_their_bounds() {
        for x in grid() {
            let want = 1.0 / (1.0 + (-f64::from(x)).exp());
            for [sigmoid, silu] in
                [[sigmoid::<true>(x), silu::<true>(x)], [sigmoid::<false>(x), silu::<false>(x)]]
            {
                assert!((f64::from(sigmoid) - want).abs() < 2e-7, "sigmoid({x})");
                let bound = 2e-7 * f64::from(x.abs().max(1.0));
                assert!((f64::from(silu) - f64::from(x) * want).abs() < bound, "silu({x})");
            }
        }
    }

    #[test]
    fn the_error_function_has_its_known_values() {
        // Values from Abramowitz and Stegun, table 7.1.
        for (x, want) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (5.0, 1.0)]
        {
            assert!((erf::<true>(x) - want).abs() < 4e-7, "erf({x})");
            assert!((erf::<false>(-x) + want).abs() < 4e-7, "erf(-{x})");
        }
    }
}
