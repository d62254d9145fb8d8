//! The table of fields as JSON Schema (the dialect of OpenAPI 3.1).

use super::{Body, FIELDS, Fate, Field, Kind};
use crate::request::{Guidance, SamplerKind, ScheduleKind};
use serde_json::Value;
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, OneOfBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// The longest data URL of a picture in characters, as OpenAI bounds it.
const LONGEST_ADDRESS: usize = 20_971_520;

/// Sizes of 32 to 4096 pixels a side.
const SIZE: &str = "^(auto|S?xS?)$";

/// A side of [`SIZE`].
const SIDE: &str = "(3[2-9]|[4-9][0-9]|[1-9][0-9]{2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-6])";

/// Declares the schema type of a body.
macro_rules! body {
    ($(#[$doc:meta])* $name:ident, $body:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(in crate::api) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                schema($body).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

body!(
    /// The body of `POST /v1/images/generations`.
    ImageGeneration, Body::Generation
);
body!(
    /// The body of `POST /v1/images/edits` as a form.
    ImageEdit, Body::EditForm
);
body!(
    /// The body of `POST /v1/images/edits` in JSON.
    ImageEditJson, Body::EditJson
);
body!(
    /// The body of `POST /v1/images/variations`.
    ImageVariation, Body::Variation
);

/// A server-sent event as a client reads it: its name, and a [`StreamEvent`](super::super::dto::StreamEvent) as text.
#[derive(Debug)]
pub(in crate::api) struct StreamFrame;

impl PartialSchema for StreamFrame {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let data = text()
            .description(Some("A `StreamEvent`, or an `ErrorAnswer` where drawing failed, as JSON."))
            .content_media_type("application/json");
        let name = text().description(Some("The `type` of the data, or `error`."));
        let frame = ObjectBuilder::new().property("event", name).property("data", data).required("data");
        frame.description(Some("A server-sent event.")).into()
    }
}

impl ToSchema for StreamFrame {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("StreamFrame")
    }
}

/// The schema of a body: its fields and nothing required but what must be there. Other fields may stand beside them;
/// they are named as ignored.
fn schema(body: Body) -> Schema {
    let fields = FIELDS.iter().filter(|field| field.on.contains(&body));
    let object = fields.fold(ObjectBuilder::new(), |object, field| {
        let object = object.property(field.name, property(field));
        if field.fate == Fate::Required { object.required(field.name) } else { object }
    });
    object.into()
}

/// The schema of one field.
fn property(field: &Field) -> Schema {
    let about = Some(about(field));
    let object =
        |kind: Type| ObjectBuilder::new().schema_type(nullable(field, kind)).description(about.clone());
    match field.kind {
        Kind::Text(most) => {
            // What is required is more than blanks.
            let some = (field.fate == Fate::Required).then_some(r"\S");
            object(Type::String).pattern(some).max_length(Some(most)).into()
        }
        Kind::Words => object(Type::String).into(),
        Kind::Choice(words) => choice(field, object(Type::String), words),
        Kind::Sampler => choice(field, object(Type::String), &names(SamplerKind::ALL, SamplerKind::name)),
        Kind::Schedule => choice(field, object(Type::String), &names(ScheduleKind::ALL, ScheduleKind::name)),
        Kind::Size => object(Type::String).pattern(Some(SIZE.replace("S?", SIDE))).into(),
        Kind::Whole(least, most) => object(Type::Integer).minimum(Some(least)).maximum(Some(most)).into(),
        Kind::Number(least, most) => object(Type::Number).minimum(Some(least)).maximum(Some(most)).into(),
        Kind::Share => object(Type::Number).minimum(Some(0.001)).maximum(Some(1.0)).into(),
        Kind::Guidance => guidance(about),
        Kind::Flag => object(Type::Boolean).into(),
        Kind::File => {
            object(Type::String).min_length(Some(1)).content_media_type("application/octet-stream").into()
        }
        Kind::Reference => reference(about),
        Kind::References => ArrayBuilder::new()
            .items(RefOr::T(reference(None)))
            .min_items(Some(1))
            .max_items(Some(1))
            .description(about)
            .into(),
    }
}

/// A type, or null where the field need not be there.
fn nullable(field: &Field, kind: Type) -> SchemaType {
    if field.fate == Fate::Required { kind.into() } else { SchemaType::from_iter([kind, Type::Null]) }
}

/// One of some words, or null where the field need not be there.
fn choice(field: &Field, object: ObjectBuilder, words: &[&str]) -> Schema {
    let null = (field.fate != Fate::Required).then_some(Value::Null);
    object.enum_values(Some(words.iter().map(|&word| Value::from(word)).chain(null))).into()
}

fn names<K: Copy>(all: &[K], name: fn(K) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|&kind| name(kind)).collect()
}

/// 0, a number from 1 up, or null.
fn guidance(about: Option<String>) -> Schema {
    let none = ObjectBuilder::new().schema_type(Type::Number).enum_values(Some([0]));
    let some = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(1.0)).maximum(Some(Guidance::MAX));
    let null = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(none).item(some).item(null).description(about).into()
}

/// A picture by its address.
fn reference(about: Option<String>) -> Schema {
    let url = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(LONGEST_ADDRESS))
        .pattern(Some("^data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}$"));
    ObjectBuilder::new().property("image_url", url).required("image_url").description(about).into()
}

/// A field's sentence, with its other names.
fn about(field: &Field) -> String {
    match field.aliases {
        [] => format!("{}.", field.about),
        names => format!("{}. Also: `{}`.", field.about, names.join("`, `")),
    }
}
