//! Routes for those who run the server.

use super::State;
use super::error::ApiResult;
use crate::engine;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, route};
use serde::Serialize;
use utoipa::ToSchema;

/// Whether the server is ready.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// `ready`, `loading`, `draining` or `failed`.
    status: &'static str,
}

/// `GET /healthz`: the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    summary = "Whether the process answers",
    responses(
        (status = 200, description = "It answers", body = String, content_type = "text/plain")
    )
)]
#[route("/healthz", method = "GET", method = "HEAD")]
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// `GET /readyz`: whether a request for pictures would be taken: 200, or 503 while the model loads, while the server
/// drains, and when the model could not be loaded.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    summary = "Whether a request for pictures would be taken",
    responses(
        (status = 200, description = "Yes", body = Readiness),
        (status = 503, description = "No: `loading`, `draining` or `failed`", body = Readiness)
    )
)]
#[route("/readyz", method = "GET", method = "HEAD")]
pub(super) async fn readyz(state: Data<State>) -> HttpResponse {
    let (status, word) = match state.engine.state() {
        engine::State::Ready => (StatusCode::OK, "ready"),
        engine::State::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        engine::State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        engine::State::Failed => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    HttpResponse::build(status).json(Readiness { status: word })
}

/// `GET /metrics`: all metrics in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    summary = "All metrics in Prometheus' text format",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "text/plain")
    )
)]
#[route("/metrics", method = "GET", method = "HEAD")]
pub(super) async fn metrics(state: Data<State>) -> ApiResult<HttpResponse> {
    let text = state.metrics.text()?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
