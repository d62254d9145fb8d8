//! The sigmas that a sampler visits, with the timestep that the network is told at each.

use super::ddpm::NoiseTable;
use super::error::SamplerError;
use super::names::{SamplerKind, ScheduleKind};
use super::rules::{Family, Rules};
use super::spacing::{self, Count, linspace};

/// The exponent of Karras et al. 2022, table 1.
const KARRAS_RHO: f64 = 7.0;

/// How near the largest sigma, relative, the first one must be for ComfyUI to give it the noise of a start
/// from nothing (`Sampler.max_denoise`).
const FULL_NOISE_TOLERANCE: f64 = 1e-5;

/// What a checkpoint's `scheduler_config.json` says about spacing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpacingOptions {
    /// Added to each timestep of `leading`; `steps_offset`.
    pub steps_offset: usize,
    /// Whether diffusers' DDIM ends at no noise at all, and not at the noise of timestep 0;
    /// `set_alpha_to_one`.
    pub set_alpha_to_one: bool,
}

impl Default for SpacingOptions {
    /// SDXL base's: offset 1, `set_alpha_to_one` false.
    fn default() -> Self {
        Self { steps_offset: 1, set_alpha_to_one: false }
    }
}

/// The sigmas and timesteps that one sampler goes through, from noise to picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sampler: SamplerKind,
    rules: Rules,
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
    landings: Vec<f64>,
    noise_scale: f64,
}

impl Schedule {
    /// The schedule `kind` in exactly `steps` steps, as `sampler` goes through it.
    ///
    /// The sampler counts because diffusers' schedulers space differently, and because ComfyUI leaves out the
    /// last sigma above 0 for dpm_2, dpm_2_ancestral and uni_pc. The module `rules` says which program a pair
    /// follows.
    ///
    /// # Errors
    /// When `steps` is 0 or above the number of training timesteps.
    pub fn new(
        sampler: SamplerKind,
        kind: ScheduleKind,
        steps: usize,
        table: &NoiseTable,
        options: &SpacingOptions,
    ) -> Result<Self, SamplerError> {
        if steps == 0 || steps > table.steps() {
            return Err(SamplerError::Steps { given: steps, most: table.steps() });
        }
        let rules = Rules::of(sampler, kind);
        let discarded = usize::from(rules.discards_penultimate(sampler));
        let count = Count { steps: steps + discarded, trained: table.steps() };
        let mut timesteps = match kind {
            ScheduleKind::Leading | ScheduleKind::Trailing | ScheduleKind::Linspace => {
                spacing::diffusers(Family::of(sampler), kind, count, options.steps_offset)
            }
            _ => spacing::comfy(kind, count),
        };
        let mut sigmas: Vec<f64> = match kind {
            ScheduleKind::Karras => karras(table, count.steps),
            ScheduleKind::Exponential => exponential(table, count.steps),
            _ if rules == Rules::Diffusers => timesteps.iter().map(|&t| table.sigma_of(t)).collect(),
            _ => timesteps.iter().map(|&t| table.sigma_of_log(t)).collect(),
        };
        if matches!(kind, ScheduleKind::Karras | ScheduleKind::Exponential) {
            timesteps = sigmas.iter().map(|&sigma| table.timestep_of(sigma)).collect();
        }
        if !rules.fractional_timesteps(sampler, kind) {
            for t in &mut timesteps {
                *t = nearest(*t);
            }
        }
        timesteps.truncate(steps);
        sigmas.truncate(steps);
        sigmas.push(0.0);
        let landings = match (rules, sampler) {
            (Rules::Diffusers, SamplerKind::Ddim) => ddim_landings(&timesteps, table, options),
            _ => sigmas[1..].to_vec(),
        };
        let is_full = sigmas[0] >= table.sigma_max() * (1.0 - FULL_NOISE_TOLERANCE);
        let noise_scale = if rules.starts_with_unit_variance(sampler, kind, is_full) {
            sigmas[0].hypot(1.0)
        } else {
            sigmas[0]
        };
        Ok(Self { sampler, rules, sigmas, timesteps, landings, noise_scale })
    }

    /// The last part of the schedule, for starting from a picture: `floor(steps * strength)` steps, as
    /// diffusers' `get_timesteps` counts them (not ComfyUI's `denoise`, which stretches the schedule to keep
    /// the number of steps). The start is then `picture + sigmas()[0] * noise`, at strength 1 too.
    ///
    /// # Errors
    /// When `strength` is not in 0..=1, or leaves no step.
    pub fn tail(&self, strength: f64) -> Result<Self, SamplerError> {
        let kept = (self.steps() as f64 * strength).floor();
        if !(0.0..=1.0).contains(&strength) || kept < 1.0 {
            return Err(SamplerError::Strength { given: strength, steps: self.steps() });
        }
        let start = self.steps() - kept as usize;
        if start == 0 {
            return Ok(self.clone());
        }
        Ok(Self {
            sampler: self.sampler,
            rules: self.rules,
            sigmas: self.sigmas[start..].to_vec(),
            timesteps: self.timesteps[start..].to_vec(),
            landings: self.landings[start..].to_vec(),
            noise_scale: self.sigmas[start],
        })
    }

