//! Convolutions of 3 x 3 taps with fewer multiplications, by Winograd's minimal filtering: a quarter of them by F(4 x 4, 3 x 3),
//! and four ninths by F(2 x 2, 3 x 3) for pictures that have few tiles of the former.
//!
//! A tile of 4 x 4 results is read from 6 x 6 pixels. Pixels and taps are each mapped to 36 points, where convolving is
//! multiplying: at each point a matrix product over the channels, tiles by outputs. The results are mapped back. A tile of 2 x 2
//! has 16 points. What is multiplied there is f32, or, where weights are bf16, scaled integers ([`operands`]).
//! Formulas: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).
//!
//! Whether and how a convolution goes this way depends on one picture's size and the weight, never on how many pictures there are.

mod filters;
mod operands;
mod points;

use super::finish::{Finish, Place};
use super::hands;
use super::isa::Isa;
use super::lines::Lines;
use super::patches::{Patches, Walk};
use super::product::ranges;
use super::scratch;
use super::shared::{Shared, Slot, filled};
use super::tile::{COLUMNS, Columns, ROWS};
use super::vector::WIDEST;
use super::weight::Weight;
use filters::{Filter, Four, Two};
use operands::{Floats, Operands, Scaled};
use points::{Results, map_products};
use rayon::prelude::*;
use std::array::from_fn;
use std::ops::Range;

/// Bytes of a task's pixels at the points, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Tiles of a task: enough to read weights for, few enough to share out.
const BLOCK: Range<usize> = 2 * ROWS..5 * ROWS;
/// Numbers between what belongs to two points, a cache line: a tile's numbers lie at 36 places as far apart as this and a
/// power of two times few, which the first-level cache would otherwise keep in one of its sets, for eight of them.
const APART: usize = 16;
/// The most bytes of a weight that are kept at the points, four times those of its taps; others are mapped at each use.
const KEPT_BYTES: usize = 8 << 20;
/// The most bytes of a weight that is kept for several convolutions too: others are mapped for them, which is little of their work.
const OWN_BYTES: usize = 1 << 20;
/// Panels mapped together where they are not kept.
const PANELS_AT_ONCE: usize = 4;
/// The fewest tiles of a picture that repay reading, or mapping, four times the weights.
const FEWEST: usize = 16;
const FEWEST_UNKEPT: usize = 64;

/// A weight's panels at the points: `[panels, points, inputs, 32]`.
pub type Points = Lines<f32>;

/// The tiles of results that a convolution goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    /// 2 x 2.
    Two,
    /// 4 x 4.
    Four,
}

impl Tiles {
    /// Those by which the convolution that walks so is faster than as a product of its patches, if any.
    pub fn of(isa: Isa, walk: &Walk, weight: &Weight) -> Option<Self> {
        let channels = weight.depth() / 9;
        let fits = isa != Isa::Portable
            && (walk.kernel, walk.stride) == (3, 1)
            && channels.is_multiple_of(WIDEST)
            && channels >= 2 * WIDEST;
        [Self::Four, Self::Two].into_iter().find(|tiles| fits && tiles.repay(walk.out, weight))
    }

    /// Whether a picture has enough of them for what its weight costs at the points.
    fn repay(self, (height, width): (usize, usize), weight: &Weight) -> bool {
        let fewest = if self.are_kept(weight) { FEWEST } else { FEWEST_UNKEPT };
        height.div_ceil(self.side()) * width.div_ceil(self.side()) >= fewest
    }

    /// Height and width.
    fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Points of a tile.
    fn points(self) -> usize {
        (self.side() + 2).pow(2)
    }

    /// Whether the weight at their points is kept.
    fn are_kept(self, weight: &Weight) -> bool {
        self.bytes(weight) <= KEPT_BYTES
    }

    /// Bytes of the weight at their points.
    fn bytes(self, weight: &Weight) -> usize {
        weight.panels() * self.of_panel(weight) * size_of::<f32>()
    }

    /// Numbers of a panel at their points.
    fn of_panel(self, weight: &Weight) -> usize {
        length(weight) * self.points() * COLUMNS
    }
}

