//! The time of each kernel at sizes of SDXL at 512x512: `cargo bench --bench kernels`; `EASEL_CPU` chooses the
//! instructions. Criterion's elements a second are operations a second: a multiplication and an addition each count.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use criterion::{Criterion, Throughput};
use easel::ops::{Attention, Conv2d, ConvShape, GatedLinear, GroupNorm, LayerNorm, Linear, Mask};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

const WEIGHTS: [(DType, &str); 2] = [(DType::F32, "f32"), (DType::BF16, "bf16")];

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1f32, shape, &Device::Cpu).expect("the shape is small")
}

/// Weights by name, of shapes given, in `dtype`.
fn weights(dtype: DType, shapes: &[(&str, &[usize])]) -> VarBuilder<'static> {
    let tensors = shapes.iter().map(|(name, shape)| ((*name).to_owned(), random(shape)));
    VarBuilder::from_tensors(tensors.collect::<HashMap<_, _>>(), dtype, &Device::Cpu)
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    for (dtype, name) in WEIGHTS {
        for (inputs, outputs, side) in [(320, 320, 64), (640, 640, 32), (1280, 1280, 16), (2560, 1280, 16)] {
            let vb = weights(dtype, &[("weight", &[outputs, inputs, 3, 3]), ("bias", &[outputs])]);
            let conv = Conv2d::load(&vb, ConvShape::same3(inputs, outputs)).expect("weights fit");
            let x = random(&[1, side, side, inputs]);
            group.throughput(Throughput::Elements((2 * 9 * inputs * outputs * side * side) as u64));
            group.bench_function(format!("conv3x3 {inputs}->{outputs} {side}x{side} {name}"), |bencher| {
                bencher.iter(|| conv.forward(black_box(&x)).expect("shapes fit"));
            });
        }
        for (inputs, outputs, rows) in
            [(640, 640, 1024), (1280, 1280, 256), (5120, 1280, 256), (1280, 1280, 1)]
        {
            let vb = weights(dtype, &[("weight", &[outputs, inputs]), ("bias", &[outputs])]);
            let linear = Linear::load(&vb, inputs, outputs).expect("weights fit");
            let x = random(&[1, rows, inputs]);
            group.throughput(Throughput::Elements((2 * inputs * outputs * rows) as u64));
            group.bench_function(format!("linear {inputs}->{outputs} {rows} rows {name}"), |bencher| {
                bencher.iter(|| linear.forward(black_box(&x)).expect("shapes fit"));
            });
        }
        let vb = weights(dtype, &[("weight", &[10_240, 1280]), ("bias", &[10_240])]);
        let gated = GatedLinear::load(&vb, 1280, 5120).expect("weights fit");
        let x = random(&[1, 256, 1280]);
        group.throughput(Throughput::Elements(2 * 10_240 * 1280 * 256));
        group.bench_function(format!("geglu 1280->5120 256 rows {name}"), |bencher| {
            bencher.iter(|| gated.forward(black_box(&x)).expect("shapes fit"));
        });
    }
    group.finish();
}

fn attentions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    for (queries, keys, heads, width) in
        [(1024, 1024, 10, 64), (256, 256, 20, 64), (1024, 77, 10, 64), (4096, 4096, 1, 512)]
    {
        let q = random(&[1, queries, heads * width]);
        let (k, v) = (random(&[1, keys, heads * width]), random(&[1, keys, heads * width]));
        group.throughput(Throughput::Elements((4 * queries * keys * heads * width) as u64));
        for (dtype, name) in WEIGHTS {
            let attention = Attention::new(heads, Mask::None, dtype);
            let what = format!("{queries} queries {keys} keys {heads} heads of {width} {name}");
            group.bench_function(what, |bencher| {
                bencher.iter(|| attention.forward([black_box(&q), &k, &v]).expect("shapes fit"));
            });
        }
    }
    group.finish();
}

fn norms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("norm");
    let vb = weights(DType::F32, &[("weight", &[640]), ("bias", &[640])]);
    let (groups, layer) = (
        GroupNorm::load(&vb, 640, 32, 1e-5).expect("weights fit"),
        LayerNorm::load(&vb, 640, 1e-5).expect("weights fit"),
    );
    let (picture, rows) = (random(&[1, 32, 32, 640]), random(&[1, 1024, 640]));
    group.throughput(Throughput::Bytes(2 * 4 * 1024 * 640));
    group.bench_function("group norm and silu 640 32x32", |bencher| {
        bencher.iter(|| groups.forward_silu(black_box(&picture)).expect("shapes fit"));
    });
    group.bench_function("layer norm 640 1024 rows", |bencher| {
        bencher.iter(|| layer.forward(black_box(&rows)).expect("shapes fit"));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    products(&mut criterion);
    attentions(&mut criterion);
    norms(&mut criterion);
    criterion.final_summary();
}
