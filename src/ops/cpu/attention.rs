//! Attention with an online softmax: scores exist for 32 queries and a chunk of keys at a time.
//!
//! Queries stand in columns: a tile of scores has 12 keys as rows and 32 queries as columns, so that maxima and sums
//! of the softmax run down columns, and the weights come out in the very order in which the second product reads them.

use super::isa::Isa;
use super::math::{EXP2, EXP2_COARSE, exp2_each};
use super::pack::transpose;
use super::scratch::{self, bits};
use super::shared::{Shared, Slot, filled};
use super::tile::{self, COLUMNS as QUERIES, Element, ROWS, Run};
use super::vector::{Loop, Vector, run};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Keys whose scores exist at once: with them and 32 queries they stay in the first-level cache.
const KEYS: usize = 16 * ROWS;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Rows of the batch.
    pub batch: usize,
    /// Queries a row.
    pub queries: usize,
    /// Keys a row.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
    /// Whether a query sees only the keys at its place and before.
    pub causal: bool,
    /// Whether queries, keys, values and the softmax's weights may be rounded to bf16 where the processor multiplies pairs.
    pub rounded: bool,
}

impl Sizes {
    fn channels(&self) -> usize {
        self.heads * self.width
    }

    /// Row and head of each pair, of which all are computed by themselves.
    fn pairs(&self) -> usize {
        self.batch * self.heads
    }
}

/// Elements that attention multiplies.
trait Operand: Element {
    /// `rows` `[depth, columns]` as elements `[depth / STEPS, columns]`, for which `room` has room; an odd depth is filled up with
    /// zeros.
    fn of<'a>(rows: &'a [f32], columns: usize, room: &'a mut [f32]) -> &'a [Self];

    /// The polynomial that the softmax's weights are made with.
    const EXP2: &'static [f32];

    /// Weights as they will be multiplied.
    ///
    /// # Safety
    /// The processor must have the vectors' instructions.
    unsafe fn rounded<V: Vector>(weights: V) -> V;

    /// Writes a vector of such weights of each of [`Element::STEPS`] keys as one of elements.
    ///
    /// # Safety
    /// As [`Vector::store`].
    unsafe fn store<V: Vector>(weights: [V; 2], to: *mut f32);

    /// The elements that were stored.
    fn stored(elements: &[f32]) -> &[Self];
}

impl Operand for f32 {
    fn of<'a>(rows: &'a [f32], _: usize, _: &'a mut [f32]) -> &'a [f32] {
        rows
    }

    const EXP2: &'static [f32] = &EXP2;

    #[inline(always)]
    unsafe fn rounded<V: Vector>(weights: V) -> V {
        weights
    }

    #[inline(always)]
    unsafe fn store<V: Vector>([weights, _]: [V; 2], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { weights.store(to) }
    }

    fn stored(elements: &[f32]) -> &[f32] {
        elements
    }
}

impl Operand for u32 {
    fn of<'a>(rows: &'a [f32], columns: usize, room: &'a mut [f32]) -> &'a [u32] {
        let room = &mut room[..(rows.len() / columns).div_ceil(2) * columns];
        tile::pair_rows(Isa::Avx512Bf16, rows, columns, room);
        bits(room)
    }

    const EXP2: &'static [f32] = &EXP2_COARSE;

