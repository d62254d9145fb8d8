//! What a caller holds for a request in the engine.

use super::worker::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::request::Picture;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The picture `image` waits behind `place` others.
    Queued {
        /// Which picture, from 0.
        image: u32,
        /// How many go before it.
        place: usize,
    },
    /// A step of the picture `image` is done.
    Step {
        /// Which picture, from 0.
        image: u32,
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// What the picture `image` is heading for.
    Preview {
        /// Which picture, from 0.
        image: u32,
        /// Which preview of it, from 0.
        index: u32,
        /// The preview.
        picture: Picture,
    },
    /// The picture `image` is done.
    Done {
        /// Which picture, from 0.
        image: u32,
        /// The picture.
        picture: Picture,
        /// How long it waited before the device began with it.
        waited: Duration,
        /// Tokens of the request's texts, as read for all of its pictures.
        text_tokens: usize,
    },
    /// The request has failed; nothing follows.
    Failed(Error),
}

/// The pictures of a request, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// How long the first of them waited before the device began with it.
    pub waited: Duration,
    /// Tokens of the request's texts, without what frames and fills them.
    pub text_tokens: usize,
}

/// A request in the engine: follow its events, or await its pictures; drop it and its jobs stop at their next step.
#[derive(Debug)]
#[must_use = "a dropped ticket cancels its request"]
pub struct Ticket {
    events: UnboundedReceiver<Event>,
    inbox: Sender<Message>,
    first: u64,
    images: u32,
}

impl Ticket {
    /// The ticket of the jobs `first..first + images`.
    pub(super) fn new(
        events: UnboundedReceiver<Event>,
        inbox: Sender<Message>,
        first: u64,
        images: u32,
    ) -> Self {
        Self { events, inbox, first, images }
    }

    /// The next event; none when all pictures are done, the request has failed, or the engine has ended.
    pub async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for all pictures.
    ///
    /// # Errors
    /// The request's failure; [`ErrorKind::Unavailable`] if the engine ended before it was done.
    pub async fn finish(mut self) -> Result<Drawn> {
        let mut pictures: Vec<Option<Picture>> = vec![None; self.images as usize];
        let (mut first_wait, mut tokens) = (None, 0);
        while pictures.iter().any(Option::is_none) {
            match self.event().await {
                Some(Event::Done { image, picture, waited, text_tokens }) => {
                    tokens = text_tokens;
                    pictures[image as usize] = Some(picture);
                    first_wait = first_wait.min(Some(waited)).or(Some(waited));
                }
                Some(Event::Failed(error)) => return Err(error),
                Some(_) => {}
                None => return Err(ended()),
            }
        }
        Ok(Drawn {
            pictures: pictures.into_iter().flatten().collect(),
            waited: first_wait.unwrap_or_default(),
            text_tokens: tokens,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Jobs that are done are no longer known to the worker; an engine that has ended needs no word.
        drop(self.inbox.send(Message::Cancel { first: self.first, images: self.images }));
    }
}

/// The refusal of a request that no device thread is there for.
pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the engine has ended; the request was not drawn")
}
