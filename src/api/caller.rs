//! Who asks: whom the engine's fairness counts as one.

use super::keys::Keys;
use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// Numbers callers. Its keys are this process's own, so that no one can choose a key or an address that shares
/// another's number.
#[derive(Debug, Clone, Default)]
pub(super) struct Callers(RandomState);

impl Callers {
    /// The number of whoever sent `request`: of its API key, or else of its address.
    pub fn number(&self, request: &HttpRequest) -> u64 {
        match bearer(request.headers()) {
            Some(key) => self.0.hash_one(("key", key)),
            None => self.of_address(request),
        }
    }

    /// The number under which the limits of whoever sent `request` are counted. Where nobody checks keys it is that of
    /// the address: a key can be made up for every request.
    pub fn accountable(&self, request: &HttpRequest, keys: &Keys) -> u64 {
        if keys.asked_for() { self.number(request) } else { self.of_address(request) }
    }

    fn of_address(&self, request: &HttpRequest) -> u64 {
        self.0.hash_one(("address", request.peer_addr().map(|peer| house(peer.ip()))))
    }
}

/// The API key that a request came with.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION).and_then(|value| key(value.as_bytes()))
}

/// The key of an `authorization` header: `Bearer KEY`, the scheme in any case (RFC 9110, 11.1).
fn key(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, key) = authorization.split_at_checked(SCHEME.len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !key.is_empty()).then_some(key)
}

/// The address without the part that its owner chooses: a house has 2^64 IPv6 addresses and one prefix of 64 bits.
fn house(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn a_caller_is_its_key_or_else_its_address() {
        let callers = Callers::default();
        let number = |key: Option<&str>, peer: &str| {
            let request = TestRequest::default().peer_addr(peer.parse().unwrap());
            let request = match key {
                Some(key) => request.insert_header(("authorization", key)),
                None => request,
            };
            callers.number(&request.to_http_request())
        };
        let address = number(None, "10.0.0.1:80");
        assert_eq!(address, number(None, "10.0.0.1:81"), "ports do not count");
        assert_eq!(address, number(None, "[::ffff:10.0.0.1]:80"), "nor does the form of the address");
        assert_ne!(address, number(None, "10.0.0.2:80"));
        assert_eq!(number(None, "[2001:db8::1]:80"), number(None, "[2001:db8::ffff:2]:80"), "one house");
        assert_ne!(number(None, "[2001:db8::1]:80"), number(None, "[2001:db8:0:1::1]:80"), "two houses");
        let key = number(Some("Bearer one"), "10.0.0.1:80");
        assert_eq!(key, number(Some("bearer  one "), "10.0.0.2:80"), "wherever the key is used");
        assert_ne!(key, number(Some("Bearer two"), "10.0.0.1:80"));
        for none in ["Bearer ", "Bearer", "Basic b25l", ""] {
            assert_eq!(number(Some(none), "10.0.0.1:80"), address, "'{none}' is no key");
        }
    }
}
