//! Weights in the order in which tiles read them.

use super::isa::Isa;
use super::lines::{Lines, Plain};
use super::scaled::{scale_panels, widen_integers};
use super::strassen;
use super::tile::COLUMNS;
use super::vector::{Loop, Vector, run};
use super::winograd::Tiles;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::OnceLock;

/// Weights of a product: panels of 32 columns, each `[depth, 32]`, zeros behind the last column.
///
/// Those in bf16 lie in pairs along the depth, the first in the lower half: an odd depth is filled up with zeros.
#[derive(Debug, Clone)]
pub struct Weight {
    values: Values,
    depth: usize,
    outputs: usize,
    gated: bool,
    /// For each kind of [`Tiles`]; elsewhere, because most weights have none.
    filtered: Box<[AtPoints; 2]>,
}

/// What is kept of a weight for minimal filtering by some tiles.
#[derive(Debug, Clone, Default)]
struct AtPoints {
    points: OnceLock<Lines<f32>>,
    units: OnceLock<Vec<f32>>,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Lines<f32>),
    Bf16(Lines<u32>),
    F16(Lines<f16>),
    /// Pairs as of bf16, and what a unit of each column is.
    Scaled {
        pairs: Lines<u32>,
        units: Vec<f32>,
    },
}

/// A panel of integers.
#[derive(Debug, Clone, Copy)]
pub struct ScaledPanel<'a> {
    /// Pairs along the depth, `[depth / 2, 32]`.
    pub pairs: &'a [u32],
    /// What a unit of each column is.
    pub units: &'a [f32],
}

/// Weights as a checkpoint holds them, in the type that is kept.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// The upper 16 of 32 bits.
    Bf16(&'a [bf16]),
    /// IEEE 754's 16 bits.
    F16(&'a [f16]),
}

/// The order of weights in a checkpoint: `[outputs, inputs, taps]`.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Columns of the product.
    pub outputs: usize,
    /// Channels in.
    pub inputs: usize,
    /// Height times width of the kernel.
    pub taps: usize,
    /// Whether the second half of the outputs gates the first: then each panel holds 16 values and their 16 gates.
    pub gated: bool,
}

impl Order {
    /// The output that column `column` of the panels computes; none behind the last.
    pub fn output(&self, column: usize) -> Option<usize> {
        if !self.gated {
            return (column < self.outputs).then_some(column);
        }
        let half = COLUMNS / 2;
        let value = column / COLUMNS * half + column % half;
        let gates = self.outputs / 2;
        (value < gates).then_some(if column % COLUMNS < half { value } else { gates + value })
    }

    fn panels(&self) -> usize {
        if self.gated { (self.outputs / 2).div_ceil(COLUMNS / 2) } else { self.outputs.div_ceil(COLUMNS) }
    }
}

/// Channels packed together, so that the part of a panel they go to stays in the cache.
const CHANNELS_AT_ONCE: usize = 64;

impl Weight {
    /// Packs weights, in parallel. The depth of the product is `taps` times `inputs`, a tap's channels side by side.
    pub fn pack(stored: Stored, order: Order) -> Self {
        let values = match stored {
            Stored::F32(values) => Values::F32(packed(values, order, 1, |to, value, _| *to = value)),
            Stored::Bf16(values) => {
                let put =
                    |to: &mut u32, value: bf16, place| *to |= u32::from(value.to_bits()) << (16 * place);
                let pairs = packed(values, order, 2, put);
                let isa = Isa::current();
                if become_integers(isa, order) { scaled(isa, pairs, order) } else { Values::Bf16(pairs) }
            }
            Stored::F16(values) => Values::F16(packed(values, order, 1, |to, value, _| *to = value)),
        };
        let Order { outputs, inputs, taps, gated } = order;
        Self { values, depth: taps * inputs, outputs, gated, filtered: Box::default() }
    }

    /// The weights at the points of `tiles`, which `map` makes at the first use and which are kept.
    pub fn points(&self, tiles: Tiles, map: impl FnOnce() -> Lines<f32>) -> &[f32] {
        self.filtered[tiles as usize].points.get_or_init(map)
    }

    /// What a unit of integers at the points of `tiles` is, which `find` tells at the first use and which is kept.
    pub fn units(&self, tiles: Tiles, find: impl FnOnce() -> Vec<f32>) -> &[f32] {
        self.filtered[tiles as usize].units.get_or_init(find)
    }

    /// Rows of a panel.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The number of panels.
    pub fn panels(&self) -> usize {
        match &self.values {
            Values::F32(values) => values.len() / (self.depth * COLUMNS),
            Values::Bf16(values) => values.len() / (self.depth.div_ceil(2) * COLUMNS),
            Values::F16(values) => values.len() / (self.depth * COLUMNS),
            Values::Scaled { units, .. } => units.len() / COLUMNS,
        }
    }

    /// The width of the result: half of the outputs where half of them are gates.
    pub fn width(&self) -> usize {
        if self.gated { self.outputs / 2 } else { self.outputs }
    }

    /// The columns of a panel that are not filled up; all of one that holds gates.
    pub fn used(&self, panel: usize) -> usize {
        if self.gated { COLUMNS } else { COLUMNS.min(self.outputs - panel * COLUMNS) }
    }

    /// Columns, gates counted.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether half of the outputs gate the other half.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// Rows `depth` of a panel as pairs of bf16, if that is what they are; `depth` begins at an even number.
    pub fn pairs(&self, panel: usize, depth: Range<usize>) -> Option<&[u32]> {
        let Values::Bf16(values) = &self.values else { return None };
        let start = panel * self.depth.div_ceil(2);
        Some(&values[(start + depth.start / 2) * COLUMNS..(start + depth.end.div_ceil(2)) * COLUMNS])
    }

