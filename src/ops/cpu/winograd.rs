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
mod tiles;

use super::finish::{Finish, Place};
use super::hands;
use super::isa::Isa;
use super::lines::Lines;
use super::patches::{Patches, Walk};
use super::product::ranges;
use super::scratch;
use super::shared::{Shared, Slot, filled, slots};
use super::tile::{COLUMNS, Columns, ROWS};
use super::weight::Weight;
use filters::{Filter, Four, Two};
use operands::{Floats, Operands, Scaled};
use points::{Results, map_products};
use rayon::prelude::*;
use std::array::from_fn;
use std::ops::Range;
use tiles::{Grid, length};

/// Bytes of a task's pixels at the points, so that they stay in the second-level cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Tiles of a task: enough to read weights for, few enough to share out.
const BLOCK: Range<usize> = 2 * ROWS..5 * ROWS;
/// Numbers between what belongs to two points, a cache line: a tile's numbers lie at 36 places as far apart as this and a
/// power of two times few, which the first-level cache would otherwise keep in one of its sets, for eight of them.
const APART: usize = 16;
/// The most bytes of a weight that is kept for several convolutions too: others are mapped for them, which is little of their work.
const OWN_BYTES: usize = 1 << 20;
/// Tiles that are multiplied at once where panels are mapped piece by piece: the products stay in the second-level cache.
const AT_ONCE: usize = 6 * ROWS;

pub use tiles::Tiles;

/// A weight's panels at the points: `[panels, points, inputs, 32]`.
pub type Points = Lines<f32>;

/// A weight for convolutions that go by some tiles.
#[derive(Debug)]
pub struct Filtered<'a> {
    isa: Isa,
    tiles: Tiles,
    weight: &'a Weight,
    /// The weight at the points, where it is neither kept there nor mapped anew for each convolution.
    own: Option<Points>,
}

impl<'a> Filtered<'a> {
    /// For one convolution.
    pub fn once(isa: Isa, tiles: Tiles, weight: &'a Weight) -> Self {
        Self { isa, tiles, weight, own: None }
    }

    /// For several: `weight` is mapped unless it is kept mapped.
    pub fn often(isa: Isa, tiles: Tiles, weight: &'a Weight) -> Self {
        let own = (tiles.bytes(weight) > OWN_BYTES).then(|| mapped_points(isa, tiles, weight));
        Self { isa, tiles, weight, own }
    }

    /// What [`super::product::multiply`] computes.
    pub fn convolve(&self, patches: &Patches<f32>, finish: Finish, rows: usize) -> Vec<f32> {
        let Self { isa, tiles, weight, ref own } = *self;
        let grid = Grid::new(tiles, patches, rows);
        let convolution = Convolution { isa, patches, weight, finish, grid };
        if let Some(points) = own {
            return convolution.compute(rows, Some(points));
        }
        if tiles.are_kept(weight) {
            return convolution.compute(rows, Some(kept_points(isa, tiles, weight)));
        }
        // Of pixels and weights, the one that takes less memory at the points is mapped first, the other piece by piece.
        if grid.count > weight.outputs() {
            return convolution.compute(rows, Some(&mapped_points(isa, tiles, weight)));
        }
        convolution.compute(rows, None)
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

/// Maps all of a weight to the points, in parallel.
fn mapped_points(isa: Isa, tiles: Tiles, weight: &Weight) -> Points {
    let each = tiles.of_panel(weight);
    let mut points = Points::zeros(weight.panels() * each);
    let panels = points.par_chunks_mut(each).enumerate();
    panels.for_each(|(panel, points)| map_panel(isa, tiles, weight, panel, points));
    points
}

fn map_panel(isa: Isa, tiles: Tiles, weight: &Weight, panel: usize, points: &mut [f32]) {
    match (tiles, weight.has_pairs()) {
        (Tiles::Two, false) => Floats::map_panel::<Two, 2, 4>(isa, weight, panel, points),
        (Tiles::Two, true) => Scaled::map_panel::<Two, 2, 4>(isa, weight, panel, points),
        (Tiles::Four, false) => Floats::map_panel::<Four, 4, 6>(isa, weight, panel, points),
        (Tiles::Four, true) => Scaled::map_panel::<Four, 4, 6>(isa, weight, panel, points),
    }
}

/// The greatest step up to `most` that cuts `count` evenly, in whole groups of [`ROWS`].
fn even(count: usize, most: usize) -> usize {
    let parts = count.div_ceil(most).max(1);
    count.div_ceil(parts).next_multiple_of(ROWS)
}

struct Convolution<'a> {
    isa: Isa,
    patches: &'a Patches<'a, f32>,
    weight: &'a Weight,
    finish: Finish<'a>,
    grid: Grid,
}

impl Convolution<'_> {
    /// All rows, with the weight at `points`, or mapped panel by panel.
    fn compute(&self, rows: usize, points: Option<&[f32]>) -> Vec<f32> {
        let write = |out: &mut [Slot]| {
            let out = Shared::new(out);
            match (self.grid.tiles, self.weight.has_pairs()) {
                (Tiles::Two, false) => self.fill::<Floats, Two, 2, 4>(points, out),
                (Tiles::Two, true) => self.fill::<Scaled, Two, 2, 4>(points, out),
                (Tiles::Four, false) => self.fill::<Floats, Four, 4, 6>(points, out),
                (Tiles::Four, true) => self.fill::<Scaled, Four, 4, 6>(points, out),
            }
        };
        // SAFETY: either way computes all tiles in all panels, which make up all rows and all columns.
        unsafe { filled(rows * self.weight.width(), write) }
    }

