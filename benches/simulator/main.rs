//! Compares ways to share one device, with a virtual clock: `cargo bench --bench simulator`.
//!
//! Prints the tables of `docs/scheduling.md`. The step-level policy is the scheduler of the library itself; the others
//! are what servers do that know requests alone.

mod device;
mod policies;
mod report;
mod traffic;

use device::{CPU, Device, H100};
use policies::Policy;
use traffic::{Clients, Mix, Traffic};

/// Requests in each run.
const REQUESTS: usize = 4000;
/// Load as a share of what one request at a time can do at most.
const LOADS: [f64; 5] = [0.5, 0.8, 0.95, 1.2, 1.4];
/// What the random traffic begins with. The detailed tables show the first, on which the policy's constants were chosen.
const SEEDS: [u64; 5] = [0x5eed, 1, 2, 3, 4];

const CASES: [(&Device, Mix); 5] =
    [(&H100, Mix::SMALL), (&H100, Mix::MIXED), (&H100, Mix::EVEN), (&H100, Mix::LARGE), (&CPU, Mix::MIXED)];

/// How many clients of an H100 ask anew as soon as they have their picture.
const CLIENTS: [u64; 4] = [2, 4, 8, 12];
/// Seconds that lie in between: see [`Clients::pause`].
const PAUSE: f64 = 0.05;
/// The bounds of the times at which their answers are counted, in seconds.
const TIMES: [f64; 4] = [0.0, 30.0, 90.0, 600.0];

fn main() {
    println!("\n### Step-level against the others, least and most of {} runs\n", SEEDS.len());
    report::ratios_head();
    for (device, mix) in CASES {
        ratios(device, mix);
    }
    for (device, mix) in CASES {
        compare(device, mix);
    }
    println!("\n### {}, clients that do not cease\n", H100.name);
    report::rates_head(&TIMES);
    for count in CLIENTS {
        unceasing(count);
    }
}

fn loads() -> impl Iterator<Item = Option<f64>> {
    LOADS.into_iter().map(Some).chain([None])
}

/// Prints what step-level is to the other policies, whatever the seed.
fn ratios(device: &Device, mix: Mix) {
    for load in loads() {
        let runs = SEEDS.map(|seed| {
            let arrivals = Traffic { device, mix, requests: REQUESTS, seed, load }.arrivals();
            Policy::ALL.map(|policy| policies::run(policy, device, arrivals.clone()))
        });
        report::ratios(&format!("{}, {}", device.name, mix.name), load, &runs);
    }
}

fn compare(device: &Device, mix: Mix) {
    println!("\n### {}, {}\n", device.name, mix.name);
    report::head();
    for load in loads() {
        let arrivals = Traffic { device, mix, requests: REQUESTS, seed: SEEDS[0], load }.arrivals();
        for policy in Policy::ALL {
            report::line(load, policy.name(), &policies::run(policy, device, arrivals.clone()));
        }
    }
}

/// Prints what clients get who ask for the same picture again and again.
fn unceasing(count: u64) {
    for policy in Policy::ALL {
        let clients = Clients { count, pause: PAUSE, until: TIMES[TIMES.len() - 1] };
        report::rates(count, policy.name(), &policies::run(policy, &H100, clients.arrivals()), &TIMES);
    }
}
