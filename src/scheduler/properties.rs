//! What holds of the scheduler whatever comes: ten thousand random jobs on a virtual clock.

use super::testing::{Device, FLAT, H100, Lcg};
use super::{CallerId, GroupKey, JobId, Limits, NewJob, Outcome, Scheduler, Stage, Work};
use crate::error::ErrorKind;
use std::collections::BTreeMap;
use std::time::Duration;

const LIMITS: Limits = Limits { queue: 300, inside: 24, rows: 12 };
const CALLERS: u64 = 12;
const MOST_EVALS: u32 = 60;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Drawn,
    Removed,
    Expired,
}

/// What the world knows of a job that was taken on.
#[derive(Debug)]
struct Known {
    job: NewJob,
    arrival: Duration,
    /// Jobs of its caller that were in the line when it came.
    before: u32,
    evals: u32,
    end: Option<End>,
}

/// A device, its scheduler, and what is checked against it.
struct World {
    device: &'static Device,
    scheduler: Scheduler,
    random: Lcg,
    now: Duration,
    jobs: BTreeMap<JobId, Known>,
    refused: u64,
    plan: Vec<Work>,
    /// The longest that a job waited, as a share of the bound on its wait.
    nearest: f64,
}

impl World {
    fn new(device: &'static Device, seed: u64) -> Self {
        Self {
            device,
            scheduler: Scheduler::new(LIMITS, device.costs(LIMITS.rows)),
            random: Lcg(seed),
            now: Duration::ZERO,
            jobs: BTreeMap::new(),
            refused: 0,
            plan: Vec::new(),
            nearest: 0.0,
        }
    }

    /// Brings `count` jobs in at random times and runs until all have ended.
    fn run(mut self, count: u64) -> Self {
        // About what the device can do, so that the line is now empty, now full.
        let between = 12.0 * self.device.seconds(Stage::Denoise, 4096, 1);
        for id in 0..count {
            let pause = Duration::from_secs_f64(2.0 * between * self.random.unit());
            let arrival = self.now + pause;
            while self.now < arrival && self.turn() {}
            self.now = self.now.max(arrival);
            self.arrive(JobId(id));
            self.disturb(id);
        }
        while self.turn() {}
        assert!(self.scheduler.is_empty());
        self
    }

    fn arrive(&mut self, id: JobId) {
        let side = [64, 128][usize::from(self.random.below(5) == 0)];
        // One caller asks as often as all others.
        let caller = CallerId(self.random.below(2) * self.random.below(CALLERS));
        let group = GroupKey {
            height: side,
            width: side,
            chunks: 1 + self.random.below(2) as u32,
            adapters: self.random.below(2),
        };
        let evals = 1 + self.random.below(u64::from(MOST_EVALS)) as u32;
        let patience = 2000.0 * self.device.seconds(Stage::Denoise, 4096, 1) * self.random.unit();
        let deadline = (self.random.below(10) == 0).then(|| self.now + Duration::from_secs_f64(patience));
        let job = NewJob { id, caller, group, guided: self.random.below(2) == 0, evals, deadline };
        let full = self.scheduler.room() == 0;
        match self.scheduler.add(job, self.now) {
            Ok(()) => {
                let waits =
                    |known: &&Known| known.job.caller == caller && known.end.is_none() && known.evals == 0;
                let before = self.jobs.values().filter(waits).count() as u32;
                self.jobs.insert(id, Known { job, arrival: self.now, before, evals: 0, end: None });
            }
            Err(error) => {
                assert!(full && matches!(error.kind(), ErrorKind::QueueFull { retry_after: 1.. }), "{error}");
                self.refused += 1;
            }
        }
    }

    /// Now and then a client leaves, whatever its job's state.
    fn disturb(&mut self, last: u64) {
        if self.random.below(8) == 0 {
            let id = JobId(last.saturating_sub(self.random.below(40)));
            let there = self.jobs.get(&id).is_some_and(|known| known.end.is_none());
            assert_eq!(self.scheduler.remove(id), there);
            if there {
                self.end(id, End::Removed);
            }
        }
    }

    /// One turn of the device's loop; false if there was nothing to do.
    fn turn(&mut self) -> bool {
        for id in self.scheduler.expire(self.now) {
            assert!(self.jobs[&id].job.deadline.is_some_and(|deadline| deadline <= self.now));
            self.end(id, End::Expired);
        }
        let work = self.scheduler.schedule(self.now);
        self.plan.push(work.clone());
        let (stage, area, rows) = match &work {
            Work::Idle => return false,
            Work::Encode(id) => (Stage::Encode, self.wanted(*id).job.group.area(), 1),
            Work::Decode(id) => (Stage::Decode, self.wanted(*id).job.group.area(), 1),
            Work::Denoise(ids) => {
                (Stage::Denoise, self.jobs[&ids[0]].job.group.area(), self.check_batch(ids))
            }
        };
        let jitter = 0.9 + 0.2 * self.random.unit();
        self.now += Duration::from_secs_f64(jitter * self.device.seconds(stage, area, rows));
        let outcome = self.outcome(&work);
        self.after(&work, outcome);
        self.scheduler.update(self.now, outcome);
        true
    }

