//! Matrix products of integers, for weights that are kept so: rows are scaled on their way in ([`scaled`](super::scaled)).

use super::finish::{Finish, Place};
use super::isa::Isa;
use super::patches::Walk;
use super::product::{DEPTH, tasks};
use super::scaled::{self, scale_row};
use super::scratch;
use super::shared::{Shared, Slot, filled};
use super::tile::{CHAIN, COLUMNS, Columns, Integers, ROWS, multiply_integers};
use super::weight::Weight;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are scaled at once.
const SCALED_ROWS: usize = 8;
/// Pairs of the depth whose columns stay in the second-level cache: whole chains.
const PART: usize = DEPTH / 2 / CHAIN * CHAIN;

/// Whether products of rows that `walk` reads with `weight` are products of integers.
pub fn take(isa: Isa, walk: &Walk, weight: &Weight) -> bool {
    isa != Isa::Portable && walk.is_plain() && weight.scaled(0).is_some()
}

/// `data` `[rows, depth]` times `weight`, plus `finish`: `[rows, width]`.
///
/// # Panics
/// If the weight is not integers.
pub fn multiply(isa: Isa, data: &[f32], weight: &Weight, finish: Finish) -> Vec<f32> {
    let depth = weight.depth();
    let (rows, length) = (data.len() / depth, scaled::length(depth));
    let scale = |out: &mut [Slot]| {
        let chunks = data.par_chunks(SCALED_ROWS * depth).zip(out.par_chunks_mut(SCALED_ROWS * length));
        chunks.for_each(|(rows, out)| {
            let rows = rows.chunks_exact(depth).zip(out.chunks_exact_mut(length));
            rows.for_each(|(row, out)| scale_row(isa, row, out));
        });
    };
    // SAFETY: every row is scaled, and its units are written.
    let left = unsafe { filled(rows * length, scale) };
    let product = Product { isa, left: &left, weight, finish };
    let write = |out: &mut [Slot]| {
        let out = Shared::new(out);
        let tasks = tasks(rows, weight.panels());
        tasks.into_par_iter().for_each(|(rows, panels)| product.task(&rows, panels, out));
    };
    // SAFETY: the tasks make up all rows and all panels, and the panels all columns.
    unsafe { filled(rows * weight.width(), write) }
}

struct Product<'a> {
    isa: Isa,
    /// Scaled rows.
    left: &'a [f32],
    weight: &'a Weight,
    finish: Finish<'a>,
}

impl Product<'_> {
    /// Computes rows in the columns of `panels`.
    fn task(&self, rows: &Range<usize>, panels: Range<usize>, out: Shared) {
        let pairs = self.weight.depth() / 2;
        // Sums wait between two parts of the depth; with one part, each tile is done with at once.
        let waiting = if pairs <= PART { COLUMNS * ROWS } else { rows.len() * panels.len() * COLUMNS };
        scratch::with([waiting], |[sums]| {
            for from in (0..pairs).step_by(PART) {
                let part = from..pairs.min(from + PART);
                for panel in panels.clone() {
                    for first in rows.clone().step_by(ROWS) {
                        let tile = first..rows.end.min(first + ROWS);
                        let place = (panel - panels.start) * rows.len() + first - rows.start;
                        let place = if pairs <= PART { 0 } else { place * COLUMNS };
                        let sums = &mut sums[place..place + tile.len() * COLUMNS];
                        self.multiply(tile, panel, &part, sums);
                        if part.end == pairs {
                            let place = Place { weight: self.weight, row: first, panel };
                            // SAFETY: each task has its own rows and panels, hence its own elements.
                            unsafe { self.finish.write(self.isa, sums, place, out) };
                        }
                    }
                }
            }
        });
    }

    /// Adds the products over a part of the depth to the sums of a tile's rows, and scales them at the end.
    fn multiply(&self, tile: Range<usize>, panel: usize, part: &Range<usize>, sums: &mut [f32]) {
        let length = scaled::length(self.weight.depth());
        let mut rows = [&self.left[..0]; ROWS];
        for (row, at) in rows.iter_mut().zip(tile.clone()) {
            *row = &self.left[at * length..][..length];
        }
        let right = self.weight.scaled(panel).expect("the weight is integers");
        let numbers = &right.pairs[part.start * COLUMNS..part.end * COLUMNS];
        let b = Columns { used: self.weight.used(panel), ..numbers.into() };
        let units = (2 * part.end == self.weight.depth()).then_some(right.units);
        let tile = Integers::of_scaled(&rows[..tile.len()], part.clone(), b, units);
        multiply_integers(self.isa, &tile, sums, part.start == 0);
    }
}
