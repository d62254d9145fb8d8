//! `/v1/models`, and which names mean the resident model.

use super::dto;
use super::error::{ApiError, ApiResult, Fault};
use super::openapi::Refusals;
use super::{State, shown};
use crate::engine::Model;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, route};

/// OpenAI's image models: clients have these names built in, and here they mean the resident model.
const ALIASES: &[&str] =
    &["gpt-image-2", "gpt-image-1.5", "gpt-image-1", "gpt-image-1-mini", "dall-e-3", "dall-e-2"];

/// Refuses a name that does not mean the resident model.
pub(super) fn check(name: &str, resident: &Model) -> ApiResult<()> {
    if name == resident.name || ALIASES.contains(&name) {
        return Ok(());
    }
    let message = format!("there is no model '{}'; this server draws with '{}'", shown(name), resident.name);
    Err(ApiError::new(Fault::UnknownModel, message))
}

/// `GET /v1/models`.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    summary = "The models of this server",
    responses((status = 200, description = "The resident model", body = dto::Models), Refusals),
    security((), ("key" = []))
)]
#[route("/v1/models", method = "GET", method = "HEAD")]
pub(super) async fn list(state: Data<State>) -> ApiResult<HttpResponse> {
    let resident = resident(state.engine.model()?, state.since);
    Ok(HttpResponse::Ok().json(dto::Models { object: "list", data: vec![resident] }))
}

/// `GET /v1/models/{id}`.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    summary = "One model",
    params(("id" = String, Path, description = "Its name, or an alias of it", example = "sketch")),
    responses((status = 200, description = "The model", body = dto::Model), Refusals),
    security((), ("key" = []))
)]
#[route("/v1/models/{id:.+}", method = "GET", method = "HEAD")]
pub(super) async fn retrieve(request: HttpRequest, state: Data<State>) -> ApiResult<HttpResponse> {
    let model = state.engine.model()?;
    check(request.match_info().query("id"), model)?;
    Ok(HttpResponse::Ok().json(resident(model, state.since)))
}

fn resident(model: &Model, since: u64) -> dto::Model<'_> {
    dto::Model { id: &model.name, object: "model", created: since, owned_by: "easel" }
}
