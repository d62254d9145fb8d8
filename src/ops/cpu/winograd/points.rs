//! Pixels, taps and products of minimal filtering at its points, and back: a line's map, down the columns of a square and then
//! across its lines.

use super::super::finish::Block;
use super::super::isa::Isa;
use super::super::scaled::ROUNDED;
use super::super::shared::Slot;
use super::super::tile::COLUMNS;
use super::super::vector::{Loop, Vector, WIDEST, run};
use super::filters::{Filter, TAPS};
use std::marker::PhantomData;

/// Maps a tile's pixels to the points; those of a point lie `step` behind those of the point before.
///
/// # Panics
/// If channels do not fill vectors, or `out` is too short.
pub fn map_pixels<F: Filter<R, P>, const R: usize, const P: usize>(
    isa: Isa,
    pixels: &[[&[f32]; P]; P],
    out: &mut [Slot],
    step: usize,
) {
    let channels = pixels[0][0].len();
    assert!(channels.is_multiple_of(WIDEST) && pixels.as_flattened().iter().all(|x| x.len() == channels));
    assert!(out.len() >= (P * P - 1) * step + channels, "the points do not fit");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { run(isa, Pixels::<F, R, P> { pixels, out, step, filter: PhantomData }) }
}

struct Pixels<'a, F, const R: usize, const P: usize> {
    pixels: &'a [[&'a [f32]; P]; P],
    out: &'a mut [Slot],
    step: usize,
    filter: PhantomData<F>,
}

impl<F: Filter<R, P>, const R: usize, const P: usize> Loop for Pixels<'_, F, R, P> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { pixels, out, step, .. } = self;
        for first in (0..pixels[0][0].len()).step_by(V::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let mut columns = [[V::splat(0.0); P]; P];
                for (x, column) in columns.iter_mut().enumerate() {
                    for (y, value) in column.iter_mut().enumerate() {
                        *value = V::load(pixels[y][x].as_ptr().add(first));
                    }
                    *column = F::pixels(*column);
                }
                for y in 0..P {
                    let to = out.as_mut_ptr().cast::<f32>().add(y * P * step + first);
                    for (x, value) in F::pixels(across(&columns, y)).into_iter().enumerate() {
                        value.store(to.add(x * step));
                    }
                }
            }
        }
    }
}

/// Line `y` of `P` columns.
#[inline(always)]
unsafe fn across<V: Vector, const N: usize, const P: usize>(columns: &[[V; N]; P], y: usize) -> [V; P] {
    // SAFETY: the caller's promise.
    let mut line = unsafe { [V::splat(0.0); P] };
    for (value, column) in line.iter_mut().zip(columns) {
        *value = column[y];
    }
    line
}

/// Maps a panel's taps `[9, inputs, 32]` to the points `[P * P, inputs, 32]`.
///
/// # Panics
/// If the points do not fit.
pub fn map_taps<F: Filter<R, P>, const R: usize, const P: usize>(isa: Isa, taps: &[f32], points: &mut [f32]) {
    let step = taps.len() / (TAPS * TAPS);
    assert!(step.is_multiple_of(COLUMNS) && points.len() == P * P * step, "the points do not fit");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { run(isa, Taps::<F, R, P> { taps, points, filter: PhantomData }) }
}

struct Taps<'a, F, const R: usize, const P: usize> {
    taps: &'a [f32],
    points: &'a mut [f32],
    filter: PhantomData<F>,
}

impl<F: Filter<R, P>, const R: usize, const P: usize> Loop for Taps<'_, F, R, P> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let step = self.taps.len() / (TAPS * TAPS);
        for first in (0..step).step_by(V::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let mut columns = [[V::splat(0.0); P]; TAPS];
                for (x, column) in columns.iter_mut().enumerate() {
                    let from = self.taps.as_ptr().add(x * step + first);
                    let (middle, bottom) = (from.add(TAPS * step), from.add(2 * TAPS * step));
                    *column = F::taps([V::load(from), V::load(middle), V::load(bottom)]);
                }
                for y in 0..P {
                    let to = self.points.as_mut_ptr().add(y * P * step + first);
                    for (x, value) in F::taps(across(&columns, y)).into_iter().enumerate() {
                        value.store(to.add(x * step));
                    }
                }
            }
        }
    }
}

