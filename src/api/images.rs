//! `/v1/images`: from a body to pictures in an answer.

use super::dto::{Images, STRICT_SIZES};
use super::edge::Taken;
use super::error::ApiResult;
use super::files::{Files, wire_name};
use super::ignored::listed;
use super::models::Resident;
use super::openapi::DrawingRefusals;
use super::parse::{self, Asked};
use super::wire::ImageGeneration;
use super::{State, body, now};
use crate::engine::{Drawn, Submission};
use crate::error::Error;
use crate::request::Seed;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, post};

/// `POST /v1/images/generations`.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    tag = "images",
    summary = "Draw pictures of a prompt",
    request_body(content = ImageGeneration, example = json!({"prompt": "a red heart on a yellow background, 3d style", "seed": 7})),
    responses((status = 200, description = "The pictures", body = Images), DrawingRefusals),
    security((), ("key" = []))
)]
#[post("/v1/images/generations")]
pub(super) async fn generations(
    http: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> ApiResult<HttpResponse> {
    let body = body::json(&http, payload).await?;
    let asked = parse::generation(&body, Resident::of(&state)?, fresh_seed())?;
    draw(&http, &state, asked).await
}

/// Draws what was asked for and answers with it. A caller who leaves drops this future, and with it the ticket: the
/// drawing stops.
async fn draw(http: &HttpRequest, state: &State, asked: Asked) -> ApiResult<HttpResponse> {
    let Asked { request, reply, ignored } = asked;
    let (seed, size, format) = (request.seed, request.size.to_string(), reply.format);
    let files = Files { request: request.clone(), model: state.engine.model()?.name.clone(), format };
    let ticket = state.engine.submit(Submission {
        request,
        caller: state.callers.number(http),
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
