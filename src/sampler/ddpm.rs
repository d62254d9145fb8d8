//! The noise levels a model was trained on: one sigma for each training timestep.
//!
//! Formulas: Ho et al. 2020 (betas and their cumulative product), and diffusers'
//! `scheduling_euler_discrete.py` for the three beta schedules, the rescaling to zero terminal SNR and the
//! two ways between sigma and timestep. diffusers makes its table in f32 (`1 - beta` alone loses 6e-8),
//! ComfyUI in f64 like this one. SDXL's sigmas agree with diffusers' to 1.3e-5 relative at timestep 0, where
//! `1 - abar` cancels most, to 2.5e-6 from timestep 20 on and to 4e-7 at the last: far below what a picture
//! of 255 levels shows.

use super::error::SamplerError;

/// The name of a sequence of betas, as in a checkpoint's `beta_schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BetaSchedule {
    /// `linear`: equally spaced betas.
    Linear,
    /// `scaled_linear`: equally spaced square roots of beta. Stable Diffusion's.
    ScaledLinear,
    /// `squaredcos_cap_v2`: the cosine schedule of Nichol and Dhariwal 2021, with betas capped at 0.999.
    SquaredcosCapV2,
}

/// The training noise of a model, as its `scheduler_config.json` tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingSpec {
    /// The first beta, in (0, 1); unused by [`BetaSchedule::SquaredcosCapV2`].
    pub beta_start: f64,
    /// The last beta, in [`beta_start`, 1); unused by [`BetaSchedule::SquaredcosCapV2`].
    pub beta_end: f64,
    /// How the betas between go.
    pub beta_schedule: BetaSchedule,
    /// The number of training timesteps, at least 2.
    pub steps: usize,
    /// Whether the betas are rescaled so that the last timestep is pure noise (Lin et al. 2023, algorithm 1).
    pub rescale_zero_terminal_snr: bool,
}

impl Default for TrainingSpec {
    /// SDXL's training: `scaled_linear`, 0.00085 to 0.012, 1000 timesteps.
    fn default() -> Self {
        Self {
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            steps: 1000,
            rescale_zero_terminal_snr: false,
        }
    }
}

/// The sigma of each training timestep: `sqrt((1 - abar) / abar)`, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseTable {
    sigmas: Vec<f64>,
    log_sigmas: Vec<f64>,
}

/// What diffusers puts in place of the terminal `abar` 0, so that the largest sigma is 4096 and not infinite.
const TERMINAL_ABAR: f64 = 1.0 / 16_777_216.0;

impl NoiseTable {
    /// The table of a training.
    ///
    /// # Errors
    /// When the betas are not in order inside (0, 1) or there are fewer than two timesteps.
    pub fn new(spec: &TrainingSpec) -> Result<Self, SamplerError> {
        let &TrainingSpec { beta_start, beta_end, beta_schedule, steps, .. } = spec;
        let ordered = 0.0 < beta_start && beta_start <= beta_end && beta_end < 1.0;
        if steps < 2 || !(ordered || beta_schedule == BetaSchedule::SquaredcosCapV2) {
            return Err(SamplerError::Training { beta_start, beta_end, steps });
        }
        let mut abars = cumulative(&betas(spec));
        if spec.rescale_zero_terminal_snr {
            rescale(&mut abars);
        }
        let sigmas: Vec<f64> = abars.iter().map(|abar| ((1.0 - abar) / abar).sqrt()).collect();
        let log_sigmas = sigmas.iter().map(|sigma| sigma.ln()).collect();
        Ok(Self { sigmas, log_sigmas })
    }

    /// The sigmas, ascending, one for each training timestep.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// The number of training timesteps.
    pub fn steps(&self) -> usize {
        self.sigmas.len()
    }

    /// The smallest sigma, that of timestep 0.
    pub fn sigma_min(&self) -> f64 {
        self.sigmas[0]
    }

    /// The largest sigma, that of the last timestep.
    pub fn sigma_max(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// The timestep of `sigma` > 0, fractional, linear in log sigma between two entries and held at the
    /// table's ends. diffusers' `_sigma_to_t`.
    pub fn timestep_of(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.ln();
        let above = self.log_sigmas.partition_point(|&entry| entry <= log_sigma);
        let low = above.saturating_sub(1).min(self.log_sigmas.len() - 2);
        let (from, to) = (self.log_sigmas[low], self.log_sigmas[low + 1]);
        low as f64 + ((log_sigma - from) / (to - from)).clamp(0.0, 1.0)
    }

    /// The sigma at a timestep that may be fractional, linear in sigma between two entries and held at the
    /// ends. What diffusers' schedulers do (`np.interp`).
    pub fn sigma_of(&self, timestep: f64) -> f64 {
        interpolate(&self.sigmas, timestep)
    }

    /// The sigma at a timestep that may be fractional, linear in log sigma between two entries and held at
    /// the ends. ComfyUI's `ModelSamplingDiscrete.sigma`.
    pub fn sigma_of_log(&self, timestep: f64) -> f64 {
        interpolate(&self.log_sigmas, timestep).exp()
    }
}

/// The value of `table` at a fractional index, held at the ends.
fn interpolate(table: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (table.len() - 1) as f64);
    let low = (at.floor() as usize).min(table.len() - 2);
    let weight = at - low as f64;
    table[low] * (1.0 - weight) + table[low + 1] * weight
}

