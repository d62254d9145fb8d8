//! CLIP's text encoders: ViT-L and OpenCLIP's ViT-bigG, told apart by their configs alone.

use super::config::ClipConfig;
use crate::error::{Error, Result};
use crate::ops::{Activation, Attention, LayerNorm, Linear, Mask, Replay, activations, in_pool};
use candle_core::Tensor;
use candle_nn::VarBuilder;
use std::fmt;
use std::ops::Range;

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    attention: Attention,
    activation: Activation,
}

impl EncoderLayer {
    fn load(vb: &VarBuilder, config: &ClipConfig) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| LayerNorm::load(&vb.pp(name), width, config.layer_norm_eps);
        let project = |name: &str| Linear::load(&vb.pp("self_attn").pp(name), width, width);
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            q_proj: project("q_proj")?,
            k_proj: project("k_proj")?,
            v_proj: project("v_proj")?,
            out_proj: project("out_proj")?,
            layer_norm2: norm("layer_norm2")?,
            fc1: Linear::load(&vb.pp("mlp.fc1"), width, inner)?,
            fc2: Linear::load(&vb.pp("mlp.fc2"), inner, width)?,
            attention: Attention::new(config.num_attention_heads, Mask::Causal, vb.dtype()),
            activation: config.activation()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.follow(&self.attend(x)?, x)
    }

    /// [`EncoderLayer::forward`] at `places` among all positions alone: `[places, 1, hidden]`. No other is computed behind
    /// the attention.
    fn forward_at(&self, x: &Tensor, places: &Tensor) -> Result<Tensor> {
        let at = |x: &Tensor| x.flatten(0, 1)?.index_select(places, 0)?.unsqueeze(1);
        self.follow(&at(&self.attend(x)?)?, &at(x)?)
    }

    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(x)?;
        let (q, k, v) =
            (self.q_proj.forward(&normed)?, self.k_proj.forward(&normed)?, self.v_proj.forward(&normed)?);
        self.attention.forward([&q, &k, &v])
    }

    /// What becomes of `x` behind the attention, which made `attended` of it.
    fn follow(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        let x = self.out_proj.forward_add(attended, x)?;
        let inner = self.activation.forward(&self.fc1.forward(&self.layer_norm2.forward(&x)?)?)?;
        self.fc2.forward_add(&inner, &x)
    }
}

/// What an encoder makes of token ids.
#[derive(Debug)]
pub struct Encoded {
    /// The output of the layer that conditions the UNet, without the final norm: `[B, 77, hidden]`.
    pub hidden: Tensor,
    /// The end token's vector after the final norm and `text_projection`: `[B, P]`. None of an encoder without that
    /// projection, whose vector SDXL does not read.
    pub pooled: Option<Tensor>,
}

/// What most of an encoder's weights are in: held, or read from the checkpoint where they are needed and let go.
#[derive(Debug)]
enum Trunk {
    Held {
        token_embedding: Tensor, // [vocabulary, hidden]
        layers: Vec<EncoderLayer>,
    },
    Read {
        weights: Weights,
    },
}

/// Reads a trunk from its checkpoint.
struct Weights {
    vb: VarBuilder<'static>,
    config: ClipConfig,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weights")
    }
}

impl Weights {
    fn token_embedding(&self) -> Result<Tensor> {
        let shape = (self.config.vocab_size, self.config.hidden_size);
        Ok(self.vb.pp("embeddings").get(shape, "token_embedding.weight")?)
    }

    fn layer(&self, index: usize) -> Result<EncoderLayer> {
        EncoderLayer::load(&self.vb.pp("encoder.layers").pp(index), &self.config)
    }
}

impl Trunk {
    /// Reads all of it once, to hold it, or to know that it is whole.
    fn load(weights: Weights, held: bool) -> Result<Self> {
        let mut layers = 0..weights.config.num_hidden_layers;
        let token_embedding = weights.token_embedding()?;
        if held {
            let layers = layers.map(|index| weights.layer(index)).collect::<Result<_>>()?;
            return Ok(Self::Held { token_embedding, layers });
        }
        drop(token_embedding);
        layers.try_for_each(|index| weights.layer(index).map(drop))?;
        Ok(Self::Read { weights })
    }

    /// The embeddings of `tokens` `[n]`: `[n, hidden]`.
    fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        match self {
            Self::Held { token_embedding, .. } => Ok(token_embedding.index_select(tokens, 0)?),
            Self::Read { weights } => Ok(weights.token_embedding()?.index_select(tokens, 0)?),
        }
    }

    /// What `work` makes of layer `index`.
    fn layer(&self, index: usize, work: impl FnOnce(&EncoderLayer) -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Self::Held { layers, .. } => work(&layers[index]),
            Self::Read { weights } => work(&weights.layer(index)?),
        }
    }
}

/// A text encoder (`CLIPTextModel` or `CLIPTextModelWithProjection`).
#[derive(Debug)]
pub struct TextEncoder {
    trunk: Trunk,
    position_embedding: Tensor, // [positions, hidden]
    vocabulary: usize,
    layers: usize,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos: u32,
    replay: Replay,
}

/// `eos_token_id` of configs from before transformers knew CLIP's own: the end is then the greatest id.
const LEGACY_EOS: u32 = 2;