    fn fill<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        points: Option<&[f32]>,
        out: Shared,
    ) {
        match points {
            Some(points) => self.by_tiles::<O, F, R, P>(points, out),
            None => self.by_panels::<O, F, R, P>(out),
        }
    }

    /// Has each task map the pixels of some tiles and compute their columns of some panels, which `points` hold.
    fn by_tiles<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        points: &[f32],
        out: Shared,
    ) {
        let (panels, each) = (self.weight.panels(), self.grid.tiles.of_panel(self.weight));
        let group = self.of_group();
        let most = BLOCK_BYTES / (size_of::<f32>() * group) * ROWS;
        let block = even(self.grid.count, most.clamp(BLOCK.start, BLOCK.end));
        // Each chunk of panels maps the pixels anew.
        let chunk = match hands::tasks() {
            1 => panels.max(1),
            tasks => (panels * self.grid.count.div_ceil(block) / tasks).clamp(2, panels.max(2)),
        };
        let tasks: Vec<_> = ranges(self.grid.count, block)
            .flat_map(|tiles| ranges(panels, chunk).map(move |panels| (tiles.clone(), panels)))
            .collect();
        tasks.into_par_iter().for_each(|(tiles, panels)| {
            let groups = tiles.len().div_ceil(ROWS);
            let sizes = [groups * group, self.of_products(tiles.len())];
            scratch::with(sizes, |[pixels, products]| {
                for (at, pixels) in pixels.chunks_exact_mut(group).enumerate() {
                    let first = tiles.start + at * ROWS;
                    // SAFETY: mapping writes numbers alone.
                    let out = unsafe { slots(pixels) };
                    self.map_group::<O, F, R, P>(first..tiles.end.min(first + ROWS), out);
                }
                for panel in panels {
                    let points = &points[panel * each..][..each];
                    self.columns::<O, F, R, P>((&tiles, panel), pixels, points, (products, out));
                }
            });
        });
    }

    /// Maps the pixels of all tiles, then has each task map a panel and compute its columns: neither is mapped twice, and no
    /// thread waits for others between panels.
    fn by_panels<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(&self, out: Shared) {
        let (count, panels, group) = (self.grid.count, self.weight.panels(), self.of_group());
        let groups = count.div_ceil(ROWS);
        let write = |pixels: &mut [Slot]| {
            pixels.par_chunks_mut(group).enumerate().for_each(|(at, pixels)| {
                self.map_group::<O, F, R, P>(at * ROWS..count.min((at + 1) * ROWS), pixels);
            });
        };
        // SAFETY: every group is written.
        let pixels = unsafe { filled(groups * group, write) };
        // With many threads tiles are shared out too, for each part of which a panel is mapped anew.
        let part = even(count, groups.div_ceil((hands::tasks() / panels).max(1)) * ROWS);
        let tasks = (0..panels).flat_map(|panel| ranges(count, part).map(move |tiles| (panel, tiles)));
        hands::one_by_one(tasks, |(panel, part)| {
            let block = even(part.len(), AT_ONCE);
            let sizes = [self.grid.tiles.of_panel(self.weight), self.of_products(block)];
            scratch::with(sizes, |[points, products]| {
                O::map_panel::<F, R, P>(self.isa, self.weight, panel, points);
                for tiles in ranges(part.len(), block) {
                    let tiles = part.start + tiles.start..part.start + tiles.end;
                    let pixels = &pixels[tiles.start / ROWS * group..][..tiles.len().div_ceil(ROWS) * group];
                    self.columns::<O, F, R, P>((&tiles, panel), pixels, points, (products, out));
                }
            });
        });
    }

    /// Numbers that a group of [`ROWS`] tiles takes at the points.
    fn of_group(&self) -> usize {
        self.grid.tiles.points() * self.of_point()
    }

    /// Numbers that a group of tiles takes at a point.
    fn of_point(&self) -> usize {
        ROWS * length(self.weight) + APART
    }

    /// Numbers that the products of so many tiles and a panel take.
    fn of_products(&self, tiles: usize) -> usize {
        self.grid.tiles.points() * (tiles * COLUMNS + APART)
    }

    /// Maps up to [`ROWS`] tiles to the points `[points, ROWS, length]`, which are [`APART`]; zeros behind the last tile.
    fn map_group<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        tiles: Range<usize>,
        out: &mut [Slot],
    ) {
        let (channels, length) = (self.patches.channels, length(self.weight));
        for point in out.chunks_exact_mut(self.of_point()) {
            point[tiles.len() * length..].fill(Slot::new(0.0));
        }
        scratch::with([channels, O::room(P * P * channels)], |[zeros, room]| {
            zeros.fill(0.0);
            for (at, tile) in tiles.enumerate() {
                let read = self.read::<P>(tile, zeros);
                O::map_pixels::<F, R, P>(self.isa, &read, room, (&mut out[at * length..], self.of_point()));
            }
        });
    }

    /// Computes `tiles` in the columns of a panel, of `pixels` as groups and the panel's `points`.
    fn columns<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
        &self,
        (tiles, panel): (&Range<usize>, usize),
        pixels: &[f32],
        points: &[f32],
        (products, out): (&mut [f32], Shared),
    ) {
        let step = tiles.len() * COLUMNS + APART;
        self.multiply::<O>((tiles.len(), panel), pixels, points, products);
        for (at, tile) in tiles.clone().enumerate() {
            if tile + 1 < tiles.end {
                self.results::<R>(tile + 1, panel, out).to.fetch();
            }
            self.write::<F, R, P>((tile, panel), &products[at * COLUMNS..], step, out);
        }
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

    /// The products at all points, `[points, tiles, 32]`, which are [`APART`], of `pixels` as groups and a panel's `points`
    /// `[points, length, 32]`.
    fn multiply<O: Operands>(
        &self,
        (tiles, panel): (usize, usize),
        pixels: &[f32],
        points: &[f32],
        products: &mut [f32],
    ) {
        let (length, used) = (length(self.weight), self.weight.used(panel));
        let products = products.chunks_exact_mut(tiles * COLUMNS + APART);
        for (point, (numbers, c)) in points.chunks_exact(length * COLUMNS).zip(products).enumerate() {
            let c = &mut c[..tiles * COLUMNS];
            if self.vanish::<O>(pixels, point) {
                c.fill(0.0);
                continue;
            }
            // A panel is used for these few tiles alone; meanwhile that of the next point comes from memory.
            let next = (point + 1..self.grid.tiles.points()).find(|next| !self.vanish::<O>(pixels, *next));
            let b = Columns { numbers, used, ahead: next.map_or(1, |next| next - point) * length };
            for (group, c) in pixels.chunks_exact(self.of_group()).zip(c.chunks_mut(ROWS * COLUMNS)) {
                let a = &group[point * self.of_point()..][..c.len() / COLUMNS * length];
                O::multiply(self.isa, (a, length), b, c);
            }
        }
    }

    /// Whether `pixels` as groups are zeros at a point. Those of an enlarged picture, whose neighbours are equal, are so at one point
    /// of a line: at 11 of 36, or 7 of 16.
    fn vanish<O: Operands>(&self, pixels: &[f32], point: usize) -> bool {
        let length = length(self.weight);
        let rows = |group: &[f32]| {
            let rows = &group[point * self.of_point()..][..ROWS * length];
            rows.chunks_exact(length).all(O::vanish)
        };
        pixels.chunks_exact(self.of_group()).all(rows)
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
    fn pixels_of_an_enlarged_picture_vanish_at_a_point_of_each_line_and_others_nowhere() {
        fn vanishing<O: Operands, F: Filter<R, P>, const R: usize, const P: usize>(
            walk: Walk,
            weight: &Weight,
        ) -> usize {
            let rows = walk.out.0 * walk.out.1;
            let data = numbers(walk.stored.0 * walk.stored.1 * INPUTS, 2);
            let patches = Patches { data: &data, channels: INPUTS, walk };
            let (isa, grid) = (Isa::current(), Grid::new(F::TILES, &patches, rows));
            let convolution = Convolution { isa, patches: &patches, weight, finish: Finish::default(), grid };
            let mut pixels = vec![0.0; convolution.of_group()];
            // SAFETY: mapping writes numbers alone.
            convolution.map_group::<O, F, R, P>(0..ROWS, unsafe { slots(&mut pixels) });
            (0..P * P).filter(|point| convolution.vanish::<O>(&pixels, *point)).count()
        }
        let enlarged = Walk { stored: (9, 11), seen: (18, 22), out: (18, 22), ..walk() };
        let [floats, pairs] = &weights();
        assert_eq!(vanishing::<Floats, Four, 4, 6>(enlarged, floats), 11);
        assert_eq!(vanishing::<Scaled, Four, 4, 6>(enlarged, pairs), 11);
        assert_eq!(vanishing::<Floats, Two, 2, 4>(enlarged, floats), 7);
        assert_eq!(vanishing::<Scaled, Two, 2, 4>(enlarged, pairs), 7);
        assert_eq!(vanishing::<Scaled, Four, 4, 6>(walk(), pairs), 0);
        assert_eq!(vanishing::<Floats, Two, 2, 4>(walk(), floats), 0);
    }

    #[test]
    fn weights_mapped_at_each_use_give_the_same_to_the_last_bit_however_many_threads_there_are() {
        let pools =
            [1, 8].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
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
                    for pool in &pools {
                        let mapped = pool.install(|| convolution.compute(rows, None));
                        assert_eq!(kept, mapped, "{isa:?} {tiles:?}");
                    }
                }
            }
        }
    }
}
