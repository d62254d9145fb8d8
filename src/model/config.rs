//! The sizes of the networks, as diffusers and transformers write them into `config.json`.

use crate::error::{Error, Result};
use crate::ops::Activation;
use serde::Deserialize;

/// One number for all blocks, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same for every block.
    All(usize),
    /// One for each block, from the outermost in.
    Each(Vec<usize>),
}

impl PerBlock {
    /// The number for `block` of the way down.
    pub fn at(&self, block: usize) -> Option<usize> {
        match self {
            Self::All(value) => Some(*value),
            Self::Each(values) => values.get(block).copied(),
        }
    }
}

/// `unet/config.json`. Fields that select variants which are not built are read to be refused by name.
#[derive(Debug, Clone, Deserialize)]
pub struct UnetConfig {
    /// Side of the latents that the model was trained on.
    #[serde(default)]
    pub sample_size: Option<usize>,
    /// Channels of the input: 4, or 9 for inpainting.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Classes of the blocks on the way down.
    pub down_block_types: Vec<String>,
    /// Classes of the blocks on the way up.
    pub up_block_types: Vec<String>,
    /// Channels of each block.
    pub block_out_channels: Vec<usize>,
    /// Residual layers of a block on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Transformer layers in each attention of a block.
    #[serde(default = "one")]
    pub transformer_layers_per_block: PerBlock,
    /// The number of heads, despite its name, unless `num_attention_heads` is there.
    pub attention_head_dim: PerBlock,
    /// The number of heads.
    #[serde(default)]
    pub num_attention_heads: Option<PerBlock>,
    /// Width of the context.
    pub cross_attention_dim: usize,
    /// Whether transformers are entered by a linear map (SDXL) or a 1x1 convolution.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' norms.
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    /// Whether the sinusoid's cosines come first.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the sinusoid's frequencies.
    #[serde(default)]
    pub freq_shift: f64,
    /// `text_time` for SDXL, none for plain models.
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    /// Width of the sinusoid of each time id.
    #[serde(default)]
    pub addition_time_embed_dim: Option<usize>,
    /// Width of pooled text and time ids together.
    #[serde(default)]
    pub projection_class_embeddings_input_dim: Option<usize>,
    #[serde(default)]
    class_embed_type: Option<String>,
    #[serde(default)]
    encoder_hid_dim_type: Option<String>,
    #[serde(default)]
    time_cond_proj_dim: Option<usize>,
    #[serde(default)]
    mid_block_type: Option<String>,
    #[serde(default)]
    resnet_time_scale_shift: Option<String>,
    #[serde(default)]
    act_fn: Option<String>,
    #[serde(default)]
    dual_cross_attention: bool,
    #[serde(default)]
    reverse_transformer_layers_per_block: Option<serde_json::Value>,
}

impl UnetConfig {
    /// The number of attention heads of `block`.
    pub fn heads(&self, block: usize) -> Option<usize> {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(block)
    }

    /// How many numbers a row's time ids are: 6 for SDXL's base, 5 for its refiner.
    pub fn time_ids(&self, pooled: usize) -> Option<usize> {
        let width = self.addition_time_embed_dim?;
        Some((self.projection_class_embeddings_input_dim?.checked_sub(pooled)?) / width)
    }

    /// Refuses what is not built and lists of the wrong length.
    ///
    /// # Errors
    /// If a field has a value that this crate does not implement.
    pub fn check(&self) -> Result<()> {
        let blocks = self.block_out_channels.len();
        let refused = |field: &str, value: &str| {
            Err(Error::checkpoint(format!("unet/config.json: {field} is {value}, which is not supported")))
        };
        if self.down_block_types.len() != blocks || self.up_block_types.len() != blocks || blocks == 0 {
            return refused("the number of blocks", "not the same in all lists");
        }
        if (0..blocks).any(|b| self.heads(b).is_none() || self.transformer_layers_per_block.at(b).is_none()) {
            return refused("a list per block", "shorter than block_out_channels");
        }
        let only = |field: &str, value: &Option<String>, known: &[&str]| match value {
            Some(value) if !known.contains(&value.as_str()) => refused(field, value),
            _ => Ok(()),
        };
        only("addition_embed_type", &self.addition_embed_type, &["text_time"])?;
        only("class_embed_type", &self.class_embed_type, &[])?;
        only("encoder_hid_dim_type", &self.encoder_hid_dim_type, &[])?;
        only("mid_block_type", &self.mid_block_type, &["UNetMidBlock2DCrossAttn"])?;
        only("resnet_time_scale_shift", &self.resnet_time_scale_shift, &["default"])?;
        only("act_fn", &self.act_fn, &["silu", "swish"])?;
        if self.time_cond_proj_dim.is_some() {
            return refused("time_cond_proj_dim", "set");
        }
        if self.dual_cross_attention {
            return refused("dual_cross_attention", "true");
        }
        if self.reverse_transformer_layers_per_block.is_some() {
            return refused("reverse_transformer_layers_per_block", "set");
        }
        Ok(())
    }
}

/// `vae/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct VaeConfig {
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Residual layers of a level of the encoder; one more in the decoder.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// What encoded latents are multiplied by.
    pub scaling_factor: f64,
    /// Mean of each latent channel, taken off before scaling.
    #[serde(default)]
    pub latents_mean: Option<Vec<f64>>,
    /// Spread of each latent channel, divided by before scaling.
    #[serde(default)]
    pub latents_std: Option<Vec<f64>>,
    /// Side of the pictures that the model was trained on; a tile's side.
    #[serde(default = "vae_sample_size")]
    pub sample_size: usize,
    /// Whether the middle has an attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution follows the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
}

impl VaeConfig {
    /// Pixels per latent along a side.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// `text_encoder/config.json` and `text_encoder_2/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct ClipConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Rows of the token embedding.
    #[serde(default = "clip_vocabulary")]
    pub vocab_size: usize,
    /// Rows of the position embedding.
    #[serde(default = "clip_positions")]
    pub max_position_embeddings: usize,
    /// Epsilon of the layer norms.
    #[serde(default = "norm_eps")]
    pub layer_norm_eps: f64,
    /// The MLP's non-linearity.
    pub hidden_act: String,
    /// Width of the pooled vector after `text_projection`.
    #[serde(default)]
    pub projection_dim: Option<usize>,
    /// Id of the end token; 2 marks configs from before transformers knew CLIP's own id.
    #[serde(default = "legacy_eos")]
    pub eos_token_id: u32,
}

impl ClipConfig {
    /// How many numbers its matrices have.
    pub fn parameters(&self) -> usize {
        let layer = 4 * self.hidden_size + 2 * self.intermediate_size;
        let rows = self.vocab_size + self.max_position_embeddings + self.projection_dim.unwrap_or(0);
        self.hidden_size * (self.num_hidden_layers * layer + rows)
    }

    /// The MLP's non-linearity.
    ///
    /// # Errors
    /// If `hidden_act` is not one that CLIP uses.
    pub fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "quick_gelu" => Ok(Activation::QuickGelu),
            "gelu" => Ok(Activation::Gelu),
            other => Err(Error::checkpoint(format!(
                "hidden_act '{other}' is not supported; known: quick_gelu, gelu"
            ))),
        }
    }
}

fn one() -> PerBlock {
    PerBlock::All(1)
}
fn thirty_two() -> usize {
    32
}
fn norm_eps() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}
fn vae_sample_size() -> usize {
    32
}
fn clip_vocabulary() -> usize {
    49408
}
fn clip_positions() -> usize {
    77
}
fn legacy_eos() -> u32 {
    2
}
