//! What holds of every body that comes in: it is read or refused in words, and never panics.

use super::data_url;
use super::error::{ApiError, ApiResult};
use super::inputs::Source;
use super::models::Resident;
use super::multipart::{self, Form};
use super::parse::{self, Body, Draft};
use super::room::Room;
use crate::engine::Model;
use crate::output::fuzzing::{Corpus, holds};
use crate::request::{Defaults, Guidance, SamplerKind, ScheduleKind, Seed, Size, Sizes, Steps};
use actix_web::ResponseError;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use actix_web::web::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::iter;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// The boundary of the corpus' forms.
const BOUNDARY: &str = "edge";

/// The words of JSON bodies.
const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"null",
    b"true",
    b"1e308",
    b"-0.0",
    b"1.0",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud83d\\ude00",
    b"\"prompt\":",
    b"\"size\":",
    b"\"n\":",
    b"\"image\":",
    b"\"images\":[",
    b"\"mask\":",
    b"\"image_url\":",
    b"\"file_id\":",
    b"data:image/png;base64,",
    b"https://a/",
    b"\"strength\":",
    b"\"seed\":",
    b"\"steps\":",
    b"\xFF",
];

/// The words of forms.
const FORM: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"--edge",
    b"\r\n--edge\r\n",
    b"\r\n--edge--\r\n",
    b"content-disposition: form-data; ",
    b"name=\"prompt\"",
    b"name=\"image[]\"; filename=\"a\"",
    b"name=\"mask\"; filename=\"\"",
    b"filename*=UTF-8''%ff",
    b"content-type: multipart/mixed; boundary=x\r\n",
    b"content-length: 5\r\n",
    b"content-length: -1\r\n",
    b"\"",
    b"\0",
    b"\xFF",
];

fn model() -> Model {
    let defaults = Defaults {
        size: Size::new(64, 64).unwrap(),
        sizes: Sizes::ANY,
        steps: Steps::new(4).unwrap(),
        sampler: SamplerKind::Euler,
        schedule: ScheduleKind::Normal,
        guidance: Guidance::new(4.0).unwrap(),
    };
    Model { name: "sketch".into(), defaults }
}

/// Checks that a refusal is one that a caller can act on.
fn is_in_words(error: &ApiError) {
    let status = error.status_code().as_u16();
    assert!(
        [400, 404, 408, 413, 415, 503].contains(&status) && !error.to_string().is_empty(),
        "{status} {error}"
    );
}

/// Follows a draft to its end, as far as nothing is to be fetched.
fn follow(draft: ApiResult<Draft>, resident: Resident) {
    let resolved = draft.and_then(|draft| {
        let inputs = [Some(&draft.inputs.image), draft.inputs.mask.as_ref()];
        let is_fetched = inputs.into_iter().flatten().all(|input| matches!(input.source, Source::File(_)));
        if is_fetched { draft.resolve(resident, Seed(7)).map(drop) } else { Ok(()) }
    });
    resolved.unwrap_or_else(|error| is_in_words(&error));
}

/// Reads a form that arrives in chunks of `size` bytes.
fn read(body: &[u8], size: usize) -> ApiResult<Form> {
    let mut headers = HeaderMap::new();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&kind).unwrap());
    let chunks: Vec<_> = body.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let mut hold = Room::new(1 << 20).hold();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(multipart::form(&headers, iter(chunks), &mut hold))
}

#[test]
fn every_json_body_is_read_or_refused_in_words() {
    let model = model();
    let resident = Resident::alone(&model);
    holds(Corpus::of_folder("tests/corpus/json", JSON).damaged(), |body| {
        let drawn = parse::generation(&body, resident, Seed(7));
        drawn.map(drop).unwrap_or_else(|error| is_in_words(&error));
        follow(parse::edit(Body::Json(body.into()), resident), resident);
    });
}

#[test]
fn every_form_is_read_or_refused_in_words_however_it_is_cut_into_chunks() {
    let model = model();
    let resident = Resident::alone(&model);
    holds((Corpus::of_folder("tests/corpus/forms", FORM).damaged(), 1..400_usize), |(body, size)| {
        let whole = read(&body, body.len().max(1));
        let parts = read(&body, size);
        assert_eq!(whole.is_ok(), parts.is_ok());
        for form in [whole, parts] {
            follow(form.and_then(|form| parse::edit(Body::Form(form), resident)), resident);
        }
        follow(read(&body, size).and_then(|form| parse::variation(form, resident)), resident);
    });
}

#[test]
fn what_a_well_formed_form_says_is_what_is_read() {
    let name = || "[a-z_]{1,12}".prop_filter("no picture", |name| name != "image" && name != "mask");
    let texts = vec((name(), "[^-]{0,40}"), 0..10);
    holds((texts, vec(any::<u8>(), 1..200), 1..300_usize), |(texts, file, size)| {
        let mut body = Vec::new();
        for (name, text) in &texts {
            let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend([head.as_bytes(), text.as_bytes(), b"\r\n"].concat());
        }
        let head =
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n");
        body.extend([head.as_bytes(), &file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat());
        let form = read(&body, size).unwrap();
        let expected: Vec<_> = texts.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
        assert_eq!((form.texts, form.image, form.mask), (expected, Some(file.into()), None));
    });
}

#[test]
fn every_data_url_gives_its_file_back_and_no_text_makes_its_reader_panic() {
    holds(vec(any::<u8>(), 0..200), |file| {
        let url = format!("data:;base64,{}", STANDARD.encode(&file));
        assert_eq!(data_url::decode(&url, "image"), Ok(file));
    });
    let heads = "(data|DATA|http)?:?(image/(png|jpg|gif))?(;[a-z0-9=]{0,8}){0,2}(;base64)?,?";
    holds((heads, "\\PC{0,40}"), |(head, rest)| {
        let url = head + &rest;
        if let Err(error) = data_url::decode(&url, "image") {
            is_in_words(&error.into());
        }
    });
}
