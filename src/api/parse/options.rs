//! How to draw: the fields that make [`Options`].

use crate::api::fields::Fields;
use crate::api::shown;
use crate::error::{Error, Result};
use crate::request::{Effort, Extent, Options, Prompt, SamplerKind, ScheduleKind, Steps, parse_pair};

/// Takes the fields that say how to draw.
///
/// # Errors
/// If one is out of its bounds or of the wrong type, or two contradict each other.
pub(super) fn options(fields: &mut Fields) -> Result<Options> {
    let (sampler, schedule) = method(fields)?;
    let (steps, effort) = steps(fields)?;
    Ok(Options {
        negative: fields.text(&["negative_prompt"], Prompt::negative)?,
        size: fields.text(&["size"], size)?.flatten(),
        steps,
        effort,
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
fn size(text: String) -> Result<Option<Extent>> {
    if text == "auto" { Ok(None) } else { text.parse().map(Some) }
}

/// The steps, or else the effort that `quality` asks for. Steps that are named win over any effort but the default,
/// which asks for nothing.
fn steps(fields: &mut Fields) -> Result<(Option<Steps>, Option<Effort>)> {
    let steps = fields.whole(&["steps", "num_inference_steps"], str::parse)?;
    let effort = fields.text(&["quality"], effort)?.flatten();
    if steps.is_some() && effort.is_some() {
        fields.ignore("quality");
        return Ok((steps, None));
    }
    Ok((steps, effort))
}

/// OpenAI's names of efforts; `auto` leaves it to the model.
fn effort(quality: String) -> Result<Option<Effort>> {
    match quality.as_str() {
        "auto" => Ok(None),
        "low" => Ok(Some(Effort::Low)),
        "medium" | "standard" => Ok(Some(Effort::Medium)),
        "high" | "hd" => Ok(Some(Effort::High)),
        "xhigh" => Ok(Some(Effort::VeryHigh)),
        "max" => Ok(Some(Effort::Highest)),
        other => Err(Error::parameter(
            "quality",
            format!(
                "quality must be one of auto, low, medium, high, xhigh, max, standard, hd; got '{}'",
                shown(other)
            ),
        )),
    }
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
