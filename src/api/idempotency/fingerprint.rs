//! What must be equal for two requests with one key to be the same request.

use actix_web::HttpRequest;
use actix_web::http::header;
use sha2::{Digest, Sha256};

/// The SHA-256 sum of what a request asks for.
pub(super) type Fingerprint = [u8; 32];

/// A fingerprint in the making: the body is added as it is read and not kept.
///
/// A form is taken without its boundary: clients draw a new one for every attempt, so that the bytes of two attempts
/// differ although they ask for the same.
pub(super) struct Fingerprinting {
    sum: Sha256,
    /// What separates the parts of a form.
    separator: Option<Vec<u8>>,
    /// The bytes that may be the beginning of a separator.
    rest: Vec<u8>,
    /// Bytes of the present part.
    part: u64,
}

impl Fingerprinting {
    /// Begins with the method, the path and the media type.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        let kind = String::from_utf8_lossy(kind).into_owned();
        let media = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let mut sum = Sha256::new();
        for text in [request.method().as_str(), request.match_info().as_str(), &media] {
            sum.update((text.len() as u64).to_le_bytes());
            sum.update(text);
        }
        let form = media.starts_with("multipart/");
        let separator = form.then(|| boundary(&kind)).flatten().map(|text| format!("--{text}").into_bytes());
        Self { sum, separator, rest: Vec::new(), part: 0 }
    }

    /// Adds bytes of the body.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let Some(separator) = self.separator.take() else { return self.take(bytes) };
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = find(&rest[from..], &separator) {
            self.take(&rest[from..from + at]);
            self.end_part();
            from += at + separator.len();
        }
        let sure = rest.len().saturating_sub(separator.len() - 1).max(from);
        self.take(&rest[from..sure]);
        rest.drain(..sure);
        (self.rest, self.separator) = (rest, Some(separator));
    }

    /// The fingerprint of the whole request.
    pub(super) fn end(mut self) -> Fingerprint {
        let rest = std::mem::take(&mut self.rest);
        self.take(&rest);
        self.end_part();
        self.sum.finalize().into()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.part += bytes.len() as u64;
    }

    /// Closes a part with its length, so that parts cannot run into one another.
    fn end_part(&mut self) {
        self.sum.update(self.part.to_le_bytes());
        self.part = 0;
    }
}

/// The boundary that a form's content type names.
fn boundary(kind: &str) -> Option<&str> {
    let named = |parameter: &'_ str| {
        parameter.trim().get(..9).is_some_and(|name| name.eq_ignore_ascii_case("boundary="))
    };
    let value = kind.split(';').skip(1).find(|parameter| named(parameter))?.trim();
    Some(value[9..].trim_matches('"')).filter(|text| !text.is_empty())
}

/// Where `separator` begins in `bytes`. It begins with `-`, which is rare enough to look for alone.
fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    bytes.windows(separator.len()).position(|window| window[0] == b'-' && window == separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    /// The fingerprint of a body that arrives in pieces of `piece` bytes.
    fn of(path: &str, kind: &str, body: &str, piece: usize) -> Fingerprint {
        let request = TestRequest::post().uri(path).insert_header(("content-type", kind)).to_http_request();
        let mut fingerprint = Fingerprinting::of(&request);
        body.as_bytes().chunks(piece).for_each(|bytes| fingerprint.add(bytes));
        fingerprint.end()
    }

    fn form(boundary: &str, text: &str) -> (String, String) {
        let part =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n{text}\r\n");
        (
            format!("Multipart/Form-Data; charset=utf-8; Boundary=\"{boundary}\""),
            format!("{part}{part}--{boundary}--\r\n"),
        )
    }

    #[test]
    fn any_byte_of_a_body_counts_and_how_it_arrives_does_not() {
        let json = |body: &str, piece| of("/v1/images/generations", "application/json", body, piece);
        let one = json("{\"prompt\": \"red\"}", 100);
        assert_eq!(one, json("{\"prompt\": \"red\"}", 1));
        assert_ne!(one, json("{\"prompt\": \"rad\"}", 100));
        assert_ne!(one, json("{\"prompt\": \"red\"} ", 100));
        assert_ne!(one, of("/v1/images/edits", "application/json", "{\"prompt\": \"red\"}", 100));
        assert_eq!(
            one,
            of("/v1/images/generations", "Application/JSON; charset=utf-8", "{\"prompt\": \"red\"}", 100)
        );
    }

    #[test]
    fn the_boundary_of_a_form_does_not_count_however_the_bytes_arrive() {
        let sums = |boundary: &str, text: &str| {
            let (kind, body) = form(boundary, text);
            let sums = [1, 2, 3, 7, 64, 10_000].map(|piece| of("/v1/images/edits", &kind, &body, piece));
            assert!(sums.iter().all(|sum| *sum == sums[0]), "{boundary}");
            sums[0]
        };
        let one = sums("----one", "a red-apple--");
        assert_eq!(one, sums("27e4b1dd0a8c4a2b", "a red-apple--"));
        assert_eq!(one, sums("x", "a red-apple--"));
        assert_ne!(one, sums("----one", "a red apple--"));
        let (kind, body) = form("b", "t");
        let moved = body.replacen("t\r\n--b", "\r\n--bt", 1);
        assert_ne!(
            of("/", &kind, &body, 9),
            of("/", &kind, &moved, 9),
            "a byte in another part is another form"
        );
    }
}
