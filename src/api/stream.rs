//! Server-sent events: the previews of a picture and then the picture itself, as they come.
//!
//! The stream holds the ticket of its request: a caller who hangs up drops it, and the drawing stops. It takes the next
//! event only when the one before has been sent, so that a slow reader holds what one picture and its few previews
//! take, and no more.

use super::dto::StreamEvent;
use super::edge::Ending;
use super::error::{ApiError, ApiResult};
use super::files::{Files, apart, base64, wire_name};
use super::now;
use super::usage::usage;
use crate::engine::{Event, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::request::Picture;
use actix_web::http::header;
use actix_web::rt::time::{Instant, timeout};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder};
use futures_util::stream::unfold;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for what is wrong with a request at once, so that it is refused as any other.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a reader gets who has nothing to read yet: proxies and clients give up on a connection that is silent.
const KEEP_ALIVE: &[u8] = b": the picture is not done yet\n\n";

/// The names of a route's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    partial: &'static str,
    completed: &'static str,
}

impl Events {
    /// Those of the route that a request is on: a picture from text, or from a picture.
    pub fn on(path: &str) -> Self {
        if path.ends_with("/edits") {
            return Self { partial: "image_edit.partial_image", completed: "image_edit.completed" };
        }
        Self { partial: "image_generation.partial_image", completed: "image_generation.completed" }
    }
}

/// A request that is being drawn, with one picture, and how to tell of it.
pub(super) struct Stream {
    pub ticket: Ticket,
    pub files: Arc<Files>,
    pub events: Events,
    /// The events' `quality`.
    pub quality: &'static str,
    /// How long a reader is left without a byte.
    pub keep_alive: Duration,
}

impl Stream {
    /// Answers with the events.
    ///
    /// # Errors
    /// If the engine refuses the request at once. Later, an event tells.
    pub async fn answer(
        mut self,
        http: &HttpRequest,
        mut answer: HttpResponseBuilder,
    ) -> ApiResult<HttpResponse> {
        // The first event of a request says only that it is queued, or that it has failed.
        if let Ok(first) = timeout(AT_ONCE, self.ticket.event()).await
            && let Event::Failed(error) = first.unwrap_or_else(broken)
        {
            return Err(error.into());
        }
        answer
            .content_type("text/event-stream")
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header(("x-accel-buffering", "no"));
        let ending = Ending::default();
        http.extensions_mut().insert(ending.clone());
        let telling = Telling { stream: self, ending, told: None };
        Ok(answer.streaming(unfold(Some(telling), Telling::next)))
    }
}

/// What of a picture an event shows.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// The preview of this number.
    Preview(u32),
    /// The picture itself, of a request whose texts have so many tokens.
    Whole { text_tokens: usize },
}

/// A stream that has begun.
struct Telling {
    stream: Stream,
    /// Told how the stream ends.
    ending: Ending,
    /// When the reader last got something.
    told: Option<Instant>,
}

/// Bytes for the reader, and whether they are the last.
type Frame = (Bytes, bool);

impl Telling {
    /// What the reader gets next.
    async fn next(telling: Option<Self>) -> Option<(std::result::Result<Bytes, Infallible>, Option<Self>)> {
        let mut telling = telling?;
        let (bytes, last) = telling.frame().await;
        telling.told = Some(Instant::now());
        Some((Ok(bytes), (!last).then_some(telling)))
    }

    async fn frame(&mut self) -> Frame {
        let Some(told) = self.told else { return (Bytes::from_static(KEEP_ALIVE), false) };
        loop {
            let patience = self.stream.keep_alive.saturating_sub(told.elapsed());
            let Ok(event) = timeout(patience, self.stream.ticket.event()).await else {
                return (Bytes::from_static(KEEP_ALIVE), false);
            };
            match self.frame_of(event.unwrap_or_else(broken)).await {
                Ok(Some(frame)) => return frame,
                Ok(None) => {}
                Err(error) => {
                    let error = ApiError::from(error);
                    self.ending.failed(&error);
                    return (sse("error", &error.answer()), true);
                }
            }
        }
    }

    /// What the reader is told of an event, if anything.
    async fn frame_of(&self, event: Event) -> Result<Option<Frame>> {
        match event {
            Event::Queued { .. } | Event::Step { .. } => Ok(None),
            Event::Preview { index, picture, .. } => {
                let (frame, _) = self.shown(picture, Shown::Preview(index)).await?;
                Ok(Some((frame, false)))
            }
            Event::Done { picture, text_tokens, .. } => {
                let (frame, output) = self.shown(picture, Shown::Whole { text_tokens }).await?;
                self.ending.whole(output);
                Ok(Some((frame, true)))
            }
            Event::Failed(error) => Err(error),
        }
    }

    /// The frame of a picture, and how long its file took.
    async fn shown(&self, picture: Picture, shown: Shown) -> Result<(Bytes, Duration)> {
        let Stream { events, quality, .. } = self.stream;
        let files = Arc::clone(&self.stream.files);
        let framed = apart(move || {
            let began = Instant::now();
            let file = match shown {
                Shown::Preview(_) => files.preview(&picture)?,
                Shown::Whole { .. } => files.one(&picture, 0)?,
            };
            let output = began.elapsed();
            let (kind, preview, usage) = match shown {
                Shown::Preview(index) => (events.partial, Some(index), None),
                Shown::Whole { text_tokens } => {
                    (events.completed, None, Some(usage(&files.request, text_tokens)))
                }
            };
            let event = StreamEvent {
                kind,
                b64_json: base64(&file),
                created_at: now(),
                size: files.request.finish.extent.to_string(),
                quality,
                background: "opaque",
                output_format: wire_name(files.format),
                partial_image_index: preview,
                usage,
            };
            Ok((sse(kind, &event), output))
        });
        framed.await?
    }
}

/// An event of the stream.
fn sse(event: &str, data: &impl Serialize) -> Bytes {
    // Texts, numbers and objects of them can always be written.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

/// What an engine that ends without a word means for a request.
fn broken() -> Event {
    Event::Failed(Error::new(ErrorKind::Unavailable, "the engine has ended; the request was not drawn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_events_have_its_name() {
        let names = |path| (Events::on(path).partial, Events::on(path).completed);
        let generation = ("image_generation.partial_image", "image_generation.completed");
        assert_eq!(names("/v1/images/generations"), generation);
        assert_eq!(names("/v1/images/edits"), ("image_edit.partial_image", "image_edit.completed"));
    }

    #[test]
    fn a_frame_is_two_lines_and_a_blank_one() {
        let frame = sse("error", &serde_json::json!({"message": "two\nlines"}));
        assert_eq!(frame, "event: error\ndata: {\"message\":\"two\\nlines\"}\n\n");
    }
}
