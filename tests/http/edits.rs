//! Edits: the picture, the mask, and the ways in which they come.

use crate::forms::{EDITS, Form, cut_out, data_url, png, scene, written};
use crate::support::{Answer, exchange, quick, shared};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

/// Asks for an edit with a JSON body.
fn json_edit(fields: Value) -> Answer {
    let body = quick(fields).to_string();
    exchange(shared(), &format!("POST {EDITS} HTTP/1.1\r\ncontent-type: application/json"), body.as_bytes())
}

/// The one picture of an answer.
#[track_caller]
fn pixels(answer: &Answer) -> RgbImage {
    image::load_from_memory(&answer.files()[0]).expect("a picture").into_rgb8()
}

/// The mean difference of two pictures in the columns that `within` names.
fn difference(a: &RgbImage, b: &RgbImage, within: impl Fn(u32) -> bool) -> f64 {
    let pairs = a.enumerate_pixels().zip(b.pixels()).filter(|((x, ..), _)| within(*x));
    let distances: Vec<u8> =
        pairs.flat_map(|((.., a), b)| [0, 1, 2].map(|c| a.0[c].abs_diff(b.0[c]))).collect();
    distances.iter().map(|&distance| f64::from(distance)).sum::<f64>() / distances.len() as f64
}

/// The strength that the parameters inside an answer's file tell.
#[track_caller]
fn strength(answer: &Answer) -> String {
    let text = easel::output::read_parameters(&answer.files()[0]).expect("parameters inside");
    let (_, rest) = text.split_once("Denoising strength: ").expect("a strength");
    rest.split(',').next().expect("a value").to_owned()
}

#[test]
fn an_edit_repaints_the_transparent_part_and_leaves_the_rest() {
    let picture = scene(64, 64);
    let mask = png(cut_out(&picture));
    let edit = |seed: &str| {
        let fields =
            [("prompt", "red apple"), ("size", "64x64"), ("steps", "4"), ("response_format", "b64_json")];
        let form = fields.into_iter().fold(Form::default(), |form, (name, text)| form.text(name, text));
        form.text("seed", seed).file("image", &png(picture.clone())).file("mask", &mask).post(EDITS)
    };
    let answers = [edit("1"), edit("2")];
    let [one, two] = answers.each_ref().map(pixels);
    let inside = difference(&one, &two, |x| x < 24);
    assert!(inside > 10.0, "two seeds differ by {inside} inside");
    for drawn in [&one, &two] {
        let stays = |x: u32| (0..64).all(|y| drawn.get_pixel(x, y) == picture.get_pixel(x, y));
        assert!((32..64).all(stays), "a pixel outside the mask has changed");
    }
    assert_eq!(
        answers[0].json()["usage"]["input_tokens_details"],
        json!({"text_tokens": 2, "image_tokens": 16})
    );
    assert_eq!(strength(&answers[0]), "0.9999");
    assert_eq!(answers[0].header("easel-ignored"), None);
}

#[test]
fn a_mask_may_be_white_on_black_and_the_pictures_own_transparency_is_one() {
    let picture = scene(64, 64);
    let halves = RgbImage::from_fn(64, 64, |x, _| image::Rgb([if x < 32 { 255 } else { 0 }; 3]));
    let by_alpha = Form::edit(&png(picture.clone())).file("mask", &png(cut_out(&picture))).post(EDITS);
    let by_white = Form::edit(&png(picture.clone())).file("mask", &png(halves)).post(EDITS);
    let by_itself = Form::edit(&png(cut_out(&picture))).post(EDITS);
    assert_eq!(by_white.files(), by_alpha.files());
    assert_eq!(by_itself.files(), by_alpha.files());
}

#[test]
fn json_and_forms_draw_the_same_picture_from_the_same_files() {
    let picture = scene(64, 64);
    let (image, mask) = (png(picture.clone()), png(cut_out(&picture)));
    let form = Form::edit(&image).file("mask", &mask).post(EDITS);
    let [image_url, mask_url] = [&image, &mask].map(|file| data_url("image/png", file));
    let body = json!({"images": [{"image_url": image_url}], "mask": {"image_url": mask_url}});
    assert_eq!(json_edit(body).files(), form.files());
    let plain = json!({"image": image_url, "mask": mask_url});
    assert_eq!(json_edit(plain).files(), form.files());
}

