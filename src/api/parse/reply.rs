//! How pictures come back: the fields that make a [`Reply`].

use crate::api::fields::Fields;
use crate::api::shown;
use crate::error::{Error, Result};
use crate::output::{Format, Quality};

/// How the pictures of a request come back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::api) struct Reply {
    /// What a picture is written as.
    pub format: Format,
}

/// Takes the fields that say how pictures come back.
///
/// # Errors
/// If one is out of its bounds, of the wrong type, or cannot be honoured.
pub(super) fn reply(fields: &mut Fields) -> Result<Reply> {
    let format = format(fields)?;
    refuse(fields)?;
    Ok(Reply { format })
}

fn format(fields: &mut Fields) -> Result<Format> {
    let quality = fields.whole(&["output_compression"], |text| match text.parse() {
        Ok(value) => Quality::new(value),
        Err(_) => Err(Error::parameter(
            "output_compression",
            format!("output_compression must be a whole number from 0 to 100; got {}", shown(text)),
        )),
    })?;
    let quality = quality.unwrap_or_default();
    let format = fields.text(&["output_format"], |name| Format::named(&name, quality))?;
    format.map_or_else(|| Format::named("png", quality), Ok)
}

/// Refuses what would make another answer than the one that comes.
fn refuse(fields: &mut Fields) -> Result<()> {
    if fields.flag("stream")? == Some(true) {
        return Err(Error::parameter(
            "stream",
            "stream is not supported yet; send false, or leave stream out",
        ));
    }
    fields.text(&["response_format"], |format| match format.as_str() {
        "b64_json" => Ok(()),
        "url" => Err(Error::parameter(
            "response_format",
            "response_format url is not supported yet; send b64_json, or leave response_format out",
        )),
        other => Err(Error::parameter(
            "response_format",
            format!("response_format must be b64_json; got '{}'", shown(other)),
        )),
    })?;
    Ok(())
}
