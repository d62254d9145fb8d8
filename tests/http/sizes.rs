//! Sizes, quality and usage: what is asked for, what is drawn, and what the answer says of it.

use crate::support::{Answer, GENERATIONS, choosy, draw, exchange, quick};
use easel::output::{Parameters, read_parameters};
use serde_json::{Value, json};

/// Asks the server that draws the model's own sizes alone.
fn ask(fields: Value) -> Answer {
    exchange(choosy(), GENERATIONS, quick(fields).to_string().as_bytes())
}

#[track_caller]
fn dimensions(file: &[u8]) -> (u32, u32) {
    let picture = image::load_from_memory(file).expect("a picture");
    (picture.width(), picture.height())
}

fn parameters(file: &[u8]) -> Parameters {
    Parameters::parse(&read_parameters(file).expect("parameters inside")).expect("they are well formed")
}

#[test]
fn sizes_that_clients_hard_code_come_back_and_the_answer_names_what_was_drawn() {
    let cases = [
        ("256x256", (256, 256), None),
        ("512x512", (512, 512), Some("256x256")),
        ("1024x1024", (1024, 1024), Some("256x256")),
        ("1536x1024", (1536, 1024), Some("312x208")),
        ("1024x1536", (1024, 1536), Some("208x312")),
        ("1792x1024", (1792, 1024), Some("336x192")),
        ("1024x1792", (1024, 1792), Some("192x336")),
        ("64x64", (64, 64), Some("224x224")),
        ("333x77", (333, 77), Some("448x112")),
    ];
    for (size, asked, drawn) in cases {
        let answer = ask(json!({"size": size, "steps": 1}));
        let file = answer.files().remove(0);
        assert_eq!(dimensions(&file), asked);
        assert_eq!(answer.header("easel-drawn-size"), drawn, "{size}");
        let parameters = parameters(&file);
        assert_eq!(parameters.size.to_string(), drawn.unwrap_or(size));
        let resized = parameters.resized.map(|extent| extent.to_string());
        assert_eq!(resized.as_deref(), drawn.map(|_| size));
        let strict = ["1024x1024", "1536x1024", "1024x1536"].contains(&size);
        assert_eq!(answer.json().get("size"), strict.then(|| json!(size)).as_ref());
    }
}

#[test]
fn a_resampled_picture_is_the_drawn_one_but_for_its_size() {
    let native = ask(json!({"size": "256x256", "steps": 4})).files().remove(0);
    let large = ask(json!({"size": "1024x1024", "steps": 4})).files().remove(0);
    let native = image::load_from_memory(&native).expect("a picture").into_rgb8();
    let large = image::load_from_memory(&large).expect("a picture").into_rgb8();
    let off = native.enumerate_pixels().map(|(x, y, pixel)| {
        let block = (0..16).map(|k| large.get_pixel(4 * x + k % 4, 4 * y + k / 4));
        let sum = block.fold(0, |sum, other| sum + u32::from(other.0[0]));
        (sum / 16).abs_diff(u32::from(pixel.0[0]))
    });
    let mean = f64::from(off.sum::<u32>()) / (256.0 * 256.0);
    assert!(mean < 1.5, "{mean}");
}

#[test]
fn quality_chooses_the_steps_unless_they_are_given() {
    let cases = [
        ("low", 6, json!("low")),
        ("medium", 12, json!("medium")),
        ("standard", 12, json!("medium")),
        ("high", 18, json!("high")),
        ("hd", 18, json!("high")),
        ("xhigh", 24, Value::Null),
        ("max", 36, Value::Null),
        ("auto", 12, Value::Null),
    ];
    for (quality, steps, told) in cases {
        let answer = draw(json!({"quality": quality, "steps": null}));
        assert_eq!(parameters(&answer.files()[0]).steps.get(), steps, "{quality}");
        assert_eq!(answer.json()["quality"], told, "{quality}");
        assert_eq!(answer.header("easel-ignored"), None);
    }
    let answer = draw(json!({"quality": "high", "steps": 3}));
    assert_eq!(parameters(&answer.files()[0]).steps.get(), 3);
    assert_eq!((answer.header("easel-ignored"), answer.json().get("quality")), (Some("quality"), None));
    assert_eq!(draw(json!({"quality": "auto", "steps": 3})).header("easel-ignored"), None);
}

#[test]
fn usage_counts_the_texts_tokens_and_the_patches_that_were_drawn() {
    let usage = |fields| ask(fields).json()["usage"].clone();
    let counted = |text: u64, output: u64| {
        json!({
            "input_tokens": text,
            "input_tokens_details": {"text_tokens": text, "image_tokens": 0},
            "output_tokens": output,
            "total_tokens": text + output,
        })
    };
    assert_eq!(usage(json!({"size": "256x256", "steps": 1})), counted(2, 256));
    assert_eq!(usage(json!({"size": "1024x1024", "steps": 1, "n": 2})), counted(2, 512));
    assert_eq!(
        usage(json!({"size": "1536x1024", "steps": 1, "prompt": "(red:1.3) apple BREAK tree"})),
        counted(3, 260)
    );
    let negative = json!({"size": "256x256", "steps": 1, "negative_prompt": "blue cat", "guidance_scale": 2});
    assert_eq!(usage(negative), counted(4, 256));
    let unread = json!({"size": "256x256", "steps": 1, "negative_prompt": "blue cat"});
    assert_eq!(usage(unread), counted(2, 256));
    assert_eq!(
        usage(json!({"size": "256x256", "steps": 1, "prompt": "red apple ".repeat(80)})),
        counted(160, 256)
    );
}

#[test]
fn an_answer_says_what_strict_clients_accept() {
    let body = draw(json!({"background": "auto"})).json();
    assert_eq!((&body["background"], &body["output_format"]), (&json!("opaque"), &json!("png")));
    let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["background", "created", "data", "output_format", "usage"]);
    assert_eq!(
        body["data"][0].as_object().map(|picture| picture.contains_key("revised_prompt")),
        Some(false)
    );
}
