//! Web pages of other origins: the CORS headers for those that may call, and the refusal of those that may not.

use super::error::{ApiError, ApiResult, Fault};
use super::shown;
use crate::config::Origins;
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

/// Headers of answers that a page may read beside the few that it always may.
const READABLE: HeaderValue = HeaderValue::from_static(
    "x-request-id, openai-processing-ms, openai-version, retry-after, retry-after-ms, x-should-retry, \
     x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
     idempotent-replayed, easel-seed, easel-ignored, easel-drawn-size, easel-queue-ms",
);

/// What a preflight's answer depends on.
const VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// How long browsers may remember that a page may call: ten minutes.
const REMEMBER: HeaderValue = HeaderValue::from_static("600");

/// The answer to a browser's question whether a page may call; none if the request asks nothing, or the page may not.
pub(super) fn preflight(origins: &Origins, request: &HttpRequest) -> Option<HttpResponse> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    origins.allow(origin(headers)?).then(|| {
        let mut answer = HttpResponse::NoContent();
        answer.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE"));
        answer.insert_header((header::ACCESS_CONTROL_MAX_AGE, REMEMBER));
        answer.insert_header((header::VARY, VARY));
        // OpenAI's clients send headers of their own, more of them with every version.
        if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone()));
        }
        answer.finish()
    })
}

/// The header by which a browser shows `answer` to a page of `origin`, if that page may call.
pub(super) fn put(origins: &Origins, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
    if origins.is_empty() {
        return;
    }
    if !answer.contains_key(header::VARY) {
        answer.insert(header::VARY, HeaderValue::from_name(header::ORIGIN));
    }
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.allow(origin)));
    if let Some(origin) = allowed {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
    }
}

/// Refuses what a page of another origin can make a visitor's browser send without being asked first: a form. JSON, or
/// a key, a browser sends for such a page only after a preflight.
pub(super) fn refuse_forms_of_strangers(origins: &Origins, request: &HttpRequest) -> ApiResult<()> {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = origin(headers) else { return Ok(()) };
    let form = text(header::CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("multipart/"));
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let own = page.is_none_or(|page| text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(page)));
    if !form || own || headers.contains_key(header::AUTHORIZATION) || origins.allow(origin) {
        return Ok(());
    }
    let message = format!("pages of the origin '{}' may not send forms here without a key", shown(origin));
    Err(ApiError::new(Fault::ForeignOrigin, message))
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok())
}
