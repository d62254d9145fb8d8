//! Whose rules a pair of sampler and schedule follows, diffusers' or ComfyUI's, and what depends on that.
//!
//! The principle: where diffusers has the pair, everything is diffusers' (sigmas, timesteps, noise scale, last step), so
//! that the picture is diffusers'; where it has not, everything is ComfyUI's.

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
    /// Those taken from k-diffusion, on unscaled latents: Euler, Euler ancestral, Heun, KDPM2 (both), LMS, DPMSolverSDE.
    Sigma,
    /// DDPM and DDIM: whole timesteps, latents of unit variance.
    Discrete,
    /// DPMSolverMultistep and UniPC: whole timesteps spaced as if there were one step more, latents of unit variance.
    Multistep,
    /// LCM: a subset of its own 50 timesteps, latents of unit variance.
    Lcm,
}

impl Family {
    /// The family of a sampler. `dpmpp_2s_ancestral` and `dpmpp_3m_sde`, which diffusers has not, are put with their kin.
    pub(super) fn of(sampler: SamplerKind) -> Self {
        use SamplerKind as S;
        match sampler {
            S::Euler | S::EulerAncestral | S::Heun | S::Dpm2 | S::Dpm2Ancestral => Self::Sigma,
            S::Lms | S::DpmPpSde | S::DpmPp2sAncestral => Self::Sigma,
            S::DpmPp2m | S::DpmPp2mSde | S::DpmPp3mSde | S::UniPc => Self::Multistep,
            S::Ddpm | S::Ddim => Self::Discrete,
            S::Lcm => Self::Lcm,
        }
    }
}

impl Rules {
    /// The rules for a pair.
    ///
    /// `leading`, `trailing` and `linspace` are diffusers' always. `karras` and `exponential` are diffusers' for the
    /// schedulers with `use_karras_sigmas` or `use_exponential_sigmas`, at `timestep_spacing="linspace"`, where those span
    /// the whole table as ComfyUI's do; but the multistep schedulers *truncate* the timesteps of `exponential`, an
    /// oversight that is not copied. diffusers' `use_beta_sigmas` is another schedule than ComfyUI's `beta`.
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
}
