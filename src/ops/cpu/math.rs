//! Functions of one f32, without branches, so that loops over them vectorise.

/// `a * b + c`, rounded once where `FUSED`.
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 * 2^23: adding it rounds to a whole number and leaves that number in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// Taylor coefficients of 2^f, from f^7 down to 1; on -0.5..=0.5 the rest is below 6e-9.
const EXP2: [f32; 8] = [
    1.525_273_4e-5,
    1.540_353e-4,
    1.333_355_8e-3,
    9.618_129e-3,
    5.550_411e-2,
    0.240_226_5,
    core::f32::consts::LN_2,
    1.0,
];

/// `2^(x + rest)` for a `rest` that is small against one: 0 below -127, and x above 127 counts as 127.
#[inline(always)]
fn exp2_of_sum<const FUSED: bool>(x: f32, rest: f32) -> f32 {
    let x = x.clamp(-127.0, 127.0);
    let shifted = x + ROUNDER;
    let fraction = (x - (shifted - ROUNDER)) + rest;
    let mut sum = EXP2[0];
    for coefficient in &EXP2[1..] {
        sum = multiply_add::<FUSED>(sum, fraction, *coefficient);
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `2^x`, within two units in the last place for x in -126..=127; 0 below -127.
#[inline(always)]
pub fn exp2<const FUSED: bool>(x: f32) -> f32 {
    exp2_of_sum::<FUSED>(x, 0.0)
}

/// `log2(e)` less its f32.
const LOG2_E_REST: f32 = 1.925_963e-8;

/// `e^x`, within a few units in the last place while it is a normal number.
#[inline(always)]
pub fn exp<const FUSED: bool>(x: f32) -> f32 {
    let whole = x * core::f32::consts::LOG2_E;
    let lost = if FUSED { x.mul_add(core::f32::consts::LOG2_E, -whole) } else { 0.0 };
    let rest = multiply_add::<FUSED>(x, LOG2_E_REST, lost);
    exp2_of_sum::<FUSED>(whole, rest.clamp(-1e-3, 1e-3))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub fn silu<const FUSED: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FUSED>(-x))
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
    fn exponentials_are_right_within_a_few_units_in_the_last_place() {
        for x in grid() {
            let want = f64::from(x).exp();
            assert!((f64::from(exp::<true>(x)) / want - 1.0).abs() < 4e-7, "e^{x}");
            assert!((f64::from(exp::<false>(x)) / want - 1.0).abs() < 3e-6, "e^{x} without fused sums");
            let want = f64::from(x).exp2();
            assert!((f64::from(exp2::<true>(x)) / want - 1.0).abs() < 3e-7, "2^{x}");
        }
    }

    #[test]
    fn exponentials_end_in_nothing_and_in_large_numbers_without_nan() {
        assert_eq!(exp2::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(-1e30), 0.0);
        assert!(exp::<true>(1e30) > 1e38);
        assert!(silu::<true>(-200.0).abs() < 1e-30);
        assert_eq!(silu::<true>(1e30), 1e30);
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
