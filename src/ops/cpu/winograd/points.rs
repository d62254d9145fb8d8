//! Pixels, taps and products of minimal filtering at its points, and back: six points of a line, 36 of a tile.

use super::super::isa::Isa;
use super::super::product::Row;
use super::super::tile::COLUMNS;
use super::super::vector::{Vector, with_vector};

/// Height and width of a tile of results.
pub const RESULTS: usize = 4;
/// Height and width of the pixels that it is read from.
pub const PIXELS: usize = 6;
/// Points at which pixels and taps are multiplied.
pub const POINTS: usize = PIXELS * PIXELS;
/// Numbers of the widest vector: channels come in multiples of it.
pub const WIDEST: usize = 16;
/// Height and width of the kernel.
const TAPS: usize = 3;

/// Maps a tile's pixels to the points; those of a point lie `step` behind those of the point before.
///
/// # Panics
/// If channels do not fill vectors, or `out` is too short.
pub fn map_pixels(isa: Isa, pixels: &[&[f32]; POINTS], out: &mut [f32], step: usize) {
    let channels = pixels[0].len();
    assert!(channels.is_multiple_of(WIDEST) && pixels.iter().all(|pixel| pixel.len() == channels));
    assert!(out.len() >= (POINTS - 1) * step + channels, "the points do not fit");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { spread_tile(isa, pixels, out, step) }
}

with_vector!(fn spread_tile(pixels: &[&[f32]; POINTS], out: &mut [f32], step: usize) => spread_tile_inner);

#[inline(always)]
unsafe fn spread_tile_inner<V: Vector>(pixels: &[&[f32]; POINTS], out: &mut [f32], step: usize) {
    for first in (0..pixels[0].len()).step_by(V::LANES) {
        let from = |at: usize| pixels[at].as_ptr().wrapping_add(first);
        // SAFETY: the caller's promise.
        let columns = unsafe {
            [
                spread_pixels::<V>(down(from, 0)),
                spread_pixels(down(from, 1)),
                spread_pixels(down(from, 2)),
                spread_pixels(down(from, 3)),
                spread_pixels(down(from, 4)),
                spread_pixels(down(from, 5)),
            ]
        };
        for y in 0..PIXELS {
            let to = out.as_mut_ptr().wrapping_add(y * PIXELS * step + first);
            // SAFETY: the caller's promise.
            unsafe {
                let line = spread_pixels(across(&columns, y));
                for (x, value) in line.into_iter().enumerate() {
                    value.store(to.wrapping_add(x * step));
                }
            }
        }
    }
}

/// Line `y` of six columns.
#[inline(always)]
fn across<V: Vector, const N: usize>(columns: &[[V; N]; PIXELS], y: usize) -> [V; PIXELS] {
    let [a, b, c, d, e, f] = columns;
    [a[y], b[y], c[y], d[y], e[y], f[y]]
}

/// The vectors down column `x` of a square of six.
#[inline(always)]
unsafe fn down<V: Vector>(from: impl Fn(usize) -> *const f32, x: usize) -> [V; PIXELS] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            V::load(from(x)),
            V::load(from(PIXELS + x)),
            V::load(from(2 * PIXELS + x)),
            V::load(from(3 * PIXELS + x)),
            V::load(from(4 * PIXELS + x)),
            V::load(from(5 * PIXELS + x)),
        ]
    }
}

