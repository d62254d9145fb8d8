//! Routes for those who run the server.

use super::State;
use super::error::ApiResult;
use crate::engine;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use serde_json::json;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// `GET /readyz`: whether a request for pictures would be taken: 200, or 503 while the model loads, while the server
/// drains, and when the model could not be loaded.
pub(super) async fn readyz(state: Data<State>) -> HttpResponse {
    let (status, word) = match state.engine.state() {
        engine::State::Ready => (StatusCode::OK, "ready"),
        engine::State::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        engine::State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        engine::State::Failed => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    HttpResponse::build(status).json(json!({ "status": word }))
}

/// `GET /metrics`: all metrics in Prometheus' text format.
pub(super) async fn metrics(state: Data<State>) -> ApiResult<HttpResponse> {
    let text = state.metrics.text()?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
