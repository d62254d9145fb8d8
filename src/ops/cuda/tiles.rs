//! Products and 3x3 convolutions by our kernel for Hopper, with what follows them done before anything is stored.

use super::gpu::{Arg, Gpu, Source, Threads, address, empty, empty_of};
use super::map::Map;
use crate::error::{Error, Result};
use candle_core::{D, DType, Tensor};
use cudarc::driver::DeviceRepr;

/// Columns of a tile, without and with a gate (the kernel's constants).
const COLUMNS: usize = 160;
const GATED_COLUMNS: usize = 256;
/// Rows of a tile, and numbers of a row that are fetched at once.
const ROWS: usize = 128;
const RUN: usize = 64;
/// Columns that are stored at once.
const CHUNK: usize = 32;
/// Parts of a row whose moments the kernel reads, at most.
const PARTS: usize = 8;
/// Columns that a value and its gate lie apart.
const GATE: usize = 8;

/// Weights as the kernel takes them.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    weight: Tensor,  // [outputs, taps * inputs]
    columns: Tensor, // [outputs / 2, 4]: biases of two columns, then the sums of their weights
    gated: bool,
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
    row_tiles: i32,
    column_tiles: i32,
    outputs: i32,
    rows: i32,
    parts: i32,
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
pub(super) fn takes(gpu: &Gpu, dtype: DType, [outputs, inputs]: [usize; 2], gated: bool) -> bool {
    let columns = if gated { GATED_COLUMNS } else { COLUMNS };
    let stored = matches!(dtype, DType::F16 | DType::BF16);
    gpu.hopper && stored && outputs.is_multiple_of(columns) && inputs.is_multiple_of(RUN)
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
    /// The kernel's view of `weight` `[outputs, ..]`, a bias `[outputs]` and the sums of weights `[outputs]`, both f32; of a
    /// gated map's all [`interleaved`].
    pub fn new(weight: &Tensor, [bias, sums]: [Option<&Tensor>; 2], gated: bool) -> Result<Self> {
        let outputs = weight.dim(0)?;
        let pairs = |x: Option<&Tensor>| {
            let x = match x {
                Some(x) => x.to_dtype(DType::F32)?,
                None => Tensor::zeros(outputs, DType::F32, weight.device())?,
            };
            Ok::<_, Error>(x.reshape((outputs / 2, 2))?)
        };
        let columns = Tensor::cat(&[pairs(bias)?, pairs(sums)?], 1)?;
        Ok(Self { weight: weight.clone(), columns, gated })
    }

    fn tile_columns(&self) -> usize {
        if self.gated { GATED_COLUMNS } else { COLUMNS }
    }

    /// Whether a product with pixels of these pictures `[B, H, W]` keeps most processors busy most of the time.
    pub fn pays(&self, gpu: &Gpu, pictures: [usize; 3]) -> Result<bool> {
        let tiles = Tiles::of(pictures).count(pictures) * self.weight.dim(0)? / self.tile_columns();
        Ok(10 * tiles >= 7 * tiles.next_multiple_of(gpu.processors))
    }

    /// Maps rows `[.., inputs]` to `[.., outputs]`, half as many if they are gated; and what was measured.
    pub fn map(&self, gpu: &Gpu, x: &Tensor, follow: Follow) -> Result<(Tensor, Option<Tensor>)> {
        let inputs = x.dim(D::Minus1)?;
        let y = self.run(gpu, x, [1, 1, x.elem_count() / inputs, inputs], follow)?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = y.0.dim(3)?;
        }
        Ok((y.0.reshape(shape)?, y.1))
    }

    /// Convolves `[B, H, W, inputs]` with 3x3 taps, zeros around it: `[B, H, W, outputs]`.
    pub fn convolve(&self, gpu: &Gpu, x: &Tensor, follow: Follow) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        Ok(self.run(gpu, x, [batch, height, width, channels], follow)?.0)
    }

    fn run(
        &self,
        gpu: &Gpu,
        x: &Tensor,
        sizes: [usize; 4],
        follow: Follow,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let [batch, height, width, inputs] = sizes;
        let (x, outputs) = (x.contiguous()?, self.weight.dim(0)?);
        let taps = self.weight.elem_count() / outputs / inputs;
        let tiles = Tiles::of([batch, height, width]);
        let made = [batch, height, width, if self.gated { outputs / 2 } else { outputs }];
        let y = empty(&made, &x)?;
        let job = self.job(sizes, taps, tiles, follow);
        let kept = [job.rows as usize, job.column_tiles as usize, 2];
        let moments = follow.measured.then(|| empty_of(DType::F32, &kept, &x)).transpose()?;
        let residual = follow.residual.map(Tensor::contiguous).transpose()?;
        let shift = follow.shift.map(Tensor::contiguous).transpose()?;
        let at = |x: Option<&Tensor>| x.map_or(Ok(0), address);
        let besides = Besides {
            columns: address(&self.columns)?,
            shift: at(shift.as_ref())?,
            moments: at(follow.normed.map(|(moments, _)| moments))?,
            moments_out: at(moments.as_ref())?,
        };
        let half = tiles.half();
        let args = [
            Arg::Map(Map::pictures(&x, sizes, [RUN, tiles.across, tiles.down])?),
            Arg::Map(Map::weights(&self.weight, self.tile_columns())?),
            Arg::Map(Map::pictures(&y, made, [CHUNK, half.across, half.down])?),
            Arg::Map(Map::pictures(residual.as_ref().unwrap_or(&y), made, [CHUNK, half.across, half.down])?),
            Arg::Job(job),
            Arg::Besides(besides),
        ];
        let grid = (job.row_tiles * job.column_tiles) as usize;
        let threads =
            Threads { grid: (grid.min(gpu.processors), 1, 1), block: (384, 1), shared: self.shared() };
        gpu.launch_early((Source::Product, self.kernel(follow)?, Some(x.dtype())), threads, &args)?;
        Ok((y, moments))
    }

    fn job(
        &self,
        [batch, height, width, inputs]: [usize; 4],
        taps: usize,
        tiles: Tiles,
        follow: Follow,
    ) -> Job {
        let side = if taps == 9 { 3 } else { 1 };
        let outputs = self.columns.elem_count() / 2;
        Job {
            depth: inputs.div_ceil(RUN) as i32,
            taps: taps as i32,
            tap_width: side,
            tap_x: -(side / 2),
            tap_y: -(side / 2),
            channels: inputs as i32,
            wide: width.div_ceil(tiles.across) as i32,
            tall: height.div_ceil(tiles.down) as i32,
            box_x: tiles.across as i32,
            box_y: tiles.down as i32,
            row_tiles: tiles.count([batch, height, width]) as i32,
            column_tiles: (outputs / self.tile_columns()) as i32,
            outputs: outputs as i32,
            rows: (batch * height * width) as i32,
            parts: (inputs / COLUMNS) as i32,
            eps: follow.normed.map_or(0.0, |(_, eps)| eps as f32),
        }
    }

    /// The kernel that does all of `follow`.
    fn kernel(&self, follow: Follow) -> Result<&'static str> {
        let Follow { normed, shift, residual, measured } = follow;
        match (self.gated, normed.is_some(), shift.is_some(), residual.is_some(), measured) {
            (true, true, false, false, false) => Ok("multiply_normed_gated"),
            (true, false, false, false, false) => Ok("multiply_gated"),
            (false, true, false, false, false) => Ok("multiply_normed"),
            (false, false, true, false, false) => Ok("multiply_shifted"),
            (false, false, false, true, true) => Ok("multiply_added_measured"),
            (false, false, false, true, false) => Ok("multiply_added"),
            (false, false, false, false, true) => Ok("multiply_measured"),
            (false, false, false, false, false) => Ok("multiply_plain"),
            _ => Err(Error::internal("no kernel does all of this behind a product")),
        }
    }

    /// Tiles begin at 1024 bytes; stages of rows and weights, then what two groups of warps store.
    fn shared(&self) -> usize {
        let (stages, stored) = if self.gated { (4, GATED_COLUMNS / 2) } else { (5, COLUMNS) };
        1024 + stages * (ROWS + self.tile_columns()) * RUN * 2 + ROWS * stored * 2
    }
}

