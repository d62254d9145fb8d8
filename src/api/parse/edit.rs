//! The body of `POST /v1/images/edits`.

use super::draft::{Draft, Strengths};
use super::shared;
use crate::api::error::ApiResult;
use crate::api::fields::Fields;
use crate::api::inputs::Inputs;
use crate::api::models::Resident;
use crate::api::multipart::Form;
use crate::api::shown;
use crate::error::{Error, Result};
use crate::request::{Prompt, Strength};
use actix_web::web::Bytes;

/// The body of an edit, which comes in two kinds.
#[derive(Debug)]
pub(in crate::api) enum Body {
    /// JSON, not read yet.
    Json(Bytes),
    /// A form.
    Form(Form),
}

/// Without a mask the prompt has to change what is there, so more is redrawn than diffusers' 0.3.
const LOW_FIDELITY: Strengths = Strengths { picture: Strength::EDIT, masked: Strength::INPAINT };
/// Where `input_fidelity` is high.
const HIGH_FIDELITY: Strengths =
    Strengths { picture: Strength::FAITHFUL_EDIT, masked: Strength::FAITHFUL_INPAINT };

/// Reads the body of `POST /v1/images/edits`.
///
/// # Errors
/// If it is no JSON object, or a field is out of its bounds, of the wrong type, or cannot be honoured.
pub(in crate::api) fn edit(body: Body, resident: Resident) -> ApiResult<Draft> {
    let (mut fields, inputs) = match body {
        Body::Json(body) => {
            let mut fields = Fields::parse(&body)?;
            drop(body);
            let inputs = Inputs::of_json(&mut fields)?;
            (fields, inputs)
        }
        Body::Form(mut form) => {
            let inputs = Inputs::of_form(&mut form)?;
            (Fields::of_form(form.texts), inputs)
        }
    };
    let prompt = fields.text(&["prompt"], Prompt::new)?;
    let prompt = prompt.ok_or_else(|| Error::parameter("prompt", "prompt is required"))?;
    let high = fidelity(&mut fields)?;
    let (options, reply) = shared(&mut fields, resident)?;
    if high.is_some() && options.strength.is_some() {
        fields.ignore("input_fidelity");
    }
    let strengths = if high == Some(true) { HIGH_FIDELITY } else { LOW_FIDELITY };
    Ok(Draft { inputs, prompt, options, reply, ignored: fields.ignored(), cut_out: true, strengths })
}

/// Whether much of the picture is to stay; none where the request does not say.
fn fidelity(fields: &mut Fields) -> Result<Option<bool>> {
    fields.text(&["input_fidelity"], |text| match text.as_str() {
        "high" => Ok(true),
        "low" => Ok(false),
        other => Err(Error::parameter(
            "input_fidelity",
            format!("input_fidelity must be high or low; got '{}'", shown(other)),
        )),
    })
}
