//! Callers take turns.

use crate::support::{GENERATIONS, Samples, eventually, quick, receive, send, start_with};
use easel::engine::Settings;
use serde_json::{Value, json};

#[test]
fn ten_pictures_of_one_key_do_not_hold_up_one_picture_of_another() {
    let server = start_with(Settings { queue: 16, rows: Some(1), remember: false });
    let ask = |key: &str, fields: Value| {
        let head = format!("{GENERATIONS}\r\nauthorization: Bearer {key}");
        send(server, &head, quick(fields).to_string().as_bytes())
    };
    let many = ask("one", json!({"n": 10, "steps": 30}));
    eventually("all ten are inside", || Samples::of(server).inside() == 10.0);
    let single = ask("two", json!({"steps": 30}));
    assert_eq!(receive(single).files().len(), 1);
    let left = Samples::of(server).inside();
    assert!(left >= 5.0, "the single picture came when {left} of the ten were left");
    drop(many);
}
