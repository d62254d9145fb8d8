//! A request that starts from a picture, from its body to its decoded pictures.

use super::{Asked, Reply};
use crate::api::error::ApiResult;
use crate::api::inputs::{Inputs, Source};
use crate::api::models::Resident;
use crate::error::{Error, Result};
use crate::output::{Limits, read_cutout, read_mask, read_picture};
use crate::request::{Mask, Options, Picture, Prompt, Seed, Strength};
use actix_web::web::Bytes;
use std::collections::BTreeSet;

/// A request whose pictures have not been decoded, and may not even be there.
#[derive(Debug)]
pub(in crate::api) struct Draft {
    /// The pictures.
    pub inputs: Inputs,
    pub(super) prompt: Prompt,
    pub(super) options: Options,
    pub(super) reply: Reply,
    pub(super) ignored: BTreeSet<String>,
    /// Whether transparent parts of the picture are its mask where no other is given.
    pub(super) cut_out: bool,
    pub(super) strengths: Strengths,
}

/// How much of the schedule runs on a picture where the request does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Strengths {
    /// Without a mask.
    pub picture: Strength,
    /// Within a mask.
    pub masked: Strength,
}

impl Draft {
    /// Decodes the pictures, which must be there by now, and fills in what the request left open. `fresh` is the seed
    /// of a request that names none.
    ///
    /// # Errors
    /// If a picture cannot be read, or the mask is of another size.
    pub fn resolve(self, resident: Resident, fresh: Seed) -> ApiResult<Asked> {
        let Self { inputs, prompt, mut options, reply, ignored, cut_out, strengths } = self;
        let (picture, mask) = decode(&inputs, cut_out)?;
        let default = if mask.is_some() { strengths.masked } else { strengths.picture };
        let steps = options.chosen_steps(resident.model.defaults.steps);
        options.strength = options.strength.or(Some(default.leaving_a_step(steps)));
        options.picture = Some(picture);
        options.mask = mask;
        let request = options.resolve(prompt, &resident.model.defaults, fresh)?;
        reply.allows(request.count)?;
        Ok(Asked { request, reply, ignored })
    }
}

fn decode(inputs: &Inputs, cut_out: bool) -> Result<(Picture, Option<Mask>)> {
    let limits = Limits::default();
    let (image, param) = (file(&inputs.image.source)?, inputs.image.param);
    match &inputs.mask {
        Some(mask) => {
            let mask = read_mask(file(&mask.source)?, mask.param, limits)?;
            Ok((read_picture(image, param, limits)?, Some(mask)))
        }
        None if cut_out => read_cutout(image, param, limits),
        None => Ok((read_picture(image, param, limits)?, None)),
    }
}

fn file(source: &Source) -> Result<&Bytes> {
    match source {
        Source::File(file) => Ok(file),
        Source::Url(_) => Err(Error::internal("a picture was to be decoded before it was fetched")),
    }
}
