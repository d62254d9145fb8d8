//! Products and 3x3 convolutions by our kernel for Hopper, with what follows them done before anything is stored.

use super::boxes::Tiles;
use super::gpu::{Arg, Gpu, Source, Threads, address, empty, empty_of};
use super::map::Map;
use crate::error::{Error, Result};
use candle_core::{D, DType, Tensor};
use cudarc::driver::DeviceRepr;

/// Rows and columns of a tile, and numbers of a row that are fetched at once (the kernel's constants).
pub(super) const ROWS: usize = 128;
pub(super) const COLUMNS: usize = 160;
/// Rows of a group of warps.
pub(super) const GROUP: usize = 64;
const RUN: usize = 64;
/// Columns of a tile where the others do not divide what there is: those of the VAE.
const NARROW: usize = 128;
/// Tiles that are fetched ahead.
const STAGES: usize = 5;
/// Row tiles of a band: with eight column tiles as many as there are processors, so that what runs at once shares most of what
/// it fetches, and few enough that a band's rows stay in the cache while the weights pass.
const BAND: usize = 16;
/// Tiles for each processor from which on blocks work in pairs that share weights. There it spares power, which is what such a
/// GPU is short of; short products take longer by it, for the two wait for each other.
const PAIRED: usize = 7;
/// Parts of a row whose moments the kernel reads, at most.
const PARTS: usize = 8;
/// Columns that a value and its gate lie apart.
const GATE: usize = 8;

/// Weights as the kernel takes them.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    weight: Tensor,  // [outputs, .., inputs], taps between
    columns: Tensor, // [outputs / 2, 4]: biases of two columns, then the sums of their weights, or what split rows have more
    gated: bool,
    across: usize, // columns of a tile
}

/// What a product is followed by, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Follow<'a> {
    /// Rows are normalised, with these moments and this epsilon; weights and biases have the norm's own folded in.
    pub normed: Option<(&'a Tensor, f64)>,
    /// Numbers `[B, 1, outputs]` that are added to all of a picture's pixels.
    pub shift: Option<&'a Tensor>,
    /// A picture that is added.
    pub residual: Option<&'a Tensor>,
    /// Whether the moments of what is made are kept.
    pub measured: bool,
    /// The row from which on columns have more added; with a residual and measured alone.
    pub split: Option<usize>,
}

/// What the kernel is told of sizes; its `Job`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Job {
    depth: i32,
    taps: i32,
    tap_width: i32,
    tap_x: i32,
    tap_y: i32,
    channels: i32,
    wide: i32,
    tall: i32,
    box_x: i32,
    box_y: i32,
    groups: i32,
    row_tiles: i32,
    column_tiles: i32,
    band: i32,
    outputs: i32,
    rows: i32,
    parts: i32,
    split: i32,
    eps: f32,
}

// SAFETY: plain numbers in the order that the kernel declares.
unsafe impl DeviceRepr for Job {}

/// Where the kernel finds what it adds, and leaves what it measures; its `Besides`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Besides {
    columns: u64,
    shift: u64,
    moments: u64,
    moments_out: u64,
}

// SAFETY: four addresses in the order that the kernel declares.
unsafe impl DeviceRepr for Besides {}

/// Whether the kernel takes weights of these sizes.
pub(super) fn takes(gpu: &Gpu, dtype: DType, [outputs, inputs]: [usize; 2]) -> bool {
    let stored = matches!(dtype, DType::F16 | DType::BF16);
    gpu.hopper && stored && outputs.is_multiple_of(COLUMNS) && inputs.is_multiple_of(RUN)
}

/// Whether a convolution with weights of these sizes can be folded into that of an enlarged picture.
pub(super) fn takes_doubled(gpu: &Gpu, dtype: DType, [outputs, inputs]: [usize; 2]) -> bool {
    takes(gpu, dtype, [outputs.next_multiple_of(COLUMNS), inputs])
        && (outputs.is_multiple_of(COLUMNS) || outputs.is_multiple_of(NARROW))
}

/// Columns of a tile of so many outputs.
pub(super) fn across(outputs: usize) -> usize {
    if outputs.is_multiple_of(COLUMNS) { COLUMNS } else { NARROW }
}

/// Whether a product of so many outputs with pixels of these pictures `[B, H, W]` keeps most processors busy most of the time.
pub(super) fn pays(gpu: &Gpu, pictures: [usize; 3], outputs: usize, gated: bool) -> bool {
    let tiles = Tiles::of(gpu, pictures, outputs, gated).count(pictures) * outputs / across(outputs);
    10 * tiles >= 7 * tiles.next_multiple_of(gpu.processors)
}

