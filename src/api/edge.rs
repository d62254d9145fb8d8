//! What every answer passes: request id, timing, one line in the log, and the metrics of requests, all of them here.

use super::State;
use super::cors;
use super::error::ApiError;
use super::gate::KeyName;
use super::ids::request_id;
use super::places::Place;
use crate::config::Origins;
use crate::metrics::Metrics;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use actix_web::{Error, HttpMessage, ResponseError};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const QUEUE_MS: HeaderName = HeaderName::from_static("easel-queue-ms");
const VERSION: HeaderName = HeaderName::from_static("openai-version");

/// The version of the API that this server speaks.
const SPOKEN: HeaderValue = HeaderValue::from_static("2020-10-01");

/// The status that stands in log and metrics for a caller who left before the answer (nginx's word for it).
const LEFT: u16 = 499;

/// Routes that machines ask again and again: their answers are no news.
const POLLED: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// What a handler leaves in its request's extensions once the engine has taken the work on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// How long the work waited for the device; known when it is done.
    pub waited: Option<Duration>,
    /// How long the files took to make; known when they are made.
    pub output: Option<Duration>,
}

/// How a streamed answer ends. Whoever writes it leaves a clone in its request's extensions, and tells before the last
/// byte; a stream that is dropped untold is one whose reader left.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(Rc<RefCell<Option<Ended>>>);

#[derive(Debug, Clone)]
struct Ended {
    answered: Answered,
    output: Option<Duration>,
}

impl Ending {
    /// The stream is whole; its last file took `output`.
    pub fn whole(&self, output: Duration) {
        let answered = Answered { status: StatusCode::OK.as_u16(), error: None };
        self.0.replace(Some(Ended { answered, output: Some(output) }));
    }

    /// The stream ends with an error.
    pub fn failed(&self, error: &ApiError) {
        let answered = Answered { status: error.status_code().as_u16(), error: Some(error.to_string()) };
        self.0.replace(Some(Ended { answered, output: None }));
    }
}

/// Answers a request and puts the common headers on the answer.
pub(super) async fn answer(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let mut exchange = Exchange {
        metrics: state.metrics.clone(),
        id: request_id(given),
        method: request.method().clone(),
        route: request.match_pattern().unwrap_or_else(|| "unknown".into()),
        began: Instant::now(),
        answered: None,
        ending: None,
        key: None,
        place: None,
    };
    let page =
        Page { origins: state.settings.cors_origins.clone(), origin: request.headers().get(ORIGIN).cloned() };
    let mut response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        Err(error) => return Err(exchange.failed(error, &page)),
    };
    let taken = exchange.take(&mut response.request().extensions_mut());
    if exchange.ending.is_none() {
        exchange.answer(response.status(), response.response().error(), taken);
    }
    if let Some(waited) = taken.and_then(|taken| taken.waited) {
        response.headers_mut().insert(QUEUE_MS, HeaderValue::from(ms(waited)));
    }
    exchange.sign(response.headers_mut(), &page);
    Ok(response.map_body(|_, body| BoxBody::new(Sent { body, exchange })))
}

/// The web page that a request may come from, and those that may call.
struct Page {
    origins: Origins,
    origin: Option<HeaderValue>,
}

/// Whole milliseconds.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A request and its answer. Dropped when the body has been sent, or when the caller has left, it is one line of the
/// log.
struct Exchange {
    metrics: Metrics,
    id: String,
    method: Method,
    route: String,
    began: Instant,
    answered: Option<Answered>,
    /// Where a stream tells its end.
    ending: Option<Ending>,
    key: Option<KeyName>,
    /// What its caller holds until the last byte of the answer is sent.
    place: Option<Place>,
}

/// How a request was answered.
#[derive(Debug, Clone)]
struct Answered {
    status: u16,
    error: Option<String>,
}

impl Exchange {
    /// Takes over what a request's way has left in its extensions.
    fn take(&mut self, left: &mut Extensions) -> Option<Taken> {
        self.ending = left.remove();
        self.key = left.remove();
        self.place = left.remove();
        left.get().copied()
    }

    /// Records the answer before its first byte leaves, so that a caller who has it finds it counted.
    fn answer(&mut self, status: StatusCode, error: Option<&Error>, taken: Option<Taken>) {
        let refused = error.and_then(Error::as_error::<ApiError>).filter(|_| taken.is_none());
        if let Some(refused) = refused {
            self.metrics.rejected.with_label_values(&[refused.reason()]).inc();
        }
        let answered = Answered { status: status.as_u16(), error: error.map(ToString::to_string) };
        self.record(Ended { answered, output: taken.and_then(|taken| taken.output) });
    }

    /// Records a stream that has told its end, before its reader learns of it.
    fn end(&mut self) {
        if let Some(ended) = self.ending.take().and_then(|ending| ending.0.take()) {
            self.record(ended);
        }
    }

    fn record(&mut self, Ended { answered, output }: Ended) {
        if let Some(output) = output {
            self.metrics.stage_seconds.with_label_values(&["output"]).observe(output.as_secs_f64());
        }
        self.count(answered.status);
        self.answered = Some(answered);
    }

    /// The answer to a request whose handler broke, with all that an answer has.
    fn failed(mut self, error: Error, page: &Page) -> Error {
        let mut response = error.error_response();
        self.answer(response.status(), Some(&error), None);
        self.sign(response.headers_mut(), page);
        InternalError::from_response(error, response).into()
    }

    /// Puts the common headers on an answer.
    fn sign(&self, headers: &mut HeaderMap, page: &Page) {
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(PROCESSING_MS, HeaderValue::from(ms(self.began.elapsed())));
        headers.insert(VERSION, SPOKEN);
        cors::put(&page.origins, page.origin.as_ref(), headers);
    }

    fn count(&self, status: u16) {
        self.metrics.requests.with_label_values(&[&self.route, &status.to_string()]).inc();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.request_seconds.observe(self.began.elapsed().as_secs_f64());
        if self.answered.is_none() {
            self.count(LEFT);
        }
        let ms = ms(self.began.elapsed());
        let Self { id, method, route, answered, key, .. } = self;
        let key = key.as_ref().map(|KeyName(name)| &**name);
        let Some(Answered { status, error }) = answered else {
            tracing::info!(id, %method, route, status = LEFT, ms, "the caller left");
            return;
        };
        match *status {
            _ if POLLED.contains(&route.as_str()) => {
                tracing::debug!(id, %method, route, key, status, ms, error, "answered");
            }
            500 | 504.. => tracing::error!(id, %method, route, key, status, ms, error, "failed"),
            400.. => tracing::info!(id, %method, route, key, status, ms, error, "refused"),
            _ => tracing::info!(id, %method, route, key, status, ms, "answered"),
        }
    }
}

/// A body that keeps its exchange until all of it is sent.
struct Sent {
    body: BoxBody,
    exchange: Exchange,
}

impl MessageBody for Sent {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let Self { body, exchange } = self.get_mut();
        let next = Pin::new(body).poll_next(context);
        if matches!(next, Poll::Ready(None)) {
            exchange.end();
        }
        next
    }
}
