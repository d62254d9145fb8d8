//! `multipart/form-data`: a form's texts and pictures, each part bounded while it is read.

use super::body::{self, Bounds};
use super::error::{ApiError, ApiResult, Fault};
use super::room::Hold;
use super::shown;
use crate::error::{Error, ImageFlaw};
use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::error::PayloadError;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use futures_util::stream::{Stream, StreamExt};
use serde_json::{Map, Value};

/// The largest picture file in bytes, OpenAI's bound.
pub(super) const MOST_FILE: usize = 50 << 20;

/// The most parts: twice the fields that there are.
const MOST_PARTS: usize = 64;

/// The largest text in bytes: more than any prompt needs.
const MOST_TEXT: usize = 256 << 10;

/// All texts together, in bytes.
const MOST_TEXTS: usize = 1 << 20;

/// A picture, its mask, the texts, and what stands around them.
const BOUNDS: Bounds = Bounds::of(2 * MOST_FILE + (4 << 20));

/// A form that has been read.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The texts by name, in the order in which they came. A file where none is read stands as an empty object.
    pub texts: Vec<(String, Value)>,
    /// The picture: a part named `image`, `image[]` or `image[0]`.
    pub image: Option<Bytes>,
    /// The mask.
    pub mask: Option<Bytes>,
}

/// What a part is, by its name.
enum Part {
    Image,
    Mask,
    /// A text, or, with a file's name, a file that nobody reads.
    Other {
        name: String,
        is_file: bool,
    },
}

/// Reads a form. What it takes is held in `hold`.
///
/// # Errors
/// If the body is no form, breaks off, or one of its parts is out of its bounds; more pictures than one are refused as
/// `image`.
pub(super) async fn form<S>(headers: &HeaderMap, payload: S, hold: &mut Hold) -> ApiResult<Form>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
{
    let mut parts = Multipart::new(headers, body::bounded(payload, BOUNDS));
    let (mut form, mut count) = (Form::default(), 0);
    while let Some(field) = parts.next().await {
        let mut reading = Reading { field: field.map_err(broken)?, hold };
        count += 1;
        if count > MOST_PARTS {
            return Err(refused(format!("the form has more than {MOST_PARTS} parts")));
        }
        match part(&reading.field) {
            Part::Image => {
                let one = "image is one picture: this model edits one; got more than one";
                picture(&mut reading, &mut form.image, "image", one).await?;
            }
            Part::Mask => {
                picture(&mut reading, &mut form.mask, "mask", "mask is given more than once").await?;
            }
            Part::Other { name, is_file: true } => {
                reading.skip().await?;
                form.texts.push((name, Value::Object(Map::new())));
            }
            Part::Other { name, is_file: false } => {
                let text = reading.text(&name).await?;
                form.texts.push((name, Value::String(text)));
                let all: usize = form.texts.iter().map(|(name, text)| name.len() + length(text)).sum();
                if all > MOST_TEXTS {
                    return Err(refused(format!("the form's texts are more than {MOST_TEXTS} bytes")));
                }
            }
        }
    }
    Ok(form)
}

fn length(text: &Value) -> usize {
    text.as_str().map_or(0, str::len)
}

/// What the name of a part says. SDKs write lists as `image[]`, some with the number inside.
fn part(field: &Field) -> Part {
    let name = field.name().unwrap_or("");
    let index = name.strip_prefix("image").and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
    let is_image = name == "image" || index.is_some_and(|index| index.bytes().all(|c| c.is_ascii_digit()));
    match name {
        _ if is_image => Part::Image,
        "mask" => Part::Mask,
        _ => {
            let file = field.content_disposition().and_then(|said| said.get_filename());
            Part::Other { name: name.to_owned(), is_file: file.is_some() }
        }
    }
}

/// Reads a picture into its place, where none may be yet.
async fn picture(
    reading: &mut Reading<'_>,
    place: &mut Option<Bytes>,
    param: &'static str,
    once: &'static str,
) -> ApiResult<()> {
    if place.is_some() {
        return Err(Error::parameter(param, once).into());
    }
    let file = reading.bytes(MOST_FILE).await?.ok_or_else(|| {
        let message = format!("{param} is a file of more than {MOST_FILE} bytes, the most that is read");
        ApiError::from(Error::flawed(param, ImageFlaw::FileTooLarge, message))
    })?;
    // A browser sends a file that was not chosen as an empty one without a name.
    let said = reading.field.content_disposition();
    let is_nameless = said.and_then(|said| said.get_filename()).is_none_or(str::is_empty);
    if !(file.is_empty() && is_nameless) {
        *place = Some(file.into());
    }
    Ok(())
}

/// A part that is being read.
struct Reading<'a> {
    field: Field,
    hold: &'a mut Hold,
}

impl Reading<'_> {
    /// The part's bytes; `None` if they are more than `most`.
    async fn bytes(&mut self, most: usize) -> ApiResult<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.field.next().await {
            let chunk = chunk.map_err(broken)?;
            if bytes.len() + chunk.len() > most {
                return Ok(None);
            }
            self.hold.grow(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The part as a text.
    async fn text(&mut self, name: &str) -> ApiResult<String> {
        /// The texts that people write by the page, for the error's parameter.
        const LONG: [&str; 2] = ["prompt", "negative_prompt"];
        let Some(bytes) = self.bytes(MOST_TEXT).await? else {
            let message = format!("{} has more than {MOST_TEXT} bytes", shown(name));
            return Err(match LONG.into_iter().find(|long| *long == name) {
                Some(param) => Error::parameter(param, message).into(),
                None => refused(message),
            });
        };
        let name = shown(name);
        String::from_utf8(bytes).map_err(|bad| {
            refused(format!("the text of {name} is not UTF-8 from byte {}", bad.utf8_error().valid_up_to()))
        })
    }

    /// Reads the part and keeps nothing of it.
    async fn skip(&mut self) -> ApiResult<()> {
        while let Some(chunk) = self.field.next().await {
            chunk.map_err(broken)?;
        }
        Ok(())
    }
}

fn refused(message: String) -> ApiError {
    ApiError::new(Fault::Body, message)
}

/// Why a form could not be read.
fn broken(cause: MultipartError) -> ApiError {
    let words = match cause {
        MultipartError::Payload(PayloadError::Overflow) => {
            "the headers of a part, or a line before the first one, are longer than 64 KiB".into()
        }
        MultipartError::Payload(cause) => return body::broken(&cause, BOUNDS),
        MultipartError::ContentTypeParse => "the content-type cannot be read".into(),
        MultipartError::BoundaryMissing => {
            "the boundary is missing in the content-type, or a part does not end with it".into()
        }
        MultipartError::Incomplete => "it is cut short".into(),
        MultipartError::ContentDispositionMissing | MultipartError::ContentDispositionNameMissing => {
            "a part has no content-disposition of form-data with a name".into()
        }
        MultipartError::Nested => "a part is multipart itself".into(),
        MultipartError::Parse(cause) => format!("the headers of a part cannot be read: {cause}"),
        other => other.to_string(),
    };
    refused(format!("the multipart body cannot be read: {words}"))
}
