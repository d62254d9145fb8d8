//! The real program, told to stop.

use crate::program::Program;
use crate::support::{Samples, eventually, exchange, receive};
use serde_json::json;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

#[test]
fn sigterm_loses_no_request_that_fits_into_the_grace_time_and_refuses_new_ones() {
    let mut program = Program::start(&["--grace", "100"]);
    let asked: Vec<TcpStream> =
        (0..8).map(|k| program.ask(json!({"steps": 8, "seed": k, "guidance_scale": 1 + k % 2}))).collect();
    eventually("all are inside", || Samples::of(program.server).inside() == 8.0);
    program.signal("TERM");
    eventually("the program is not ready any more", || program.readiness() == Some(503));
    let state = exchange(program.server, "GET /readyz HTTP/1.1", b"");
    assert_eq!(state.json(), json!({"status": "draining"}));
    assert_eq!(exchange(program.server, "GET /healthz HTTP/1.1", b"").status, 200);
    let refused = receive(program.ask(json!({})));
    refused.error(503);
    assert!(refused.header("retry-after").is_some(), "a refusal says when to come back");
    for (k, stream) in asked.into_iter().enumerate() {
        assert_eq!(receive(stream).files().len(), 1, "request {k} was taken on");
    }
    assert_eq!(program.end(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn sigterm_lets_a_stream_come_to_its_end() {
    let mut program = Program::start(&["--grace", "100"]);
    let stream = program.ask(json!({"stream": true, "partial_images": 2, "steps": 24, "size": "256x256"}));
    eventually("it is inside", || Samples::of(program.server).inside() == 1.0);
    program.signal("TERM");
    eventually("the program is not ready any more", || program.readiness() == Some(503));
    let text = receive(stream).chunks();
    assert_eq!(text.matches("event: image_generation.partial_image").count(), 2);
    assert_eq!(text.matches("event: image_generation.completed").count(), 1);
    assert_eq!(program.end(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn what_does_not_fit_into_the_grace_time_is_answered_503() {
    let mut program = Program::start(&["--grace", "1"]);
    let endless = program.ask(json!({"steps": 1000, "size": "256x256"}));
    eventually("it is inside", || Samples::of(program.server).inside() == 1.0);
    program.signal("INT");
    let unfinished = receive(endless);
    unfinished.error(503);
    assert!(unfinished.header("retry-after").is_some());
    assert_eq!(program.end(Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut program = Program::start(&["--grace", "100"]);
        let endless = program.ask(json!({"n": 4, "steps": 1000, "size": "256x256"}));
        eventually("it is inside", || Samples::of(program.server).inside() >= 1.0);
        program.signal("TERM");
        eventually("the program is not ready any more", || program.readiness() == Some(503));
        program.signal(signal);
        assert_eq!(program.end(Duration::from_secs(5)).code(), Some(status));
        drop(endless);
    }
}

#[test]
fn a_model_that_is_not_there_ends_the_program_with_its_reason() {
    let ended = Command::new(env!("CARGO_BIN_EXE_easel"))
        .args(["serve", "--port", "0", "--model", "/nowhere/model"])
        .output()
        .expect("easel runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("/nowhere/model"), "{said}");
}
