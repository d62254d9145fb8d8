//! The device thread: one thread owns the model, and everyone else holds an [`Engine`], a handle that clones cheaply.
//!
//! ```text
//! Engine::submit -> inbox (bounded) -> device thread -> Ticket
//! ```

mod ticket;
mod worker;

pub use ticket::Ticket;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Pipeline;
use crate::request::{Defaults, GenerateRequest, Picture};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use worker::{Pace, Work};

/// The resident model as callers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// What it draws with where a request is silent.
    pub defaults: Defaults,
}

/// A handle of the device thread. The thread ends when the last handle is gone and its work is done.
#[derive(Debug, Clone)]
pub struct Engine {
    model: Arc<Model>,
    inbox: SyncSender<Work>,
    pace: Arc<Pace>,
}

impl Engine {
    /// Gives `pipeline` to a thread of its own, at whose door at most `queue` requests wait beside the one being drawn.
    ///
    /// # Errors
    /// If the system has no room for another thread.
    pub fn start(pipeline: Pipeline, queue: usize) -> Result<Self> {
        let model = Model { name: pipeline.name().to_owned(), defaults: pipeline.defaults().clone() };
        Self::over(model, queue, move |request, go_on| pipeline.generate(request, |_| go_on()))
    }

    /// An engine over anything that draws a request and asks after each step whether to go on.
    fn over<D>(model: Model, queue: usize, draw: D) -> Result<Self>
    where
        D: Fn(&GenerateRequest, &dyn Fn() -> ControlFlow<()>) -> Result<Vec<Picture>> + Send + 'static,
    {
        let (inbox, arrivals) = sync_channel(queue);
        let pace = Arc::new(Pace::default());
        let clock = Arc::clone(&pace);
        std::thread::Builder::new()
            .name("device".into())
            .spawn(move || worker::run(&draw, &arrivals, &clock))
            .map_err(|cause| Error::internal(format!("the device thread did not start: {cause}")))?;
        Ok(Self { model: Arc::new(model), inbox, pace })
    }

    /// The resident model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Puts `request` into the queue. Await the ticket for its pictures; drop it to cancel.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`], or [`ErrorKind::Unavailable`] if the device thread has ended.
    pub fn submit(&self, request: GenerateRequest) -> Result<Ticket> {
        let (ticket, answer) = Ticket::new();
        self.inbox.try_send(Work { request, answer }).map_err(|refused| match refused {
            TrySendError::Full(_) => {
                let retry_after = self.pace.seconds();
                Error::new(
                    ErrorKind::QueueFull { retry_after },
                    format!("the queue is full; a place is likely to be free in {retry_after} s"),
                )
            }
            TrySendError::Disconnected(_) => ticket::ended(),
        })?;
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Options, Prompt, Seed};
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::task::{Context, Poll, Wake, Waker};
    use std::thread::Thread;
    use std::time::Duration;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait(ticket: Ticket) -> Result<Vec<Picture>> {
        let mut ticket = pin!(ticket);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park_timeout(Duration::from_secs(10)),
            }
        }
    }

    fn model() -> Model {
        let defaults = Defaults {
            size: "64x64".parse().unwrap(),
            steps: "4".parse().unwrap(),
            sampler: "euler".parse().unwrap(),
            schedule: "normal".parse().unwrap(),
            guidance: "1".parse().unwrap(),
        };
        Model { name: "paint".into(), defaults }
    }

    fn request(prompt: &str) -> GenerateRequest {
        Options::default().resolve(Prompt::new(prompt).unwrap(), &model().defaults, Seed(0)).unwrap()
    }

    /// An engine whose jobs tell that they began, and run until they are cancelled or told to finish.
    fn slow(queue: usize) -> (Engine, Receiver<String>, Sender<()>) {
        let (began, beginnings) = channel();
        let (finish, finished) = channel::<()>();
        let engine = Engine::over(model(), queue, move |request, go_on| {
            began.send(request.prompt.as_str().to_owned()).unwrap();
            while finished.recv_timeout(Duration::from_millis(1)).is_err() {
                if go_on().is_break() {
                    return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
                }
            }
            Ok(Vec::new())
        });
        (engine.unwrap(), beginnings, finish)
    }

    #[test]
    fn a_panic_fails_its_own_job_and_the_next_one_is_drawn() {
        let engine = Engine::over(model(), 8, |request, _| {
            assert_ne!(request.prompt.as_str(), "poison", "this job is poisoned");
            Ok(Vec::new())
        })
        .unwrap();
        let tickets = ["good", "poison", "better"].map(|prompt| engine.submit(request(prompt)).unwrap());
        let [good, poisoned, better] = tickets.map(wait);
        assert_eq!((good, better), (Ok(Vec::new()), Ok(Vec::new())));
        let error = poisoned.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("this job is poisoned"), "{error}");
    }

    #[test]
    fn a_full_queue_refuses_the_next_request_and_says_when_to_come_back() {
        let (engine, beginnings, finish) = slow(1);
        let running = engine.submit(request("first")).unwrap();
        beginnings.recv().unwrap();
        let waiting = engine.submit(request("second")).unwrap();
        let refused = engine.submit(request("third")).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::QueueFull { retry_after: 1.. }), "{refused:?}");
        finish.send(()).unwrap();
        finish.send(()).unwrap();
        assert_eq!((wait(running), wait(waiting)), (Ok(Vec::new()), Ok(Vec::new())));
    }

    #[test]
    fn a_dropped_ticket_ends_the_running_job_and_skips_the_waiting_one() {
        let (engine, beginnings, finish) = slow(2);
        let running = engine.submit(request("first")).unwrap();
        assert_eq!(beginnings.recv().unwrap(), "first");
        let waiting = engine.submit(request("second")).unwrap();
        let last = engine.submit(request("third")).unwrap();
        drop((running, waiting));
        assert_eq!(beginnings.recv_timeout(Duration::from_secs(10)).unwrap(), "third");
        finish.send(()).unwrap();
        assert_eq!(wait(last), Ok(Vec::new()));
    }

    #[test]
    fn what_was_taken_on_is_drawn_after_the_last_handle_is_gone() {
        static DRAWN: AtomicU32 = AtomicU32::new(0);
        let engine = Engine::over(model(), 4, |_, _| {
            DRAWN.fetch_add(1, Ordering::Relaxed);
            Ok(Vec::new())
        })
        .unwrap();
        let tickets = ["one", "two"].map(|prompt| engine.submit(request(prompt)).unwrap());
        drop(engine);
        assert!(tickets.map(wait).iter().all(Result::is_ok));
        assert_eq!(DRAWN.load(Ordering::Relaxed), 2);
    }
}