    #[inline(always)]
    unsafe fn rounded<V: Vector>(weights: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { weights.rounded() }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(weights: [V; 2], to: *mut f32) {
        // SAFETY: the caller's promise; all elements have one size.
        unsafe { V::store_upper_halves(weights, to.cast()) }
    }

    fn stored(elements: &[f32]) -> &[u32] {
        bits(elements)
    }
}

/// `softmax(q k^T / sqrt(width)) v` for each head: queries `[B, L, C]`, keys and values `[B, S, C]` to `[B, L, C]`.
///
/// # Panics
/// If the lengths do not fit the sizes.
pub fn attention(isa: Isa, operands: [&[f32]; 3], sizes: Sizes) -> Vec<f32> {
    if isa == Isa::Avx512Bf16 && sizes.rounded && sizes.width.is_multiple_of(2) {
        attend::<u32>(isa, operands, sizes)
    } else {
        attend::<f32>(isa, operands, sizes)
    }
}

fn attend<T: Operand>(isa: Isa, [q, k, v]: [&[f32]; 3], sizes: Sizes) -> Vec<f32> {
    let channels = sizes.channels();
    assert_eq!(q.len(), sizes.batch * sizes.queries * channels, "queries fit their sizes");
    assert!([k, v].iter().all(|x| x.len() == sizes.batch * sizes.keys * channels), "keys fit their sizes");
    let keys = packed(&sizes, k, sizes.keys * sizes.width / T::STEPS, pack_keys::<T>);
    let values = packed(&sizes, v, sizes.keys.div_ceil(T::STEPS) * sizes.width, pack_values::<T>);
    let write = |out: &mut [Slot]| {
        let heads = Heads { isa, sizes, q, keys: &keys, values: &values, out: Shared::new(out) };
        let blocks = sizes.queries.div_ceil(QUERIES);
        (0..sizes.pairs() * blocks)
            .into_par_iter()
            .for_each(|task| heads.block(task / blocks, task % blocks));
    };
    // SAFETY: the blocks make up all queries of all pairs, and each is written in all its channels.
    unsafe { filled(q.len(), write) }
}

/// `values` of all pairs, each of which `pack` makes `length` elements of.
fn packed<T: Operand>(
    sizes: &Sizes,
    values: &[f32],
    length: usize,
    pack: fn(&Sizes, usize, &[f32], &mut [Slot<T>]),
) -> Vec<T> {
    let write = |out: &mut [Slot<T>]| {
        out.par_chunks_mut(length).enumerate().for_each(|(at, out)| pack(sizes, at, values, out));
    };
    // SAFETY: every pair is packed, and each writes as many elements as it has.
    unsafe { filled(sizes.pairs() * length, write) }
}

/// The channels of pair `pair` at `position` of a tensor `[B, length, C]`.
fn slice<'a>(sizes: &Sizes, values: &'a [f32], pair: usize, (length, position): (usize, usize)) -> &'a [f32] {
    let (row, head) = (pair / sizes.heads, pair % sizes.heads);
    &values[(row * length + position) * sizes.channels() + head * sizes.width..][..sizes.width]
}

/// Keys of a pair as tiles `[width, up to 12 keys]`.
fn pack_keys<T: Operand>(sizes: &Sizes, pair: usize, k: &[f32], out: &mut [Slot<T>]) {
    scratch::with([ROWS * sizes.width; 2], |[columns, room]| {
        for (tile, out) in out.chunks_mut(ROWS * sizes.width / T::STEPS).enumerate() {
            let count = out.len() * T::STEPS / sizes.width;
            let mut rows = [&k[..0]; ROWS];
            for (i, row) in rows[..count].iter_mut().enumerate() {
                *row = slice(sizes, k, pair, (sizes.keys, tile * ROWS + i));
            }
            transpose(&rows[..count], columns, count);
            out.write_copy_of_slice(T::of(&columns[..count * sizes.width], count, room));
        }
    });
}

/// Values of a pair as tiles `[keys, up to 12 channels]`.
fn pack_values<T: Operand>(sizes: &Sizes, pair: usize, v: &[f32], out: &mut [Slot<T>]) {
    scratch::with([ROWS * sizes.keys, ROWS * sizes.keys.next_multiple_of(2)], |[columns, room]| {
        let depth = sizes.keys.div_ceil(T::STEPS);
        for (tile, out) in out.chunks_mut(ROWS * depth).enumerate() {
            let count = out.len() / depth;
            let columns = &mut columns[..count * sizes.keys];
            for (key, columns) in columns.chunks_exact_mut(count).enumerate() {
                columns.copy_from_slice(&slice(sizes, v, pair, (sizes.keys, key))[tile * ROWS..][..count]);
            }
            out.write_copy_of_slice(T::of(columns, count, room));
        }
    });
}