    /// The sampler that this schedule was made for.
    pub fn sampler(&self) -> SamplerKind {
        self.sampler
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// One sigma more than there are steps, strictly descending; the last is 0.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// The timestep that the network is told at each sigma but the last, from 0 to the last trained one, perhaps
    /// fractional.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// The factor of the standard normal noise that a picture from nothing starts with.
    ///
    /// diffusers' `init_noise_sigma`, brought to latents `x0 + sigma * noise`: sqrt(sigma^2 + 1) for the
    /// schedulers that keep unit variance, and with `leading`; else sigma. ComfyUI: sqrt(sigma^2 + 1) when
    /// the first sigma is the table's largest, else sigma.
    pub fn noise_scale(&self) -> f64 {
        self.noise_scale
    }

    /// The sigma at which each step ends in the sampler's own reckoning: the next of [`Self::sigmas`], save
    /// for diffusers' DDIM, which steps back by a fixed number of timesteps and may miss the next one.
    pub(super) fn landings(&self) -> &[f64] {
        &self.landings
    }

    /// Whose rules the schedule follows.
    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// The timestep of a sigma inside a step: fractional in diffusers, the nearest whole one in ComfyUI.
    pub(super) fn timestep_inside(&self, sigma: f64, table: &NoiseTable) -> f64 {
        match self.rules {
            Rules::Diffusers => table.timestep_of(sigma),
            Rules::Comfy => nearest(table.timestep_of(sigma)),
        }
    }
}

/// Sigmas equally spaced in `sigma^(1/7)` over the whole table (Karras et al. 2022, equation 5).
fn karras(table: &NoiseTable, steps: usize) -> Vec<f64> {
    let root = |sigma: f64| sigma.powf(1.0 / KARRAS_RHO);
    let roots = linspace(root(table.sigma_max()), root(table.sigma_min()), steps);
    roots.iter().map(|root| root.powf(KARRAS_RHO)).collect()
}

/// Sigmas equally spaced in log sigma over the whole table; k-diffusion's `get_sigmas_exponential`.
fn exponential(table: &NoiseTable, steps: usize) -> Vec<f64> {
    linspace(table.sigma_max().ln(), table.sigma_min().ln(), steps).iter().map(|log| log.exp()).collect()
}

/// The nearest whole timestep, and of two equally near the even one. There ComfyUI's `argmin` decides by the
/// rounding of its f32, either way; the even one is its choice for the middle step (499.5) of most odd
/// numbers of steps.
fn nearest(timestep: f64) -> f64 {
    let halves = (2.0 * timestep).round();
    let is_tie = (2.0 * timestep - halves).abs() < 1e-8;
    if is_tie { (0.5 * halves).round_ties_even() } else { timestep.round() }
}

/// The sigmas at which the steps of `DDIMScheduler.step` end: those of the timestep less `trained / steps`,
/// whole, and below timestep 0 that of `final_alpha_cumprod`.
fn ddim_landings(timesteps: &[f64], table: &NoiseTable, options: &SpacingOptions) -> Vec<f64> {
    let stride = (table.steps() / timesteps.len()) as f64;
    let last = if options.set_alpha_to_one { 0.0 } else { table.sigma_min() };
    let landing = |t: f64| if t >= stride { table.sigma_of(t - stride) } else { last };
    timesteps.iter().map(|&t| landing(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, count, difference, golden, list, planned, sdxl};
    use super::*;

    fn made(sampler: SamplerKind, kind: ScheduleKind, steps: usize) -> Schedule {
        planned(sampler, kind, steps).0
    }

    /// The table's f32 shows up to 1.3e-5 in the sigma of timestep 0; see `ddpm`.
    #[test]
    fn schedules_and_noise_scales_are_those_of_diffusers() {
        for theirs in golden("diffusers_schedules").as_array().expect("a list") {
            let (sampler, kind) = (testing::text(&theirs["sampler"]), testing::text(&theirs["schedule"]));
            let ours = made(sampler, kind, count(&theirs["steps"]));
            assert!(difference(ours.sigmas(), &list(&theirs["sigmas"])) < 1.5e-5, "{theirs}");
            assert!(difference(ours.timesteps(), &list(&theirs["timesteps"])) < 2e-6, "{theirs}");
            // Euler keeps x0 + sigma * noise as we do; the others keep that divided by sqrt(sigma^2 + 1).
            let unit = if sampler == SamplerKind::Euler { 1.0 } else { ours.sigmas()[0].hypot(1.0) };
            let scale = ours.noise_scale() / unit;
            assert!(
                (scale / theirs["noise_scale"].as_f64().expect("a number") - 1.0).abs() < 1.5e-5,
                "{theirs}"
            );
        }
    }

    #[test]
    fn schedules_and_noise_scales_are_those_comfyui_publishes() {
        for theirs in golden("comfy_schedules").as_array().expect("a list") {
            let (sampler, kind) = (testing::text(&theirs["sampler"]), testing::text(&theirs["schedule"]));
            let ours = made(sampler, kind, count(&theirs["steps"]));
            let picked: Vec<usize> =
                theirs["indices"].as_array().expect("a list").iter().map(count).collect();
            let at =
                |list: &[f64]| -> Vec<f64> { picked.iter().filter_map(|&i| list.get(i).copied()).collect() };
            assert!(difference(&at(ours.sigmas()), &list(&theirs["sigmas"])) < 1e-11, "{theirs}");
            assert_eq!(at(ours.timesteps()), list(&theirs["timesteps"]), "{theirs}");
            assert!((ours.noise_scale() / theirs["scale"].as_f64().expect("a number") - 1.0).abs() < 1e-11);
        }
    }

    #[test]
    fn every_schedule_has_the_steps_asked_for_and_descends_to_zero() {
        let table = sdxl();
        let counts = (1..=30).chain([47, 96, 111, 250, 251, 333, 501, 998, 999, 1000]);
        for steps in counts {
            for (&sampler, &kind) in
                SamplerKind::ALL.iter().flat_map(|s| ScheduleKind::ALL.iter().map(move |k| (s, k)))
            {
                let made = Schedule::new(sampler, kind, steps, &table, &SpacingOptions::default())
                    .expect("in range");
                let name = format!("{sampler} {kind} {steps}");
                assert_eq!(
                    (made.steps(), made.sigmas().len(), made.landings().len()),
                    (steps, steps + 1, steps),
                    "{name}"
                );
                assert!(made.sigmas().is_sorted_by(|a, b| a > b) && made.sigmas()[steps] == 0.0, "{name}");
                assert!(made.timesteps().iter().all(|t| (0.0..=999.0).contains(t)), "{name}");
                assert!(made.timesteps().is_sorted_by(|a, b| a >= b), "{name}");
                assert!(made.sigmas()[0] <= table.sigma_max() * (1.0 + 1e-14), "{name}");
            }
        }
    }

    #[test]
    fn where_comfyui_gives_another_number_of_steps_the_ends_stay() {
        let ours = made(SamplerKind::EulerAncestral, ScheduleKind::DdimUniform, 30);
        let table = sdxl();
        assert_eq!(ours.timesteps()[0], 991.0);
        assert!((ours.sigmas()[0] / table.sigmas()[991] - 1.0).abs() < 1e-12);
        assert!((ours.sigmas()[29] / table.sigmas()[1] - 1.0).abs() < 1e-12);
        let ours = made(SamplerKind::EulerAncestral, ScheduleKind::Beta, 1000);
        assert!((ours.sigmas()[0] / table.sigma_max() - 1.0).abs() < 1e-12);
        assert!(ours.sigmas()[999] < table.sigmas()[1]);
    }

    #[test]
    fn a_tail_keeps_the_last_steps_that_its_strength_pays_for() {
        let whole = made(SamplerKind::Euler, ScheduleKind::Leading, 10);
        for (strength, kept) in [(1.0, 10), (0.99, 9), (0.6, 6), (0.58, 5), (0.29, 2), (0.1, 1)] {
            let tail = whole.tail(strength).expect("a step is left");
            assert_eq!(tail.steps(), kept, "{strength}");
            assert_eq!(tail.sigmas(), &whole.sigmas()[10 - kept..]);
            assert_eq!(tail.timesteps(), &whole.timesteps()[10 - kept..]);
            assert_eq!(tail.landings(), &whole.landings()[10 - kept..]);
            let scale = if kept == 10 { whole.noise_scale() } else { tail.sigmas()[0] };
            assert_eq!(tail.noise_scale(), scale);
        }
        assert_eq!(
            made(SamplerKind::Euler, ScheduleKind::Leading, 50).tail(0.58).expect("steps are left").steps(),
            28
        );
    }

    #[test]
    fn steps_and_strengths_out_of_bounds_are_refused_with_the_bound() {
        let table = sdxl();
        for steps in [0, 1001, usize::MAX] {
            let refused = Schedule::new(
                SamplerKind::Euler,
                ScheduleKind::Normal,
                steps,
                &table,
                &SpacingOptions::default(),
            );
            let message = refused.expect_err("out of bounds").to_string();
            assert_eq!(message, format!("steps must be between 1 and 1000, not {steps}"));
        }
        let whole = made(SamplerKind::Euler, ScheduleKind::Normal, 20);
        for strength in [0.0, 0.049, -1.0, 1.001, f64::NAN, f64::INFINITY] {
            let message = whole.tail(strength).expect_err("out of bounds").to_string();
            assert!(
                message.starts_with("strength must be between 0.05 and 1 for 20 steps, not"),
                "{message}"
            );
        }
    }
}
