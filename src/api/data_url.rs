//! `data:` URLs: a picture inside a JSON body.

use super::multipart::MOST_FILE;
use super::shown;
use crate::error::{Error, ImageFlaw, Result};
use crate::output::media_type;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The longest URL in characters, OpenAI's bound.
pub(super) const MOST_CHARS: usize = 20_971_520;

/// Base64 with or without the padding, which some programs leave out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Media types that say nothing about the content.
const OPEN: [&str; 2] = ["", "application/octet-stream"];

/// The file in `data:image/png;base64,...`.
///
/// The media type may be left out; one that is given must be that of the content.
///
/// # Errors
/// If it is longer than [`MOST_CHARS`], is not base64, holds nothing, or its media type is none that is read or not
/// that of its content; the error names `param`.
pub(super) fn decode(url: &str, param: &'static str) -> Result<Vec<u8>> {
    let refused = |flaw, message: String| Err(Error::flawed(param, flaw, format!("{param} {message}")));
    if url.len() > MOST_CHARS {
        return refused(
            ImageFlaw::FileTooLarge,
            format!("is a data URL of {} characters; at most {MOST_CHARS} are read", url.len()),
        );
    }
    let Some((head, data)) = rest(url).and_then(|rest| rest.split_once(',')) else {
        return refused(
            ImageFlaw::Base64,
            format!("must be data:image/png;base64,...; got '{}'", shown(url)),
        );
    };
    let mut words = head.split(';').map(str::trim);
    let kind = words.next().unwrap_or("").to_ascii_lowercase();
    let kind = if kind == "image/jpg" { "image/jpeg" } else { &kind };
    if !words.any(|word| word.eq_ignore_ascii_case("base64")) {
        return refused(
            ImageFlaw::Base64,
            format!("must be base64: data:image/png;base64,...; got '{}'", shown(url)),
        );
    }
    if !OPEN.contains(&kind) && !["image/png", "image/jpeg", "image/webp"].contains(&kind) {
        let message = format!("must be image/png, image/jpeg or image/webp; got '{}'", shown(kind));
        return refused(ImageFlaw::MediaType, message);
    }
    let file = match BASE64.decode(data) {
        Ok(file) => file,
        Err(bad) => return refused(ImageFlaw::Base64, format!("is not base64: {bad}")),
    };
    match media_type(&file) {
        Some(content) if content != kind && !OPEN.contains(&kind) => {
            refused(ImageFlaw::Format, format!("says {kind}, yet its content is {content}"))
        }
        _ => Ok(file),
    }
}

/// Whether a text is a data URL.
pub(super) fn is_one(text: &str) -> bool {
    rest(text).is_some()
}

/// What follows `data:`, in any case.
fn rest(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("data:").then_some(rest)
}

// A data URL is never a larger file than an upload may be.
const _: () = assert!(MOST_CHARS / 4 * 3 <= MOST_FILE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const PNG: &str = "iVBORw0KGgo"; // the eight bytes that every PNG begins with

    fn flaw(url: &str) -> ImageFlaw {
        match decode(url, "mask").unwrap_err().kind() {
            ErrorKind::InvalidImage { param: "mask", flaw } => *flaw,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_read_with_its_media_type_or_without_and_with_padding_or_without() {
        let png = b"\x89PNG\r\n\x1a\n";
        for head in ["image/png", "", "application/octet-stream", "IMAGE/PNG", "image/png;charset=utf-8"] {
            for padding in ["", "="] {
                let url = format!("data:{head};base64,{PNG}{padding}");
                assert_eq!(decode(&url, "image").unwrap(), png, "{url}");
            }
        }
        assert_eq!(decode(&format!("DATA:image/png;BASE64,{PNG}="), "image").unwrap(), png);
        assert_eq!(decode("data:image/jpg;base64,/9j/", "image").unwrap(), b"\xff\xd8\xff");
        assert_eq!(decode("data:;base64,", "image").unwrap(), b"");
    }

    #[test]
    fn what_is_no_base64_is_refused_as_such() {
        let urls = [
            "data:image/png;base64,!",
            "data:image/png;base64,AAA A",
            "data:image/png,abc",
            "data:",
            "x",
            "",
        ];
        for url in urls {
            assert_eq!(flaw(url), ImageFlaw::Base64, "{url}");
        }
    }

    #[test]
    fn a_media_type_must_be_one_that_is_read_and_that_of_the_content() {
        assert_eq!(flaw("data:text/html;base64,AAAA"), ImageFlaw::MediaType);
        assert_eq!(flaw("data:image/svg+xml;base64,AAAA"), ImageFlaw::MediaType);
        assert_eq!(flaw(&format!("data:image/jpeg;base64,{PNG}")), ImageFlaw::Format);
    }

    #[test]
    fn a_url_over_the_bound_is_refused_before_it_is_decoded() {
        let head = "data:image/png;base64,";
        let url = format!("{head}{}", "!".repeat(MOST_CHARS - head.len() + 1));
        assert_eq!(flaw(&url), ImageFlaw::FileTooLarge);
    }
}
