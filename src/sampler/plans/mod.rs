//! A sampler as a list of coefficients, one [`Eval`] for each evaluation of the network.

mod multistep;
mod single;
mod unipc;

use super::ddpm::NoiseTable;
use super::names::SamplerKind;
use super::schedule::Schedule;

/// How many earlier kept values a coefficient list may reach back to.
pub const HISTORY: usize = 3;

/// One evaluation of the network for one row, and what becomes of its result.
///
/// With `input` the latents that the network sees, `base` the latents at the last commit (equal to `input`
/// unless the evaluation before was a probe), `D` the denoised estimate, `K[0], K[1] ..` what earlier
/// evaluations kept, newest first, `n` a fresh standard normal draw and `h` the draw of the evaluation
/// before:
/// ```text
/// next = x * base + denoised * D + sum_k history[k] * K[k] + noise * n + held_noise * h
/// keep   keep_x * input + keep_denoised * D   as the new K[0]
/// ```
/// All coefficients are finite, and `history[k]` is 0 where fewer than k + 1 evaluations went before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eval {
    /// The step of the user that this evaluation belongs to, from 0.
    pub step: usize,
    /// The noise level of `input`, above 0.
    pub sigma: f64,
    /// The timestep that the network is told.
    pub timestep: f64,
    /// The coefficient of `base`.
    pub x: f64,
    /// The coefficient of `D`.
    pub denoised: f64,
    /// The coefficients of what earlier evaluations kept, newest first.
    pub history: [f64; HISTORY],
    /// The coefficient of a fresh draw. Nothing is drawn where it is 0.
    pub noise: f64,
    /// The coefficient of the draw of the evaluation before, a probe of the same step.
    pub held_noise: f64,
    /// The part of `input` in what is kept: 0 but for LMS, which keeps derivatives.
    pub keep_x: f64,
    /// The part of `D` in what is kept: 1 but for LMS.
    pub keep_denoised: f64,
    /// Whether `next` ends the step and becomes both `base` and `input`; if not, it is a probe and becomes
    /// `input` alone.
    pub commit: bool,
}

impl Eval {
    /// Whether a draw is taken from the row's generator.
    pub fn draws(&self) -> bool {
        self.noise != 0.0
    }

    /// Moves along the straight line from `base` to `D`, to the noise level `sigma` (Euler's method).
    fn toward(self, sigma: f64) -> Self {
        Self { x: sigma / self.sigma, denoised: 1.0 - sigma / self.sigma, ..self }
    }

    /// Adds fresh noise of standard deviation `noise`.
    fn with_noise(self, noise: f64) -> Self {
        Self { noise, ..self }
    }

    /// Makes a probe of it: the step goes on from the same base.
    fn as_probe(self) -> Self {
        Self { commit: false, ..self }
    }
}

/// All evaluations of one row, from noise to picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The evaluations in order; as many commits as steps.
    pub evals: Vec<Eval>,
    /// The factor of the standard normal noise that a picture from nothing starts with; see
    /// [`Schedule::noise_scale`].
    pub noise_scale: f64,
}

impl Plan {
    /// The number of steps, as the user counts them.
    pub fn steps(&self) -> usize {
        self.evals.iter().filter(|eval| eval.commit).count()
    }

    /// The noise level at the start: a row that starts from a picture starts at `picture + start_sigma() *
    /// noise`.
    pub fn start_sigma(&self) -> f64 {
        self.evals[0].sigma
    }

    /// The noise level after the evaluation `index`, 0 after the last.
    pub fn sigma_after(&self, index: usize) -> f64 {
        self.evals.get(index + 1).map_or(0.0, |eval| eval.sigma)
    }
}

/// The evaluations of `schedule`'s sampler. `table` must be the one that the schedule was made from.
pub fn plan(schedule: &Schedule, table: &NoiseTable) -> Plan {
    let path = Path { schedule, table };
    let evals = match schedule.sampler() {
        SamplerKind::Euler => single::euler(path),
        SamplerKind::EulerAncestral | SamplerKind::Ddpm => single::ancestral(path),
        SamplerKind::Ddim => single::ddim(path),
        SamplerKind::Lcm => single::lcm(path),
        SamplerKind::Heun => single::heun(path),
        SamplerKind::Dpm2 => single::dpm_2(path),
        SamplerKind::Dpm2Ancestral => single::dpm_2_ancestral(path),
        SamplerKind::DpmPp2sAncestral => single::dpmpp_2s_ancestral(path),
        SamplerKind::DpmPpSde => single::dpmpp_sde(path),
        SamplerKind::Lms => multistep::lms(path),
        SamplerKind::DpmPp2m => multistep::dpmpp_2m(path),
        SamplerKind::DpmPp2mSde => multistep::dpmpp_2m_sde(path),
        SamplerKind::DpmPp3mSde => multistep::dpmpp_3m_sde(path),
        SamplerKind::UniPc => unipc::uni_pc(path),
    };
    Plan { evals, noise_scale: schedule.noise_scale() }
}

