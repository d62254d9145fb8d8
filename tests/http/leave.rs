//! Callers who leave, and callers who find the queue full.

use crate::support::{GENERATIONS, exchange, quick, receive, send, send_framed, start};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_caller_who_leaves_stops_the_drawing_and_a_full_queue_is_refused_with_a_time() {
    let server = start(1);
    let endless = quick(json!({"n": 10, "steps": 1000, "size": "256x256"})).to_string();
    let running = send(server, GENERATIONS, endless.as_bytes());
    std::thread::sleep(Duration::from_millis(500));
    let waiting = send(server, GENERATIONS, endless.as_bytes());
    std::thread::sleep(Duration::from_millis(500));

    let refused = exchange(server, GENERATIONS, quick(json!({})).to_string().as_bytes());
    let (_, message) = refused.error(429);
    assert!(message.contains("queue"), "{message}");
    let seconds: u64 = refused.header("retry-after").expect("a time").parse().expect("whole seconds");
    assert!((1..60).contains(&seconds), "{seconds}");
    assert_eq!(
        exchange(server, "GET /healthz HTTP/1.1", b"").status,
        200,
        "the server answers while it draws"
    );

    drop((running, waiting));
    let left = Instant::now();
    loop {
        let answer = exchange(server, GENERATIONS, quick(json!({})).to_string().as_bytes());
        if answer.status == 200 {
            break;
        }
        answer.error(429);
        assert!(left.elapsed() < Duration::from_secs(60), "the drawing went on after its caller had left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_caller_who_breaks_off_within_the_body_harms_no_one() {
    let server = start(4);
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let head = format!("{GENERATIONS}\r\n{framing}");
        drop(send_framed(server, &head, b""));
        drop(send_framed(server, &head, b"10\r\n{\"prompt\": \"red "));
    }
    let answer = receive(send(server, GENERATIONS, quick(json!({})).to_string().as_bytes()));
    assert_eq!(answer.files().len(), 1);
}