impl TextEncoder {
    /// Reads an encoder, with or without the `text_model.` prefix that transformers drops from 5.6 on.
    /// `projected` says whether the class has a `text_projection`, and `held` whether layers and embeddings stay in memory; else
    /// each is read, from what the checkpoint is then, at every call.
    pub fn load(vb: &VarBuilder<'static>, config: &ClipConfig, projected: bool, held: bool) -> Result<Self> {
        let inner = if vb.contains_tensor("text_model.final_layer_norm.weight") {
            vb.pp("text_model")
        } else {
            vb.clone()
        };
        let width = config.hidden_size;
        let embeddings = inner.pp("embeddings");
        let projection = || {
            let outputs = config
                .projection_dim
                .ok_or_else(|| Error::checkpoint("text_encoder_2/config.json: projection_dim is missing"))?;
            Linear::load_no_bias(&vb.pp("text_projection"), width, outputs)
        };
        Ok(Self {
            trunk: Trunk::load(Weights { vb: inner.clone(), config: config.clone() }, held)?,
            vocabulary: config.vocab_size,
            layers: config.num_hidden_layers,
            position_embedding: embeddings
                .get((config.max_position_embeddings, width), "position_embedding.weight")?,
            final_layer_norm: LayerNorm::load(&inner.pp("final_layer_norm"), width, config.layer_norm_eps)?,
            text_projection: projected.then(projection).transpose()?,
            eos: config.eos_token_id,
            replay: Replay::default(),
        })
    }

    /// Encodes rows of token ids, all of one length within the position embedding.
    ///
    /// `skipped` further layers are left out of [`Encoded::hidden`], beyond the last one that SDXL always leaves out.
    pub fn forward(&self, ids: &[Vec<u32>], skipped: usize) -> Result<Encoded> {
        let kept = self.layers.checked_sub(1 + skipped).ok_or_else(|| {
            let most = self.layers - 1;
            Error::parameter(
                "clip_skip",
                format!("clip_skip must be at most {most} with this model; got {skipped}"),
            )
        })?;
        let (tokens, ends) = self.places(ids)?;
        let inputs = [&tokens, &ends];
        // Recordings are told apart by their inputs' shapes: only one of all numbers of layers may have them. What is read as
        // it is needed is uploaded, which no recording may.
        let mut outputs = in_pool(&tokens, || match (&self.trunk, skipped) {
            (Trunk::Held { .. }, 0) => self.replay.record(&inputs, |inputs| self.body(inputs, kept)),
            _ => self.body(&inputs, kept),
        })?;
        let hidden = outputs.swap_remove(0);
        Ok(Encoded { hidden, pooled: outputs.pop() })
    }

    /// The rows' ids `[B, length]`, and where their ends lie among all positions `[B]`.
    fn places(&self, ids: &[Vec<u32>]) -> Result<(Tensor, Tensor)> {
        let length = ids.first().map_or(0, Vec::len);
        let flat: Vec<u32> = ids.iter().flatten().copied().collect();
        let rows = self.vocabulary;
        if let Some(id) = flat.iter().find(|id| **id as usize >= rows) {
            return Err(Error::checkpoint(format!(
                "token id {id} is beyond the text encoder's {rows} embeddings"
            )));
        }
        let ends = ids.iter().enumerate().map(|(row, ids)| (row * length + self.end_of(ids)) as u32);
        let ends: Vec<u32> = ends.collect();
        let device = self.position_embedding.device();
        let tokens = Tensor::from_vec(flat, (ids.len(), length), device)?;
        Ok((tokens, Tensor::from_vec(ends, ids.len(), device)?))
    }

    /// The output of layer `kept`, counted from 1, and the pooled vectors, if any, of what [`TextEncoder::places`] gives.
    fn body(&self, inputs: &[&Tensor], kept: usize) -> Result<Vec<Tensor>> {
        let [tokens, ends] = inputs else {
            return Err(Error::internal("a text encoder reads tokens and their ends"));
        };
        let behind = |layers: Range<usize>, x: Tensor| {
            layers.into_iter().try_fold(x, |x, index| self.trunk.layer(index, |layer| layer.forward(&x)))
        };
        let hidden = behind(0..kept, self.embed(tokens)?)?;
        let Some(projection) = &self.text_projection else { return Ok(vec![hidden]) };
        let last = self.layers - 1;
        let x = behind(kept..last, hidden.clone())?;
        let ends = self.trunk.layer(last, |layer| layer.forward_at(&x, ends))?; // [B, 1, hidden]
        let pooled = projection.forward(&self.final_layer_norm.forward(&ends)?)?.squeeze(1)?;
        Ok(vec![hidden, pooled])
    }

    fn embed(&self, tokens: &Tensor) -> Result<Tensor> {
        let (rows, length) = tokens.dims2()?;
        let tokens = self.trunk.embed(&tokens.flatten_all()?)?;
        let tokens = tokens.reshape((rows, length, ()))?;
        let positions = self.position_embedding.narrow(0, 0, length)?;
        Ok(activations(&tokens)?.broadcast_add(&activations(&positions)?)?)
    }

    /// The position of the first end token; under a legacy config that of the first greatest id.
    fn end_of(&self, ids: &[u32]) -> usize {
        let end = if self.eos == LEGACY_EOS { ids.iter().max().copied().unwrap_or(0) } else { self.eos };
        ids.iter().position(|id| *id == end).unwrap_or(0)
    }

    /// The width of [`Encoded::pooled`].
    ///
    /// # Errors
    /// If the encoder has no such vectors.
    pub fn pooled_width(&self) -> Result<usize> {
        let projection = self.text_projection.as_ref();
        projection
            .ok_or_else(|| Error::internal("a text encoder without projection has no pooled vectors"))?
            .outputs()
    }
}
