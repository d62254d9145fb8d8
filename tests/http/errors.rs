//! Errors that no route makes: what is no request, what is no route, and answers without a body.

use crate::support::{GENERATIONS, draw, exchange, receive, send_framed, shared, start_as};
use easel::api;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Sends bytes that need not be HTTP and reads what comes back until the server closes.
fn raw(bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(shared()).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_no_request_is_refused_and_the_server_goes_on() {
    let long = "x".repeat(200_000);
    for (bytes, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n".to_owned(), "400"),
        (format!("{GENERATIONS}\r\nhost: a\r\ncontent-length: x\r\n\r\n"), "400"),
        (format!("{GENERATIONS}\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400"),
        (format!("{GENERATIONS}\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"), "400"),
        (
            format!("{GENERATIONS}\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n"),
            "400",
        ),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), "431"),
    ] {
        let answer = raw(bytes.as_bytes());
        assert_eq!(answer.split(' ').nth(1), Some(status), "{bytes:.60}: {answer:.200}");
    }
    assert_eq!(draw(json!({})).files().len(), 1);
}

#[test]
fn a_long_path_is_no_route_and_comes_back_shortened() {
    let (_, message) = exchange(shared(), &format!("GET /{} HTTP/1.1", "x".repeat(60_000)), b"").error(404);
    assert!(message.len() < 200, "{message}");
}

#[test]
fn a_chunk_that_is_broken_is_a_body_that_did_not_arrive() {
    let head = format!("{GENERATIONS}\r\ntransfer-encoding: chunked");
    let answer = receive(send_framed(shared(), &head, b"5\r\n{\"a\": 1}\r\n0\r\n\r\n"));
    assert_eq!(answer.status, 400);
}

#[test]
fn a_caller_that_waits_for_leave_to_send_its_body_gets_it() {
    let body = json!({"prompt": ""}).to_string();
    let head = format!(
        "{GENERATIONS}\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = raw(format!("{head}{body}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400") && answer.contains("prompt"), "{answer}");
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_is() {
    for (path, status) in [
        ("/healthz", 200),
        ("/v1/models", 200),
        ("/v1/models/other", 404),
        ("/nowhere", 404),
        ("/v1/images/generations", 405),
    ] {
        let answer = exchange(shared(), &format!("HEAD {path} HTTP/1.1"), b"");
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
    }
}

#[test]
fn a_request_whose_time_is_up_says_so_and_that_another_attempt_is_in_vain() {
    let timeout = Some(Duration::from_millis(300));
    let server = start_as(api::Settings { timeout, ..api::Settings::default() });
    let body = json!({"prompt": "red apple", "size": "256x256", "steps": 1000}).to_string();
    let late = exchange(server, GENERATIONS, body.as_bytes());
    let (_, message) = late.error(504);
    assert!(message.contains("time was up"), "{message}");
    assert_eq!(late.json()["error"]["code"], "timeout");
    assert_eq!((late.header("x-should-retry"), late.header("retry-after")), (Some("false"), None));
}
