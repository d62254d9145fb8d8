//! Matrix products and convolutions, with what follows them done while the result is in the cache.

use super::isa::{Isa, vectorised};
use super::math::gelu;
use super::patches::Patches;
use super::scratch;
use super::shared::{Shared, filled};
use super::tile::{self, COLUMNS, ROWS};
use super::weight::Weight;
use rayon::prelude::*;
use std::ops::Range;

/// The most depth summed in registers: with it a panel stays in the second-level cache, a tile's rows in the first.
const DEPTH: usize = 768;
/// The most rows packed at once, so that they stay in the second-level cache.
const BLOCK_ROWS: usize = 22 * ROWS;
/// Panels that one task computes: enough to pay for packing its rows, few enough to share out.
const CHUNK: Range<usize> = 5..20;
/// Tasks for each thread, where there is enough to do, so that threads end together.
const TASKS: usize = 4;

/// What is added to a product.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish<'a> {
    /// For each of `rows / bias_rows` groups of rows, a number for each column of the panels (padded, gates in place).
    pub bias: Option<&'a [f32]>,
    /// Rows that share a bias.
    pub bias_rows: usize,
    /// A number for each element of the result.
    pub add: Option<&'a [f32]>,
}

/// `patches * weight + finish`: `[rows, width]`. Where the weight is gated, values times the exact GELU of their gates.
///
/// # Panics
/// If the operands do not fit together.
pub fn multiply(isa: Isa, patches: &Patches, weight: &Weight, finish: Finish, rows: usize) -> Vec<f32> {
    let width = weight.width();
    assert_eq!(patches.depth(), weight.depth(), "depths differ");
    assert!(finish.add.is_none_or(|add| add.len() == rows * width), "a number is added to each element");
    let biases = weight.panels() * COLUMNS * rows.div_ceil(finish.bias_rows.max(1));
    assert!(finish.bias.is_none_or(|bias| bias.len() == biases), "each group of rows has its bias");
    filled(rows * width, |out| {
        let product = Product { isa, patches, weight, finish, out: Shared::new(out) };
        let tasks = tasks(rows, weight.panels());
        tasks.into_par_iter().for_each(|(rows, panels)| product.task(&rows, panels));
    })
}

/// Rows and panels of each task.
fn tasks(rows: usize, panels: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let blocks = rows.div_ceil(BLOCK_ROWS).max(1);
    let block = rows.div_ceil(blocks).next_multiple_of(ROWS);
    let fair = panels * blocks / (TASKS * rayon::current_num_threads());
    let chunk = fair.clamp(CHUNK.start, CHUNK.end);
    let ranges =
        |whole: usize, step: usize| (0..whole).step_by(step).map(move |from| from..whole.min(from + step));
    ranges(rows, block)
        .flat_map(|rows| ranges(panels, chunk).map(move |panels| (rows.clone(), panels)))
        .collect()
}

struct Product<'a> {
    isa: Isa,
    patches: &'a Patches<'a>,
    weight: &'a Weight,
    finish: Finish<'a>,
    out: Shared<'a>,
}

impl Product<'_> {
    fn task(&self, rows: &Range<usize>, panels: Range<usize>) {
        let depth = self.weight.depth();
        let parts = depth.div_ceil(DEPTH).max(1);
        let step = depth.div_ceil(parts).max(1);
        // Sums wait between two parts of the depth; with one part, each tile is done with at once.
        let waiting = if parts == 1 { COLUMNS * ROWS } else { rows.len() * panels.len() * COLUMNS };
        let lengths = [rows.len() * step, step * COLUMNS, waiting, self.patches.channels];
        scratch::with(lengths, |[packed, wide, sums, zeros]| {
            zeros.fill(0.0);
            for from in (0..depth).step_by(step) {
                let part = from..depth.min(from + step);
                self.patches.pack(rows.clone(), part.clone(), zeros, packed);
                for panel in panels.clone() {
                    let b = self.weight.panel(panel, part.clone(), wide);
                    for first in rows.clone().step_by(ROWS) {
                        let count = ROWS.min(rows.end - first);
                        let a = &packed[(first - rows.start) * part.len()..][..count * part.len()];
                        let place = (panel - panels.start) * rows.len() + first - rows.start;
                        let place = if parts == 1 { 0 } else { place * COLUMNS };
                        let c = &mut sums[place..place + count * COLUMNS];
                        tile::multiply(self.isa, a, b, c, from == 0);
                        if part.end == depth {
                            self.finish(first, panel, c);
                        }
                    }
                }
            }
        });
    }

    /// Adds what belongs to the tile of sums from row `first` of `panel`, and writes it.
    fn finish(&self, first: usize, panel: usize, sums: &[f32]) {
        let width = self.weight.width();
        let step = if self.weight.is_gated() { COLUMNS / 2 } else { COLUMNS };
        let column = panel * step;
        let count = step.min(width - column);
        for (row, sums) in sums.chunks_exact(COLUMNS).enumerate() {
            let m = first + row;
            let at = m * width + column;
            let bias = self.finish.bias.map(|bias| {
                let group = m / self.finish.bias_rows;
                &bias[(group * self.weight.panels() + panel) * COLUMNS..][..COLUMNS]
            });
            let add = self.finish.add.map(|add| &add[at..at + count]);
            // SAFETY: each task has its own rows and panels, hence its own elements.
            let out = unsafe { self.out.part(at, count) };
            finish_row(self.isa, sums, Extras { bias, add, gated: self.weight.is_gated() }, out);
        }
    }
}

/// What is added to a row of a tile.
#[derive(Clone, Copy)]
struct Extras<'a> {
    bias: Option<&'a [f32]>,
    add: Option<&'a [f32]>,
    gated: bool,
}

vectorised!(fn finish_row(sums: &[f32], extras: Extras, out: &mut [f32]) => finish_row_inner);

#[inline(always)]
fn finish_row_inner<const FUSED: bool>(sums: &[f32], extras: Extras, out: &mut [f32]) {
    let mut row = [0f32; COLUMNS];
    row.copy_from_slice(sums);
    if let Some(bias) = extras.bias {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
    if extras.gated {
        let (values, gates) = row.split_at_mut(COLUMNS / 2);
        for (value, gate) in values.iter_mut().zip(gates) {
            *value *= gelu::<FUSED>(*gate);
        }
    }
    if let Some(add) = extras.add {
        for (value, add) in row.iter_mut().zip(add) {
            *value += add;
        }
    }
    out.copy_from_slice(&row[..out.len()]);
}
