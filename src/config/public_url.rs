//! The address under which callers reach a server.

use std::fmt;
use std::str::FromStr;

/// An address that begins with `http://` or `https://`, names a host, and may have a port and a path; without query,
/// fragment and user, and without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The address of a server that is asked for as `host` (with its port, where that is not 80) without TLS; none
    /// where that names no host.
    pub fn of_host(host: &str) -> Option<Self> {
        is_authority(host).then(|| Self(format!("http://{host}")))
    }

    /// The address of `path`, which begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "must be http://HOST or https://HOST, perhaps with a port and a path".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !["http", "https"].contains(&scheme) || !is_authority(authority) || !path.bytes().all(is_plain) {
            return Err(refused());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Whether a text is a host's name or address, perhaps with a port, and nothing that could end it early within an
/// address.
fn is_authority(text: &str) -> bool {
    /// The longest name that the domain name system has, with a port.
    const MOST: usize = 253 + 6;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let named = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let address = |host: &str| {
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.len() <= MOST && (named(host) || address(host)) && port.is_none_or(number)
}

/// Whether a byte of a path stands for itself in an address.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/%!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_joined_with_one_slash() {
        for (given, joined) in [
            ("http://example.org", "http://example.org/images/a"),
            ("https://example.org:8443/", "https://example.org:8443/images/a"),
            ("https://example.org/easel//", "https://example.org/easel/images/a"),
            ("http://[2001:db8::1]:80/", "http://[2001:db8::1]:80/images/a"),
        ] {
            let url: PublicUrl = given.parse().unwrap();
            assert_eq!(url.join("/images/a"), joined);
        }
    }

    #[test]
    fn what_is_no_address_of_a_server_is_refused() {
        for given in [
            "",
            "example.org",
            "ftp://example.org",
            "http://",
            "http:///path",
            "https://user@example.org",
            "https://example.org/?a=b",
            "https://example.org/#a",
            "https://example.org:99999",
            "https://example.org:port",
            "https://exa mple.org",
            "https://example.org/a\r\nb",
            "https://[::1",
        ] {
            assert!(given.parse::<PublicUrl>().is_err(), "{given}");
        }
    }

    #[test]
    fn a_host_header_is_taken_only_if_it_is_a_host() {
        for host in ["localhost", "127.0.0.1:8080", "[::1]:8080", "easel_1.internal", "xn--bcher-kva.example"]
        {
            assert_eq!(PublicUrl::of_host(host).map(|url| url.to_string()), Some(format!("http://{host}")));
        }
        let long = "a".repeat(300);
        for host in [
            "", ":80", "a b", "a/b", "a@b", "a?b", "a#b", "a\\b", "a\"b", "a:", "a:-1", "a:+1", "é", "::1",
            "[a]", &long,
        ] {
            assert_eq!(PublicUrl::of_host(host), None, "{host}");
        }
    }
}
