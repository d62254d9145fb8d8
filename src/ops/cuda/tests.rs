//! The kernels against the reference. They need a GPU: a program built with CUDA does not even start without a driver.

use super::gpu::open;
use crate::error::Result;
use crate::ops::testing::random;
use crate::ops::{
    Activation, Attention, Conv2d, ConvShape, GatedLinear, GroupNorm, Kept, LayerNorm, Linear, Linears, Mask,
    NormSource, NormedLinears, Padding, Replay, Rows, SplitLinear, bytes, join, reference, silu,
};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use std::collections::HashMap;

/// The types of activations, each with how far a result may be off, relative to the greatest magnitude: some roundings of
/// operands and one of the result.
const TYPES: [(DType, f32); 3] = [(DType::F32, 1e-5), (DType::F16, 2e-3), (DType::BF16, 1.5e-2)];

pub(super) fn gpu() -> Device {
    open(0).expect("these tests need a GPU")
}

/// Numbers that a tensor of `dtype` holds exactly, as f32.
pub(super) fn rounded(shape: &[usize], seed: u32, dtype: DType) -> Tensor {
    random(shape, seed).to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
}

/// [`rounded`] weights `[outputs, ..]` whose products stay as large as what they are multiplied with.
pub(super) fn scaled(shape: &[usize], seed: u32, dtype: DType) -> Tensor {
    let inputs: usize = shape[1..].iter().product();
    let weight = (rounded(shape, seed, dtype) / (inputs as f64).sqrt()).unwrap();
    weight.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
}

pub(super) fn there(x: &Tensor, dtype: DType, device: &Device) -> Tensor {
    x.to_dtype(dtype).unwrap().to_device(device).unwrap()
}

pub(super) fn weights(named: &[(&str, &Tensor)], dtype: DType, device: &Device) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> =
        named.iter().map(|(name, tensor)| ((*name).to_owned(), there(tensor, dtype, device))).collect();
    VarBuilder::from_tensors(tensors, dtype, device)
}

#[track_caller]
pub(super) fn assert_near(what: &str, got: &Tensor, want: &Tensor, bound: f32) {
    let values = |x: &Tensor| {
        let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (values(got), values(want));
    let scale = want.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let worst = got.iter().zip(&want).fold(0f32, |most, (a, b)| {
        assert!(a.is_finite(), "{what}: a value is not finite");
        most.max((a - b).abs())
    });
    assert!(worst <= bound * scale, "{what}: off by {:e} relative, {bound:e} allowed", worst / scale);
}

#[test]
fn linear_maps_are_those_of_the_reference() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        for (rows, inputs, outputs) in
            [(1, 1, 1), (3, 7, 5), (77, 64, 192), (300, 1600, 40), (512, 640, 1280)]
        {
            let what = format!("{dtype:?} {rows}x{inputs} to {outputs}");
            let weight = scaled(&[outputs, inputs], 1, dtype);
            let bias = rounded(&[outputs], 2, dtype);
            let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, &device);
            let (x, residual) =
                (rounded(&[2, rows, inputs], 3, dtype), rounded(&[2, rows, outputs], 4, dtype));
            let want = reference::Linear::new(weight, Some(bias)).forward(&x).unwrap();
            let linear = Linear::load(&vb, inputs, outputs).unwrap();
            let x = there(&x, dtype, &device);
            assert_near(&what, &linear.forward(&x).unwrap(), &want, bound);
            let got = linear.forward_add(&x, &there(&residual, dtype, &device)).unwrap();
            assert_near(&what, &got, &(want + residual).unwrap(), bound);
        }
    }
}

