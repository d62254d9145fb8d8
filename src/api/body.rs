//! The body of a request: its media type, its bounds, and the time it may take.

use super::error::{ApiError, ApiResult, Fault};
use super::shown;
use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::rt::time::timeout;
use actix_web::web::{Bytes, Payload};
use std::time::Duration;

/// The largest JSON body in bytes.
const MOST: usize = 1 << 20;

/// How long a body may take to arrive.
const TIME: Duration = Duration::from_secs(60);

/// Reads a JSON body.
///
/// A missing content type is refused like a wrong one: a web page of another origin can make a browser send either
/// without being asked, but not `application/json`.
pub(super) async fn json(request: &HttpRequest, payload: Payload) -> ApiResult<Bytes> {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = format!("the content-type must be application/json; got '{}'", shown(given));
        return Err(ApiError::new(Fault::MediaType, message));
    }
    match timeout(TIME, payload.to_bytes_limited(MOST)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(cause))) => {
            Err(ApiError::new(Fault::Body, format!("the body did not arrive whole: {cause}")))
        }
        Ok(Err(_)) => Err(ApiError::new(Fault::LargeBody, format!("the body is larger than {MOST} bytes"))),
        Err(_) => {
            Err(ApiError::new(Fault::SlowBody, format!("the body took more than {} s", TIME.as_secs())))
        }
    }
}
