//! How the pixels of pictures are shared out to tiles of our product kernel for Hopper.

use super::gpu::Gpu;
use super::tiles::{COLUMNS, GROUP, ROWS, across};

/// Pixels of a tile: a box that divides pictures with little left over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    pub across: usize,
    pub down: usize,
}

impl Tiles {
    /// Those of a product of so many outputs with pixels of these pictures `[B, H, W]`: half as high where whole ones would
    /// leave half of the processors idle, and groups of warps can do without each other.
    pub fn of(gpu: &Gpu, pictures: [usize; 3], outputs: usize, gated: bool) -> Self {
        let whole = Self::boxes(pictures, ROWS);
        let columns = outputs / across(outputs);
        let alone = !gated && across(outputs) == COLUMNS;
        if alone && 2 * whole.count(pictures) * columns <= gpu.processors {
            return Self::boxes(pictures, GROUP);
        }
        whole
    }

    /// The boxes of so many pixels that leave the least over.
    fn boxes(pictures: [usize; 3], rows: usize) -> Self {
        let shapes = [1, 2, 4, 8].map(|down| Self { across: rows / down, down });
        let best = shapes.into_iter().min_by_key(|tiles| tiles.count(pictures));
        best.expect("there are four shapes")
    }

    /// Pixels, each a row of the product.
    pub fn rows(self) -> usize {
        self.across * self.down
    }

    /// Tiles of pictures `[B, H, W]`.
    pub fn count(self, [batch, height, width]: [usize; 3]) -> usize {
        batch * height.div_ceil(self.down) * width.div_ceil(self.across)
    }

    /// What one group of warps makes of it.
    pub fn part(self) -> Self {
        if self.rows() == GROUP {
            return self;
        }
        match self.down {
            1 => Self { across: self.across / 2, down: 1 },
            down => Self { across: self.across, down: down / 2 },
        }
    }
}
