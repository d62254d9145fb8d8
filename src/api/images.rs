//! `/v1/images`: from a body to pictures in an answer.

use super::dto::{Image, Images, STRICT_SIZES};
use super::edge::Taken;
use super::error::ApiResult;
use super::files::{Files, apart, base64, wire_name};
use super::ignored::listed;
use super::models::Resident;
use super::openapi::DrawingRefusals;
use super::parse::{self, Asked, Delivery};
use super::room::Hold;
use super::stream::{Events, Stream};
use super::submit::submit;
use super::usage::usage;
use super::wire::{ImageGeneration, StreamFrame};
use super::{State, body, now, stored};
use crate::engine::Drawn;
use crate::request::Seed;
use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, post};
use std::sync::Arc;

/// `POST /v1/images/generations`.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    tag = "images",
    summary = "Draw pictures of a prompt",
    request_body(content = ImageGeneration, example = json!({"prompt": "a red heart on a yellow background, 3d style", "seed": 7})),
    responses(
        (
            status = 200,
            description = "The pictures; with `stream`, events",
            content((Images = "application/json"), (StreamFrame = "text/event-stream"))
        ),
        DrawingRefusals
    ),
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
    draw(&http, &state, asked, state.room.hold()).await
}

/// Draws what was asked for and answers with it. A caller who leaves drops this future, and with it the ticket: the
/// drawing stops. `held` is what the request holds of the room for pictures until then.
pub(super) async fn draw(
    http: &HttpRequest,
    state: &State,
    asked: Asked,
    held: Hold,
) -> ApiResult<HttpResponse> {
    let Asked { request, reply, ignored } = asked;
    let (previews, base) = match reply.delivery {
        Delivery::Stream { previews } => (previews, None),
        Delivery::Url => (0, Some(stored::base(http, state)?)),
        Delivery::Base64 => (0, None),
    };
    let (drawn, size) = (request.size.to_string(), request.finish.extent.to_string());
    let mut answer = HttpResponse::Ok();
    answer.insert_header(("easel-seed", request.seed.to_string()));
    if drawn != size {
        answer.insert_header(("easel-drawn-size", drawn));
    }
    if !ignored.is_empty() {
        answer.insert_header(("easel-ignored", listed(&ignored)));
    }
    let model = state.engine.model()?.name.clone();
    let files = Arc::new(Files { request: request.clone(), model, format: reply.format, _held: held });
    let ticket = submit(http, state, request, previews)?;
    http.extensions_mut().insert(Taken::default());
    if let Delivery::Stream { .. } = reply.delivery {
        let (events, quality) = (Events::on(http.path()), reply.quality.unwrap_or("auto"));
        let stream = Stream { ticket, files, events, quality, keep_alive: state.settings.keep_alive };
        return stream.answer(http, answer).await;
    }
    let Drawn { pictures, waited, text_tokens } = ticket.finish().await?;
    let usage = usage(&files.request, text_tokens);
    let (files, output) = apart(move || files.of(&pictures)).await??;
    http.extensions_mut().insert(Taken { waited: Some(waited), output: Some(output) });
    let data = match base {
        Some(base) => stored::keep(state, &base, files, reply.format).await?,
        None => apart(move || files.iter().map(|file| Image::of(base64(file))).collect()).await?,
    };
    Ok(answer.json(Images {
        created: now(),
        data,
        background: "opaque",
        output_format: wire_name(reply.format),
        quality: reply.quality,
        size: STRICT_SIZES.into_iter().find(|strict| *strict == size),
        usage,
    }))
}

/// The seed of a request that names none: 32 bits, so that it survives clients whose numbers are doubles.
pub(super) fn fresh_seed() -> Seed {
    Seed(super::ids::random() >> 32)
}
