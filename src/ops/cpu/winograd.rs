//! Convolutions of 3 x 3 taps with a quarter of the multiplications: Winograd's minimal filtering F(4 x 4, 3 x 3).
//!
//! A tile of 4 x 4 results is read from 6 x 6 pixels. Pixels and taps are each mapped to 36 points, where convolving is
//! multiplying: at each point a matrix product over the channels, tiles by outputs. The results are mapped back.
//! Formulas: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), with the points 0, 1, -1, 2, -2.
//!
//! Whether a convolution goes this way depends on one picture's size and the weight, never on how many pictures there are.

use super::isa::{Isa, vectorised};
use super::lines::Lines;
use super::patches::{Patches, Walk};
use super::product::{Finish, Place};
use super::scratch;
use super::shared::{Shared, Slot, filled};
use super::tile::{self, COLUMNS, ROWS, Run};
use super::weight::Weight;
use rayon::prelude::*;
use std::array::from_fn;
use std::ops::Range;

/// Height and width of a tile of results.
const RESULTS: usize = 4;
/// Height and width of the pixels that it is read from.
const PIXELS: usize = 6;
/// Points at which pixels and taps are multiplied.
const POINTS: usize = PIXELS * PIXELS;
/// Numbers that are mapped at once: a vector's.
const LANES: usize = 16;
/// Bytes of a task's pixels at the points, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Tiles of a task: enough to read weights for, few enough to share out.
const BLOCK: Range<usize> = 2 * ROWS..5 * ROWS;
/// Tasks for each thread, where there is enough to do, so that threads end together.
const TASKS: usize = 4;
/// The most bytes of a weight that are kept at the points, four times those of its taps; others are mapped at each use.
const KEPT_BYTES: usize = 8 << 20;
/// Panels mapped together where they are not kept.
const PANELS_AT_ONCE: usize = 4;
/// The fewest tiles of a picture that repay reading, or mapping, four times the weights.
const FEWEST: usize = 16;
const FEWEST_UNKEPT: usize = 64;

type Lane = [f32; LANES];

/// A weight's panels at the points: `[panels, 36, inputs, 32]`.
pub type Points = Lines<f32>;

/// Whether this is faster for the convolution that walks so.
pub fn takes(isa: Isa, walk: &Walk, weight: &Weight) -> bool {
    let tiles = walk.out.0.div_ceil(RESULTS) * walk.out.1.div_ceil(RESULTS);
    let fewest = if is_kept(weight) { FEWEST } else { FEWEST_UNKEPT };
    let channels = weight.depth() / 9;
    isa != Isa::Portable
        && (walk.kernel, walk.stride) == (3, 1)
        && channels.is_multiple_of(LANES)
        && channels >= 2 * LANES
        && tiles >= fewest
}

fn is_kept(weight: &Weight) -> bool {
    weight.panels() * points_of_panel(weight) * size_of::<f32>() <= KEPT_BYTES
}

/// Numbers of a panel at the points.
fn points_of_panel(weight: &Weight) -> usize {
    weight.depth() / 9 * POINTS * COLUMNS
}

/// What [`super::product::multiply`] computes, for a convolution that [`takes`] says yes to.
pub fn convolve(isa: Isa, patches: &Patches<f32>, weight: &Weight, finish: Finish, rows: usize) -> Vec<f32> {
    let points = is_kept(weight).then(|| kept_points(isa, weight));
    Convolution { isa, patches, weight, finish, grid: Grid::new(patches, rows) }.compute(rows, points)
}

/// A weight at the points, for several convolutions that [`takes`] says yes to.
#[derive(Debug)]
pub struct Mapped<'a> {
    isa: Isa,
    weight: &'a Weight,
    /// None where they are kept with the weight.
    own: Option<Points>,
}

impl<'a> Mapped<'a> {
    /// Maps `weight` unless it is kept mapped.
    pub fn of(isa: Isa, weight: &'a Weight) -> Self {
        let own = (!is_kept(weight)).then(|| {
            let mut points = Points::zeros(weight.panels() * points_of_panel(weight));
            map_panels(isa, weight, 0..weight.panels(), &mut points);
            points
        });
        Self { isa, weight, own }
    }

    /// [`convolve`] with the weight that was mapped.
    pub fn convolve(&self, patches: &Patches<f32>, finish: Finish, rows: usize) -> Vec<f32> {
        let Self { isa, weight, ref own } = *self;
        let points = own.as_deref().unwrap_or_else(|| kept_points(isa, weight));
        Convolution { isa, patches, weight, finish, grid: Grid::new(patches, rows) }
            .compute(rows, Some(points))
    }
}

/// The points that are kept with `weight`.
fn kept_points(isa: Isa, weight: &Weight) -> &[f32] {
    weight.points(|| all_at_points(isa, weight))
}

