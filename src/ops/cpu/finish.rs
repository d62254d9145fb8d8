//! What is done to the sums of a product while they are in the cache: bias, gates, what is added to each, and their way out.

use super::isa::{Isa, vectorised};
use super::math::gelu;
use super::shared::{Shared, Slot};
use super::tile::COLUMNS;
use super::vector::{Loop, Vector, WIDEST, run};
use super::weight::Weight;

/// The columns that a panel with gates becomes.
const GATED: usize = COLUMNS / 2;
/// A bias of a panel that adds nothing.
const NOTHING: [f32; COLUMNS] = [0.0; COLUMNS];

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

/// A row of a result in the columns of a panel of `weight`.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The weight.
    pub weight: &'a Weight,
    /// The row.
    pub row: usize,
    /// The panel.
    pub panel: usize,
}

/// Where a row of a result goes in the columns of a panel.
pub struct Row<'a> {
    /// What is added to it besides the bias.
    pub add: Option<&'a [f32]>,
    /// Where it goes.
    pub out: &'a mut [Slot],
}

impl<'a> Finish<'a> {
    /// Adds what belongs to the sums of a tile, whose first row and panel are at `place`, and writes it.
    ///
    /// # Safety
    /// Nobody else may have to do with the tile's elements of `out` meanwhile.
    pub unsafe fn write(&self, isa: Isa, sums: &mut [f32], place: Place, out: Shared) {
        let (mut place, mut rest, gated) = (place, sums, place.weight.is_gated());
        while !rest.is_empty() {
            let alike = self.alike(place.row).min(rest.len() / COLUMNS);
            let (sums, others) = rest.split_at_mut(alike * COLUMNS);
            let mut bias = self.bias(place);
            if gated {
                gate(isa, sums, bias);
                bias = &NOTHING;
            }
            // SAFETY: the caller's promise.
            unsafe { run(isa, Write { sums, bias, place, finish: *self, out }) };
            (place.row, rest) = (place.row + alike, others);
        }
    }

    /// Rows from `row` on that share its bias.
    fn alike(&self, row: usize) -> usize {
        if self.bias.is_some() { self.bias_rows - row % self.bias_rows } else { usize::MAX }
    }

    /// What is added to the columns of a panel: a number for each, padded.
    pub fn bias(&self, place: Place) -> &'a [f32] {
        self.bias.map_or(&NOTHING, |bias| {
            let group = place.row / self.bias_rows;
            &bias[(group * place.weight.panels() + place.panel) * COLUMNS..][..COLUMNS]
        })
    }

    /// The row of `out` at `place`.
    ///
    /// # Safety
    /// Nobody else may have to do with these elements of `out` while the row lives.
    pub unsafe fn row(&self, place: Place, out: Shared<'a>) -> Row<'a> {
        let Place { weight, row, panel } = place;
        let width = weight.width();
        let step = if weight.is_gated() { GATED } else { COLUMNS };
        let column = panel * step;
        let (at, count) = (row * width + column, step.min(width - column));
        // SAFETY: the caller's promise.
        Row { add: self.add.map(|add| &add[at..at + count]), out: unsafe { out.part(at, count) } }
    }
}

impl Row<'_> {
    /// Writes a vector of the row from column `first` on, plus what is added to it; numbers behind its end are left out.
    ///
    /// # Safety
    /// The processor must have the vector's instructions.
    #[inline(always)]
    pub unsafe fn put<V: Vector>(&mut self, sums: V, first: usize) {
        let Self { add, out } = self;
        if out.len() >= first + V::LANES {
            // SAFETY: the row has a vector here, and so has what is added.
            unsafe {
                let sums = add.map_or(sums, |add| sums.plus(V::load(add.as_ptr().add(first))));
                sums.store(out.as_mut_ptr().add(first).cast());
            }
        } else if out.len() > first {
            let mut room = [0.0; WIDEST];
            // SAFETY: no vector is wider.
            unsafe { sums.store(room.as_mut_ptr()) };
            for (at, out) in out[first..].iter_mut().enumerate() {
                out.write(room[at] + add.map_or(0.0, |add| add[first + at]));
            }
        }
    }
}

vectorised!(
    /// In each row of a tile's sums, multiplies values by the GELU of their gates, after `bias` was added to both.
    fn gate(sums: &mut [f32], bias: &[f32]) => gate_inner
);

#[inline(always)]
fn gate_inner<const FUSED: bool>(sums: &mut [f32], bias: &[f32]) {
    let (value_bias, gate_bias) = bias.split_at(GATED);
    for row in sums.chunks_exact_mut(COLUMNS) {
        let (values, gates) = row.split_at_mut(GATED);
        let gates = gates.iter().zip(gate_bias);
        for ((value, bias), (gate, gate_bias)) in values.iter_mut().zip(value_bias).zip(gates) {
            *value = (*value + bias) * gelu::<FUSED>(gate + gate_bias);
        }
    }
}

/// Sums of rows of a tile, the first of which is at `place`, to be written with `bias` and what else is added to them.
struct Write<'a> {
    sums: &'a [f32],
    bias: &'a [f32],
    place: Place<'a>,
    finish: Finish<'a>,
    out: Shared<'a>,
}

impl Loop for Write<'_> {
    /// # Safety
    /// Besides, nobody else may have to do with these rows' elements of `out` meanwhile.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { sums, bias, mut place, finish, out } = self;
        for sums in sums.chunks_exact(COLUMNS) {
            // SAFETY: the caller's promise.
            let mut row = unsafe { finish.row(place, out) };
            for first in (0..row.out.len()).step_by(V::LANES) {
                // SAFETY: a panel's columns are whole vectors.
                unsafe {
                    let bias = V::load(bias[first..].as_ptr());
                    row.put(V::load(sums[first..].as_ptr()).plus(bias), first);
                }
            }
            place.row += 1;
        }
    }
}
