//! Compares ways to share one device, with a virtual clock: `cargo bench --bench simulator`.
//!
//! Prints the tables of `docs/scheduling.md`. The step-level policy is the scheduler of the library itself; the others
//! are what servers do that know requests alone.

mod device;
mod policies;
mod report;
mod traffic;

use device::{CPU, Device, H200};
use policies::Policy;
use traffic::{Mix, Traffic};

/// Requests in each run.
const REQUESTS: usize = 4000;
/// Load as a share of what one request at a time can do at most.
const LOADS: [f64; 5] = [0.5, 0.8, 0.95, 1.2, 1.4];
/// What the random traffic begins with. The detailed tables show the first, on which the policy's constants were chosen.
const SEEDS: [u64; 5] = [0x5eed, 1, 2, 3, 4];

const CASES: [(&Device, Mix); 5] =
    [(&H200, Mix::SMALL), (&H200, Mix::MIXED), (&H200, Mix::EVEN), (&H200, Mix::LARGE), (&CPU, Mix::MIXED)];

fn main() {
    println!("\n### Step-level against the others, least and most of {} runs\n", SEEDS.len());
    report::ratios_head();
    for (device, mix) in CASES {
        ratios(device, mix);
    }
    for (device, mix) in CASES {
        compare(device, mix);
    }
}

fn loads() -> impl Iterator<Item = Option<f64>> {
    LOADS.into_iter().map(Some).chain([None])
}

/// Prints what step-level is to the other policies, whatever the seed.
fn ratios(device: &Device, mix: Mix) {
    for load in loads() {
        let runs = SEEDS.map(|seed| {
            let requests = Traffic { device, mix, requests: REQUESTS, seed, load }.requests();
            Policy::ALL.map(|policy| policies::run(policy, device, &requests))
        });
        report::ratios(&format!("{}, {}", device.name, mix.name), load, &runs);
    }
}

fn compare(device: &Device, mix: Mix) {
    println!("\n### {}, {}\n", device.name, mix.name);
    report::head();
    for load in loads() {
        let requests = Traffic { device, mix, requests: REQUESTS, seed: SEEDS[0], load }.requests();
        for policy in Policy::ALL {
            report::line(load, policy.name(), &policies::run(policy, device, &requests));
        }
    }
}
