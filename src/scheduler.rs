//! What the device does next: a pure policy over jobs, with time as an argument. No tensor, thread, clock or random
//! number; the same calls give the same plan.
//!
//! ```text
//! add ──> line (waiting, fair across callers) ──> inside (encoded, at most Limits::inside) ──> gone
//!                      schedule(now) -> Encode | Denoise | Decode | Idle
//!                      update(now, outcome): the work has been done, jobs move on, its time is learned
//! ```
//!
//! The owner of the device turns one loop:
//! ```text
//! loop:
//!     take in what arrived: scheduler.add(..), scheduler.remove(..) for callers that left
//!     fail each of scheduler.expire(now)
//!     work = scheduler.schedule(now)            Idle: wait for an arrival
//!     do the work; scheduler.remove(..) each job that failed in it
//!     scheduler.update(now, outcome)
//! ```
//! What the policy is, why, and what it is worth stands in `docs/scheduling.md`.

mod batch;
mod choice;
mod cost;
mod flow;
mod group;
mod job;
mod pace;
mod policy;
mod queue;

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;

pub use cost::{Costs, Stage};
pub use group::GroupKey;
pub use job::{CallerId, JobId, NewJob};
pub use policy::{Limits, Outcome, Scheduler, Work};
