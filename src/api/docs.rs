//! `/docs`: the OpenAPI document in Swagger UI, which lies in the program; no other host is asked for anything.

use super::error::{ApiError, ApiResult, Fault};
use super::shown;
use crate::error::Error;
use actix_web::http::header;
use actix_web::web::Path;
use actix_web::{HttpResponse, route};
use std::sync::Arc;
use utoipa_swagger_ui::Config;

/// What the pages may do: run their own scripts and call this server.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'";

/// `GET /docs`, whose pages lie beneath it.
#[route("/docs", method = "GET", method = "HEAD")]
pub(super) async fn entrance() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "docs/")).finish()
}

/// `GET /docs/...`: the pages.
#[route("/docs/{file:.*}", method = "GET", method = "HEAD")]
pub(super) async fn page(file: Path<String>) -> ApiResult<HttpResponse> {
    let config = Config::from("../openapi.json").validator_url("none").try_it_out_enabled(true);
    let page = utoipa_swagger_ui::serve(&file, Arc::new(config))
        .map_err(|cause| Error::internal(format!("a page of the docs was not made: {cause}")))?;
    let Some(page) = page else {
        return Err(ApiError::new(Fault::UnknownRoute, format!("there is no page '{}'", shown(&file))));
    };
    Ok(HttpResponse::Ok()
        .content_type(page.content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .body(page.bytes.into_owned()))
}
