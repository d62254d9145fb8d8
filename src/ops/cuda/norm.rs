//! Group norm with SiLU, and layer norm.

use super::gpu::{Gpu, Source, Threads, at, empty, empty_of};
use crate::error::Result;
use candle_core::{D, DType, Tensor};

/// Factors and summands of the channels, in f32.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Scale {
    weight: Tensor, // [C]
    bias: Tensor,   // [C]
    eps: f64,
}

/// Groups that the kernel keeps the statistics of.
const GROUPS_MOST: usize = 32;
/// The most channels of a layer norm, which one warp keeps in registers.
const LAYER_MOST: usize = 2048;
/// Channels that a thread works on.
const RUN: usize = 8;

impl Scale {
    /// The scale of `weight` and `bias`, each `[channels]`.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        Ok(Self { weight: weight.to_dtype(DType::F32)?, bias: bias.to_dtype(DType::F32)?, eps })
    }
}

/// Whether there is a kernel for a group norm of these sizes.
pub(in crate::ops) fn takes_groups(channels: usize, groups: usize) -> bool {
    channels.is_multiple_of(RUN) && groups <= GROUPS_MOST && channels <= 1024 * RUN
}

/// Whether there is a kernel for a layer norm of this width.
pub(in crate::ops) fn takes_layer(channels: usize) -> bool {
    channels.is_multiple_of(RUN) && channels <= LAYER_MOST
}

/// Normalises the groups of `[B, .., C]`; then SiLU where `active`.
pub(in crate::ops) fn group_norm(x: &Tensor, scale: &Scale, groups: usize, active: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    let gpu = Gpu::of(&x)?;
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let pixels = x.elem_count() / batch / channels;
    let columns = channels / RUN;
    let rows = 256usize.div_ceil(columns);
    // Chunks enough to fill the device, each of a few rounds.
    let chunks = pixels.div_ceil(8 * rows).clamp(1, 512 / batch.min(4));
    let sums = empty_of(DType::F32, &[batch, chunks, groups, 2], &x)?;
    let y = empty(x.dims(), &x)?;
    let threads =
        Threads { grid: (chunks, batch, 1), block: (columns, rows), shared: 2 * 4 * rows * channels };
    let sizes = [pixels.into(), channels.into(), groups.into()];
    gpu.launch_early(
        (Source::Norm, "group_sums", Some(x.dtype())),
        threads,
        &[&[at(&x)?, at(&sums)?][..], &sizes].concat(),
    )?;
    let operands = [at(&x)?, at(&y)?, at(&sums)?, at(&scale.weight)?, at(&scale.bias)?];
    let rest = [chunks.into(), (scale.eps as f32).into(), usize::from(active).into()];
    gpu.launch_early(
        (Source::Norm, "group_apply", Some(x.dtype())),
        Threads { shared: 0, ..threads },
        &[&operands[..], &sizes, &rest].concat(),
    )?;
    Ok(y)
}

/// Normalises the last axis.
pub(in crate::ops) fn layer_norm(x: &Tensor, scale: &Scale) -> Result<Tensor> {
    let x = x.contiguous()?;
    let channels = x.dim(D::Minus1)?;
    let rows = x.elem_count() / channels;
    let y = empty(x.dims(), &x)?;
    const WARPS: usize = 4;
    let threads = Threads { grid: (rows.div_ceil(WARPS), 1, 1), block: (32, WARPS), shared: 0 };
    let args = [
        at(&x)?,
        at(&y)?,
        at(&scale.weight)?,
        at(&scale.bias)?,
        rows.into(),
        channels.into(),
        (scale.eps as f32).into(),
    ];
    Gpu::of(&x)?.launch((Source::Norm, "layer_norm", Some(x.dtype())), threads, &args)?;
    Ok(y)
}
