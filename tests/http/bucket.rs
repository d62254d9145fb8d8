//! The real program with a bucket for a store: as much of S3 as it speaks, on a socket of this process.

use crate::program::Program;
use crate::support::{GENERATIONS, eventually, exchange, quick};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a bucket knows of a file.
#[derive(Debug, Clone)]
struct Kept {
    bytes: Vec<u8>,
    headers: BTreeMap<String, String>,
}

/// A bucket named `pictures`, with its files by their keys.
#[derive(Debug, Clone, Default)]
struct Bucket(Arc<Mutex<BTreeMap<String, Kept>>>);

/// A request, as far as a bucket reads it.
struct Asked {
    method: String,
    /// The path below the bucket.
    key: String,
    query: String,
    kept: Kept,
}

impl Bucket {
    /// Opens the bucket on a port of its own.
    fn open(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
        let address = listener.local_addr().expect("the port is known");
        let bucket = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                bucket.serve(stream);
            }
        });
        address
    }

    fn keys(&self) -> Vec<String> {
        self.0.lock().expect("no test panics inside").keys().cloned().collect()
    }

    fn put(&self, key: &str, kept: Kept) {
        self.0.lock().expect("no test panics inside").insert(key.to_owned(), kept);
    }

    fn get(&self, key: &str) -> Option<Kept> {
        self.0.lock().expect("no test panics inside").get(key).cloned()
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(asked) = read(&stream) else { return };
        let (status, body) = self.answer(asked);
        let head = format!(
            "HTTP/1.1 {status}\r\netag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok();
    }

    fn answer(&self, asked: Asked) -> (&'static str, Vec<u8>) {
        let Asked { method, key, query, kept } = asked;
        match method.as_str() {
            "PUT" => {
                self.put(&key, kept);
                ("200 OK", Vec::new())
            }
            "GET" if query.contains("list-type=2") => ("200 OK", self.list().into_bytes()),
            "GET" => match self.get(&key) {
                Some(found) if query.contains("X-Amz-Signature=") => ("200 OK", found.bytes),
                Some(_) => ("403 Forbidden", Vec::new()),
                None => ("404 Not Found", Vec::new()),
            },
            "POST" if query.contains("delete") => {
                let text = String::from_utf8_lossy(&kept.bytes).into_owned();
                let keys: Vec<&str> =
                    text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()).collect();
                let mut files = self.0.lock().expect("no test panics inside");
                keys.iter().for_each(|key| drop(files.remove(*key)));
                let deleted = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>"));
                (
                    "200 OK",
                    format!("<DeleteResult>{}</DeleteResult>", deleted.collect::<String>()).into_bytes(),
                )
            }
            _ => ("501 Not Implemented", Vec::new()),
        }
    }

    fn list(&self) -> String {
        let file = |key: &String| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>1</ETag><Size>5</Size></Contents>"
            )
        };
        let files: String = self.keys().iter().map(file).collect();
        format!(
            "<ListBucketResult><Name>pictures</Name><IsTruncated>false</IsTruncated>{files}</ListBucketResult>"
        )
    }
}

/// Reads a request; none where nobody asks.
fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.strip_prefix("/pictures").unwrap_or(path).trim_start_matches('/').to_owned();
    Some(Asked { method, key, query: query.to_owned(), kept: Kept { bytes, headers } })
}

#[test]
fn a_bucket_keeps_pictures_serves_them_by_signed_addresses_and_is_swept() {
    let bucket = Bucket::default();
    let endpoint = format!("http://{}", bucket.open());
    let old = Kept { bytes: b"bytes".to_vec(), headers: BTreeMap::new() };
    let past = "drawn/by/easel/0000000001-00000000000000000000000000000000.png";
    let others = ["drawn/by/easel/holiday.png", "0000000001-00000000000000000000000000000000.png"];
    for key in others.iter().chain([&past]) {
        bucket.put(key, old.clone());
    }
    let environment = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        ("EASEL_STORAGE", "s3://pictures/drawn/by/easel"),
    ];
    let program = Program::start_in(&[], &environment);
    eventually("what is past its time is swept", || !bucket.keys().contains(&past.to_owned()));

    let body = quick(json!({"response_format": "url"})).to_string();
    let answer = exchange(program.server, GENERATIONS, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let url = answer.json()["data"][0]["url"].as_str().expect("an address").to_owned();
    let target = url.strip_prefix(&endpoint).unwrap_or_else(|| panic!("{url} is not at the bucket"));
    assert!(target.starts_with("/pictures/drawn/by/easel/"), "{url}");
    assert!(target.contains("X-Amz-Expires=3600"), "{url}");
    let at: SocketAddr = endpoint.trim_start_matches("http://").parse().expect("an address");
    let file = exchange(at, &format!("GET {target} HTTP/1.1"), b"");
    let plain = exchange(program.server, GENERATIONS, quick(json!({})).to_string().as_bytes());
    assert_eq!((file.status, &file.body), (200, &plain.files()[0]));

    let keys = bucket.keys();
    assert!(
        others.iter().all(|key| keys.contains(&(*key).to_owned())),
        "only our own names are swept: {keys:?}"
    );
    let new = keys.iter().find(|key| !others.contains(&key.as_str())).expect("the picture");
    let headers = bucket.get(new).expect("the picture").headers;
    assert_eq!(headers.get("content-type").map(String::as_str), Some("image/png"));
    assert_eq!(headers.get("cache-control").map(String::as_str), Some("public, max-age=3600, immutable"));
}
