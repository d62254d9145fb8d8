//! Matrix products of integers, for weights that are kept so: rows are scaled on their way in ([`scaled`](super::scaled)).

use super::finish::{Finish, Place};
use super::isa::Isa;
use super::norm::Affine;
use super::patches::Walk;
use super::product::tasks;
use super::scaled::{Cut, multiply_chain, scale_rows, scaled_pieces};
use super::scratch;
use super::shared::{Shared, Slot, filled};
use super::tile::{COLUMNS, Columns, ROWS};
use super::weight::Weight;
use rayon::prelude::*;
use std::ops::Range;

/// Whether products of rows that `walk` reads with `weight` are products of integers.
pub fn take(isa: Isa, walk: &Walk, weight: &Weight) -> bool {
    isa != Isa::Portable && walk.is_plain() && weight.scaled(0).is_some()
}

/// Rows as [`scaled_rows`] makes them times `weight`, plus `finish`: `[rows, width]`.
///
/// # Panics
/// If the weight is not integers.
pub fn multiply(isa: Isa, left: &[f32], weight: &Weight, finish: Finish) -> Vec<f32> {
    let rows = left.len() / Cut::of(weight.depth() / 2).length();
    let product = Product { isa, left, weight, finish };
    let write = |out: &mut [Slot]| {
        let out = Shared::new(out);
        let tasks = tasks(rows, weight.panels());
        tasks.into_par_iter().for_each(|(rows, panels)| product.task(&rows, panels, out));
    };
    // SAFETY: the tasks make up all rows and all panels, and the panels all columns.
    unsafe { filled(rows * weight.width(), write) }
}

/// Rows of `depth` numbers, normalised if there is a norm, each as [`scale_rows`] makes it.
pub fn scaled_rows(isa: Isa, data: &[f32], depth: usize, norm: Option<Affine>) -> Vec<f32> {
    let length = Cut::of(depth / 2).length();
    let scale = |row: &[f32], out: &mut [Slot]| scale_rows(isa, row, depth, (out, length));
    // SAFETY: every row is scaled, and its units are written.
    unsafe { scaled_pieces(isa, (data, norm), depth, length, scale) }
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
        let chains = Cut::of(self.weight.depth() / 2).chains();
        // Sums wait between two chains; with one, each tile is done with at once.
        let waiting = if chains == 1 { COLUMNS * ROWS } else { rows.len() * panels.len() * COLUMNS };
        scratch::with([waiting], |[sums]| {
            for chain in 0..chains {
                for panel in panels.clone() {
                    for first in rows.clone().step_by(ROWS) {
                        let tile = first..rows.end.min(first + ROWS);
                        let place = (panel - panels.start) * rows.len() + first - rows.start;
                        let place = if chains == 1 { 0 } else { place * COLUMNS };
                        let sums = &mut sums[place..place + tile.len() * COLUMNS];
                        let place = Place { weight: self.weight, row: first, panel };
                        if chain + 1 == chains {
                            self.finish.fetch(place, tile.len(), out);
                        }
                        self.multiply(&tile, panel, chain, sums);
                        if chain + 1 == chains {
                            // SAFETY: each task has its own rows and panels, hence its own elements.
                            unsafe { self.finish.write(self.isa, sums, place, out) };
                        }
                    }
                }
            }
        });
    }

    /// Adds the products over a chain to the sums of a tile's rows, and scales them at the end.
    fn multiply(&self, tile: &Range<usize>, panel: usize, chain: usize, sums: &mut [f32]) {
        let length = Cut::of(self.weight.depth() / 2).length();
        let rows = &self.left[tile.start * length..tile.end * length];
        let right = self.weight.scaled(panel).expect("the weight is integers");
        let columns = Columns { used: self.weight.used(panel), ..right.pairs.into() };
        multiply_chain(self.isa, (rows, length), (columns, right.units), chain, sums);
    }
}
