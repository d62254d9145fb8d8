//! Pictures that are fetched by their address.

use crate::support::{
    Answer, GENERATIONS, Samples, eventually, exchange, exchange_at, quick, serve_as, shared, stored_in,
};
use easel::api;
use easel::engine::Settings;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ANY: Settings = Settings { queue: 8, rows: None, remember: false };

/// Asks for pictures by address, at the server's own name for itself.
fn ask(server: SocketAddr, fields: Value) -> Answer {
    let mut body = quick(fields);
    body.as_object_mut().expect("an object").remove("response_format");
    exchange(server, GENERATIONS, body.to_string().as_bytes())
}

/// The addresses of an answer.
#[track_caller]
fn addresses(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let address = |picture: &Value| {
        assert!(picture.get("b64_json").is_none(), "{picture:.200}");
        picture["url"].as_str().expect("an address").to_owned()
    };
    body["data"].as_array().expect("a list of pictures").iter().map(address).collect()
}

/// The path of an address on the server that the tests call `test`.
#[track_caller]
fn path(address: &str) -> &str {
    address.strip_prefix("http://test").unwrap_or_else(|| panic!("{address} is not on the host asked for"))
}

fn get(server: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(server, &format!("GET {path} HTTP/1.1{headers}"), b"")
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stored-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).expect("the folder is made");
    folder
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is read");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_answer_is_by_address_where_nothing_else_is_said_and_its_bytes_are_those_of_base64() {
    for (format, mime) in [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")] {
        let fields = json!({"n": 2, "output_format": format});
        let by_address = addresses(&ask(shared(), fields.clone()));
        let plain = exchange(shared(), GENERATIONS, quick(fields).to_string().as_bytes()).files();
        assert_eq!(by_address.len(), 2);
        for (address, file) in by_address.iter().zip(plain) {
            let answer = get(shared(), path(address), "");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body, file);
            assert_eq!(answer.header("content-type"), Some(mime));
            assert_eq!(answer.header("content-length"), Some(file.len().to_string().as_str()));
            assert_eq!(answer.header("content-disposition"), Some("inline"));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            let fresh = answer.header("cache-control").expect("a rule for caches");
            let age =
                fresh.strip_prefix("public, max-age=").and_then(|rest| rest.strip_suffix(", immutable"));
            let age: u64 = age.expect(fresh).parse().expect("seconds");
            assert!((3500..=3600).contains(&age), "{age}");
        }
    }
    let asked = ask(shared(), json!({"response_format": "url"}));
    assert_eq!(asked.header("easel-ignored"), None);
    addresses(&asked);
}

#[test]
fn an_address_cannot_be_guessed_from_another() {
    let [first, second] =
        [ask(shared(), json!({})), ask(shared(), json!({}))].map(|answer| addresses(&answer).remove(0));
    let secret = |address: &str| {
        let (_, name) = address.rsplit_once('-').expect("an end and a secret");
        name.strip_suffix(".png").expect("an extension").to_owned()
    };
    let (first, second) = (secret(&first), secret(&second));
    assert_eq!((first.len(), second.len()), (32, 32));
    let same = first.bytes().zip(second.bytes()).filter(|(a, b)| a == b).count();
    assert!(same < 16, "{first} and {second}");
}

#[test]
fn a_stored_picture_answers_head_a_known_tag_and_a_range() {
    let address = addresses(&ask(shared(), json!({}))).remove(0);
    let path = path(&address);
    let whole = get(shared(), path, "");
    let size = whole.body.len();
    let head = exchange(shared(), &format!("HEAD {path} HTTP/1.1"), b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    let tag = whole.header("etag").expect("a tag");
    for known in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let unchanged = get(shared(), path, &format!("\r\nif-none-match: {known}"));
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{known}");
    }
    assert_eq!(get(shared(), path, "\r\nif-none-match: \"other\"").status, 200);
    for (range, part) in [("0-9", 0..10), ("10-", 10..size), ("-7", size - 7..size), ("5-99999999", 5..size)]
    {
        let answer = get(shared(), path, &format!("\r\nrange: bytes={range}"));
        assert_eq!((answer.status, &answer.body), (206, &whole.body[part.clone()].to_vec()), "{range}");
        let told = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(told.as_str()));
        let length = part.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()));
    }
    for ignored in [
        "bytes=99999999-",
        "bytes=0-1,4-5",
        "bytes=5-1",
        "lines=1-2",
        "bytes=x",
        "bytes=0-1\r\nif-range: \"other\"",
    ] {
        let answer = get(shared(), path, &format!("\r\nrange: {ignored}"));
        assert_eq!((answer.status, answer.body.len()), (200, size), "{ignored}");
    }
    get(shared(), &format!("{path}x"), "").error(404);
    exchange(shared(), &format!("DELETE {path} HTTP/1.1"), b"").error(405);
}