struct Heads<'a, T> {
    isa: Isa,
    sizes: Sizes,
    q: &'a [f32],
    keys: &'a [T],
    values: &'a [T],
    out: Shared<'a>,
}

/// The running softmax of 32 queries.
struct Running {
    greatest: [f32; QUERIES],
    sum: [f32; QUERIES],
}

impl<T: Operand> Heads<'_, T> {
    /// Computes up to 32 queries of one pair.
    fn block(&self, pair: usize, block: usize) {
        let Sizes { queries, width, keys, causal, .. } = self.sizes;
        let first = block * QUERIES;
        let count = QUERIES.min(queries - first);
        let seen = if causal { keys.min(first + count) } else { keys };
        let sizes = [width * QUERIES, width * QUERIES, KEYS * QUERIES, width * QUERIES];
        scratch::with(sizes, |[scaled, room, scores, mixed]| {
            self.pack_queries(pair, first..first + count, scaled);
            let q = T::of(scaled, QUERIES, room);
            let mut running = Running { greatest: [f32::NEG_INFINITY; QUERIES], sum: [0.0; QUERIES] };
            for from in (0..seen).step_by(KEYS) {
                let chunk = from..seen.min(from + KEYS);
                let scores = &mut scores[..chunk.len() * QUERIES];
                self.score(pair, &chunk, q, scores);
                if causal {
                    hide_later(scores, from, first);
                }
                // SAFETY: nothing is asked for but the instructions.
                unsafe { run(self.isa, Soften::<T>::new(scores, &mut running, mixed)) };
                let weights = T::stored(&scores[..chunk.len().div_ceil(T::STEPS) * QUERIES]);
                self.mix(pair, &chunk, weights, mixed);
            }
            self.write(pair, first..first + count, (mixed, &running.sum), scaled);
        });
    }

    /// Queries as columns `[width, 32]`, scaled for powers of two; zeros behind the last.
    fn pack_queries(&self, pair: usize, queries: Range<usize>, out: &mut [f32]) {
        let Sizes { queries: length, width, .. } = self.sizes;
        let mut rows = [&self.q[..0]; QUERIES];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = slice(&self.sizes, self.q, pair, (length, (queries.start + i).min(queries.end - 1)));
        }
        transpose(&rows, out, QUERIES);
        let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
        out.iter_mut().for_each(|value| *value *= scale);
    }

    /// Scores `[chunk, 32]`.
    fn score(&self, pair: usize, chunk: &Range<usize>, q: &[T], scores: &mut [f32]) {
        let Sizes { keys, width, .. } = self.sizes;
        let depth = width / T::STEPS;
        for (tile, scores) in scores.chunks_mut(ROWS * QUERIES).enumerate() {
            let first = chunk.start + tile * ROWS;
            // A tile may hold more keys than are seen; its rows are what was packed.
            let packed = ROWS.min(keys - first);
            let a = &self.keys[(pair * keys + first) * depth..][..packed * depth];
            T::multiply(self.isa, &[Run::of_columns(a, packed)], q.into(), scores, true);
        }
    }

    /// `mixed[width, 32] += values[chunk]^T weights[chunk, 32]`.
    fn mix(&self, pair: usize, chunk: &Range<usize>, weights: &[T], mixed: &mut [f32]) {
        let depth = self.sizes.keys.div_ceil(T::STEPS);
        let steps = chunk.start / T::STEPS..chunk.end.div_ceil(T::STEPS);
        for (tile, mixed) in mixed.chunks_mut(ROWS * QUERIES).enumerate() {
            let count = mixed.len() / QUERIES;
            let start = (pair * self.sizes.width + tile * ROWS) * depth;
            let a = &self.values[start + steps.start * count..start + steps.end * count];
            T::multiply(self.isa, &[Run::of_columns(a, count)], weights.into(), mixed, chunk.start == 0);
        }
    }

    /// Writes what was mixed for each of `queries`, divided by its sum of weights; there is `room` for it.
    fn write(
        &self,
        pair: usize,
        queries: Range<usize>,
        (mixed, sums): (&mut [f32], &[f32; QUERIES]),
        room: &mut [f32],
    ) {
        let Sizes { queries: length, width, heads, .. } = self.sizes;
        let inverse = sums.map(|sum| 1.0 / sum);
        for mixed in mixed.chunks_exact_mut(QUERIES) {
            for (value, inverse) in mixed.iter_mut().zip(&inverse) {
                *value *= inverse;
            }
        }
        for (at, channels) in mixed.chunks(ROWS * QUERIES).enumerate() {
            let mut rows = [&channels[..0]; ROWS];
            rows.iter_mut().zip(channels.chunks_exact(QUERIES)).for_each(|(row, channel)| *row = channel);
            transpose(&rows[..channels.len() / QUERIES], &mut room[at * ROWS..], width);
        }
        let (row, head) = (pair / heads, pair % heads);
        for (mixed, query) in room.chunks_exact(width).zip(queries) {
            let at = (row * length + query) * self.sizes.channels() + head * width;
            // SAFETY: each task has its own pair and queries, hence its own elements.
            unsafe { self.out.part(at, width) }.write_copy_of_slice(mixed);
        }
    }
}

