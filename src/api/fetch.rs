//! Pictures behind http(s) URLs: fetched from the hosts that the server's settings allow, and from no others.
//!
//! A server that fetches what callers name can be made to ask its own network. So the names that a host resolves to are
//! checked in the resolver whose addresses the connection then uses: no second look-up can give another one. Redirects
//! are not followed, no proxy is asked, and nothing of the caller's request is sent along.

use super::error::ApiResult;
use super::multipart::MOST_FILE;
use super::room::Hold;
use super::shown;
use crate::config::FetchHost;
use crate::error::{Error, ImageFlaw, Result};
use actix_web::web::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a picture may take to arrive.
const TIME: Duration = Duration::from_secs(30);

/// How long a host may take to take up the connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Whether an address may be asked.
type Rule = fn(IpAddr) -> bool;

/// Fetches pictures.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    hosts: Arc<[FetchHost]>,
    /// None where no host is allowed.
    client: Option<Client>,
    rule: Rule,
}

impl Fetcher {
    /// Fetches from `hosts`, as far as they have public addresses.
    ///
    /// # Errors
    /// If the system's certificates cannot be read.
    pub fn new(hosts: &[FetchHost]) -> Result<Self> {
        Self::ruled(hosts, is_public)
    }

    fn ruled(hosts: &[FetchHost], rule: Rule) -> Result<Self> {
        let client = (!hosts.is_empty()).then(|| client(rule)).transpose()?;
        Ok(Self { hosts: hosts.into(), client, rule })
    }

    /// The file at `url`; the content decides what it is. What it takes is held in `hold`.
    ///
    /// # Errors
    /// If the URL is not allowed, its host has no public address, or what it answers is no file of at most
    /// [`MOST_FILE`] bytes; the error names `param`.
    pub async fn fetch(&self, url: &str, param: &'static str, hold: &mut Hold) -> ApiResult<Bytes> {
        let (client, url) = self
            .allowed(url)
            .map_err(|message| Error::flawed(param, ImageFlaw::Url, format!("{param} {message}")))?;
        let failed = |message: String| {
            Error::flawed(param, ImageFlaw::Download, format!("{param} could not be fetched: {message}"))
        };
        let answer = client.get(url).send().await.map_err(|cause| failed(causes(&cause)))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(
                failed(format!("its host answers {status}, a redirect, which is not followed")).into()
            );
        }
        if status != reqwest::StatusCode::OK {
            return Err(failed(format!("its host answers {status}")).into());
        }
        let large = || {
            let message = format!("{param} is a file of more than {MOST_FILE} bytes, the most that is read");
            Error::flawed(param, ImageFlaw::FileTooLarge, message)
        };
        if answer.content_length().is_some_and(|length| length > MOST_FILE as u64) {
            return Err(large().into());
        }
        body(answer, hold, large, failed).await
    }

    /// The URL, if it may be fetched.
    fn allowed(&self, text: &str) -> std::result::Result<(&Client, Url), String> {
        let Some(client) = &self.client else {
            return Err(format!(
                "must be a data URL (data:image/png;base64,...): this server fetches nothing; got '{}'",
                shown(text)
            ));
        };
        let url = Url::parse(text).map_err(|bad| format!("is no URL: {bad}; got '{}'", shown(text)))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(format!("must be a data, https or http URL; got '{}'", shown(text)));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not carry a user's name or password".into());
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("must name a host; got '{}'", shown(text)));
        };
        if !self.hosts.iter().any(|allowed| allowed.allows(host, port)) {
            return Err(format!(
                "may not be fetched: this server's settings do not allow {}:{port}",
                shown(host)
            ));
        }
        // An address in place of a name is not resolved, so the resolver would not see it.
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if address.is_some_and(|address| !(self.rule)(address)) {
            return Err(format!("may not be fetched: {} is no public address", shown(host)));
        }
        Ok((client, url))
    }
}

/// Reads an answer's body, of at most [`MOST_FILE`] bytes.
async fn body(
    mut answer: Response,
    hold: &mut Hold,
    large: impl Fn() -> Error,
    failed: impl Fn(String) -> Error,
) -> ApiResult<Bytes> {
    let mut file = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|cause| failed(causes(&cause)))? {
        if file.len() + chunk.len() > MOST_FILE {
            return Err(large().into());
        }
        hold.grow(chunk.len())?;
        file.extend_from_slice(&chunk);
    }
    Ok(file.into())
}

fn client(rule: Rule) -> Result<Client> {
    // The first one in a process stays; whichever it is, it is this one.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .user_agent(concat!("easel/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .dns_resolver(Resolver(rule))
        .connect_timeout(CONNECT)
        .timeout(TIME)
        // A connection belongs to the thread that opened it, and each HTTP thread has its own.
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|cause| Error::config(format!("pictures cannot be fetched: {}", causes(&cause))))
}