#[test]
fn what_is_no_stored_picture_is_not_found_and_nothing_outside_is_served() {
    let folder = folder("outside");
    std::fs::write(folder.join("secret.png"), b"secret").expect("a file is written");
    let server = serve_as(ANY, stored_in(&folder));
    let over = folder.join("0000000001-00000000000000000000000000000000.png");
    eventually("the first sweep is over", || {
        std::fs::write(&over, b"secret").expect("a file is written");
        std::thread::sleep(Duration::from_millis(200));
        over.exists()
    });
    for name in [
        "",
        "secret.png",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/secret.png",
        "../Cargo.toml",
        ".",
        "%00",
        "9999999999-00000000000000000000000000000000.png",
        "0000000001-00000000000000000000000000000000.png",
        "9999999999-00000000000000000000000000000000.png%00",
        "9999999999-00000000000000000000000000000000.png/",
    ] {
        let answer = get(server, &format!("/images/{name}"), "");
        answer.error(404);
        assert!(!answer.text().contains("secret\""), "{name}");
    }
    assert!(over.exists(), "a picture past its time is not served although it is still there");
    assert_eq!(Samples::of(server).sum("easel_storage_failures_total"), 0.0);
}

#[test]
fn a_picture_past_its_time_is_gone_and_swept_and_nothing_else_is() {
    let folder = folder("swept");
    let kept = [
        "holiday.png",
        "0000000001-0.png",
        "0000000001-00000000000000000000000000000000.txt",
        "9999999999-00000000000000000000000000000000.png",
        "9999999999-00000000000000000000000000000000.png#1",
    ];
    let earlier = [
        "0000000001-00000000000000000000000000000000.png",
        "1700000000-0123456789abcdef0123456789abcdef.webp",
        "1700000000-0123456789abcdef0123456789abcdef.webp#2",
    ];
    for name in kept.iter().chain(&earlier) {
        std::fs::write(folder.join(name), b"bytes").expect("a file is written");
    }
    std::fs::create_dir(folder.join("0000000001-00000000000000000000000000000001.png"))
        .expect("a folder is made");
    let settings = api::Settings { url_lifetime: Duration::from_secs(2), ..stored_in(&folder) };
    let server = serve_as(ANY, settings);
    eventually("what an earlier run left is swept", || files(&folder).len() == kept.len() + 1);
    let answer = ask(server, json!({}));
    let address = addresses(&answer).remove(0);
    let name = address.rsplit('/').next().expect("a name").to_owned();
    let end: u64 = name.split('-').next().expect("an end").parse().expect("seconds");
    assert!(end <= answer.json()["created"].as_u64().expect("seconds") + 2);
    eventually("it is gone", || get(server, path(&address), "").status == 404);
    eventually("it is swept", || !files(&folder).contains(&name));
    let left = files(&folder);
    assert!(kept.iter().all(|name| left.contains(&(*name).to_owned())), "{left:?}");
}

#[test]
fn servers_that_share_a_store_serve_one_anothers_pictures_also_after_a_restart() {
    let folder = folder("replicas");
    let [one, other] = [(); 2].map(|()| serve_as(ANY, stored_in(&folder)));
    let answer = ask(one, json!({"n": 2}));
    for address in addresses(&answer) {
        let [here, there] = [one, other].map(|server| get(server, path(&address), ""));
        assert_eq!((here.status, there.status), (200, 200));
        assert_eq!(here.body, there.body);
    }
    let later = serve_as(ANY, stored_in(&folder));
    assert_eq!(get(later, path(&addresses(&answer)[0]), "").status, 200);
}

#[test]
fn an_address_is_on_the_public_host_or_else_on_the_one_asked_for_and_on_no_other() {
    let public = "https://pictures.example/easel".parse().expect("an address");
    let server = serve_as(ANY, api::Settings { public_url: Some(public), ..stored_in(&folder("public")) });
    let address = addresses(&ask(server, json!({}))).remove(0);
    assert!(address.starts_with("https://pictures.example/easel/images/"), "{address}");

    let body = quick(json!({"response_format": "url"})).to_string();
    let forwarded =
        format!("{GENERATIONS}\r\nx-forwarded-host: evil.example\r\nforwarded: host=evil.example");
    path(&addresses(&exchange(shared(), &forwarded, body.as_bytes())).remove(0));
    let drawn = Samples::of(server).get("easel_images_total");
    let server = serve_as(ANY, stored_in(&folder("host")));
    for host in ["a/b", "a@b", "", "a b", "<script>"] {
        let refused = exchange_at(host, server, GENERATIONS, body.as_bytes());
        let (_, message) = refused.error(400);
        assert!(message.contains("--public-url"), "{message}");
    }
    assert_eq!(
        (drawn, Samples::of(server).get("easel_images_total")),
        (1.0, 0.0),
        "nothing is drawn in vain"
    );
}

#[test]
fn a_store_that_fails_is_told_and_counted_and_base64_goes_on() {
    let folder = folder("fails");
    let server = serve_as(ANY, stored_in(&folder));
    // A folder that is a file can be written by nobody, not even by the system's administrator.
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    std::fs::write(&folder, b"in the way").expect("a file is written");
    let answer = ask(server, json!({}));
    let (param, message) = answer.error(500);
    assert_eq!(param, Value::Null);
    assert!(message.contains("b64_json"), "{message}");
    assert!(!message.contains("stored-fails"), "what broke inside stays inside: {message}");
    assert_eq!(answer.json()["error"]["code"], "storage_failed");
    assert_eq!(answer.header("x-should-retry"), Some("false"), "a retry would draw the picture again");
    assert_eq!(Samples::of(server).get("easel_storage_failures_total{operation=\"write\"}"), 1.0);
    let plain = exchange(server, GENERATIONS, quick(json!({})).to_string().as_bytes());
    assert_eq!(plain.files().len(), 1);
    std::fs::remove_file(&folder).ok();
}
