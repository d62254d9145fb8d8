//! Routes beside the pictures, and what every answer carries.

use crate::support::{GENERATIONS, exchange, shared};
use serde_json::json;

fn get(path: &str) -> crate::support::Answer {
    exchange(shared(), &format!("GET {path} HTTP/1.1"), b"")
}

#[test]
fn the_server_says_that_it_lives() {
    assert_eq!((get("/healthz").status, get("/healthz").text().as_str()), (200, "ok\n"));
    let head = exchange(shared(), "HEAD /healthz HTTP/1.1", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn the_resident_model_is_listed_and_found_by_its_name_and_by_openais() {
    let list = get("/v1/models").json();
    assert_eq!(list["object"], "list");
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!("sketch"), &json!("model")));
    assert!(model["created"].is_u64() && model["owned_by"].is_string(), "{model}");
    assert_eq!(get("/v1/models/sketch").json(), *model);
    assert_eq!(get("/v1/models/gpt-image-9-flare-2031-01-01").status, 200, "a name to come");
    let alias = get("/v1/models/gpt-image-1").json();
    assert_eq!((&alias["id"], &alias["root"]), (&json!("gpt-image-1"), &json!("sketch")));
    let listed = list["data"].as_array().expect("a list");
    assert!(listed.contains(&alias), "clients choose from the list: {list}");
    assert_eq!(listed.iter().filter(|model| model["id"] == "sketch").count(), 1);
    for unknown in ["/v1/models/gpt-4", "/v1/models/a/b", "/v1/models/%ff"] {
        assert_eq!(get(unknown).error(404).0, "model");
    }
}

#[test]
fn a_model_is_not_a_callers_to_delete() {
    for (name, status) in [("sketch", 403), ("gpt-image-1", 403), ("other", 404)] {
        let refused = exchange(shared(), &format!("DELETE /v1/models/{name} HTTP/1.1"), b"");
        let (param, message) = refused.error(status);
        assert_eq!(param, "model");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn unknown_routes_are_404_and_wrong_methods_405_in_the_error_shape() {
    for path in [
        "/",
        "/v1",
        "/v1/images",
        "/v1/images/generations/",
        "/v1/chat/completions",
        "/%ff%00",
        "/v1/models/",
    ] {
        let (_, message) = get(path).error(404);
        assert!(message.contains("GET"), "{message}");
    }
    for (method, path, allow) in [
        ("GET", "/v1/images/generations", "POST"),
        ("PUT", "/v1/images/generations", "POST"),
        ("BREW", "/v1/images/generations", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models/sketch", "GET, HEAD, DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ] {
        let answer = exchange(shared(), &format!("{method} {path} HTTP/1.1"), b"");
        let (_, message) = answer.error(405);
        assert!(message.contains(method) && message.contains(allow), "{message}");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}

#[test]
fn every_answer_has_a_request_id_the_callers_own_where_it_is_sane() {
    let with = |id: &str| exchange(shared(), &format!("GET /nowhere HTTP/1.1\r\nx-request-id: {id}"), b"");
    assert_eq!(with("mine-1").header("x-request-id"), Some("mine-1"));
    for odd in ["", "a b", "\"quoted\"", "x".repeat(200).as_str()] {
        let made = with(odd).header("x-request-id").map(str::to_owned).expect("an id");
        assert!(made.starts_with("req_"), "{made}");
    }
    assert_ne!(get("/healthz").header("x-request-id"), get("/healthz").header("x-request-id"));
    let refused = exchange(shared(), GENERATIONS, b"{}");
    for answer in [get("/healthz"), get("/nowhere"), refused] {
        assert!(answer.header("openai-processing-ms").is_some_and(|ms| ms.parse::<u64>().is_ok()));
        assert_eq!(answer.header("openai-version"), Some("2020-10-01"));
    }
}
