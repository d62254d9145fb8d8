//! What one request asks for, checked: [`GenerateRequest`] and its value types.
//!
//! A value of these types is within its bounds by construction, so nothing behind the edges validates again.

mod effort;
mod finish;
mod picture;
mod resample;
mod sizes;
mod values;

pub use effort::Effort;
pub use finish::{Finish, Kept};
pub use picture::{Mask, Picture};
pub use sizes::{Extent, Sizes};
pub use values::{ClipSkip, Count, Guidance, Prompt, Rescale, Seed, Size, Steps, Strength};

pub use crate::sampler::{SamplerKind, ScheduleKind, UnknownName, parse_pair};

use crate::error::{Error, Result};

/// One request for pictures, whole and checked. Image `k` of it is drawn from `seed + k`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to draw.
    pub prompt: Prompt,
    /// What to steer away from; `None` follows the checkpoint's rule for an absent negative prompt.
    pub negative: Option<Prompt>,
    /// Width and height in pixels of what is drawn.
    pub size: Size,
    /// What then becomes of it: the size of the files, and what they keep of a given picture.
    pub finish: Finish,
    /// Sampler steps.
    pub steps: Steps,
    /// The method that integrates the noise away.
    pub sampler: SamplerKind,
    /// The noise levels that the sampler visits.
    pub schedule: ScheduleKind,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// How far the guided prediction is scaled back to the spread of the unguided one.
    pub rescale: Rescale,
    /// The seed of the first image.
    pub seed: Seed,
    /// How many images.
    pub count: Count,
    /// How many further layers of the text encoders to leave out.
    pub clip_skip: ClipSkip,
    /// From noise, from a picture, or into a part of a picture.
    pub start: Start,
}

/// What the drawing starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// From noise alone.
    Noise,
    /// From a picture, noised by `strength`.
    Picture {
        /// The picture, of the request's size.
        picture: Picture,
        /// How much of the schedule is run.
        strength: Strength,
    },
    /// Into the masked part of a picture.
    Inpaint {
        /// The picture, of the request's size.
        picture: Picture,
        /// The part to draw anew, of the request's size.
        mask: Mask,
        /// How much of the schedule is run.
        strength: Strength,
    },
}

/// What a model draws with where a request is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// The size that the model was trained at.
    pub size: Size,
    /// The sizes that the model draws well.
    pub sizes: Sizes,
    /// Steps that give a finished picture.
    pub steps: Steps,
    /// The sampler of the checkpoint.
    pub sampler: SamplerKind,
    /// The schedule of the checkpoint.
    pub schedule: ScheduleKind,
    /// The guidance that suits the model.
    pub guidance: Guidance,
}

/// A request as far as its sender filled it in, each value already checked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// See [`GenerateRequest::negative`].
    pub negative: Option<Prompt>,
    /// The size of the files.
    pub size: Option<Extent>,
    /// See [`GenerateRequest::steps`].
    pub steps: Option<Steps>,
    /// How many steps where `steps` names none.
    pub effort: Option<Effort>,
    /// See [`GenerateRequest::sampler`].
    pub sampler: Option<SamplerKind>,
    /// See [`GenerateRequest::schedule`].
    pub schedule: Option<ScheduleKind>,
    /// See [`GenerateRequest::guidance`].
    pub guidance: Option<Guidance>,
    /// See [`GenerateRequest::rescale`].
    pub rescale: Option<Rescale>,
    /// See [`GenerateRequest::seed`].
    pub seed: Option<Seed>,
    /// See [`GenerateRequest::count`].
    pub count: Option<Count>,
    /// See [`GenerateRequest::clip_skip`].
    pub clip_skip: Option<ClipSkip>,
    /// The picture to start from.
    pub picture: Option<Picture>,
    /// The part of the picture to draw anew.
    pub mask: Option<Mask>,
    /// How much of the schedule is run on a picture.
    pub strength: Option<Strength>,
}

impl Options {
    /// The steps that are asked for, by number or by effort, of a model that by itself takes `usual` ones.
    pub fn chosen_steps(&self, usual: Steps) -> Steps {
        self.steps.unwrap_or_else(|| self.effort.map_or(usual, |effort| effort.steps(usual)))
    }

    /// Fills what the sender left open from the model's `defaults`, and the seed from `fresh_seed`.
    ///
    /// A picture sets the size of the files where none is given, and is fitted to the size where one is. A size that
    /// the model does not draw well is drawn at the nearest one that it does; the request's [`Finish`] says what makes
    /// a file of that.
    ///
    /// # Errors
    /// If a mask comes without a picture, strength without a picture, or mask and picture differ in size.
    pub fn resolve(self, prompt: Prompt, defaults: &Defaults, fresh_seed: Seed) -> Result<GenerateRequest> {
        let steps = self.chosen_steps(defaults.steps);
        let extent = match (self.size, &self.picture) {
            (Some(size), _) => size,
            (None, Some(picture)) => Extent::holding(picture.width(), picture.height()),
            (None, None) => defaults.size.into(),
        };
        let size = defaults.sizes.nearest(extent);
        let kept = match (&self.picture, &self.mask) {
            (Some(picture), Some(mask)) => Some((picture.clone(), mask.clone())),
            _ => None,
        };
        let start = start(size, self.picture, self.mask, self.strength)?;
        let kept =
            kept.map(|(picture, mask)| Kept { picture: picture.fitted(extent), mask: mask.fitted(extent) });
        Ok(GenerateRequest {
            prompt,
            negative: self.negative,
            size,
            finish: Finish { extent, kept },
            steps,
            sampler: self.sampler.unwrap_or(defaults.sampler),
            schedule: self.schedule.unwrap_or(defaults.schedule),
            guidance: self.guidance.unwrap_or(defaults.guidance),
            rescale: self.rescale.unwrap_or_default(),
            seed: self.seed.unwrap_or(fresh_seed),
            count: self.count.unwrap_or_default(),
            clip_skip: self.clip_skip.unwrap_or_default(),
            start,
        })
    }
}

fn start(
    size: Size,
    picture: Option<Picture>,
    mask: Option<Mask>,
    strength: Option<Strength>,
) -> Result<Start> {
    let Some(picture) = picture else {
        if mask.is_some() {
            return Err(Error::parameter("mask", "mask needs an image to repaint, and none was given"));
        }
        if strength.is_some() {
            return Err(Error::parameter(
                "strength",
                "strength needs an image to start from, and none was given",
            ));
        }
        return Ok(Start::Noise);
    };
    let Some(mask) = mask else {
        let strength = strength.unwrap_or(Strength::PICTURE);
        return Ok(Start::Picture { picture: picture.fitted(size), strength });
    };
    if (mask.width(), mask.height()) != (picture.width(), picture.height()) {
        return Err(Error::parameter(
            "mask",
            format!(
                "mask must be as large as the image, {}x{}; it is {}x{}",
                picture.width(),
                picture.height(),
                mask.width(),
                mask.height()
            ),
        ));
    }
    let strength = strength.unwrap_or(Strength::INPAINT);
    Ok(Start::Inpaint { picture: picture.fitted(size), mask: mask.fitted(size), strength })
}
