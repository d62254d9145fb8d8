//! The body of `POST /v1/images/variations`.

use super::draft::{Draft, Strengths};
use super::{Delivery, shared};
use crate::api::error::ApiResult;
use crate::api::fields::Fields;
use crate::api::inputs::Inputs;
use crate::api::models::Resident;
use crate::api::multipart::Form;
use crate::error::Error;
use crate::request::{Guidance, Prompt, Strength};

/// A variation has no mask.
const STRENGTHS: Strengths = Strengths { picture: Strength::VARIATION, masked: Strength::VARIATION };

/// Fields of other routes that would change the picture.
const ELSEWHERE: &[&str] = &["prompt", "mask", "images", "input_fidelity"];

/// Reads the body of `POST /v1/images/variations`.
///
/// The prompt is empty, and guidance has nothing to guide to, so that it is off unless it is asked for.
///
/// # Errors
/// If a field is out of its bounds, of the wrong type, cannot be honoured, or would change the picture on another
/// route.
pub(in crate::api) fn variation(mut form: Form, resident: Resident) -> ApiResult<Draft> {
    let mut inputs = Inputs::of_form(&mut form)?;
    let mut fields = Fields::of_form(form.texts);
    let mask = inputs.mask.take().map(|_| "mask");
    if let Some(name) = mask.or_else(|| ELSEWHERE.iter().copied().find(|name| fields.has(name))) {
        return Err(elsewhere(name).into());
    }
    let (mut options, reply) = shared(&mut fields, resident)?;
    if let Delivery::Stream { .. } = reply.delivery {
        return Err(elsewhere("stream").into());
    }
    if options.guidance.is_none() && options.negative.is_none() {
        options.guidance = Some(Guidance::new(1.0)?);
    }
    let ignored = fields.ignored();
    Ok(Draft {
        inputs,
        prompt: Prompt::empty(),
        options,
        reply,
        ignored,
        cut_out: false,
        strengths: STRENGTHS,
    })
}

fn elsewhere(name: &'static str) -> Error {
    Error::parameter(name, format!("{name} is no parameter of this route, which draws from a picture alone"))
}