#[test]
fn every_name_and_format_of_an_uploaded_picture_is_read() {
    let picture = scene(64, 64);
    let plain = Form::edit(&png(picture.clone())).post(EDITS).files();
    for name in ["image[]", "image[0]"] {
        let form = Form::quick().text("prompt", "red apple").file(name, &png(picture.clone()));
        assert_eq!(form.post(EDITS).files(), plain, "{name}");
    }
    let lossless = Form::edit(&written(picture.clone(), ImageFormat::WebP)).post(EDITS);
    assert_eq!(lossless.files(), plain);
    assert_eq!(Form::edit(&written(picture, ImageFormat::Jpeg)).post(EDITS).files().len(), 1);
}

#[test]
fn without_a_mask_the_strength_and_the_fidelity_say_how_much_stays() {
    let file = png(scene(64, 64));
    let edit = |fields: &[(&str, &str)]| {
        fields.iter().fold(Form::edit(&file), |form, (name, text)| form.text(name, text)).post(EDITS)
    };
    assert_eq!(strength(&edit(&[])), "0.75");
    assert_eq!(strength(&edit(&[("input_fidelity", "low")])), "0.75");
    assert_eq!(strength(&edit(&[("input_fidelity", "high")])), "0.5");
    let both = edit(&[("input_fidelity", "high"), ("strength", "0.8")]);
    assert_eq!((strength(&both).as_str(), both.header("easel-ignored")), ("0.8", Some("input_fidelity")));
    let masked = Form::edit(&png(cut_out(&scene(64, 64)))).text("input_fidelity", "high").post(EDITS);
    assert_eq!(strength(&masked), "0.75");
    let (param, message) = edit(&[("input_fidelity", "medium")]).error(400);
    assert_eq!(param, "input_fidelity");
    assert!(message.contains("high or low; got 'medium'"), "{message}");
}

#[test]
fn the_fields_of_a_form_mean_what_they_mean_in_json() {
    let file = png(scene(64, 64));
    let fields = [("n", "2"), ("output_format", "jpeg"), ("output_compression", "80"), ("stream", "false")];
    let more =
        [("sampler", "dpmpp_2m"), ("strength", "0.5"), ("user", ""), ("style", "vivid"), ("zoom", "2")];
    let form =
        fields.into_iter().chain(more).fold(Form::edit(&file), |form, (name, text)| form.text(name, text));
    let answer = form.post(EDITS);
    assert_eq!(answer.header("easel-ignored"), Some("style, zoom"));
    let same = json_edit(json!({
        "image": data_url("image/png", &file), "n": 2, "output_format": "jpeg", "output_compression": 80,
        "sampler": "dpmpp_2m", "strength": 0.5
    }));
    assert_eq!(answer.files().len(), 2);
    assert_eq!(answer.files(), same.files());
}

#[test]
fn a_picture_of_another_size_is_edited_at_its_own_or_at_the_size_asked_for() {
    let edit = |size: &str| {
        let fields = [("prompt", "red apple"), ("steps", "1"), ("guidance_scale", "1"), ("size", size)];
        let form = fields.into_iter().fold(Form::default(), |form, (name, text)| form.text(name, text));
        let form = form.text("response_format", "b64_json").file("image", &png(scene(96, 64)));
        pixels(&form.post(EDITS)).dimensions()
    };
    assert_eq!(edit("auto"), (96, 64));
    assert_eq!(edit(""), (96, 64));
    assert_eq!(edit("64x64"), (64, 64));
}

/// Posts an edit and expects a 400 with this parameter and code whose message holds `word`.
#[track_caller]
fn refused(answer: &Answer, param: &str, code: &str, word: &str) {
    let (named, message) = answer.error(400);
    assert_eq!(named, param, "{message}");
    assert_eq!(answer.json()["error"]["code"], code, "{message}");
    assert!(message.contains(word), "'{word}' is not in: {message}");
}