/// The largest distance of `got` from `want` in units of the last place that `dtype` stores `size` with, less 2^-17 of the
/// greatest number, by which sums in f32 may be off.
fn last_places(got: &Tensor, want: &Tensor, size: &Tensor, dtype: DType) -> f32 {
    let values = |x: &Tensor| {
        let x = x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let digits = if dtype == DType::F16 { 10.0 } else { 7.0 };
    let (got, want, size) = (values(got), values(want), values(size));
    let slack = want.iter().fold(0f32, |most, value| most.max(value.abs())) * 2f32.powi(-17);
    let place = |value: f32| (value.abs().max(f32::MIN_POSITIVE).log2().floor() - digits).exp2();
    let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs() - slack);
    off.zip(&size).fold(0f32, |most, (off, size)| most.max(off / place(*size)))
}

/// A product with its bias is rounded once, when it is stored. With a residual the library may round the sum before it adds
/// the bias as well (it does for rows of 12 numbers), so that two halves of a last place are allowed, of the greater of both
/// sums.
#[test]
fn linear_maps_round_products_once_and_sums_at_most_twice() {
    let device = gpu();
    for dtype in [DType::F16, DType::BF16] {
        for (rows, inputs, outputs) in [(77, 12, 36), (77, 72, 24), (77, 2048, 1280), (300, 5120, 640)] {
            let what = format!("{dtype:?} {rows}x{inputs} to {outputs}");
            let weight = scaled(&[outputs, inputs], 1, dtype);
            let bias = rounded(&[outputs], 2, dtype);
            let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, &device);
            let (x, residual) =
                (rounded(&[1, rows, inputs], 3, dtype), rounded(&[1, rows, outputs], 4, dtype));
            let want = reference::Linear::new(weight, Some(bias.clone())).forward(&x).unwrap();
            let linear = Linear::load(&vb, inputs, outputs).unwrap();
            let x = there(&x, dtype, &device);
            let plain = last_places(&linear.forward(&x).unwrap(), &want, &want, dtype);
            let sum = (&want + &residual).unwrap();
            let unbiased = sum.broadcast_sub(&bias).unwrap();
            let greater = sum.abs().unwrap().maximum(&unbiased.abs().unwrap()).unwrap();
            let got = linear.forward_add(&x, &there(&residual, dtype, &device)).unwrap();
            let added = last_places(&got, &sum, &greater, dtype);
            println!("{what}: {plain:.3} last places, with a residual {added:.3}");
            assert!(plain <= 0.5 && added <= 1.0, "{what}: {plain}, with a residual {added}");
        }
    }
}

#[test]
fn channels_are_joined_in_order() {
    let device = gpu();
    for (dtype, left, right) in [(DType::F16, 24, 40), (DType::F32, 4, 8), (DType::BF16, 5, 3)] {
        let (a, b) = (rounded(&[2, 3, 5, left], 1, dtype), rounded(&[2, 3, 5, right], 2, dtype));
        let want = Tensor::cat(&[&a, &b], D::Minus1).unwrap();
        let got = join(&there(&a, dtype, &device), &there(&b, dtype, &device)).unwrap();
        assert_near("joined", &got, &want, 0.0);
    }
}

#[test]
fn gated_and_joined_maps_are_those_of_the_reference() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        let (inputs, outputs) = (64, 48);
        let weight = (rounded(&[2 * outputs, inputs], 1, dtype) * 0.25).unwrap();
        let bias = rounded(&[2 * outputs], 2, dtype);
        let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, &device);
        let x = rounded(&[2, 33, inputs], 3, dtype);
        let whole = reference::Linear::new(weight.clone(), Some(bias)).forward(&x).unwrap();
        let want = reference::geglu(&whole).unwrap();
        let x_there = there(&x, dtype, &device);
        let got = GatedLinear::load(&vb, inputs, outputs).unwrap().forward(&x_there).unwrap();
        assert_near("gated", &got, &want, 2.0 * bound);
        let halves = [0, outputs].map(|from| weight.narrow(0, from, outputs).unwrap());
        let vbs = halves.each_ref().map(|half| weights(&[("weight", half)], dtype, &device));
        let joined = Linears::load_no_bias(&vbs, inputs, outputs).unwrap().forward(&x_there, None).unwrap();
        for (got, half) in joined.iter().zip(halves) {
            assert_near("joined", got, &reference::Linear::new(half, None).forward(&x).unwrap(), bound);
        }
    }
}

