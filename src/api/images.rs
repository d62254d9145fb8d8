//! `/v1/images`: from a body to pictures in an answer.

use super::dto::{Image, Images, STRICT_SIZES};
use super::edge::Taken;
use super::error::ApiResult;
use super::parse::{self, Asked};
use super::{State, body, now};
use crate::engine::{Drawn, Submission};
use crate::error::{Error, Result};
use crate::output::{Format, Parameters, encode};
use crate::request::{GenerateRequest, Picture, Seed};
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// `POST /v1/images/generations`. A caller who leaves drops this future, and with it the ticket: the drawing stops.
pub(super) async fn generations(
    http: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> ApiResult<HttpResponse> {
    let body = body::json(&http, payload).await?;
    let model = state.engine.model()?;
    let Asked { request, format, ignored } = parse::generation(&body, model, fresh_seed())?;
    let (seed, size) = (request.seed, request.size.to_string());
    let files = Files { request: request.clone(), model: model.name.clone(), format };
    let ticket = state.engine.submit(Submission {
        request,
        caller: state.callers.number(&http),
        previews: 0,
        timeout: state.settings.timeout,
    })?;
    http.extensions_mut().insert(Taken::default());
    let Drawn { pictures, waited } = ticket.finish().await?;
    let (data, output) = web::block(move || files.of(&pictures))
        .await
        .map_err(|cause| Error::internal(format!("the pictures were not encoded: {cause}")))??;
    http.extensions_mut().insert(Taken { waited: Some(waited), output: Some(output) });
    let mut answer = HttpResponse::Ok();
    answer.insert_header(("easel-seed", seed.to_string()));
    if !ignored.is_empty() {
        answer.insert_header(("easel-ignored", listed(&ignored)));
    }
    Ok(answer.json(Images {
        created: now(),
        data,
        output_format: wire_name(format),
        size: STRICT_SIZES.into_iter().find(|strict| *strict == size),
    }))
}

/// The seed of a request that names none: 32 bits, so that it survives clients whose numbers are doubles.
fn fresh_seed() -> Seed {
    Seed(super::ids::random() >> 32)
}

/// Makes files of a request's pictures.
struct Files {
    request: GenerateRequest,
    model: String,
    format: Format,
}

impl Files {
    /// The files, and how long they took.
    fn of(&self, pictures: &[Picture]) -> Result<(Vec<Image>, Duration)> {
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
fn wire_name(format: Format) -> &'static str {
    match format {
        Format::Png => "png",
        Format::Jpeg { .. } => "jpeg",
        Format::WebpLossy { .. } | Format::WebpLossless => "webp",
    }
}

/// Field names as a header can carry them: odd bytes as in URLs, and a bounded length, since a body may have any names.
fn listed(names: &BTreeSet<String>) -> String {
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
