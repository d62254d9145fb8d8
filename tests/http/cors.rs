//! Web pages of other origins.

use crate::support::{Answer, exchange, shared, start_as};
use easel::api;
use std::net::SocketAddr;

const PAGE: &str = "http://localhost:3000";

fn open_to(origins: &str) -> SocketAddr {
    let cors_origins = origins.parse().expect("they are origins");
    start_as(api::Settings { cors_origins, ..api::Settings::default() })
}

fn preflight(server: SocketAddr, origin: &str) -> Answer {
    let head = format!(
        "OPTIONS /v1/images/generations HTTP/1.1\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization,content-type,x-stainless-os"
    );
    exchange(server, &head, b"")
}

fn get(server: SocketAddr, path: &str, origin: &str) -> Answer {
    exchange(server, &format!("GET {path} HTTP/1.1\r\norigin: {origin}"), b"")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn no_page_of_another_origin_may_call_unless_it_is_listed() {
    assert_eq!(preflight(shared(), PAGE).status, 405);
    assert_eq!(allowed(&preflight(shared(), PAGE)), None);
    assert_eq!(allowed(&get(shared(), "/v1/models", PAGE)), None);
    let server = open_to("https://example.org, http://localhost:3000");
    let asked = preflight(server, PAGE);
    assert_eq!((asked.status, asked.body.len(), allowed(&asked)), (204, 0, Some(PAGE)));
    assert_eq!(
        asked.header("access-control-allow-headers"),
        Some("authorization,content-type,x-stainless-os")
    );
    assert!(asked.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert!(asked.header("vary").is_some_and(|vary| vary.contains("origin")));
    for path in ["/v1/models", "/v1/nowhere", "/nowhere", "/healthz"] {
        let answer = get(server, path, PAGE);
        assert_eq!(allowed(&answer), Some(PAGE), "{path}");
        let readable = answer.header("access-control-expose-headers").expect("headers that a page may read");
        assert!(readable.contains("x-request-id") && readable.contains("retry-after-ms"));
    }
    let stranger = preflight(server, "http://localhost:3001");
    assert_eq!((stranger.status, allowed(&stranger)), (405, None));
    let stranger = get(server, "/v1/models", "http://localhost:3001");
    assert_eq!(
        (allowed(&stranger), stranger.header("vary")),
        (None, Some("origin")),
        "caches must not mix them"
    );
}

#[test]
fn a_star_lets_every_page_in() {
    let server = open_to("*");
    assert_eq!(allowed(&preflight(server, "null")), Some("null"));
    assert_eq!(allowed(&get(server, "/v1/models", PAGE)), Some(PAGE));
}

#[test]
fn a_page_of_another_origin_cannot_make_its_visitors_browser_send_a_form() {
    let send = |origin: &str, extra: &str| {
        let head = format!(
            "POST /v1/images/edits HTTP/1.1\r\ncontent-type: multipart/form-data; boundary=x\r\norigin: {origin}{extra}"
        );
        exchange(shared(), &head, b"--x--\r\n")
    };
    let (_, message) = send("https://evil.example", "").error(403);
    assert!(message.contains("https://evil.example"), "{message}");
    let passed = [
        send("http://test", ""),
        send("https://evil.example", "\r\nauthorization: Bearer any"),
        send("app://desktop", ""),
    ];
    assert!(
        passed.iter().all(|answer| answer.status != 403),
        "one's own page, a preflighted one, and no page"
    );
}