fn conv_pair(shape: ConvShape, dtype: DType, device: &Device) -> (Conv2d, reference::Conv2d) {
    let ConvShape { inputs, outputs, kernel, .. } = shape;
    let spread = ((inputs * kernel * kernel) as f64).sqrt();
    let weight = (random(&[outputs, inputs, kernel, kernel], 1) / spread).unwrap();
    let weight = weight.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
    let bias = rounded(&[outputs], 2, dtype);
    let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, device);
    (Conv2d::load(&vb, shape).unwrap(), reference::Conv2d::new(&weight, &bias, shape).unwrap())
}

#[test]
fn convolutions_are_those_of_the_reference() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        for shape in [
            ConvShape::same3(4, 32),
            ConvShape::same3(48, 3),
            ConvShape::same3(20, 33),
            ConvShape::same3(96, 64),
            ConvShape::pointwise(40, 64),
            ConvShape::halving(16, Padding::Same(1)),
            ConvShape::halving(24, Padding::BottomRight),
        ] {
            let (conv, plain) = conv_pair(shape, dtype, &device);
            for (height, width) in [(2, 2), (9, 7), (16, 24)] {
                let what = format!("{dtype:?} {shape:?} {height}x{width}");
                let x = rounded(&[2, height, width, shape.inputs], 3, dtype);
                let want = plain.forward(&x).unwrap();
                let x = there(&x, dtype, &device);
                assert_near(&what, &conv.forward(&x).unwrap(), &want, bound);
                let residual = rounded(want.dims(), 4, dtype);
                let got = conv.forward_add(&x, &there(&residual, dtype, &device)).unwrap();
                assert_near(&what, &got, &(&want + residual).unwrap(), bound);
                let shift = rounded(&[2, 1, shape.outputs], 5, dtype);
                let got = conv.forward_shifted(&x, &there(&shift, dtype, &device)).unwrap();
                let want = want.broadcast_add(&shift.unsqueeze(1).unwrap()).unwrap();
                assert_near(&what, &got, &want, bound);
            }
        }
    }
}

#[test]
fn an_enlarged_picture_is_convolved_as_if_it_were_written_out() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        let (conv, plain) = conv_pair(ConvShape::same3(16, 8), dtype, &device);
        for ((height, width), to) in [((3, 4), (6, 8)), ((3, 5), (5, 9)), ((4, 4), (4, 4))] {
            let x = rounded(&[2, height, width, 16], 3, dtype);
            let want = plain.forward(&reference::nearest(&x, to.0, to.1).unwrap()).unwrap();
            let got = conv.forward_enlarged(&there(&x, dtype, &device), to).unwrap();
            assert_near("enlarged", &got, &want, bound);
        }
    }
}

#[test]
fn attention_is_that_of_the_reference() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        for (queries, keys, heads, width) in [
            (3, 5, 2, 8),
            (77, 77, 2, 32),
            (130, 400, 3, 32),
            (64, 193, 3, 64),
            (1024, 77, 2, 64),
            (300, 1000, 2, 64),
            (500, 100, 20, 64), // heads of both kinds, as blocks of three groups and of two
            (1, 90, 1, 64),
            (70, 70, 1, 512),
        ] {
            for mask in [Mask::None, Mask::Causal] {
                if mask == Mask::Causal && queries != keys {
                    continue;
                }
                let what = format!("{dtype:?} {queries} by {keys}, {heads} heads of {width}, {mask:?}");
                let shape = |length| [2, length, heads * width];
                let q = (rounded(&shape(queries), 1, dtype) * 2.0).unwrap();
                let (k, v) = (rounded(&shape(keys), 2, dtype), rounded(&shape(keys), 3, dtype));
                let want = reference::attention(&q, &k, &v, heads, mask).unwrap();
                let [q, k, v] = [&q, &k, &v].map(|x| there(x, dtype, &device));
                let got = Attention::new(heads, mask, q.dtype()).forward([&q, &k, &v]).unwrap();
                assert_near(&what, &got, &want, bound);
            }
        }
    }
}