/// Six pixels of a line at the six points of that line.
#[inline(always)]
unsafe fn spread_pixels<V: Vector>([d0, d1, d2, d3, d4, d5]: [V; PIXELS]) -> [V; PIXELS] {
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

/// Maps a panel's taps `[9, inputs, 32]` to the points `[36, inputs, 32]`.
///
/// # Panics
/// If the points do not fit.
pub fn map_taps(isa: Isa, taps: &[f32], points: &mut [f32]) {
    let step = taps.len() / (TAPS * TAPS);
    assert!(step.is_multiple_of(COLUMNS) && points.len() == POINTS * step, "the points do not fit");
    // SAFETY: all vectors lie within what was measured above.
    unsafe { spread_panel(isa, taps, points) }
}

with_vector!(fn spread_panel(taps: &[f32], points: &mut [f32]) => spread_panel_inner);

#[inline(always)]
unsafe fn spread_panel_inner<V: Vector>(taps: &[f32], points: &mut [f32]) {
    let step = taps.len() / (TAPS * TAPS);
    for first in (0..step).step_by(V::LANES) {
        let from = |at: usize| taps.as_ptr().wrapping_add(at * step + first);
        // SAFETY: the caller's promise.
        unsafe {
            let columns = [tap_column::<V>(from, 0), tap_column(from, 1), tap_column(from, 2)];
            for y in 0..PIXELS {
                let line = spread_taps(columns.map(|column| column[y]));
                for (x, value) in line.into_iter().enumerate() {
                    value.store(points.as_mut_ptr().wrapping_add((y * PIXELS + x) * step + first));
                }
            }
        }
    }
}

/// The points down column `x` of the kernel.
#[inline(always)]
unsafe fn tap_column<V: Vector>(from: impl Fn(usize) -> *const f32, x: usize) -> [V; PIXELS] {
    // SAFETY: the caller's promise.
    unsafe { spread_taps([V::load(from(x)), V::load(from(TAPS + x)), V::load(from(2 * TAPS + x))]) }
}

/// Three taps of a line at the six points of that line.
#[inline(always)]
unsafe fn spread_taps<V: Vector>([g0, g1, g2]: [V; TAPS]) -> [V; PIXELS] {
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

/// Maps a tile's products, `step` from point to point, to its results, adds what belongs to them, and writes those that have
/// a row; `bias` is that of the panel.
///
/// # Panics
/// If there are too few products.
pub fn map_products(
    isa: Isa,
    (products, step): (&[f32], usize),
    bias: Option<&[f32]>,
    rows: &mut [Option<Row>; RESULTS * RESULTS],
) {
    assert!(products.len() >= (POINTS - 1) * step + COLUMNS, "there are products at all points");
    assert!(bias.is_none_or(|bias| bias.len() == COLUMNS), "a bias is padded");
    assert!(rows.iter().flatten().all(|Row { add, out }| add.is_none_or(|add| add.len() == out.len())));
    // SAFETY: all vectors lie within what was measured above.
    unsafe { gather_tile(isa, (products, step), bias, rows) }
}

with_vector!(
    fn gather_tile(
        products: (&[f32], usize),
        bias: Option<&[f32]>,
        rows: &mut [Option<Row>; RESULTS * RESULTS],
    ) => gather_tile_inner
);

#[inline(always)]
unsafe fn gather_tile_inner<V: Vector>(
    (products, step): (&[f32], usize),
    bias: Option<&[f32]>,
    rows: &mut [Option<Row>; RESULTS * RESULTS],
) {
    let width = rows.iter().flatten().map(|row| row.out.len()).max().unwrap_or(0);
    for first in (0..width).step_by(V::LANES) {
        let from = |at: usize| products.as_ptr().wrapping_add(at * step + first);
        // SAFETY: the caller's promise.
        unsafe {
            let bias = bias.map_or(V::splat(0.0), |bias| V::load(bias.as_ptr().add(first)));
            let columns = [
                gather::<V>(down(from, 0)),
                gather(down(from, 1)),
                gather(down(from, 2)),
                gather(down(from, 3)),
                gather(down(from, 4)),
                gather(down(from, 5)),
            ];
            for y in 0..RESULTS {
                let line = gather(across(&columns, y));
                for (x, value) in line.into_iter().enumerate() {
                    if let Some(row) = &mut rows[y * RESULTS + x] {
                        put(value.plus(bias), first, row);
                    }
                }
            }
        }
    }
}

/// Four results of a line from the products at its six points.
#[inline(always)]
unsafe fn gather<V: Vector>([m0, m1, m2, m3, m4, m5]: [V; PIXELS]) -> [V; RESULTS] {
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

/// Writes the numbers of a row from `first` on, with what is added; those behind its end are left out.
#[inline(always)]
unsafe fn put<V: Vector>(sums: V, first: usize, row: &mut Row) {
    let Row { add, out } = row;
    if out.len() >= first + V::LANES {
        // SAFETY: the row has a vector here, and so has what is added.
        unsafe {
            let sums = add.map_or(sums, |add| sums.plus(V::load(add.as_ptr().add(first))));
            sums.store(out.as_mut_ptr().add(first).cast());
        }
    } else if out.len() > first {
        let mut room = [0.0; WIDEST];
        // SAFETY: no vector is wider.
        unsafe { sums.store(room.as_mut_ptr()) };
        for (at, out) in out[first..].iter_mut().enumerate() {
            out.write(room[at] + add.map_or(0.0, |add| add[first + at]));
        }
    }
}
