//! How many requests a minute a caller may make.

use super::error::{ApiError, Fault};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// Callers whose times are remembered before those are forgotten whose allowance is whole again.
const FEW: usize = 1024;

/// Counts the requests of each caller. An allowance of L a minute refills by one every 60 / L seconds and never holds
/// more than L.
#[derive(Debug)]
pub(super) struct Rate {
    limiter: RateLimiter<u64, HashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>,
    limit: NonZeroU32,
    /// The number of callers at which to forget.
    tidy_at: AtomicUsize,
}

/// Where a caller stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    limit: u32,
    remaining: u32,
    /// How long until the request would have been let in; none where it is.
    pub wait: Option<Duration>,
}

impl Rate {
    /// Lets each caller in `limit` times a minute.
    pub(super) fn new(limit: NonZeroU32) -> Self {
        let limiter = RateLimiter::hashmap(Quota::per_minute(limit)).with_middleware();
        Self { limiter, limit, tidy_at: AtomicUsize::new(FEW) }
    }

    /// Counts a request of `caller`.
    pub(super) fn count(&self, caller: u64) -> Standing {
        self.tidy();
        let limit = self.limit.get();
        match self.limiter.check_key(&caller) {
            Ok(state) => Standing { limit, remaining: state.remaining_burst_capacity(), wait: None },
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Standing { limit, remaining: 0, wait: Some(wait) }
            }
        }
    }

    /// Forgets the callers whose allowance is whole. Done when their number has doubled, so that it costs each request
    /// next to nothing; those who are left have asked within the minute.
    fn tidy(&self) {
        if self.limiter.len() >= self.tidy_at.load(Ordering::Relaxed) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            self.tidy_at.store(FEW.max(2 * self.limiter.len()), Ordering::Relaxed);
        }
    }
}

impl Standing {
    /// How long until the whole allowance is back.
    fn reset(self) -> Duration {
        let gone = self.limit - self.remaining.min(self.limit);
        Duration::from_secs(60) * gone / self.limit
    }

    /// The refusal of a request that is to be made again after `wait`.
    pub(super) fn refusal(self, wait: Duration) -> ApiError {
        let message = format!(
            "at most {} requests a minute are let in, and this is one more; the next will be let in after {}",
            self.limit,
            written(wait)
        );
        ApiError::new(Fault::Rate { wait }, message)
    }

    /// Tells the caller, in OpenAI's headers.
    pub(super) fn put(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        if let Ok(reset) = HeaderValue::from_str(&written(self.reset())) {
            headers.insert(RESET, reset);
        }
    }
}

/// A time as OpenAI writes it: `850ms`, `1s`, `6m0s`; parts of a second count only below one.
fn written(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    match (seconds, time.as_millis()) {
        (0..=1, ms @ 0..1000) => format!("{ms}ms"),
        (0..60, _) => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(limit: u32) -> Rate {
        Rate::new(NonZeroU32::new(limit).unwrap())
    }

    #[test]
    fn a_caller_gets_its_allowance_and_no_more_and_takes_none_of_anothers() {
        let rate = rate(3);
        let standings = [0; 4].map(|caller| rate.count(caller));
        assert_eq!(standings.map(|standing| standing.remaining), [2, 1, 0, 0]);
        assert!(standings[..3].iter().all(|standing| standing.wait.is_none()));
        let wait = standings[3].wait.unwrap();
        assert!((15..=20).contains(&wait.as_secs()), "one comes back every 20 s; told {wait:?}");
        assert_eq!(rate.count(1).remaining, 2);
    }

    #[test]
    fn callers_are_told_when_their_allowance_is_back() {
        let reset = |limit, remaining| written(Standing { limit, remaining, wait: None }.reset());
        assert_eq!(reset(60, 59), "1s");
        assert_eq!(reset(60, 60), "0ms");
        assert_eq!(reset(60, 0), "1m0s");
        assert_eq!(reset(1000, 990), "600ms");
        assert_eq!(written(Duration::from_secs(360)), "6m0s");
        assert_eq!(written(Duration::from_millis(1200)), "2s", "never too early");
        assert_eq!(written(Duration::from_micros(59_000_100)), "59s");
    }

    #[test]
    fn callers_whose_allowance_is_whole_are_forgotten() {
        // A request comes back within 60 / 4e9 s: at once.
        let rate = rate(4_000_000_000);
        for caller in 0..10 * FEW as u64 {
            rate.count(caller);
        }
        assert!(rate.limiter.len() <= FEW + 1, "{} callers are remembered", rate.limiter.len());
    }
}
