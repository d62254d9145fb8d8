//! The timesteps of each schedule, largest first, before they become sigmas.
//!
//! diffusers' rules are those of `set_timesteps` in `scheduling_euler_discrete.py`, `scheduling_ddim.py`,
//! `scheduling_dpmsolver_multistep.py` and `scheduling_lcm.py`; ComfyUI's those of `comfy/samplers.py`.

use super::names::ScheduleKind;
use super::quantile::beta_quantile;
use super::rules::Family;

/// The number of timesteps that latent consistency models were distilled on; `original_inference_steps`.
const LCM_STEPS: usize = 50;

/// What a spacing is asked for: `steps` timesteps out of `trained`, with 1 <= steps; both counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) steps: usize,
    pub(super) trained: usize,
}

impl Count {
    fn last(self) -> f64 {
        (self.trained - 1) as f64
    }
}

/// diffusers' timesteps of a spacing. `offset` (`steps_offset`) counts for `leading` alone.
///
/// Where diffusers' rule leaves the table or repeats a timestep (only at about one step per training
/// timestep), the timesteps are spread evenly between the first and the last.
pub(super) fn diffusers(family: Family, spacing: ScheduleKind, count: Count, offset: usize) -> Vec<f64> {
    let timesteps = match (family, spacing) {
        (Family::Lcm, _) => lcm(count),
        (_, ScheduleKind::Leading) => leading(family, count, offset),
        (_, ScheduleKind::Trailing) => trailing(count),
        (Family::Multistep, _) => {
            let longer = numpy_linspace(Count { steps: count.steps + 1, ..count });
            longer[..count.steps].iter().map(|t| t.round_ties_even()).collect()
        }
        (Family::Discrete, _) => numpy_linspace(count).iter().map(|t| t.round_ties_even()).collect(),
        (Family::Sigma, _) => numpy_linspace(count),
    };
    spread_if_repeated(timesteps)
}

/// Multiples of a whole stride, from `offset` up. The multistep schedulers leave out the first of one more.
fn leading(family: Family, count: Count, offset: usize) -> Vec<f64> {
    let skipped = usize::from(family == Family::Multistep && count.steps < count.trained);
    let stride = count.trained / (count.steps + skipped);
    let timestep = |i: usize| ((i + skipped) * stride + offset).min(count.trained - 1) as f64;
    (0..count.steps).rev().map(timestep).collect()
}

/// Steps of `trained / steps` down from the end, rounded, less one. The stride is taken as `numpy.arange`
/// takes it, by a difference: that decides which way ties round.
fn trailing(count: Count) -> Vec<f64> {
    let start = count.trained as f64;
    let stride = (start - start / count.steps as f64) - start;
    (0..count.steps).map(|i| (start + i as f64 * stride).round_ties_even() - 1.0).collect()
}

/// `numpy.linspace(0, last, steps)` reversed, counted from 0 up as numpy does, which decides which way ties
/// round. A single step is timestep 0, as in diffusers.
fn numpy_linspace(count: Count) -> Vec<f64> {
    let mut timesteps = linspace(0.0, count.last(), count.steps);
    timesteps.reverse();
    timesteps
}

/// Every so many of LCM's own timesteps (19, 39 .. 999 of 1000). With more than 50 steps, which diffusers
/// refuses, the grid would be too coarse: its continuation `trailing` is used.
fn lcm(count: Count) -> Vec<f64> {
    let own = LCM_STEPS.min(count.trained);
    if count.steps > own {
        return trailing(count);
    }
    let stride = own as f64 / count.steps as f64;
    let index = |i: usize| own - (i as f64 * stride).floor() as usize;
    (0..count.steps).map(|i| (index(i) * (count.trained / own)) as f64 - 1.0).collect()
}

