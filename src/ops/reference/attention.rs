//! Scaled dot-product attention with several heads.

use super::rows::by_row;
use crate::error::Result;
use crate::ops::Mask;
use candle_core::{D, DType, Tensor};

/// Scores held at once, in elements: bounds the memory of a large picture's attention.
const SCORES_AT_ONCE: usize = 1 << 25;

/// `softmax(q k^T / sqrt(C / heads)) v` in each of `heads` equal parts of the channels.
///
/// Queries are `[B, L, C]`, keys and values `[B, S, C]`; the answer is `[B, L, C]`, stored like the queries. All between
/// is f32.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let dtype = q.dtype();
    let [q, k, v] = [q.to_dtype(DType::F32)?, k.to_dtype(DType::F32)?, v.to_dtype(DType::F32)?];
    let channels = q.dim(D::Minus1)?;
    let scale = 1.0 / ((channels / heads) as f64).sqrt();
    let queries = q.dim(1)?;
    by_row(q.dim(0)?, |row| {
        let q = split_heads(&(q.narrow(0, row, 1)? * scale)?, heads)?;
        let k = split_heads(&k.narrow(0, row, 1)?, heads)?;
        let v = split_heads(&v.narrow(0, row, 1)?, heads)?;
        let mixed = mix(&q, &k, &v, mask)?; // [heads, L, C/heads]
        Ok(mixed.transpose(0, 1)?.contiguous()?.reshape((1, queries, channels))?.to_dtype(dtype)?)
    })
}

/// `[1, L, C]` as `[heads, L, C/heads]`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (_, length, channels) = x.dims3()?;
    Ok(x.reshape((length, heads, channels / heads))?.transpose(0, 1)?.contiguous()?)
}

fn mix(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Result<Tensor> {
    let (heads, queries, _) = q.dims3()?;
    let keys = k.dim(1)?;
    let span = (SCORES_AT_ONCE / (heads * keys)).clamp(1, queries);
    let k = k.t()?.contiguous()?;
    let mut parts = Vec::new();
    for from in (0..queries).step_by(span) {
        let count = span.min(queries - from);
        let scores = q.narrow(1, from, count)?.contiguous()?.matmul(&k)?;
        let scores = match mask {
            Mask::None => scores,
            Mask::Causal => scores.broadcast_add(&causal(from, count, keys)?.to_device(q.device())?)?,
        };
        parts.push(candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)?);
    }
    Ok(Tensor::cat(&parts, 1)?)
}

/// 0 where query `from + i` may see key `j`, minus infinity where not: `[count, keys]`.
fn causal(from: usize, count: usize, keys: usize) -> Result<Tensor> {
    let seen = |i: usize, j: usize| if j <= from + i { 0f32 } else { f32::NEG_INFINITY };
    let values: Vec<f32> = (0..count).flat_map(|i| (0..keys).map(move |j| seen(i, j))).collect();
    Ok(Tensor::from_vec(values, (count, keys), &candle_core::Device::Cpu)?)
}
