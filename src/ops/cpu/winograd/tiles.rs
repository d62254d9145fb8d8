//! The tiles of results that a convolution goes by, and those of all its pictures.

use super::super::isa::Isa;
use super::super::patches::{Patches, Walk};
use super::super::tile::COLUMNS;
use super::super::vector::WIDEST;
use super::super::weight::Weight;
use super::operands::{Floats, Operands, Scaled};

/// The most bytes of a weight that are kept at the points, four times those of its taps; others are mapped at each use.
const KEPT_BYTES: usize = 8 << 20;
/// The fewest tiles of a picture that repay reading, or mapping, four times the weights.
const FEWEST: usize = 16;
const FEWEST_UNKEPT: usize = 64;

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
    pub fn side(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Points of a tile.
    pub fn points(self) -> usize {
        (self.side() + 2).pow(2)
    }

    /// Whether the weight at their points is kept.
    pub fn are_kept(self, weight: &Weight) -> bool {
        self.bytes(weight) <= KEPT_BYTES
    }

    /// Bytes of the weight at their points.
    pub fn bytes(self, weight: &Weight) -> usize {
        weight.panels() * self.of_panel(weight) * size_of::<f32>()
    }

    /// Numbers of a panel at their points.
    pub fn of_panel(self, weight: &Weight) -> usize {
        length(weight) * self.points() * COLUMNS
    }
}

/// Numbers that the channels of a pixel, or of a column of the weight, take at a point.
pub fn length(weight: &Weight) -> usize {
    let channels = weight.depth() / 9;
    if weight.has_pairs() { Scaled::length(channels) } else { Floats::length(channels) }
}

/// The tiles of all pictures.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Which they are.
    pub tiles: Tiles,
    /// How many a picture has, down and across.
    size: (usize, usize),
    /// How many all pictures have.
    pub count: usize,
}

impl Grid {
    /// Those of `rows` results.
    pub fn new(tiles: Tiles, patches: &Patches<f32>, rows: usize) -> Self {
        let (height, width) = patches.walk.out;
        let size = (height.div_ceil(tiles.side()), width.div_ceil(tiles.side()));
        Self { tiles, size, count: rows / (height * width) * size.0 * size.1 }
    }

    /// The picture of a tile, and the line and column of its first result.
    pub fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (line, column) = (tile / self.size.1, tile % self.size.1);
        (line / self.size.0, line % self.size.0 * self.tiles.side(), column * self.tiles.side())
    }
}
