//! What the tests of this module share: the golden file, and a plain executor of plans.

use super::ddpm::{NoiseTable, TrainingSpec};
use super::names::{SamplerKind, ScheduleKind};
use super::plans::{Eval, Plan, plan};
use super::schedule::{Schedule, SpacingOptions};

pub(super) type Json = serde_json::Value;

/// `tests/fixtures/sampler/sampler_golden.json`, made by the script beside it.
pub(super) fn golden(part: &str) -> Json {
    let text = include_str!("../../tests/fixtures/sampler/sampler_golden.json");
    let mut golden: Json = serde_json::from_str(text).expect("the golden file is JSON");
    golden[part].take()
}

pub(super) fn list(value: &Json) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

pub(super) fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Json) -> T {
    value.as_str().expect("a name").parse().expect("a known name")
}

pub(super) fn count(value: &Json) -> usize {
    usize::try_from(value.as_u64().expect("a count")).expect("a small count")
}

/// The largest difference between two lists, relative to the largest number in the second.
pub(super) fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    ours.iter().zip(theirs).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()))
        / largest.max(f64::MIN_POSITIVE)
}

pub(super) fn sdxl() -> NoiseTable {
    NoiseTable::new(&TrainingSpec::default()).expect("SDXL's training is sound")
}

/// The schedule and plan of a pair on SDXL's table with SDXL's options.
pub(super) fn planned(sampler: SamplerKind, kind: ScheduleKind, steps: usize) -> (Schedule, Plan) {
    let table = sdxl();
    let schedule =
        Schedule::new(sampler, kind, steps, &table, &SpacingOptions::default()).expect("steps in range");
    let plan = plan(&schedule, &table);
    (schedule, plan)
}

/// The plain meaning of a plan: runs it on a small vector. `denoise` gets the input of each evaluation,
/// `draw` the number of the draw from 1.
pub(super) fn execute(
    plan: &Plan,
    start: Vec<f64>,
    mut denoise: impl FnMut(&[f64], &Eval) -> Vec<f64>,
    mut draw: impl FnMut(usize) -> Vec<f64>,
) -> Vec<f64> {
    let (mut base, mut input) = (start.clone(), start);
    let mut kept: Vec<Vec<f64>> = Vec::new();
    let mut held = vec![0.0; base.len()];
    let mut drawn = 0;
    for eval in &plan.evals {
        let denoised = denoise(&input, eval);
        let mut fresh = vec![0.0; base.len()];
        if eval.draws() {
            drawn += 1;
            fresh = draw(drawn);
        }
        let next = |j: usize| {
            let past: f64 = eval.history.iter().zip(&kept).map(|(c, k)| c * k[j]).sum();
            eval.x * base[j]
                + eval.denoised * denoised[j]
                + past
                + eval.noise * fresh[j]
                + eval.held_noise * held[j]
        };
        let next: Vec<f64> = (0..base.len()).map(next).collect();
        let keep = |j: usize| eval.keep_x * input[j] + eval.keep_denoised * denoised[j];
        kept.insert(0, (0..base.len()).map(keep).collect());
        held = fresh;
        if eval.commit {
            base.clone_from(&next);
        }
        input = next;
    }
    input
}
