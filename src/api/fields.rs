//! The fields of a body, taken one by one by name; what nobody takes has been ignored.
//!
//! A form has only texts: numbers and truth values are read from them as JSON writes them.

use super::error::{ApiError, ApiResult, Fault};
use super::shown;
use crate::error::{Error, Result};
use serde_json::{Map, Number, Value};
use std::collections::BTreeSet;

/// The fields that have not been taken yet. A field that is null counts as absent.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    ignored: BTreeSet<String>,
    /// Whether they came as a form.
    is_form: bool,
    /// Names that a form gives more than once.
    repeated: BTreeSet<String>,
}

/// A field as the caller spelled it, with its value, which is not null.
struct Given {
    name: &'static str,
    value: Value,
    is_form: bool,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is not UTF-8, not JSON, or no object.
    pub(super) fn parse(body: &[u8]) -> ApiResult<Self> {
        let refused = |message: String| ApiError::new(Fault::Body, message);
        let text = std::str::from_utf8(body)
            .map_err(|bad| refused(format!("the body is not UTF-8 from byte {}", bad.valid_up_to())))?;
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => {
                Ok(Self { map, ignored: BTreeSet::new(), is_form: false, repeated: BTreeSet::new() })
            }
            Ok(other) => Err(refused(format!("the body must be a JSON object; got {}", described(&other)))),
            Err(bad) => Err(refused(format!("the body is not JSON: {bad}"))),
        }
    }

    /// The fields of a form. An empty text counts as absent, since that is how SDKs write null; a value that is no text
    /// is a file where none is read.
    pub(super) fn of_form(texts: Vec<(String, Value)>) -> Self {
        let (mut map, mut repeated) = (Map::new(), BTreeSet::new());
        for (name, value) in texts {
            if value.as_str().is_some_and(str::is_empty) {
                continue;
            }
            if map.insert(name.clone(), value).is_some() {
                repeated.insert(name);
            }
        }
        Self { map, ignored: BTreeSet::new(), is_form: true, repeated }
    }

    /// Takes a value of any type by any of its `names`, with the name that it has.
    pub(super) fn value(&mut self, names: &[&'static str]) -> Result<Option<(&'static str, Value)>> {
        Ok(self.take(names)?.map(|given| (given.name, given.value)))
    }

    /// Takes a text by any of its `names`.
    pub(super) fn text<T>(
        &mut self,
        names: &[&'static str],
        check: impl FnOnce(String) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(given) = self.take(names)? else { return Ok(None) };
        match given.value {
            Value::String(text) => check(text).map(Some).map_err(|error| respelled(error, given.name)),
            _ => Err(given.must_be("a string")),
        }
    }

    /// Takes a whole number by any of its `names`, as decimal text; `4.0` is the whole number 4, as in JSON Schema.
    pub(super) fn whole<T>(
        &mut self,
        names: &[&'static str],
        check: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.digits(names, "a whole number", |number| check(&whole_text(number)))
    }

    /// Takes a number by any of its `names`, as decimal text.
    pub(super) fn number<T>(
        &mut self,
        names: &[&'static str],
        check: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.digits(names, "a number", |number| check(&number.to_string()))
    }

    /// Takes a JSON number by any of its `names`; anything else must be `what`.
    fn digits<T>(
        &mut self,
        names: &[&'static str],
        what: &'static str,
        check: impl FnOnce(&Number) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(given) = self.take(names)? else { return Ok(None) };
        let read: Option<Number> = match &given.value {
            Value::Number(number) => Some(number.clone()),
            Value::String(text) if given.is_form => text.parse().ok(),
            _ => None,
        };
        let number = read.ok_or_else(|| given.must_be(what))?;
        check(&number).map(Some).map_err(|error| respelled(error, given.name))
    }

    /// Takes a truth value.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>> {
        let Some(given) = self.take(&[name])? else { return Ok(None) };
        let read = match given.value.as_str().filter(|_| given.is_form) {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => given.value.as_bool(),
        };
        read.map(Some).ok_or_else(|| given.must_be("true or false"))
    }

    /// Whether the field is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes that a field was read and then not used.
    pub(super) fn ignore(&mut self, name: &str) {
        self.ignored.insert(name.to_owned());
    }

    /// The names of all fields that were ignored, in order.
    pub(super) fn ignored(mut self) -> BTreeSet<String> {
        self.ignored.extend(self.map.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name));
        self.ignored
    }

    fn take(&mut self, names: &[&'static str]) -> Result<Option<Given>> {
        let mut found: Option<Given> = None;
        for &name in names {
            let value = self.map.remove(name).filter(|value| !value.is_null());
            let Some(value) = value else { continue };
            if self.repeated.contains(name) {
                return Err(Error::parameter(name, format!("{name} is given more than once")));
            }
            if let Some(first) = found {
                let message = format!("{} and {name} are the same parameter; give one of them", first.name);
                return Err(Error::parameter(name, message));
            }
            found = Some(Given { name, value, is_form: self.is_form });
        }
        Ok(found)
    }
}

impl Given {
    fn must_be(&self, expected: &str) -> Error {
        let is_file = self.is_form && self.value.is_object();
        let got = if is_file { "a file".into() } else { described(&self.value) };
        let message = format!("{} must be {expected}; got {got}", self.name);
        Error::parameter(self.name, message)
    }
}

/// The error under the spelling that the caller chose.
fn respelled(error: Error, name: &'static str) -> Error {
    match error.param() {
        Some(usual) if usual != name => Error::parameter(name, error.message().replacen(usual, name, 1)),
        _ => error,
    }
}

fn whole_text(number: &Number) -> String {
    /// Every whole number up to 2^53 is a double, and none beyond is certain to be the one that was written.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() <= EXACT => {
            (value as i64).to_string()
        }
        _ => number.to_string(),
    }
}

/// A value in words, for a message.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string '{}'", shown(text)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Guidance, Seed, Steps};

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).unwrap()
    }

    fn steps(body: &str) -> Result<Option<u32>> {
        let steps: Option<Steps> = fields(body).whole(&["steps", "num_inference_steps"], str::parse)?;
        Ok(steps.map(Steps::get))
    }

    #[test]
    fn numbers_are_read_to_the_last_digit() {
        let mut given = fields(r#"{"guidance_scale": 100.00000000000001}"#);
        let guidance: Result<Option<Guidance>> = given.number(&["guidance_scale"], str::parse);
        assert!(guidance.unwrap_err().message().ends_with("got 100.00000000000001"));
    }

    #[test]
    fn a_field_is_found_by_any_of_its_names_and_null_is_absent() {
        assert_eq!(steps(r#"{"steps": 3}"#), Ok(Some(3)));
        assert_eq!(steps(r#"{"num_inference_steps": 4.0}"#), Ok(Some(4)));
        assert_eq!(steps(r#"{"steps": null, "num_inference_steps": 4}"#), Ok(Some(4)));
        assert_eq!(steps(r#"{"steps": null}"#), Ok(None));
    }

    #[test]
    fn two_spellings_of_one_field_are_refused() {
        let error = steps(r#"{"steps": 3, "num_inference_steps": 3}"#).unwrap_err();
        assert_eq!(error.param(), Some("num_inference_steps"));
    }

    #[test]
    fn an_error_names_the_field_as_the_caller_spelled_it() {
        let error = steps(r#"{"num_inference_steps": 0}"#).unwrap_err();
        assert_eq!(error.param(), Some("num_inference_steps"));
        assert_eq!(error.message(), "num_inference_steps must be a whole number from 1 to 1000; got 0");
        let error = steps(r#"{"num_inference_steps": "a"}"#).unwrap_err();
        assert_eq!(error.message(), "num_inference_steps must be a whole number; got the string 'a'");
    }

    #[test]
    fn a_seed_keeps_all_its_bits_and_a_larger_number_is_refused() {
        let seed = |text: &str| -> Result<Option<Seed>> {
            fields(&format!(r#"{{"seed": {text}}}"#)).whole(&["seed"], str::parse)
        };
        assert_eq!(seed("18446744073709551615"), Ok(Some(Seed(u64::MAX))));
        for text in ["18446744073709551616", "-1", "0.5", "1e300"] {
            assert_eq!(seed(text).unwrap_err().param(), Some("seed"), "{text}");
        }
    }

    #[test]
    fn what_is_not_taken_was_ignored_and_is_named_in_order() {
        let mut fields = fields(r#"{"zebra": 1, "apple": {}, "none": null, "user": "me"}"#);
        assert_eq!(fields.text(&["user"], Ok), Ok(Some("me".to_owned())));
        fields.ignore("user");
        assert_eq!(fields.ignored().into_iter().collect::<Vec<_>>(), ["apple", "user", "zebra"]);
    }

    fn form(texts: &[(&str, &str)]) -> Fields {
        let text = |&(name, text): &(&str, &str)| (name.to_owned(), Value::String(text.to_owned()));
        Fields::of_form(texts.iter().map(text).collect())
    }

    #[test]
    fn the_texts_of_a_form_are_read_as_what_the_field_needs() {
        let mut fields = form(&[
            ("prompt", "7"),
            ("seed", "18446744073709551615"),
            ("steps", "4.0"),
            ("stream", "false"),
            ("user", ""),
            ("odd", "1"),
            ("guidance_scale", "1.5"),
        ]);
        assert_eq!(fields.text(&["prompt"], Ok), Ok(Some("7".to_owned())));
        assert_eq!(fields.whole(&["seed"], str::parse), Ok(Some(Seed(u64::MAX))));
        assert_eq!(fields.whole(&["steps"], str::parse).unwrap().map(Steps::get), Some(4));
        assert_eq!(
            fields.number(&["guidance_scale"], |text| Ok(text.to_owned())),
            Ok(Some("1.5".to_owned()))
        );
        assert_eq!((fields.flag("stream"), fields.flag("user")), (Ok(Some(false)), Ok(None)));
        assert_eq!(fields.ignored().into_iter().collect::<Vec<_>>(), ["odd"]);
    }

    #[test]
    fn a_text_of_a_form_that_is_not_what_the_field_needs_is_refused_with_it() {
        for text in ["two", " 2", "0x2", "1_0", "NaN", "True", "{}"] {
            let error = form(&[("steps", text)]).whole(&["steps"], str::parse::<Steps>).unwrap_err();
            assert!(error.message().ends_with(&format!("got the string '{text}'")), "{error}");
            assert_eq!(form(&[("stream", text)]).flag("stream").unwrap_err().param(), Some("stream"));
        }
        let file =
            Fields::of_form(vec![("prompt".to_owned(), Value::Object(Map::new()))]).text(&["prompt"], Ok);
        assert_eq!(file.unwrap_err().message(), "prompt must be a string; got a file");
    }

    #[test]
    fn a_field_that_a_form_gives_twice_is_refused_and_an_empty_one_does_not_count() {
        let error =
            form(&[("steps", "2"), ("steps", "2")]).whole(&["steps"], str::parse::<Steps>).unwrap_err();
        assert_eq!(error.message(), "steps is given more than once");
        assert!(form(&[("steps", "2"), ("steps", "")]).whole(&["steps"], str::parse::<Steps>).is_ok());
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        for body in
            [&b""[..], b"[]", b"{", b"{\"a\": NaN}", b"{\"a\": 1e999}", b"\xff", b"{\"a\":\"\\ud800\"}"]
        {
            assert!(Fields::parse(body).is_err(), "{body:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(Fields::parse(deep.as_bytes()).is_err());
    }
}