/// ComfyUI's timesteps of a schedule; for `karras` and `exponential`, which are made of sigmas, those of
/// `normal`.
///
/// Where ComfyUI would give more or fewer steps than asked (`ddim_uniform` when the stride does not divide,
/// `beta` when quantiles fall on one timestep), the steps asked for stay: `ddim_uniform` is spread evenly
/// between its ends and `beta` leaves its timesteps unrounded.
pub(super) fn comfy(schedule: ScheduleKind, count: Count) -> Vec<f64> {
    let Count { steps, trained } = count;
    let timesteps = match schedule {
        ScheduleKind::SgmUniform => linspace(count.last(), 0.0, steps + 1)[..steps].to_vec(),
        ScheduleKind::Simple => {
            let stride = trained as f64 / steps as f64;
            (0..steps).map(|i| count.last() - (i as f64 * stride).floor()).collect()
        }
        ScheduleKind::DdimUniform => ddim_uniform(count),
        ScheduleKind::Beta => beta(count),
        _ => linspace(count.last(), 0.0, steps),
    };
    spread_if_repeated(timesteps)
}

fn ddim_uniform(count: Count) -> Vec<f64> {
    let stride = (count.trained / count.steps).max(1);
    let up: Vec<f64> = (1..count.trained).step_by(stride).map(|t| t as f64).collect();
    if up.len() == count.steps {
        return up.into_iter().rev().collect();
    }
    linspace(up[up.len() - 1], 1.0, count.steps)
}

fn beta(count: Count) -> Vec<f64> {
    let stride = 1.0 / count.steps as f64;
    let exact: Vec<f64> =
        (0..count.steps).map(|i| beta_quantile(1.0 - i as f64 * stride) * count.last()).collect();
    let whole: Vec<f64> = exact.iter().map(|t| t.round_ties_even()).collect();
    if descends(&whole) { whole } else { exact }
}

/// `count` numbers equally spaced from `start` to `end`, both included; one number is `start`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let stride = (end - start) / (count.max(2) - 1) as f64;
    (0..count).map(|i| if i > 0 && i + 1 == count { end } else { i as f64 * stride + start }).collect()
}

fn descends(timesteps: &[f64]) -> bool {
    timesteps.is_sorted_by(|before, after| before > after)
}

fn spread_if_repeated(timesteps: Vec<f64>) -> Vec<f64> {
    if descends(&timesteps) {
        return timesteps;
    }
    linspace(timesteps[0], timesteps[timesteps.len() - 1], timesteps.len())
}

#[cfg(test)]
mod tests {
    use super::super::names::SamplerKind;
    use super::super::testing::{golden, list, text};
    use super::*;

    #[test]
    fn the_spacings_of_diffusers_hold_for_every_number_of_steps() {
        for theirs in golden("spacings").as_array().expect("a list") {
            let (sampler, kind) = (text(&theirs["sampler"]), text(&theirs["schedule"]));
            for (steps, checksum) in (1..).zip(list(&theirs["checksums"])) {
                if steps == 999 && sampler == SamplerKind::DpmPp2m && kind == ScheduleKind::Leading {
                    continue; // diffusers leaves the table here, for timestep 1000
                }
                let count = Count { steps, trained: 1000 };
                let timesteps = diffusers(Family::of(sampler), kind, count, 1);
                let ours: f64 = timesteps.iter().enumerate().map(|(i, t)| (i + 1) as f64 * t).sum();
                let slack =
                    if kind == ScheduleKind::Linspace && sampler == SamplerKind::Euler { 1e-7 } else { 0.0 };
                assert!(
                    (ours - checksum).abs() <= 1e-3 + slack * checksum,
                    "{sampler} {kind} {steps}: {ours} {checksum}"
                );
            }
        }
    }

    #[test]
    fn lcm_goes_on_past_its_own_fifty_timesteps() {
        let count = |steps| Count { steps, trained: 1000 };
        let own = diffusers(Family::Lcm, ScheduleKind::Leading, count(50), 1);
        assert_eq!((own[0], own[49]), (999.0, 19.0));
        assert_eq!(diffusers(Family::Lcm, ScheduleKind::Leading, count(60), 1), trailing(count(60)));
        let short = Count { steps: 5, trained: 20 };
        assert_eq!(diffusers(Family::Lcm, ScheduleKind::Leading, short, 1), [19.0, 15.0, 11.0, 7.0, 3.0]);
    }
}
