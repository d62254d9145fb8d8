//! The loop of the device thread: one request after another.

use crate::error::{Error, Result};
use crate::request::{GenerateRequest, Picture};
use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A request, and where its pictures go.
#[derive(Debug)]
pub(super) struct Work {
    pub request: GenerateRequest,
    pub answer: oneshot::Sender<Result<Vec<Picture>>>,
}

/// Draws what arrives until every [`Engine`](super::Engine) is gone.
pub(super) fn run<D>(draw: &D, arrivals: &Receiver<Work>, pace: &Pace)
where
    D: Fn(&GenerateRequest, &dyn Fn() -> ControlFlow<()>) -> Result<Vec<Picture>>,
{
    while let Ok(Work { request, answer }) = arrivals.recv() {
        if answer.is_closed() {
            continue;
        }
        let began = Instant::now();
        let go_on = || if answer.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        // Sound to go on after an unwind: `draw` is `Fn` over weights that nothing writes to, and all that a request
        // changes lives on the stack that was unwound.
        let result = catch_unwind(AssertUnwindSafe(|| draw(&request, &go_on)))
            .unwrap_or_else(|panic| Err(Error::internal(format!("the job panicked: {}", words(&*panic)))));
        if result.is_ok() {
            pace.record(began.elapsed());
        }
        // A caller who left after the last step wants no answer.
        drop(answer.send(result));
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// How long requests take, in milliseconds: the mean, with a weight that falls by a quarter with each newer request.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    fn record(&self, taken: Duration) {
        let taken = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        let before = self.0.load(Ordering::Relaxed);
        let mean = if before == 0 { taken } else { before - before / 4 + taken / 4 };
        self.0.store(mean, Ordering::Relaxed);
    }

    /// Whole seconds, at least one, after which the running request is likely to have made room.
    pub(super) fn seconds(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed).div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_a_mean_in_whole_seconds_and_never_zero() {
        let pace = Pace::default();
        assert_eq!(pace.seconds(), 1);
        pace.record(Duration::from_millis(2100));
        assert_eq!(pace.seconds(), 3);
        pace.record(Duration::from_millis(6100));
        assert_eq!(pace.seconds(), 4);
        pace.record(Duration::MAX);
        assert_eq!(pace.seconds(), u32::MAX);
    }
}
