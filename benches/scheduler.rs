//! The time of one turn of the scheduler with ten thousand jobs waiting: `cargo bench --bench scheduler`.

use criterion::Criterion;
use easel::scheduler::{CallerId, Costs, GroupKey, JobId, Limits, NewJob, Outcome, Scheduler, Stage, Work};
use std::hint::black_box;
use std::time::Duration;

const WAITING: u64 = 10_000;
const LIMITS: Limits = Limits { queue: 2 * WAITING as usize, inside: 64, rows: 32 };

/// Whom the jobs are for and what sizes they have.
#[derive(Clone, Copy)]
enum Crowd {
    OneCaller,
    ManyCallers,
    /// Each caller asks for a size of its own, so nothing can be shared.
    ManySizes,
}

fn costs() -> Costs {
    let mut costs = Costs::default();
    for rows in [1, 2, 4, 8, 16, 32] {
        let taken = Duration::from_micros(20_000 + 6_000 * u64::from(rows));
        costs.measured(Stage::Denoise, (4096, rows), taken);
    }
    costs
}

fn job(id: u64, crowd: Crowd) -> NewJob {
    let (caller, side) = match crowd {
        Crowd::OneCaller => (0, 64),
        Crowd::ManyCallers => (id, 64 + 64 * (id % 2)),
        Crowd::ManySizes => (id, 8 + id % 500),
    };
    let group = GroupKey { height: 64, width: side as u32, chunks: 1, adapters: id % 3 };
    let evals = 4 + (id * 7 % 47) as u32;
    NewJob {
        id: JobId(id),
        caller: CallerId(caller),
        group,
        guided: id.is_multiple_of(2),
        evals,
        deadline: None,
    }
}

/// A scheduler in the midst of its work: the line full, and as many inside as it wants.
struct Bench {
    scheduler: Scheduler,
    crowd: Crowd,
    next: u64,
    now: Duration,
}

impl Bench {
    fn new(crowd: Crowd) -> Self {
        let mut bench =
            Self { scheduler: Scheduler::new(LIMITS, costs()), crowd, next: 0, now: Duration::ZERO };
        bench.fill();
        for _ in 0..200 {
            bench.turn();
        }
        bench
    }

    fn fill(&mut self) {
        while self.scheduler.waiting() < WAITING as usize {
            self.scheduler.add(job(self.next, self.crowd), self.now).expect("there is room");
            self.next += 1;
        }
    }

    fn turn(&mut self) -> Work {
        let work = self.scheduler.schedule(self.now);
        self.now += Duration::from_millis(30);
        self.scheduler.update(self.now, Outcome::Done);
        self.fill();
        work
    }
}

fn turns(criterion: &mut Criterion) {
    let crowds = [
        ("one caller", Crowd::OneCaller),
        ("10000 callers", Crowd::ManyCallers),
        ("500 sizes", Crowd::ManySizes),
    ];
    for (name, crowd) in crowds {
        let mut bench = Bench::new(crowd);
        let now = bench.now;
        criterion.bench_function(&format!("schedule, {name}"), |b| {
            b.iter(|| black_box(bench.scheduler.schedule(black_box(now))));
        });
        let mut bench = Bench::new(crowd);
        criterion.bench_function(&format!("schedule, update and add, {name}"), |b| {
            b.iter(|| black_box(bench.turn()));
        });
        let last = JobId(bench.next - 1);
        criterion
            .bench_function(&format!("place, {name}"), |b| b.iter(|| black_box(bench.scheduler.place(last))));
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    turns(&mut criterion);
    criterion.final_summary();
}
