//! Single traits of the scheduler, each in the smallest scene that shows it.

use super::testing::{Device, FLAT, H100};
use super::{CallerId, GroupKey, JobId, Limits, NewJob, Outcome, Scheduler, Stage, Work};
use crate::error::ErrorKind;
use std::collections::BTreeMap;
use std::time::Duration;

const LIMITS: Limits = Limits { queue: 1000, inside: 24, rows: 12 };

fn job(id: u64, caller: u64, evals: u32) -> NewJob {
    let group = GroupKey { height: 64, width: 64, chunks: 1, adapters: 0 };
    NewJob { id: JobId(id), caller: CallerId(caller), group, guided: false, evals, deadline: None }
}

fn large(job: NewJob) -> NewJob {
    NewJob { group: GroupKey { height: 128, width: 128, ..job.group }, ..job }
}

/// A device with its scheduler on a virtual clock.
struct Scene {
    device: &'static Device,
    scheduler: Scheduler,
    jobs: BTreeMap<JobId, NewJob>,
    now: f64,
    drawn: Vec<(u64, f64)>,
}

impl Scene {
    fn new(device: &'static Device) -> Self {
        Self::with(device, LIMITS)
    }

    fn with(device: &'static Device, limits: Limits) -> Self {
        let scheduler = Scheduler::new(limits, device.costs(limits.rows));
        Self { device, scheduler, jobs: BTreeMap::new(), now: 0.0, drawn: Vec::new() }
    }

    fn add(&mut self, job: NewJob) {
        self.jobs.insert(job.id, job);
        self.scheduler.add(job, Duration::from_secs_f64(self.now)).unwrap();
    }

    fn next(&mut self) -> Work {
        self.scheduler.schedule(Duration::from_secs_f64(self.now))
    }

    /// Does the next work and reports it.
    fn turn(&mut self) -> Work {
        let work = self.next();
        let job = |id: &JobId| self.jobs[id];
        self.now += match &work {
            Work::Encode(id) => self.device.seconds(Stage::Encode, job(id).group.area(), 1),
            Work::Decode(id) => self.device.seconds(Stage::Decode, job(id).group.area(), 1),
            Work::Denoise(ids) => {
                let rows = ids.iter().map(|id| job(id).rows()).sum();
                self.device.seconds(Stage::Denoise, job(&ids[0]).group.area(), rows)
            }
            Work::Idle => 0.0,
        };
        if let Work::Decode(id) = &work {
            self.drawn.push((id.0, self.now));
        }
        self.scheduler.update(Duration::from_secs_f64(self.now), Outcome::Done);
        work
    }

    /// Runs until nothing is left to do.
    fn finish(&mut self) {
        while self.turn() != Work::Idle {}
    }

    fn drawn_at(&self, id: u64) -> Option<f64> {
        self.drawn.iter().find(|(drawn, _)| *drawn == id).map(|(_, at)| *at)
    }
}

#[test]
fn a_newcomer_joins_those_that_run_between_two_evaluations() {
    let mut scene = Scene::new(&H100);
    scene.add(job(0, 0, 20));
    assert_eq!([scene.turn(), scene.turn()], [Work::Encode(JobId(0)), Work::Denoise(vec![JobId(0)])]);
    scene.add(job(1, 1, 30));
    assert_eq!(
        [scene.turn(), scene.turn()],
        [Work::Encode(JobId(1)), Work::Denoise(vec![JobId(0), JobId(1)])]
    );
}

#[test]
fn a_device_that_gains_nothing_from_rows_takes_the_shortest_job_first_and_lets_it_pass_the_longer() {
    let mut scene = Scene::new(&FLAT);
    scene.add(job(0, 0, 50));
    (0..3).for_each(|_| drop(scene.turn()));
    scene.add(job(1, 1, 4));
    scene.add(job(2, 2, 8));
    scene.finish();
    assert_eq!(scene.drawn.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 0]);
}

/// The most jobs of a call while as many large ones are drawn, two of them there at a time.
fn most_at_once(scene: &mut Scene, jobs: std::ops::Range<u64>) -> usize {
    let (drawn, mut next, mut most) = (scene.drawn.len(), jobs.start, 0);
    while next < jobs.end || scene.drawn.len() - drawn < jobs.clone().count() {
        if next < jobs.end && scene.scheduler.waiting() + scene.scheduler.inside() < 2 {
            scene.add(large(job(next, next, 10)));
            next += 1;
            continue;
        }
        if let Work::Denoise(ids) = scene.turn() {
            most = most.max(ids.len());
        }
    }
    most
}