    /// Whether the weights are in pairs of bf16.
    pub fn has_pairs(&self) -> bool {
        matches!(self.values, Values::Bf16(_))
    }

    /// A panel as integers, if that is what the weights are.
    pub fn scaled(&self, panel: usize) -> Option<ScaledPanel<'_>> {
        let Values::Scaled { pairs, units } = &self.values else { return None };
        let length = self.depth / 2 * COLUMNS;
        let pairs = &pairs[panel * length..][..length];
        Some(ScaledPanel { pairs, units: &units[panel * COLUMNS..][..COLUMNS] })
    }

    /// Rows `depth` of a panel, widened into `wide` if they are stored in 16 bits; `depth` begins at an even number, and
    /// `wide` has room for an even number of rows.
    pub fn panel<'a>(
        &'a self,
        isa: Isa,
        panel: usize,
        depth: Range<usize>,
        wide: &'a mut [f32],
    ) -> &'a [f32] {
        let start = panel * self.depth;
        let range = (start + depth.start) * COLUMNS..(start + depth.end) * COLUMNS;
        let count = range.len();
        match &self.values {
            Values::F32(values) => &values[range],
            Values::Bf16(_) => {
                widen(isa, self.pairs(panel, depth).unwrap_or_default(), wide);
                &wide[..count]
            }
            Values::Scaled { .. } => {
                let panel = self.scaled(panel).expect("the weights are integers");
                let pairs = &panel.pairs[depth.start / 2 * COLUMNS..depth.end.div_ceil(2) * COLUMNS];
                widen_integers(isa, pairs, panel.units, wide);
                &wide[..count]
            }
            Values::F16(values) => {
                use half::slice::HalfFloatSliceExt;
                let wide = &mut wide[..count];
                values[range].convert_to_f32_slice(wide);
                wide
            }
        }
    }
}

/// Whether weights in bf16 become integers: those of linear maps, where the processor multiplies integers faster than what else it
/// could make of pairs. Where it multiplies pairs as fast, that takes halves that seven products can do for eight.
fn become_integers(isa: Isa, Order { inputs, outputs, taps, .. }: Order) -> bool {
    let faster = match isa {
        Isa::Portable => false,
        Isa::Avx512Bf16 => strassen::fits(inputs, outputs),
        Isa::Avx512 | Isa::Avx2 => true,
    };
    faster && taps == 1 && inputs.is_multiple_of(2)
}

/// Pairs of bf16 as integers. Two panels side by side have the same units, so that their integers may be added.
fn scaled(isa: Isa, mut pairs: Lines<u32>, order: Order) -> Values {
    let length = order.inputs / 2 * COLUMNS;
    let mut units = vec![0.0; order.panels() * COLUMNS];
    let panels = pairs.par_chunks_mut(2 * length).zip(units.par_chunks_mut(2 * COLUMNS));
    panels.for_each(|(panels, units)| scale_panels(isa, panels, length, units));
    Values::Scaled { pairs, units }
}

/// Widens rows of pairs into twice as many rows.
///
/// # Panics
/// If `wide` has room for fewer.
pub fn widen(isa: Isa, pairs: &[u32], wide: &mut [f32]) {
    assert!(pairs.len().is_multiple_of(COLUMNS) && wide.len() >= 2 * pairs.len(), "rows fit");
    // SAFETY: nothing is asked for but the instructions.
    unsafe { run(isa, Widen { pairs, wide }) }
}

struct Widen<'a> {
    pairs: &'a [u32],
    wide: &'a mut [f32],
}

impl Loop for Widen<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { pairs, wide } = self;
        for (wide, pairs) in wide.chunks_exact_mut(2 * COLUMNS).zip(pairs.chunks_exact(COLUMNS)) {
            for first in (0..COLUMNS).step_by(V::LANES) {
                // SAFETY: rows are whole vectors; the rest is the caller's promise.
                unsafe {
                    let [upper, lower] = V::load_pairs(pairs.as_ptr().add(first));
                    upper.store(wide.as_mut_ptr().add(first));
                    lower.store(wide.as_mut_ptr().add(COLUMNS + first));
                }
            }
        }
    }
}

/// Packs `values` into elements that take `each` rows of a panel; `put` puts one of them in its place in its element.
fn packed<T: Copy + Send + Sync, E: Plain + Send>(
    values: &[T],
    order: Order,
    each: usize,
    put: impl Fn(&mut E, T, usize) + Sync,
) -> Lines<E> {
    let Order { inputs, taps, .. } = order;
    assert_eq!(values.len(), order.outputs * inputs * taps, "weights have the shape of their order");
    let panel = (taps * inputs).div_ceil(each) * COLUMNS;
    let mut panels = Lines::zeros(order.panels() * panel);
    panels.par_chunks_mut(panel).enumerate().for_each(|(panel, out)| {
        for first in (0..inputs).step_by(CHANNELS_AT_ONCE) {
            for column in 0..COLUMNS {
                let Some(output) = order.output(panel * COLUMNS + column) else { continue };
                for input in first..inputs.min(first + CHANNELS_AT_ONCE) {
                    let source = &values[(output * inputs + input) * taps..][..taps];
                    for (tap, value) in source.iter().enumerate() {
                        let row = tap * inputs + input;
                        put(&mut out[row / each * COLUMNS + column], *value, row % each);
                    }
                }
            }
        }
    });
    panels
}
