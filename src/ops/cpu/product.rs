//! Matrix products and convolutions, with what follows them done while the result is in the cache.

use super::isa::{Isa, vectorised};
use super::math::gelu;
use super::patches::Patches;
use super::scratch::{self, bits};
use super::shared::{Shared, Slot, filled};
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
    let in_pairs = isa == Isa::Avx512Bf16 && weight.has_pairs() && patches.has_pairs();
    let write = |out: &mut [Slot]| {
        let product = Product { isa, patches, weight, finish, in_pairs, out: Shared::new(out) };
        let tasks = tasks(rows, weight.panels());
        tasks.into_par_iter().for_each(|(rows, panels)| product.task(&rows, panels));
    };
    // SAFETY: the tasks make up all rows and all panels, and the panels all columns.
    unsafe { filled(rows * width, write) }
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
    /// Whether both operands are multiplied as pairs of bf16: then activations are rounded to it, on their way into the
    /// product and nowhere else.
    in_pairs: bool,
    out: Shared<'a>,
}

/// The right operand of a tile.
#[derive(Clone, Copy)]
enum Right<'a> {
    Plain(&'a [f32]),
    Pairs(&'a [u32]),
}

impl Product<'_> {
    fn task(&self, rows: &Range<usize>, panels: Range<usize>) {
        let depth = self.weight.depth();
        let parts = depth.div_ceil(DEPTH).max(1);
        // Even, for pairs.
        let step = depth.div_ceil(parts).max(1).next_multiple_of(2);
        let parts = depth.div_ceil(step).max(1);
        // Sums wait between two parts of the depth; with one part, each tile is done with at once.
        let waiting = if parts == 1 { COLUMNS * ROWS } else { rows.len() * panels.len() * COLUMNS };
        let channels = self.patches.channels;
        let lengths = [rows.len() * step, step * COLUMNS, waiting, channels, ROWS * channels / 2];
        scratch::with(lengths, |[packed, wide, sums, zeros, halves]| {
            zeros.fill(0.0);
            for from in (0..depth).step_by(step) {
                let part = from..depth.min(from + step);
                if self.in_pairs {
                    let tiles = (rows.clone(), part.clone());
                    self.patches.pack_pairs(self.isa, tiles, (zeros, halves), packed);
                } else {
                    self.patches.pack(rows.clone(), part.clone(), zeros, packed);
                }
                let steps = if self.in_pairs { part.len() / 2 } else { part.len() };
                for panel in panels.clone() {
                    let b = self.right(panel, part.clone(), wide);
                    for first in rows.clone().step_by(ROWS) {
                        let count = ROWS.min(rows.end - first);
                        let a = &packed[(first - rows.start) * steps..][..count * steps];
                        let place = (panel - panels.start) * rows.len() + first - rows.start;
                        let place = if parts == 1 { 0 } else { place * COLUMNS };
                        let c = &mut sums[place..place + count * COLUMNS];
                        match b {
                            Right::Plain(b) => tile::multiply(self.isa, a, b, c, from == 0),
                            Right::Pairs(b) => tile::dot(self.isa, bits(a), b, c, from == 0),
                        }
                        if part.end == depth {
                            self.finish(first, panel, c);
                        }
                    }
                }
            }
        });
    }

    /// Rows `depth` of a panel, as tiles read them.
    fn right<'w>(&'w self, panel: usize, depth: Range<usize>, wide: &'w mut [f32]) -> Right<'w> {
        match self.weight.pairs(panel, depth.clone()) {
            Some(pairs) if self.in_pairs => Right::Pairs(pairs),
            _ => Right::Plain(self.weight.panel(panel, depth, wide)),
        }
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

vectorised!(fn finish_row(sums: &[f32], extras: Extras, out: &mut [Slot]) => finish_row_inner);

#[inline(always)]
fn finish_row_inner<const FUSED: bool>(sums: &[f32], extras: Extras, out: &mut [Slot]) {
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
    out.write_copy_of_slice(&row[..out.len()]);
}