/// Takes out of `scores` `[keys from 'from', 32]` the keys behind each query, the first of which is `first`.
fn hide_later(scores: &mut [f32], from: usize, first: usize) {
    for (key, scores) in scores.chunks_exact_mut(QUERIES).enumerate() {
        let hidden = (from + key).saturating_sub(first).min(QUERIES);
        scores[..hidden].fill(f32::NEG_INFINITY);
    }
}

/// Turns scores `[keys, 32]`, in powers of two, into weights `[keys / STEPS, 32]` in their place, and brings what was mixed so far down
/// to the new greatest score.
struct Soften<'a, T> {
    scores: &'a mut [f32],
    running: &'a mut Running,
    mixed: &'a mut [f32],
    weights: PhantomData<T>,
}

impl<'a, T> Soften<'a, T> {
    fn new(scores: &'a mut [f32], running: &'a mut Running, mixed: &'a mut [f32]) -> Self {
        Self { scores, running, mixed, weights: PhantomData }
    }
}

impl<T: Operand> Loop for Soften<'_, T> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { scores, running, mixed, .. } = self;
        let keys = scores.len() / QUERIES;
        let fresh = running.greatest[0] == f32::NEG_INFINITY;
        for first in (0..QUERIES).step_by(V::LANES) {
            let at = |row: &mut [f32]| row[first..].as_mut_ptr();
            let (so_far, sum) = (at(&mut running.greatest), at(&mut running.sum));
            // SAFETY: rows have a number for each query, and queries are whole vectors; the rest is the caller's promise.
            unsafe {
                let before = V::load(so_far);
                let mut greatest = before;
                for row in scores.chunks_exact_mut(QUERIES) {
                    greatest = V::load(at(row)).greater(greatest);
                }
                let mut total = V::load(sum);
                if !fresh {
                    let shrink = exp2_each(before.minus(greatest), &EXP2);
                    total = total.times(shrink);
                    for row in mixed.chunks_exact_mut(QUERIES) {
                        V::load(at(row)).times(shrink).store(at(row));
                    }
                }
                let scores = at(scores);
                for element in 0..keys.div_ceil(T::STEPS) {
                    let mut weights = [V::splat(0.0); 2];
                    for (step, weight) in weights.iter_mut().enumerate().take(T::STEPS) {
                        let key = element * T::STEPS + step;
                        if key < keys {
                            // The sum is of what is multiplied: so the results lie among the values.
                            let below = V::load(scores.add(key * QUERIES)).minus(greatest);
                            *weight = T::rounded(exp2_each(below, T::EXP2));
                            total = total.plus(*weight);
                        }
                    }
                    // Elements are no more than the keys before them.
                    T::store(weights, scores.add(element * QUERIES));
                }
                greatest.store(so_far);
                total.store(sum);
            }
        }
    }
}
