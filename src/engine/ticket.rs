//! What a caller holds for a request in the engine.

use crate::error::{Error, ErrorKind, Result};
use crate::request::Picture;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// A request in the engine: await it for the pictures; drop it and the request stops at its next step.
#[derive(Debug)]
#[must_use = "a dropped ticket cancels its request"]
pub struct Ticket {
    answer: oneshot::Receiver<Result<Vec<Picture>>>,
}

impl Ticket {
    /// A ticket, and where its answer goes in.
    pub(super) fn new() -> (Self, oneshot::Sender<Result<Vec<Picture>>>) {
        let (sender, answer) = oneshot::channel();
        (Self { answer }, sender)
    }
}

impl Future for Ticket {
    type Output = Result<Vec<Picture>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or_else(|_| Err(ended())))
    }
}

/// The refusal of a request that no device thread is there for.
pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the engine has ended; the request was not drawn")
}
