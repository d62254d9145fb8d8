//! Pictures that come as events.

use crate::forms::{EDITS, data_url, png, scene};
use crate::support::{
    GENERATIONS, Samples, eventually, exchange, quick, receive, send, serve_as, shared, start, start_with,
};
use base64::Engine as _;
use easel::api;
use easel::engine::Settings;
use serde_json::{Value, json};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A frame of a stream.
#[derive(Debug)]
enum Frame {
    Comment,
    Event { name: String, data: Value },
}

/// The frames of a text; fails where one is not as the specification of server-sent events has it.
#[track_caller]
fn frames(text: &str) -> Vec<Frame> {
    let blocks = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("the last frame is cut: {text:.300}"));
    let frame = |block: &str| {
        if block.starts_with(": ") {
            return Frame::Comment;
        }
        let lines: Vec<&str> = block.split('\n').collect();
        let [event, data] = lines.as_slice() else { panic!("not two lines: {block:.300}") };
        Frame::Event {
            name: event.strip_prefix("event: ").expect("an event's name").to_owned(),
            data: serde_json::from_str(data.strip_prefix("data: ").expect("its data")).expect("JSON"),
        }
    };
    blocks.split("\n\n").map(frame).collect()
}

/// The events of a text, with their names.
#[track_caller]
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |frame| match frame {
        Frame::Comment => None,
        Frame::Event { name, data } => Some((name, data)),
    };
    frames(text).into_iter().filter_map(event).collect()
}

fn file(event: &Value) -> Vec<u8> {
    let text = event["b64_json"].as_str().expect("base64");
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

/// A request for a stream.
fn streamed(fields: Value) -> Value {
    let mut body = quick(json!({"stream": true}));
    body.as_object_mut().expect("an object").remove("response_format");
    for (name, value) in fields.as_object().expect("fields are an object") {
        body[name] = value.clone();
    }
    body
}

fn ask(server: SocketAddr, fields: Value) -> TcpStream {
    send(server, GENERATIONS, streamed(fields).to_string().as_bytes())
}

/// Reads until `come` is true of what has come.
#[track_caller]
fn read_until(stream: &mut TcpStream, come: impl Fn(&str) -> bool) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 65536];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if come(&text) {
            return text;
        }
        let read = stream.read(&mut piece).expect("the stream goes on in time");
        assert!(read > 0, "the stream ended early: {text:.300}");
        bytes.extend_from_slice(&piece[..read]);
    }
}

#[test]
fn previews_come_before_the_picture_with_the_names_and_keys_of_openais() {
    let fields = json!({"steps": 8, "partial_images": 3, "size": "64x128", "output_format": "webp"});
    let answer = receive(ask(shared(), fields.clone()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(answer.header(name), Some(value));
    }
    assert_eq!(answer.header("easel-seed"), Some("7"));
    assert_eq!(answer.header("easel-ignored"), None);
    let events = events(&answer.chunks());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let partial = "image_generation.partial_image";
    assert_eq!(names, [partial, partial, partial, "image_generation.completed"]);
    for (k, (name, event)) in events.iter().enumerate() {
        assert_eq!(event["type"], json!(name));
        assert!(event["created_at"].as_u64().is_some_and(|at| at > 1_700_000_000), "{event:.300}");
        for (key, value) in [("size", "64x128"), ("background", "opaque"), ("output_format", "webp")] {
            assert_eq!(event[key], value, "{key}");
        }
        assert!(event["quality"].is_string());
        let picture = image::load_from_memory_with_format(&file(event), image::ImageFormat::WebP);
        let picture = picture.expect("a picture of the format asked for");
        assert_eq!((picture.width(), picture.height()), (64, 128), "a preview is of the size asked for");
        let mut keys =
            vec!["b64_json", "background", "created_at", "output_format", "quality", "size", "type"];
        if k < 3 {
            assert_eq!(event["partial_image_index"], k);
            keys.push("partial_image_index");
            assert_eq!(easel::output::read_parameters(&file(event)), None, "a preview is not what they draw");
        } else {
            let usage = event["usage"].as_object().expect("usage");
            for key in ["input_tokens", "output_tokens", "total_tokens"] {
                assert!(usage[key].is_u64(), "{key}");
            }
            assert!(usage["input_tokens_details"]["text_tokens"].is_u64());
            assert!(usage["input_tokens_details"]["image_tokens"].is_u64());
            keys.push("usage");
        }
        keys.sort_unstable();
        let mut found: Vec<&String> = event.as_object().expect("an object").keys().collect();
        found.sort_unstable();
        assert_eq!(found, keys);
    }
    let mut plain = quick(fields);
    plain["partial_images"] = json!(0);
    let plain = exchange(shared(), GENERATIONS, plain.to_string().as_bytes());
    assert_eq!(file(&events[3].1), plain.files()[0], "the picture is the one that comes without a stream");
    assert_eq!(events[3].1["usage"], plain.json()["usage"]);
}

#[test]
fn an_edit_streams_under_its_own_names() {
    let body = streamed(json!({
        "images": [{"image_url": data_url("image/png", &png(scene(64, 64)))}], "strength": 1, "steps": 4, "partial_images": 1
    }));
    let edits = format!("POST {EDITS} HTTP/1.1\r\ncontent-type: application/json");
    let events = events(&exchange(shared(), &edits, body.to_string().as_bytes()).chunks());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["image_edit.partial_image", "image_edit.completed"]);
    assert!(events.iter().all(|(name, event)| event["type"] == json!(name)));
    assert!(events[1].1["usage"]["input_tokens_details"]["image_tokens"].as_u64() > Some(0));
}

