//! Matrix products and convolutions, with what follows them done while the result is in the cache.

use super::finish::{Finish, Place};
use super::hands;
use super::integers;
use super::isa::Isa;
use super::norm::{Affine, layer_norm};
use super::patches::{Patches, Walk};
use super::scratch::{self, bits};
use super::shared::{Shared, Slot, filled};
use super::strassen;
use super::tile::{self, COLUMNS, Columns, Element, ROWS, Run};
use super::weight::Weight;
use super::winograd::{Filtered, Tiles};
use rayon::prelude::*;
use std::ops::Range;

/// The most depth summed in registers: with it a panel stays in the second-level cache.
const DEPTH: usize = 768;
/// The most rows that a task computes: what they read stays in the second-level cache, and a panel is widened once for
/// all of them.
const BLOCK_ROWS: usize = 22 * ROWS;
/// Panels that one task computes: enough to pay for finding its rows, few enough to share out.
const CHUNK: Range<usize> = 5..20;
/// Numbers that are rounded to pairs at once.
const ROUNDED: usize = 1 << 14;

/// `patches * weight + finish`: `[rows, width]`. Where the weight is gated, values times the exact GELU of their gates.
///
/// With [`Isa::Avx512Bf16`] and weights in bf16, the patches are rounded to bf16 on their way in, and nowhere else.
///
/// # Panics
/// If the operands do not fit together.
pub fn multiply(isa: Isa, patches: &Patches<f32>, weight: &Weight, finish: Finish, rows: usize) -> Vec<f32> {
    check(patches, weight, finish, rows);
    match Tiles::of(isa, &patches.walk, weight) {
        Some(tiles) => Filtered::once(isa, tiles, weight).convolve(patches, finish, rows),
        None => {
            let kind = Kind::of(isa, &patches.walk, weight);
            Left::new(isa, kind, patches, None).multiply(isa, patches, (weight, finish), rows)
        }
    }
}

/// A weight for several products whose patches are parts of one picture: what is mapped for them is mapped once, and
/// each element becomes what it would be in the product of the whole.
#[derive(Debug)]
pub struct Prepared<'a> {
    isa: Isa,
    weight: &'a Weight,
    filtered: Option<Filtered<'a>>,
    /// How it is multiplied unless filtered.
    kind: Kind,
}

impl<'a> Prepared<'a> {
    /// Prepares `weight` for parts of what `whole` walks over.
    pub fn new(isa: Isa, weight: &'a Weight, whole: &Walk) -> Self {
        let filtered = Tiles::of(isa, whole, weight).map(|tiles| Filtered::often(isa, tiles, weight));
        Self { isa, weight, filtered, kind: Kind::of(isa, whole, weight) }
    }

    /// The instructions that it is for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// [`multiply`] for a part that begins a multiple of four lines below the top of the whole.
    ///
    /// # Panics
    /// If the operands do not fit together.
    pub fn multiply(&self, patches: &Patches<f32>, finish: Finish, rows: usize) -> Vec<f32> {
        check(patches, self.weight, finish, rows);
        match &self.filtered {
            Some(filtered) => filtered.convolve(patches, finish, rows),
            None => {
                let left = Left::new(self.isa, self.kind, patches, None);
                left.multiply(self.isa, patches, (self.weight, finish), rows)
            }
        }
    }
}

fn check(patches: &Patches<f32>, weight: &Weight, finish: Finish, rows: usize) {
    let width = weight.width();
    assert_eq!(patches.depth(), weight.depth(), "depths differ");
    assert!(finish.add.is_none_or(|add| add.len() == rows * width), "a number is added to each element");
    let biases = weight.panels() * COLUMNS * rows.div_ceil(finish.bias_rows.max(1));
    assert!(finish.bias.is_none_or(|bias| bias.len() == biases), "each group of rows has its bias");
}

/// The products of what `patches` are, normalised pixel by pixel if there is a `norm`, with each of `weights`, plus its
/// finish: what they become on their way in, they become once.
///
/// # Panics
/// If the operands do not fit together.
pub fn multiply_each(
    isa: Isa,
    patches: &Patches<f32>,
    norm: Option<Affine>,
    weights: &[(&Weight, Finish)],
    rows: usize,
) -> Vec<Vec<f32>> {
    let kinds = weights.iter().map(|(weight, finish)| {
        check(patches, weight, *finish, rows);
        Kind::of(isa, &patches.walk, weight)
    });
    let kinds: Vec<Kind> = kinds.collect();
    // Other kinds read the pixels as they are.
    let whole = norm.filter(|_| kinds.iter().any(|kind| !kind.is_scaled()));
    let whole = whole.map(|norm| layer_norm(isa, patches.data, norm));
    let (patches, norm) = match &whole {
        Some(data) => (Patches { data, ..*patches }, None),
        None => (*patches, norm),
    };
    let mut lefts: Vec<(Kind, Left)> = Vec::new();
    for kind in &kinds {
        if lefts.iter().all(|(made, _)| made != kind) {
            lefts.push((*kind, Left::new(isa, *kind, &patches, norm)));
        }
    }
    // Side by side: threads wait for one another at the end of all, not of each.
    let products = weights.par_iter().zip(&kinds).map(|(product, kind)| {
        let left = lefts.iter().find(|(made, _)| made == kind);
        left.expect("each kind was made").1.multiply(isa, &patches, *product, rows)
    });
    products.collect()
}

