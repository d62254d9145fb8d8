//! Samplers that look at one step alone, with one evaluation or two.

use super::super::rules::Rules;
use super::{Eval, Path};

/// `timestep_scaling` of diffusers' `LCMScheduler`.
const LCM_TIMESTEP_SCALING: f64 = 10.0;

/// `sigma_data` in `LCMScheduler.get_scalings_for_boundary_condition_discrete`.
const LCM_SIGMA_DATA: f64 = 0.5;

/// Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without its correction).
pub(super) fn euler(path: Path) -> Vec<Eval> {
    path.steps().map(|i| path.eval(i).toward(path.sigma(i + 1))).collect()
}

/// Euler to a lower noise level and fresh noise up to the next (k-diffusion's `sample_euler_ancestral`).
///
/// It is also the sampler of Ho et al. 2020 with the smaller of its two variances (`fixed_small`): in the
/// sigma parametrisation that posterior has the mean `x (s'/s)^2 + D (1 - (s'/s)^2)` and the variance of
/// [`split`].
pub(super) fn ancestral(path: Path) -> Vec<Eval> {
    let step = |i| {
        let (down, up) = split(path.sigma(i), path.sigma(i + 1));
        path.eval(i).toward(down).with_noise(up)
    };
    path.steps().map(step).collect()
}

/// DDIM with eta 0 (Song et al. 2021, equation 12), which is Euler's method but for two habits of diffusers'
/// `DDIMScheduler`: it ends a step `trained / steps` timesteps below, though the next may lie elsewhere, and
/// takes the result, in its unit variance, for that of the next; and with `set_alpha_to_one` false the last
/// step ends at timestep 0's noise.
pub(super) fn ddim(path: Path) -> Vec<Eval> {
    let step = |i| {
        let landing = path.schedule.landings()[i];
        let eval = path.eval(i).toward(landing);
        let rescale = path.sigma(i + 1).hypot(1.0) / landing.hypot(1.0);
        Eval { x: eval.x * rescale, denoised: eval.denoised * rescale, ..eval }
    };
    path.steps().map(step).collect()
}

/// Multistep consistency sampling (Luo et al. 2023, algorithm 3): the denoised estimate with fresh noise.
///
/// diffusers' `LCMScheduler` also mixes in the latents by the consistency model's boundary condition; ComfyUI
/// does not.
pub(super) fn lcm(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = path.eval(i);
        let (c_skip, c_out) = match path.schedule.rules() {
            Rules::Diffusers => lcm_boundary(eval.timestep),
            Rules::Comfy => (0.0, 1.0),
        };
        Eval { x: c_skip / eval.sigma.hypot(1.0), denoised: c_out, ..eval }.with_noise(path.sigma(i + 1))
    };
    path.steps().map(step).collect()
}

/// The parts of the unit-variance latents and of the denoised estimate in a consistency model's answer (Song
/// et al. 2023, appendix C).
fn lcm_boundary(timestep: f64) -> (f64, f64) {
    let time = timestep * LCM_TIMESTEP_SCALING;
    let total = time.hypot(LCM_SIGMA_DATA);
    ((LCM_SIGMA_DATA / total).powi(2), time / total)
}

/// Heun's method (Karras et al. 2022, algorithm 1); Euler's in the last step.
pub(super) fn heun(path: Path) -> Vec<Eval> {
    let step = |i| {
        let (from, to) = (path.sigma(i), path.sigma(i + 1));
        let first = path.eval(i).toward(to);
        if path.is_last(i) {
            return vec![first];
        }
        let half = 0.5 * (to - from);
        let second = Eval {
            x: to / from,
            denoised: -half / to,
            history: [half * (1.0 / to - 2.0 / from), 0.0, 0.0],
            ..path.eval(i + 1)
        };
        vec![first.as_probe(), Eval { step: i, ..second }]
    };
    path.steps().flat_map(step).collect()
}

/// DPM-Solver-2 in Karras' form: the derivative at the middle, in log sigma (k-diffusion's `sample_dpm_2`).
pub(super) fn dpm_2(path: Path) -> Vec<Eval> {
    path.steps().flat_map(|i| midpoint(path, i, path.sigma(i + 1))).collect()
}

/// [`dpm_2`] to a lower noise level, and fresh noise up to the next (k-diffusion's `sample_dpm_2_ancestral`).
pub(super) fn dpm_2_ancestral(path: Path) -> Vec<Eval> {
    let step = |i| {
        let (down, up) = split(path.sigma(i), path.sigma(i + 1));
        with_last_noise(midpoint(path, i, down), up)
    };
    path.steps().flat_map(step).collect()
}

