//! Pictures as the files of an answer.

use super::dto::Image;
use crate::error::Result;
use crate::output::{Format, Parameters, encode};
use crate::request::{GenerateRequest, Picture};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::{Duration, Instant};

/// Makes files of a request's pictures.
pub(super) struct Files {
    pub request: GenerateRequest,
    pub model: String,
    pub format: Format,
}

impl Files {
    /// The files, and how long they took.
    pub(super) fn of(&self, pictures: &[Picture]) -> Result<(Vec<Image>, Duration)> {
        let began = Instant::now();
        let file = |(image, picture): (u32, &Picture)| {
            let parameters = Parameters::of(&self.request, &self.model, image).to_text();
            let bytes = encode(picture, self.format, Some(&parameters))?;
            Ok(Image { b64_json: STANDARD.encode(bytes) })
        };
        let files = (0..).zip(pictures).map(file).collect::<Result<_>>()?;
        Ok((files, began.elapsed()))
    }
}

/// OpenAI's name of a format.
pub(super) fn wire_name(format: Format) -> &'static str {
    match format {
        Format::Png => "png",
        Format::Jpeg { .. } => "jpeg",
        Format::WebpLossy { .. } | Format::WebpLossless => "webp",
    }
}
