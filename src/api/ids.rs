//! Ids of requests and numbers drawn at the edge.

use std::hash::{BuildHasher, RandomState};

/// The longest request id that is taken from a caller.
const LONGEST_ID: usize = 128;

/// The caller's id of a request if it is short and plain (letters, digits, `-`, `_`, `.`, `:`), a fresh one otherwise.
pub fn request_id(given: Option<&str>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match given {
        Some(id) if (1..=LONGEST_ID).contains(&id.len()) && id.chars().all(plain) => id.to_owned(),
        _ => format!("req_{:016x}{:016x}", random(), random()),
    }
}

/// A number no one can foresee who does not know the standard library's hash keys, which the system's randomness
/// seeds: enough to tell requests apart and to pick a seed, not for secrets.
pub fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        assert_eq!(request_id(Some("7b-A_c.d:9")), "7b-A_c.d:9");
        for given in [None, Some(""), Some("a b"), Some("a\nb"), Some("é"), Some(&*"x".repeat(129))] {
            let id = request_id(given);
            assert!(id.starts_with("req_") && id.len() == 36, "{id}");
        }
    }

    #[test]
    fn fresh_numbers_differ() {
        let numbers: std::collections::HashSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