#[test]
fn attention_reads_operands_that_lie_side_by_side() {
    let device = gpu();
    let all = rounded(&[2, 200, 3 * 128], 1, DType::F16);
    let parts = [0, 128, 256].map(|from| all.narrow(2, from, 128).unwrap());
    let [q, k, v] = parts.each_ref().map(|part| part.contiguous().unwrap());
    let want = reference::attention(&q, &k, &v, 2, Mask::None).unwrap();
    let all = there(&all, DType::F16, &device);
    let [q, k, v] = [0, 128, 256].map(|from| all.narrow(2, from, 128).unwrap());
    assert_near(
        "side by side",
        &Attention::new(2, Mask::None, q.dtype()).forward([&q, &k, &v]).unwrap(),
        &want,
        2e-3,
    );
}

#[test]
fn norms_are_those_of_the_reference_even_far_from_zero() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        for (shape, groups, offset) in [
            ([1, 1, 1, 8], 2, 0.0),
            ([2, 5, 7, 24], 3, 0.0),
            ([3, 9, 9, 96], 32, 0.0),
            ([2, 33, 17, 640], 32, 0.0),
            ([1, 16, 16, 2560], 32, 0.0),
            ([2, 64, 64, 64], 8, 30.0),
        ] {
            // Far from zero the storage itself leaves few digits of what the norm looks at.
            let bound = if offset == 0.0 { bound } else { 1e-4f32.max(bound) };
            let x =
                (random(&shape, 1) + offset).unwrap().to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            let (weight, bias) = (rounded(&[shape[3]], 2, dtype), rounded(&[shape[3]], 3, dtype));
            let vb = weights(&[("weight", &weight), ("bias", &bias)], dtype, &device);
            let want = reference::GroupNorm::new(&weight, &bias, groups, 1e-5).unwrap();
            let norm = GroupNorm::load(&vb, shape[3], groups, 1e-5).unwrap();
            let x_there = there(&x, dtype, &device);
            let what = format!("{dtype:?} {shape:?} in {groups}");
            assert_near(&what, &norm.forward(&x_there).unwrap(), &want.forward(&x).unwrap(), bound);
            assert_near(&what, &norm.forward_silu(&x_there).unwrap(), &want.forward_silu(&x).unwrap(), bound);
            let want = reference::LayerNorm::new(&weight, &bias, 1e-5).unwrap().forward(&x).unwrap();
            let got = LayerNorm::load(&vb, shape[3], 1e-5).unwrap().forward(&x_there).unwrap();
            assert_near(&what, &got, &want, bound);
        }
    }
}

#[test]
fn curves_are_those_of_the_reference() {
    let device = gpu();
    for (dtype, bound) in TYPES {
        let x = (rounded(&[3, 333], 1, dtype) * 8.0).unwrap();
        let x_there = there(&x, dtype, &device);
        assert_near("silu", &silu(&x_there).unwrap(), &reference::silu(&x).unwrap(), bound);
        let got = Activation::Gelu.forward(&x_there).unwrap();
        assert_near("gelu", &got, &reference::gelu(&x).unwrap(), bound);
        let got = Activation::QuickGelu.forward(&x_there).unwrap();
        assert_near("quick gelu", &got, &reference::quick_gelu(&x).unwrap(), bound);
    }
}

