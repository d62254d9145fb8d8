//! `Idempotency-Key`: what comes again is answered and not drawn again.

use crate::support::{
    Answer, GENERATIONS, Samples, eventually, exchange, quick, receive, send, send_framed, start, start_with,
};
use easel::engine::Settings;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};

/// A picture whose seed the server draws: no two are alike.
fn any(fields: Value) -> Vec<u8> {
    let mut body = quick(fields);
    body["seed"] = Value::Null;
    body.to_string().into_bytes()
}

fn head(key: &str) -> String {
    format!("{GENERATIONS}\r\nidempotency-key: {key}")
}

fn ask(server: SocketAddr, key: &str, fields: Value) -> TcpStream {
    send(server, &head(key), &any(fields))
}

fn drawn(server: SocketAddr) -> f64 {
    Samples::of(server).get("easel_images_total")
}

fn is_again(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[test]
fn a_request_that_comes_again_gets_the_first_answer_and_draws_nothing() {
    let server = start(8);
    let first = receive(ask(server, "one", json!({"user": "me"})));
    assert!(first.files().len() == 1 && !is_again(&first));
    let again = receive(ask(server, "one", json!({"user": "me"})));
    assert!(is_again(&again) && again.body == first.body);
    for name in ["content-type", "easel-seed", "easel-ignored"] {
        assert!(first.header(name).is_some() && again.header(name) == first.header(name), "{name}");
    }
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"), "it is a request of its own");
    assert_eq!(drawn(server), 1.0);
    let other = receive(ask(server, "two", json!({"user": "me"})));
    assert!(!is_again(&other) && other.body != first.body, "another key is another picture");
    let head = format!("{}\r\nauthorization: Bearer somebody", head("one"));
    let other = exchange(server, &head, &any(json!({"user": "me"})));
    assert!(!is_again(&other) && other.body != first.body, "and so is another caller");
    let chunked = format!("{}\r\ntransfer-encoding: chunked", self::head("one"));
    let body = any(json!({"user": "me"}));
    let chunks = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    assert!(receive(send_framed(server, &chunked, &chunks)).body == first.body, "however it is framed");
    assert_eq!(drawn(server), 3.0);
}

#[test]
fn requests_that_come_while_the_first_is_drawn_wait_for_its_answer() {
    let server = start(8);
    let asked: Vec<TcpStream> = (0..4).map(|_| ask(server, "one", json!({"steps": 60}))).collect();
    let answers: Vec<Answer> = asked.into_iter().map(receive).collect();
    assert!(answers.iter().all(|answer| answer.files().len() == 1 && answer.body == answers[0].body));
    assert_eq!(answers.iter().filter(|answer| is_again(answer)).count(), 3);
    assert_eq!(drawn(server), 1.0);
}

#[test]
fn a_caller_who_leaves_finds_its_picture_when_it_asks_again_with_its_key() {
    let server = start(8);
    let left = ask(server, "one", json!({"steps": 60}));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    let waits = ask(server, "one", json!({"steps": 60}));
    drop(left);
    let answer = receive(waits);
    assert!(answer.files().len() == 1 && is_again(&answer));
    let left = ask(server, "two", json!({"steps": 60}));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    drop(left);
    eventually("it is drawn although nobody waits", || drawn(server) == 2.0);
    let answer = receive(ask(server, "two", json!({"steps": 60})));
    assert!(answer.files().len() == 1 && is_again(&answer));
    assert_eq!((drawn(server), Samples::of(server).get("easel_cancelled_total")), (2.0, 0.0));
}

#[test]
fn a_key_is_for_one_request() {
    let server = start(8);
    let first = receive(ask(server, "one", json!({})));
    for fields in [json!({"steps": 3}), json!({"user": "me"})] {
        let refused = receive(ask(server, "one", fields));
        let (_, message) = refused.error(409);
        assert!(message.contains("Idempotency-Key"), "{message}");
        assert_eq!(refused.json()["error"]["code"], "idempotency_key_reused");
        assert_eq!(refused.header("x-should-retry"), Some("false"), "a second attempt would be refused too");
    }
    assert!(receive(ask(server, "one", json!({}))).body == first.body, "the first answer stays");
    let busy = ask(server, "two", json!({"steps": 200}));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    receive(ask(server, "two", json!({"steps": 201}))).error(409);
    assert_eq!(receive(busy).files().len(), 1);
    assert_eq!(Samples::of(server).get("easel_rejected_total{reason=\"key_reused\"}"), 3.0);
}

#[test]
fn a_failure_is_not_kept() {
    let server = start(1);
    receive(ask(server, "one", json!({"steps": 0}))).error(400);
    assert_eq!(receive(ask(server, "one", json!({}))).files().len(), 1, "the key is free for what is right");
    eventually("its place is free", || Samples::of(server).inside() == 0.0);
    let endless = send(server, GENERATIONS, &any(json!({"steps": 1000, "size": "256x256"})));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    receive(ask(server, "two", json!({}))).error(429);
    drop(endless);
    eventually("the queue is empty", || Samples::of(server).inside() == 0.0);
    let answer = receive(ask(server, "two", json!({})));
    assert!(answer.files().len() == 1 && !is_again(&answer));
}

#[test]
fn a_request_whose_body_broke_off_is_no_request() {
    let server = start_with(Settings { queue: 8, rows: Some(1), remember: false });
    let body = any(json!({}));
    let head = format!("{}\r\ncontent-length: {}", head("one"), body.len());
    let half = send_framed(server, &head, &body[..body.len() / 2]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let waits = ask(server, "one", json!({}));
    drop(half);
    let answer = receive(waits);
    assert!(answer.files().len() == 1 && !is_again(&answer), "it is drawn in the first one's place");
    assert_eq!(drawn(server), 1.0);
}

#[test]
fn a_stream_is_for_its_own_caller_and_leaves_its_key_free() {
    let server = start(8);
    for _ in 0..2 {
        let stream = receive(ask(server, "one", json!({"stream": true})));
        assert!(stream.status == 200 && !is_again(&stream), "{}", stream.text());
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    }
    assert_eq!(drawn(server), 2.0);
    let left = ask(server, "one", json!({"stream": true, "steps": 1000, "size": "256x256"}));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    drop(left);
    eventually("it is cancelled", || Samples::of(server).get("easel_cancelled_total") == 1.0);
}

#[test]
fn a_key_is_short_and_plain_and_for_what_draws() {
    let server = start(8);
    for key in ["x".repeat(256), "gr\u{fc}n".into(), String::new()] {
        let (param, message) = receive(ask(server, &key, json!({}))).error(400);
        assert_eq!(param, "Idempotency-Key");
        assert!(message.contains("1 to 255"), "{message}");
    }
    for path in ["/v1/models", "/v1/models", "/healthz"] {
        let answer = exchange(server, &format!("GET {path} HTTP/1.1\r\nidempotency-key: one"), b"");
        assert!(answer.status == 200 && !is_again(&answer));
    }
    assert_eq!(receive(ask(server, &"x".repeat(255), json!({}))).files().len(), 1);
}
