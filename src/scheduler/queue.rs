//! The line: jobs that wait to be encoded, fair across callers.
//!
//! Callers take turns. Each is in the contest with one job, the first in its own order, and that job's age counts from
//! the end of the caller's last turn; so whoever waits for long gets ahead of whoever was just served, and a hundred
//! jobs of one caller count as one. The jobs of one group form a contest of their own, with lanes for callers, from
//! which batches are filled. Every operation but [`Line::place`] takes a time that grows with the logarithm of the line.

use super::job::{LONGEST, Task};
use super::{CallerId, GroupKey, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A job's place among those of its caller: by when it is due, counted from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    due: Duration,
    arrival_order: u64,
    id: JobId,
    patience: Duration,
}

/// Jobs of one caller in their order.
#[derive(Debug, Default)]
struct Lane {
    /// When the work of the last turn would have ended on a device of its own.
    turn: Duration,
    places: BTreeSet<Place>,
}

impl Lane {
    /// When the first job is due, its age counted from the caller's last turn.
    fn due(&self) -> Option<Duration> {
        self.places.first().map(|first| first.due.max(self.turn + first.patience))
    }
}

/// Jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    tasks: BTreeMap<JobId, (Task, Place)>,
    callers: BTreeMap<CallerId, Lane>,
    /// The jobs of a caller in one group alone.
    lanes: BTreeMap<(GroupKey, CallerId), Lane>,
    /// The first job of each caller, by when it is due.
    turns: BTreeSet<(Duration, CallerId)>,
    /// The first job of each lane, by group and by when it is due.
    heads: BTreeSet<(GroupKey, Duration, CallerId)>,
    /// How many callers have so many jobs waiting.
    lengths: BTreeMap<usize, usize>,
    arrivals: u64,
}

impl Line {
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn contains(&self, id: JobId) -> bool {
        self.tasks.contains_key(&id)
    }

    pub fn get(&self, id: JobId) -> Option<&Task> {
        self.tasks.get(&id).map(|(task, _)| task)
    }

    pub fn ids(&self) -> impl Iterator<Item = JobId> {
        self.tasks.keys().copied()
    }

    pub fn push(&mut self, task: Task) {
        let id = task.job.id;
        let place = Place { due: task.due(1), arrival_order: self.arrivals, id, patience: task.patience(1) };
        self.arrivals += 1;
        self.tasks.insert(id, (task, place));
        let insert = |lane: &mut Lane| {
            lane.places.insert(place);
        };
        self.edit(&task, insert, insert);
    }

    /// Takes a job out that leaves unserved.
    pub fn remove(&mut self, id: JobId) -> Option<Task> {
        let (task, place) = self.tasks.remove(&id)?;
        let remove = |lane: &mut Lane| {
            lane.places.remove(&place);
        };
        self.edit(&task, remove, remove);
        Some(task)
    }

    /// Takes a job out to serve it, its age counted as in the contest. If it is its caller's first, that was the
    /// caller's turn; a job that fills a batch is a turn of its lane alone, or else it would put off the first.
    pub fn serve(&mut self, id: JobId, now: Duration) -> Option<Task> {
        let task = self.aged(self.get(id)?);
        let (_, place) = self.tasks.remove(&id)?;
        let turn = now + Duration::from_secs_f64(task.left().min(LONGEST));
        let take = |lane: &mut Lane, always: bool| {
            if always || lane.places.first() == Some(&place) {
                lane.turn = turn;
            }
            lane.places.remove(&place);
        };
        self.edit(&task, |caller| take(caller, false), |lane| take(lane, true));
        Some(task)
    }

    /// A waiting task with its age counted from its caller's last turn and from its lane's.
    pub fn aged(&self, task: &Task) -> Task {
        let (group, caller) = (task.job.group, task.job.caller);
        let turn = |lane: Option<&Lane>| lane.map_or(Duration::ZERO, |lane| lane.turn);
        let turn = turn(self.callers.get(&caller)).max(turn(self.lanes.get(&(group, caller))));
        Task { since: task.since.max(turn), ..*task }
    }

    /// Changes the caller's order and its lane, and keeps both contests in step.
    fn edit(&mut self, task: &Task, of_caller: impl Fn(&mut Lane), of_lane: impl Fn(&mut Lane)) {
        let (group, caller) = (task.job.group, task.job.caller);
        let all = self.callers.entry(caller).or_default();
        if let Some(due) = all.due() {
            self.turns.remove(&(due, caller));
        }
        let before = all.places.len();
        of_caller(all);
        let after = all.places.len();
        match all.due() {
            Some(due) => self.turns.insert((due, caller)),
            None => self.callers.remove(&caller).is_some(),
        };
        self.lengths.entry(before).and_modify(|callers| *callers = callers.saturating_sub(1));
        *self.lengths.entry(after).or_insert(0) += 1;
        self.lengths.retain(|jobs, callers| *jobs > 0 && *callers > 0);
        let lane = self.lanes.entry((group, caller)).or_default();
        if let Some(due) = lane.due() {
            self.heads.remove(&(group, due, caller));
        }
        of_lane(lane);
        match lane.due() {
            Some(due) => self.heads.insert((group, due, caller)),
            None => self.lanes.remove(&(group, caller)).is_some(),
        };
    }