#[test]
fn replayed_work_is_that_of_its_own_inputs() -> Result<()> {
    let device = gpu();
    let (conv, _) = conv_pair(ConvShape::same3(16, 16), DType::F16, &device);
    let norm_weights =
        weights(&[("weight", &random(&[16], 5)), ("bias", &random(&[16], 6))], DType::F16, &device);
    let norm = GroupNorm::load(&norm_weights, 16, 4, 1e-5)?;
    let work = |x: &Tensor| -> Result<Tensor> {
        let y = conv.forward(&norm.forward_silu(x)?)?;
        Ok(Tensor::cat(&[&y, x], D::Minus1)?)
    };
    let replay = Replay::default();
    for seed in 0..6 {
        for side in [8, 12] {
            let x = there(&random(&[2, side, side, 16], seed), DType::F16, &device);
            let want = work(&x)?.to_dtype(DType::F32)?;
            let kept = Kept { input: 0, of: vec![], make: &|_| Ok(vec![]) };
            let got = replay.run(&[&x], kept, |inputs, _| Ok(vec![work(inputs[0])?]))?;
            assert_near("replayed", &got[0], &want, 1e-6);
        }
    }
    Ok(())
}

#[test]
fn rows_are_split_and_first_rows_added_to_as_on_the_cpu() -> Result<()> {
    let device = gpu();
    for (dtype, bound) in TYPES {
        for (length, width) in [(5, 24), (300, 320), (1024, 1280), (4096, 640)] {
            let weight = scaled(&[width, width], 1, dtype);
            let [bias, shift] = [2, 3].map(|seed| rounded(&[width], seed, dtype));
            let of = [("weight", &weight), ("bias", &bias)];
            let (far, near) = (weights(&of, dtype, &device), weights(&of, DType::F32, &Device::Cpu));
            let split = SplitLinear::load(&far, &there(&shift, dtype, &device), width, width)?;
            let want_split = SplitLinear::load(&near, &shift, width, width)?;
            let (linear, want_linear) =
                (Linear::load(&far, width, width)?, Linear::load(&near, width, width)?);
            let norm = [("weight", &shift), ("bias", &bias)];
            let (far, near) = (weights(&norm, dtype, &device), weights(&norm, DType::F32, &Device::Cpu));
            let maps = |norm: &VarBuilder, map: &VarBuilder| {
                let norm = NormSource { vb: norm, channels: width, eps: 1e-5 };
                NormedLinears::load_no_bias(norm, std::slice::from_ref(map), width)
            };
            let normed = maps(&far, &weights(&of, dtype, &device))?;
            let want_normed = maps(&near, &weights(&of, DType::F32, &Device::Cpu))?;
            let [x, residual] = [4, 5].map(|seed| rounded(&[3, length, width], seed, dtype));
            for from in [0, 1, 2, 3] {
                let what = format!("{dtype:?} {length}x{width} from {from}");
                let on = |x: &Tensor| there(x, dtype, &device);
                let got = split.forward_add(&on(&x), &Rows::plain(on(&residual)), from)?;
                let want = want_split.forward_add(&x, &Rows::plain(residual.clone()), from)?;
                assert_near(&what, got.values(), want.values(), bound);
                let got = linear.forward_onto_first(&on(&x.narrow(0, 0, from)?), got)?;
                let want = want_linear.forward_onto_first(&x.narrow(0, 0, from)?, want)?;
                assert_near(&what, got.values(), want.values(), bound);
                // What is noted of the rows is true of them all: the norm behind reads it.
                let (got, want) = (normed.forward(&got)?, want_normed.forward(&want)?);
                assert_near(&what, &got[0], &want[0], 4.0 * bound);
            }
        }
    }
    Ok(())
}

#[test]
fn bytes_are_rounded_as_on_the_cpu() -> Result<()> {
    let device = gpu();
    for (dtype, _) in TYPES {
        let halves =
            (0..2048).map(|k| (k as f32 - 1024.0) / 512.0).chain([f32::NAN, f32::INFINITY, -0.0, 1e-30]);
        let x = Tensor::from_iter(halves, &Device::Cpu)?.to_dtype(dtype)?;
        assert_eq!(bytes(&x.to_device(&device)?)?, bytes(&x)?, "{dtype:?}");
    }
    Ok(())
}
