//! The objects that answers are made of, with OpenAI's names.

use serde::Serialize;
use utoipa::ToSchema;

/// The answer to a request for pictures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Images {
    /// Unix seconds.
    pub created: u64,
    pub data: Vec<Image>,
    pub output_format: &'static str,
    /// One of [`STRICT_SIZES`]; clients that check strictly accept no other, so any other is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<&'static str>,
}

/// The sizes that OpenAI's own answers name.
pub(super) const STRICT_SIZES: [&str; 3] = ["1024x1024", "1024x1536", "1536x1024"];

/// One picture of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Image {
    /// The file in base64.
    pub b64_json: String,
}

/// A model as `/v1/models` shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Model<'a> {
    pub id: &'a str,
    pub object: &'static str,
    /// Unix seconds.
    pub created: u64,
    pub owned_by: &'static str,
    /// The model that this name means.
    pub root: &'a str,
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models<'a> {
    pub object: &'static str,
    pub data: Vec<Model<'a>>,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorAnswer<'a> {
    pub error: ErrorObject<'a>,
}

/// OpenAI's error object: all four keys always.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorObject<'a> {
    pub message: &'a str,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub param: Option<&'static str>,
    pub code: Option<&'static str>,
}
