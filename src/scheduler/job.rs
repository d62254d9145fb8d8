//! A job as the scheduler sees it: numbers, no picture.

use super::GroupKey;
use std::time::Duration;

/// The name that the owner of the device gave to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Whom a job is for: an API key or an address, as an opaque number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(pub u64);

/// One image to draw. All times count from one beginning that the owner of the device picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewJob {
    /// Its name; no two jobs in the scheduler may share one.
    pub id: JobId,
    /// Whom it is for.
    pub caller: CallerId,
    /// What it may share a UNet call with.
    pub group: GroupKey,
    /// Whether each of its evaluations takes two rows (guidance) or one.
    pub guided: bool,
    /// Evaluations of the network, which may be more than its steps.
    pub evals: u32,
    /// When nobody wants it any more.
    pub deadline: Option<Duration>,
}

impl NewJob {
    /// Rows in a UNet call.
    pub fn rows(&self) -> u32 {
        if self.guided { 2 } else { 1 }
    }
}

/// A job with the time that it takes on a device of its own, in seconds, as estimated when it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub job: NewJob,
    /// Since when its age counts: its arrival, or its caller's last turn if that was later.
    pub since: Duration,
    /// Evaluations that are left.
    pub evals: u32,
    /// One evaluation.
    pub eval_alone: f64,
    /// Encoding and decoding.
    pub ends: f64,
    /// The job is due once it has waited this many times what is left of its work. The larger, the closer to shortest
    /// first; the smaller, the closer to first come, first served.
    pub stretch: f64,
}

impl Task {
    /// Seconds of work that are left on a device of its own.
    pub fn left(&self) -> f64 {
        f64::from(self.evals) * self.eval_alone + self.ends
    }

    /// How long the job may wait before it is due, as the `rank`-th of its caller's jobs that are inside.
    ///
    /// Counting the rank makes a caller's second job yield to another caller's first.
    pub fn patience(&self, rank: u32) -> Duration {
        Duration::from_secs_f64((self.stretch * self.left() * f64::from(rank)).min(LONGEST))
    }

    /// When the job is due; the earlier, the sooner it runs.
    pub fn due(&self, rank: u32) -> Duration {
        self.since + self.patience(rank)
    }
}

/// The longest time that is counted with, in seconds: a year, so that sums stay in bounds whatever was measured.
pub(super) const LONGEST: f64 = 31_557_600.0;
