//! The device thread: one thread owns the model, and everyone else holds an [`Engine`], a handle that clones cheaply.
//!
//! ```text
//! Engine::submit -> permits -> inbox -> worker: scheduler.schedule -> encode | denoise | decode -> scheduler.update
//!                                          └── events: Queued, Step, Preview, Done, Failed -> Ticket
//! ```
//! A request for n pictures is n jobs. Dropping the ticket takes its jobs out before the next work begins.

mod batch;
mod conditionings;
mod curve;
mod drawing;
mod guard;
mod ticket;
mod worker;

pub use curve::{CurvePoint, measure};
pub use ticket::{Drawn, Event, Ticket};

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::request::{Defaults, GenerateRequest};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};
use worker::{Arrival, Message, Trial, Worker};

/// The most rows of a UNet call where no setting says otherwise.
pub const MOST_ROWS: u32 = 32;

/// The resident model as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it draws with where a request is silent.
    pub defaults: Defaults,
}

/// Bounds on what the engine takes on.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Jobs (pictures) that may be in the engine at once, waiting or being drawn.
    pub queue: usize,
    /// The most rows of a UNet call; none leaves it to the measured cost of a row.
    pub rows: Option<u32>,
    /// Whether the measured costs are kept for the next start.
    pub remember: bool,
}

/// A request on its way into the engine.
#[derive(Debug)]
pub struct Submission {
    /// What to draw.
    pub request: GenerateRequest,
    /// Whom it is for: callers take turns.
    pub caller: u64,
    /// How many previews of each picture to send, spread evenly over its steps.
    pub previews: u32,
    /// How long the caller is willing to wait for all of it.
    pub timeout: Option<Duration>,
}

/// Where the engine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The model is being read and measured.
    Loading,
    /// Requests are drawn.
    Ready,
    /// No request is taken; what is there is finished.
    Draining,
    /// The model could not be loaded, or the device thread has ended.
    Failed,
}

/// What the handles and the device thread share.
#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    model: OnceLock<Result<Model>>,
    permits: Arc<Semaphore>,
    /// Permits in all.
    queue: usize,
    /// Whole seconds after which a place is likely to be free, as the worker last estimated.
    retry_after: AtomicU32,
    next_job: AtomicU64,
}

impl Shared {
    fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Loading,
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Failed,
        }
    }

    /// Moves on to a later state; never back.
    fn advance(&self, state: State) {
        self.state.fetch_max(state as u8, Ordering::AcqRel);
    }
}

/// A handle of the device thread. The thread ends when the last handle and ticket are gone and its work is done.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    inbox: Sender<Message>,
    ended: watch::Receiver<()>,
}

impl Engine {
    /// Starts the device thread, which reads the model with `load` and measures what rows cost, and returns at once.
    ///
    /// # Errors
    /// If the system has no room for another thread.
    pub fn start(
        load: impl FnOnce() -> Result<Pipeline> + Send + 'static,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self> {
        Self::tried(load, settings, metrics, Trial::default())
    }

    /// [`Engine::start`] on a device whose speed and faults a trial decides.
    fn tried(
        load: impl FnOnce() -> Result<Pipeline> + Send + 'static,
        settings: Settings,
        metrics: Metrics,
        trial: Trial,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU8::new(State::Loading as u8),
            model: OnceLock::new(),
            permits: Arc::new(Semaphore::new(settings.queue)),
            queue: settings.queue,
            retry_after: AtomicU32::new(1),
            next_job: AtomicU64::new(0),
        });
        let (inbox, arrivals) = channel();
        let (alive, ended) = watch::channel(());
        let worker = Worker::new(Arc::clone(&shared), arrivals, metrics, trial);
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || {
                worker.live(load, settings);
                drop(alive);
            })
            .map_err(|cause| Error::internal(format!("the device thread did not start: {cause}")))?;
        Ok(Self { shared, inbox, ended })
    }

    /// Where the engine is in its life.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// The resident model.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] while it is loading; the error of loading where that failed.
    pub fn model(&self) -> Result<&Model> {
        match self.shared.model.get() {
            Some(Ok(model)) => Ok(model),
            Some(Err(error)) => Err(error.clone()),
            None => {
                Err(Error::new(ErrorKind::Unavailable, "the model is loading; try again in a few seconds"))
            }
        }
    }

    /// Puts a request into the queue. Follow its ticket for the pictures; drop it to cancel.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`], or [`ErrorKind::Unavailable`] if the model is not loaded or the engine is draining.
    pub fn submit(&self, submission: Submission) -> Result<Ticket> {
        self.model()?;
        match self.state() {
            State::Draining => return Err(Error::new(ErrorKind::Unavailable, "the server is shutting down")),
            State::Failed => return Err(ticket::ended()),
            State::Loading | State::Ready => {}
        }
        let images = submission.request.count.get();
        if images as usize > self.shared.queue {
            let most = self.shared.queue;
            return Err(Error::parameter(
                "n",
                format!("n must be at most {most} on this server; got {images}"),
            ));
        }
        let permits = Arc::clone(&self.shared.permits).try_acquire_many_owned(images);
        let permits = permits.map_err(|_| self.full(images))?;
        let first = self.shared.next_job.fetch_add(u64::from(images), Ordering::Relaxed);
        let (events, received) = mpsc::unbounded_channel();
        let arrival = Arrival { submission, first, events, permits, at: Instant::now() };
        self.inbox.send(Message::Arrival(Box::new(arrival))).map_err(|_| ticket::ended())?;
        Ok(Ticket::new(received, self.inbox.clone(), first, images))
    }

    /// The refusal of a request that finds no places for its `images`.
    fn full(&self, images: u32) -> Error {
        let retry_after = self.retry_after().saturating_mul(images);
        Error::new(
            ErrorKind::QueueFull { retry_after },
            format!("the queue is full; there is likely to be room in {retry_after} s"),
        )
    }

    /// Whole seconds after which a place is likely to be free.
    pub fn retry_after(&self) -> u32 {
        self.shared.retry_after.load(Ordering::Relaxed)
    }

    /// Takes no more requests and finishes those that are there; what is not done after `grace` fails with
    /// [`ErrorKind::Unavailable`]. The device thread then ends.
    pub fn drain(&self, grace: Duration) {
        self.shared.advance(State::Draining);
        // A device thread that has ended already has nothing to drain.
        drop(self.inbox.send(Message::Drain { until: Instant::now() + grace }));
    }

    /// Waits until the device thread has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests;