    /// The first job of each caller, with when it is due, the earliest first.
    pub fn turns(&self) -> impl Iterator<Item = (Duration, &Task)> {
        self.turns.iter().filter_map(|(due, caller)| {
            let first = self.callers.get(caller)?.places.first()?;
            Some((*due, self.get(first.id)?))
        })
    }

    /// Some `count` jobs of `group`: the first of each caller by when it is due, then the further ones, so that a
    /// lone caller's jobs also make a batch.
    pub fn of_group(&self, group: GroupKey, count: usize) -> Vec<&Task> {
        let from = (group, Duration::ZERO, CallerId(0));
        let lanes = self.heads.range(from..).take_while(|head| head.0 == group).take(count);
        let lanes: Vec<&Lane> =
            lanes.filter_map(|(_, _, caller)| self.lanes.get(&(group, *caller))).collect();
        let firsts = lanes.iter().filter_map(|lane| lane.places.first());
        let further = lanes.iter().flat_map(|lane| lane.places.iter().skip(1).take(count));
        firsts.chain(further).take(count).filter_map(|place| self.get(place.id)).collect()
    }

    /// How many jobs are served before this one if callers take turns and nobody else comes; for a caller's further
    /// jobs, to within one turn of each caller.
    pub fn place(&self, id: JobId) -> Option<usize> {
        let (task, place) = self.tasks.get(&id)?;
        let own = self.callers.get(&task.job.caller)?;
        let before = own.places.range(..place).count();
        if before == 0 {
            return Some(self.turns.range(..(own.due()?, task.job.caller)).count());
        }
        let turns: usize = self.lengths.iter().map(|(jobs, callers)| callers * before.min(*jobs)).sum();
        Some(turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::NewJob;

    const GROUP: GroupKey = GroupKey { height: 64, width: 64, chunks: 1, adapters: 0 };

    fn task(id: u64, caller: u64, evals: u32, since: u64) -> Task {
        let job = NewJob {
            id: JobId(id),
            caller: CallerId(caller),
            group: GROUP,
            guided: false,
            evals,
            deadline: None,
        };
        Task { job, since: Duration::from_secs(since), evals, eval_alone: 1.0, ends: 0.0, stretch: 10.0 }
    }

    fn served(line: &mut Line, count: u64) -> Vec<u64> {
        let serve = |now| {
            let id = line.turns().next()?.1.job.id;
            line.serve(id, Duration::from_secs(now)).map(|task| task.job.id.0)
        };
        (1..=count).map_while(serve).collect()
    }

    #[test]
    fn the_one_picture_of_a_caller_is_not_held_up_by_a_hundred_of_another() {
        let mut line = Line::default();
        (0..100).for_each(|id| line.push(task(id, 1, 20, 0)));
        line.push(task(100, 2, 20, 0));
        assert_eq!([0, 100, 1, 50].map(|id| line.place(JobId(id))), [0, 1, 2, 51].map(Some));
        assert_eq!(served(&mut line, 4), [0, 100, 1, 2]);
    }

    #[test]
    fn a_caller_s_shorter_job_goes_first_until_the_longer_one_has_aged() {
        let mut line = Line::default();
        line.push(task(0, 1, 20, 0));
        line.push(task(1, 1, 4, 100));
        line.push(task(2, 1, 4, 161));
        assert_eq!(served(&mut line, 3), [1, 0, 2]);
    }

    #[test]
    fn a_lone_caller_s_jobs_of_a_group_come_in_its_order() {
        let mut line = Line::default();
        for (id, evals) in [(0, 30), (1, 10), (2, 20)] {
            line.push(task(id, 1, evals, 0));
        }
        let ids: Vec<u64> = line.of_group(GROUP, 2).iter().map(|task| task.job.id.0).collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn a_line_that_emptied_keeps_nothing() {
        let mut line = Line::default();
        (0..10).for_each(|id| line.push(task(id, id % 3, 20, 0)));
        (0..5).for_each(|id| assert!(line.remove(JobId(id)).is_some()));
        served(&mut line, 5);
        assert_eq!((line.len(), line.callers.len(), line.lanes.len()), (0, 0, 0));
        assert_eq!((line.turns.len(), line.heads.len()), (0, 0));
        assert!(line.lengths.is_empty());
    }
}