/// The kind of numbers that are multiplied, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Floats,
    Pairs,
    Integers,
    /// Integers by seven products for eight.
    Seven,
}

impl Kind {
    /// Whether rows are scaled on their way in, which may normalise them as well.
    fn is_scaled(self) -> bool {
        matches!(self, Self::Integers | Self::Seven)
    }

    /// For products of `weight` with what `walk` reads.
    fn of(isa: Isa, walk: &Walk, weight: &Weight) -> Self {
        if integers::take(isa, walk, weight) {
            let seven = strassen::repays(walk.out.0 * walk.out.1, weight);
            return if seven { Self::Seven } else { Self::Integers };
        }
        let channels = weight.depth() / (walk.kernel * walk.kernel);
        let pairs = isa == Isa::Avx512Bf16 && weight.has_pairs() && channels.is_multiple_of(2);
        if pairs { Self::Pairs } else { Self::Floats }
    }
}

/// What is multiplied by weights of some kind, made of patches.
enum Left {
    Floats,
    Pairs(Vec<u32>),
    Integers(Vec<f32>),
    Seven(Vec<f32>),
}

impl Left {
    /// Only kinds that are scaled may have a norm.
    fn new(isa: Isa, kind: Kind, patches: &Patches<f32>, norm: Option<Affine>) -> Self {
        let Patches { data, channels, .. } = *patches;
        match kind {
            Kind::Floats => Self::Floats,
            Kind::Pairs => Self::Pairs(pairs(isa, data)),
            Kind::Integers => Self::Integers(integers::scaled_rows(isa, data, channels, norm)),
            Kind::Seven => Self::Seven(strassen::scaled_rows(isa, data, channels, norm)),
        }
    }

    fn multiply(
        &self,
        isa: Isa,
        patches: &Patches<f32>,
        (weight, finish): (&Weight, Finish),
        rows: usize,
    ) -> Vec<f32> {
        let Patches { channels, walk, .. } = *patches;
        match self {
            Self::Floats => Product { isa, patches: *patches, weight, finish }.compute(rows),
            Self::Pairs(pairs) => {
                let patches = Patches { data: pairs, channels: channels / 2, walk };
                Product { isa, patches, weight, finish }.compute(rows)
            }
            Self::Integers(left) => integers::multiply(isa, left, weight, finish),
            Self::Seven(left) => strassen::multiply(isa, left, weight, finish),
        }
    }
}

/// All of `data` as pairs of bf16.
fn pairs(isa: Isa, data: &[f32]) -> Vec<u32> {
    let write = |out: &mut [Slot<u32>]| {
        let chunks = out.par_chunks_mut(ROUNDED / 2).zip(data.par_chunks(ROUNDED));
        chunks.for_each(|(out, data)| tile::pair_up(isa, data, out));
    };
    // SAFETY: every number is rounded, two of them into each pair.
    unsafe { filled(data.len().div_ceil(2), write) }
}

/// Elements that products are made of.
trait Operand: Element {
    /// Elements `depth` of a panel, for which `wide` has room.
    fn panel<'a>(
        isa: Isa,
        weight: &'a Weight,
        panel: usize,
        depth: Range<usize>,
        wide: &'a mut [f32],
    ) -> &'a [Self];

    /// Zeros of this type.
    fn zeros(zeros: &[f32]) -> &[Self];
}

impl Operand for f32 {
    fn panel<'a>(
        isa: Isa,
        weight: &'a Weight,
        panel: usize,
        depth: Range<usize>,
        wide: &'a mut [f32],
    ) -> &'a [f32] {
        weight.panel(isa, panel, depth, wide)
    }

    fn zeros(zeros: &[f32]) -> &[f32] {
        zeros
    }
}

impl Operand for u32 {
    fn panel<'a>(
        _: Isa,
        weight: &'a Weight,
        panel: usize,
        depth: Range<usize>,
        _: &'a mut [f32],
    ) -> &'a [u32] {
        weight.pairs(panel, 2 * depth.start..2 * depth.end).expect("the weight is in pairs")
    }

    fn zeros(zeros: &[f32]) -> &[u32] {
        bits(zeros)
    }
}

