//! How pictures come back: the fields that make a [`Reply`].

use crate::api::fields::Fields;
use crate::api::shown;
use crate::error::{Error, Result};
use crate::output::{Format, Quality};
use crate::request::{Count, Effort};

/// How the pictures of a request come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::api) struct Reply {
    /// What a picture is written as.
    pub format: Format,
    /// By which way its file comes.
    pub delivery: Delivery,
    /// The answer's `quality`; none where OpenAI's answers have no word for the request's.
    pub quality: Option<&'static str>,
}

/// By which way files come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Delivery {
    /// Kept, and fetched by their addresses.
    Url,
    /// Within the answer, in base64.
    Base64,
    /// As events: some previews, and then the picture, all in base64.
    Stream {
        /// How many previews.
        previews: u32,
    },
}

/// The most previews of a stream.
const MOST_PREVIEWS: u32 = 3;

/// Takes the fields that say how pictures come back, of a request with the given effort.
///
/// # Errors
/// If one is out of its bounds, of the wrong type, or cannot be honoured.
pub(super) fn reply(fields: &mut Fields, effort: Option<Effort>) -> Result<Reply> {
    let quality = effort.and_then(strict_quality);
    Ok(Reply { format: format(fields)?, delivery: delivery(fields)?, quality })
}

/// OpenAI's name of an effort, where its answers may have one.
fn strict_quality(effort: Effort) -> Option<&'static str> {
    match effort {
        Effort::Low => Some("low"),
        Effort::Medium => Some("medium"),
        Effort::High => Some("high"),
        Effort::VeryHigh | Effort::Highest => None,
    }
}

fn format(fields: &mut Fields) -> Result<Format> {
    let quality = fields.whole(&["output_compression"], |text| match text.parse() {
        Ok(value) => Quality::new(value),
        Err(_) => Err(Error::parameter(
            "output_compression",
            format!("output_compression must be a whole number from 0 to 100; got {}", shown(text)),
        )),
    })?;
    let is_lossy = quality.is_some_and(|quality| quality != Quality::MAX);
    let quality = quality.unwrap_or_default();
    let format = fields.text(&["output_format"], |name| Format::named(&name, quality))?;
    let format = format.unwrap_or(Format::Png);
    if format == Format::Png && is_lossy {
        fields.ignore("output_compression");
    }
    Ok(format)
}

fn delivery(fields: &mut Fields) -> Result<Delivery> {
    let asked = fields.text(&["response_format"], |format| match format.as_str() {
        "b64_json" => Ok(Delivery::Base64),
        "url" => Ok(Delivery::Url),
        other => Err(Error::parameter(
            "response_format",
            format!("response_format must be url or b64_json; got '{}'", shown(other)),
        )),
    })?;
    let previews = fields.whole(&["partial_images"], |text| match text.parse() {
        Ok(value @ 0..=MOST_PREVIEWS) => Ok(value),
        _ => Err(Error::parameter(
            "partial_images",
            format!("partial_images must be a whole number from 0 to {MOST_PREVIEWS}; got {}", shown(text)),
        )),
    })?;
    let previews = previews.unwrap_or(0);
    if fields.flag("stream")? == Some(true) {
        if asked == Some(Delivery::Url) {
            fields.ignore("response_format");
        }
        return Ok(Delivery::Stream { previews });
    }
    if previews > 0 {
        fields.ignore("partial_images");
    }
    Ok(asked.unwrap_or(Delivery::Url))
}

impl Reply {
    /// Whether so many pictures can come back like this: a stream brings one, as OpenAI's do, whose events do not say
    /// to which picture they belong.
    ///
    /// # Errors
    /// If they cannot.
    pub(super) fn allows(&self, count: Count) -> Result<()> {
        match (self.delivery, count.get()) {
            (Delivery::Stream { .. }, 2..) => {
                Err(Error::parameter("n", format!("n must be 1 in a stream; got {}", count.get())))
            }
            _ => Ok(()),
        }
    }
}
