//! The policies that are compared.

use crate::device::{Device, LARGE};
use crate::traffic::{Arrivals, Request};
use easel::scheduler::{CallerId, GroupKey, JobId, Limits, NewJob, Outcome, Scheduler, Stage, Work};
use std::time::Duration;

/// A way to share the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// One request at a time, the oldest first.
    Fifo,
    /// One request at a time, the shortest first.
    Shortest,
    /// Requests of equal size, steps and guidance share all their calls; the oldest leads.
    Static,
    /// The scheduler of this library.
    StepLevel,
}

impl Policy {
    /// In the order of the table.
    pub const ALL: [Self; 4] = [Self::Fifo, Self::Shortest, Self::Static, Self::StepLevel];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "one at a time, first come",
            Self::Shortest => "one at a time, shortest",
            Self::Static => "static batches",
            Self::StepLevel => "step-level",
        }
    }
}

/// A picture that was drawn.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// When it was done.
    pub at: f64,
    /// Seconds since it was asked for.
    pub taken: f64,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Run {
    /// Each picture that somebody waited for.
    pub pictures: Vec<Picture>,
    /// When the last picture was done.
    pub end: f64,
    /// UNet calls.
    pub calls: u64,
    /// Their rows.
    pub rows: u64,
    /// Rows for clients that had gone.
    pub wasted: u64,
}

impl Run {
    /// Counts a picture that was drawn at `now`, and lets its client know.
    fn finish(&mut self, request: &Request, now: f64, arrivals: &mut Arrivals) {
        self.end = now;
        arrivals.drawn(request, now);
        if request.gone > now {
            self.pictures.push(Picture { at: now, taken: now - request.arrival });
        }
    }
}

/// Serves what arrives.
pub fn run(policy: Policy, device: &Device, arrivals: Arrivals) -> Run {
    match policy {
        Policy::StepLevel => step_level(device, arrivals),
        _ => request_level(policy, device, arrivals),
    }
}

/// Serves whole requests: one, or a batch of equal ones.
fn request_level(policy: Policy, device: &Device, mut arrivals: Arrivals) -> Run {
    let mut run = Run::default();
    let mut waiting: Vec<Request> = Vec::new();
    let mut now = 0.0;
    loop {
        while let Some(request) = arrivals.come(now) {
            waiting.push(request);
        }
        waiting.retain(|request| request.gone > now);
        let Some(first) = lead(policy, device, &waiting) else {
            let Some(next) = arrivals.next() else { return run };
            now = next;
            continue;
        };
        let rows = waiting[first].rows;
        let most = if policy == Policy::Static { (device.rows / rows) as usize } else { 1 };
        let batch = take_equal(&mut waiting, first, most);
        serve(device, &batch, &mut now, &mut run, &mut arrivals);
    }
}

/// Which request is served next.
fn lead(policy: Policy, device: &Device, waiting: &[Request]) -> Option<usize> {
    if policy != Policy::Shortest {
        return (!waiting.is_empty()).then_some(0);
    }
    (0..waiting.len()).min_by(|a, b| waiting[*a].alone(device).total_cmp(&waiting[*b].alone(device)))
}

/// Takes the request at `first` and equal ones out, the oldest first, at most `most`.
fn take_equal(waiting: &mut Vec<Request>, first: usize, most: usize) -> Vec<Request> {
    let key = |request: &Request| (request.area, request.rows, request.evals);
    let mut batch = vec![waiting.remove(first)];
    waiting.retain(|request| {
        let joins = batch.len() < most && key(request) == key(&batch[0]);
        if joins {
            batch.push(*request);
        }
        !joins
    });
    batch
}

/// Runs a batch to its end. It ends early only when all its clients have gone.
fn serve(device: &Device, batch: &[Request], now: &mut f64, run: &mut Run, arrivals: &mut Arrivals) {
    let first = batch[0];
    *now += batch.len() as f64 * device.seconds(Stage::Encode, first.area, 1);
    let rows = batch.len() as u32 * first.rows;
    for _ in 0..first.evals {
        let gone = batch.iter().filter(|request| request.gone <= *now).count();
        if gone == batch.len() {
            return;
        }
        run.calls += 1;
        run.rows += u64::from(rows);
        run.wasted += gone as u64 * u64::from(first.rows);
        *now += device.seconds(Stage::Denoise, first.area, rows);
    }
    for request in batch.iter().filter(|request| request.gone > *now).collect::<Vec<_>>() {
        *now += device.seconds(Stage::Decode, first.area, 1);
        run.finish(request, *now, arrivals);
    }
}

/// Lets the scheduler say what the device does.
fn step_level(device: &Device, mut arrivals: Arrivals) -> Run {
    let limits = Limits { queue: arrivals.len(), inside: 2 * device.rows as usize, rows: device.rows };
    let mut scheduler = Scheduler::new(limits, device.costs());
    let mut run = Run::default();
    let mut requests: Vec<Request> = Vec::new();
    let mut now = 0.0;
    loop {
        while let Some(request) = arrivals.come(now) {
            let added = scheduler.add(job(requests.len(), &request), at(request.arrival));
            added.expect("the queue holds all requests");
            requests.push(request);
        }
        scheduler.expire(at(now));
        let work = scheduler.schedule(at(now));
        if work == Work::Idle {
            let Some(next) = arrivals.next() else { return run };
            now = next;
            continue;
        }
        now += execute(device, &requests, &work, &mut run, now);
        scheduler.update(at(now), Outcome::Done);
        if let Work::Decode(id) = &work {
            run.finish(&requests[id.0 as usize], now, &mut arrivals);
        }
    }
}

/// Counts the rows of a piece of work and says how many seconds it takes.
fn execute(device: &Device, requests: &[Request], work: &Work, run: &mut Run, now: f64) -> f64 {
    let request = |id: &JobId| &requests[id.0 as usize];
    match work {
        Work::Encode(id) => device.seconds(Stage::Encode, request(id).area, 1),
        Work::Decode(id) => device.seconds(Stage::Decode, request(id).area, 1),
        Work::Denoise(ids) => {
            let rows: u32 = ids.iter().map(|id| request(id).rows).sum();
            run.calls += 1;
            run.rows += u64::from(rows);
            run.wasted +=
                ids.iter().map(request).filter(|r| r.gone <= now).map(|r| u64::from(r.rows)).sum::<u64>();
            device.seconds(Stage::Denoise, request(&ids[0]).area, rows)
        }
        Work::Idle => 0.0,
    }
}

fn job(id: usize, request: &Request) -> NewJob {
    let side = if request.area == LARGE { 128 } else { 64 };
    NewJob {
        id: JobId(id as u64),
        caller: CallerId(request.caller),
        group: GroupKey { height: side, width: side, chunks: 1, adapters: 0 },
        guided: request.rows == 2,
        evals: request.evals,
        deadline: request.gone.is_finite().then(|| at(request.gone)),
    }
}

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
