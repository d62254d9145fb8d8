//! How much a caller may ask for: requests a minute, and pictures at once.

use crate::support::{Answer, GENERATIONS, Samples, eventually, exchange, quick, receive, send, start_as};
use easel::api::{self, KeySource, Keys};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;

fn two_keys() -> Keys {
    Keys::read(KeySource { file: None, text: Some("sk-one-1234,sk-two-1234".into()) }).expect("they are keys")
}

fn get(server: SocketAddr, path: &str, key: &str) -> Answer {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nauthorization: Bearer {key}"), b"")
}

fn allowance(answer: &Answer) -> [Option<&str>; 3] {
    ["limit", "remaining", "reset"].map(|name| answer.header(&format!("x-ratelimit-{name}-requests")))
}

#[test]
fn each_key_has_its_own_requests_and_is_told_how_many_are_left() {
    let per_minute = NonZeroU32::new(3);
    let server = start_as(api::Settings {
        requests_per_minute: per_minute,
        keys: two_keys(),
        ..api::Settings::default()
    });
    let of = |path: &str, key: &str| get(server, path, key);
    assert_eq!(allowance(&of("/v1/models", "sk-one-1234")), [Some("3"), Some("2"), Some("20s")]);
    let refused = of("/v1/nowhere", "sk-one-1234");
    refused.error(404);
    assert_eq!(allowance(&refused), [Some("3"), Some("1"), Some("40s")], "whatever the answer is");
    assert_eq!(allowance(&of("/v1/models", "sk-one-1234")), [Some("3"), Some("0"), Some("1m0s")]);
    let over = of("/v1/models", "sk-one-1234");
    let (_, message) = over.error(429);
    assert!(message.contains("at most 3 requests a minute"), "{message}");
    assert_eq!(over.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(allowance(&over), [Some("3"), Some("0"), Some("1m0s")]);
    let wait = |name: &str| -> u64 { over.header(name).expect(name).parse().expect("a whole number") };
    assert!((15..=20).contains(&wait("retry-after")), "one comes back every 20 s");
    assert_eq!(wait("retry-after-ms").div_ceil(1000), wait("retry-after"));
    assert_eq!(of("/v1/models", "sk-two-1234").status, 200, "another key has its own");
    let stranger = of("/v1/models", "sk-three-1234");
    stranger.error(401);
    assert_eq!(allowance(&stranger), [None; 3]);
    for path in ["/healthz", "/metrics"] {
        assert_eq!((of(path, "sk-one-1234").status, allowance(&of(path, "sk-one-1234"))), (200, [None; 3]));
    }
    assert_eq!(Samples::of(server).get("easel_rejected_total{reason=\"rate\"}"), 1.0);
}

#[test]
fn where_nobody_checks_keys_a_made_up_one_brings_no_more_requests() {
    let server =
        start_as(api::Settings { requests_per_minute: NonZeroU32::new(2), ..api::Settings::default() });
    assert_eq!(get(server, "/v1/models", "made-up-1").status, 200);
    assert_eq!(get(server, "/v1/models", "made-up-2").status, 200);
    get(server, "/v1/models", "made-up-3").error(429);
}

#[test]
fn a_caller_has_no_more_pictures_in_the_server_than_its_places() {
    let places = NonZeroU32::new(2);
    let server =
        start_as(api::Settings { pictures_per_caller: places, keys: two_keys(), ..api::Settings::default() });
    let ask = |key: &str, fields: Value| -> TcpStream {
        let head = format!("{GENERATIONS}\r\nauthorization: Bearer {key}");
        send(server, &head, quick(fields).to_string().as_bytes())
    };
    let (param, message) = receive(ask("sk-one-1234", json!({"n": 3}))).error(400);
    assert_eq!(param, "n");
    assert!(message.contains("at most 2") && message.contains("got 3"), "{message}");
    let endless = ask("sk-one-1234", json!({"n": 2, "steps": 1000, "size": "256x256"}));
    eventually("both are inside", || Samples::of(server).inside() == 2.0);
    let refused = receive(ask("sk-one-1234", json!({})));
    let (_, message) = refused.error(429);
    assert!(message.contains("at most 2 pictures"), "{message}");
    assert!(
        refused.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok_and(|wait| wait >= 1))
    );
    assert_eq!(Samples::of(server).get("easel_rejected_total{reason=\"places\"}"), 1.0);
    assert_eq!(receive(ask("sk-two-1234", json!({"n": 2}))).files().len(), 2, "another key has its own");
    drop(endless);
    eventually("the caller's places are free again", || {
        receive(ask("sk-one-1234", json!({"n": 2}))).status == 200
    });
    assert_eq!(receive(ask("sk-one-1234", json!({"n": 2}))).status, 200, "drawn pictures take no place");
    let stream = ask("sk-one-1234", json!({"stream": true, "steps": 1000, "size": "256x256"}));
    eventually("it is inside", || Samples::of(server).inside() == 1.0);
    receive(ask("sk-one-1234", json!({"n": 2}))).error(429);
    drop(stream);
    eventually("the stream's place is free again", || {
        receive(ask("sk-one-1234", json!({"n": 2}))).status == 200
    });
}