#[test]
fn an_edit_needs_one_picture_and_a_prompt() {
    let file = png(scene(64, 64));
    refused(&Form::quick().text("prompt", "a").post(EDITS), "image", "invalid_value", "required");
    refused(&Form::quick().file("image", &file).post(EDITS), "prompt", "invalid_value", "required");
    refused(&Form::edit(&file).text("prompt", "b").post(EDITS), "prompt", "invalid_value", "more than once");
    for second in ["image", "image[]", "image[1]"] {
        refused(&Form::edit(&file).file(second, &file).post(EDITS), "image", "invalid_value", "one picture");
    }
    let masks = Form::edit(&file).file("mask", &file).file("mask", &file);
    refused(&masks.post(EDITS), "mask", "invalid_value", "more than once");
    let two = json_edit(json!({"images": [{"image_url": "a"}, {"image_url": "b"}]}));
    refused(&two, "images", "invalid_value", "got 2");
    refused(&json_edit(json!({})), "images", "invalid_value", "required");
    let stored = json_edit(json!({"images": [{"file_id": "file-1"}]}));
    refused(&stored, "images[0].file_id", "invalid_value", "keeps no files");
}

#[test]
fn a_file_that_is_no_picture_is_refused_with_openais_code() {
    let edit = |file: &[u8]| Form::edit(file).post(EDITS);
    let whole = png(scene(64, 64));
    refused(&edit(b""), "image", "empty_image_file", "is empty");
    refused(&edit(b"Example data"), "image", "invalid_image_format", "it is none");
    refused(&edit(b"GIF89a\x01\0\x01\0\0\0\0;"), "image", "unsupported_image_media_type", "it is Gif");
    refused(&edit(&whole[..whole.len() / 2]), "image", "invalid_image", "cut short");
    let mask = |file: &[u8]| Form::edit(&whole).file("mask", file).post(EDITS);
    refused(&mask(b"Example data"), "mask", "invalid_image_format", "it is none");
    refused(&mask(b""), "mask", "empty_image_file", "is empty");
    let small = mask(&png(cut_out(&scene(64, 32))));
    refused(&small, "mask", "invalid_value", "as large as the image, 64x64; it is 64x32");
    let image = |url: &str| json_edit(json!({"images": [{"image_url": url}]}));
    let param = "images[0].image_url";
    refused(&image("data:image/png;base64,@"), param, "invalid_base64_image", "not base64");
    refused(&image("data:text/plain;base64,QQ=="), param, "unsupported_image_media_type", "text/plain");
    refused(
        &image(&data_url("image/jpeg", &whole)),
        param,
        "invalid_image_format",
        "its content is image/png",
    );
    refused(&image("data:image/png;base64,"), param, "empty_image_file", "is empty");
    refused(&image("https://example.com/a.png"), param, "invalid_image_url", "fetches nothing");
}

#[test]
fn a_picture_that_claims_more_pixels_than_are_decoded_is_refused_from_its_header() {
    let mut bomb = png(scene(8, 8));
    bomb[16..24].copy_from_slice(&[0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    let crc = crc(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    refused(&Form::edit(&bomb).post(EDITS), "image", "image_too_large", "it is 32768x32768");
}

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[test]
fn a_file_that_the_browser_user_did_not_choose_is_absent() {
    let file = png(scene(64, 64));
    let unchosen = "content-disposition: form-data; name=\"mask\"; filename=\"\"";
    let answer = Form::edit(&file).part(unchosen, b"").post(EDITS);
    assert_eq!(answer.files(), Form::edit(&file).post(EDITS).files());
}

#[test]
fn other_media_types_are_refused_with_those_that_are_read() {
    for kind in ["text/plain", "application/x-www-form-urlencoded", "image/png", ""] {
        let head = format!("POST {EDITS} HTTP/1.1\r\ncontent-type: {kind}");
        let (_, message) = exchange(shared(), &head, b"{}").error(415);
        assert!(message.contains("multipart/form-data or application/json"), "{message}");
    }
}
