//! How to draw: the fields that make [`Options`].

use crate::api::fields::Fields;
use crate::error::{Error, Result};
use crate::request::{Options, Prompt, SamplerKind, ScheduleKind, Size, parse_pair};

/// Takes the fields that say how to draw.
///
/// # Errors
/// If one is out of its bounds or of the wrong type, or two contradict each other.
pub(super) fn options(fields: &mut Fields) -> Result<Options> {
    let (sampler, schedule) = method(fields)?;
    Ok(Options {
        negative: fields.text(&["negative_prompt"], Prompt::negative)?,
        size: fields.text(&["size"], size)?.flatten(),
        steps: fields.whole(&["steps", "num_inference_steps"], str::parse)?,
        sampler,
        schedule,
        guidance: fields.number(&["guidance_scale", "cfg_scale"], str::parse)?,
        rescale: fields.number(&["guidance_rescale"], str::parse)?,
        seed: fields.whole(&["seed"], str::parse)?,
        count: fields.whole(&["n"], str::parse)?,
        clip_skip: fields.whole(&["clip_skip"], str::parse)?,
        picture: None,
        mask: None,
        strength: fields.number(&["strength"], str::parse)?,
    })
}

/// The size asked for; `auto` leaves it to the model.
fn size(text: String) -> Result<Option<Size>> {
    if text == "auto" { Ok(None) } else { text.parse().map(Some) }
}

/// Sampler and schedule. A sampler's name may carry a schedule, as in `DPM++ 2M Karras`.
fn method(fields: &mut Fields) -> Result<(Option<SamplerKind>, Option<ScheduleKind>)> {
    let pair = fields.text(&["sampler"], |text| {
        parse_pair(&text).map_err(|unknown| Error::parameter("sampler", unknown.to_string()))
    })?;
    let schedule = fields.text(&["schedule", "scheduler"], |text| {
        text.parse().map_err(|unknown| Error::parameter("schedule", format!("{unknown}")))
    })?;
    match (pair, schedule) {
        (Some((_, Some(inner))), Some(outer)) if inner != outer => Err(Error::parameter(
            "schedule",
            format!("schedule is {outer}, yet the sampler's name says {inner}"),
        )),
        (Some((sampler, inner)), outer) => Ok((Some(sampler), outer.or(inner))),
        (None, schedule) => Ok((None, schedule)),
    }
}
