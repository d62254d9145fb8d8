//! What is done to the sums of a product while they are in the cache: bias, gates, what is added to each, and their way out.

use super::isa::{Isa, vectorised};
use super::math::gelu;
use super::shared::Shared;
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

/// Where results of some lines and columns of a picture go, in the columns of a panel.
pub struct Block<'a> {
    /// What is added to them besides the bias, from the first on.
    add: Option<&'a [f32]>,
    /// Where the first goes; the last lies within what is shared, too.
    out: *mut f32,
    /// Lines and columns.
    size: (usize, usize),
    /// From a line's first element to the next line's.
    line: usize,
    /// From a pixel's first element to the next pixel's.
    pixel: usize,
    /// Columns of the panel.
    pub width: usize,
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
            let to = self.block(place, (alike, 1), 1, out);
            // SAFETY: the caller's promise.
            unsafe { run(isa, Write { sums, bias, to }) };
            (place.row, rest) = (place.row + alike, others);
        }
    }

    /// Fetches what [`Finish::write`] of a tile of `rows` will read and write into the cache, while its products are computed.
    pub fn fetch(&self, place: Place, rows: usize, out: Shared) {
        self.block(place, (rows, 1), 1, out).fetch();
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

    /// The block of `size` lines and columns of a picture with `columns`, the first of whose elements are at `place`.
    ///
    /// # Panics
    /// If it is empty, or does not lie within `out`.
    pub fn block(&self, place: Place, size: (usize, usize), columns: usize, out: Shared) -> Block<'a> {
        let pixel = place.weight.width();
        let most = if place.weight.is_gated() { GATED } else { COLUMNS };
        let column = place.panel * most;
        let (width, line) = (most.min(pixel - column), columns * pixel);
        let first = place.row * pixel + column;
        let last = first + (size.0 - 1) * line + (size.1 - 1) * pixel + width;
        let add = self.add.map(|add| &add[first..last]);
        Block { add, out: out.start_of(first..last), size, line, pixel, width }
    }
}

impl Block<'_> {
    /// Fetches what is added, and where results go, into the cache.
    #[inline]
    pub fn fetch(&self) {
        for y in 0..self.size.0 {
            for x in 0..self.size.1 {
                let at = y * self.line + x * self.pixel;
                for at in (at..at + self.width).step_by(LINE) {
                    fetch::<true>(self.out.wrapping_add(at));
                    if let Some(add) = self.add {
                        fetch::<false>(add.as_ptr().wrapping_add(at));
                    }
                }
            }
        }
    }

    /// Writes vectors of results in the columns of the panel from `first` on, those of line `y`, plus what is added to them. Lines
    /// and columns behind the block's, and numbers behind the panel's end, are left out.
    ///
    /// # Safety
    /// The processor must have the vector's instructions, and nobody else may have to do with the block's elements meanwhile.
    #[inline(always)]
    pub unsafe fn put<V: Vector, const R: usize>(&self, results: [V; R], y: usize, first: usize) {
        if y >= self.size.0 {
            return;
        }
        let at = y * self.line + first;
        let whole = self.size.1 == R && first + V::LANES <= self.width;
        // SAFETY: whole vectors of all columns lie within the block; the rest is the caller's promise.
        unsafe {
            match self.add {
                Some(add) if whole => {
                    for (x, result) in results.into_iter().enumerate() {
                        let at = at + x * self.pixel;
                        result.plus(V::load(add.as_ptr().add(at))).store(self.out.add(at));
                    }
                }
                None if whole => {
                    for (x, result) in results.into_iter().enumerate() {
                        result.store(self.out.add(at + x * self.pixel));
                    }
                }
                _ => {
                    for (x, result) in results.into_iter().take(self.size.1).enumerate() {
                        self.put_some(result, at + x * self.pixel, self.width - first);
                    }
                }
            }
        }
    }

    /// Writes `sums` `[lines, 32]` plus `bias` and what else is added to them: lines of one pixel, in all columns of the panel.
    ///
    /// # Safety
    /// As [`Block::put`].
    ///
    /// # Panics
    /// If lines or columns are others.
    #[inline(always)]
    unsafe fn put_lines<V: Vector>(&self, sums: &[f32], bias: &[f32]) {
        assert!(self.size == (sums.len() / COLUMNS, 1) && self.width == COLUMNS && bias.len() == COLUMNS);
        for (line, sums) in sums.chunks_exact(COLUMNS).enumerate() {
            for first in (0..COLUMNS).step_by(V::LANES) {
                let at = line * self.line + first;
                // SAFETY: vectors lie within the panel's columns, and lines within the block; the rest is the caller's promise.
                unsafe {
                    let mut result =
                        V::load(sums.as_ptr().add(first)).plus(V::load(bias.as_ptr().add(first)));
                    if let Some(add) = self.add {
                        result = result.plus(V::load(add.as_ptr().add(at)));
                    }
                    result.store(self.out.add(at));
                }
            }
        }
    }

    /// Writes the first `count` numbers of a vector, or all it has, from element `at` of the block on.
    #[inline(always)]
    unsafe fn put_some<V: Vector>(&self, results: V, at: usize, count: usize) {
        let mut room = [0.0; WIDEST];
        // SAFETY: no vector is wider; the elements lie within the block.
        unsafe {
            results.store(room.as_mut_ptr());
            for (lane, result) in room.iter().enumerate().take(count.min(V::LANES)) {
                let add = self.add.map_or(0.0, |add| add[at + lane]);
                self.out.add(at + lane).write(result + add);
            }
        }
    }
}

/// Numbers of a cache line.
const LINE: usize = 16;

/// Fetches a line into the first-level cache, to write it if so asked.
#[inline(always)]
fn fetch<const WRITE: bool>(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        // SAFETY: fetching has no effect on what is there, wherever that is.
        unsafe {
            if WRITE {
                _mm_prefetch::<_MM_HINT_ET0>(at.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
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

/// Sums of rows of a tile, to be written with `bias` and what else is added to them.
struct Write<'a> {
    sums: &'a [f32],
    bias: &'a [f32],
    to: Block<'a>,
}

impl Loop for Write<'_> {
    /// # Safety
    /// Besides, nobody else may have to do with these rows' elements of `out` meanwhile.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { sums, bias, to } = self;
        if to.width == COLUMNS {
            // SAFETY: the caller's promise.
            return unsafe { to.put_lines::<V>(sums, bias) };
        }
        for (row, sums) in sums.chunks_exact(COLUMNS).enumerate() {
            for first in (0..to.width).step_by(V::LANES) {
                // SAFETY: a panel's columns are whole vectors; the rest is the caller's promise.
                unsafe {
                    let bias = V::load(bias[first..].as_ptr());
                    to.put([V::load(sums[first..].as_ptr()).plus(bias)], row, first);
                }
            }
        }
    }
}
