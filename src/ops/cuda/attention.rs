//! Attention without stored scores.

use super::gpu::{Arg, Gpu, Source, Threads, at, empty};
use super::map::Map;
use super::pointwise::softmax;
use crate::error::Result;
use candle_core::{D, DType, Tensor};
use cudarc::driver::DeviceRepr;

/// Queries of a block, and keys of a round (the kernel's constants).
const QUERIES: usize = 128;
const KEYS: usize = 64;

/// Whether there are kernels for these operands.
pub(in crate::ops) fn takes(q: &Tensor, k: &Tensor, heads: usize, causal: bool) -> Result<bool> {
    let (width, keys) = (q.dim(2)? / heads, k.dim(1)?);
    let stored = heads == 1 && !causal && width.is_multiple_of(8) && keys.is_multiple_of(8);
    Ok(matches!(q.dtype(), DType::F16 | DType::BF16) && (matches!(width, 32 | 64) || stored))
}

/// `softmax(q k^T / sqrt(C / heads)) v` of `[B, L, C]` and twice `[B, S, C]`; rows may lie further apart than `C`.
pub(in crate::ops) fn attention([q, k, v]: [&Tensor; 3], heads: usize, causal: bool) -> Result<Tensor> {
    let [q, k, v] = [joined(q)?, joined(k)?, joined(v)?];
    let (batch, queries, channels) = q.dims3()?;
    let (keys, width) = (k.dim(1)?, channels / heads);
    let gpu = Gpu::of(&q)?;
    if gpu.hopper && width == 64 && !causal {
        return wide(gpu, [&q, &k, &v], heads);
    }
    if !matches!(width, 32 | 64) {
        return stored(gpu, [&q, &k, &v]);
    }
    let y = empty(q.dims(), &q)?;
    let name = if width == 64 { "attend_64" } else { "attend_32" };
    let threads = Threads {
        grid: (queries.div_ceil(QUERIES), heads, batch),
        block: (256, 1),
        shared: (QUERIES + 4 * KEYS) * width * q.dtype().size_in_bytes(),
    };
    let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
    let mut args = vec![at(&q)?, at(&k)?, at(&v)?, at(&y)?];
    args.extend([queries, keys, usize::from(causal)].map(Arg::from));
    args.extend([&q, &k, &v, &y].map(|x| Arg::from(x.stride()[1])));
    args.extend([&q, &k, &v, &y].map(|x| Arg::Long(x.stride()[0] as i64)));
    args.push(scale.into());
    gpu.launch((Source::Attention, name, Some(q.dtype())), threads, &args)?;
    Ok(y)
}

/// Scores held at once, in elements.
const SCORES_AT_ONCE: usize = 1 << 26;

/// [`attention`] of one head of any width, its scores stored in f32: for the VAE, whose one head is 512 wide.
fn stored(gpu: &Gpu, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
    let (batch, queries, channels) = q.dims3()?;
    let keys = k.dim(1)?;
    let scale = 1.0 / (channels as f32).sqrt();
    let span = (SCORES_AT_ONCE / keys).clamp(1, queries);
    let mut parts = Vec::new();
    for row in 0..batch {
        let (q, k, v) = (q.get(row)?, k.get(row)?, v.get(row)?.contiguous()?);
        for from in (0..queries).step_by(span) {
            let some = q.narrow(0, from, span.min(queries - from))?;
            let scores = gpu.multiplier.scores(gpu, &some, &k)?; // [some, S]
            parts.push(softmax(&scores, scale, q.dtype())?.matmul(&v)?);
        }
    }
    Ok(Tensor::cat(&parts, 0)?.reshape((batch, queries, channels))?)
}

/// Queries of a group of four warps, and keys of a round of Hopper's kernel.
const GROUP: usize = 64;
const WIDE_KEYS: usize = 128;
/// The most keys that its kernel of small blocks takes, in one round.
const SHORT_KEYS: usize = 80;
/// Bytes of a row of a tile.
const ROW: usize = 128;
/// Time that blocks of three groups and of two take, in quarters of the former.
const COSTS: [usize; 2] = [4, 3];

/// How the heads of all rows are cut into blocks; the kernel's `Spread`. A processor has room for one block: where all were of
/// three groups, most processors would wait for the last ones.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Spread {
    heads: i32,
    all: i32,
    threes: i32,
    twos: i32,
    more: i32,
}

// SAFETY: plain numbers in the order that the kernel declares.
unsafe impl DeviceRepr for Spread {}

