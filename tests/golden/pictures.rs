//! Whole pictures: every stage together, through the samplers and schedules that diffusers has too.
//!
//! Latents are held to 1e-3 relative to the greatest magnitude: a plain f32 loop meets diffusers' to 1e-4, and a
//! rounded timestep moves them by 0.02. Bytes are held to 1/255 each and 0.1/255 in the mean, since the last rounding
//! may fall either way.

use crate::support::{Golden, assert_close, device};
use candle_core::{DType, Tensor};
use easel::pipeline::{LoadOptions, Pipeline};
use easel::request::{
    ClipSkip, Count, Extent, GenerateRequest, Guidance, Mask, Options, Picture, Prompt, Rescale, Seed, Sizes,
    Steps, Strength,
};
use image::{GrayImage, RgbImage};
use serde_json::Value;

/// Starting at sigma 4096 leaves f32 fewer digits, and diffusers' DDIM takes the last alpha there for zero.
const LOOSER: [(&str, &str, f32); 2] = [("b", "euler_trailing", 2e-3), ("b", "ddim_trailing", 1e-2)];

const TOLERANCE: f32 = 1e-3;

pub fn pipeline(golden: &Golden, dtype: DType) -> Pipeline {
    let model = golden.folder.files().to_string();
    Pipeline::load(&LoadOptions {
        model,
        device: device(),
        dtype,
        sizes: Some(Sizes::ANY),
        ..LoadOptions::sketch()
    })
    .expect("the model loads")
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {case}"))
}

fn whole(case: &Value, field: &str) -> i64 {
    case[field].as_i64().unwrap_or_else(|| panic!("{field} is no whole number in {case}"))
}

fn number(case: &Value, field: &str) -> f64 {
    case[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {case}"))
}

pub fn request(golden: &Golden, pipeline: &Pipeline, case: &Value) -> GenerateRequest {
    let (width, height) = (whole(case, "width") as u32, whole(case, "height") as u32);
    let input = |kind: &str| {
        let tensor = golden.tensor(&format!("input.{width}x{height}.{kind}"));
        tensor.flatten_all().and_then(|t| t.to_vec1::<u8>()).expect("bytes")
    };
    let task = text(case, "task");
    let picture = || RgbImage::from_raw(width, height, input("image")).expect("three bytes a pixel");
    let mask = || Mask::new(GrayImage::from_raw(width, height, input("mask")).expect("a byte a pixel"));
    let options = Options {
        negative: case["negative"].as_str().map(|text| Prompt::negative(text).expect("it is short")),
        size: Some(Extent::new(width, height).unwrap_or_else(|e| panic!("{e}"))),
        steps: Some(Steps::new(whole(case, "steps")).expect("in bounds")),
        effort: None,
        sampler: Some(text(case, "sampler").parse().expect("a known sampler")),
        schedule: Some(text(case, "schedule").parse().expect("a known schedule")),
        guidance: Some(Guidance::new(number(case, "guidance")).expect("in bounds")),
        rescale: Some(Rescale::new(number(case, "guidance_rescale")).expect("in bounds")),
        seed: Some(Seed(case["seed"].as_u64().expect("a seed"))),
        count: Some(Count::new(whole(case, "n")).expect("in bounds")),
        clip_skip: case["clip_skip"].as_i64().map(|skip| ClipSkip::new(skip).expect("in bounds")),
        picture: (task != "txt2img").then(|| Picture::new(picture()).expect("it has pixels")),
        mask: (task == "inpaint").then(mask),
        strength: case["strength"].as_f64().map(|strength| Strength::new(strength).expect("in bounds")),
    };
    let prompt = Prompt::new(text(case, "prompt")).expect("it is not empty");
    options.resolve(prompt, pipeline.defaults(), Seed(0)).expect("the parts fit")
}

/// The latents of image `k`, as diffusers lays them out.
fn latents(pipeline: &Pipeline, request: &GenerateRequest, k: u32) -> Tensor {
    let mut job = pipeline
        .start(request, pipeline.encode_prompts(request).expect("prompts encode"), k)
        .expect("starts");
    while !job.is_done() {
        pipeline.evaluate(&mut [&mut job]).expect("an evaluation runs");
    }
    pipeline.latents(&job).permute((0, 3, 1, 2)).and_then(|t| t.contiguous()).expect("four axes")
}

/// How far the bytes of the pictures of case `name` are off: in the mean, and at most.
pub fn bytes_off(golden: &Golden, pipeline: &Pipeline, request: &GenerateRequest, name: &str) -> (f64, u32) {
    let got: Vec<u8> = pipeline
        .generate(request, |_| std::ops::ControlFlow::Continue(()))
        .expect("it draws")
        .iter()
        .flat_map(|picture| picture.as_bytes().to_vec())
        .collect();
    let want: Vec<u8> =
        golden.tensor(&format!("picture.{name}.rgb")).flatten_all().and_then(|t| t.to_vec1()).expect("bytes");
    assert_eq!(got.len(), want.len(), "{name} of {}: another size", golden.name);
    let off: Vec<u32> = got.iter().zip(&want).map(|(a, b)| u32::from(a.abs_diff(*b))).collect();
    let mean = f64::from(off.iter().sum::<u32>()) / off.len() as f64;
    (mean, off.iter().max().copied().unwrap_or(0))
}

fn compare(golden: &Golden, pipeline: &Pipeline, case: &Value) {
    let name = text(case, "name");
    let what = format!("{} of {}", name, golden.name);
    let looser = LOOSER.iter().find(|(model, case, _)| *model == golden.name && *case == name);
    let tolerance = looser.map_or(TOLERANCE, |(_, _, tolerance)| *tolerance);
    let request = request(golden, pipeline, case);
    let want = golden.tensor(&format!("picture.{name}.latents"));
    for k in 0..request.count.get() {
        let want = want.narrow(0, k as usize, 1).expect("a picture for each image");
        assert_close(&what, &latents(pipeline, &request, k), &want, tolerance);
    }
    let (mean, most) = bytes_off(golden, pipeline, &request, name);
    assert!(most <= 1 && mean < 0.1, "{what}: a byte is off by {most}, the mean by {mean}");
}

fn compare_all(model: &'static str) {
    let golden = Golden::open(model);
    let pipeline = pipeline(&golden, DType::F32);
    let cases = golden.facts["pictures"].as_array().expect("a list of pictures");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let run = std::panic::AssertUnwindSafe(|| compare(&golden, &pipeline, case));
            let fault = std::panic::catch_unwind(run).err()?;
            Some(fault.downcast_ref::<String>().cloned().unwrap_or_else(|| text(case, "name").to_owned()))
        })
        .collect();
    assert!(failures.is_empty(), "{} pictures differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn pictures_of_an_epsilon_model_are_diffusers_pictures() {
    compare_all("a");
}

#[test]
fn pictures_of_a_zero_snr_velocity_model_are_diffusers_pictures() {
    compare_all("b");
}

#[test]
fn pictures_of_an_inpainting_model_are_diffusers_pictures() {
    compare_all("c");
}
