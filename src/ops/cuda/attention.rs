//! Attention without stored scores.

use super::gpu::{Arg, Gpu, Source, Threads, at, empty};
use super::map::Map;
use super::pointwise::softmax;
use crate::error::Result;
use candle_core::{D, DType, Tensor};

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

/// Groups of four warps, queries of each, and keys of a round of Hopper's kernel.
const GROUPS: usize = 3;
const GROUP: usize = 64;
const WIDE_KEYS: usize = 128;
/// Bytes of a row of a tile.
const ROW: usize = 128;

/// [`attention`] with Hopper's own instructions, for heads 64 wide. Keys that fit in one tile have a kernel of small blocks.
fn wide(gpu: &Gpu, [q, k, v]: [&Tensor; 3], heads: usize) -> Result<Tensor> {
    let (batch, queries, channels) = q.dims3()?;
    let keys = k.dim(1)?;
    let y = empty(q.dims(), q)?;
    let (name, groups, fetching, tiles) =
        if keys <= WIDE_KEYS { ("attend_short", 1, 0, 2) } else { ("attend_wide_3", GROUPS, 1, 4) };
    let block = groups * GROUP;
    let threads = Threads {
        grid: (queries.div_ceil(block), heads, batch),
        block: (128 * (fetching + groups), 1),
        // Tiles begin at 1024 bytes; one or two of keys and as many of values are in flight.
        shared: 1024 + (block + tiles * WIDE_KEYS) * ROW,
    };
    let args = [
        Arg::Map(Map::rows(q, block)?),
        Arg::Map(Map::rows(k, WIDE_KEYS)?),
        Arg::Map(Map::rows(v, WIDE_KEYS)?),
        at(&y)?,
        queries.into(),
        keys.into(),
        channels.into(),
        Arg::Long((queries * channels) as i64),
        (std::f32::consts::LOG2_E / (GROUP as f32).sqrt()).into(),
    ];
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
