//! What a request is counted as.
//!
//! A text counts its tokens, as the model's tokenizer cuts it, without what frames and fills its chunks. A picture counts
//! one token for each patch of [`PATCH`] by [`PATCH`] pixels at the size that is drawn: what the UNet's attention reads
//! at its finest. So a picture of 1024x1024 pixels that the model draws itself is 4096 tokens.

use super::dto::{InputTokens, Usage};
use crate::request::{GenerateRequest, Size, Start};

/// The side of a patch in pixels: a latent's eight, halved in resolution before the first attention.
const PATCH: u32 = 16;

/// The tokens of a request whose texts have `text_tokens`. A given picture is read once, at the drawn size; a mask is
/// part of it.
pub(super) fn usage(request: &GenerateRequest, text_tokens: usize) -> Usage {
    let picture = tokens(request.size);
    let image_tokens = match request.start {
        Start::Noise => 0,
        Start::Picture { .. } | Start::Inpaint { .. } => picture,
    };
    let input_tokens = text_tokens as u64 + image_tokens;
    let output_tokens = u64::from(request.count.get()) * picture;
    Usage {
        input_tokens,
        input_tokens_details: InputTokens { text_tokens: text_tokens as u64, image_tokens },
        output_tokens,
        total_tokens: input_tokens + output_tokens,
    }
}

fn tokens(size: Size) -> u64 {
    u64::from(size.width().div_ceil(PATCH)) * u64::from(size.height().div_ceil(PATCH))
}
