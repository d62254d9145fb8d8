//! Callers who leave, and callers who find the queue full.

use crate::support::{
    GENERATIONS, Samples, eventually, exchange, quick, receive, send, send_framed, start, start_with,
};
use easel::engine::Settings;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Asks for pictures and does not wait for them.
fn ask(server: SocketAddr, fields: Value) -> TcpStream {
    send(server, GENERATIONS, quick(fields).to_string().as_bytes())
}

/// A picture that no test waits for.
fn endless() -> Value {
    json!({"steps": 1000, "size": "256x256"})
}

/// Waits until nothing is inside, and checks that the device then rests.
#[track_caller]
fn comes_to_rest(server: SocketAddr) {
    eventually("nothing is left inside", || Samples::of(server).inside() == 0.0);
    let work = |samples: &Samples| {
        samples.sum("easel_step_seconds_count") + samples.sum("easel_stage_seconds_count")
    };
    let before = work(&Samples::of(server));
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(work(&Samples::of(server)), before, "the device works for nobody");
}

#[test]
fn callers_who_leave_while_they_wait_and_while_their_picture_is_drawn_stop_the_work() {
    // One row a call: of four pictures most wait.
    let server = start_with(Settings { queue: 8, rows: Some(1), remember: false });
    let asked: Vec<TcpStream> = (0..4).map(|_| ask(server, endless())).collect();
    eventually("some are drawn and some wait", || {
        let now = Samples::of(server);
        let [running, waiting] = ["easel_running_jobs", "easel_queue_depth"].map(|name| now.get(name));
        running + waiting == 4.0 && waiting >= 2.0 && now.get("easel_batch_rows_count") > 3.0
    });
    drop(asked);
    eventually("all four are cancelled", || Samples::of(server).get("easel_cancelled_total") == 4.0);
    comes_to_rest(server);
    let left = "easel_requests_total{route=\"/v1/images/generations\",status=\"499\"}";
    eventually("their requests are counted", || Samples::of(server).get(left) == 4.0);
    assert_eq!(Samples::of(server).get("easel_images_total"), 0.0);
    assert_eq!(receive(ask(server, json!({}))).files().len(), 1, "the next caller is served");
}

#[test]
fn a_caller_who_leaves_when_the_first_picture_is_decoded_leaves_the_others_undecoded() {
    let server = start_with(Settings { queue: 8, rows: Some(1), remember: false });
    let decoded = || Samples::of(server).get("easel_stage_seconds_count{stage=\"decode\"}");
    let asked = ask(server, json!({"n": 6, "steps": 1, "size": "512x512"}));
    eventually("the first picture is decoded", || decoded() >= 1.0);
    drop(asked);
    comes_to_rest(server);
    let now = Samples::of(server);
    let (drawn, cancelled) = (now.get("easel_images_total"), now.get("easel_cancelled_total"));
    assert_eq!(drawn + cancelled, 6.0, "each picture is drawn or cancelled");
    assert!((1.0..=4.0).contains(&drawn), "{drawn} of six pictures were drawn for nobody");
    assert_eq!(decoded(), drawn);
}

#[test]
fn a_full_queue_is_refused_with_a_time_and_has_room_again_when_callers_leave() {
    let server = start(2);
    let full = [ask(server, endless()), ask(server, endless())];
    eventually("both are inside", || Samples::of(server).inside() == 2.0);
    let refused = receive(ask(server, json!({})));
    let (_, message) = refused.error(429);
    assert!(message.contains("queue"), "{message}");
    let seconds: u64 = refused.header("retry-after").expect("a time").parse().expect("whole seconds");
    assert!(seconds >= 1);
    assert_eq!(refused.header("retry-after-ms"), Some(format!("{}", seconds * 1000).as_str()));
    assert_eq!(Samples::of(server).get("easel_rejected_total{reason=\"queue_full\"}"), 1.0);
    assert_eq!(
        exchange(server, "GET /healthz HTTP/1.1", b"").status,
        200,
        "the server answers while it draws"
    );
    drop(full);
    comes_to_rest(server);
    assert_eq!(receive(ask(server, json!({}))).status, 200);
}

#[test]
fn a_caller_who_breaks_off_within_the_body_harms_no_one() {
    let server = start(4);
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        let head = format!("{GENERATIONS}\r\n{framing}");
        drop(send_framed(server, &head, b""));
        drop(send_framed(server, &head, b"10\r\n{\"prompt\": \"red "));
    }
    assert_eq!(receive(ask(server, json!({}))).files().len(), 1);
}