#[test]
fn rows_that_save_little_share_calls_once_requests_have_not_ceased_for_long() {
    let mut scene = Scene::new(&H100);
    assert_eq!(most_at_once(&mut scene, 0..3), 1);
    assert_eq!(most_at_once(&mut scene, 3..50), 2);
    assert!(scene.scheduler.is_empty());
    assert_eq!(most_at_once(&mut scene, 50..53), 1, "it was idle");
}

/// When a long job is drawn while short ones keep the line full, as a multiple of the time that it takes alone.
fn under_short_ones(device: &'static Device, same_caller: bool) -> f64 {
    let mut scene = Scene::with(device, Limits { queue: 20, ..LIMITS });
    scene.add(large(job(0, 0, 50)));
    let alone = 50.0 * device.seconds(Stage::Denoise, 16384, 1) + device.seconds(Stage::Decode, 16384, 1);
    for id in 1..100_000 {
        scene.add(job(id, if same_caller { 0 } else { id }, 4));
        while scene.scheduler.room() == 0 && scene.drawn_at(0).is_none() {
            scene.turn();
        }
        if let Some(at) = scene.drawn_at(0) {
            return at / alone;
        }
    }
    f64::INFINITY
}

#[test]
fn a_long_job_is_drawn_in_bounded_time_under_an_endless_stream_of_short_ones() {
    for (device, stretch) in [(&H100, 4.0), (&FLAT, 20.0)] {
        let by_others = under_short_ones(device, false);
        assert!(by_others < stretch + 3.0, "waited {by_others} times what it takes alone");
        // First it ages to its caller's first job, then as that among the callers.
        let by_own = under_short_ones(device, true);
        assert!(by_own < 2.0 * stretch + 3.0, "waited {by_own} times what it takes alone");
    }
}

#[test]
fn a_hundred_pictures_of_one_caller_do_not_hold_up_one_of_another() {
    for device in [&H100, &FLAT] {
        let mut scene = Scene::new(device);
        (0..100).for_each(|id| scene.add(job(id, 0, 30)));
        (0..400).for_each(|_| drop(scene.turn()));
        let asked = scene.now;
        scene.add(job(100, 1, 30));
        while scene.drawn_at(100).is_none() {
            scene.turn();
        }
        let full =
            device.seconds(Stage::Denoise, 4096, if std::ptr::eq(device, &H100) { LIMITS.rows } else { 1 });
        let waited = scene.now - asked;
        assert!(
            waited < 2.5 * 30.0 * full,
            "waited for {waited} s; its own evaluations take {} s",
            30.0 * full
        );
    }
}

#[test]
fn callers_with_equal_jobs_get_equal_shares() {
    let mut scene = Scene::new(&H100);
    for id in 0..400 {
        // The first caller's jobs are all there before the others come.
        scene.add(job(id, id / 100, 20));
    }
    while scene.drawn.len() < 160 {
        scene.turn();
    }
    let shares: Vec<usize> =
        (0..4).map(|caller| scene.drawn.iter().filter(|(id, _)| id / 100 == caller).count()).collect();
    assert!(shares.iter().all(|share| (34..=46).contains(share)), "{shares:?}");
}

#[test]
fn a_decode_waits_for_one_evaluation_at_most_and_holds_up_others_for_one_at_most() {
    let mut scene = Scene::new(&H100);
    (0..8).for_each(|id| scene.add(job(id, id, 10)));
    (8..12).for_each(|id| scene.add(job(id, id, 40)));
    let mut ready_since: Option<f64> = None;
    let (mut side, mut longest_pause) = (0.0, 0.0f64);
    loop {
        let began = scene.now;
        let before = scene.drawn.len();
        let work = scene.turn();
        match work {
            Work::Idle => break,
            Work::Denoise(_) => side = 0.0,
            _ if scene.drawn.len() < 8 => {}
            _ => side += scene.now - began,
        }
        longest_pause = longest_pause.max(side);
        if scene.drawn.len() > before {
            ready_since = None;
        }
        let waits = scene.scheduler.inside.iter().any(|running| running.stage == Stage::Decode);
        ready_since = waits.then(|| ready_since.unwrap_or(scene.now));
        let waited = ready_since.map_or(0.0, |since| scene.now - since);
        assert!(
            waited < 2.0 * scene.device.seconds(Stage::Denoise, 4096, 12),
            "a decode was put off by {waited} s"
        );
    }
    let call = scene.device.seconds(Stage::Denoise, 4096, 12);
    assert!(
        longest_pause < call + scene.device.seconds(Stage::Decode, 4096, 1),
        "a pause of {longest_pause} s"
    );
}

