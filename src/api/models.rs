//! `/v1/models`, and which names mean the resident model.

use super::dto;
use super::error::{ApiError, ApiResult, Fault};
use super::openapi::Refusals;
use super::{State, shown};
use crate::engine::Model;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, delete, route};

/// The resident model and the names that mean it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resident<'a> {
    pub model: &'a Model,
    aliases: &'a [String],
}

impl<'a> Resident<'a> {
    /// The model that `state` holds.
    ///
    /// # Errors
    /// If it is not loaded.
    pub(super) fn of(state: &'a State) -> ApiResult<Self> {
        Ok(Self { model: state.engine.model()?, aliases: &state.settings.model_aliases.0 })
    }

    /// A model without aliases.
    #[cfg(test)]
    pub(super) fn alone(model: &'a Model) -> Self {
        Self { model, aliases: &[] }
    }

    /// Refuses a name that does not mean it.
    pub(super) fn check(&self, name: &str) -> ApiResult<()> {
        let begun_like =
            |alias: &String| alias.strip_suffix('*').is_some_and(|start| name.starts_with(start));
        if self.names().any(|own| own == name) || self.aliases.iter().any(begun_like) {
            return Ok(());
        }
        let message =
            format!("there is no model '{}'; this server draws with '{}'", shown(name), self.model.name);
        Err(ApiError::new(Fault::UnknownModel, message))
    }

    /// Its own name and then the others, each once; not those that stand for many.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let own = self.model.name.as_str();
        let others = self
            .aliases
            .iter()
            .map(String::as_str)
            .filter(move |alias| *alias != own && !alias.ends_with('*'));
        std::iter::once(own).chain(others)
    }

    /// What `/v1/models` shows under one of its names. Clients that look for the name they were told find it.
    fn shown_as<'b>(&self, name: &'b str, since: u64) -> dto::Model<'b>
    where
        'a: 'b,
    {
        dto::Model { id: name, object: "model", created: since, owned_by: "easel", root: &self.model.name }
    }
}

/// `GET /v1/models`.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    summary = "The models of this server",
    responses((status = 200, description = "The resident model under each of its names", body = dto::Models), Refusals),
    security((), ("key" = []))
)]
#[route("/v1/models", method = "GET", method = "HEAD")]
pub(super) async fn list(state: Data<State>) -> ApiResult<HttpResponse> {
    let resident = Resident::of(&state)?;
    let data = resident.names().map(|name| resident.shown_as(name, state.since)).collect();
    Ok(HttpResponse::Ok().json(dto::Models { object: "list", data }))
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
    let resident = Resident::of(&state)?;
    let name = request.match_info().query("id");
    resident.check(name)?;
    Ok(HttpResponse::Ok().json(resident.shown_as(name, state.since)))
}

/// `DELETE /v1/models/{id}`, which OpenAI has for models that a caller trained: here no caller owns one.
#[utoipa::path(
    delete,
    path = "/v1/models/{id}",
    tag = "models",
    summary = "Refused: no model is a caller's to delete",
    params(("id" = String, Path, description = "Its name, or an alias of it", example = "sketch")),
    responses((status = 403, description = "The model stays", body = dto::ErrorAnswer), Refusals),
    security((), ("key" = []))
)]
#[delete("/v1/models/{id:.+}")]
pub(super) async fn remove(request: HttpRequest, state: Data<State>) -> ApiResult<HttpResponse> {
    let name = request.match_info().query("id");
    Resident::of(&state)?.check(name)?;
    let message = format!("the model '{}' belongs to this server and cannot be deleted", shown(name));
    Err(ApiError::new(Fault::NotDeletable, message))
}
