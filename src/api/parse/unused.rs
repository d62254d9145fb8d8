//! Fields that are checked and change nothing.

use crate::api::fields::Fields;
use crate::api::shown;
use crate::error::{Error, Result};

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
    Unused { name: "style", known: &["vivid", "natural"], honoured: &[] },
    Unused { name: "user", known: &[], honoured: &[] },
];

/// Checks and names the fields that change nothing here.
///
/// # Errors
/// If one has a value that OpenAI's API does not know.
pub(super) fn unused(fields: &mut Fields) -> Result<()> {
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
    Ok(())
}
