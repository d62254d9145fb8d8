//! Pictures that come back.

use crate::support::{draw, post};
use serde_json::json;

#[test]
fn a_picture_of_the_size_asked_for_comes_back_with_its_parameters_inside() {
    let answer = draw(json!({"size": "64x128", "steps": 3, "guidance_scale": 4}));
    let file = answer.files().remove(0);
    let picture = image::load_from_memory(&file).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (64, 128));
    let parameters = easel::output::read_parameters(&file).expect("parameters inside");
    for part in ["red apple", "Steps: 3", "Seed: 7", "Size: 64x128", "Model: sketch"] {
        assert!(parameters.contains(part), "{part} is not in {parameters}");
    }
    let body = answer.json();
    assert_eq!(body["output_format"], "png");
    assert!(body["created"].as_u64().is_some_and(|created| created > 1_700_000_000), "{body}");
    assert!(body.get("size").is_none(), "a size that strict clients refuse must be left out");
    assert_eq!(answer.header("easel-seed"), Some("7"));
    assert_eq!(answer.header("easel-ignored"), None);
}

#[test]
fn silence_is_filled_from_the_model_and_auto_is_its_native_size() {
    let answer = draw(json!({"size": "auto", "seed": null, "steps": 1, "negative_prompt": null}));
    let picture = image::load_from_memory(&answer.files()[0]).expect("a picture");
    assert_eq!((picture.width(), picture.height()), (256, 256));
    let seed: u64 = answer.header("easel-seed").expect("the seed is told").parse().expect("a number");
    assert!(seed <= u64::from(u32::MAX));
    let again = draw(json!({"size": "256x256", "seed": seed, "steps": 1}));
    assert_eq!(again.files(), answer.files(), "the seed that was told repeats the picture");
}

#[test]
fn the_same_seed_gives_identical_bytes_and_another_seed_others() {
    let [first, second] = [draw(json!({})), draw(json!({}))];
    assert_eq!(first.files(), second.files());
    assert_ne!(first.files(), draw(json!({"seed": 8})).files());
}

#[test]
fn each_of_n_pictures_is_the_one_that_its_seed_gives_alone() {
    let both = draw(json!({"n": 2})).files();
    assert_eq!(both.len(), 2);
    assert_eq!(both, [draw(json!({})).files(), draw(json!({"seed": 8})).files()].concat());
}

#[test]
fn every_output_format_is_what_it_says() {
    let formats = [
        (json!({"output_format": "png"}), "png", image::ImageFormat::Png),
        (json!({"output_format": "jpeg", "output_compression": 80}), "jpeg", image::ImageFormat::Jpeg),
        (json!({"output_format": "webp", "output_compression": 0}), "webp", image::ImageFormat::WebP),
        (json!({"output_format": "webp"}), "webp", image::ImageFormat::WebP),
    ];
    for (fields, name, format) in formats {
        let answer = draw(fields);
        let file = answer.files().remove(0);
        assert_eq!(answer.json()["output_format"], name);
        assert_eq!(image::guess_format(&file).ok(), Some(format));
        image::load_from_memory(&file).expect("a picture");
    }
}

#[test]
fn aliases_of_fields_and_names_of_other_programs_mean_the_same_picture() {
    let ours = draw(json!({"sampler": "dpmpp_2m", "schedule": "karras", "steps": 3, "guidance_scale": 2}));
    let theirs = post(
        json!({
            "prompt": "red apple", "size": "64x64", "num_inference_steps": 3, "cfg_scale": 2.0, "seed": 7.0,
            "sampler": "DPM++ 2M", "scheduler": "Karras", "model": "gpt-image-1", "response_format": "b64_json"
        })
        .to_string()
        .as_bytes(),
    );
    assert_eq!(ours.files(), theirs.files());
    let paired = draw(json!({"sampler": "DPM++ 2M Karras", "steps": 3, "guidance_scale": 2}));
    assert_eq!(ours.files(), paired.files());
}

#[test]
fn a_field_that_changes_nothing_is_named_in_order() {
    let answer = draw(json!({
        "user": "me", "style": "vivid", "quality": "high", "output_compression": 50, "moderation": "low", "background": "transparent",
        "stream": false, "partial_images": 0, "zoom": [1, 2], "nothing": null
    }));
    assert_eq!(answer.files().len(), 1);
    assert_eq!(
        answer.header("easel-ignored"),
        Some("background, moderation, output_compression, quality, style, user, zoom")
    );
}

#[test]
fn odd_prompts_are_drawn_like_any_other() {
    for prompt in ["🦊 \u{0} \u{7f}\u{200d}\n\t", "((((((:1.2", "\\", "apple ".repeat(200).as_str()] {
        assert_eq!(draw(json!({"prompt": prompt, "steps": 1})).files().len(), 1);
    }
}