/// The sentence of an error and of what caused it, without the URL: it may carry a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut words = match error {
        _ if error.is_timeout() => format!("it took more than {} s", TIME.as_secs()),
        _ if error.is_connect() => "no connection".into(),
        _ => "the exchange broke off".into(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Resolves names to the addresses that a rule lets pass.
struct Resolver(Rule);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| rule(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the host has no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet: IANA's special-purpose registries for IPv4 and IPv6, with
/// everything but global unicast left out.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127 | 224.., ..) => true, // this network, private, loopback, multicast and reserved
        (100, 64..=127, _) => true,         // shared by carriers
        (169, 254, _) => true,              // link-local, where clouds keep their metadata
        (172, 16..=31, _) | (192, 168, _) => true, // private
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) => true, // protocols and documentation
        (192, 88, 99) => true,              // 6to4 relays
        (198, 18 | 19, _) => true,          // benchmarks
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    match address.segments() {
        // NAT64, where a network has no IPv4 of its own
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4((u32::from(high) << 16 | u32::from(low)).into())
        }
        [0x2001, 0..=0x1ff, ..] => false, // protocols, Teredo among them
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false, // documentation
        [0x2002, ..] => false,            // 6to4, which carries any IPv4
        [first, ..] => first >> 13 == 1,  // 2000::/3, all that is global unicast
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::room::Room;
    use actix_web::ResponseError;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A host on this machine that gives `answers` one after another; its port.
    fn host(answers: Vec<Vec<u8>>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                // Whoever has read enough hangs up.
                drop(stream.write_all(&answer));
            }
        });
        port
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes(), body].concat()
    }

    fn fetcher(hosts: &str, rule: Rule) -> Fetcher {
        let hosts: Vec<FetchHost> = hosts.split(',').map(|host| host.parse().unwrap()).collect();
        Fetcher::ruled(&hosts, rule).unwrap()
    }

    async fn fetched(fetcher: &Fetcher, url: &str) -> ApiResult<Bytes> {
        fetcher.fetch(url, "image", &mut Room::new(200 << 20).hold()).await
    }

    async fn refusal(fetcher: &Fetcher, url: &str) -> String {
        let refused = fetched(fetcher, url).await.unwrap_err();
        assert_eq!(refused.status_code().as_u16(), 400, "{refused}");
        refused.to_string()
    }

    #[actix_web::test]
    async fn a_file_of_an_allowed_host_is_fetched_whatever_type_it_claims() {
        let port = host(vec![answer("200 OK\r\ncontent-type: text/html", b"file"); 2]);
        let fetcher = fetcher(&format!("127.0.0.1:{port},localhost:{port}"), |_| true);
        for name in ["127.0.0.1", "localhost"] {
            let file = fetched(&fetcher, &format!("http://{name}:{port}/a.png?b#c")).await.unwrap();
            assert_eq!(file, "file");
        }
    }

    #[actix_web::test]
    async fn a_host_on_the_list_whose_addresses_are_not_public_is_not_asked() {
        let port = host(vec![]);
        let fetcher = fetcher(&format!("127.0.0.1:{port},localhost:{port},*:{port}"), is_public);
        let named = refusal(&fetcher, &format!("http://localhost:{port}/")).await;
        assert!(named.contains("no public address"), "{named}");
        for written in [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
        ] {
            let refused = refusal(&fetcher, &format!("http://{written}:{port}/")).await;
            assert!(refused.contains("is no public address"), "{written}: {refused}");
        }
    }

    #[actix_web::test]
    async fn hosts_ports_and_schemes_that_are_not_on_the_list_are_refused() {
        let fetcher = fetcher("pictures.example.com,*.example.org:8443", |_| panic!("nothing is looked up"));
        for url in [
            "https://example.com/a",
            "https://pictures.example.com.evil.test/a",
            "https://evilpictures.example.com/a",
            "https://pictures.example.com:8443/a",
            "https://a.example.org/a",
        ] {
            let refused = refusal(&fetcher, url).await;
            assert!(refused.contains("settings do not allow"), "{url}: {refused}");
        }
        for url in ["ftp://pictures.example.com/a", "file:///etc/passwd", "gopher://pictures.example.com"] {
            let refused = refusal(&fetcher, url).await;
            assert!(refused.contains("must be a data, https or http URL"), "{url}: {refused}");
        }
        for url in ["https://me@pictures.example.com/", "https://:a@pictures.example.com/"] {
            assert!(refusal(&fetcher, url).await.contains("password"), "{url}");
        }
        assert!(refusal(&fetcher, "pictures.example.com/a.png").await.contains("is no URL"));
    }

    #[actix_web::test]
    async fn nothing_is_fetched_where_no_host_is_allowed() {
        let none = Fetcher::new(&[]).unwrap();
        assert!(refusal(&none, "https://example.com/a.png").await.contains("fetches nothing"));
    }

    #[actix_web::test]
    async fn a_redirect_is_not_followed_and_an_error_is_no_picture() {
        let port = host(vec![
            answer("302 Found\r\nlocation: http://169.254.169.254/", b""),
            answer("404 Not Found", b"\x89PNG"),
            answer("206 Partial Content", b"\x89PNG"),
        ]);
        let fetcher = fetcher(&format!("127.0.0.1:{port}"), |_| true);
        let url = format!("http://127.0.0.1:{port}/");
        assert!(refusal(&fetcher, &url).await.contains("redirect, which is not followed"));
        assert!(refusal(&fetcher, &url).await.contains("404"));
        assert!(refusal(&fetcher, &url).await.contains("206"));
        assert!(refusal(&fetcher, &url).await.contains("no connection"), "the host is gone");
    }

    #[actix_web::test]
    async fn a_file_over_the_bound_is_refused_by_its_claim_or_when_it_has_come_that_far() {
        let port = host(vec![
            answer(&format!("200 OK\r\ncontent-length: {}", MOST_FILE + 1), b""),
            answer("200 OK", &vec![0; MOST_FILE + 1]),
            answer("200 OK\r\ncontent-length: 10", b"short"),
        ]);
        let fetcher = fetcher(&format!("127.0.0.1:{port}"), |_| true);
        let url = format!("http://127.0.0.1:{port}/");
        for _ in 0..2 {
            assert!(refusal(&fetcher, &url).await.contains("more than 52428800 bytes"));
        }
        assert!(refusal(&fetcher, &url).await.contains("could not be fetched"));
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.1.1.1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::8888",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