#[test]
fn a_job_removed_in_the_middle_of_a_call_takes_no_further_row_and_the_others_go_on() {
    let mut scene = Scene::new(&H100);
    (0..3).for_each(|id| scene.add(job(id, id, 10)));
    (0..5).for_each(|_| drop(scene.turn()));
    assert_eq!(scene.next(), Work::Denoise(vec![JobId(0), JobId(1), JobId(2)]));
    assert!(scene.scheduler.remove(JobId(1)));
    assert!(!scene.scheduler.remove(JobId(1)));
    scene.scheduler.update(Duration::from_secs_f64(scene.now), Outcome::Done);
    assert_eq!(scene.next(), Work::Denoise(vec![JobId(0), JobId(2)]));
    scene.finish();
    assert!(scene.drawn_at(0).is_some() && scene.drawn_at(1).is_none() && scene.drawn_at(2).is_some());
}

#[test]
fn a_call_too_large_for_the_memory_is_tried_again_with_half_its_rows() {
    let mut scene = Scene::new(&H100);
    (0..40).for_each(|id| scene.add(job(id, id, 10)));
    let rows = |work: Work| if let Work::Denoise(ids) = work { ids.len() } else { 0 };
    for _ in 0..40 {
        if rows(scene.next()) < 12 {
            scene.turn();
        }
    }
    assert_eq!(rows(scene.next()), 12);
    scene.scheduler.update(Duration::from_secs_f64(scene.now), Outcome::TooLarge);
    assert_eq!(rows(scene.next()), 6);
    scene.finish();
    assert_eq!(scene.drawn.len(), 40);
}

#[test]
fn a_job_past_its_deadline_leaves_wherever_it_is() {
    let mut scene = Scene::new(&H100);
    let until = |seconds| Some(Duration::from_secs(seconds));
    scene.add(NewJob { deadline: until(5), ..job(0, 0, 1000) });
    scene.turn();
    scene.add(NewJob { deadline: until(3), ..job(1, 0, 1000) });
    assert_eq!(scene.scheduler.expire(Duration::from_secs(2)), []);
    assert_eq!(scene.scheduler.expire(Duration::from_secs(3)), [JobId(1)]);
    assert_eq!(scene.scheduler.expire(Duration::from_secs(9)), [JobId(0)]);
    assert!(scene.scheduler.is_empty());
}

#[test]
fn a_full_line_refuses_and_says_when_to_come_back_by_the_measured_rate() {
    let mut scene = Scene::new(&FLAT);
    for id in 0..LIMITS.queue as u64 {
        scene.add(job(id, id, 10));
    }
    (0..200).for_each(|_| drop(scene.turn()));
    let mut id = 5000;
    while scene.scheduler.room() > 0 {
        scene.add(job(id, id, 10));
        id += 1;
    }
    let refused = scene.scheduler.add(job(9999, 0, 10), Duration::from_secs_f64(scene.now)).unwrap_err();
    let ErrorKind::QueueFull { retry_after } = *refused.kind() else { panic!("{refused}") };
    let asked = scene.now;
    while scene.scheduler.room() == 0 {
        scene.turn();
    }
    let free = scene.now - asked;
    assert!(
        (f64::from(retry_after) - free).abs() <= 2.0,
        "told {retry_after} s, a place was free after {free} s"
    );
}

#[test]
fn a_draining_scheduler_takes_nothing_on_and_ends_what_is_inside() {
    let mut scene = Scene::new(&H100);
    (0..30).for_each(|id| scene.add(job(id, id, 10)));
    (0..20).for_each(|_| drop(scene.turn()));
    let inside = scene.scheduler.inside();
    let turned_away = scene.scheduler.drain();
    assert_eq!(turned_away.len() + inside + scene.drawn.len(), 30);
    let refused = scene.scheduler.add(job(99, 0, 1), Duration::ZERO).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unavailable);
    scene.finish();
    assert_eq!(scene.drawn.len() + turned_away.len(), 30);
    assert!(scene.scheduler.is_empty());
}

#[test]
fn a_plan_with_more_evaluations_than_announced_is_run_to_its_end() {
    let mut scene = Scene::new(&H100);
    scene.add(job(0, 0, 5));
    assert_eq!(scene.next(), Work::Encode(JobId(0)));
    scene.scheduler.set_evals(JobId(0), 9);
    scene.scheduler.update(Duration::ZERO, Outcome::Done);
    let evals = (0..100).take_while(|_| matches!(scene.turn(), Work::Denoise(_))).count();
    assert_eq!(evals, 9);
}
