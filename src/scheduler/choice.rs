//! Which batch comes next: the choice of the group, among jobs inside and callers' next jobs.

use super::batch::{Batch, Candidate, Terms, assemble};
use super::job::Task;
use super::{CallerId, GroupKey, JobId, Scheduler, Stage};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many groups of jobs inside, and how many callers' next jobs, are weighed against each other. The earliest due
/// are always among them.
const WEIGHED: usize = 4;

/// A job inside that wants an evaluation, or is to want one.
struct Contender<'a> {
    task: &'a Task,
    due: Duration,
    ready: bool,
}

impl Scheduler {
    /// The batch that is to run next. Its members may yet have to be encoded; without members there is nothing to do.
    ///
    /// If a job is due, the earliest due leads the batch. Otherwise the batch of most worth is taken.
    pub(super) fn choose(&self, now: Duration) -> Batch {
        let contenders = self.contenders();
        let admits = self.inside.len() < self.limits.inside;
        let callers: Vec<(Duration, &Task)> =
            self.line.turns().take(if admits { WEIGHED } else { 0 }).collect();
        let within = contenders.iter().map(|contender| (contender.due, contender.task));
        let earliest =
            within.clone().chain(callers.iter().copied()).min_by_key(|(due, task)| (*due, task.job.id));
        let Some((due, first)) = earliest else { return Batch::default() };
        if due <= now {
            return self.batch(first.job.group, &contenders, Some(first.job.id));
        }
        let mut groups: Vec<GroupKey> = Vec::new();
        for group in within.map(|(_, task)| task.job.group) {
            if groups.len() < WEIGHED && !groups.contains(&group) {
                groups.push(group);
            }
        }
        for (_, task) in callers {
            if !groups.contains(&task.job.group) {
                groups.push(task.job.group);
            }
        }
        let batches = groups.into_iter().map(|group| self.batch(group, &contenders, None));
        batches.reduce(|best, other| if other.worth > best.worth { other } else { best }).unwrap_or_default()
    }

    /// The jobs inside that have evaluations left, the earliest due first.
    fn contenders(&self) -> Vec<Contender<'_>> {
        let mut ranks: BTreeMap<CallerId, u32> = BTreeMap::new();
        let mut contenders = Vec::with_capacity(self.inside.len());
        for running in self.inside.iter().filter(|running| running.stage != Stage::Decode) {
            let rank = ranks.entry(running.task.job.caller).or_insert(0);
            *rank += 1;
            let ready = running.stage == Stage::Denoise;
            contenders.push(Contender { task: &running.task, due: running.task.due(*rank), ready });
        }
        contenders.sort_by_key(|contender| (contender.due, contender.task.job.id));
        contenders
    }

    /// The batch of `group`, led by the job `first` where one is named.
    fn batch(&self, group: GroupKey, contenders: &[Contender], first: Option<JobId>) -> Batch {
        let terms = self.terms(group.area());
        let within = contenders.iter().filter(|contender| contender.task.job.group == group);
        let mut candidates: Vec<Candidate> =
            within.map(|contender| candidate(contender.task, contender.due, contender.ready)).collect();
        if self.inside.len() < self.limits.inside {
            candidates.extend(self.newcomers(group, terms.budget as usize));
        }
        for candidate in candidates.iter_mut().filter(|candidate| Some(candidate.id) == first) {
            candidate.due = Duration::ZERO;
        }
        assemble(candidates, &terms)
    }

    /// Waiting jobs of `group` as candidates, each ranked behind what its caller has inside.
    fn newcomers(&self, group: GroupKey, count: usize) -> Vec<Candidate> {
        let mut ranks: BTreeMap<CallerId, usize> = BTreeMap::new();
        let newcomers = self.line.of_group(group, count).into_iter().map(|task| {
            let caller = task.job.caller;
            let rank = ranks.entry(caller).or_insert_with(|| self.inside_of(caller));
            *rank += 1;
            candidate(task, self.line.aged(task).due(u32::try_from(*rank).unwrap_or(u32::MAX)), false)
        });
        newcomers.collect()
    }

    fn terms(&self, area: u64) -> Terms {
        let (seconds, budget) = self.costs.calls(area, self.limits.rows);
        let present = self.line.len() + self.inside.len();
        let jobs = present + self.flow.to_come(present);
        Terms { seconds, budget, jobs }
    }
}

fn candidate(task: &Task, due: Duration, ready: bool) -> Candidate {
    let share = task.eval_alone / task.left().max(f64::MIN_POSITIVE);
    Candidate { id: task.job.id, rows: task.job.rows(), due, share, ready }
}