/// Whether a norm over rows of this many numbers can be made up for behind a product.
pub(super) fn takes_norm(inputs: usize) -> bool {
    inputs.is_multiple_of(COLUMNS) && inputs / COLUMNS <= PARTS
}

/// Rows `[2 * half, ..]` in the order in which the kernel finds values and gates together: eight of either in turn.
pub(super) fn interleaved(x: &Tensor) -> Result<Tensor> {
    let mut runs = vec![2, x.dim(0)? / 2 / GATE, GATE];
    runs.extend(&x.dims()[1..]);
    Ok(x.reshape(runs)?.transpose(0, 1)?.contiguous()?.reshape(x.shape())?)
}

impl Weights {
    /// The kernel's view of `weight` `[outputs, ..]`, a bias `[outputs]`, and the sums of weights or what split rows have more
    /// `[outputs]`; of a gated map's all [`interleaved`].
    pub fn new(weight: &Tensor, [bias, more]: [Option<&Tensor>; 2], gated: bool) -> Result<Self> {
        let outputs = weight.dim(0)?;
        let pairs = |x: Option<&Tensor>| {
            let x = match x {
                Some(x) => x.to_dtype(DType::F32)?,
                None => Tensor::zeros(outputs, DType::F32, weight.device())?,
            };
            Ok::<_, Error>(x.reshape((outputs / 2, 2))?)
        };
        let columns = Tensor::cat(&[pairs(bias)?, pairs(more)?], 1)?;
        // The kernel fetches weights while the work queued before it may still run: nothing there may be what makes them.
        weight.device().synchronize()?;
        Ok(Self { weight: weight.clone(), columns, gated, across: across(outputs) })
    }

    /// Columns of a tile that are left when it is stored.
    fn left(&self) -> usize {
        if self.gated { self.across / 2 } else { self.across }
    }

    /// Whether a product with pixels of these pictures `[B, H, W]` keeps most processors busy most of the time.
    pub fn pays(&self, gpu: &Gpu, pictures: [usize; 3]) -> Result<bool> {
        Ok(pays(gpu, pictures, self.weight.dim(0)?, self.gated))
    }

    /// Maps rows `[.., inputs]` to `[.., outputs]`, half as many if they are gated; and what was measured.
    pub fn map(&self, gpu: &Gpu, x: &Tensor, follow: Follow) -> Result<(Tensor, Option<Tensor>)> {
        let inputs = x.dim(D::Minus1)?;
        let mut shape = x.dims().to_vec();
        let x = x.contiguous()?.reshape((1, 1, x.elem_count() / inputs, inputs))?;
        let (y, moments) = self.fresh(gpu, &x, follow)?;
        if let Some(last) = shape.last_mut() {
            *last = y.dim(3)?;
        }
        Ok((y.reshape(shape)?, moments))
    }

    /// Adds to `sums` `[.., outputs]`, in their place, what [`Weights::map`] makes of `[.., inputs]`, and keeps their moments.
    pub fn map_onto(&self, gpu: &Gpu, x: &Tensor, sums: &Tensor, moments: Option<&Tensor>) -> Result<()> {
        let flat = |x: &Tensor| Ok::<_, Error>(x.reshape((1, 1, (), x.dim(D::Minus1)?))?);
        let (x, y) = (flat(&x.contiguous()?)?, flat(sums)?);
        let follow = Follow { residual: Some(&y), measured: moments.is_some(), ..Follow::default() };
        // A tile is read before it is written, by the same threads.
        self.run(gpu, [&x, &y], [0; 2], (follow, moments))
    }

    /// Convolves `[B, H, W, inputs]` with 1x1 or 3x3 taps, zeros around it: `[B, H, W, outputs]`.
    pub fn convolve(&self, gpu: &Gpu, x: &Tensor, follow: Follow) -> Result<Tensor> {
        Ok(self.fresh(gpu, &x.contiguous()?, follow)?.0)
    }

