//! Names of stored pictures. A name carries all that a server must know of its picture, so that servers that share a
//! store need not know one another.

use crate::output::{Format, Quality};
use std::path::Path;

/// The name of a stored picture, `EXPIRY-SECRET.EXTENSION`: the Unix second at which it ends in ten digits, 128 bits
/// that no one can guess as 32 hexadecimal digits, and the format's extension. Names sort by their end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    text: String,
    expires: u64,
}

/// Digits of the end: enough until the year 2286.
const EXPIRY: usize = 10;

/// Hexadecimal digits of the secret.
const SECRET: usize = 32;

impl Name {
    /// The name of a picture of `format` that ends at `expires`, in Unix seconds.
    pub fn new(expires: u64, secret: u128, format: Format) -> Self {
        Self { text: format!("{expires:010}-{secret:032x}.{}", format.extension()), expires }
    }

    /// Reads a name; none where the text is not exactly one that [`Name::new`] makes.
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, _) = text.rsplit_once('.')?;
        let (expiry, secret) = stem.split_once('-')?;
        if expiry.len() != EXPIRY || secret.len() != SECRET {
            return None;
        }
        let name = Self::new(
            expiry.parse().ok()?,
            u128::from_str_radix(secret, 16).ok()?,
            Format::of_path(Path::new(text)).ok()?,
        );
        (name.text == text).then_some(name)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The Unix second at which the picture ends.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// The media type of the picture.
    pub fn mime(&self) -> &'static str {
        let extension = self.text.rsplit('.').next().unwrap_or_default();
        Format::named(extension, Quality::MAX).map_or("application/octet-stream", Format::mime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_with_what_it_carries() {
        for (name, mime) in [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")] {
            let format = Format::named(name, Quality::MAX).unwrap();
            let made = Name::new(1_800_000_000, 0xABC, format);
            assert_eq!(Name::parse(made.as_str()), Some(made.clone()));
            assert_eq!((made.expires(), made.mime()), (1_800_000_000, mime));
        }
        assert_eq!(
            Name::new(1_800_000_000, u128::MAX, Format::Png).as_str(),
            "1800000000-ffffffffffffffffffffffffffffffff.png"
        );
    }

    #[test]
    fn names_sort_by_their_end() {
        assert!(
            Name::new(999_999_999, u128::MAX, Format::Png).as_str()
                < Name::new(1_000_000_000, 0, Format::Png).as_str()
        );
    }

    #[test]
    fn nothing_else_is_a_name() {
        let good = "1800000000-0123456789abcdef0123456789abcdef.png";
        assert!(Name::parse(good).is_some());
        for bad in [
            "",
            ".",
            "..",
            "../1800000000-0123456789abcdef0123456789abcdef.png",
            "a/1800000000-0123456789abcdef0123456789abcdef.png",
            "1800000000-0123456789ABCDEF0123456789abcdef.png",
            "1800000000-0123456789abcdef0123456789abcde.png",
            "1800000000-+123456789abcdef0123456789abcdef.png",
            "+800000000-0123456789abcdef0123456789abcdef.png",
            "180000000-0123456789abcdef0123456789abcdef.png",
            "1800000000_0123456789abcdef0123456789abcdef.png",
            "1800000000-0123456789abcdef0123456789abcdef",
            "1800000000-0123456789abcdef0123456789abcdef.",
            "1800000000-0123456789abcdef0123456789abcdef.gif",
            "1800000000-0123456789abcdef0123456789abcdef.jpeg",
            "1800000000-0123456789abcdef0123456789abcdef.PNG",
            "1800000000-0123456789abcdef0123456789abcdef.png.",
            "1800000000-0123456789abcdef0123456789abcdef.png\0",
            "1800000000-0123456789abcdef0123456789abcdef.png#1",
            " 1800000000-0123456789abcdef0123456789abcdef.png",
            "holiday.png",
        ] {
            assert_eq!(Name::parse(bad), None, "{bad}");
        }
    }
}
