//! Who may call: API keys.

use crate::program::Program;
use crate::support::{Answer, GENERATIONS, Samples, eventually, exchange, quick, start_as};
use easel::api::{self, KeySource, Keys};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A server that asks for one of the `keys`.
fn closed(keys: &str) -> SocketAddr {
    let keys = Keys::read(KeySource { file: None, text: Some(keys.into()) }).expect("they are keys");
    start_as(api::Settings { keys, ..api::Settings::default() })
}

fn with(server: SocketAddr, line: &str, authorization: Option<&str>) -> Answer {
    let head = match authorization {
        Some(value) => format!("{line} HTTP/1.1\r\nauthorization: {value}"),
        None => format!("{line} HTTP/1.1"),
    };
    exchange(server, &head, b"")
}

#[test]
fn without_a_key_of_the_server_the_api_is_closed_and_what_lies_beside_it_is_open() {
    let server = closed("studio sk-studio-1234, sk-home-56789");
    for line in [
        "GET /v1/models",
        "GET /v1/models/sketch",
        "DELETE /v1/models/sketch",
        "POST /v1/images/generations",
        "GET /v1/images/generations",
        "OPTIONS /v1/images/generations",
        "GET /v1/nowhere",
        "GET /v1",
        "GET /%76%31/models",
        "GET /v%31/models?a=/healthz",
    ] {
        let refused = with(server, line, None);
        let (param, message) = refused.error(401);
        assert_eq!((&param, &refused.json()["error"]["code"]), (&Value::Null, &Value::Null));
        assert!(message.contains("Authorization: Bearer"), "{message}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"easel\""), "{line}");
        let refused = with(server, line, Some("Bearer sk-studio-123"));
        let (_, message) = refused.error(401);
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("invalid_api_key"), &json!("invalid_request_error"))
        );
        assert!(!message.contains("sk-"), "{message}");
        assert!(refused.header("www-authenticate").is_some_and(|how| how.contains("invalid_token")));
    }
    for other in ["Bearer", "Basic c2stc3R1ZGlvLTEyMzQ=", "sk-studio-1234"] {
        with(server, "GET /v1/models", Some(other)).error(401);
    }
    let now = Samples::of(server);
    assert_eq!(now.get("easel_rejected_total{reason=\"no_key\"}"), 13.0);
    assert_eq!(now.get("easel_rejected_total{reason=\"wrong_key\"}"), 10.0);
    for open in ["GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json"] {
        assert_eq!(with(server, open, None).status, 200, "{open}");
    }
    with(server, "GET /nowhere", None).error(404);
    with(server, "GET /v11/models", None).error(404);
}

#[test]
fn each_key_of_the_server_opens_the_api() {
    let server = closed("studio sk-studio-1234, sk-home-56789");
    for key in ["Bearer sk-studio-1234", "bearer  sk-home-56789"] {
        assert_eq!(with(server, "GET /v1/models", Some(key)).status, 200, "{key}");
        let head = format!("{GENERATIONS}\r\nauthorization: {key}");
        assert_eq!(exchange(server, &head, quick(json!({})).to_string().as_bytes()).files().len(), 1);
    }
}

/// A file of keys, gone with the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("easel-keys-{}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("the file is written");
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn sighup_takes_the_file_of_keys_anew_and_a_broken_one_leaves_the_old_keys() {
    let file = KeyFile::new("first sk-first-1234\n");
    let program = Program::start(&["--api-keys-file", file.0.to_str().expect("a path of text")]);
    let opens =
        |key: &str| with(program.server, "GET /v1/models", Some(&format!("Bearer {key}"))).status == 200;
    assert!(opens("sk-first-1234") && !opens("sk-second-1234"));
    file.write("second sk-second-1234\n");
    assert!(opens("sk-first-1234"), "a file is read when the server is told to, so never half written");
    program.signal("HUP");
    eventually("the second key opens", || opens("sk-second-1234"));
    assert!(!opens("sk-first-1234"), "the first has been taken away");
    file.write("third sk-third-1234\nbroken line of words\n");
    program.signal("HUP");
    eventually("the error is logged", || program.log().contains("line 2: a line holds KEY or NAME KEY"));
    assert!(opens("sk-second-1234") && !opens("sk-third-1234"));
    file.write("# nobody\n");
    program.signal("HUP");
    eventually("the error is logged", || program.log().contains("there is no key in it"));
    assert!(opens("sk-second-1234"));
    eventually("requests are logged under the names of keys", || program.log().contains("second"));
    assert!(!program.log().contains("sk-"), "no key is logged:\n{}", program.log());
    assert!(!program.log().contains("anyone who reaches"));
}

#[test]
fn a_server_without_keys_on_an_address_of_others_warns() {
    let program = Program::start(&["--host", "0.0.0.0"]);
    assert!(program.log().contains("anyone who reaches this address may draw"), "{}", program.log());
    assert!(!Program::start(&[]).log().contains("anyone who reaches"), "loopback is one's own");
}
