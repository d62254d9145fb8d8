//! From the body of a request to a [`GenerateRequest`]: every field is used, refused by name, or named as ignored.

use super::error::ApiResult;
use super::fields::Fields;
use super::{models, shown};
use crate::engine::Model;
use crate::error::{Error, Result};
use crate::output::{Format, Quality};
use crate::request::{GenerateRequest, Options, Prompt, Seed, Size};
use crate::request::{SamplerKind, ScheduleKind, parse_pair};
use std::collections::BTreeSet;

/// What a body asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// What to draw.
    pub request: GenerateRequest,
    /// What to write it as.
    pub format: Format,
    /// Fields that changed nothing.
    pub ignored: BTreeSet<String>,
}

/// A field of OpenAI's that is checked and not used.
struct Unused {
    name: &'static str,
    /// The values it may have; none listed means any.
    known: &'static [&'static str],
    /// The values that are what this server does anyway.
    honoured: &'static [&'static str],
}

const UNUSED: &[Unused] = &[
    Unused { name: "background", known: &["transparent", "opaque", "auto"], honoured: &["opaque", "auto"] },
    Unused { name: "moderation", known: &["low", "auto"], honoured: &[] },
    Unused {
        name: "quality",
        known: &["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"],
        honoured: &["auto"],
    },
    Unused { name: "style", known: &["vivid", "natural"], honoured: &[] },
    Unused { name: "user", known: &[], honoured: &[] },
];

/// Fields of other routes that would change the picture.
const ELSEWHERE: &[&str] = &["image", "images", "mask"];

/// The most previews that OpenAI sends.
const MOST_PREVIEWS: i64 = 3;

/// Reads the body of `POST /v1/images/generations`. `fresh` is the seed of a request that names none.
///
/// # Errors
/// If the body is no JSON object, or a field is out of its bounds, of the wrong type, or cannot be honoured.
pub(super) fn generation(body: &[u8], model: &Model, fresh: Seed) -> ApiResult<Asked> {
    let mut fields = Fields::parse(body)?;
    if let Some(name) = fields.text(&["model"], Ok)? {
        models::check(&name, model)?;
    }
    let prompt = fields.text(&["prompt"], Prompt::new)?;
    let prompt = prompt.ok_or_else(|| Error::parameter("prompt", "prompt is required"))?;
    let options = options(&mut fields)?;
    let format = format(&mut fields)?;
    refuse(&mut fields)?;
    unused(&mut fields)?;
    let request = options.resolve(prompt, &model.defaults, fresh)?;
    Ok(Asked { request, format, ignored: fields.ignored() })
}

fn options(fields: &mut Fields) -> Result<Options> {
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

fn format(fields: &mut Fields) -> Result<Format> {
    let quality = fields.whole(&["output_compression"], |text| match text.parse() {
        Ok(value) => Quality::new(value),
        Err(_) => Err(Error::parameter(
            "output_compression",
            format!("output_compression must be a whole number from 0 to 100; got {}", shown(text)),
        )),
    })?;
    let quality = quality.unwrap_or_default();
    let format = fields.text(&["output_format"], |name| Format::named(&name, quality))?;
    format.map_or_else(|| Format::named("png", quality), Ok)
}

/// Refuses what would make another answer than the one that comes.
fn refuse(fields: &mut Fields) -> Result<()> {
    if let Some(&name) = ELSEWHERE.iter().find(|name| fields.has(name)) {
        return Err(Error::parameter(
            name,
            format!("{name} is no parameter of this route, which draws from text alone"),
        ));
    }
    if fields.flag("stream")? == Some(true) {
        return Err(Error::parameter(
            "stream",
            "stream is not supported yet; send false, or leave stream out",
        ));
    }
    fields.text(&["response_format"], |format| match format.as_str() {
        "b64_json" => Ok(()),
        "url" => Err(Error::parameter(
            "response_format",
            "response_format url is not supported yet; send b64_json, or leave response_format out",
        )),
        other => Err(Error::parameter(
            "response_format",
            format!("response_format must be b64_json; got '{}'", shown(other)),
        )),
    })?;
    Ok(())
}

/// Checks and names the fields that change nothing here.
fn unused(fields: &mut Fields) -> Result<()> {
    for Unused { name, known, honoured } in UNUSED {
        let given = fields.text(&[name], |text| {
            if known.is_empty() || known.contains(&text.as_str()) {
                return Ok(text);
            }
            let message = format!("{name} must be one of {}; got '{}'", known.join(", "), shown(&text));
            Err(Error::parameter(name, message))
        })?;
        if given.is_some_and(|text| !honoured.contains(&text.as_str())) {
            fields.ignore(name);
        }
    }
    let previews = fields.whole(&["partial_images"], |text| match text.parse() {
        Ok(value @ 0..=MOST_PREVIEWS) => Ok(value),
        _ => Err(Error::parameter(
            "partial_images",
            format!("partial_images must be a whole number from 0 to {MOST_PREVIEWS}; got {}", shown(text)),
        )),
    })?;
    if previews.is_some_and(|previews| previews > 0) {
        fields.ignore("partial_images");
    }
    Ok(())
}
