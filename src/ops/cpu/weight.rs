//! Weights in the order in which tiles read them.

use super::tile::COLUMNS;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// Weights of a product: panels of 32 columns, each `[depth, 32]`, zeros behind the last column.
#[derive(Debug, Clone)]
pub struct Weight {
    values: Values,
    depth: usize,
    outputs: usize,
    gated: bool,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
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
            Stored::F32(values) => Values::F32(packed(values, order)),
            Stored::Bf16(values) => Values::Bf16(packed(values, order)),
            Stored::F16(values) => Values::F16(packed(values, order)),
        };
        Self { values, depth: order.taps * order.inputs, outputs: order.outputs, gated: order.gated }
    }

    /// Rows of a panel.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The number of panels.
    pub fn panels(&self) -> usize {
        let values = match &self.values {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::F16(values) => values.len(),
        };
        values / (self.depth * COLUMNS)
    }

    /// The width of the result: half of the outputs where half of them are gates.
    pub fn width(&self) -> usize {
        if self.gated { self.outputs / 2 } else { self.outputs }
    }

    /// Whether half of the outputs gate the other half.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// Rows `depth` of a panel, widened into `wide`, of at least their length, if they are stored in 16 bits.
    pub fn panel<'a>(&'a self, panel: usize, depth: Range<usize>, wide: &'a mut [f32]) -> &'a [f32] {
        let start = panel * self.depth;
        let range = (start + depth.start) * COLUMNS..(start + depth.end) * COLUMNS;
        match &self.values {
            Values::F32(values) => &values[range],
            Values::Bf16(values) => {
                let wide = &mut wide[..range.len()];
                for (wide, value) in wide.iter_mut().zip(&values[range]) {
                    *wide = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
                wide
            }
            Values::F16(values) => {
                use half::slice::HalfFloatSliceExt;
                let wide = &mut wide[..range.len()];
                values[range].convert_to_f32_slice(wide);
                wide
            }
        }
    }
}

fn packed<T: Copy + Default + Send + Sync>(values: &[T], order: Order) -> Vec<T> {
    let Order { inputs, taps, .. } = order;
    assert_eq!(values.len(), order.outputs * inputs * taps, "weights have the shape of their order");
    let mut panels = vec![T::default(); order.panels() * taps * inputs * COLUMNS];
    panels.par_chunks_mut(taps * inputs * COLUMNS).enumerate().for_each(|(panel, out)| {
        for first in (0..inputs).step_by(CHANNELS_AT_ONCE) {
            for column in 0..COLUMNS {
                let Some(output) = order.output(panel * COLUMNS + column) else { continue };
                for input in first..inputs.min(first + CHANNELS_AT_ONCE) {
                    let source = &values[(output * inputs + input) * taps..][..taps];
                    for (tap, value) in source.iter().enumerate() {
                        out[(tap * inputs + input) * COLUMNS + column] = *value;
                    }
                }
            }
        }
    });
    panels
}
