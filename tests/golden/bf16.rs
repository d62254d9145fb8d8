//! The networks with bf16 weights: no further from diffusers' f32 than diffusers' own bf16 is.
//!
//! The tolerance of each stage is the relative root mean square error that torch makes of it in bf16, measured by
//! `tests/fixtures/make_bf16.py`. Ours must be no larger: weights are rounded alike, but what runs between the layers
//! stays f32 (only the operands of products may be rounded, where the processor multiplies pairs of bf16). Errors are
//! joined over the three models, because a pooled vector of one has too few numbers for its error to be more than chance.

use crate::pictures::{bytes_off, pipeline, request};
use crate::support::{Golden, MODELS, device, encode, unet, vae, values};
use candle_core::{D, DType, Tensor};
use easel::checkpoint::{Component, Files};
use serde_json::Value;

/// The mean square of the difference over that of `want`.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims(), "the shapes differ");
    let sum_of_squares = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let (got, want) = (values(got), values(want));
    let difference: Vec<f32> = got.iter().zip(&want).map(|(a, b)| a - b).collect();
    sum_of_squares(&difference) / sum_of_squares(&want)
}

/// The error of torch at `stage`.
fn torchs(golden: &Golden, stage: &str) -> f64 {
    let all: Value = Files::Disk(golden.path()).json("bf16.json").expect("the errors of torch are read");
    all[stage].as_f64().expect("an error is a number").powi(2)
}

/// Asserts that what `run` makes of the models is at `stage` as near as torch's, and not so near that it cannot have been
/// bf16.
fn assert_nearer(stage: &str, run: impl Fn(&Golden) -> (Tensor, Tensor)) {
    let (mut ours, mut torch) = (0.0, 0.0);
    for golden in MODELS.map(Golden::open) {
        let (got, want) = run(&golden);
        ours += error(&got, &want);
        torch += torchs(&golden, stage);
    }
    let [ours, torch] = [ours, torch].map(|sum| (sum / MODELS.len() as f64).sqrt());
    println!("{stage}: {ours:.2e}, torch {torch:.2e}");
    assert!(ours <= torch, "{stage}: off by {ours:.2e}, torch in bf16 by {torch:.2e}");
    assert!(ours > 1e-4, "{stage}: off by {ours:.2e} only, which is not bf16");
}

#[test]
fn text_encoders_in_bf16_are_no_further_off_than_torchs() {
    assert_nearer("text.context", |golden| {
        let [first, second] = [Component::TextEncoder, Component::TextEncoder2]
            .map(|encoder| encode(golden, encoder, DType::BF16, 0).hidden);
        let context = Tensor::cat(&[first, second], D::Minus1).expect("the widths join");
        (context, golden.tensor("text.context"))
    });
    assert_nearer("text.pooled", |golden| {
        (encode(golden, Component::TextEncoder2, DType::BF16, 0).pooled, golden.tensor("text.pooled"))
    });
}

#[test]
fn a_unet_in_bf16_is_no_further_off_than_torchs() {
    for case in ["unet", "unet_odd"] {
        let stage = format!("{case}.out");
        assert_nearer(&stage, |golden| (unet(golden, case, DType::BF16), golden.picture(&stage)));
    }
}

#[test]
fn a_vae_in_bf16_is_no_further_off_than_torchs() {
    let typed = |golden: &Golden, name: &str| {
        let dtype = if device().is_cpu() { DType::F32 } else { DType::BF16 };
        golden.picture(name).to_dtype(dtype).expect("a picture is rounded")
    };
    assert_nearer("vae.mean", |golden| {
        let posterior = vae(golden, DType::BF16).encode(&typed(golden, "vae.image")).expect("it encodes");
        (posterior.mean, golden.picture("vae.mean"))
    });
    assert_nearer("vae.decoded", |golden| {
        let decoded = vae(golden, DType::BF16).decode(&typed(golden, "vae.latents")).expect("it decodes");
        (decoded, golden.picture("vae.decoded"))
    });
}

/// Guided pictures, from prompt to pixels, are those of f32 to the eye: 2/255 in the mean.
#[test]
fn pictures_in_bf16_are_those_of_f32_to_the_eye() {
    for golden in MODELS.map(Golden::open) {
        let pipeline = pipeline(&golden, DType::BF16);
        let cases = golden.facts["pictures"].as_array().expect("a list of pictures");
        let guided = |case: &&Value| case["guidance"].as_f64().is_some_and(|guidance| guidance > 1.0);
        for case in cases.iter().filter(guided).take(2) {
            let name = case["name"].as_str().expect("a case has a name");
            let (mean, _) = bytes_off(&golden, &pipeline, &request(&golden, &pipeline, case), name);
            println!("{name} of {}: {mean:.2} of 255", golden.name);
            assert!(mean < 2.0 && mean > 0.0, "{name} of {}: off by {mean} in the mean", golden.name);
        }
    }
}