#[test]
fn a_preview_is_nearer_to_the_picture_the_later_it_comes() {
    let answer = receive(ask(shared(), json!({"steps": 12, "partial_images": 3, "size": "128x128"})));
    let pictures: Vec<Vec<u8>> = events(&answer.chunks())
        .iter()
        .map(|(_, event)| image::load_from_memory(&file(event)).expect("a picture").into_rgb8().into_raw())
        .collect();
    let apart = |a: &[u8], b: &[u8]| -> u64 { a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum() };
    let distances: Vec<u64> = pictures[..3].iter().map(|preview| apart(preview, &pictures[3])).collect();
    assert!(distances.is_sorted_by(|a, b| a > b) && distances[2] > 0, "{distances:?}");
}

#[test]
fn a_stream_without_previews_is_one_event() {
    for fields in [json!({}), json!({"partial_images": 0}), json!({"partial_images": null})] {
        let events = events(&receive(ask(shared(), fields)).chunks());
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].0, "image_generation.completed");
    }
}

#[test]
fn fewer_previews_come_where_there_are_fewer_steps() {
    let events = events(&receive(ask(shared(), json!({"steps": 1, "partial_images": 3}))).chunks());
    assert_eq!(events.len(), 1, "the only step of a picture ends it");
}

#[test]
fn what_cannot_be_streamed_is_refused_before_the_stream_begins() {
    for (name, value, words) in [
        ("n", json!(2), ["n must be 1", "2"]),
        ("partial_images", json!(4), ["from 0 to 3", "4"]),
        ("size", json!("7x7"), ["from 32 to 4096", "7x7"]),
        ("response_format", json!("file"), ["url", "file"]),
    ] {
        let (param, message) = receive(ask(shared(), json!({ name: value }))).error(400);
        assert_eq!(param, name, "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    // The prompt's length in tokens is known to the engine alone.
    let (param, message) = receive(ask(shared(), json!({"prompt": "apple ".repeat(5_000)}))).error(400);
    assert_eq!(param, "prompt", "{message}");
}

#[test]
fn a_stream_is_base64_whatever_format_is_asked_for_and_says_so() {
    for (format, ignored) in [("url", Some("response_format")), ("b64_json", None)] {
        let answer = receive(ask(shared(), json!({"response_format": format})));
        assert_eq!(answer.header("easel-ignored"), ignored);
        assert_eq!(events(&answer.chunks()).len(), 1);
    }
    let plain = quick(json!({"partial_images": 2}));
    let plain = exchange(shared(), GENERATIONS, plain.to_string().as_bytes());
    assert_eq!(plain.header("easel-ignored"), Some("partial_images"), "previews need a stream");
}

#[test]
fn a_reader_who_waits_gets_a_first_byte_at_once_and_comments_from_then_on() {
    let often = api::Settings { keep_alive: Duration::from_millis(50), ..api::Settings::default() };
    let server = serve_as(Settings { queue: 4, rows: Some(1), remember: false }, often);
    let mut long = ask(server, json!({"steps": 1000, "size": "256x256"}));
    read_until(&mut long, |text| text.contains("\n: "));
    let began = Instant::now();
    let mut waiting = ask(server, json!({"steps": 1000, "size": "256x256", "seed": 8}));
    let text = read_until(&mut waiting, |text| text.matches("\n: ").count() >= 4);
    assert!(!text.contains("event:"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_reader_who_hangs_up_stops_the_drawing() {
    let server = start_with(Settings { queue: 4, rows: Some(1), remember: false });
    let endless = json!({"steps": 1000, "size": "256x256", "partial_images": 3});
    let mut drawn = ask(server, endless.clone());
    let mut waiting = ask(server, endless);
    for stream in [&mut drawn, &mut waiting] {
        read_until(stream, |text| text.contains("\n: "));
    }
    eventually("one is drawn", || Samples::of(server).get("easel_running_jobs") >= 1.0);
    drop((drawn, waiting));
    eventually("both are cancelled", || Samples::of(server).get("easel_cancelled_total") == 2.0);
    eventually("nothing is left inside", || Samples::of(server).inside() == 0.0);
    let left = "easel_requests_total{route=\"/v1/images/generations\",status=\"499\"}";
    eventually("their requests are counted", || Samples::of(server).get(left) == 2.0);
    assert_eq!(Samples::of(server).get("easel_images_total"), 0.0);
}

#[test]
fn a_reader_who_does_not_read_holds_up_nobody_and_gets_all_of_it_later() {
    let server = start_with(Settings { queue: 4, rows: Some(1), remember: false });
    let slow =
        ask(server, json!({"size": "512x512", "partial_images": 3, "steps": 4, "output_format": "png"}));
    eventually("the device is done with it", || Samples::of(server).get("easel_images_total") == 1.0);
    assert_eq!(events(&receive(ask(server, json!({}))).chunks()).len(), 1, "the next one is served");
    let names: Vec<String> = events(&receive(slow).chunks()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn a_stream_is_counted_when_it_ends() {
    let server = start(4);
    let whole = "easel_requests_total{route=\"/v1/images/generations\",status=\"200\"}";
    let mut stream = ask(server, json!({"steps": 60, "size": "256x256"}));
    let mut text = read_until(&mut stream, |text| text.contains("\n: "));
    assert_eq!(Samples::of(server).get(whole), 0.0);
    stream.read_to_string(&mut text).expect("the stream ends");
    let now = Samples::of(server);
    assert_eq!(now.get(whole), 1.0, "a reader who has the end finds the stream counted");
    assert_eq!(now.get("easel_stage_seconds_count{stage=\"output\"}"), 1.0);
}

#[test]
fn what_fails_in_a_stream_is_an_event_with_all_four_keys() {
    let late = api::Settings { timeout: Some(Duration::from_secs(2)), ..api::Settings::default() };
    let server = serve_as(Settings { queue: 4, rows: None, remember: false }, late);
    let answer = receive(ask(server, json!({"steps": 1000, "size": "512x512"})));
    assert_eq!(answer.status, 200);
    let events = events(&answer.chunks());
    let [(name, data)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(name, "error");
    let error = data["error"].as_object().expect("an error object");
    assert_eq!(error.len(), 4);
    assert_eq!((&error["type"], &error["param"]), (&json!("server_error"), &Value::Null));
    assert!(error["message"].as_str().is_some_and(|message| message.contains("time was up")), "{data}");
    let failed = "easel_requests_total{route=\"/v1/images/generations\",status=\"504\"}";
    assert_eq!(Samples::of(server).get(failed), 1.0);
}
