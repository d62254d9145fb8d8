//! The pictures that a request brings: where each comes from, until its file is there.

use super::data_url;
use super::error::ApiResult;
use super::fetch::Fetcher;
use super::fields::Fields;
use super::multipart::Form;
use super::room::Hold;
use crate::error::{Error, Result};
use actix_web::web::Bytes;
use serde_json::Value;

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// It came with the request.
    File(Bytes),
    /// It is to be fetched.
    Url(String),
}

/// A picture of a request, under the name by which the caller knows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    /// The parameter that an error names.
    pub param: &'static str,
    /// Where it comes from.
    pub source: Source,
}

/// The picture to start from, and the mask.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inputs {
    /// The picture.
    pub image: Input,
    /// The mask, if one was given.
    pub mask: Option<Input>,
}

impl Inputs {
    /// Takes the pictures of a form.
    ///
    /// # Errors
    /// If there is none to start from.
    pub fn of_form(form: &mut Form) -> Result<Self> {
        let input = |param, file| Input { param, source: Source::File(file) };
        let image = form.image.take().ok_or_else(|| Error::parameter("image", "image is required"))?;
        Ok(Self { image: input("image", image), mask: form.mask.take().map(|file| input("mask", file)) })
    }

    /// Takes `images` or `image`, and `mask`, out of a JSON body: OpenAI's `{"image_url": ...}`, or the URL alone.
    ///
    /// # Errors
    /// If there is not one picture to start from, or one is given in a way that is not read.
    pub fn of_json(fields: &mut Fields) -> Result<Self> {
        let given = fields.value(&["images", "image"])?;
        let (name, value) =
            given.ok_or_else(|| Error::parameter("images", "images is required: a list of one picture"))?;
        let image = referred(one(value, name)?, if name == "images" { &IMAGES } else { &IMAGE })?;
        let mask = fields.value(&["mask"])?.map(|(_, value)| referred(value, &MASK)).transpose()?;
        Ok(Self { image, mask })
    }

    /// Fetches what is to be fetched, into `hold`.
    ///
    /// # Errors
    /// If a URL may not be fetched, or cannot be.
    pub async fn fetch(&mut self, fetcher: &Fetcher, hold: &mut Hold) -> ApiResult<()> {
        for input in [Some(&mut self.image), self.mask.as_mut()].into_iter().flatten() {
            if let Source::Url(url) = &input.source {
                input.source = Source::File(fetcher.fetch(url, input.param, hold).await?);
            }
        }
        Ok(())
    }
}

/// A reference to a picture, with the names of its parts for errors.
struct Names {
    whole: &'static str,
    url: &'static str,
    file: &'static str,
}

const IMAGES: Names = Names { whole: "images", url: "images[0].image_url", file: "images[0].file_id" };
const IMAGE: Names = Names { whole: "image", url: "image.image_url", file: "image.file_id" };
const MASK: Names = Names { whole: "mask", url: "mask.image_url", file: "mask.file_id" };

/// The one picture of a list, or a picture that stands by itself.
fn one(value: Value, name: &'static str) -> Result<Value> {
    let Value::Array(list) = value else { return Ok(value) };
    <[Value; 1]>::try_from(list).map(|[one]| one).map_err(|list| {
        let count = list.len();
        Error::parameter(name, format!("{name} must hold one picture: this model edits one; got {count}"))
    })
}

fn referred(value: Value, names: &Names) -> Result<Input> {
    let must = |param, what: &str| Err(Error::parameter(param, format!("{param} must be {what}")));
    let mut parts = match value {
        Value::String(url) => return source(url, names.whole),
        Value::Object(parts) => parts,
        _ => return must(names.whole, r#"{"image_url": "data:image/png;base64,..."}"#),
    };
    if parts.get("file_id").is_some_and(|id| !id.is_null()) {
        return must(names.file, "left out: this server keeps no files; give image_url a data URL");
    }
    match parts.remove("image_url") {
        Some(Value::String(url)) => source(url, names.url),
        Some(_) => must(names.url, "a string"),
        None => must(names.url, "given"),
    }
}

fn source(url: String, param: &'static str) -> Result<Input> {
    let source = match data_url::is_one(&url) {
        true => Source::File(data_url::decode(&url, param)?.into()),
        false => Source::Url(url),
    };
    Ok(Input { param, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "data:image/png;base64,iVBORw0KGgo=";

    fn inputs(body: &str) -> Result<Inputs> {
        Inputs::of_json(&mut Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_picture_is_read_in_every_way_that_clients_write_it() {
        for (images, param) in [
            (format!(r#""images": [{{"image_url": "{FILE}"}}]"#), "images[0].image_url"),
            (format!(r#""images": [{{"image_url": "{FILE}", "file_id": null}}]"#), "images[0].image_url"),
            (format!(r#""images": ["{FILE}"]"#), "images"),
            (format!(r#""image": "{FILE}""#), "image"),
            (format!(r#""image": ["{FILE}"]"#), "image"),
        ] {
            let read = inputs(&format!(r#"{{{images}, "mask": {{"image_url": "https://a/b"}}}}"#)).unwrap();
            let file = Source::File(Bytes::from_static(b"\x89PNG\r\n\x1a\n"));
            assert_eq!(read.image, Input { param, source: file });
            let mask = Input { param: "mask.image_url", source: Source::Url("https://a/b".into()) };
            assert_eq!(read.mask, Some(mask));
        }
    }

    #[test]
    fn what_is_not_one_picture_is_refused_by_name() {
        for (body, param, word) in [
            (r#"{}"#, "images", "required"),
            (r#"{"images": []}"#, "images", "got 0"),
            (r#"{"images": ["a", "b"]}"#, "images", "got 2"),
            (r#"{"images": [{}]}"#, "images[0].image_url", "given"),
            (r#"{"images": [{"file_id": "f"}]}"#, "images[0].file_id", "keeps no files"),
            (r#"{"images": [{"image_url": 1}]}"#, "images[0].image_url", "a string"),
            (r#"{"images": [7]}"#, "images", "image_url"),
            (r#"{"images": ["a"], "image": "a"}"#, "image", "same parameter"),
            (r#"{"images": ["a"], "mask": {"file_id": "f"}}"#, "mask.file_id", "keeps no files"),
            (r#"{"images": ["a"], "mask": "data:x"}"#, "mask", "base64"),
        ] {
            let refused = inputs(body).unwrap_err();
            assert_eq!(refused.param(), Some(param), "{refused}");
            assert!(refused.message().contains(word), "{refused}");
        }
    }
}