fn betas(spec: &TrainingSpec) -> Vec<f64> {
    let last = (spec.steps - 1) as f64;
    let between = |start: f64, end: f64, i: usize| start + (end - start) * i as f64 / last;
    match spec.beta_schedule {
        BetaSchedule::Linear => (0..spec.steps).map(|i| between(spec.beta_start, spec.beta_end, i)).collect(),
        BetaSchedule::ScaledLinear => {
            let (start, end) = (spec.beta_start.sqrt(), spec.beta_end.sqrt());
            (0..spec.steps).map(|i| between(start, end, i).powi(2)).collect()
        }
        BetaSchedule::SquaredcosCapV2 => {
            let abar = |i: usize| {
                let time = i as f64 / spec.steps as f64;
                ((time + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
            };
            (0..spec.steps).map(|i| (1.0 - abar(i + 1) / abar(i)).min(0.999)).collect()
        }
    }
}

/// The cumulative product of `1 - beta`.
fn cumulative(betas: &[f64]) -> Vec<f64> {
    let product = |abar: &mut f64, beta: &f64| {
        *abar *= 1.0 - beta;
        Some(*abar)
    };
    betas.iter().scan(1.0, product).collect()
}

/// Shifts and scales the square roots so that the last is 0 and the first stays (Lin et al. 2023, algorithm
/// 1); the last is then put at [`TERMINAL_ABAR`].
fn rescale(abars: &mut [f64]) {
    let first = abars[0].sqrt();
    let last = abars[abars.len() - 1].sqrt();
    for abar in abars.iter_mut() {
        *abar = ((abar.sqrt() - last) * first / (first - last)).powi(2);
    }
    abars[abars.len() - 1] = TERMINAL_ABAR;
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Json, count, golden, list, sdxl};
    use super::*;

    fn spec(config: &Json) -> TrainingSpec {
        let number = |name: &str| config[name].as_f64().expect("a number");
        TrainingSpec {
            beta_start: number("beta_start"),
            beta_end: number("beta_end"),
            beta_schedule: match config["beta_schedule"].as_str() {
                Some("linear") => BetaSchedule::Linear,
                Some("scaled_linear") => BetaSchedule::ScaledLinear,
                _ => BetaSchedule::SquaredcosCapV2,
            },
            steps: count(&config["num_train_timesteps"]),
            rescale_zero_terminal_snr: config["rescale_betas_zero_snr"].as_bool().unwrap_or(false),
        }
    }

    /// Relative 8e-6 where the product has many factors, and what an error of 4e-8 in `abar` does to small
    /// sigmas.
    #[test]
    fn tables_are_those_of_diffusers_up_to_its_f32() {
        for golden in golden("tables").as_array().expect("a list") {
            let table = NoiseTable::new(&spec(&golden["config"])).expect("a sound training");
            let theirs = list(&golden["sigmas"]);
            let picked =
                table.sigmas().iter().step_by(table.steps() / 50).chain([&table.sigmas()[table.steps() - 1]]);
            assert_eq!(picked.clone().count(), theirs.len());
            for (ours, theirs) in picked.zip(&theirs) {
                let far = (ours / theirs - 1.0).abs();
                assert!(far < 8e-6 + 2e-8 / (theirs * theirs), "{far:e} at {theirs}");
            }
            for (sigma, theirs) in list(&golden["inside"]).into_iter().zip(list(&golden["timesteps"])) {
                let ours = table.timestep_of(sigma);
                assert!((ours - theirs).abs() < 1e-3, "sigma {sigma}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn a_timestep_and_its_sigma_lead_to_each_other() {
        let table = sdxl();
        for t in [0.0, 0.25, 1.0, 17.5, 500.0, 998.9, 999.0] {
            assert!((table.timestep_of(table.sigma_of_log(t)) - t).abs() < 1e-9);
        }
        for t in [0.0, 1.0, 500.0, 999.0] {
            assert_eq!(table.sigma_of(t), table.sigmas()[t as usize]);
        }
        let between = 0.5 * (table.sigmas()[10] + table.sigmas()[11]);
        assert!((table.sigma_of(10.5) - between).abs() < 1e-15);
        assert_eq!([table.sigma_of(-3.0), table.sigma_of(2000.0)], [table.sigma_min(), table.sigma_max()]);
        assert_eq!([table.timestep_of(1e-4), table.timestep_of(1e4)], [0.0, 999.0]);
    }

    #[test]
    fn a_training_that_is_none_is_refused_with_its_numbers() {
        let sound = TrainingSpec::default();
        assert!(NoiseTable::new(&TrainingSpec { steps: 2, ..sound }).is_ok());
        let broken = [
            TrainingSpec { beta_start: 0.0, ..sound },
            TrainingSpec { beta_start: f64::NAN, ..sound },
            TrainingSpec { beta_end: 1.0, ..sound },
            TrainingSpec { beta_start: 0.5, ..sound },
            TrainingSpec { steps: 1, ..sound },
        ];
        for spec in broken {
            let message = NoiseTable::new(&spec).expect_err("no table").to_string();
            assert!(message.contains(&format!("beta_start {}", spec.beta_start)), "{message}");
        }
    }
}