/// Step `i` to the noise level `to` with the derivative at the middle.
fn midpoint(path: Path, i: usize, to: f64) -> Vec<Eval> {
    if path.is_last(i) {
        return vec![path.eval(i).toward(to)];
    }
    let from = path.sigma(i);
    let middle = (from * to).sqrt();
    let slope = (to - from) / middle;
    let second = Eval {
        x: to / from,
        denoised: -slope,
        history: [slope * (1.0 - middle / from), 0.0, 0.0],
        ..path.eval_inside(i, middle)
    };
    vec![path.eval(i).toward(middle).as_probe(), second]
}

/// DPM-Solver++(2S) (Lu et al. 2022, algorithm 1 with r = 1/2) to a lower noise level, and fresh noise up to
/// the next (k-diffusion's `sample_dpmpp_2s_ancestral`).
pub(super) fn dpmpp_2s_ancestral(path: Path) -> Vec<Eval> {
    let step = |i| {
        let (from, to) = (path.sigma(i), path.sigma(i + 1));
        if path.is_last(i) {
            return vec![path.eval(i).toward(to)];
        }
        let (down, up) = split(from, to);
        let middle = (from * down).sqrt();
        vec![path.eval(i).toward(middle).as_probe(), from_base(path.eval_inside(i, middle), from, down, up)]
    };
    path.steps().flat_map(step).collect()
}

/// Stochastic DPM-Solver++ with two evaluations (k-diffusion's `sample_dpmpp_sde`, eta 1, r = 1/2).
///
/// The noise of the probe is the part of the step's Brownian path down to the middle, with sigma for time, as
/// in k-diffusion's `BrownianTreeNoiseSampler`: the step's own noise holds that part and a fresh one for the
/// rest. diffusers and ComfyUI draw the path from `torchsde`'s tree with its own seed, so that no picture of
/// theirs can be met here.
pub(super) fn dpmpp_sde(path: Path) -> Vec<Eval> {
    let step = |i| {
        let (from, to) = (path.sigma(i), path.sigma(i + 1));
        if path.is_last(i) {
            return vec![path.eval(i).toward(to)];
        }
        let middle = (from * to).sqrt();
        let (down, up) = split(from, middle);
        let first = path.eval(i).toward(down).with_noise(up).as_probe();
        let (down, up) = split(from, to);
        let share = (from - middle) / (from - to);
        let fresh = up * (1.0 - share).sqrt();
        let second = from_base(path.eval_inside(i, middle), from, down, fresh);
        vec![first, Eval { held_noise: up * share.sqrt(), ..second }]
    };
    path.steps().flat_map(step).collect()
}

/// Moves from the step's base at the noise level `from` toward the denoised estimate of `eval`, to `down`,
/// and adds `up`.
fn from_base(eval: Eval, from: f64, down: f64, up: f64) -> Eval {
    Eval { x: down / from, denoised: 1.0 - down / from, ..eval }.with_noise(up)
}

/// The last evaluation of a step with fresh noise added.
fn with_last_noise(mut evals: Vec<Eval>, up: f64) -> Vec<Eval> {
    if let Some(last) = evals.last_mut() {
        last.noise = up;
    }
    evals
}

/// The noise level to go down to and the noise to add so that the variance is that of `to` and the whole step
/// that of the reverse SDE (k-diffusion's `get_ancestral_step`, eta 1).
fn split(from: f64, to: f64) -> (f64, f64) {
    let ratio = to / from;
    (to * ratio, to * (1.0 - ratio * ratio).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::super::names::{SamplerKind, ScheduleKind};
    use super::super::super::testing::{golden, list, planned};

    /// The part of the latents is below 1e-5, too small for the latents of a run to show.
    #[test]
    fn the_boundary_of_lcm_is_that_of_diffusers() {
        let (_, plan) = planned(SamplerKind::Lcm, ScheduleKind::Trailing, 50);
        for theirs in golden("lcm_boundary").as_array().expect("a list") {
            let [timestep, c_skip, c_out] = list(theirs)[..] else { panic!("three numbers") };
            let eval =
                plan.evals.iter().find(|eval| eval.timestep == timestep).expect("one of LCM's timesteps");
            assert!(
                (eval.x * (1.0 + eval.sigma * eval.sigma).sqrt() / c_skip - 1.0).abs() < 1e-10,
                "{timestep}"
            );
            assert!((eval.denoised - c_out).abs() < 1e-11, "{timestep}");
        }
    }

    #[test]
    fn only_diffusers_lcm_mixes_in_the_latents() {
        let (_, plan) = planned(SamplerKind::Lcm, ScheduleKind::SgmUniform, 4);
        assert!(plan.evals.iter().all(|eval| eval.x == 0.0 && eval.denoised == 1.0));
    }
}