    fn fresh(&self, gpu: &Gpu, x: &Tensor, follow: Follow) -> Result<(Tensor, Option<Tensor>)> {
        let (batch, height, width, inputs) = x.dims4()?;
        let outputs = self.weight.dim(0)? / if self.gated { 2 } else { 1 };
        let y = empty(&[batch, height, width, outputs], x)?;
        let from = if self.weight.elem_count() / self.weight.dim(0)? == inputs { 0 } else { -1 };
        let kept = [batch * height * width, outputs / COLUMNS, 2];
        let moments = follow.measured.then(|| empty_of(DType::F32, &kept, x)).transpose()?;
        self.run(gpu, [x, &y], [from; 2], (follow, moments.as_ref()))?;
        Ok((y, moments))
    }

    /// Fills `y`, and the moments if they are measured, with products of the pixels of `x` that lie, for its first tap, so far
    /// off: down, across.
    fn run(
        &self,
        gpu: &Gpu,
        [x, y]: [&Tensor; 2],
        from: [i32; 2],
        (follow, moments): (Follow, Option<&Tensor>),
    ) -> Result<()> {
        let (batch, height, width, _) = x.dims4()?;
        let tiles = Tiles::of(gpu, [batch, height, width], self.weight.dim(0)?, self.gated);
        let job = self.job(x, from, tiles, follow)?;
        let count = (job.row_tiles * job.column_tiles) as usize;
        // What follows a convolution is short beside its products: there is nothing to gain by hiding it.
        let hides = self.gated || count > gpu.processors && job.taps == 1;
        let ([halves, turns], paired) = self.kernels(follow)?;
        let paired = paired.filter(|_| hides && job.row_tiles % 2 == 0 && count >= PAIRED * gpu.processors);
        let residual = follow.residual.map(|x| x.contiguous()?.reshape(y.shape())).transpose()?;
        let shift = follow.shift.map(Tensor::contiguous).transpose()?;
        let at = |x: Option<&Tensor>| x.map_or(Ok(0), address);
        let besides = Besides {
            columns: address(&self.columns)?,
            shift: at(shift.as_ref())?,
            moments: at(follow.normed.map(|(moments, _)| moments))?,
            moments_out: at(moments)?,
        };
        let part = tiles.part();
        let stored = [if self.gated { 16 } else { 32 }, part.across, part.down];
        let args = [
            Arg::Map(Map::pictures(x, [RUN, tiles.across, tiles.down])?),
            Arg::Map(Map::weights(
                &self.weight,
                if paired.is_some() { self.across / 2 } else { self.across },
            )?),
            Arg::Map(Map::pictures(y, stored)?),
            Arg::Map(Map::pictures(residual.as_ref().unwrap_or(y), stored)?),
            Arg::Job(job),
            Arg::Besides(besides),
        ];
        let blocks = count.min(gpu.processors);
        let grid = (if paired.is_some() { blocks / 2 * 2 } else { blocks }, 1, 1);
        let threads = Threads { grid, block: (384, 1), shared: self.shared() };
        let kernel = |name| (Source::Product, name, Some(x.dtype()));
        match paired {
            Some(paired) => gpu.launch_pairs(kernel(paired), threads, &args),
            None => gpu.launch_early(kernel(if hides { turns } else { halves }), threads, &args),
        }
    }

    fn job(&self, x: &Tensor, from: [i32; 2], tiles: Tiles, follow: Follow) -> Result<Job> {
        let ((batch, height, width, inputs), outputs) = (x.dims4()?, self.weight.dim(0)?);
        let taps = self.weight.elem_count() / outputs / inputs;
        let rows = batch * height * width;
        Ok(Job {
            depth: inputs.div_ceil(RUN) as i32,
            taps: taps as i32,
            tap_width: taps.isqrt() as i32,
            tap_x: from[1],
            tap_y: from[0],
            channels: inputs as i32,
            wide: width.div_ceil(tiles.across) as i32,
            tall: height.div_ceil(tiles.down) as i32,
            box_x: tiles.across as i32,
            box_y: tiles.down as i32,
            groups: (tiles.rows() / GROUP) as i32,
            row_tiles: tiles.count([batch, height, width]) as i32,
            column_tiles: (outputs / self.across) as i32,
            band: BAND as i32,
            outputs: outputs as i32,
            rows: rows as i32,
            parts: (inputs / COLUMNS) as i32,
            split: follow.split.unwrap_or(rows) as i32,
            eps: follow.normed.map_or(0.0, |(_, eps)| eps as f32),
        })
    }

