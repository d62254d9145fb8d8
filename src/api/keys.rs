//! API keys: who may call. They are held as SHA-256 sums and compared in constant time.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// The SHA-256 sum of a key.
type Sum = [u8; 32];

/// Where keys come from.
#[derive(Clone, Default)]
pub struct Source {
    /// A file of keys, one a line.
    pub file: Option<PathBuf>,
    /// Keys themselves, separated by commas or line ends.
    pub text: Option<String>,
}

/// A key that opens the API.
#[derive(Clone, PartialEq)]
struct Key {
    name: Arc<str>,
    sum: Sum,
}

/// The keys that open the API; a clone holds the same ones. Where there is none, no key is asked for.
#[derive(Clone, Default)]
pub struct Keys {
    source: Source,
    held: Arc<RwLock<Arc<[Key]>>>,
}

impl Keys {
    /// Reads the keys of `source`.
    ///
    /// # Errors
    /// If the file cannot be read, a line is no key, two lines have one key or name, or a source that is given holds no
    /// key at all. No error tells a key.
    pub fn read(source: Source) -> Result<Self> {
        let held = source.keys()?;
        Ok(Self { source, held: Arc::new(RwLock::new(held.into())) })
    }

    /// Reads the keys again, for all clones, and returns how many there are.
    ///
    /// # Errors
    /// As [`Keys::read`]; the keys that were held stay.
    pub fn reload(&self) -> Result<usize> {
        let keys = self.source.keys()?;
        let count = keys.len();
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
        Ok(count)
    }

    /// Whether callers need a key. A source never changes between keys and no keys, so neither does this.
    pub fn asked_for(&self) -> bool {
        !self.held().is_empty()
    }

    /// The name of a key that opens the API. Takes the same time whichever of the keys it is.
    pub(super) fn name_of(&self, key: &[u8]) -> Option<Arc<str>> {
        let given = sum(key);
        let held = self.held();
        let mut place = u32::MAX;
        for (at, key) in (0..).zip(held.iter()) {
            place.conditional_assign(&at, key.sum.ct_eq(&given));
        }
        held.get(place as usize).map(|key| Arc::clone(&key.name))
    }

    fn held(&self) -> Arc<[Key]> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Keys {
    /// Tells how many there are, and nothing of them.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} keys", self.held().len())
    }
}

impl Source {
    fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        if let Some(path) = &self.file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|cause| Error::config(format!("the file of API keys {shown}: {cause}")))?;
            add(&text, &mut keys).map_err(|error| error.context(format!("the file of API keys {shown}")))?;
        }
        if let Some(text) = &self.text {
            let lines = text.replace(',', "\n");
            add(&lines, &mut keys).map_err(|error| error.context("EASEL_API_KEYS"))?;
        }
        Ok(keys)
    }
}

/// Adds the keys of a text: one a line, `KEY` or `NAME KEY`; a line that begins with `#` is a comment.
fn add(text: &str, keys: &mut Vec<Key>) -> Result<()> {
    let before = keys.len();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: String| Error::config(format!("line {number}: {what}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, key) = match words[..] {
            [key] => (format!("key-{}", keys.len() + 1), key),
            [name, key] => (name.to_owned(), key),
            _ => return Err(wrong(format!("a line holds KEY or NAME KEY; it has {} words", words.len()))),
        };
        let sum = summed(key).map_err(wrong)?;
        if keys.iter().any(|known| *known.name == *name || known.sum == sum) {
            return Err(wrong("an earlier key has the same name, or is the same key".into()));
        }
        keys.push(Key { name: name.into(), sum });
    }
    if keys.len() == before { Err(Error::config("there is no key in it")) } else { Ok(()) }
}

/// The sum of a key as it is written: the key itself, or `sha256:` and its sum in hexadecimal.
fn summed(written: &str) -> std::result::Result<Sum, String> {
    /// What a person would make up is shorter.
    const SHORTEST: usize = 8;
    if let Some(hex) = written.strip_prefix("sha256:") {
        return from_hex(hex).ok_or_else(|| "sha256: is followed by 64 hexadecimal digits".into());
    }
    if written.len() < SHORTEST || !written.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a key has at least {SHORTEST} letters, digits or signs of ASCII"));
    }
    Ok(sum(written.as_bytes()))
}

fn sum(key: &[u8]) -> Sum {
    Sha256::digest(key).into()
}

fn from_hex(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    if text.len() != 2 * sum.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in sum.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys> {
        Keys::read(Source { file: None, text: Some(text.into()) })
    }

    #[test]
    fn a_key_opens_under_its_name_and_no_other_does() {
        let keys = keys("# ours\nfirst-key-of-all\n\n  studio   sk-studio-1234 \r\n").unwrap();
        let name = |key: &str| keys.name_of(key.as_bytes()).map(|name| name.to_string());
        assert_eq!(name("first-key-of-all").as_deref(), Some("key-1"));
        assert_eq!(name("sk-studio-1234").as_deref(), Some("studio"));
        for wrong in ["", "studio", "sk-studio-123", "sk-studio-12345", "SK-STUDIO-1234", "# ours"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert!(keys.asked_for() && !Keys::default().asked_for());
    }

    #[test]
    fn a_key_may_be_given_by_its_sum_alone() {
        // printf abc | sha256sum
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let keys = keys(&format!("short sha256:{abc}, other-key")).unwrap();
        assert_eq!(keys.name_of(b"abc").as_deref(), Some("short"));
        assert_eq!(keys.name_of(abc.as_bytes()), None, "the sum is no key");
        assert_eq!(keys.name_of(b"other-key").as_deref(), Some("key-2"));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_line_and_never_told() {
        for (text, words) in [
            ("good-key-1\nhush", "line 2: a key has at least 8"),
            ("a b hushhush-hush", "line 1: a line holds KEY or NAME KEY; it has 3 words"),
            ("sha256:hush", "64 hexadecimal digits"),
            ("a hushhush-1\na hushhush-2", "line 2: an earlier key"),
            ("a hushhush-1\nb hushhush-1", "line 2: an earlier key"),
            ("# nothing\n", "there is no key in it"),
        ] {
            let refused = keys(text).unwrap_err().to_string();
            assert!(refused.contains(words) && !refused.contains("hush"), "{refused}");
        }
    }

    #[test]
    fn a_debug_print_tells_nothing_of_the_keys() {
        assert_eq!(format!("{:?}", keys("hushhush-1").unwrap()), "1 keys");
    }
}
