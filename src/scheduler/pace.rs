//! How fast the line moves, measured: what a caller who finds it full is told.

use std::time::Duration;

/// The mean time between two jobs leaving a line that never emptied in between.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Duration>,
    mean: Option<f64>,
}

/// The share of the newest interval in the mean.
const NEWS: f64 = 0.1;

impl Pace {
    /// A job has left the line to be drawn, `waiting` others stay.
    pub fn served(&mut self, now: Duration, waiting: usize) {
        if let Some(last) = self.last {
            let taken = now.saturating_sub(last).as_secs_f64();
            self.mean = Some(self.mean.map_or(taken, |mean| mean + NEWS * (taken - mean)));
        }
        self.last = (waiting > 0).then_some(now);
    }

    /// Whole seconds, at least one, until `places` more jobs have left. Before anything is measured a job counts
    /// `alone` seconds.
    pub fn seconds(&self, now: Duration, places: usize, alone: f64) -> u32 {
        let each = self.mean.unwrap_or(alone);
        let since = self.last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        let wait = (each * places as f64 - since).max(each * (places as f64 - 1.0));
        wait.ceil().clamp(1.0, f64::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_wait_for_a_place_is_the_measured_one_in_whole_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.seconds(at(0), 1, 7.2), 8);
        for now in [0, 3, 6, 9] {
            pace.served(at(now), 5);
        }
        assert_eq!(pace.seconds(at(9), 1, 7.2), 3);
        assert_eq!(pace.seconds(at(11), 1, 7.2), 1);
        assert_eq!(pace.seconds(at(9), 4, 7.2), 12);
    }

    #[test]
    fn times_when_nobody_waited_do_not_count() {
        let mut pace = Pace::default();
        pace.served(at(0), 1);
        pace.served(at(2), 0);
        pace.served(at(1000), 3);
        pace.served(at(1002), 3);
        assert_eq!(pace.seconds(at(1002), 1, 0.0), 2);
    }
}
