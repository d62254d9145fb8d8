//! Bad input: each a clear refusal that names the parameter, none a panic or a hang.

use crate::support::{GENERATIONS, draw, exchange, post, receive, send_framed, shared};
use serde_json::{Value, json};

/// Draws with one field changed and expects a 400 that names it and holds every one of `words`.
#[track_caller]
fn refused(name: &str, value: Value, words: &[&str]) {
    let (param, message) = draw(json!({ name: value })).error(400);
    assert_eq!(param, json!(name), "{message}");
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
}

#[test]
fn values_out_of_bounds_are_refused_with_the_bound_and_the_value() {
    for size in ["0", "0x0", "7x7", "100000x8", "31x64", "64x4097", "x", "-64x64", "99999999999999999999x64"]
    {
        refused("size", json!(size), &["each from 32 to 4096", size]);
    }
    for steps in [json!(0), json!(10_001), json!(-1), json!(1.5), json!(1e300)] {
        refused("steps", steps.clone(), &["from 1 to 1000", &steps.to_string()]);
    }
    for n in [0, 11, -1] {
        refused("n", json!(n), &["from 1 to 10", &n.to_string()]);
    }
    for guidance in [json!(0.5), json!(-1), json!(1e9)] {
        refused("guidance_scale", guidance, &["from 1 to 100"]);
    }
    refused("guidance_rescale", json!(1.1), &["from 0 to 1", "1.1"]);
    refused("clip_skip", json!(13), &["from 0 to 12", "13"]);
    refused("seed", json!(-1), &["18446744073709551615", "-1"]);
    refused("output_compression", json!(101), &["0 to 100", "101"]);
    refused("partial_images", json!(4), &["0 to 3", "4"]);
}

#[test]
fn guidance_that_is_no_number_is_refused() {
    refused("guidance_scale", json!("NaN"), &["must be a number", "the string 'NaN'"]);
    for literal in ["NaN", "Infinity", "-Infinity", "1e999"] {
        let body = format!(r#"{{"prompt": "red apple", "size": "64x64", "guidance_scale": {literal}}}"#);
        let (param, message) = post(body.as_bytes()).error(400);
        assert_eq!(param, Value::Null);
        assert!(message.contains("not JSON"), "{message}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    refused("sampler", json!("eulr"), &["eulr", "euler, euler_ancestral, heun", "uni_pc, lcm"]);
    refused("schedule", json!("korras"), &["korras", "normal, karras", "linspace"]);
    for format in ["gif", "svg"] {
        refused("output_format", json!(format), &["png, jpeg, webp", format]);
    }
    refused("quality", json!("best"), &["standard", "best"]);
    refused("style", json!("cubist"), &["vivid, natural", "cubist"]);
}

#[test]
fn a_prompt_is_needed_and_bounded() {
    for empty in ["", "  \n"] {
        refused("prompt", json!(empty), &["must not be empty"]);
    }
    refused("prompt", Value::Null, &["required"]);
    refused("prompt", json!("é".repeat(40_000)), &["32000", "40000"]);
    refused("prompt", json!("apple ".repeat(5_000)), &["1200 tokens", "5000"]);
    refused("negative_prompt", json!("x".repeat(40_000)), &["32000", "40000"]);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    refused("response_format", json!("file"), &["url or b64_json", "file"]);
    refused("strength", json!(0.5), &["needs an image"]);
    refused("image", json!("data:image/png;base64,"), &["no parameter of this route"]);
    let (param, message) = draw(json!({"model": "sdxl"})).error(404);
    assert_eq!(param, "model");
    assert!(message.contains("'sdxl'") && message.contains("'sketch'"), "{message}");
}

#[test]
fn a_wrong_type_is_refused_with_what_was_expected_and_what_was_given() {
    let texts = [
        "prompt",
        "negative_prompt",
        "size",
        "model",
        "sampler",
        "schedule",
        "scheduler",
        "response_format",
        "output_format",
        "quality",
        "style",
        "user",
        "background",
        "moderation",
    ];
    for name in texts {
        refused(name, json!(5), &["must be a string", "the number 5"]);
        refused(name, json!(["a"]), &["must be a string", "an array"]);
    }
    for name in ["n", "seed", "clip_skip", "output_compression", "partial_images", "steps"] {
        refused(name, json!("5"), &["must be a whole number", "the string '5'"]);
        refused(name, json!(true), &["must be a whole number", "true"]);
    }
    for name in ["guidance_scale", "guidance_rescale", "strength"] {
        refused(name, json!({"a": 1}), &["must be a number", "an object"]);
    }
    refused("stream", json!("true"), &["true or false", "the string 'true'"]);
}

#[test]
fn two_spellings_of_one_field_are_refused() {
    refused("num_inference_steps", json!(2), &["steps and num_inference_steps are the same"]);
    refused("cfg_scale", json!(1), &["guidance_scale and cfg_scale are the same"]);
    let (param, message) = draw(json!({"sampler": "DPM++ 2M Karras", "schedule": "normal"})).error(400);
    assert_eq!(param, "schedule", "{message}");
}

#[test]
fn a_body_that_is_no_json_object_is_refused() {
    let bodies: [&[u8]; 8] =
        [b"", b"{", b"[]", b"null", b"\"red apple\"", b"{\"prompt\": }", b"\xef\xbb\xbf{}", b"\x00"];
    for body in bodies {
        assert_eq!(post(body).error(400).0, Value::Null);
    }
    let (_, message) = post(b"{\"prompt\": \"red \xff apple\"}").error(400);
    assert_eq!(message, "the body is not UTF-8 from byte 16");
    post("[".repeat(500_000).as_bytes()).error(400);
    post(br#"{"prompt": "\ud800"}"#).error(400);
}

#[test]
fn a_body_over_the_limit_is_refused_whole_or_chunked() {
    for megabytes in [2, 40] {
        let body = vec![b' '; megabytes << 20];
        let (_, message) = post(&body).error(413);
        assert!(message.contains("1048576"), "{message}");
    }
    let chunk = [&b"80000\r\n"[..], &[b' '; 0x80000], b"\r\n"].concat();
    let body = [chunk.repeat(3).as_slice(), b"0\r\n\r\n"].concat();
    let head = format!("{GENERATIONS}\r\ntransfer-encoding: chunked");
    receive(send_framed(shared(), &head, &body)).error(413);
}

#[test]
fn other_media_types_are_refused_and_parameters_of_json_are_not() {
    let kinds =
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"];
    for kind in kinds {
        let head = format!("POST /v1/images/generations HTTP/1.1\r\ncontent-type: {kind}");
        let (_, message) = exchange(shared(), &head, b"{}").error(415);
        assert!(message.contains("application/json") && message.contains(kind), "{message}");
    }
    exchange(shared(), "POST /v1/images/generations HTTP/1.1", b"{}").error(415);
    let head = format!("{GENERATIONS}; charset=utf-8");
    assert_eq!(exchange(shared(), &head, b"{}").error(400).0, "prompt");
}
