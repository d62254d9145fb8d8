//! Schedules and samplers as numbers: which noise levels a picture goes through, and one list of coefficients
//! for each evaluation of the network. Pure f64: no tensor, no random number, no clock.
//!
//! ```text
//! TrainingSpec --> NoiseTable --+
//! SamplerKind, ScheduleKind ----+--> Schedule --[tail(strength)]--> plan() --> Plan { evals, noise_scale }
//! steps, SpacingOptions --------+    sigmas, timesteps                          one Eval a network evaluation
//! ```
//!
//! # How a row uses its plan
//! Latents are `x0 + sigma * noise`, at every sigma (the "variance exploding" way; diffusers' schedulers that
//! keep `(x0 + sigma * noise) / sqrt(sigma^2 + 1)` are brought to it). A row holds four things:
//! ```text
//! from nothing    base = input = plan.noise_scale * noise
//! from a picture  base = input = picture + plan.start_sigma() * noise          (a plan of schedule.tail(strength))
//!                 kept = []   held = 0
//!
//! for eval in plan.evals:
//!     let s  = prediction.scalings(eval.sigma)
//!     D      = s.c_skip * input + s.c_out * network(s.c_in * input, eval.timestep)      guidance happens on D or before
//!     fresh  = eval.draws() ? the next standard normal latents of the row's generator : 0
//!     next   = eval.x * base + eval.denoised * D + sum_k eval.history[k] * kept[k]
//!            + eval.noise * fresh + eval.held_noise * held
//!     kept   = [eval.keep_x * input + eval.keep_denoised * D] ++ kept                   only HISTORY are ever needed
//!     held   = fresh
//!     if eval.commit: base = next                                                       the end of step eval.step
//!     input  = next
//! the picture's latents are input
//! ```
//! Rows of one network call may be at different evaluations of different plans: `sigma`, `timestep` and the
//! coefficients are then one number a row, broadcast over its latents. `kept[k]` counts as 0 where it does
//! not exist yet.
//!
//! Drawing: the initial noise first, then one draw for each evaluation with `noise != 0`, in order. diffusers
//! draws from the same generator in the same order; it also draws where the coefficient is 0, but that
//! happens only in the last step, after which nothing is drawn.
//!
//! # Whose picture it is
//! Where diffusers has the pair of sampler and schedule, sigmas, timesteps, noise scale and last step are
//! diffusers': `leading`, `trailing` and `linspace` for every sampler; `karras` for euler, heun, dpm_2,
//! dpm_2_ancestral, lms, dpmpp_sde, dpmpp_2m, dpmpp_2m_sde and uni_pc; `exponential` for the first six of
//! those (in diffusers with `timestep_spacing="linspace"`, which spans the whole table as ComfyUI does). All
//! other pairs are ComfyUI's. Known deviations, each told where it is made:
//! - `dpmpp_sde` draws its Brownian path from the row's generator, not from torchsde's tree;
//! - in diffusers' and ComfyUI's pairs alike `uni_pc` is diffusers' of order 2 (`bh2`), not ComfyUI's of
//!   order 3;
//! - `dpmpp_3m_sde` is k-diffusion's with every schedule, diffusers' formula being wrong;
//! - `lcm` with a spacing of diffusers takes LCMScheduler's own timesteps, whichever the spacing;
//! - `ddim_uniform` and `beta` always have the number of steps asked for;
//! - one step of `karras` or `exponential` starts at the largest sigma (diffusers' Euler and kin: at the
//!   smallest);
//! - `lms` from a picture starts at order 1 (diffusers weighs derivatives that it does not have);
//! - where diffusers leaves its table or repeats a timestep, at about one step per training timestep, steps
//!   are spread;
//! - with zero terminal SNR the largest sigma is 4096 for every sampler (diffusers' DDIM, DDPM and LCM:
//!   infinite).

pub mod ddpm;
pub mod error;
pub mod names;
pub mod plans;
pub mod prediction;
mod quantile;
mod rules;
pub mod schedule;
mod spacing;
#[cfg(test)]
mod testing;

pub use ddpm::{BetaSchedule, NoiseTable, TrainingSpec};
pub use error::SamplerError;
pub use names::{SamplerKind, ScheduleKind, UnknownName, parse_pair};
pub use plans::{Eval, HISTORY, Plan, plan};
pub use prediction::{Prediction, Scalings};
pub use schedule::{Schedule, SpacingOptions};
