//! Prompts as what the UNet is conditioned on.

use super::prompt::{Prompted, tokenize};
use super::{Pipeline, TextTower};
use crate::error::Result;
use crate::request::{GenerateRequest, Prompt};
use candle_core::{D, DType, Device, Tensor};

/// A prompt's embeddings, as the UNet takes them.
#[derive(Debug, Clone)]
pub struct Conditioned {
    /// The token embeddings of both encoders side by side, `[1, 77 k, D]`.
    pub context: Tensor,
    /// The pooled embedding of the second encoder for the first 75 tokens, `[1, P]`.
    pub pooled: Tensor,
}

/// A prompt in the tokens of both encoders.
type Tokens = [Prompted; 2];

impl Pipeline {
    /// Encodes a request's prompt, and its negative prompt where guidance needs it, both to the same length.
    /// `clip_skip` is the prompt's alone, as in diffusers.
    ///
    /// # Errors
    /// If a prompt is too long, or `clip_skip` leaves no layer.
    pub fn encode_prompts(&self, request: &GenerateRequest) -> Result<(Conditioned, Option<Conditioned>)> {
        let skipped = request.clip_skip.get() as usize;
        let mut positive = self.tokens("prompt", request.prompt.as_str())?;
        if !request.guidance.is_active() {
            equalise(&mut [&mut positive]);
            return Ok((self.encode_tokens(&positive, skipped)?, None));
        }
        let zeros = request.negative.is_none() && self.zeros_for_absent_negative;
        if zeros {
            equalise(&mut [&mut positive]);
            let positive = self.encode_tokens(&positive, skipped)?;
            let negative = Conditioned {
                context: positive.context.zeros_like()?,
                pooled: positive.pooled.zeros_like()?,
            };
            return Ok((positive, Some(negative)));
        }
        let mut negative =
            self.tokens("negative_prompt", request.negative.as_ref().map_or("", Prompt::as_str))?;
        equalise(&mut [&mut positive, &mut negative]);
        Ok((self.encode_tokens(&positive, skipped)?, Some(self.encode_tokens(&negative, 0)?)))
    }

    fn tokens(&self, param: &'static str, text: &str) -> Result<Tokens> {
        let [first, second] = &self.towers;
        Ok([tokenize(&first.tokenizer, param, text)?, tokenize(&second.tokenizer, param, text)?])
    }

    fn encode_tokens(&self, tokens: &Tokens, skipped: usize) -> Result<Conditioned> {
        let [first, second] = &self.towers;
        let (hidden_1, _) = first.encode(&tokens[0], skipped)?;
        let (hidden_2, pooled) = second.encode(&tokens[1], skipped)?;
        Ok(Conditioned { context: Tensor::cat(&[hidden_1, hidden_2], D::Minus1)?, pooled })
    }
}

/// Fills all to the length of the longest with empty chunks.
fn equalise(prompts: &mut [&mut Tokens]) {
    let longest =
        prompts.iter().flat_map(|tokens| tokens.iter()).map(|p| p.chunks().len()).max().unwrap_or(1);
    for tokens in prompts {
        for prompted in tokens.iter_mut() {
            prompted.pad_to(longest);
        }
    }
}

impl TextTower {
    /// The context `[1, 77 k, hidden]` and the pooled vector `[1, P]` of the first chunk.
    fn encode(&self, prompted: &Prompted, skipped: usize) -> Result<(Tensor, Tensor)> {
        let ids: Vec<Vec<u32>> = prompted.chunks().iter().map(|chunk| chunk.ids.clone()).collect();
        let encoded = self.encoder.forward(&ids, skipped)?;
        let hidden = self.weighted(encoded.hidden, prompted, skipped)?; // [k, 77, hidden]
        let (chunks, length, width) = hidden.dims3()?;
        Ok((hidden.reshape((1, chunks * length, width))?, encoded.pooled.narrow(0, 0, 1)?))
    }

    /// Moves each token's vector away from that of the empty prompt at its place, or towards it, by its weight,
    /// as ComfyUI does.
    fn weighted(&self, hidden: Tensor, prompted: &Prompted, skipped: usize) -> Result<Tensor> {
        if !prompted.is_weighted() {
            return Ok(hidden);
        }
        let (chunks, length, _) = hidden.dims3()?;
        let empty = [prompted.empty().ids.clone()];
        let empty = self.encoder.forward(&empty, skipped)?.hidden.to_dtype(DType::F32)?; // [1, 77, hidden]
        let weights: Vec<f32> = prompted.chunks().iter().flat_map(|chunk| chunk.weights.clone()).collect();
        let weights =
            Tensor::from_vec(weights, (chunks, length, 1), &Device::Cpu)?.to_device(hidden.device())?;
        let away = hidden.to_dtype(DType::F32)?.broadcast_sub(&empty)?;
        Ok(away.broadcast_mul(&weights)?.broadcast_add(&empty)?.to_dtype(hidden.dtype())?)
    }
}