/// Numbers that the channels of a pixel, or of a column of the weight, take at a point.
fn length(weight: &Weight) -> usize {
    let channels = weight.depth() / 9;
    if weight.has_pairs() { Scaled::length(channels) } else { Floats::length(channels) }
}

/// A weight for convolutions that go by some tiles.
#[derive(Debug)]
pub struct Filtered<'a> {
    isa: Isa,
    tiles: Tiles,
    weight: &'a Weight,
    /// The weight at the points, where it is neither kept there nor mapped some panels at a time.
    own: Option<Points>,
}

impl<'a> Filtered<'a> {
    /// For one convolution.
    pub fn once(isa: Isa, tiles: Tiles, weight: &'a Weight) -> Self {
        Self { isa, tiles, weight, own: None }
    }

    /// For several: `weight` is mapped unless it is kept mapped.
    pub fn often(isa: Isa, tiles: Tiles, weight: &'a Weight) -> Self {
        let own = (tiles.bytes(weight) > OWN_BYTES).then(|| {
            let mut points = Points::zeros(weight.panels() * tiles.of_panel(weight));
            map_panels(isa, tiles, weight, 0..weight.panels(), &mut points);
            points
        });
        Self { isa, tiles, weight, own }
    }

    /// What [`super::product::multiply`] computes.
    pub fn convolve(&self, patches: &Patches<f32>, finish: Finish, rows: usize) -> Vec<f32> {
        let Self { isa, tiles, weight, ref own } = *self;
        let kept = || tiles.are_kept(weight).then(|| kept_points(isa, tiles, weight));
        let points = own.as_deref().or_else(kept);
        let grid = Grid::new(tiles, patches, rows);
        Convolution { isa, patches, weight, finish, grid }.compute(rows, points)
    }
}

/// The points that are kept with `weight`.
fn kept_points(isa: Isa, tiles: Tiles, weight: &Weight) -> &[f32] {
    weight.points(tiles, || all_at_points(isa, tiles, weight))
}

/// Maps all of a weight to the points, on this thread alone: one that waited for others would take up their work
/// meanwhile, and might come upon the weight that it is keeping them from.
fn all_at_points(isa: Isa, tiles: Tiles, weight: &Weight) -> Points {
    let each = tiles.of_panel(weight);
    let mut points = Points::zeros(weight.panels() * each);
    for (panel, points) in points.chunks_mut(each).enumerate() {
        map_panel(isa, tiles, weight, panel, points);
    }
    points
}

/// Maps `panels`, in parallel.
fn map_panels(isa: Isa, tiles: Tiles, weight: &Weight, panels: Range<usize>, points: &mut [f32]) {
    let mapped = points.par_chunks_mut(tiles.of_panel(weight)).zip(panels);
    mapped.for_each(|(points, panel)| map_panel(isa, tiles, weight, panel, points));
}

fn map_panel(isa: Isa, tiles: Tiles, weight: &Weight, panel: usize, points: &mut [f32]) {
    match (tiles, weight.has_pairs()) {
        (Tiles::Two, false) => Floats::map_panel::<Two, 2, 4>(isa, weight, panel, points),
        (Tiles::Two, true) => Scaled::map_panel::<Two, 2, 4>(isa, weight, panel, points),
        (Tiles::Four, false) => Floats::map_panel::<Four, 4, 6>(isa, weight, panel, points),
        (Tiles::Four, true) => Scaled::map_panel::<Four, 4, 6>(isa, weight, panel, points),
    }
}

/// The tiles of all pictures.
#[derive(Clone, Copy)]
struct Grid {
    tiles: Tiles,
    /// How many a picture has, down and across.
    size: (usize, usize),
    count: usize,
}

impl Grid {
    fn new(tiles: Tiles, patches: &Patches<f32>, rows: usize) -> Self {
        let (height, width) = patches.walk.out;
        let size = (height.div_ceil(tiles.side()), width.div_ceil(tiles.side()));
        Self { tiles, size, count: rows / (height * width) * size.0 * size.1 }
    }

