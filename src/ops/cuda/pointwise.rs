//! Maps of single numbers, gates, and enlarging.

use super::gpu::{Arg, Gpu, Source, Threads, address, at, empty, empty_of};
use crate::error::{Error, Result};
use candle_core::{D, DType, Tensor};

/// A non-linearity, by the number that the kernel knows it by.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) enum Curve {
    Silu = 0,
    Gelu = 1,
    QuickGelu = 2,
}

/// `curve` of every number.
pub(in crate::ops) fn bent(x: &Tensor, curve: Curve) -> Result<Tensor> {
    let x = x.contiguous()?;
    let y = empty(x.dims(), &x)?;
    let count = x.elem_count();
    let args = [at(&x)?, at(&y)?, count.into(), (curve as usize).into()];
    Gpu::of(&x)?.launch((Source::Pointwise, "bent", Some(x.dtype())), Threads::line(count), &args)?;
    Ok(y)
}

/// Whether there is a kernel for a gate of this width.
pub(in crate::ops) fn takes_gate(width: usize) -> bool {
    width.is_multiple_of(8)
}

/// Halves the last axis: the first half times the exact (erf) GELU of the second.
pub(in crate::ops) fn geglu(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let width = x.dim(D::Minus1)? / 2;
    let rows = x.elem_count() / (2 * width);
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = width;
    }
    let y = empty(&shape, &x)?;
    let args = [at(&x)?, at(&y)?, rows.into(), width.into()];
    Gpu::of(&x)?.launch(
        (Source::Pointwise, "geglu", Some(x.dtype())),
        Threads::line(rows * width / 8),
        &args,
    )?;
    Ok(y)
}

/// Adds `by` `[B, 1, C]` to every pixel of `x` `[B, H, W, C]`, a fresh tensor, where it lies; C is a multiple of 8.
pub(super) fn shift(x: &Tensor, by: &Tensor) -> Result<()> {
    let by = by.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let mut threads = Threads::line(height * width * channels / 8);
    threads.grid.1 = batch;
    let args = [at(x)?, at(&by)?, (height * width).into(), channels.into()];
    Gpu::of(x)?.launch((Source::Pointwise, "shift", Some(x.dtype())), threads, &args)
}

/// `softmax(scale * x)` of the rows of `x` `[rows, width]` in f32, as numbers of `dtype`; the width is a multiple of 8.
pub(super) fn softmax(x: &Tensor, scale: f32, dtype: DType) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let y = empty_of(dtype, &[rows, width], x)?;
    let threads = Threads { grid: (rows, 1, 1), block: (256, 1), shared: 0 };
    let args = [at(x)?, at(&y)?, width.into(), scale.into()];
    Gpu::of(x)?.launch((Source::Pointwise, "softmax", Some(dtype)), threads, &args)?;
    Ok(y)
}

/// Terms of a sum, and sums of a launch (the kernel's constants).
const TERMS: usize = 8;
const ROWS: usize = 16;

/// The sums of one launch.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Sums {
    terms: [[u64; TERMS]; ROWS],
    coefficients: [[f32; TERMS]; ROWS],
}

/// For each row the sum of its terms, tensors of one shape `[1, ..]` in f32, each times its coefficient: `[rows, ..]`.
pub(in crate::ops) fn combine(rows: &[Vec<(&Tensor, f64)>]) -> Result<Tensor> {
    let mut parts = Vec::new();
    for rows in rows.chunks(ROWS) {
        let like = rows[0][0].0;
        let mut sums = Sums { terms: [[0; TERMS]; ROWS], coefficients: [[0.0; TERMS]; ROWS] };
        let mut kept = Vec::new();
        for (row, terms) in rows.iter().enumerate() {
            for (at, (term, coefficient)) in terms.iter().filter(|(_, c)| *c != 0.0).enumerate() {
                let term = term.contiguous()?;
                sums.terms[row][at] = address(&term)?;
                sums.coefficients[row][at] = *coefficient as f32;
                kept.push(term);
            }
        }
        let mut shape = like.dims().to_vec();
        shape[0] = rows.len();
        let (y, count) = (empty(&shape, like)?, like.elem_count());
        let mut threads = Threads::line(count);
        threads.grid.1 = rows.len();
        let args = [Arg::Sums(Box::new(sums)), at(&y)?, count.into()];
        Gpu::of(like)?.launch((Source::Pointwise, "combine", None), threads, &args)?;
        parts.push(y);
    }
    if parts.len() == 1 { Ok(parts.swap_remove(0)) } else { Ok(Tensor::cat(&parts, 0)?) }
}

/// Enlarges `[B, H, W, C]` to `size`, height and width, by repeating the nearest pixel; a pixel must be a whole number
/// of 16 bytes.
pub(in crate::ops) fn enlarge(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (batch, height, width, channels) = x.dims4()?;
    let y = empty(&[batch, size.0, size.1, channels], &x)?;
    let runs = channels * x.dtype().size_in_bytes() / 16;
    let sizes = [height.into(), width.into(), size.0.into(), size.1.into(), runs.into()];
    let mut threads = Threads::line(size.0 * size.1 * runs);
    threads.grid.1 = batch;
    Gpu::of(&x)?.launch(
        (Source::Pointwise, "enlarge", None),
        threads,
        &[&[at(&x)?, at(&y)?][..], &sizes].concat(),
    )?;
    Ok(y)
}

/// Numbers in -1..=1 as bytes, rounded to nearest, half way to even; a multiple of four of them.
pub(in crate::ops) fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let x = x.contiguous()?;
    let count = x.elem_count();
    let y = empty_of(DType::U8, &[count], &x)?;
    let args = [at(&x)?, at(&y)?, count.into()];
    Gpu::of(&x)?.launch((Source::Pointwise, "bytes", Some(x.dtype())), Threads::line(count / 4), &args)?;
    Ok(y.to_vec1()?)
}

/// Whether there is a kernel that joins pixels of these widths.
pub(in crate::ops) fn takes_join(a: &Tensor, b: &Tensor) -> Result<bool> {
    let whole =
        |x: &Tensor| Ok::<_, Error>((x.dim(D::Minus1)? * x.dtype().size_in_bytes()).is_multiple_of(16));
    Ok(whole(a)? && whole(b)?)
}

/// The channels of `a` `[.., A]` before those of `b` `[.., B]`; a pixel of either must be a whole number of 16 bytes.
pub(in crate::ops) fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let (left, right) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    let rows = a.elem_count() / left;
    let mut shape = a.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = left + right;
    }
    let y = empty(&shape, &a)?;
    let runs = |channels: usize| channels * a.dtype().size_in_bytes() / 16;
    let sizes = [rows.into(), runs(left).into(), runs(right).into()];
    Gpu::of(&a)?.launch(
        (Source::Pointwise, "join", None),
        Threads::line(rows * runs(left + right)),
        &[&[at(&a)?, at(&b)?, at(&y)?][..], &sizes].concat(),
    )?;
    Ok(y)
}
