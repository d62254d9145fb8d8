//! `Idempotency-Key`: a request that comes again is answered with the first answer, and nothing is drawn twice.
//!
//! The first request of a key is drawn in a task of its own, so that it goes on when its caller's connection breaks:
//! OpenAI's clients then ask again under the same key, and find the picture.

mod answers;
mod fingerprint;
mod read;

use super::error::{ApiError, ApiResult, Fault};
use super::shown;
use crate::error::Error as Refusal;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::rt::time::sleep;
use actix_web::{Error, HttpRequest, HttpResponse, rt};
use answers::{Answer, Answers, End, Lead, Met, Progress};
use futures_util::future::{Either, select};
use read::{Body, drain};
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::sync::watch::{Receiver, Sender};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest key.
const LONGEST: usize = 255;

/// How long a request goes on when nobody waits for it any more; its own timeout may end it before.
const DESERTED: Duration = Duration::from_secs(600);

/// Answers each request with a key once.
#[derive(Debug, Clone)]
pub(super) struct Once(Answers);

impl Once {
    /// Keeps answers no longer than the links in them lead somewhere.
    pub(super) fn new(url_lifetime: Duration) -> Self {
        Self(Answers::within(url_lifetime))
    }

    /// Answers a request of `caller`: by `next` where it has no key or is the first of its key, else as the first was.
    pub(super) async fn answer(
        &self,
        caller: u64,
        request: ServiceRequest,
        next: Next<BoxBody>,
    ) -> Result<ServiceResponse<BoxBody>, Error> {
        let key = match key(&request) {
            Ok(Some(key)) => key,
            Ok(None) => return next.call(request).await,
            Err(refused) => return Ok(request.error_response(refused)),
        };
        let (request, mut payload) = request.into_parts();
        loop {
            match self.0.meet((caller, key.clone()), Instant::now()) {
                Met::First(lead) => return first(lead, request, payload, next).await,
                Met::Again(mut progress) => {
                    if is_read(&mut progress).await {
                        let answer = again(&request, &mut payload, progress).await;
                        let answer = answer.unwrap_or_else(HttpResponse::from_error);
                        return Ok(ServiceResponse::new(request, answer));
                    }
                }
            }
        }
    }
}

/// The key of a request that draws.
fn key(request: &ServiceRequest) -> ApiResult<Option<String>> {
    let Some(key) = request.headers().get(KEY).filter(|_| request.method() == Method::POST) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(key.as_bytes());
    if (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(Some(text.into_owned()));
    }
    let length = text.chars().count();
    let message = format!(
        "Idempotency-Key must be 1 to {LONGEST} characters of ASCII; got {length} characters: '{}'",
        shown(&text)
    );
    Err(Refusal::parameter("Idempotency-Key", message).into())
}

/// Answers the first request of its key.
async fn first(
    lead: Lead,
    request: HttpRequest,
    payload: Payload,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let body = Body::new(&request, payload, lead.progress().clone());
    let request = ServiceRequest::from_parts(request, Payload::Stream { payload: Box::pin(body.clone()) });
    // As long as this caller waits, the request is not deserted.
    let waiting = lead.progress().subscribe();
    let (tell, told) = oneshot::channel();
    rt::spawn(async move {
        let progress = lead.progress().clone();
        let (work, deserted) = (pin!(next.call(request)), pin!(deserted(&progress)));
        if let Either::Left((answer, _)) = select(work, deserted).await {
            let answer = match answer {
                Ok(answer) => Ok(settled(lead, answer, body).await),
                Err(failed) => Err(failed),
            };
            if tell.send(answer).is_err() {
                tracing::info!(
                    "an answer was made whose caller has left; it is found under its Idempotency-Key"
                );
            }
        }
    });
    let answer = told.await;
    drop(waiting);
    answer.unwrap_or_else(|_| Err(ApiError::from(Refusal::internal("the request's task has ended")).into()))
}

/// Resolves when nobody has waited for a while.
async fn deserted(progress: &Sender<Progress>) {
    loop {
        progress.closed().await;
        sleep(DESERTED).await;
        if progress.is_closed() {
            return;
        }
    }
}

/// Tells the answer to whoever waits for it, and keeps it. An answer that streams is for its own caller alone.
async fn settled(lead: Lead, answer: ServiceResponse<BoxBody>, read: Body) -> ServiceResponse<BoxBody> {
    let (request, answer) = answer.into_parts();
    let (head, body) = answer.into_parts();
    let bytes = match body.try_into_bytes() {
        Ok(bytes) => bytes,
        Err(stream) => return ServiceResponse::new(request, head.set_body(stream)),
    };
    if head.status().is_success() {
        read.finish().await;
    }
    let headers = head.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    lead.end(Answer { status: head.status(), headers, body: bytes.clone() }, Instant::now());
    ServiceResponse::new(request, head.set_body(BoxBody::new(bytes)))
}

/// Waits until the body of the first request of a key has been read; false if it ended before, or left no answer.
async fn is_read(progress: &mut Receiver<Progress>) -> bool {
    match progress.wait_for(|now| now.asked.is_some() || now.end.is_some()).await {
        Ok(now) => now.asked.is_some() && !matches!(now.end, Some(End::Gone)),
        Err(_) => false,
    }
}

/// Answers a request whose key another has had, as that one was or will be answered.
async fn again(
    request: &HttpRequest,
    payload: &mut Payload,
    mut progress: Receiver<Progress>,
) -> ApiResult<HttpResponse> {
    let asks = drain(request, payload).await?;
    if progress.borrow().asked != Some(asks) {
        let message = "this Idempotency-Key has been used for another request; give each request its own key";
        return Err(ApiError::new(Fault::KeyReused, message));
    }
    let end = progress.wait_for(|now| now.end.is_some()).await.ok().and_then(|now| now.end.clone());
    match end {
        Some(End::Answer(answer)) => Ok(replayed(&answer)),
        Some(End::Gone) | None => {
            let message = "the first request with this Idempotency-Key has no answer that can be given again; \
                           send it once more";
            Err(ApiError::new(Fault::KeyFreed, message))
        }
    }
}

fn replayed(answer: &Answer) -> HttpResponse {
    let mut again = HttpResponse::build(answer.status).body(answer.body.clone());
    let headers = again.headers_mut();
    for (name, value) in &answer.headers {
        headers.append(name.clone(), value.clone());
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    again
}
