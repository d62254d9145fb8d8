//! How many jobs are likely to come before the device is idle again.

/// Jobs counted since the device was last idle.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Those that were drawn, or that nobody wants any more.
    gone: usize,
    /// Those that came after the first was gone. Those before say nothing of the time between two jobs: they may have
    /// come all at once.
    came: usize,
}

/// How far the count of those who came is trusted: it is taken for so many of its standard errors too high. That of a
/// count of random events is the square root of what was expected.
const CAUTION: f64 = 0.5;

impl Flow {
    /// A job has come, while the device was `idle` or not.
    pub fn come(&mut self, idle: bool) {
        if idle {
            *self = Self::default();
        } else if self.gone > 0 {
            self.came += 1;
        }
    }

    /// A job is gone.
    pub fn leave(&mut self) {
        self.gone += 1;
    }

    /// Jobs that are likely to come before those `present` and all that follow are gone.
    ///
    /// If while one job is drawn `r` others come, `r` more for each of these, and so on, `r / (1 - r)` follow each that
    /// is present: what came, over what is gone beyond that.
    pub fn to_come(&self, present: usize) -> usize {
        if self.gone == 0 {
            return 0;
        }
        let caution = CAUTION * (self.gone as f64).sqrt();
        let beyond = self.gone.saturating_sub(self.came) as f64 + caution;
        (present as f64 * self.came as f64 / beyond) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flow after `gone` jobs are gone, and `came` have come since the first of them.
    fn flow(came: usize, gone: usize) -> Flow {
        let mut flow = Flow::default();
        flow.come(true);
        flow.leave();
        (0..came).for_each(|_| flow.come(false));
        (1..gone).for_each(|_| flow.leave());
        flow
    }

    #[test]
    fn nobody_is_expected_behind_jobs_that_came_at_once() {
        let mut burst = Flow::default();
        (0..8).for_each(|id| burst.come(id == 0));
        for _ in 0..8 {
            assert_eq!(burst.to_come(8), 0);
            burst.leave();
        }
    }

    #[test]
    fn as_many_again_are_expected_where_half_as_many_come_as_go() {
        assert_eq!(flow(5000, 10_000).to_come(8), 7);
        assert_eq!(flow(0, 10_000).to_come(8), 0);
    }

    #[test]
    fn the_longer_as_many_come_as_go_the_more_are_expected() {
        let expected = [1, 4, 16, 64].map(|jobs| flow(jobs, jobs).to_come(8));
        assert_eq!(expected, [16, 32, 64, 128]);
    }

    #[test]
    fn an_idle_device_forgets() {
        let mut flow = flow(16, 16);
        flow.come(true);
        flow.leave();
        assert_eq!(flow.to_come(8), 0);
    }
}