/// What a sampler reads: the schedule, and the table for timesteps inside a step.
#[derive(Clone, Copy)]
struct Path<'a> {
    schedule: &'a Schedule,
    table: &'a NoiseTable,
}

impl Path<'_> {
    fn steps(self) -> std::ops::Range<usize> {
        0..self.schedule.steps()
    }

    /// The noise level at the start of step `i`, or at the end when `i` is the number of steps.
    fn sigma(self, i: usize) -> f64 {
        self.schedule.sigmas()[i]
    }

    /// Whether step `i` ends at the picture.
    fn is_last(self, i: usize) -> bool {
        i + 1 == self.schedule.steps()
    }

    /// Minus the log of the noise level at the start of step `i`: the half log signal-to-noise ratio.
    fn lambda(self, i: usize) -> f64 {
        -self.sigma(i).ln()
    }

    /// The evaluation at the start of step `i`, its move still to be told.
    fn eval(self, i: usize) -> Eval {
        Eval {
            step: i,
            sigma: self.sigma(i),
            timestep: self.schedule.timesteps()[i],
            x: 0.0,
            denoised: 0.0,
            history: [0.0; HISTORY],
            noise: 0.0,
            held_noise: 0.0,
            keep_x: 0.0,
            keep_denoised: 1.0,
            commit: true,
        }
    }

    /// The evaluation inside step `i` at the noise level `sigma`, its move still to be told.
    fn eval_inside(self, i: usize, sigma: f64) -> Eval {
        let timestep = self.schedule.timestep_inside(sigma, self.table);
        Eval { sigma, timestep, ..self.eval(i) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ddpm::TrainingSpec;
    use super::super::names::ScheduleKind;
    use super::super::schedule::SpacingOptions;
    use super::super::testing::{self, Json, count, difference, execute, golden, planned};
    use super::*;

    /// Draw `k` of the script's stream; draw 0 is the initial noise.
    fn noise(k: usize) -> Vec<f64> {
        let value = |j: f64, k: f64| 2_f64.sqrt() * (1.7 * k + 2.3 * j + 0.9 * k * j + 0.5).sin();
        (0..3_u8).map(|j| value(f64::from(j), k as f64)).collect()
    }

    /// The script's synthetic network, and what becomes denoised of its epsilon.
    fn denoise(input: &[f64], eval: &Eval) -> Vec<f64> {
        let scaled = |x: f64| x / eval.sigma.hypot(1.0);
        let epsilon = |y: f64| 0.9 * y + 0.3 * (2.0 * y + eval.timestep / 200.0).sin();
        input.iter().map(|&x| x - eval.sigma * epsilon(scaled(x))).collect()
    }

    /// Runs a plan as the script ran the entry `run`: the final latents, and the checksum of the timesteps.
    fn rerun(run: &Json) -> (Vec<f64>, f64, Plan) {
        let rescale_zero_terminal_snr = run["rescale_betas_zero_snr"].as_bool().unwrap_or(false);
        let spec = TrainingSpec { rescale_zero_terminal_snr, ..TrainingSpec::default() };
        let table = NoiseTable::new(&spec).expect("a sound training");
        let options = SpacingOptions {
            steps_offset: run["offset"].as_u64().map_or(1, |offset| usize::try_from(offset).expect("small")),
            set_alpha_to_one: run["set_alpha_to_one"].as_bool().unwrap_or(false),
        };
        let (sampler, kind) = (testing::text(&run["sampler"]), testing::text(&run["schedule"]));
        let whole =
            Schedule::new(sampler, kind, count(&run["steps"]), &table, &options).expect("steps in range");
        let strength = run["strength"].as_f64();
        let schedule = strength.map_or(whole.clone(), |v| whole.tail(v).expect("a strength in range"));
        let plan = plan(&schedule, &table);
        let start = noise(0).into_iter();
        let start = match strength {
            None => start.map(|n| n * plan.noise_scale).collect(),
            Some(_) => start.zip([0.4, -0.8, 1.1]).map(|(n, x)| x + n * plan.start_sigma()).collect(),
        };
        let weighted = plan.evals.iter().enumerate().map(|(i, eval)| (i + 1) as f64 * eval.timestep);
        (execute(&plan, start, denoise, noise), weighted.sum(), plan)
    }

    /// Compares all runs of a part of the golden file, and returns the largest difference of latents and of
    /// timesteps.
    fn compare_runs(part: &str) -> (f64, f64) {
        let (mut latents, mut told) = (0.0_f64, 0.0_f64);
        for run in golden(part).as_array().expect("a list") {
            let (ours, timesteps, plan) = rerun(run);
            assert_eq!(plan.evals.len(), count(&run["evals"]), "{run}");
            let theirs = run["timesteps"].as_f64().expect("a checksum");
            let far = difference(&ours, &testing::list(&run["final"]));
            assert!(far < 1e-4, "{far:e} {run}");
            latents = latents.max(far);
            told = told.max((timesteps - theirs).abs() / theirs.max(1.0));
        }
        (latents, told)
    }

    /// diffusers computes in f32, and its table too (see `ddpm`), which one step from timestep 0's neighbour
    /// shows most: measured 2.9e-5 for the latents, 3.6e-6 for fractional timesteps.
    #[test]
    fn plans_draw_the_latents_that_diffusers_schedulers_draw() {
        let (latents, timesteps) = compare_runs("diffusers_runs");
        assert!(latents < 4e-5 && timesteps < 5e-6, "{latents:e} {timesteps:e}");
    }

    /// Both sides are f64: measured 4.4e-12, from the twelve digits of the golden file.
    #[test]
    fn plans_follow_the_published_loops_of_comfyui() {
        let (latents, timesteps) = compare_runs("comfy_runs");
        assert!(latents < 2e-11 && timesteps == 0.0, "{latents:e} {timesteps:e}");
    }

    /// Whether a denoised estimate that never changes is reached exactly. diffusers' LCM mixes in some
    /// latents, and its DDIM may miss timesteps and ends above no noise.
    fn is_exact(sampler: SamplerKind, kind: ScheduleKind) -> bool {
        let spacing = matches!(kind, ScheduleKind::Leading | ScheduleKind::Trailing | ScheduleKind::Linspace);
        !(spacing && matches!(sampler, SamplerKind::Lcm | SamplerKind::Ddim))
    }

    fn pairs() -> impl Iterator<Item = (SamplerKind, ScheduleKind)> {
        SamplerKind::ALL
            .iter()
            .flat_map(|&sampler| ScheduleKind::ALL.iter().map(move |&kind| (sampler, kind)))
    }

    #[test]
    fn every_plan_has_one_commit_a_step_and_finite_coefficients() {
        for ((sampler, kind), steps) in
            pairs().flat_map(|pair| [1, 2, 3, 4, 5, 20, 50, 1000].map(|n| (pair, n)))
        {
            let (schedule, plan) = planned(sampler, kind, steps);
            assert_eq!(plan.steps(), steps, "{sampler} {kind}");
            assert_eq!(plan.start_sigma(), schedule.sigmas()[0]);
            assert_eq!(plan.sigma_after(plan.evals.len() - 1), 0.0);
            let mut step = 0;
            for (i, eval) in plan.evals.iter().enumerate() {
                let [h0, h1, h2] = eval.history;
                let coefficients = [eval.x, eval.denoised, h0, h1, h2, eval.noise, eval.held_noise];
                assert!(coefficients.iter().all(|c| c.is_finite()), "{sampler} {kind} {steps} {eval:?}");
                assert!(eval.history.iter().skip(i).all(|&c| c == 0.0), "{sampler} {kind} {steps} {eval:?}");
                assert!(eval.keep_x.is_finite() && eval.keep_denoised.is_finite());
                assert!(
                    eval.sigma >= plan.sigma_after(i) * (1.0 - 1e-12),
                    "{sampler} {kind} {steps} {eval:?}"
                );
                assert!((0.0..=999.0).contains(&eval.timestep));
                assert_eq!(eval.step, step, "{sampler} {kind} {steps}");
                assert!(eval.held_noise == 0.0 || plan.evals[i - 1].draws() && !plan.evals[i - 1].commit);
                step += usize::from(eval.commit);
            }
            assert!(!plan.evals[plan.evals.len() - 1].draws());
        }
    }

    /// Latents as coefficients of (1, initial noise, draw 1, draw 2 ..), so that variances are exact.
    fn basis(dimension: usize, at: usize, value: f64) -> Vec<f64> {
        let mut vector = vec![0.0; dimension];
        vector[at] = value;
        vector
    }

    fn variance(latents: &[f64]) -> f64 {
        latents[1..].iter().map(|c| c * c).sum()
    }

    #[test]
    fn for_one_fixed_picture_every_evaluation_sees_the_noise_of_its_sigma_and_the_end_is_that_picture() {
        for ((sampler, kind), steps) in pairs().flat_map(|pair| [1, 2, 3, 4, 5, 20, 50].map(|n| (pair, n))) {
            if !is_exact(sampler, kind) {
                continue;
            }
            let (_, plan) = planned(sampler, kind, steps);
            let dimension = 2 + plan.evals.len();
            let mut start = basis(dimension, 1, plan.start_sigma());
            start[0] = 0.3;
            let picture = |input: &[f64], eval: &Eval| {
                let spread = variance(input).sqrt() / eval.sigma;
                assert!((spread - 1.0).abs() < 1e-9, "{sampler} {kind} {steps} {spread} {eval:?}");
                assert!((input[0] - 0.3).abs() < 1e-9, "{sampler} {kind} {steps}");
                basis(dimension, 0, 0.3)
            };
            let end = execute(&plan, start, picture, |k| basis(dimension, k + 1, 1.0));
            assert!((end[0] - 0.3).abs() < 1e-9 && variance(&end) < 1e-18, "{sampler} {kind} {steps}");
        }
    }

    /// The ideal denoiser of Gaussian data with standard deviation 1 at the noise level of `eval`.
    fn gaussian(input: &[f64], eval: &Eval) -> Vec<f64> {
        input.iter().map(|x| x / (1.0 + eval.sigma * eval.sigma)).collect()
    }

    /// The latents at the start of the last step, and the sigma there, for Gaussian data and a start of its
    /// variance.
    fn near_the_end(sampler: SamplerKind, steps: usize) -> (Vec<f64>, f64) {
        let (schedule, plan) = planned(sampler, ScheduleKind::Karras, steps);
        let dimension = 2 + plan.evals.len();
        let mut seen = Vec::new();
        let watch = |input: &[f64], eval: &Eval| {
            if eval.step + 1 == steps {
                seen = input.to_vec();
            }
            gaussian(input, eval)
        };
        execute(&plan, basis(dimension, 1, plan.start_sigma().hypot(1.0)), watch, |k| {
            basis(dimension, k + 1, 1.0)
        });
        (seen, schedule.sigmas()[steps - 1])
    }

    /// LMS is of order four but for its first steps, which are of order one to three and leave their error.
    #[test]
    fn deterministic_samplers_converge_with_their_order_on_gaussian_data() {
        let error = |sampler, steps| {
            let (latents, sigma) = near_the_end(sampler, steps);
            (latents[1] / sigma.hypot(1.0) - 1.0).abs()
        };
        let orders = [
            (SamplerKind::Euler, 1.0),
            (SamplerKind::Ddim, 1.0),
            (SamplerKind::Heun, 2.0),
            (SamplerKind::Dpm2, 2.0),
            (SamplerKind::DpmPp2m, 2.0),
            (SamplerKind::UniPc, 3.0),
            (SamplerKind::Lms, 3.2),
        ];
        for (sampler, order) in orders {
            let measured = (error(sampler, 100) / error(sampler, 200)).log2();
            assert!((measured - order).abs() < 0.1, "{sampler} {measured}");
        }
    }

    #[test]
    fn stochastic_samplers_keep_the_variance_of_gaussian_data() {
        let error = |sampler, steps| {
            let (latents, sigma) = near_the_end(sampler, steps);
            (variance(&latents) / (1.0 + sigma * sigma) - 1.0).abs()
        };
        let stochastic = [
            (SamplerKind::EulerAncestral, 1.0, 0.07),
            (SamplerKind::Ddpm, 1.0, 0.07),
            (SamplerKind::Dpm2Ancestral, 2.0, 0.0025),
            (SamplerKind::DpmPp2sAncestral, 2.0, 0.0025),
            (SamplerKind::DpmPpSde, 2.1, 0.0007),
            (SamplerKind::DpmPp2mSde, 2.0, 0.0025),
            (SamplerKind::DpmPp3mSde, 2.0, 0.0012),
        ];
        for (sampler, order, most) in stochastic {
            let (coarse, fine) = (error(sampler, 100), error(sampler, 200));
            assert!(coarse < most, "{sampler} {coarse:e}");
            assert!(((coarse / fine).log2() - order).abs() < 0.1, "{sampler} {}", (coarse / fine).log2());
        }
    }
}