/// Maps all of a weight to the points, on this thread alone: one that waited for others would take up their work
/// meanwhile, and might come upon the weight that it is keeping them from.
fn all_at_points(isa: Isa, weight: &Weight) -> Points {
    let each = points_of_panel(weight);
    let mut points = Points::zeros(weight.panels() * each);
    for (panel, points) in points.chunks_mut(each).enumerate() {
        map_panel(isa, weight, panel, points);
    }
    points
}

/// Maps `panels`, in parallel.
fn map_panels(isa: Isa, weight: &Weight, panels: Range<usize>, points: &mut [f32]) {
    let mapped = points.par_chunks_mut(points_of_panel(weight)).zip(panels);
    mapped.for_each(|(points, panel)| map_panel(isa, weight, panel, points));
}

fn map_panel(isa: Isa, weight: &Weight, panel: usize, points: &mut [f32]) {
    let depth = weight.depth();
    scratch::with([depth.next_multiple_of(2) * COLUMNS], |[wide]| {
        map_taps(isa, weight.panel(isa, panel, 0..depth, wide), points);
    });
}

/// The tiles of all pictures.
#[derive(Clone, Copy)]
struct Grid {
    /// Tiles of a picture, down and across.
    tiles: (usize, usize),
    count: usize,
}

impl Grid {
    fn new(patches: &Patches<f32>, rows: usize) -> Self {
        let (height, width) = patches.walk.out;
        let tiles = (height.div_ceil(RESULTS), width.div_ceil(RESULTS));
        Self { tiles, count: rows / (height * width) * tiles.0 * tiles.1 }
    }

    /// The picture of a tile, and the line and column of its first result.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (line, column) = (tile / self.tiles.1, tile % self.tiles.1);
        (line / self.tiles.0, line % self.tiles.0 * RESULTS, column * RESULTS)
    }
}

struct Convolution<'a> {
    isa: Isa,
    patches: &'a Patches<'a, f32>,
    weight: &'a Weight,
    finish: Finish<'a>,
    grid: Grid,
}

impl Convolution<'_> {
    /// All rows, with the weight at `points`, or mapped some panels at a time.
    fn compute(&self, rows: usize, points: Option<&[f32]>) -> Vec<f32> {
        let weight = self.weight;
        let write = |out: &mut [Slot]| {
            let out = Shared::new(out);
            if let Some(points) = points {
                return self.panels(0..weight.panels(), points, out);
            }
            let mut points = Points::zeros(weight.panels().min(PANELS_AT_ONCE) * points_of_panel(weight));
            for first in (0..weight.panels()).step_by(PANELS_AT_ONCE) {
                let panels = first..weight.panels().min(first + PANELS_AT_ONCE);
                map_panels(self.isa, weight, panels.clone(), &mut points);
                self.panels(panels, &points, out);
            }
        };
        // SAFETY: the tiles make up all rows, and the panels all columns.
        unsafe { filled(rows * weight.width(), write) }
    }

    /// Computes the columns of `panels`, which `points` hold.
    fn panels(&self, panels: Range<usize>, points: &[f32], out: Shared) {
        let most = BLOCK_BYTES / (size_of::<f32>() * POINTS * self.patches.channels);
        let most = (most / ROWS * ROWS).clamp(BLOCK.start, BLOCK.end);
        let blocks = self.grid.count.div_ceil(most).max(1);
        let block = self.grid.count.div_ceil(blocks).next_multiple_of(ROWS);
        let chunk =
            (panels.len() * blocks / (TASKS * rayon::current_num_threads())).clamp(2, panels.len().max(2));
        let tasks: Vec<_> = (0..self.grid.count)
            .step_by(block)
            .map(|from| from..self.grid.count.min(from + block))
            .flat_map(|tiles| panels.clone().step_by(chunk).map(move |panel| (tiles.clone(), panel)))
            .collect();
        let each = points_of_panel(self.weight);
        tasks.into_par_iter().for_each(|(tiles, first)| {
            let task = first..panels.end.min(first + chunk);
            let points = &points[(first - panels.start) * each..][..task.len() * each];
            self.task(tiles, task, points, out);
        });
    }

    /// Computes tiles in the columns of a task's `panels`.
    fn task(&self, tiles: Range<usize>, panels: Range<usize>, points: &[f32], out: Shared) {
        let channels = self.patches.channels;
        let sizes = [POINTS * tiles.len() * channels, POINTS * tiles.len() * COLUMNS, channels];
        scratch::with(sizes, |[pixels, products, zeros]| {
            zeros.fill(0.0);
            for (at, tile) in tiles.clone().enumerate() {
                let read = self.read(tile, zeros);
                map_pixels(self.isa, &read, &mut pixels[at * channels..], tiles.len() * channels);
            }
            for (panel, points) in panels.zip(points.chunks_exact(points_of_panel(self.weight))) {
                self.multiply(tiles.len(), pixels, points, products);
                for (at, tile) in tiles.clone().enumerate() {
                    self.write((tile, panel), &products[at * COLUMNS..], tiles.len() * COLUMNS, out);
                }
            }
        });
    }

    /// The pixels that a tile is read from.
    fn read<'a>(&'a self, tile: usize, zeros: &'a [f32]) -> [&'a [f32]; POINTS] {
        let (picture, y, x) = self.grid.place(tile);
        from_fn(|at| {
            let seen = (y + at / PIXELS, x + at % PIXELS);
            match self.patches.walk.seen_pixel(picture, seen) {
                Some(pixel) => &self.patches.data[pixel * zeros.len()..][..zeros.len()],
                None => zeros,
            }
        })
    }

    /// The products at all points, `[36, tiles, 32]`, of pixels `[36, tiles, inputs]` and a panel `[36, inputs, 32]`.
    fn multiply(&self, tiles: usize, pixels: &[f32], panel: &[f32], products: &mut [f32]) {
        let channels = self.patches.channels;
        let points = pixels.chunks_exact(tiles * channels).zip(panel.chunks_exact(channels * COLUMNS));
        for ((pixels, b), c) in points.zip(products.chunks_exact_mut(tiles * COLUMNS)) {
            let tiles = pixels.chunks(ROWS * channels).zip(c.chunks_mut(ROWS * COLUMNS));
            for (a, c) in tiles {
                let mut rows = [&a[..channels]; ROWS];
                let count = rows.iter_mut().zip(a.chunks_exact(channels)).map(|(row, a)| *row = a).count();
                tile::multiply(self.isa, &[Run::of_rows(&rows[..count])], b, c, true);
            }
        }
    }

    /// Maps a tile's products, `step` from point to point, to its results, and writes those within the picture.
    fn write(&self, (tile, panel): (usize, usize), products: &[f32], step: usize, out: Shared) {
        let mut results = [[0f32; COLUMNS]; RESULTS * RESULTS];
        map_products(self.isa, products, step, &mut results);
        let (picture, y, x) = self.grid.place(tile);
        let (height, width) = self.patches.walk.out;
        for (at, sums) in results.iter().enumerate() {
            let (y, x) = (y + at / RESULTS, x + at % RESULTS);
            if y < height && x < width {
                let row = (picture * height + y) * width + x;
                let place = Place { weight: self.weight, row, panel };
                // SAFETY: each task has its own tiles and panels, hence its own elements.
                unsafe { self.finish.write(self.isa, place, sums, out) };
            }
        }
    }
}

