//! Attention with an online softmax: scores exist for 32 queries and a chunk of keys at a time.
//!
//! Queries stand in columns: a tile of scores has 12 keys as rows and 32 queries as columns, so that maxima and sums
//! of the softmax run down columns, and the weights come out in the very order in which the second product reads them.

use super::isa::{Isa, vectorised};
use super::math::exp2;
use super::pack::transpose;
use super::scratch;
use super::shared::{Shared, Slot, filled};
use super::tile::{self, COLUMNS as QUERIES, ROWS, Run};
use rayon::prelude::*;
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

/// `softmax(q k^T / sqrt(width)) v` for each head: queries `[B, L, C]`, keys and values `[B, S, C]` to `[B, L, C]`.
///
/// # Panics
/// If the lengths do not fit the sizes.
pub fn attention(isa: Isa, [q, k, v]: [&[f32]; 3], sizes: Sizes) -> Vec<f32> {
    let channels = sizes.channels();
    assert_eq!(q.len(), sizes.batch * sizes.queries * channels, "queries fit their sizes");
    assert!([k, v].iter().all(|x| x.len() == sizes.batch * sizes.keys * channels), "keys fit their sizes");
    let pair = sizes.keys * sizes.width;
    let pack = |values: &[f32], pack: fn(&Sizes, usize, &[f32], &mut [Slot])| {
        let write = |out: &mut [Slot]| {
            out.par_chunks_mut(pair).enumerate().for_each(|(at, out)| pack(&sizes, at, values, out));
        };
        // SAFETY: every pair is packed, and each writes as many numbers as it has.
        unsafe { filled(values.len(), write) }
    };
    let (keys, values) = (pack(k, pack_keys), pack(v, pack_values));
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

/// The channels of pair `pair` at `position` of a tensor `[B, length, C]`.
fn slice<'a>(sizes: &Sizes, values: &'a [f32], pair: usize, (length, position): (usize, usize)) -> &'a [f32] {
    let (row, head) = (pair / sizes.heads, pair % sizes.heads);
    &values[(row * length + position) * sizes.channels() + head * sizes.width..][..sizes.width]
}

/// Keys of a pair as tiles `[width, up to 12 keys]`.
fn pack_keys(sizes: &Sizes, pair: usize, k: &[f32], out: &mut [Slot]) {
    scratch::with([ROWS * sizes.width], |[packed]| {
        for (tile, out) in out.chunks_mut(ROWS * sizes.width).enumerate() {
            let count = out.len() / sizes.width;
            let rows: [&[f32]; ROWS] =
                std::array::from_fn(|i| slice(sizes, k, pair, (sizes.keys, tile * ROWS + i.min(count - 1))));
            transpose(&rows[..count], packed, count);
            out.write_copy_of_slice(&packed[..out.len()]);
        }
    });
}

/// Values of a pair as tiles `[keys, up to 12 channels]`.
fn pack_values(sizes: &Sizes, pair: usize, v: &[f32], out: &mut [Slot]) {
    for (tile, out) in out.chunks_mut(ROWS * sizes.keys).enumerate() {
        let count = out.len() / sizes.keys;
        for (key, out) in out.chunks_exact_mut(count).enumerate() {
            out.write_copy_of_slice(&slice(sizes, v, pair, (sizes.keys, key))[tile * ROWS..][..count]);
        }
    }
}

struct Heads<'a> {
    isa: Isa,
    sizes: Sizes,
    q: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    out: Shared<'a>,
}

/// The running softmax of 32 queries.
struct Running {
    greatest: [f32; QUERIES],
    sum: [f32; QUERIES],
}

