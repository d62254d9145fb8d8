//! `/v1/images/edits` and `/v1/images/variations`: from a body with pictures in it to what is drawn from them.

use super::dto::Images;
use super::error::ApiResult;
use super::files::apart;
use super::images::{draw, fresh_seed};
use super::models::Resident;
use super::openapi::DrawingRefusals;
use super::parse::{self, Body, Draft};
use super::room::Hold;
use super::wire::{ImageEdit, ImageEditJson, ImageVariation, StreamFrame};
use super::{State, body, multipart};
use crate::error::Error;
use crate::request::{GenerateRequest, Mask, Picture, Start};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse, post};
use std::sync::Arc;

/// `POST /v1/images/edits`.
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    tag = "images",
    summary = "Edit a picture by a prompt",
    request_body(content((ImageEdit = "multipart/form-data"), (ImageEditJson = "application/json"))),
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
#[post("/v1/images/edits")]
pub(super) async fn edits(
    http: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> ApiResult<HttpResponse> {
    Resident::of(&state)?;
    let mut hold = state.room.hold();
    let body = match body::media_type(&http).as_str() {
        "multipart/form-data" => Body::Form(multipart::form(http.headers(), payload, &mut hold).await?),
        "application/json" => {
            let body = body::whole(payload, body::Bounds::PICTURES, Some(&mut hold)).await?;
            // The texts that are read out of it, and the files in them.
            hold.grow(2 * body.len())?;
            Body::Json(body)
        }
        _ => return Err(body::wrong_media_type(&http, "multipart/form-data or application/json")),
    };
    let shared = state.clone();
    let (draft, hold) =
        apart(move || (Resident::of(&shared).and_then(|model| parse::edit(body, model)), hold)).await?;
    let draft = draft?;
    from_pictures(&http, &state, draft, hold).await
}

/// `POST /v1/images/variations`.
#[utoipa::path(
    post,
    path = "/v1/images/variations",
    tag = "images",
    summary = "Draw variations of a picture",
    request_body(content = ImageVariation, content_type = "multipart/form-data"),
    responses((status = 200, description = "The pictures", body = Images), DrawingRefusals),
    security((), ("key" = []))
)]
#[post("/v1/images/variations")]
pub(super) async fn variations(
    http: HttpRequest,
    payload: Payload,
    state: Data<State>,
) -> ApiResult<HttpResponse> {
    let resident = Resident::of(&state)?;
    let mut hold = state.room.hold();
    if body::media_type(&http) != "multipart/form-data" {
        return Err(body::wrong_media_type(&http, "multipart/form-data"));
    }
    let form = multipart::form(http.headers(), payload, &mut hold).await?;
    from_pictures(&http, &state, parse::variation(form, resident)?, hold).await
}

/// Fetches and decodes the pictures that a request starts from, and draws. `hold` is what the request holds of the
/// room for pictures.
async fn from_pictures(
    http: &HttpRequest,
    state: &Data<State>,
    mut draft: Draft,
    mut hold: Hold,
) -> ApiResult<HttpResponse> {
    draft.inputs.fetch(&state.fetcher, &mut hold).await?;
    let turn = Arc::clone(&state.decoders).acquire_owned().await;
    let turn = turn.map_err(|_| Error::internal("nobody closes the decoders' semaphore"))?;
    let shared = state.clone();
    let (asked, mut hold) = apart(move || {
        // Turn and room stay taken until the work ends, even if the caller leaves meanwhile.
        let _turn = turn;
        (Resident::of(&shared).and_then(|model| draft.resolve(model, fresh_seed())), hold)
    })
    .await?;
    let asked = asked?;
    hold.become_of(held(&asked.request))?;
    draw(http, state, asked, hold).await
}

/// Bytes of the pictures that a request carries. Engine and files share them.
fn held(request: &GenerateRequest) -> usize {
    let both = |picture: &Picture, mask: &Mask| picture.as_bytes().len() + mask.as_bytes().len();
    let start = match &request.start {
        Start::Noise => 0,
        Start::Picture { picture, .. } => picture.as_bytes().len(),
        Start::Inpaint { picture, mask, .. } => both(picture, mask),
    };
    start + request.finish.kept.as_ref().map_or(0, |kept| both(&kept.picture, &kept.mask))
}
