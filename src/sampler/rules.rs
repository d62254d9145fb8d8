//! Whose rules a pair of sampler and schedule follows, diffusers' or ComfyUI's, and what depends on that.
//!
//! The principle: where diffusers has the pair, everything is diffusers' (sigmas, timesteps, noise scale,
//! last step), so that the picture is diffusers'; where it has not, everything is ComfyUI's.

use super::names::{SamplerKind, ScheduleKind};

/// The program whose picture a pair of sampler and schedule is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Hugging Face diffusers, with the scheduler class of [`Family`].
    Diffusers,
    /// ComfyUI's `KSampler`.
    Comfy,
}

/// Schedulers of diffusers that space their timesteps and scale their noise alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Those taken from k-diffusion, on unscaled latents: Euler, Euler ancestral, Heun, KDPM2 (both), LMS,
    /// DPMSolverSDE.
    Sigma,
    /// DDPM and DDIM: whole timesteps, latents of unit variance.
    Discrete,
    /// DPMSolverMultistep and UniPC: whole timesteps spaced as if there were one step more, latents of unit
    /// variance.
    Multistep,
    /// LCM: a subset of its own 50 timesteps, latents of unit variance.
    Lcm,
}

impl Family {
    /// The family of a sampler. `dpmpp_2s_ancestral` and `dpmpp_3m_sde`, which diffusers has not, are put
    /// with their kin.
    pub(super) fn of(sampler: SamplerKind) -> Self {
        use SamplerKind as S;
        match sampler {
            S::DpmPp2m | S::DpmPp2mSde | S::DpmPp3mSde | S::UniPc => Self::Multistep,
            S::Ddpm | S::Ddim => Self::Discrete,
            S::Lcm => Self::Lcm,
            S::Euler
            | S::EulerAncestral
            | S::Heun
            | S::Dpm2
            | S::Dpm2Ancestral
            | S::Lms
            | S::DpmPpSde
            | S::DpmPp2sAncestral => Self::Sigma,
        }
    }
}

impl Rules {
    /// The rules for a pair.
    ///
    /// `leading`, `trailing` and `linspace` are diffusers' always. `karras` and `exponential` are diffusers'
    /// for the schedulers with `use_karras_sigmas` or `use_exponential_sigmas`, at
    /// `timestep_spacing="linspace"`, where those span the whole table as ComfyUI's do; but the multistep
    /// schedulers *truncate* the timesteps of `exponential`, an oversight that is not copied. diffusers'
    /// `use_beta_sigmas` is another schedule than ComfyUI's `beta`.
    pub(super) fn of(sampler: SamplerKind, schedule: ScheduleKind) -> Self {
        use SamplerKind as S;
        let has_karras = !matches!(sampler, S::EulerAncestral | S::DpmPp2sAncestral | S::DpmPp3mSde)
            && matches!(Family::of(sampler), Family::Sigma | Family::Multistep);
        let twin = match schedule {
            ScheduleKind::Leading | ScheduleKind::Trailing | ScheduleKind::Linspace => true,
            ScheduleKind::Karras => has_karras,
            ScheduleKind::Exponential => has_karras && Family::of(sampler) == Family::Sigma,
            _ => false,
        };
        if twin { Self::Diffusers } else { Self::Comfy }
    }

    /// Whether the network sees fractional timesteps; if not, the nearest whole one in log sigma.
    ///
    /// diffusers rounds for `karras` in the multistep schedulers and both KDPM2; ComfyUI rounds always.
    pub(super) fn fractional_timesteps(self, sampler: SamplerKind, schedule: ScheduleKind) -> bool {
        let rounds_karras = Family::of(sampler) == Family::Multistep
            || matches!(sampler, SamplerKind::Dpm2 | SamplerKind::Dpm2Ancestral);
        self == Self::Diffusers && !(schedule == ScheduleKind::Karras && rounds_karras)
    }

    /// Whether the schedule is made one step longer and its last sigma above 0 left out; ComfyUI's
    /// `DISCARD_PENULTIMATE_SIGMA_SAMPLERS`.
    pub(super) fn discards_penultimate(self, sampler: SamplerKind) -> bool {
        use SamplerKind as S;
        self == Self::Comfy && matches!(sampler, S::Dpm2 | S::Dpm2Ancestral | S::UniPc)
    }

    /// Whether the first latents have unit variance when divided by sqrt(sigma^2 + 1), and not when divided
    /// by sigma.
    ///
    /// diffusers' `init_noise_sigma`: so in the schedulers that keep unit variance, and with `leading`.
    /// ComfyUI: so when the first sigma is the table's largest (`is_full`).
    pub(super) fn starts_with_unit_variance(
        self,
        sampler: SamplerKind,
        schedule: ScheduleKind,
        is_full: bool,
    ) -> bool {
        match self {
            Self::Diffusers => Family::of(sampler) != Family::Sigma || schedule == ScheduleKind::Leading,
            Self::Comfy => is_full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(holds: impl Fn(SamplerKind, ScheduleKind) -> bool) -> String {
        let pairs = SamplerKind::ALL.iter().flat_map(|&s| ScheduleKind::ALL.iter().map(move |&k| (s, k)));
        let named: Vec<_> = pairs.filter(|&(s, k)| holds(s, k)).map(|(s, k)| format!("{s}+{k}")).collect();
        named.join(" ")
    }

    #[test]
    fn beyond_its_spacings_diffusers_has_these_pairs() {
        let spacing =
            |k| matches!(k, ScheduleKind::Leading | ScheduleKind::Trailing | ScheduleKind::Linspace);
        let twins = pairs(|s, k| !spacing(k) && Rules::of(s, k) == Rules::Diffusers);
        assert_eq!(
            twins,
            "euler+karras euler+exponential heun+karras heun+exponential dpm_2+karras dpm_2+exponential \
             dpm_2_ancestral+karras dpm_2_ancestral+exponential lms+karras lms+exponential \
             dpmpp_sde+karras dpmpp_sde+exponential dpmpp_2m+karras dpmpp_2m_sde+karras uni_pc+karras"
        );
        assert_eq!(pairs(|s, k| spacing(k) && Rules::of(s, k) == Rules::Comfy), "");
    }

    #[test]
    fn these_pairs_leave_out_the_last_sigma_above_zero() {
        let shortened = pairs(|s, k| Rules::of(s, k).discards_penultimate(s));
        assert_eq!(
            shortened,
            "dpm_2+normal dpm_2+sgm_uniform dpm_2+simple dpm_2+ddim_uniform dpm_2+beta \
             dpm_2_ancestral+normal dpm_2_ancestral+sgm_uniform dpm_2_ancestral+simple \
             dpm_2_ancestral+ddim_uniform dpm_2_ancestral+beta \
             uni_pc+normal uni_pc+exponential uni_pc+sgm_uniform uni_pc+simple uni_pc+ddim_uniform \
             uni_pc+beta"
        );
    }
}