    /// The kernels that do all of `follow`: with groups of warps that share tiles, for one tile a processor; with groups that take
    /// tiles by turns; and with blocks in pairs besides, if there is one.
    fn kernels(&self, follow: Follow) -> Result<([&'static str; 2], Option<&'static str>)> {
        let Follow { normed, shift, residual, measured, split } = follow;
        if split.is_some() && !(residual.is_some() && measured) {
            return Err(Error::internal("no kernel splits rows behind such a product"));
        }
        if self.across == NARROW {
            let bare = normed.is_none() && shift.is_none() && residual.is_none() && !measured;
            return if bare {
                Ok((["multiply_narrow_turns"; 2], None))
            } else {
                Err(Error::internal("narrow tiles are bare"))
            };
        }
        macro_rules! ways {
            ($halves:literal, $name:literal) => {
                (
                    [concat!("multiply_", $halves), concat!("multiply_", $name, "_turns")],
                    Some(concat!("multiply_", $name, "_pairs")),
                )
            };
        }
        match (self.gated, normed.is_some(), shift.is_some(), residual.is_some(), measured) {
            (true, true, false, false, false) => Ok(ways!("normed_gated_turns", "normed_gated")),
            (true, false, false, false, false) => Ok(ways!("gated_turns", "gated")),
            (false, true, false, false, false) => Ok(ways!("normed_halves", "normed")),
            (false, false, true, false, false) => Ok((["multiply_shifted_halves"; 2], None)),
            (false, false, false, true, true) => Ok(ways!("added_measured_halves", "added_measured")),
            (false, false, false, true, false) => Ok(ways!("added_halves", "added")),
            (false, false, false, false, true) => Ok(ways!("measured_halves", "measured")),
            (false, false, false, false, false) => Ok(ways!("plain_halves", "plain")),
            _ => Err(Error::internal("no kernel does all of this behind a product")),
        }
    }

    /// Tiles begin at 1024 bytes; stages of rows and weights, then what is stored, then what either group keeps of its columns:
    /// two numbers of f32 and what shifts each of them.
    fn shared(&self) -> usize {
        let kept = self.across * (2 * size_of::<f32>() + 2);
        1024 + STAGES * (ROWS + self.across) * RUN * 2 + ROWS * self.left() * 2 + 2 * kept
    }
}

/// A 3x3 convolution of a picture of twice the height and width, each of whose pixels is repeated four times: what falls on
/// the same pixel is summed in the weights. Of the pixels made, those of even and of odd lines and columns are a convolution
/// with 2x2 taps each, with four ninths of the arithmetic.
#[derive(Debug, Clone)]
pub(super) struct Doubled {
    phases: Vec<Weights>, // even lines' even columns, their odd ones, then those of odd lines
}

impl Doubled {
    /// The convolution of `weight` `[outputs, 3, 3, inputs]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let wide = weight.to_dtype(DType::F32)?;
        let folded = |x: &Tensor, axis: usize, odd: bool| {
            let (alone, shared) = if odd { (2, 0) } else { (0, 1) };
            let alone = x.narrow(axis, alone, 1)?;
            let shared = (x.narrow(axis, shared, 1)? + x.narrow(axis, shared + 1, 1)?)?;
            Tensor::cat(&if odd { [shared, alone] } else { [alone, shared] }, axis)
        };
        let phases = [(false, false), (false, true), (true, false), (true, true)].map(|(line, column)| {
            let folded = folded(&folded(&wide, 1, line)?, 2, column)?.to_dtype(weight.dtype())?;
            Weights::new(&folded.contiguous()?, [Some(bias), None], false)
        });
        Ok(Self { phases: phases.into_iter().collect::<Result<_>>()? })
    }

