//! A job as the worker holds it: whose it is, and how far it has come.

use super::Submission;
use super::ticket::Event;
use crate::pipeline::{Job, PromptPair};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// One picture of a request.
#[derive(Debug)]
pub(super) struct Drawing {
    pub submission: Arc<Submission>,
    /// Its prompts, read.
    pub prompts: Arc<PromptPair>,
    /// Which picture of the request, from 0.
    pub image: u32,
    /// Its tensors, once it is encoded.
    pub job: Option<Job>,
    /// When the request came, by the worker's clock.
    pub arrived: Duration,
    /// How long it waited before the device began with it.
    pub waited: Duration,
    events: UnboundedSender<Event>,
    steps_told: usize,
    /// Held for as long as the job is in the engine.
    _permit: OwnedSemaphorePermit,
}

impl Drawing {
    /// Picture `image` of a request, with its prompts, that has come at `arrived`.
    pub fn new(
        (submission, prompts): (Arc<Submission>, Arc<PromptPair>),
        image: u32,
        arrived: Duration,
        events: UnboundedSender<Event>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            submission,
            prompts,
            image,
            job: None,
            arrived,
            waited: Duration::ZERO,
            events,
            steps_told: 0,
            _permit: permit,
        }
    }

    /// Tells the caller. One who has left is told in vain; the cancellation is on its way.
    pub fn tell(&self, event: Event) {
        drop(self.events.send(event));
    }

    /// Tells of the step that the last evaluation may have ended. Some: the preview that is now due, by its number.
    pub fn told_step(&mut self) -> Option<u32> {
        let job = self.job.as_ref()?;
        let (step, steps) = (job.steps_done(), job.steps());
        if step == self.steps_told {
            return None;
        }
        self.steps_told = step;
        self.tell(Event::Step { image: self.image, step, steps });
        preview_due(step, steps, self.submission.previews)
    }
}

/// The number of the preview, of `previews` spread evenly over `steps`, that is due after `step`. The last step has
/// none: the picture itself follows.
fn preview_due(step: usize, steps: usize, previews: u32) -> Option<u32> {
    let parts = previews as usize + 1;
    (1..parts).find(|part| step == (part * steps / parts).max(1) && step < steps).map(|part| part as u32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_are_spread_evenly_and_never_take_the_last_step() {
        let due = |steps, previews| {
            (1..=steps)
                .filter_map(|step| preview_due(step, steps, previews).map(|p| (step, p)))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(20, 3), [(5, 0), (10, 1), (15, 2)]);
        assert_eq!(due(25, 1), [(12, 0)]);
        assert_eq!(due(4, 0), []);
        assert_eq!(due(1, 3), []);
        assert_eq!(due(2, 1), [(1, 0)]);
    }
}
