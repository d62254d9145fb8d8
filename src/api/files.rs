//! Pictures as the files of an answer.

use super::room::Hold;
use crate::error::{Error, Result};
use crate::output::{Format, Parameters, encode, finished};
use crate::request::{GenerateRequest, Picture};
use actix_web::web;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::{Duration, Instant};

/// Makes files of a request's pictures.
pub(super) struct Files {
    pub request: GenerateRequest,
    pub model: String,
    pub format: Format,
    /// The room that its pictures take.
    pub _held: Hold,
}

impl Files {
    /// The files of drawn pictures, and how long they took.
    pub(super) fn of(&self, pictures: &[Picture]) -> Result<(Vec<Vec<u8>>, Duration)> {
        let began = Instant::now();
        let files =
            (0..).zip(pictures).map(|(image, picture)| self.one(picture, image)).collect::<Result<_>>()?;
        Ok((files, began.elapsed()))
    }

    /// The file of a preview. It does not say what drew it: that draws the picture itself.
    pub(super) fn preview(&self, drawn: &Picture) -> Result<Vec<u8>> {
        encode(&finished(drawn, &self.request.finish), self.format, None)
    }

    /// The file of the request's picture `image` as it was drawn.
    pub(super) fn one(&self, drawn: &Picture, image: u32) -> Result<Vec<u8>> {
        let parameters = Parameters::of(&self.request, &self.model, image).to_text();
        encode(&finished(drawn, &self.request.finish), self.format, Some(&parameters))
    }
}

/// Does `work` on a thread where it holds up no other caller.
///
/// # Errors
/// If it breaks off.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    web::block(work)
        .await
        .map_err(|cause| Error::internal(format!("the work on the pictures broke off: {cause}")))
}

/// A file as JSON carries it.
pub(super) fn base64(file: &[u8]) -> String {
    STANDARD.encode(file)
}

/// OpenAI's name of a format.
pub(super) fn wire_name(format: Format) -> &'static str {
    match format {
        Format::Png => "png",
        Format::Jpeg { .. } => "jpeg",
        Format::WebpLossy { .. } | Format::WebpLossless => "webp",
    }
}
