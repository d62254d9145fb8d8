//! A server in this process, and a caller that speaks HTTP/1.1 byte by byte, so that tests can send what no client would.

use base64::Engine as _;
use easel::api::{self, Server};
use easel::engine::{Engine, Settings};
use easel::error::Result;
use easel::metrics::Metrics;
use easel::pipeline::{LoadOptions, Pipeline};
use easel::request::Sizes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any test's answer takes on a slow machine: past it, a test hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server that all tests share which do not disturb one another.
pub fn shared() -> SocketAddr {
    static SHARED: OnceLock<SocketAddr> = OnceLock::new();
    *SHARED.get_or_init(|| start(64))
}

/// A server of a test's own, ready, with room for `queue` pictures.
pub fn start(queue: usize) -> SocketAddr {
    start_with(Settings { queue, rows: None, remember: false })
}

/// A ready server with an engine of the given settings.
pub fn start_with(settings: Settings) -> SocketAddr {
    ready(LoadOptions { sizes: Some(Sizes::ANY), ..LoadOptions::sketch() }, settings)
}

/// A ready server that draws the bundled model's own sizes alone, as a user's does. The others draw any size that they
/// are asked for, since small pictures are quick, however they look.
pub fn choosy() -> SocketAddr {
    static CHOOSY: OnceLock<SocketAddr> = OnceLock::new();
    *CHOOSY.get_or_init(|| ready(LoadOptions::sketch(), Settings { queue: 64, rows: None, remember: false }))
}

fn ready(options: LoadOptions, settings: Settings) -> SocketAddr {
    let (address, _) = serve(move || Pipeline::load(&options), settings);
    eventually("the server is ready", || exchange(address, "GET /readyz HTTP/1.1", b"").status == 200);
    address
}

/// A ready server with room for eight pictures and API settings of a test's own, but for its store.
pub fn start_as(settings: api::Settings) -> SocketAddr {
    let storage = stored_in(&common_store()).storage;
    let settings = api::Settings { storage, grace: PATIENCE, ..settings };
    serve_as(Settings { queue: 8, rows: None, remember: false }, settings)
}

/// A server that answers while `load` makes its model, and what it ends with.
pub fn serve(
    load: impl FnOnce() -> Result<Pipeline> + Send + 'static,
    settings: Settings,
) -> (SocketAddr, JoinHandle<Result<()>>) {
    serve_until(std::future::pending(), load, settings)
}

/// As [`serve`], told to stop when `stop` resolves.
pub fn serve_until(
    stop: impl Future<Output = ()> + Send + 'static,
    load: impl FnOnce() -> Result<Pipeline> + Send + 'static,
    settings: Settings,
) -> (SocketAddr, JoinHandle<Result<()>>) {
    let metrics = Metrics::new().expect("the metrics are defined");
    let engine = Engine::start(load, settings, metrics.clone()).expect("the engine starts");
    let times = api::Settings { timeout: None, grace: PATIENCE, ..stored_in(&common_store()) };
    bind(engine, metrics, times, stop)
}

/// A ready server with the bundled model, an engine and an API of the given settings.
pub fn serve_as(settings: Settings, api: api::Settings) -> SocketAddr {
    let metrics = Metrics::new().expect("the metrics are defined");
    let load = || Pipeline::load(&LoadOptions { sizes: Some(Sizes::ANY), ..LoadOptions::sketch() });
    let engine = Engine::start(load, settings, metrics.clone()).expect("the engine starts");
    let (address, _) = bind(engine, metrics, api, std::future::pending());
    eventually("the server is ready", || exchange(address, "GET /readyz HTTP/1.1", b"").status == 200);
    address
}

/// Settings with a store in `folder`.
pub fn stored_in(folder: &Path) -> api::Settings {
    api::Settings { storage: Some(folder.display().to_string()), ..api::Settings::default() }
}

/// The store of all servers that do not mind.
pub fn common_store() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("store")
}