vectorised!(
    /// Maps a tile's pixels to the points; those of a point lie `step` behind those of the point before.
    fn map_pixels(pixels: &[&[f32]; POINTS], out: &mut [f32], step: usize) => map_pixels_inner
);

#[inline(always)]
fn map_pixels_inner<const FUSED: bool>(pixels: &[&[f32]; POINTS], out: &mut [f32], step: usize) {
    for first in (0..pixels[0].len()).step_by(LANES) {
        let mut lines = [[[0f32; LANES]; PIXELS]; PIXELS];
        for x in 0..PIXELS {
            let column = from_fn(|y| lane(&pixels[y * PIXELS + x][first..]));
            for (line, value) in lines.iter_mut().zip(spread_pixels(&column)) {
                line[x] = value;
            }
        }
        for (y, line) in lines.iter().enumerate() {
            for (x, value) in spread_pixels(line).iter().enumerate() {
                out[(y * PIXELS + x) * step + first..][..LANES].copy_from_slice(value);
            }
        }
    }
}

vectorised!(
    /// Maps a panel's taps `[9, inputs, 32]` to the points `[36, inputs, 32]`.
    fn map_taps(taps: &[f32], points: &mut [f32]) => map_taps_inner
);

#[inline(always)]
fn map_taps_inner<const FUSED: bool>(taps: &[f32], points: &mut [f32]) {
    let step = taps.len() / 9;
    for first in (0..step).step_by(LANES) {
        let mut lines = [[[0f32; LANES]; 3]; PIXELS];
        for x in 0..3 {
            let column = from_fn(|y| lane(&taps[(y * 3 + x) * step + first..]));
            for (line, value) in lines.iter_mut().zip(spread_taps(&column)) {
                line[x] = value;
            }
        }
        for (y, line) in lines.iter().enumerate() {
            for (x, value) in spread_taps(line).iter().enumerate() {
                points[(y * PIXELS + x) * step + first..][..LANES].copy_from_slice(value);
            }
        }
    }
}