/// Rows and panels of each task.
pub fn tasks(rows: usize, panels: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let blocks = rows.div_ceil(BLOCK_ROWS).max(1);
    let block = rows.div_ceil(blocks).next_multiple_of(ROWS);
    let fair = panels * blocks / hands::tasks();
    let chunk = fair.clamp(CHUNK.start, CHUNK.end);
    ranges(rows, block)
        .flat_map(|rows| ranges(panels, chunk).map(move |panels| (rows.clone(), panels)))
        .collect()
}

/// `whole` in parts of `step`.
pub fn ranges(whole: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..whole).step_by(step).map(move |from| from..whole.min(from + step))
}

struct Product<'a, T> {
    isa: Isa,
    patches: Patches<'a, T>,
    weight: &'a Weight,
    finish: Finish<'a>,
}

impl<T: Operand> Product<'_, T> {
    fn compute(&self, rows: usize) -> Vec<f32> {
        let write = |out: &mut [Slot]| {
            let out = Shared::new(out);
            let tasks = tasks(rows, self.weight.panels());
            tasks.into_par_iter().for_each(|(rows, panels)| self.task(&rows, panels, out));
        };
        // SAFETY: the tasks make up all rows and all panels, and the panels all columns.
        unsafe { filled(rows * self.weight.width(), write) }
    }

    fn task(&self, rows: &Range<usize>, panels: Range<usize>, out: Shared) {
        let depth = self.patches.depth();
        let parts = (T::STEPS * depth).div_ceil(DEPTH).max(1);
        // Even, because weights may come in pairs.
        let step = depth.div_ceil(parts).max(1).next_multiple_of(2);
        let parts = depth.div_ceil(step).max(1);
        // Sums wait between two parts of the depth; with one part, each tile is done with at once.
        let waiting = if parts == 1 { COLUMNS * ROWS } else { rows.len() * panels.len() * COLUMNS };
        let wide = if T::STEPS == 1 { step * COLUMNS } else { 0 };
        scratch::with([wide, waiting, self.patches.channels], |[wide, sums, zeros]| {
            zeros.fill(0.0);
            for from in (0..depth).step_by(step) {
                let part = from..depth.min(from + step);
                let tiles = self.tiles(rows, &part, T::zeros(zeros));
                for panel in panels.clone() {
                    let numbers = T::panel(self.isa, self.weight, panel, part.clone(), wide);
                    let b = Columns { used: self.weight.used(panel), ..numbers.into() };
                    for (first, runs) in &tiles {
                        let count = ROWS.min(rows.end - first);
                        let place = (panel - panels.start) * rows.len() + first - rows.start;
                        let place = if parts == 1 { 0 } else { place * COLUMNS };
                        let c = &mut sums[place..place + count * COLUMNS];
                        let place = Place { weight: self.weight, row: *first, panel };
                        if part.end == depth {
                            self.finish.fetch(place, count, out);
                        }
                        T::multiply(self.isa, runs, b, c, from == 0);
                        if part.end == depth {
                            // SAFETY: each task has its own rows and panels, hence its own elements.
                            unsafe { self.finish.write(self.isa, c, place, out) };
                        }
                    }
                }
            }
        });
    }

    /// The first row of each tile of `rows`, and its runs over `depth`.
    fn tiles<'z>(
        &'z self,
        rows: &Range<usize>,
        depth: &Range<usize>,
        zeros: &'z [T],
    ) -> Vec<(usize, Vec<Run<'z, T>>)> {
        let tile = |first: usize| {
            let mut runs = Vec::with_capacity(depth.len() / self.patches.channels + 2);
            self.patches.runs(first..rows.end.min(first + ROWS), depth, zeros, &mut runs);
            (first, runs)
        };
        rows.clone().step_by(ROWS).map(tile).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::forced::each;
    use super::super::weight::{Order, Stored};
    use super::*;
    use crate::ops::testing::numbers;
    use half::bf16;

    #[test]
    fn parts_too_low_for_seven_products_become_what_the_whole_does() {
        let (inputs, outputs) = (512, 256);
        let values: Vec<bf16> = numbers(inputs * outputs, 1).into_iter().map(bf16::from_f32).collect();
        let walk = |lines| {
            let size = (lines, 16);
            Walk { stored: size, seen: size, out: size, kernel: 1, stride: 1, before: 0 }
        };
        let (whole, part) = (walk(16), walk(4));
        let data = numbers(16 * 16 * inputs, 2);
        each(|isa| {
            let order = Order { outputs, inputs, taps: 1, gated: false };
            let weight = Weight::pack(Stored::Bf16(&values), order);
            let patches = |data, walk| Patches { data, channels: inputs, walk };
            let want = multiply(isa, &patches(&data, whole), &weight, Finish::default(), 16 * 16);
            let prepared = Prepared::new(isa, &weight, &whole);
            let parts = data.chunks(4 * 16 * inputs);
            let got = parts.map(|data| prepared.multiply(&patches(data, part), Finish::default(), 4 * 16));
            assert!(got.flatten().eq(want), "{isa:?}: bits differ");
        });
    }
}
