//! The policies that are compared.

use crate::device::{Device, LARGE};
use crate::traffic::Request;
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

/// What came of a run.
#[derive(Debug, Default)]
pub struct Run {
    /// Seconds from arrival to picture, for each picture that somebody waited for.
    pub latencies: Vec<f64>,
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
    fn finish(&mut self, request: &Request, now: f64) {
        self.end = now;
        if request.gone > now {
            self.latencies.push(now - request.arrival);
        }
    }
}

/// Serves `requests`, which come in the order of their arrival.
pub fn run(policy: Policy, device: &Device, requests: &[Request]) -> Run {
    match policy {
        Policy::StepLevel => step_level(device, requests),
        _ => request_level(policy, device, requests),
    }
}

/// Serves whole requests: one, or a batch of equal ones.
fn request_level(policy: Policy, device: &Device, requests: &[Request]) -> Run {
    let mut run = Run::default();
    let mut waiting: Vec<&Request> = Vec::new();
    let mut arrivals = requests.iter().peekable();
    let mut now = 0.0;
    loop {
        while let Some(request) = arrivals.next_if(|request| request.arrival <= now) {
            waiting.push(request);
        }
        waiting.retain(|request| request.gone > now);
        let Some(first) = lead(policy, device, &waiting) else {
            let Some(next) = arrivals.peek() else { return run };
            now = next.arrival;
            continue;
        };
        let most = if policy == Policy::Static { (device.rows / first.rows) as usize } else { 1 };
        let batch = take_equal(&mut waiting, first, most);
        serve(device, &batch, &mut now, &mut run);
    }
}

/// The request that is served next.
fn lead<'a>(policy: Policy, device: &Device, waiting: &[&'a Request]) -> Option<&'a Request> {
    if policy != Policy::Shortest {
        return waiting.first().copied();
    }
    waiting.iter().copied().min_by(|a, b| a.alone(device).total_cmp(&b.alone(device)))
}

/// Takes `first` and equal requests out, the oldest first, at most `most`.
fn take_equal<'a>(waiting: &mut Vec<&'a Request>, first: &'a Request, most: usize) -> Vec<&'a Request> {
    let key = |request: &Request| (request.area, request.rows, request.evals);
    let mut batch = vec![first];
    waiting.retain(|request| {
        let same = std::ptr::eq(*request, first);
        let joins = !same && batch.len() < most && key(request) == key(first);
        if joins {
            batch.push(request);
        }
        !same && !joins
    });
    batch
}

/// Runs a batch to its end. It ends early only when all its clients have gone.
fn serve(device: &Device, batch: &[&Request], now: &mut f64, run: &mut Run) {
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
        run.finish(request, *now);
    }
}

/// Lets the scheduler say what the device does.
fn step_level(device: &Device, requests: &[Request]) -> Run {
    let limits = Limits { queue: requests.len(), inside: 2 * device.rows as usize, rows: device.rows };
    let mut scheduler = Scheduler::new(limits, device.costs());
    let mut run = Run::default();
    let mut arrivals = requests.iter().enumerate().peekable();
    let mut hang_ups: Vec<(f64, usize)> = requests
        .iter()
        .enumerate()
        .map(|(id, request)| (request.gone, id))
        .filter(|(gone, _)| gone.is_finite())
        .collect();
    hang_ups.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut now = 0.0;
    loop {
        while let Some((id, request)) = arrivals.next_if(|(_, request)| request.arrival <= now) {
            let added = scheduler.add(job(id, request), Duration::from_secs_f64(request.arrival));
            added.expect("the queue holds all requests");
        }
        while let Some((_, id)) = hang_ups.pop_if(|(gone, _)| *gone <= now) {
            scheduler.remove(JobId(id as u64));
        }
        let work = scheduler.schedule(Duration::from_secs_f64(now));
        if work == Work::Idle {
            let Some((_, next)) = arrivals.peek() else { return run };
            now = next.arrival;
            continue;
        }
        now += execute(device, requests, &work, &mut run, now);
        scheduler.update(Duration::from_secs_f64(now), Outcome::Done);
    }
}

/// Counts a piece of work and says how many seconds it takes.
fn execute(device: &Device, requests: &[Request], work: &Work, run: &mut Run, now: f64) -> f64 {
    let request = |id: &JobId| &requests[id.0 as usize];
    match work {
        Work::Encode(id) => device.seconds(Stage::Encode, request(id).area, 1),
        Work::Decode(id) => {
            let taken = device.seconds(Stage::Decode, request(id).area, 1);
            run.finish(request(id), now + taken);
            taken
        }
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
        deadline: None,
    }
}