impl Spread {
    /// For `batch` rows of `heads` heads, each of `groups` groups of queries.
    fn new([batch, heads, groups]: [usize; 3], processors: usize) -> Self {
        let all = batch * heads;
        // What one processor has to do, and the quickest way to do it: blocks of three, the rest of two.
        let share = (all * groups).div_ceil(processors);
        let time =
            |threes: &usize| COSTS[0] * threes + COSTS[1] * share.saturating_sub(3 * threes).div_ceil(2);
        let best = (0..=share.div_ceil(3)).rev().min_by_key(time).unwrap_or(0) * processors;
        // The same for all heads but for two blocks of three instead of three of two.
        let mut threes = (best / all).min(groups / 3);
        let paired = |threes: usize| (groups - 3 * threes).is_multiple_of(2);
        threes -= usize::from(threes > 0 && !paired(threes));
        let left = best.saturating_sub(threes * all) / 2;
        let more = if paired(threes) && 3 * (threes + 2) <= groups { left.min(all) } else { 0 };
        let twos = (groups - 3 * threes).div_ceil(2);
        let [heads, all, threes, twos, more] = [heads, all, threes, twos, more].map(|count| count as i32);
        Self { heads, all, threes, twos, more }
    }

    fn blocks(&self) -> usize {
        (self.all * (self.threes + self.twos) - self.more) as usize
    }
}

/// [`attention`] with Hopper's own instructions, for heads 64 wide. Keys that fit in one tile have a kernel of small blocks.
fn wide(gpu: &Gpu, [q, k, v]: [&Tensor; 3], heads: usize) -> Result<Tensor> {
    let (batch, queries, channels) = q.dims3()?;
    let keys = k.dim(1)?;
    let y = empty(q.dims(), q)?;
    let short = keys <= SHORT_KEYS;
    let groups = queries.div_ceil(GROUP);
    let spread = Spread::new([batch, heads, groups], gpu.processors);
    // Tiles begin at 1024 bytes; one or two of keys and as many of values are in flight.
    let shared = |queries: usize, keys: usize| 1024 + (queries + keys) * ROW;
    let (name, threads) = if short {
        (
            "attend_short",
            Threads { grid: (groups, heads, batch), block: (128, 1), shared: shared(GROUP, 2 * SHORT_KEYS) },
        )
    } else {
        (
            "attend_wide",
            Threads {
                grid: (spread.blocks(), 1, 1),
                block: (512, 1),
                shared: shared(3 * GROUP, 4 * WIDE_KEYS),
            },
        )
    };
    let mut args = vec![
        Arg::Map(Map::rows(q, if short { GROUP } else { 3 * GROUP })?),
        Arg::Map(Map::rows(k, if short { SHORT_KEYS } else { WIDE_KEYS })?),
        Arg::Map(Map::rows(v, if short { SHORT_KEYS } else { WIDE_KEYS })?),
        at(&y)?,
        queries.into(),
        keys.into(),
        channels.into(),
        Arg::Long((queries * channels) as i64),
        (std::f32::consts::LOG2_E / (GROUP as f32).sqrt()).into(),
    ];
    args.extend((!short).then_some(Arg::Spread(spread)));
    gpu.launch_early((Source::Attention, name, Some(q.dtype())), threads, &args)?;
    Ok(y)
}

/// `x` with the numbers of a row side by side and rows that start at 16 bytes, which is how the kernel fetches them.
fn joined(x: &Tensor) -> Result<Tensor> {
    let run = 16 / x.dtype().size_in_bytes();
    let aligned = x.stride()[..2].iter().all(|stride| stride.is_multiple_of(run))
        && x.layout().start_offset().is_multiple_of(run);
    if x.stride()[x.rank() - 1] == 1 && aligned && x.dim(D::Minus1)?.is_multiple_of(run) {
        return Ok(x.clone());
    }
    Ok(x.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What processors have done at the end that take blocks in order as they come free.
    fn end(spread: Spread, processors: usize) -> usize {
        let wide = spread.all * spread.threes + 2 * spread.more;
        let mut free = vec![0; processors];
        for block in 0..spread.blocks() {
            let first = free.iter_mut().min().unwrap();
            *first += COSTS[usize::from(block as i32 >= wide)];
        }
        free.into_iter().max().unwrap()
    }

    #[test]
    fn blocks_cover_each_head_and_end_nearly_together() {
        for (batch, heads, groups) in [
            (2, 20, 16),
            (2, 10, 64),
            (2, 20, 4),
            (16, 20, 16),
            (1, 10, 1),
            (1, 3, 7),
            (3, 5, 33),
            (8, 10, 64),
        ] {
            let spread = Spread::new([batch, heads, groups], 132);
            let covered = |more: i32| 3 * (spread.threes + 2 * more) + 2 * (spread.twos - 3 * more);
            assert!((groups..groups + 2).contains(&(covered(0) as usize)), "{spread:?}");
            assert!(spread.more == 0 || covered(1) as usize == groups && spread.twos >= 3, "{spread:?}");
            assert!(spread.more <= spread.all, "{spread:?}");
            let threes = Spread { threes: groups.div_ceil(3) as i32, twos: 0, more: 0, ..spread };
            assert!(end(spread, 132) <= end(threes, 132), "{spread:?}");
        }
        assert_eq!(end(Spread::new([2, 20, 16], 132), 132), 7);
        assert_eq!(end(Spread::new([2, 10, 64], 132), 132), 14);
    }
}
