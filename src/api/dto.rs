//! The objects that answers are made of, with OpenAI's names.

use serde::Serialize;
use utoipa::ToSchema;

/// The answer to a request for pictures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Images {
    /// Unix seconds.
    pub created: u64,
    pub data: Vec<Image>,
    /// Always `opaque`.
    pub background: &'static str,
    pub output_format: &'static str,
    /// `low`, `medium` or `high`, where a request chose its steps so; clients that check strictly accept no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<&'static str>,
    /// One of [`STRICT_SIZES`]; clients that check strictly accept no other, so any other is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<&'static str>,
    pub usage: Usage,
}

/// The tokens of a request and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Usage {
    pub input_tokens: u64,
    pub input_tokens_details: InputTokens,
    pub output_tokens: u64,
    pub total_tokens: u64,
}

/// The tokens of a request by what they stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct InputTokens {
    pub text_tokens: u64,
    pub image_tokens: u64,
}

/// The sizes that OpenAI's own answers name.
pub(super) const STRICT_SIZES: [&str; 3] = ["1024x1024", "1024x1536", "1536x1024"];

/// One picture of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Image {
    /// The file in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b64_json: Option<String>,
    /// Where the file is fetched, until its time is up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Image {
    /// A picture whose file comes with the answer.
    pub fn of(b64_json: String) -> Self {
        Self { b64_json: Some(b64_json), url: None }
    }

    /// A picture whose file is fetched.
    pub fn at(url: String) -> Self {
        Self { b64_json: None, url: Some(url) }
    }
}

/// An event of a stream: a preview, or the picture itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamEvent {
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The file in base64.
    pub b64_json: String,
    /// Unix seconds.
    pub created_at: u64,
    pub size: String,
    pub quality: &'static str,
    pub background: &'static str,
    pub output_format: &'static str,
    /// Which preview, from 0; none for the picture itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_image_index: Option<u32>,
    /// With the picture itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
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
