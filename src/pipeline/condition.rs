//! Prompts as what the UNet is conditioned on.

use super::prompt::chunks::POSITIONS;
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

/// What one conditioning is made from: equal keys give equal conditionings, so they can be remembered by them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PromptKey {
    /// A text, its tokens filled up to `chunks` of 77, with `skipped` further layers left out.
    Text {
        /// The text as it was written.
        text: String,
        /// Chunks that the context has.
        chunks: usize,
        /// Layers left out beyond SDXL's own one.
        skipped: usize,
    },
    /// Zeros, for an absent negative prompt where the checkpoint says so.
    Zeros {
        /// Chunks that the context has.
        chunks: usize,
    },
}

/// What the rows of one job are conditioned on, both of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPair {
    /// The prompt.
    pub positive: PromptKey,
    /// The negative prompt; none where there is no guidance.
    pub negative: Option<PromptKey>,
    /// Chunks that both contexts have.
    pub chunks: usize,
}

impl Pipeline {
    /// What the rows of `request` are to be conditioned on. Reads the tokens and runs no network. `clip_skip` is the
    /// prompt's alone, as in diffusers.
    ///
    /// # Errors
    /// If a prompt has too many tokens, or a weight that is out of bounds.
    pub fn prompts(&self, request: &GenerateRequest) -> Result<PromptPair> {
        let skipped = request.clip_skip.get() as usize;
        let text = request.prompt.as_str();
        let mut chunks = self.chunks("prompt", text)?;
        let zeros = request.negative.is_none() && self.zeros_for_absent_negative;
        let negative = request.negative.as_ref().map_or("", Prompt::as_str);
        if request.guidance.is_active() && !zeros {
            chunks = chunks.max(self.chunks("negative_prompt", negative)?);
        }
        let positive = PromptKey::Text { text: text.to_owned(), chunks, skipped };
        let negative = match zeros {
            true => PromptKey::Zeros { chunks },
            false => PromptKey::Text { text: negative.to_owned(), chunks, skipped: 0 },
        };
        Ok(PromptPair { positive, negative: request.guidance.is_active().then_some(negative), chunks })
    }

    /// The chunks that a text fills, of both tokenizers the most.
    fn chunks(&self, param: &'static str, text: &str) -> Result<usize> {
        let counts =
            self.towers.iter().map(|tower| Ok(tokenize(&tower.tokenizer, param, text)?.chunks().len()));
        Ok(counts.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(1))
    }

    /// Runs the text encoders for one key.
    ///
    /// # Errors
    /// If the layers left out are more than there are, or the device fails.
    pub fn encode_prompt(&self, key: &PromptKey) -> Result<Conditioned> {
        match key {
            PromptKey::Text { text, chunks, skipped } => {
                let [first, second] = &self.towers;
                let (hidden_1, _) = first.encode(text, *chunks, *skipped)?;
                let (hidden_2, pooled) = second.encode(text, *chunks, *skipped)?;
                Ok(Conditioned { context: Tensor::cat(&[hidden_1, hidden_2], D::Minus1)?, pooled })
            }
            PromptKey::Zeros { chunks } => {
                let width =
                    self.towers.iter().map(|tower| tower.encoder.hidden_width()).sum::<Result<usize>>()?;
                let pooled = self.towers[1].encoder.pooled_width()?;
                Ok(Conditioned {
                    context: Tensor::zeros((1, chunks * POSITIONS, width), self.dtype, &self.device)?,
                    pooled: Tensor::zeros((1, pooled), self.dtype, &self.device)?,
                })
            }
        }
    }

    /// Encodes a request's prompt, and its negative prompt where guidance needs it.
    ///
    /// # Errors
    /// As [`Pipeline::prompts`] and [`Pipeline::encode_prompt`].
    pub fn encode_prompts(&self, request: &GenerateRequest) -> Result<(Conditioned, Option<Conditioned>)> {
        let pair = self.prompts(request)?;
        let negative = pair.negative.map(|key| self.encode_prompt(&key)).transpose()?;
        Ok((self.encode_prompt(&pair.positive)?, negative))
    }
}

impl Conditioned {
    /// Bytes that it holds on the device.
    pub fn bytes(&self) -> usize {
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        bytes(&self.context) + bytes(&self.pooled)
    }
}

impl TextTower {
    /// The context `[1, 77 chunks, hidden]` and the pooled vector `[1, P]` of the first chunk.
    fn encode(&self, text: &str, chunks: usize, skipped: usize) -> Result<(Tensor, Tensor)> {
        let mut prompted = tokenize(&self.tokenizer, "prompt", text)?;
        prompted.pad_to(chunks);
        let ids: Vec<Vec<u32>> = prompted.chunks().iter().map(|chunk| chunk.ids.clone()).collect();
        let encoded = self.encoder.forward(&ids, skipped)?;
        let hidden = self.weighted(encoded.hidden, &prompted, skipped)?; // [chunks, 77, hidden]
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
