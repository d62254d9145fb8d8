//! Variations: a picture and no prompt.

use crate::forms::{Form, VARIATIONS, cut_out, png, scene};
use crate::support::{exchange, shared};
use easel::request::Strength;

fn variation(file: &[u8]) -> Form {
    let fields = [("size", "64x64"), ("steps", "3"), ("seed", "7"), ("response_format", "b64_json")];
    fields.into_iter().fold(Form::default(), |form, (name, text)| form.text(name, text)).file("image", file)
}

#[test]
fn a_variation_comes_from_the_picture_without_a_prompt_and_without_guidance() {
    let file = png(scene(64, 64));
    let answer = variation(&file).text("n", "2").post(VARIATIONS);
    let files = answer.files();
    assert_eq!(files.len(), 2);
    assert_ne!(files[0], files[1]);
    let text = easel::output::read_parameters(&files[0]).expect("parameters inside");
    let parameters = easel::output::Parameters::parse(&text).expect("they are read back");
    assert_eq!(parameters.prompt.as_str(), "");
    assert_eq!((parameters.strength.map(Strength::get), parameters.guidance.get()), (Some(0.6), 1.0));
    let other = png(image::imageops::flip_horizontal(&scene(64, 32)));
    assert_ne!(variation(&other).post(VARIATIONS).files()[0], files[0], "another picture, another variation");
}

#[test]
fn openais_fields_and_ours_are_honoured() {
    let fields = [("model", "dall-e-2"), ("user", "me"), ("strength", "0.5"), ("output_format", "webp")];
    let form =
        fields.into_iter().fold(variation(&png(scene(64, 64))), |form, (name, text)| form.text(name, text));
    let answer = form.post(VARIATIONS);
    assert_eq!(answer.header("easel-ignored"), Some("user"));
    assert_eq!(answer.json()["output_format"], "webp");
    let text = easel::output::read_parameters(&answer.files()[0]).expect("parameters inside");
    assert!(text.contains("Denoising strength: 0.5"), "{text}");
}

#[test]
fn transparency_is_no_mask_here() {
    let answer = variation(&png(cut_out(&scene(64, 64)))).post(VARIATIONS);
    assert_eq!(answer.files(), variation(&png(scene(64, 64))).post(VARIATIONS).files());
}

#[test]
fn what_would_draw_another_picture_on_another_route_is_refused_by_name() {
    let file = png(scene(64, 64));
    for (name, form) in [
        ("prompt", variation(&file).text("prompt", "a cat")),
        ("input_fidelity", variation(&file).text("input_fidelity", "high")),
        ("mask", variation(&file).file("mask", &file)),
    ] {
        let (param, message) = form.post(VARIATIONS).error(400);
        assert_eq!(param, name, "{message}");
        assert!(message.contains("no parameter of this route"), "{message}");
    }
    let (param, _) = Form::quick().post(VARIATIONS).error(400);
    assert_eq!(param, "image");
    let head = format!("POST {VARIATIONS} HTTP/1.1\r\ncontent-type: application/json");
    assert!(exchange(shared(), &head, b"{}").error(415).1.contains("multipart/form-data"));
}
