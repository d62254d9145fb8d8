//! From the body of a request to a [`GenerateRequest`]: every field is used, refused by name, or named as ignored.

mod draft;
mod edit;
mod options;
mod reply;
mod unused;
mod variation;

pub(super) use draft::Draft;
pub(super) use edit::{Body, edit};
pub(super) use reply::{Delivery, Reply};
pub(super) use variation::variation;

use super::error::ApiResult;
use super::fields::Fields;
use super::models::Resident;
use crate::error::{Error, Result};
use crate::request::{GenerateRequest, Options, Prompt, Seed};
use std::collections::BTreeSet;

/// What a body asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// What to draw.
    pub request: GenerateRequest,
    /// How the pictures come back.
    pub reply: Reply,
    /// Fields that changed nothing.
    pub ignored: BTreeSet<String>,
}

/// Fields of other routes that would change the picture.
const ELSEWHERE: &[&str] = &["image", "images", "mask"];

/// Reads the body of `POST /v1/images/generations`. `fresh` is the seed of a request that names none.
///
/// # Errors
/// If the body is no JSON object, or a field is out of its bounds, of the wrong type, or cannot be honoured.
pub(super) fn generation(body: &[u8], resident: Resident, fresh: Seed) -> ApiResult<Asked> {
    let mut fields = Fields::parse(body)?;
    let prompt = fields.text(&["prompt"], Prompt::new)?;
    let prompt = prompt.ok_or_else(|| Error::parameter("prompt", "prompt is required"))?;
    from_text_alone(&fields)?;
    let (options, reply) = shared(&mut fields, resident)?;
    let request = options.resolve(prompt, &resident.model.defaults, fresh)?;
    reply.allows(request.count)?;
    Ok(Asked { request, reply, ignored: fields.ignored() })
}

/// Takes the fields that all routes have in common.
fn shared(fields: &mut Fields, resident: Resident) -> ApiResult<(Options, Reply)> {
    if let Some(name) = fields.text(&["model"], Ok)? {
        resident.check(&name)?;
    }
    let options = options::options(fields)?;
    let reply = reply::reply(fields, options.effort)?;
    unused::unused(fields)?;
    Ok((options, reply))
}

/// Refuses the fields of routes that start from a picture.
fn from_text_alone(fields: &Fields) -> Result<()> {
    match ELSEWHERE.iter().find(|name| fields.has(name)) {
        Some(&name) => Err(Error::parameter(
            name,
            format!("{name} is no parameter of this route, which draws from text alone"),
        )),
        None => Ok(()),
    }
}