    fn outcome(&mut self, work: &Work) -> Outcome {
        match (work, self.random.below(2000)) {
            (Work::Denoise(ids), 0) if ids.len() > 1 => Outcome::TooLarge,
            (_, 1..20) => Outcome::DoneInParts,
            _ => Outcome::Done,
        }
    }

    /// A job that work is handed out for has not ended.
    fn wanted(&self, id: JobId) -> &Known {
        let known = &self.jobs[&id];
        assert_eq!(known.end, None, "{id:?} has ended and is given work");
        known
    }

    /// The rows of a batch, which is of one group and within its budget.
    fn check_batch(&self, ids: &[JobId]) -> u32 {
        let group = self.wanted(ids[0]).job.group;
        let mut rows = 0;
        for (at, id) in ids.iter().enumerate() {
            let known = self.wanted(*id);
            assert_eq!(known.job.group, group);
            assert!(known.evals < known.job.evals, "{id:?} has had its evaluations");
            assert!(!ids[..at].contains(id), "{id:?} is in the batch twice");
            rows += known.job.rows();
        }
        let budget = self.scheduler.costs().budget(group.area(), LIMITS.rows);
        assert!(rows <= budget || ids.len() == 1, "{rows} rows, the budget is {budget}");
        rows
    }

    fn after(&mut self, work: &Work, outcome: Outcome) {
        match work {
            Work::Denoise(ids) if outcome != Outcome::TooLarge => {
                // Now and then a job fails in a call; the others of the call go on.
                if self.random.below(500) == 0 && self.scheduler.remove(ids[0]) {
                    self.end(ids[0], End::Removed);
                }
                for id in ids {
                    self.jobs.get_mut(id).unwrap().evals += 1;
                }
            }
            Work::Decode(id) => {
                assert_eq!(self.jobs[id].evals, self.jobs[id].job.evals);
                self.end(*id, End::Drawn);
            }
            _ => {}
        }
    }

    fn end(&mut self, id: JobId, end: End) {
        let known = self.jobs.get_mut(&id).unwrap();
        assert_eq!(known.end.replace(end), None, "{id:?} ended twice");
        let waited = self.now.saturating_sub(known.arrival).as_secs_f64();
        let bound = bound(self.device) * f64::from(known.before + 1);
        assert!(waited <= bound, "{id:?} waited for {waited} s of at most {bound} s");
        self.nearest = self.nearest.max(waited / bound);
    }

    fn count(&self, end: End) -> usize {
        self.jobs.values().filter(|known| known.end == Some(end)).count()
    }
}

/// Each caller may wait in so many groups: two sizes, two lengths of context, two sets of adapters.
const GROUPS: f64 = 8.0;

/// The bound that `docs/scheduling.md` derives, in seconds, for a job that is its caller's first. Times 1.1 for the
/// jitter.
fn bound(device: &Device) -> f64 {
    let call = 1.1 * device.seconds(Stage::Denoise, 16384, LIMITS.rows);
    let side = 1.1 * device.seconds(Stage::Decode, 16384, 1);
    let lead = f64::from(MOST_EVALS) * (2.0 * call + side) + 2.0 * side;
    let stretch = LIMITS.queue as f64;
    let patience = stretch * (f64::from(MOST_EVALS) * device.seconds(Stage::Denoise, 16384, 2) + 2.0 * side);
    (LIMITS.inside as f64 + 1.0) * patience
        + 2.0 * (CALLERS as f64 * GROUPS + 2.0 * LIMITS.inside as f64) * lead
}

#[test]
fn ten_thousand_jobs_keep_to_groups_and_budgets_and_each_ends_once() {
    for device in [&H100, &FLAT] {
        let world = World::new(device, 7).run(10_000);
        let ends = [End::Drawn, End::Removed, End::Expired].map(|end| world.count(end));
        assert_eq!(ends.iter().sum::<usize>() as u64 + world.refused, 10_000);
        assert!(ends.iter().all(|count| *count > 100) && world.refused > 100, "{ends:?} {}", world.refused);
        assert!(world.nearest > 0.0 && world.nearest < 1.0);
    }
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let [one, other] = [(); 2].map(|()| World::new(&H100, 11).run(2_000).plan);
    assert_eq!(one, other);
}
