//! UniPC: a predictor and a corrector that share one evaluation (Zhao et al. 2023, algorithms 5 to 8).

use super::{Eval, HISTORY, Path};

/// The order of diffusers' `UniPCMultistepScheduler`.
const ORDER: usize = 2;

/// Coefficients of D, of the estimate before it and of the one before that.
type Weights = [f64; HISTORY];

/// UniPC of order 2 with B(h) = expm1(h), predicting the denoised estimate: diffusers'
/// `UniPCMultistepScheduler` with its defaults (`bh2`, `predict_x0`, `lower_order_final`).
///
/// ComfyUI's `uni_pc` is of order 3 with B(h) = h. Order 2 is taken for all schedules because the paper
/// advises it for guided sampling, and so that one name means one method.
///
/// The corrector improves the latents that the network has just seen, and the predictor goes on from there.
/// Both are linear in the same things, so one list of coefficients does both: the latents between steps are
/// the predicted ones.
pub(super) fn uni_pc(path: Path) -> Vec<Eval> {
    let step = |i| {
        let eval = path.eval(i).toward(path.sigma(i + 1));
        let weights = add(scale(correction(path, i), eval.x), prediction(path, i));
        let history = [weights[1], weights[2], 0.0];
        Eval { denoised: eval.denoised + weights[0], history, ..eval }
    };
    path.steps().map(step).collect()
}

/// The order of the step that starts at `i`: it grows from 1 and falls to 1 again at the end.
fn order(path: Path, i: usize) -> usize {
    ORDER.min(i + 1).min(path.schedule.steps() - i)
}

/// What the predictor of the step from `i` adds to a move toward D: half the slope of D over the step before.
fn prediction(path: Path, i: usize) -> Weights {
    if order(path, i) == 1 {
        return [0.0; HISTORY];
    }
    let growth = growth(path, i);
    let slope = 0.5 / (path.lambda(i - 1) - path.lambda(i)) * length(path, i);
    [growth * slope, -growth * slope, 0.0]
}

/// What the corrector adds to the latents at `i` that the step from `i - 1` predicted: the predictor's slope
/// taken back, and the slopes put in that fit D at `i` too.
fn correction(path: Path, i: usize) -> Weights {
    if i == 0 {
        return [0.0; HISTORY];
    }
    let growth = growth(path, i - 1);
    let [taken_back, taken_back_before, _] = prediction(path, i - 1);
    if order(path, i - 1) == 1 {
        return [-0.5 * growth, 0.5 * growth, 0.0];
    }
    let h = -length(path, i - 1);
    let phi_2 = growth / h - 1.0;
    let phi_3 = phi_2 / h - 0.5;
    let (b1, b2) = (phi_2 / growth, 2.0 * phi_3 / growth);
    let ratio = (path.lambda(i - 2) - path.lambda(i - 1)) / length(path, i - 1);
    let before = (b1 - b2) / (1.0 - ratio);
    let now = b1 - before;
    let slope = before / ratio;
    [-growth * now, growth * (now + slope) - taken_back, -growth * slope - taken_back_before]
}

/// The length of the step from `i` in lambda, infinite in the last.
fn length(path: Path, i: usize) -> f64 {
    path.lambda(i + 1) - path.lambda(i)
}

/// `expm1(-h)`: B(h) of `bh2`, and minus the part of D in a step of length h.
fn growth(path: Path, i: usize) -> f64 {
    path.sigma(i + 1) / path.sigma(i) - 1.0
}

fn scale(weights: Weights, by: f64) -> Weights {
    weights.map(|weight| weight * by)
}

fn add(one: Weights, other: Weights) -> Weights {
    std::array::from_fn(|k| one[k] + other[k])
}
