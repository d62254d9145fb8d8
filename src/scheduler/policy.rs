//! The scheduler itself: what comes in, what runs, what leaves.

use super::batch::Batch;
use super::flow::Flow;
use super::job::Task;
use super::pace::Pace;
use super::queue::Line;
use super::{CallerId, Costs, JobId, NewJob, Stage};
use crate::error::{Error, ErrorKind, Result};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Bounds on what the scheduler takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that wait to be encoded; at least 1.
    pub queue: usize,
    /// Jobs that are encoded and not yet decoded, so hold memory on the device; at least as many as `rows`, and twice
    /// that lets short jobs pass long ones.
    pub inside: usize,
    /// Rows of one UNet call; a guided job alone has two in any case.
    pub rows: u32,
}

/// What the device is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Encode one job's prompts and make its latents.
    Encode(JobId),
    /// One UNet evaluation for each of these jobs, in one call. They are of one group.
    Denoise(Vec<JobId>),
    /// Decode one job's picture.
    Decode(JobId),
    /// Nothing: wait for the next job.
    Idle,
}

/// How the work went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, for all jobs that were not removed meanwhile.
    Done,
    /// It is done, but not as planned (in parts, or with something else in between): its time teaches nothing.
    DoneInParts,
    /// Nothing was done: the rows of the call did not fit into memory. Later calls of this size have at most half of
    /// them. For a single job remove the job instead, or it is tried for ever.
    TooLarge,
}

/// A job that has been given to the device at least once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub task: Task,
    pub stage: Stage,
}

/// The work that the device has now.
#[derive(Debug)]
struct Given {
    work: Work,
    began: Duration,
    area: u64,
    rows: u32,
}

/// The policy of one device. See the [module](super) for the loop that drives it.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) limits: Limits,
    pub(super) costs: Costs,
    pub(super) line: Line,
    /// In the order in which they came in.
    pub(super) inside: Vec<Running>,
    /// Jobs inside that wait for their decode, the first finished first.
    decodes: VecDeque<JobId>,
    deadlines: BTreeSet<(Duration, JobId)>,
    given: Option<Given>,
    /// Seconds that encodes and decodes may still begin in before the next evaluation.
    pause: f64,
    pace: Pace,
    pub(super) flow: Flow,
    /// See [`Task::stretch`].
    stretch: f64,
    draining: bool,
}

/// [`Task::stretch`] on a device that batches. Most jobs run at once there, so first come, first served costs little.
const STRETCH_BATCHING: f64 = 4.0;
/// The least [`Task::stretch`] on a device where each row costs as much as the first; otherwise it is the length of a
/// full line. The order is all there is to gain there, and shortest first never lets a job of a full line wait longer
/// than if each of the line took as long as it does, unless new ones come.
const STRETCH_ORDERING: f64 = 12.0;

/// Between two evaluations, encodes and decodes go on beginning until they have taken so many times the evaluation's
/// time.
const PAUSE: f64 = 1.0;

impl Scheduler {
    /// An empty scheduler of a device with these costs.
    pub fn new(limits: Limits, costs: Costs) -> Self {
        let batches = costs.batches(limits.rows);
        let stretch = if batches { STRETCH_BATCHING } else { STRETCH_ORDERING.max(limits.queue as f64) };
        Self {
            limits,
            costs,
            line: Line::default(),
            inside: Vec::new(),
            decodes: VecDeque::new(),
            deadlines: BTreeSet::new(),
            given: None,
            pause: 0.0,
            pace: Pace::default(),
            flow: Flow::default(),
            stretch,
            draining: false,
        }
    }

