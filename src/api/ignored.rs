//! The `easel-ignored` header: the fields of a request that changed nothing.

use std::collections::BTreeSet;

/// Field names as a header can carry them: odd bytes as in URLs, and a bounded length, since a body may have any names.
pub(super) fn listed(names: &BTreeSet<String>) -> String {
    const MOST: usize = 1000;
    let mut list = String::new();
    for name in names {
        let safe: String = name.bytes().take(64).map(escaped).collect();
        if list.len() + safe.len() > MOST {
            list.push_str(", ...");
            break;
        }
        list.push_str(if list.is_empty() { "" } else { ", " });
        list.push_str(&safe);
    }
    list
}

fn escaped(byte: u8) -> String {
    let plain = byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_names_are_safe_in_a_header_and_bounded() {
        let names = |names: &[&str]| listed(&names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(names(&["user", "style"]), "style, user");
        assert_eq!(names(&["a,b\r\nx: y", "é"]), "a%2Cb%0D%0Ax%3A%20y, %C3%A9");
        let many = (0..5000).map(|k| format!("field{k}")).collect();
        let list = listed(&many);
        assert!(list.len() < 1100 && list.ends_with(", ..."), "{list}");
    }
}
