//! What every answer passes: request id, timing, and one line in the log.

use super::ids::request_id;
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use std::time::Instant;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const VERSION: HeaderName = HeaderName::from_static("openai-version");

/// The version of the API that this server speaks.
const SPOKEN: HeaderValue = HeaderValue::from_static("2020-10-01");

/// Answers a request and puts the common headers on the answer.
pub(super) async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let mut line = Line {
        id: request_id(given),
        method: request.method().clone(),
        route: request.match_pattern().unwrap_or_else(|| "unknown".into()),
        began: Instant::now(),
        status: None,
        error: None,
    };
    let mut response = next.call(request).await?;
    line.status = Some(response.status());
    line.error = response.response().error().map(ToString::to_string);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&line.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(PROCESSING_MS, HeaderValue::from(line.ms()));
    headers.insert(VERSION, SPOKEN);
    Ok(response)
}

/// One line of the log, written when it is dropped: also when the caller left and no answer was made.
struct Line {
    id: String,
    method: Method,
    route: String,
    began: Instant,
    status: Option<StatusCode>,
    error: Option<String>,
}

impl Line {
    fn ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let ms = self.ms();
        let Self { id, method, route, status, error, .. } = self;
        match status.map(|status| status.as_u16()) {
            None => tracing::info!(id, %method, route, ms, "the caller left"),
            Some(status @ 500..) => tracing::error!(id, %method, route, status, ms, error, "failed"),
            Some(status @ 400..) => tracing::info!(id, %method, route, status, ms, error, "refused"),
            Some(status) => tracing::info!(id, %method, route, status, ms, "answered"),
        }
    }
}