/// Pixels of a tile: a box that divides pictures with little left over.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    across: usize,
    down: usize,
}

impl Tiles {
    fn of([batch, height, width]: [usize; 3]) -> Self {
        let shapes = [1, 2, 4, 8].map(|down| Self { across: ROWS / down, down });
        let best = shapes.into_iter().min_by_key(|tiles| tiles.count([batch, height, width]));
        best.expect("there are four shapes")
    }

    fn count(self, [batch, height, width]: [usize; 3]) -> usize {
        batch * height.div_ceil(self.down) * width.div_ceil(self.across)
    }

    /// What one of two groups of warps makes of it.
    fn half(self) -> Self {
        match self.down {
            1 => Self { across: self.across / 2, down: 1 },
            down => Self { across: self.across, down: down / 2 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, gpu, rounded, there, weights};
    use super::*;
    use crate::ops::{ConvShape, NormSource, NormedGated, NormedLinears, Rows, reference};
    use candle_core::Device;

    /// Roundings of operands and one of the result.
    const TYPES: [(DType, f32); 2] = [(DType::F16, 2e-3), (DType::BF16, 1.5e-2)];

    fn scaled(shape: &[usize], seed: u32, dtype: DType) -> Tensor {
        let inputs: usize = shape[1..].iter().product();
        let weight = (rounded(shape, seed, dtype) / (inputs as f64).sqrt()).unwrap();
        weight.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
    }

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
            for (rows, inputs, outputs) in
                [(1, 64, 160), (300, 128, 320), (1000, 640, 480), (2048, 1280, 1280)]
            {
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
            for offset in [0.0, 20.0] {
                let what = format!("{dtype:?} from {offset}");
                let (rows, inputs, width) = (3000, 320, 640);
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
    fn convolutions_are_those_of_the_reference_whatever_the_picture() {
        let device = gpu();
        for (dtype, bound) in TYPES {
            for (height, width) in [(1, 1), (5, 3), (18, 36), (32, 32), (9, 200)] {
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
