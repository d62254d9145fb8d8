//! Settings of callers' pictures: where they may be fetched from, and how many bytes of them are held.

use clap::Args;
use std::str::FromStr;

/// What `easel serve` does with callers' pictures.
#[derive(Debug, Clone, Args)]
pub struct UploadArgs {
    /// Hosts that `image_url` may fetch pictures from, if their addresses are public: example.com, *.example.com,
    /// example.com:8443 or *, separated by commas [default: none]
    #[arg(long, env = "EASEL_FETCH_IMAGES_FROM", value_name = "HOST,...", value_delimiter = ',')]
    pub fetch_images_from: Vec<FetchHost>,
    /// MiB of uploaded pictures that the server holds at once; a request beyond them is answered 503
    #[arg(long, env = "EASEL_UPLOAD_MEMORY", value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    pub upload_memory: u32,
}

/// A host that pictures may be fetched from: a name or an address, `*.` and a name for all names under it, or `*` for
/// any. Without a port it stands for the usual ones, 80 and 443; with one, for that port alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchHost {
    /// In lower case, as a URL has it.
    host: String,
    port: Option<u16>,
}

impl FetchHost {
    /// Whether a URL's host and port, as it was parsed, are this one's.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let is_named = match self.host.strip_prefix('*') {
            Some(ending) => host.ends_with(ending) && host.len() > ending.len(),
            None => host == self.host,
        };
        is_named && self.port.map_or([80, 443].contains(&port), |own| port == own)
    }
}

impl FromStr for FetchHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || "must be a host such as example.com, *.example.com, example.com:8443 or *".to_owned();
        let text = text.trim().to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| refused())?)),
            _ => (text.as_str(), None),
        };
        let name = host.strip_prefix("*.").unwrap_or(if host == "*" { "any" } else { host });
        let is_address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = is_address.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        match is_name || is_address {
            true => Ok(Self { host: host.to_owned(), port }),
            false => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn uploads(arguments: &[&str]) -> Result<UploadArgs, String> {
        let all = [&["easel", "serve"], arguments].concat();
        match Cli::try_parse_from(all).map_err(|error| error.to_string())?.command {
            Some(Command::Serve(args)) => Ok(args.uploads),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn hosts_to_fetch_from_are_names_addresses_and_patterns() {
        let args = uploads(&["--fetch-images-from", "Example.com,*.example.org:8443,[::1]:80"]).unwrap();
        let [name, pattern, address] = &args.fetch_images_from[..] else { panic!("three hosts") };
        assert!(name.allows("example.com", 443) && !name.allows("example.com", 8443));
        assert!(!name.allows("a.example.com", 443));
        assert!(pattern.allows("a.b.example.org", 8443) && !pattern.allows("a.example.org", 443));
        assert!(!pattern.allows("example.org", 8443) && !pattern.allows("aexample.org", 8443));
        assert!(address.allows("[::1]", 80) && !address.allows("[::1]", 443));
        assert!("*".parse::<FetchHost>().unwrap().allows("anything", 80));
        assert!(uploads(&[]).unwrap().fetch_images_from.is_empty());
        for bad in ["", "https://example.com", "a/b", "*example.com", "a:b", "a:99999", "[x]", "*.", "é"] {
            assert!(bad.parse::<FetchHost>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_room_for_uploads_holds_at_least_the_largest_one() {
        assert_eq!(uploads(&[]).unwrap().upload_memory, 1024);
        assert!(uploads(&["--upload-memory", "1"]).unwrap_err().contains("128"));
    }
}
