//! Random weights: SDXL's real sizes without its files, for benchmarks.

use candle_core::{DType, Device, Result, Shape, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

/// Values made by one task.
const CHUNK: usize = 1 << 16;

/// A tensor of `shape`: matrices uniform with the spread that keeps activations' size, norms' weights one and biases zero.
/// The values depend on the name and the shape alone.
pub(super) fn random(shape: &Shape, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
    if shape.rank() == 1 {
        let value = if name.ends_with("weight") { 1.0 } else { 0.0 };
        return Tensor::full(value, shape, device)?.to_dtype(dtype);
    }
    let fan_in = shape.elem_count() / shape.dims()[0];
    let bound = (3.0 / fan_in as f32).sqrt();
    match dtype {
        DType::BF16 => Tensor::from_vec(uniform(shape, name, |u| bf16::from_f32(u * bound)), shape, device),
        DType::F16 => Tensor::from_vec(uniform(shape, name, |u| f16::from_f32(u * bound)), shape, device),
        _ => Tensor::from_vec(uniform(shape, name, |u| u * bound), shape, device)?.to_dtype(dtype),
    }
}

/// `map` of numbers uniform in -1..1, made in parallel.
fn uniform<T: Send + Clone + Default>(shape: &Shape, name: &str, map: impl Fn(f32) -> T + Sync) -> Vec<T> {
    let mut values = vec![T::default(); shape.elem_count()];
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
        let mut state = splitmix(seed.wrapping_add(chunk as u64));
        for value in values {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *value = map((state >> 40) as f32 * (2.0 / (1 << 24) as f32) - 1.0);
        }
    });
    values
}

/// A well-mixed, never-zero start for a xorshift generator (Vigna's splitmix64).
fn splitmix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) | 1
}
