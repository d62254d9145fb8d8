//! One line of minimal filtering F(m, 3): the points at which m results of three taps are products.
//!
//! With pixels at the points d', taps at the points g' and results of their products, F(m, 3) is `A^T ((G g) * (B^T d))`; the
//! matrices are those of Lavin and Gray.

use super::super::vector::Vector;
use super::Tiles;

/// Height and width of the kernel.
pub const TAPS: usize = 3;

/// The maps of a line of `RESULTS` results, read from `PIXELS` pixels: there are as many points.
///
/// All functions must be inlined where the vectors' instructions are, and the processor must have those.
pub trait Filter<const RESULTS: usize, const PIXELS: usize> {
    /// The tiles of two such lines' results, down and across.
    const TILES: Tiles;

    /// `B^T d`: pixels at the points.
    ///
    /// # Safety
    /// The processor must have the vectors' instructions.
    unsafe fn pixels<V: Vector>(pixels: [V; PIXELS]) -> [V; PIXELS];

    /// `G g`: taps at the points.
    ///
    /// # Safety
    /// The processor must have the vectors' instructions.
    unsafe fn taps<V: Vector>(taps: [V; TAPS]) -> [V; PIXELS];

    /// `A^T m`: the results of products at the points.
    ///
    /// # Safety
    /// The processor must have the vectors' instructions.
    unsafe fn results<V: Vector>(products: [V; PIXELS]) -> [V; RESULTS];
}

/// F(4, 3) with the points 0, 1, -1, 2, -2: a quarter of the multiplications in two dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Four;

impl Filter<4, 6> for Four {
    const TILES: Tiles = Tiles::Four;

    #[inline(always)]
    unsafe fn pixels<V: Vector>([d0, d1, d2, d3, d4, d5]: [V; 6]) -> [V; 6] {
        // SAFETY: the caller's promise.
        unsafe {
            let (even, odd) = (d2.times_plus(-4.0, d4), d1.times_plus(-4.0, d3));
            let (even2, half) = (d4.minus(d2), d3.minus(d1));
            [
                d0.times_plus(4.0, d2.times_plus(-5.0, d4)),
                even.plus(odd),
                even.minus(odd),
                half.times_plus(2.0, even2),
                half.times_plus(-2.0, even2),
                d1.times_plus(4.0, d3.times_plus(-5.0, d5)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn taps<V: Vector>([g0, g1, g2]: [V; TAPS]) -> [V; 6] {
        // SAFETY: the caller's promise.
        unsafe {
            let none = V::splat(0.0);
            let ends = g0.plus(g2).times_plus(-1.0 / 6.0, none);
            let middle = g1.times_plus(1.0 / 6.0, none);
            let far = g0.times_plus(1.0 / 24.0, g2.times_plus(1.0 / 6.0, none));
            let half = g1.times_plus(1.0 / 12.0, none);
            [
                g0.times_plus(0.25, none),
                ends.minus(middle),
                ends.plus(middle),
                far.plus(half),
                far.minus(half),
                g2,
            ]
        }
    }

    #[inline(always)]
    unsafe fn results<V: Vector>([m0, m1, m2, m3, m4, m5]: [V; 6]) -> [V; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (sum, difference) = (m1.plus(m2), m1.minus(m2));
            let (sum2, difference2) = (m3.plus(m4), m3.minus(m4));
            [
                m0.plus(sum).plus(sum2),
                difference2.times_plus(2.0, difference),
                sum2.times_plus(4.0, sum),
                difference2.times_plus(8.0, difference.plus(m5)),
            ]
        }
    }
}

/// F(2, 3) with the points 0, 1, -1: four ninths of the multiplications in two dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Two;

impl Filter<2, 4> for Two {
    const TILES: Tiles = Tiles::Two;

    #[inline(always)]
    unsafe fn pixels<V: Vector>([d0, d1, d2, d3]: [V; 4]) -> [V; 4] {
        // SAFETY: the caller's promise.
        unsafe { [d0.minus(d2), d1.plus(d2), d2.minus(d1), d1.minus(d3)] }
    }

    #[inline(always)]
    unsafe fn taps<V: Vector>([g0, g1, g2]: [V; TAPS]) -> [V; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let none = V::splat(0.0);
            let (ends, middle) = (g0.plus(g2).times_plus(0.5, none), g1.times_plus(0.5, none));
            [g0, ends.plus(middle), ends.minus(middle), g2]
        }
    }

    #[inline(always)]
    unsafe fn results<V: Vector>([m0, m1, m2, m3]: [V; 4]) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe { [m0.plus(m1).plus(m2), m1.minus(m2).minus(m3)] }
    }
}