fn bind(
    engine: Engine,
    metrics: Metrics,
    settings: api::Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> (SocketAddr, JoinHandle<Result<()>>) {
    let server = Server::bind("127.0.0.1", 0, engine, metrics, settings).expect("the system has a free port");
    let address = server.address().expect("the port is known");
    (address, std::thread::spawn(move || server.run(stop)))
}

/// Waits until `come` is true; fails after a time that no sane machine needs.
#[track_caller]
pub fn eventually(what: &str, mut come: impl FnMut() -> bool) {
    let began = Instant::now();
    while !come() {
        assert!(began.elapsed() < PATIENCE, "it did not come to pass: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What `/metrics` says: each series with its value.
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads them.
    #[track_caller]
    pub fn of(server: SocketAddr) -> Self {
        let answer = exchange(server, "GET /metrics HTTP/1.1", b"");
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect())
    }

    /// The value of a series, 0 where it has none yet.
    pub fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// The sum over all labels of a metric.
    pub fn sum(&self, name: &str) -> f64 {
        let own = |series: &str| series.split('{').next() == Some(name);
        self.0.iter().filter(|(series, _)| own(series)).map(|(_, value)| value).sum()
    }

    /// The pictures that wait for the device, and those that it has begun.
    pub fn inside(&self) -> f64 {
        self.get("easel_queue_depth") + self.get("easel_running_jobs")
    }
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body of an answer whose length its head did not tell, out of its chunks.
    #[track_caller]
    pub fn chunks(&self) -> String {
        assert_eq!(self.header("transfer-encoding"), Some("chunked"), "{}", self.text());
        let (mut rest, mut body) = (self.body.as_slice(), Vec::new());
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk has a size");
            let size = std::str::from_utf8(&rest[..end]).expect("digits");
            let size = usize::from_str_radix(size, 16).expect("a hexadecimal number");
            if size == 0 {
                return String::from_utf8(body).expect("the body is text");
            }
            body.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 4 + size..];
        }
    }

    /// The error's `param` and `message`; fails where the answer is not OpenAI's error object with all four keys.
    #[track_caller]
    pub fn error(&self, status: u16) -> (Value, String) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        let error = self.json()["error"].clone();
        let keys: Vec<&String> = error.as_object().expect("an error object").keys().collect();
        assert_eq!(keys.len(), 4, "{error}");
        assert!(
            error["type"].is_string() && (error["code"].is_string() || error["code"].is_null()),
            "{error}"
        );
        (error["param"].clone(), error["message"].as_str().expect("a message").to_owned())
    }

    /// The files of a drawn answer.
    #[track_caller]
    pub fn files(&self) -> Vec<Vec<u8>> {
        assert_eq!(self.status, 200, "{}", self.text());
        let answer = self.json();
        let data = answer["data"].as_array().expect("a list of pictures");
        let decode = |picture: &Value| {
            let text = picture["b64_json"].as_str().expect("base64");
            base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
        };
        data.iter().map(decode).collect()
    }
}

/// Opens a connection and writes a request, without reading the answer.
pub fn send(server: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    send_framed(server, &format!("{head}\r\ncontent-length: {}", body.len()), body)
}

/// As [`send`], with the headers that frame the body already in `head`.
pub fn send_framed(server: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    send_to("test", server, head, body)
}

fn send_to(host: &str, server: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let head = format!("{head}\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the head is sent");
    // A server may refuse a body before it has read all of it.
    stream.write_all(body).ok();
    stream
}

/// Reads an answer to its end.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the answer arrives whole and in time");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Answer { status: status.expect("a status"), headers: headers.collect(), body: bytes[end + 4..].to_vec() }
}

/// One request and its answer. `head` is the request line with headers after it, lines ended by CR LF but the last.
pub fn exchange(server: SocketAddr, head: &str, body: &[u8]) -> Answer {
    receive(send(server, head, body))
}

/// As [`exchange`], with `host` for the server's name.
pub fn exchange_at(host: &str, server: SocketAddr, head: &str, body: &[u8]) -> Answer {
    receive(send_to(host, server, &format!("{head}\r\ncontent-length: {}", body.len()), body))
}

/// The head of a request for pictures.
pub const GENERATIONS: &str = "POST /v1/images/generations HTTP/1.1\r\ncontent-type: application/json";

/// Asks the shared server for pictures with a body that need not be JSON.
pub fn post(body: &[u8]) -> Answer {
    exchange(shared(), GENERATIONS, body)
}

/// Asks the shared server for the quickest picture there is, with `fields` in place of, or beside, its own.
pub fn draw(fields: Value) -> Answer {
    post(quick(fields).to_string().as_bytes())
}

/// A request for a picture that takes a moment, with `fields` in place of, or beside, its own.
pub fn quick(fields: Value) -> Value {
    let mut body = json!({
        "prompt": "red apple", "size": "64x64", "steps": 2, "guidance_scale": 1, "seed": 7,
        "response_format": "b64_json"
    });
    for (name, value) in fields.as_object().expect("fields are an object") {
        body[name] = value.clone();
    }
    body
}