/// Maps a panel's taps in pairs of bf16, `[9, inputs / 2, 32]`, to integers at the points `[P * P, inputs / 2, 32]`, whose columns
/// have a factor each, `[P * P, 32]`; from point to point there are `step` pairs.
///
/// # Panics
/// If the points do not fit.
pub fn map_pairs<F: Filter<R, P>, const R: usize, const P: usize>(
    isa: Isa,
    taps: &[u32],
    factors: &[f32],
    (points, step): (&mut [u32], usize),
) {
    let each = taps.len() / (TAPS * TAPS);
    assert!(each.is_multiple_of(COLUMNS) && factors.len() == P * P * COLUMNS, "columns have factors");
    assert!(step >= each && points.len() >= (P * P - 1) * step + each, "the points do not fit");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { run(isa, Pairs::<F, R, P> { taps, factors, points, step, filter: PhantomData }) }
}

struct Pairs<'a, F, const R: usize, const P: usize> {
    taps: &'a [u32],
    factors: &'a [f32],
    points: &'a mut [u32],
    step: usize,
    filter: PhantomData<F>,
}

impl<F: Filter<R, P>, const R: usize, const P: usize> Loop for Pairs<'_, F, R, P> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { taps, factors, points, step, .. } = self;
        let each = taps.len() / (TAPS * TAPS);
        for first in (0..each).step_by(V::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let mut columns = [[[V::splat(0.0); P]; TAPS]; 2];
                let [firsts, seconds] = &mut columns;
                for (x, (first_column, second_column)) in firsts.iter_mut().zip(seconds).enumerate() {
                    let from = taps.as_ptr().add(x * each + first);
                    // No closure: the compiler might leave it, and its instructions, a function of its own.
                    let a = V::load_pairs(from);
                    let b = V::load_pairs(from.add(TAPS * each));
                    let c = V::load_pairs(from.add(2 * TAPS * each));
                    *first_column = F::taps([a[0], b[0], c[0]]);
                    *second_column = F::taps([a[1], b[1], c[1]]);
                }
                let factors = factors.as_ptr().add(first % COLUMNS);
                for y in 0..P {
                    let to = points.as_mut_ptr().add(y * P * step + first);
                    let lines = [F::taps(across(&columns[0], y)), F::taps(across(&columns[1], y))];
                    for (x, first) in lines[0].iter().enumerate() {
                        let factor = V::load(factors.add((y * P + x) * COLUMNS));
                        let first = first.times(factor).plus(V::splat(ROUNDED));
                        let second = lines[1][x].times(factor).plus(V::splat(ROUNDED));
                        V::store_halves([first, second], to.add(x * step));
                    }
                }
            }
        }
    }
}

/// Where results of a tile go.
pub struct Results<'a> {
    /// Those within the picture.
    pub to: Block<'a>,
    /// What is added to all of them, a number for each column of the panel.
    pub bias: &'a [f32],
}

/// Maps a tile's products, `step` from point to point, to its results, and writes those within the picture.
///
/// # Safety
/// Nobody else may have to do with the results' elements meanwhile.
///
/// # Panics
/// If there are too few products.
pub unsafe fn map_products<F: Filter<R, P>, const R: usize, const P: usize>(
    isa: Isa,
    (products, step): (&[f32], usize),
    results: &Results,
) {
    assert!(products.len() >= (P * P - 1) * step + COLUMNS, "there are products at all points");
    assert!(results.bias.len() == COLUMNS, "a bias is padded");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { run(isa, Products::<F, R, P> { products, step, results, filter: PhantomData }) }
}

struct Products<'a, F, const R: usize, const P: usize> {
    products: &'a [f32],
    step: usize,
    results: &'a Results<'a>,
    filter: PhantomData<F>,
}

impl<F: Filter<R, P>, const R: usize, const P: usize> Loop for Products<'_, F, R, P> {
    /// # Safety
    /// Besides, what [`map_products`] asks for.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { products, step, results: Results { to, bias }, .. } = self;
        for first in (0..to.width).step_by(V::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let bias = V::load(bias.as_ptr().add(first));
                let mut columns = [[V::splat(0.0); R]; P];
                for (x, column) in columns.iter_mut().enumerate() {
                    let from = products.as_ptr().add(x * step + first);
                    let mut down = [V::splat(0.0); P];
                    for (y, value) in down.iter_mut().enumerate() {
                        *value = V::load(from.add(y * P * step));
                    }
                    *column = F::results(down);
                }
                for y in 0..R {
                    let mut line = F::results(across(&columns, y));
                    for value in &mut line {
                        *value = value.plus(bias);
                    }
                    to.put(line, y, first);
                }
            }
        }
    }
}