    /// Convolves `[B, H, W, inputs]` as if it were enlarged: `[B, 2 H, 2 W, outputs]`.
    pub fn convolve(&self, gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        let (batch, height, width, _) = x.dims4()?;
        let outputs = self.phases[0].weight.dim(0)?;
        let y = empty(&[batch, 2 * height, 2 * width, outputs], &x)?;
        let apart = y.reshape(&[batch, height, 2, width, 2, outputs][..])?;
        for (phase, weights) in self.phases.iter().enumerate() {
            let (line, column) = (phase / 2, phase % 2);
            let part = apart.narrow(2, line, 1)?.narrow(4, column, 1)?.squeeze(4)?.squeeze(2)?;
            let from = [line as i32 - 1, column as i32 - 1];
            weights.run(gpu, [&x, &part], from, (Follow::default(), None))?;
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, gpu, rounded, scaled, there, weights};
    use super::*;
    use crate::ops::{ConvShape, NormSource, NormedGated, NormedLinears, Rows, reference};
    use candle_core::Device;

    /// Roundings of operands and one of the result.
    const TYPES: [(DType, f32); 2] = [(DType::F16, 2e-3), (DType::BF16, 1.5e-2)];

    fn moments_of(x: &Tensor) -> Tensor {
        let (rows, channels) = x.dims2().unwrap();
        let parts = x.reshape((rows, channels / COLUMNS, COLUMNS)).unwrap();
        let mean = parts.mean_keepdim(2).unwrap();
        let squares = parts.broadcast_sub(&mean).unwrap().sqr().unwrap().sum_keepdim(2).unwrap();
        Tensor::cat(&[mean, squares], 2).unwrap()
    }

    #[test]
    fn products_and_what_follows_them_are_those_of_the_reference() {
        let device = gpu();
        for (dtype, bound) in TYPES {
            for (rows, inputs, outputs) in [
                (1, 64, 160),
                (300, 128, 320),
                (1000, 640, 480),
                (2000, 320, 960),
                (3000, 320, 1120),
                (16_800, 64, 1120),
            ] {
                let what = format!("{dtype:?} {rows}x{inputs} to {outputs}");
                let (weight, bias) = (scaled(&[outputs, inputs], 1, dtype), rounded(&[outputs], 2, dtype));
                let (x, more) =
                    (rounded(&[1, rows, inputs], 3, dtype), rounded(&[1, rows, outputs], 4, dtype));
                let on = |x: &Tensor| there(x, dtype, &device);
                let tiles = Weights::new(&on(&weight), [Some(&on(&bias)), None], false).unwrap();
                let want = reference::Linear::new(weight, Some(bias)).forward(&x).unwrap();
                let (x, residual) = (on(&x), on(&more));
                let gpu = Gpu::of(&x).unwrap();
                let (got, none) = tiles.map(gpu, &x, Follow::default()).unwrap();
                assert!(none.is_none());
                assert_near(&what, &got, &want, bound);
                let follow = Follow { residual: Some(&residual), ..Follow::default() };
                assert_near(&what, &tiles.map(gpu, &x, follow).unwrap().0, &(&want + &more).unwrap(), bound);
                for residual in [None, Some(&residual)] {
                    let follow = Follow { residual, measured: true, ..Follow::default() };
                    let (got, moments) = tiles.map(gpu, &x, follow).unwrap();
                    let got = got.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
                    let want = moments_of(&got.squeeze(0).unwrap());
                    assert_near(&what, &moments.unwrap(), &want, 1e-5);
                }
            }
        }
    }

    #[test]
    fn maps_behind_a_norm_are_those_of_the_reference_even_far_from_zero() {
        let device = gpu();
        for (dtype, bound) in TYPES {
            for (rows, offset) in [(3000, 0.0), (3000, 20.0), (14_800, 20.0)] {
                let what = format!("{dtype:?}, {rows} rows from {offset}");
                let (inputs, width) = (320, 640);
                let near = |x: Tensor| ((x * 0.5).unwrap() + 1.0).unwrap().to_dtype(dtype).unwrap();
                let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
                let (factors, summands) =
                    (wide(&near(rounded(&[inputs], 1, dtype))), rounded(&[inputs], 2, dtype));
                let (weight, bias) =
                    (scaled(&[2 * width, inputs], 3, dtype), rounded(&[2 * width], 4, dtype));
                let norm_vb = weights(&[("weight", &factors), ("bias", &summands)], dtype, &device);
                let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, &device);
                // Rows whose moments are known, made by a map that leaves them as they are but for what is added.
                let same = Tensor::eye(inputs, DType::F32, &Device::Cpu).unwrap();
                let shift = Tensor::full(offset as f32, inputs, &Device::Cpu).unwrap();
                let x = rounded(&[1, rows, inputs], 5, dtype);
                let tiles = Weights::new(
                    &there(&same, dtype, &device),
                    [Some(&shift.to_device(&device).unwrap()), None],
                    false,
                )
                .unwrap();
                let x = there(&x, dtype, &device);
                let follow = Follow { measured: true, ..Follow::default() };
                let measured = tiles.map(Gpu::of(&x).unwrap(), &x, follow).unwrap();
                let seen = wide(&measured.0.to_device(&Device::Cpu).unwrap());
                let rows = Rows::measured(measured);
                let want =
                    reference::LayerNorm::new(&factors, &summands, 1e-5).unwrap().forward(&seen).unwrap();
                let want = reference::Linear::new(weight, Some(bias)).forward(&want).unwrap();
                let norm = NormSource { vb: &norm_vb, channels: inputs, eps: 1e-5 };
                let gated = NormedGated::load(norm, &vb, width).unwrap();
                let by_gate = reference::geglu(&want).unwrap();
                assert_near(&what, &gated.forward(&rows).unwrap(), &by_gate, 2.0 * bound);
                let plain = Rows::plain(rows.values().clone());
                assert_near(&what, &gated.forward(&plain).unwrap(), &by_gate, 2.0 * bound);
                let unbiased = want.broadcast_sub(&wide(
                    &vb.get(2 * width, "bias").unwrap().to_device(&Device::Cpu).unwrap(),
                ));
                let linears = NormedLinears::load_no_bias(norm, &[vb], 2 * width).unwrap();
                let got = linears.forward(&rows).unwrap();
                assert_near(&what, &got[0], &unbiased.unwrap(), bound);
            }
        }
    }