vectorised!(
    /// Maps a tile's products, `step` from point to point, to its results.
    fn map_products(products: &[f32], step: usize, results: &mut [[f32; COLUMNS]; RESULTS * RESULTS]) => map_products_inner
);

#[inline(always)]
fn map_products_inner<const FUSED: bool>(
    products: &[f32],
    step: usize,
    results: &mut [[f32; COLUMNS]; RESULTS * RESULTS],
) {
    for first in (0..COLUMNS).step_by(LANES) {
        let mut lines = [[[0f32; LANES]; PIXELS]; RESULTS];
        for x in 0..PIXELS {
            let column = from_fn(|y| lane(&products[(y * PIXELS + x) * step + first..]));
            for (line, value) in lines.iter_mut().zip(gather(&column)) {
                line[x] = value;
            }
        }
        for (y, line) in lines.iter().enumerate() {
            for (x, value) in gather(line).iter().enumerate() {
                results[y * RESULTS + x][first..][..LANES].copy_from_slice(value);
            }
        }
    }
}

#[inline(always)]
fn lane(values: &[f32]) -> Lane {
    from_fn(|i| values[..LANES][i])
}

/// Six pixels of a line at the six points of that line.
#[inline(always)]
fn spread_pixels(d: &[Lane; PIXELS]) -> [Lane; PIXELS] {
    let mut v = [[0f32; LANES]; PIXELS];
    for i in 0..LANES {
        let (even, odd) = (d[4][i] - 4.0 * d[2][i], d[3][i] - 4.0 * d[1][i]);
        let (even2, odd2) = (d[4][i] - d[2][i], 2.0 * (d[3][i] - d[1][i]));
        v[0][i] = 4.0 * d[0][i] - 5.0 * d[2][i] + d[4][i];
        v[1][i] = even + odd;
        v[2][i] = even - odd;
        v[3][i] = even2 + odd2;
        v[4][i] = even2 - odd2;
        v[5][i] = 4.0 * d[1][i] - 5.0 * d[3][i] + d[5][i];
    }
    v
}

/// Three taps of a line at the six points of that line.
#[inline(always)]
fn spread_taps(g: &[Lane; 3]) -> [Lane; PIXELS] {
    let mut u = [[0f32; LANES]; PIXELS];
    for i in 0..LANES {
        let ends = (g[0][i] + g[2][i]) * (-1.0 / 6.0);
        let middle = g[1][i] * (1.0 / 6.0);
        let far = g[0][i] * (1.0 / 24.0) + g[2][i] * (1.0 / 6.0);
        let half = g[1][i] * (1.0 / 12.0);
        u[0][i] = 0.25 * g[0][i];
        u[1][i] = ends - middle;
        u[2][i] = ends + middle;
        u[3][i] = far + half;
        u[4][i] = far - half;
        u[5][i] = g[2][i];
    }
    u
}

/// Four results of a line from the products at its six points.
#[inline(always)]
fn gather(m: &[Lane; PIXELS]) -> [Lane; RESULTS] {
    let mut y = [[0f32; LANES]; RESULTS];
    for i in 0..LANES {
        let (sum, difference) = (m[1][i] + m[2][i], m[1][i] - m[2][i]);
        let (sum2, difference2) = (m[3][i] + m[4][i], m[3][i] - m[4][i]);
        y[0][i] = m[0][i] + sum + sum2;
        y[1][i] = difference + 2.0 * difference2;
        y[2][i] = sum + 4.0 * sum2;
        y[3][i] = difference + 8.0 * difference2 + m[5][i];
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::weight::{Order, Stored};
    use super::*;
    use crate::ops::testing::numbers;

    const INPUTS: usize = 32;
    const OUTPUTS: usize = 150;

    /// A convolution of two pictures of 18 x 21.
    fn walk() -> Walk {
        let size = (18, 21);
        Walk { stored: size, seen: size, out: size, kernel: 3, stride: 1, before: 1 }
    }

    fn weight() -> Weight {
        let values = numbers(OUTPUTS * INPUTS * 9, 1);
        let order = Order { outputs: OUTPUTS, inputs: INPUTS, taps: 9, gated: false };
        Weight::pack(Stored::F32(&values), order)
    }

    #[test]
    fn weights_mapped_at_each_use_give_the_same_to_the_last_bit() {
        let (height, width) = walk().out;
        let rows = 2 * height * width;
        let (data, weight) = (numbers(rows * INPUTS, 2), weight());
        let patches = Patches { data: &data, channels: INPUTS, walk: walk() };
        for isa in Isa::available() {
            let grid = Grid::new(&patches, rows);
            let convolution =
                Convolution { isa, patches: &patches, weight: &weight, finish: Finish::default(), grid };
            let kept = convolution.compute(rows, Some(kept_points(isa, &weight)));
            assert_eq!(kept, convolution.compute(rows, None), "{isa:?}");
        }
    }
}
