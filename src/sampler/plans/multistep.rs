//! Samplers that look back at earlier evaluations.

use super::super::rules::Rules;
use super::{Eval, HISTORY, Path};

/// Linear multistep: the integral of the polynomial through the newest four derivatives (k-diffusion's
/// `sample_lms`, diffusers' `LMSDiscreteScheduler`). It keeps the derivatives `(x - D) / sigma`.
///
/// diffusers goes on to sigma 0 by the same rule; ComfyUI takes the denoised estimate in the last step. When
/// diffusers starts inside its schedule (strength), it weighs the first derivatives as if those of the
/// skipped steps were there; here the order grows from 1 as at any start.
pub(super) fn lms(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = path.eval(i);
        let keep = Eval { keep_x: 1.0 / eval.sigma, keep_denoised: -1.0 / eval.sigma, ..eval };
        if path.is_last(i) && path.schedule.rules() == Rules::Comfy {
            return keep.toward(0.0);
        }
        let order = (i + 1).min(HISTORY + 1);
        let nodes: Vec<f64> = (0..order).map(|k| path.sigma(i - k)).collect();
        let weight = |k| lagrange_integral(&nodes, k, path.sigma(i + 1));
        let newest = weight(0) / eval.sigma;
        let mut history = [0.0; HISTORY];
        for k in 1..order {
            history[k - 1] = weight(k);
        }
        Eval { x: 1.0 + newest, denoised: -newest, history, ..keep }
    };
    path.steps().map(step).collect()
}

/// The integral from `nodes[0]` to `end` of the polynomial that is 1 at `nodes[k]` and 0 at the other nodes.
/// Two-point Gauss-Legendre is exact for it: four nodes make a cubic.
fn lagrange_integral(nodes: &[f64], k: usize, end: f64) -> f64 {
    let start = nodes[0];
    let half = 0.5 * (end - start);
    let polynomial = |at: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|&(j, _)| j != k);
        others.map(|(_, node)| (at - node) / (nodes[k] - node)).product()
    };
    let offset = half / 3_f64.sqrt();
    half * (polynomial(start + half - offset) + polynomial(start + half + offset))
}

/// DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): k-diffusion's `sample_dpmpp_2m`, diffusers'
/// `DPMSolverMultistepScheduler` of order 2, `midpoint`, `final_sigmas_type="zero"`. The last step is of
/// first order in both.
pub(super) fn dpmpp_2m(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = path.eval(i).toward(path.sigma(i + 1));
        if i == 0 || path.is_last(i) {
            return eval;
        }
        let (newest, previous) = extrapolate(path, i, 0.5 * eval.denoised);
        Eval { denoised: eval.denoised + newest, history: [previous, 0.0, 0.0], ..eval }
    };
    path.steps().map(step).collect()
}

/// The stochastic DPM-Solver++(2M) (Lu et al. 2022, equation 18; eta 1, `midpoint`): k-diffusion's
/// `sample_dpmpp_2m_sde`, diffusers' `algorithm_type="sde-dpmsolver++"`.
pub(super) fn dpmpp_2m_sde(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = reverse_sde(path, i);
        if i == 0 || path.is_last(i) {
            return eval;
        }
        let (newest, previous) = extrapolate(path, i, 0.5 * eval.denoised);
        Eval { denoised: eval.denoised + newest, history: [previous, 0.0, 0.0], ..eval }
    };
    path.steps().map(step).collect()
}

/// The stochastic DPM-Solver++(3M) (k-diffusion's `sample_dpmpp_3m_sde`, eta 1).
///
/// diffusers' `sde-dpmsolver++` of order 3 is not this: its third-order term has the wrong sign of one half
/// and does not vanish with the step.
pub(super) fn dpmpp_3m_sde(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = reverse_sde(path, i);
        if i == 0 || path.is_last(i) {
            return eval;
        }
        let h = path.lambda(i + 1) - path.lambda(i);
        let phi_2 = (-2.0 * h).exp_m1() / (2.0 * h) + 1.0;
        let (newest, previous) = extrapolate(path, i, phi_2);
        if i == 1 {
            return Eval { denoised: eval.denoised + newest, history: [previous, 0.0, 0.0], ..eval };
        }
        let phi_3 = phi_2 / (2.0 * h) - 0.5;
        let r0 = (path.lambda(i) - path.lambda(i - 1)) / h;
        let r1 = (path.lambda(i - 1) - path.lambda(i - 2)) / h;
        let bend = (phi_2 * r0 - phi_3) / (r0 + r1);
        let history = [previous - bend / r0 - bend / r1, bend / r1, 0.0];
        Eval { denoised: eval.denoised + newest + bend / r0, history, ..eval }
    };
    path.steps().map(step).collect()
}

/// The exact step of the reverse SDE for a denoised estimate that stays as it is.
fn reverse_sde(path: Path, i: usize) -> Eval {
    let eval = path.eval(i);
    let to = path.sigma(i + 1);
    let kept = (to / eval.sigma).powi(2);
    Eval { x: kept, denoised: 1.0 - kept, ..eval }.with_noise(to * (1.0 - kept).sqrt())
}

/// The coefficients of D and of the denoised estimate before it in `weight * h * dD/dlambda`, the derivative
/// being taken over the step before and h being this step's length in lambda.
fn extrapolate(path: Path, i: usize, weight: f64) -> (f64, f64) {
    let ratio = (path.lambda(i) - path.lambda(i - 1)) / (path.lambda(i + 1) - path.lambda(i));
    (weight / ratio, -weight / ratio)
}