impl Heads<'_> {
    /// Computes up to 32 queries of one pair.
    fn block(&self, pair: usize, block: usize) {
        let Sizes { queries, width, keys, causal, .. } = self.sizes;
        let first = block * QUERIES;
        let count = QUERIES.min(queries - first);
        let seen = if causal { keys.min(first + count) } else { keys };
        scratch::with([width * QUERIES, KEYS * QUERIES, width * QUERIES], |[q, scores, mixed]| {
            self.pack_queries(pair, first..first + count, q);
            let mut running = Running { greatest: [f32::NEG_INFINITY; QUERIES], sum: [0.0; QUERIES] };
            for from in (0..seen).step_by(KEYS) {
                let chunk = from..seen.min(from + KEYS);
                let scores = &mut scores[..chunk.len() * QUERIES];
                self.score(pair, &chunk, q, scores);
                if causal {
                    hide_later(scores, from, first);
                }
                soften(self.isa, scores, &mut running, mixed);
                self.mix(pair, &chunk, scores, mixed);
            }
            self.write(pair, first..first + count, (mixed, &running.sum));
        });
    }

    /// Queries as columns `[width, 32]`, scaled for powers of two; zeros behind the last.
    fn pack_queries(&self, pair: usize, queries: Range<usize>, out: &mut [f32]) {
        let Sizes { queries: length, width, .. } = self.sizes;
        let rows: [&[f32]; QUERIES] = std::array::from_fn(|i| {
            slice(&self.sizes, self.q, pair, (length, (queries.start + i).min(queries.end - 1)))
        });
        transpose(&rows, out, QUERIES);
        let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
        out.iter_mut().for_each(|value| *value *= scale);
    }

    /// Scores `[chunk, 32]`.
    fn score(&self, pair: usize, chunk: &Range<usize>, q: &[f32], scores: &mut [f32]) {
        let Sizes { keys, width, .. } = self.sizes;
        for (tile, scores) in scores.chunks_mut(ROWS * QUERIES).enumerate() {
            let first = chunk.start + tile * ROWS;
            // A tile may hold more keys than are seen; its rows are what was packed.
            let packed = ROWS.min(keys - first);
            let a = &self.keys[(pair * keys + first) * width..][..packed * width];
            tile::multiply(self.isa, &[Run::of_columns(a, packed)], q.into(), scores, true);
        }
    }

    /// `mixed[width, 32] += values[chunk]^T weights[chunk, 32]`.
    fn mix(&self, pair: usize, chunk: &Range<usize>, weights: &[f32], mixed: &mut [f32]) {
        let Sizes { keys, width, .. } = self.sizes;
        for (tile, mixed) in mixed.chunks_mut(ROWS * QUERIES).enumerate() {
            let count = mixed.len() / QUERIES;
            let start = pair * keys * width + tile * ROWS * keys;
            let a = &self.values[start + chunk.start * count..start + chunk.end * count];
            tile::multiply(self.isa, &[Run::of_columns(a, count)], weights.into(), mixed, chunk.start == 0);
        }
    }

    fn write(&self, pair: usize, queries: Range<usize>, (mixed, sums): (&mut [f32], &[f32; QUERIES])) {
        let Sizes { queries: length, width, heads, .. } = self.sizes;
        let inverse = sums.map(|sum| 1.0 / sum);
        for mixed in mixed.chunks_exact_mut(QUERIES) {
            for (value, inverse) in mixed.iter_mut().zip(&inverse) {
                *value *= inverse;
            }
        }
        let (row, head) = (pair / heads, pair % heads);
        for (column, query) in queries.enumerate() {
            let at = (row * length + query) * self.sizes.channels() + head * width;
            // SAFETY: each task has its own pair and queries, hence its own elements.
            let out = unsafe { self.out.part(at, width) };
            for (out, value) in out.iter_mut().zip(mixed[column..].iter().step_by(QUERIES)) {
                out.write(*value);
            }
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

vectorised!(
    /// Turns scores, in powers of two, into weights, and brings what was mixed so far down to the new greatest score.
    fn soften(scores: &mut [f32], running: &mut Running, mixed: &mut [f32]) => soften_inner
);

#[inline(always)]
fn soften_inner<const FUSED: bool>(scores: &mut [f32], running: &mut Running, mixed: &mut [f32]) {
    let mut greatest = running.greatest;
    for scores in scores.chunks_exact(QUERIES) {
        for (greatest, score) in greatest.iter_mut().zip(scores) {
            *greatest = if *score > *greatest { *score } else { *greatest };
        }
    }
    let before = running.greatest[0] != f32::NEG_INFINITY;
    let mut sum = running.sum;
    if before {
        let mut shrink = [0f32; QUERIES];
        for i in 0..QUERIES {
            shrink[i] = exp2::<FUSED>(running.greatest[i] - greatest[i]);
            sum[i] *= shrink[i];
        }
        for mixed in mixed.chunks_exact_mut(QUERIES) {
            for (value, shrink) in mixed.iter_mut().zip(&shrink) {
                *value *= shrink;
            }
        }
    }
    for scores in scores.chunks_exact_mut(QUERIES) {
        for i in 0..QUERIES {
            let weight = exp2::<FUSED>(scores[i] - greatest[i]);
            sum[i] += weight;
            scores[i] = weight;
        }
    }
    *running = Running { greatest, sum };
}
