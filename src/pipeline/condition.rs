//! Prompts as what the UNet is conditioned on.

use super::prompt::{Prompted, tokenize};
use super::{Pipeline, TextTower};
use crate::error::{Error, Result};
use crate::model::activation_dtype;
use crate::request::{GenerateRequest, Prompt};
use candle_core::{D, DType, Device, Tensor};

/// A prompt's embeddings, as the UNet takes them.
#[derive(Debug, Clone)]
pub struct Conditioned {
    /// The token embeddings of both encoders side by side, `[1, 77 k, D]`; none where they are zeros.
    pub context: Option<Tensor>,
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

impl PromptKey {
    fn skipped(&self) -> usize {
        match self {
            Self::Text { skipped, .. } => *skipped,
            Self::Zeros { .. } => 0,
        }
    }
}

/// A prompt that has been read: what it is remembered by, and its tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPrompt {
    /// What its conditioning is made from.
    pub key: PromptKey,
    /// Its tokens by each of the tokenizers, filled up to the key's chunks; none where it stands for zeros.
    prompted: Option<[Prompted; 2]>,
}

/// What the rows of one job are conditioned on, both of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptPair {
    /// The prompt.
    pub positive: ReadPrompt,
    /// The negative prompt; none where there is no guidance.
    pub negative: Option<ReadPrompt>,
    /// Chunks that both contexts have.
    pub chunks: usize,
}

impl PromptPair {
    /// Tokens of the texts that are read, without what frames and fills them: those of the prompt, and of the negative
    /// prompt where guidance needs it.
    pub fn tokens(&self) -> usize {
        let read = std::iter::once(&self.positive).chain(&self.negative);
        // SDXL's two tokenizers share one vocabulary, so that either counts the same.
        read.filter_map(|prompt| prompt.prompted.as_ref()).map(|[first, _]| first.tokens()).sum()
    }
}

impl Pipeline {
    /// What the rows of `request` are to be conditioned on. Reads the tokens and runs no network. `clip_skip` is the
    /// prompt's alone, as in diffusers.
    ///
    /// # Errors
    /// If a prompt has too many tokens, or a weight that is out of bounds.
    pub fn prompts(&self, request: &GenerateRequest) -> Result<PromptPair> {
        let mut prompted = self.read("prompt", request.prompt.as_str())?;
        let zeros = request.negative.is_none() && self.zeros_for_absent_negative;
        let text = request.negative.as_ref().map_or("", Prompt::as_str);
        let mut negative = match request.guidance.is_active() && !zeros {
            true => Some(self.read("negative_prompt", text)?),
            false => None,
        };
        let all = || prompted.iter().chain(negative.iter().flatten());
        let chunks = all().map(|prompted| prompted.chunks().len()).max().unwrap_or(1);
        for prompted in prompted.iter_mut().chain(negative.iter_mut().flatten()) {
            prompted.pad_to(chunks);
        }
        let key = |text: &str, skipped| PromptKey::Text { text: text.to_owned(), chunks, skipped };
        let positive = key(request.prompt.as_str(), request.clip_skip.get() as usize);
        let negative = request.guidance.is_active().then(|| ReadPrompt {
            key: if zeros { PromptKey::Zeros { chunks } } else { key(text, 0) },
            prompted: negative,
        });
        Ok(PromptPair { positive: ReadPrompt { key: positive, prompted: Some(prompted) }, negative, chunks })
    }

    /// A text's tokens by both tokenizers.
    fn read(&self, param: &'static str, text: &str) -> Result<[Prompted; 2]> {
        let [first, second] = &self.towers;
        Ok([tokenize(&first.tokenizer, param, text)?, tokenize(&second.tokenizer, param, text)?])
    }

    /// Runs the text encoders for one prompt.
    ///
    /// # Errors
    /// If the layers left out are more than there are, or the device fails.
    pub fn encode_prompt(&self, prompt: &ReadPrompt) -> Result<Conditioned> {
        let Some([first, second]) = &prompt.prompted else { return self.zeros() };
        let skipped = prompt.key.skipped();
        let (hidden_1, _) = self.towers[0].encode(first, skipped)?;
        let (hidden_2, pooled) = self.towers[1].encode(second, skipped)?;
        let pooled =
            pooled.ok_or_else(|| Error::internal("the second text encoder has a text_projection"))?;
        Ok(Conditioned { context: Some(Tensor::cat(&[hidden_1, hidden_2], D::Minus1)?), pooled })
    }

    fn zeros(&self) -> Result<Conditioned> {
        let pooled = self.towers[1].encoder.pooled_width()?;
        let dtype = activation_dtype(&self.device, self.dtype);
        Ok(Conditioned { context: None, pooled: Tensor::zeros((1, pooled), dtype, &self.device)? })
    }

    /// Encodes a request's prompt, and its negative prompt where guidance needs it.
    ///
    /// # Errors
    /// As [`Pipeline::prompts`] and [`Pipeline::encode_prompt`].
    pub fn encode_prompts(&self, request: &GenerateRequest) -> Result<(Conditioned, Option<Conditioned>)> {
        let pair = self.prompts(request)?;
        let negative = pair.negative.as_ref().map(|prompt| self.encode_prompt(prompt)).transpose()?;
        Ok((self.encode_prompt(&pair.positive)?, negative))
    }
}

impl Conditioned {
    /// Bytes that it holds on the device.
    pub fn bytes(&self) -> usize {
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        self.context.as_ref().map_or(0, bytes) + bytes(&self.pooled)
    }
}

impl TextTower {
    /// The context `[1, 77 chunks, hidden]` and the pooled vector `[1, P]` of the first chunk, if the encoder makes one.
    fn encode(&self, prompted: &Prompted, skipped: usize) -> Result<(Tensor, Option<Tensor>)> {
        let ids: Vec<Vec<u32>> = prompted.chunks().iter().map(|chunk| chunk.ids.clone()).collect();
        let encoded = self.encoder.forward(&ids, skipped)?;
        let hidden = self.weighted(encoded.hidden, prompted, skipped)?; // [chunks, 77, hidden]
        let (chunks, length, width) = hidden.dims3()?;
        let pooled = encoded.pooled.map(|pooled| pooled.narrow(0, 0, 1)).transpose()?;
        Ok((hidden.reshape((1, chunks * length, width))?, pooled))
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