    /// Takes a job on.
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`] with the time after which a place is likely to be free,
    /// [`ErrorKind::Unavailable`] when draining, [`ErrorKind::Internal`] if the name is taken.
    pub fn add(&mut self, job: NewJob, now: Duration) -> Result<()> {
        if self.draining {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the server is shutting down; the request was not drawn",
            ));
        }
        if self.line.len() >= self.limits.queue {
            let retry_after = self.retry_after(1, now);
            return Err(Error::new(
                ErrorKind::QueueFull { retry_after },
                format!("the queue is full; a place is likely to be free in {retry_after} s"),
            ));
        }
        if self.line.contains(job.id) || self.running(job.id).is_some() {
            return Err(Error::internal(format!("there is a job {} already", job.id.0)));
        }
        self.flow.come(self.is_empty());
        let seconds = |stage, rows| self.costs.seconds(stage, job.group.area(), rows);
        let ends = seconds(Stage::Encode, 1) + seconds(Stage::Decode, 1);
        let eval_alone = seconds(Stage::Denoise, job.rows());
        self.line.push(Task { job, since: now, evals: job.evals, eval_alone, ends, stretch: self.stretch });
        self.deadlines.extend(job.deadline.map(|deadline| (deadline, job.id)));
        Ok(())
    }

    /// Corrects how many evaluations a job has left, once its plan is known.
    pub fn set_evals(&mut self, id: JobId, evals: u32) {
        if let Some(running) = self.inside.iter_mut().find(|running| running.task.job.id == id) {
            running.task.evals = evals;
        }
    }

    /// Takes a job out, whatever its state: its caller has left, or it failed. From then on it is in no work; work
    /// that the device has now goes on without it. False if there is no such job.
    pub fn remove(&mut self, id: JobId) -> bool {
        let task = self.line.remove(id).or_else(|| {
            let at = self.inside.iter().position(|running| running.task.job.id == id)?;
            self.decodes.retain(|other| *other != id);
            Some(self.inside.remove(at).task)
        });
        let Some(task) = task else { return false };
        self.flow.leave();
        if let Some(deadline) = task.job.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        true
    }

    /// Takes out the jobs whose deadline has come, whatever their state.
    pub fn expire(&mut self, now: Duration) -> Vec<JobId> {
        let late: Vec<JobId> =
            self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect();
        late.into_iter().filter(|id| self.remove(*id)).collect()
    }

    /// Refuses jobs from now on and takes out those that wait; those inside go on to their end.
    pub fn drain(&mut self) -> Vec<JobId> {
        self.draining = true;
        let waiting: Vec<JobId> = self.line.ids().collect();
        waiting.into_iter().filter(|id| self.remove(*id)).collect()
    }

    /// Takes out all jobs.
    pub fn abandon(&mut self) -> Vec<JobId> {
        let all: Vec<JobId> =
            self.line.ids().chain(self.inside.iter().map(|running| running.task.job.id)).collect();
        all.into_iter().filter(|id| self.remove(*id)).collect()
    }

    /// What the device is to do now. Asked again before [`Scheduler::update`], it answers anew.
    pub fn schedule(&mut self, now: Duration) -> Work {
        let batch = self.choose(now);
        let work = self.pick(&batch, now);
        self.given = self.given(&work, now);
        work
    }

    fn pick(&mut self, batch: &Batch, now: Duration) -> Work {
        let ready: Vec<JobId> =
            batch.members.iter().filter(|member| member.ready).map(|member| member.id).collect();
        if self.pause > 0.0 || ready.is_empty() {
            if let Some(id) = self.decodes.front() {
                return Work::Decode(*id);
            }
            if let Some(newcomer) = batch.members.iter().find(|member| !member.ready) {
                self.admit(newcomer.id, now);
                return Work::Encode(newcomer.id);
            }
        }
        if ready.is_empty() { Work::Idle } else { Work::Denoise(ready) }
    }

    fn admit(&mut self, id: JobId, now: Duration) {
        if let Some(task) = self.line.serve(id, now) {
            self.inside.push(Running { task, stage: Stage::Encode });
            self.pace.served(now, self.line.len());
        }
    }

    fn given(&self, work: &Work, now: Duration) -> Option<Given> {
        let ids = match work {
            Work::Encode(id) | Work::Decode(id) => std::slice::from_ref(id),
            Work::Denoise(ids) => ids,
            Work::Idle => return None,
        };
        let jobs: Vec<&NewJob> = ids.iter().filter_map(|id| self.running(*id)).map(|r| &r.task.job).collect();
        let denoise = matches!(work, Work::Denoise(_));
        let rows = if denoise { jobs.iter().map(|job| job.rows()).sum() } else { 1 };
        Some(Given { work: work.clone(), began: now, area: jobs.first()?.group.area(), rows })
    }

    /// Reports that the work from the last [`Scheduler::schedule`] has ended, and moves its jobs on.
    pub fn update(&mut self, now: Duration, outcome: Outcome) {
        let Some(Given { work, began, area, rows }) = self.given.take() else { return };
        let taken = now.saturating_sub(began);
        let stage = match work {
            Work::Encode(_) => Stage::Encode,
            Work::Denoise(_) => Stage::Denoise,
            Work::Decode(_) | Work::Idle => Stage::Decode,
        };
        match outcome {
            Outcome::Done => self.costs.learn(stage, (area, rows), taken),
            Outcome::DoneInParts => {}
            Outcome::TooLarge => return self.costs.too_large(area, rows),
        }
        let taken = taken.as_secs_f64();
        self.pause = if stage == Stage::Denoise { PAUSE * taken } else { self.pause - taken };
        match work {
            Work::Encode(id) => self.encoded(id),
            Work::Denoise(ids) => ids.into_iter().for_each(|id| self.evaluated(id)),
            Work::Decode(id) => {
                self.remove(id);
            }
            Work::Idle => {}
        }
    }

    fn encoded(&mut self, id: JobId) {
        if let Some(running) = self.inside.iter_mut().find(|running| running.task.job.id == id) {
            running.task.ends = self.costs.seconds(Stage::Decode, running.task.job.group.area(), 1);
            running.stage = Stage::Denoise;
            self.end_if_denoised(id);
        }
    }

    fn evaluated(&mut self, id: JobId) {
        if let Some(running) = self.inside.iter_mut().find(|running| running.task.job.id == id) {
            running.task.evals = running.task.evals.saturating_sub(1);
            self.end_if_denoised(id);
        }
    }

    fn end_if_denoised(&mut self, id: JobId) {
        let done = |running: &&mut Running| running.task.job.id == id && running.task.evals == 0;
        if let Some(running) = self.inside.iter_mut().find(done) {
            running.stage = Stage::Decode;
            self.decodes.push_back(id);
        }
    }

    fn running(&self, id: JobId) -> Option<&Running> {
        self.inside.iter().find(|running| running.task.job.id == id)
    }

    /// How many of a caller's jobs are inside.
    pub(super) fn inside_of(&self, caller: CallerId) -> usize {
        self.inside.iter().filter(|running| running.task.job.caller == caller).count()
    }

    /// How many waiting jobs go before this one if callers take turns and nobody else comes; for a caller's further
    /// jobs to within one turn of each caller. None if it is not waiting.
    pub fn place(&self, id: JobId) -> Option<usize> {
        self.line.place(id)
    }

    /// Whole seconds, at least one, after which `places` more jobs are likely to find room, from how fast the line has
    /// moved.
    pub fn retry_after(&self, places: usize, now: Duration) -> u32 {
        let alone = self.line.turns().next().map_or(0.0, |(_, task)| task.left());
        self.pace.seconds(now, places, alone)
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many more jobs can wait.
    pub fn room(&self) -> usize {
        if self.draining { 0 } else { self.limits.queue.saturating_sub(self.line.len()) }
    }

    /// Jobs that are encoded, or being encoded, and not yet done.
    pub fn inside(&self) -> usize {
        self.inside.len()
    }

    /// Whether there is no job at all.
    pub fn is_empty(&self) -> bool {
        self.line.len() == 0 && self.inside.is_empty()
    }

    /// What is known of the device's speed.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }
}
