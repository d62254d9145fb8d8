//! Hostile uploads: forms that are broken, endless, or too large, and more of them than the server holds.

use crate::forms::{EDITS, Form, head, png, scene};
use crate::support::{common_store, eventually, exchange, receive, send_framed, serve_as, shared, stored_in};
use easel::api;
use easel::engine::Settings;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// A server that holds a mebibyte of callers' pictures.
fn small_room() -> SocketAddr {
    let engine = Settings { queue: 4, rows: None, remember: false };
    serve_as(engine, api::Settings { room: 1 << 20, ..stored_in(&common_store()) })
}

/// The message of the refusal of a form with `status`.
#[track_caller]
fn refused(form: &Form, status: u16) -> String {
    form.post(EDITS).error(status).1
}

#[test]
fn a_form_without_a_boundary_or_with_another_one_is_refused() {
    let body = Form::edit(&png(scene(8, 8))).body();
    for kind in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"]
    {
        let head = format!("POST {EDITS} HTTP/1.1\r\ncontent-type: {kind}");
        let (_, message) = exchange(shared(), &head, &body).error(400);
        assert!(message.contains("multipart body"), "{kind}: {message}");
    }
}

#[test]
fn a_form_that_is_cut_anywhere_is_refused() {
    let body = Form::edit(&png(scene(8, 8))).body();
    let cuts = (0..body.len() - 60).step_by(31).chain(body.len() - 60..body.len() - 4);
    for length in cuts {
        let (_, message) = exchange(shared(), &head(EDITS), &body[..length]).error(400);
        assert!(message.contains("multipart body") || message.contains("required"), "{length}: {message}");
    }
}

#[test]
fn a_connection_that_breaks_off_within_a_form_harms_no_one() {
    let form = Form::edit(&png(scene(8, 8)));
    let head = format!("{}\r\ncontent-length: 100000", head(EDITS));
    for _ in 0..8 {
        let stream = send_framed(shared(), &head, form.open());
        stream.shutdown(Shutdown::Both).ok();
    }
    assert_eq!(form.post(EDITS).files().len(), 1);
}

#[test]
fn parts_that_are_no_fields_of_a_form_are_refused() {
    for (part, word) in [
        ("content-type: image/png", "content-disposition"),
        ("content-disposition: attachment; name=\"prompt\"", "content-disposition"),
        ("content-disposition: form-data", "content-disposition"),
        (
            "content-disposition: form-data; name=\"a\"\r\ncontent-type: multipart/mixed; boundary=x",
            "multipart itself",
        ),
        ("no header at all", "cannot be read"),
        ("content-disposition: form-data; name=\"prompt\"\r\ncontent-length: 100000", "cut short"),
        ("content-disposition: form-data; name=\"prompt\"\r\ncontent-length: many", "not arrive whole"),
    ] {
        let message = refused(&Form::quick().part(part, b"red apple"), 400);
        assert!(message.contains(word), "{part}: {message}");
    }
}

#[test]
fn the_headers_of_a_part_are_bounded_in_number_and_length() {
    let field = "content-disposition: form-data; name=\"prompt\"";
    let many: String = (0..40).map(|k| format!("\r\nx-{k}: a")).collect();
    let long = format!("\r\nx: {}", "a".repeat(100_000));
    for headers in [many, long] {
        let message = refused(&Form::quick().part(&format!("{field}{headers}"), b"a"), 400);
        assert!(message.contains("the headers of a part"), "{message}");
    }
}

#[test]
fn parts_and_texts_are_bounded_in_number_and_length() {
    let many = (0..65).fold(Form::default(), |form, k| form.text(&format!("field{k}"), "a"));
    assert!(refused(&many, 400).contains("more than 64 parts"));
    let long = Form::quick().text("prompt", &"a".repeat(300 << 10)).post(EDITS);
    let (param, message) = long.error(400);
    assert_eq!(param, "prompt");
    assert!(message.contains("262144 bytes"), "{message}");
    let unknown = Form::quick().text("zoom", &"a".repeat(300 << 10));
    assert!(refused(&unknown, 400).contains("zoom has more than 262144 bytes"));
    let all = (0..6).fold(Form::default(), |form, k| form.text(&format!("field{k}"), &"a".repeat(250 << 10)));
    assert!(refused(&all, 400).contains("more than 1048576 bytes"));
    let (param, message) =
        Form::edit(&png(scene(8, 8))).text("negative_prompt", &"a".repeat(33_000)).post(EDITS).error(400);
    assert_eq!(param, "negative_prompt", "{message}");
}

#[test]
fn texts_that_are_no_texts_are_refused() {
    let latin1 = Form::default().part("content-disposition: form-data; name=\"prompt\"", b"caf\xe9");
    assert!(refused(&latin1, 400).contains("prompt is not UTF-8 from byte 3"));
    let file = Form::quick().file("image", &png(scene(8, 8))).file("prompt", b"red apple");
    let (param, message) = file.post(EDITS).error(400);
    assert_eq!(param, "prompt");
    assert!(message.contains("got a file"), "{message}");
}

#[test]
fn a_file_that_nobody_reads_is_named_and_not_kept() {
    let server = small_room();
    let form = Form::edit(&png(scene(64, 64))).file("control_image", &vec![0; 4 << 20]);
    let answer = form.post_to(server, EDITS);
    assert_eq!(answer.files().len(), 1);
    assert_eq!(answer.header("easel-ignored"), Some("control_image"));
}

#[test]
fn a_picture_file_over_fifty_mebibytes_is_refused_by_its_parameter() {
    let answer = Form::quick().file("image", &vec![0; (50 << 20) + 1]).post(EDITS);
    let (param, message) = answer.error(400);
    assert_eq!((param, &answer.json()["error"]["code"]), ("image".into(), &"image_file_too_large".into()));
    assert!(message.contains("52428800"), "{message}");
}

#[test]
fn a_body_over_the_bound_is_refused_whole_or_chunked() {
    let junk = Form::quick().file("zoom", &vec![0; 60 << 20]).file("zoom", &vec![0; 60 << 20]);
    assert!(refused(&junk, 413).contains("larger than 109051904 bytes"));
    let chunk = [&b"100000\r\n"[..], &vec![b' '; 0x100000], b"\r\n"].concat();
    let body = [chunk.repeat(45).as_slice(), b"0\r\n\r\n"].concat();
    let head =
        format!("POST {EDITS} HTTP/1.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked");
    receive(send_framed(shared(), &head, &body)).error(413);
}

#[test]
fn uploads_beyond_the_room_are_refused_with_a_time_and_taken_when_others_are_gone() {
    let server = small_room();
    let large = Form::quick().text("prompt", "a").file("image", &vec![0; 2 << 20]);
    let answer = large.post_to(server, EDITS);
    let (_, message) = answer.error(503);
    assert!(message.contains("1 MiB") && answer.header("retry-after").is_some(), "{message}");
    // Two that have sent most of what they will send leave no room for a third; one that is refused because the third
    // came before it was done sends again.
    let part = Form::quick().file("image", &vec![0; 500 << 10]);
    let framed = format!("{}\r\ncontent-length: 10000000", head(EDITS));
    let mut held = Vec::new();
    eventually("the room is taken", || {
        held = (0..2).map(|_| send_framed(server, &framed, part.open())).collect();
        std::thread::sleep(Duration::from_millis(100));
        Form::quick().file("image", &vec![0; 300 << 10]).post_to(server, EDITS).status == 503
    });
    drop(held);
    let third = Form::edit(&png(scene(64, 64)));
    eventually("the room is free again", || third.post_to(server, EDITS).status == 200);
}
