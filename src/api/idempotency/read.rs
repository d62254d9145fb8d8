//! Bodies that get their fingerprint while they are read.

use super::answers::Progress;
use super::fingerprint::{Fingerprint, Fingerprinting};
use crate::api::error::{ApiError, ApiResult, Fault};
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use futures_util::{Stream, StreamExt};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch::Sender;

/// How long a body may take that is read for its fingerprint alone.
const TIME: Duration = Duration::from_secs(120);

/// How long the end of a body may take that its reader had no use for: what follows the last part of a form.
const END: Duration = Duration::from_secs(5);

/// The body of a request that is being answered. Its clones are one and the same.
#[derive(Clone)]
pub(super) struct Body(Rc<RefCell<Source>>);

struct Source {
    payload: Payload,
    /// None when the end has been read, or cannot be any more.
    fingerprint: Option<Fingerprinting>,
    /// The bytes that are to come, where the request says how many.
    left: Option<u64>,
    progress: Arc<Sender<Progress>>,
}

impl Body {
    /// The body of `request`, which tells `progress` its fingerprint when its last byte has been read.
    pub(super) fn new(request: &HttpRequest, payload: Payload, progress: Arc<Sender<Progress>>) -> Self {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let fingerprint = Some(Fingerprinting::of(request));
        Self(Rc::new(RefCell::new(Source { payload, fingerprint, left, progress })))
    }

    /// Reads what the handler has left of the body.
    pub(super) async fn finish(mut self) {
        let rest = async { while self.0.borrow().fingerprint.is_some() && self.next().await.is_some() {} };
        // An end that does not come leaves the request without a fingerprint, and so without a kept answer.
        drop(timeout(END, rest).await);
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut source = self.0.borrow_mut();
        let item = ready!(Pin::new(&mut source.payload).poll_next(context));
        match &item {
            Some(Ok(bytes)) => source.add(bytes),
            Some(Err(_)) => source.fingerprint = None,
            None => source.end(),
        }
        Poll::Ready(item)
    }
}

impl Source {
    fn add(&mut self, bytes: &[u8]) {
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.add(bytes);
        }
        // Told at the last byte, since a reader that has what it needs does not ask for the end.
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if self.left == Some(0) {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(fingerprint) = self.fingerprint.take() {
            self.progress.send_modify(|progress| progress.asked = Some(fingerprint.end()));
        }
    }
}

/// Reads a body for its fingerprint alone; no byte of it is kept.
///
/// # Errors
/// If it does not arrive whole, or not in time.
pub(super) async fn drain(request: &HttpRequest, payload: &mut Payload) -> ApiResult<Fingerprint> {
    let mut fingerprint = Fingerprinting::of(request);
    let read = async {
        while let Some(bytes) = payload.next().await {
            fingerprint.add(&bytes?);
        }
        Ok::<_, PayloadError>(())
    };
    match timeout(TIME, read).await {
        Ok(Ok(())) => Ok(fingerprint.end()),
        Ok(Err(cause)) => Err(ApiError::new(Fault::Body, format!("the body did not arrive whole: {cause}"))),
        Err(_) => {
            Err(ApiError::new(Fault::SlowBody, format!("the body took more than {} s", TIME.as_secs())))
        }
    }
}
