//! `scheduler_config.json`: the training noise and the schedule that a checkpoint suggests.

use serde::Deserialize;

/// The fields of a scheduler's config that any of diffusers' schedulers shares.
#[derive(Debug, Clone, Deserialize)]
pub struct SchedulerConfig {
    /// The scheduler's class.
    #[serde(rename = "_class_name", default)]
    pub class_name: String,
    /// The first training step's noise.
    #[serde(default = "beta_start")]
    pub beta_start: f64,
    /// The last training step's noise.
    #[serde(default = "beta_end")]
    pub beta_end: f64,
    /// How the noise grows between them: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
    #[serde(default = "beta_schedule")]
    pub beta_schedule: String,
    /// Training steps.
    #[serde(default = "train_timesteps")]
    pub num_train_timesteps: usize,
    /// What the network predicts: `epsilon`, `v_prediction` or `sample`.
    #[serde(default = "prediction_type")]
    pub prediction_type: String,
    /// `leading`, `trailing` or `linspace`.
    #[serde(default = "timestep_spacing")]
    pub timestep_spacing: String,
    /// Added to each timestep of the `leading` spacing.
    #[serde(default)]
    pub steps_offset: usize,
    /// Whether DDIM ends without noise, not with that of the first timestep.
    #[serde(default = "yes")]
    pub set_alpha_to_one: bool,
    /// Whether the table is rescaled to end in pure noise.
    #[serde(default)]
    pub rescale_betas_zero_snr: bool,
    /// Whether the schedule is Karras'.
    #[serde(default)]
    pub use_karras_sigmas: bool,
    /// Whether the schedule is exponential.
    #[serde(default)]
    pub use_exponential_sigmas: bool,
    /// Whether the schedule is that of the beta distribution.
    #[serde(default)]
    pub use_beta_sigmas: bool,
    /// Which of the DPM-Solver++ family: `sde-dpmsolver++` is the stochastic one.
    #[serde(default)]
    pub algorithm_type: Option<String>,
}

fn yes() -> bool {
    true
}
fn beta_start() -> f64 {
    0.00085
}
fn beta_end() -> f64 {
    0.012
}
fn beta_schedule() -> String {
    "scaled_linear".into()
}
fn train_timesteps() -> usize {
    1000
}
fn prediction_type() -> String {
    "epsilon".into()
}
fn timestep_spacing() -> String {
    "leading".into()
}