    /// The picture of a tile, and the line and column of its first result.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (line, column) = (tile / self.size.1, tile % self.size.1);
        (line / self.size.0, line % self.size.0 * self.tiles.side(), column * self.tiles.side())
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
            let mut points =
                Points::zeros(weight.panels().min(PANELS_AT_ONCE) * self.grid.tiles.of_panel(weight));
            for first in (0..weight.panels()).step_by(PANELS_AT_ONCE) {
                let panels = first..weight.panels().min(first + PANELS_AT_ONCE);
                map_panels(self.isa, self.grid.tiles, weight, panels.clone(), &mut points);
                self.panels(panels, &points, out);
            }
        };
        // SAFETY: the tiles make up all rows, and the panels all columns.
        unsafe { filled(rows * weight.width(), write) }
    }

    /// Computes the columns of `panels`, which `points` hold.
    fn panels(&self, panels: Range<usize>, points: &[f32], out: Shared) {
        let most = BLOCK_BYTES / (size_of::<f32>() * self.grid.tiles.points() * length(self.weight));
        let most = (most / ROWS * ROWS).clamp(BLOCK.start, BLOCK.end);
        let blocks = self.grid.count.div_ceil(most).max(1);
        let block = self.grid.count.div_ceil(blocks).next_multiple_of(ROWS);
        // Each chunk of panels maps the pixels anew.
        let chunk = match hands::tasks() {
            1 => panels.len().max(1),
            tasks => (panels.len() * blocks / tasks).clamp(2, panels.len().max(2)),
        };
        let tasks: Vec<_> = ranges(self.grid.count, block)
            .flat_map(|tiles| panels.clone().step_by(chunk).map(move |panel| (tiles.clone(), panel)))
            .collect();
        let each = self.grid.tiles.of_panel(self.weight);
        tasks.into_par_iter().for_each(|(tiles, first)| {
            let task = first..panels.end.min(first + chunk);
            let points = &points[(first - panels.start) * each..][..task.len() * each];
            match (self.grid.tiles, self.weight.has_pairs()) {
                (Tiles::Two, false) => self.task::<Floats, Two, 2, 4>(tiles, task, points, out),
                (Tiles::Two, true) => self.task::<Scaled, Two, 2, 4>(tiles, task, points, out),
                (Tiles::Four, false) => self.task::<Floats, Four, 4, 6>(tiles, task, points, out),
                (Tiles::Four, true) => self.task::<Scaled, Four, 4, 6>(tiles, task, points, out),
            }
        });
    }

    /// Computes tiles in the columns of a task's `panels`.
    fn task<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        tiles: Range<usize>,
        panels: Range<usize>,
        points: &[f32],
        out: Shared,
    ) {
        let channels = self.patches.channels;
        let length = O::length(channels);
        let (pixel_step, product_step) = (tiles.len() * length + APART, tiles.len() * COLUMNS + APART);
        let sizes = [P * P * pixel_step, P * P * product_step, channels, O::room(P * P * channels)];
        scratch::with(sizes, |[pixels, products, zeros, room]| {
            zeros.fill(0.0);
            for (at, tile) in tiles.clone().enumerate() {
                let read = self.read::<P>(tile, zeros);
                O::map_pixels::<F, R, P>(self.isa, &read, room, (&mut pixels[at * length..], pixel_step));
            }
            for (panel, points) in panels.zip(points.chunks_exact(self.grid.tiles.of_panel(self.weight))) {
                self.multiply::<O>((tiles.len(), panel), pixels, points, products);
                for (at, tile) in tiles.clone().enumerate() {
                    if tile + 1 < tiles.end {
                        self.results::<R>(tile + 1, panel, out).to.fetch();
                    }
                    self.write::<F, R, P>((tile, panel), &products[at * COLUMNS..], product_step, out);
                }
            }
        });
    }

    /// The pixels that a tile is read from.
    fn read<'a, const P: usize>(&'a self, tile: usize, zeros: &'a [f32]) -> [[&'a [f32]; P]; P] {
        let (picture, y, x) = self.grid.place(tile);
        let Walk { stored, .. } = self.patches.walk;
        let columns: [_; P] = from_fn(|across| self.patches.walk.seen_column(x + across));
        let mut pixels = [[zeros; P]; P];
        for (down, pixels) in pixels.iter_mut().enumerate() {
            let Some(line) = self.patches.walk.seen_line(y + down) else { continue };
            let first = (picture * stored.0 + line) * stored.1;
            for (pixel, column) in pixels.iter_mut().zip(columns) {
                if let Some(column) = column {
                    *pixel = &self.patches.data[(first + column) * zeros.len()..][..zeros.len()];
                }
            }
        }
        pixels
    }

    /// The products at all points, `[points, tiles, 32]`, of pixels `[points, tiles, length]` and a panel's `points`
    /// `[points, length, 32]`; of the first two, points are [`APART`].
    fn multiply<O: Operands>(
        &self,
        (tiles, panel): (usize, usize),
        pixels: &[f32],
        points: &[f32],
        products: &mut [f32],
    ) {
        let (length, used) = (O::length(self.patches.channels), self.weight.used(panel));
        let points = pixels.chunks_exact(tiles * length + APART).zip(points.chunks_exact(length * COLUMNS));
        for ((pixels, numbers), c) in points.zip(products.chunks_exact_mut(tiles * COLUMNS + APART)) {
            let (pixels, c) = (&pixels[..tiles * length], &mut c[..tiles * COLUMNS]);
            // A panel is used for these few tiles alone; meanwhile that of the next point comes from memory.
            let b = Columns { numbers, used, ahead: length };
            let tiles = pixels.chunks(ROWS * length).zip(c.chunks_mut(ROWS * COLUMNS));
            for (a, c) in tiles {
                O::multiply(self.isa, (a, length), b, c);
            }
        }
    }

    /// Where a tile's results within the picture go, and their bias.
    fn results<const R: usize>(&self, tile: usize, panel: usize, out: Shared) -> Results<'_> {
        let (picture, y, x) = self.grid.place(tile);
        let (height, width) = self.patches.walk.out;
        let place = Place { weight: self.weight, row: (picture * height + y) * width + x, panel };
        let size = (R.min(height - y), R.min(width - x));
        Results { to: self.finish.block(place, size, width, out), bias: self.finish.bias(place) }
    }

    /// Maps a tile's products, `step` from point to point, to its results, and writes those within the picture.
    fn write<F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        (tile, panel): (usize, usize),
        products: &[f32],
        step: usize,
        out: Shared,
    ) {
        let results = self.results::<R>(tile, panel, out);
        // SAFETY: each task has its own tiles and panels, hence its own elements.
        unsafe { map_products::<F, R, P>(self.isa, (products, step), &results) };
    }
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

    fn weights() -> [Weight; 2] {
        let values = numbers(OUTPUTS * INPUTS * 9, 1);
        let order = Order { outputs: OUTPUTS, inputs: INPUTS, taps: 9, gated: false };
        let halves: Vec<_> = values.iter().map(|value| half::bf16::from_f32(*value)).collect();
        [Stored::F32(&values), Stored::Bf16(&halves)].map(|stored| Weight::pack(stored, order))
    }

    #[test]
    fn weights_mapped_at_each_use_give_the_same_to_the_last_bit() {
        let (height, width) = walk().out;
        let rows = 2 * height * width;
        let data = numbers(rows * INPUTS, 2);
        let patches = Patches { data: &data, channels: INPUTS, walk: walk() };
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
            for tiles in [Tiles::Two, Tiles::Four] {
                for weight in &weights() {
                    let (grid, finish) = (Grid::new(tiles, &patches, rows), Finish::default());
                    let convolution = Convolution { isa, patches: &patches, weight, finish, grid };
                    let kept = convolution.compute(rows, Some(kept_points(isa, tiles, weight)));
                    assert_eq!(kept, convolution.compute(rows, None), "{isa:?} {tiles:?}");
                }
            }
        }
    }
}