    #[test]
    fn enlarged_pictures_are_convolved_as_if_they_were_written_out() {
        let device = gpu();
        for (dtype, bound) in TYPES {
            for (height, width) in [(1, 1), (5, 19), (5, 190), (32, 32), (40, 66), (160, 192)] {
                let what = format!("{dtype:?} {height}x{width}");
                let (inputs, outputs) = (64, if height == 5 { 256 } else { 320 });
                let (weight, bias) =
                    (scaled(&[outputs, inputs, 3, 3], 1, dtype), rounded(&[outputs], 2, dtype));
                let x = rounded(&[2, height, width, inputs], 3, dtype);
                let large = x.reshape(&[2, height, 1, width, 1, inputs][..]).unwrap();
                let large = large.broadcast_as(&[2, height, 2, width, 2, inputs][..]).unwrap().contiguous();
                let large = large.unwrap().reshape((2, 2 * height, 2 * width, inputs)).unwrap();
                let shape = ConvShape::same3(inputs, outputs);
                let want = reference::Conv2d::new(&weight, &bias, shape).unwrap().forward(&large).unwrap();
                let on = |x: &Tensor| there(x, dtype, &device);
                let last = on(&weight.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap());
                let x = on(&x);
                let got =
                    Doubled::new(&last, &on(&bias)).unwrap().convolve(Gpu::of(&x).unwrap(), &x).unwrap();
                assert_near(&what, &got, &want, bound);
            }
        }
    }

    #[test]
    fn convolutions_are_those_of_the_reference_whatever_the_picture() {
        let device = gpu();
        for (dtype, bound) in TYPES {
            for (height, width) in [(1, 1), (5, 3), (18, 36), (32, 32), (9, 200), (40, 130), (160, 192)] {
                let what = format!("{dtype:?} {height}x{width}");
                let (inputs, outputs) = (128, 320);
                let (weight, bias) =
                    (scaled(&[outputs, inputs, 3, 3], 1, dtype), rounded(&[outputs], 2, dtype));
                let (x, more) = (
                    rounded(&[2, height, width, inputs], 3, dtype),
                    rounded(&[2, height, width, outputs], 4, dtype),
                );
                let by = rounded(&[2, 1, outputs], 5, dtype);
                let shape = ConvShape::same3(inputs, outputs);
                let want = reference::Conv2d::new(&weight, &bias, shape).unwrap();
                let want = want.forward(&x).unwrap();
                let on = |x: &Tensor| there(x, dtype, &device);
                let last = on(&weight.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap());
                let tiles = Weights::new(&last, [Some(&on(&bias)), None], false).unwrap();
                let (x, residual, shift) = (on(&x), on(&more), on(&by));
                let gpu = Gpu::of(&x).unwrap();
                let run = |follow| tiles.convolve(gpu, &x, follow).unwrap();
                assert_near(&what, &run(Follow::default()), &want, bound);
                let follow = Follow { residual: Some(&residual), ..Follow::default() };
                assert_near(&what, &run(follow), &(&want + &more).unwrap(), bound);
                let follow = Follow { shift: Some(&shift), ..Follow::default() };
                let shifted = want.broadcast_add(&by.unsqueeze(1).unwrap()).unwrap();
                assert_near(&what, &run(follow), &shifted, bound);
            }
        }
    }
}
