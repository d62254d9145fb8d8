//! The autoencoder between pixels and latents (`AutoencoderKL` of diffusers).

use super::block::{Downsample, OutputHead, Resnet, ResnetShape, Upsample};
use super::config::VaeConfig;
pub use super::vae_tiles::Tiling;
use crate::error::Result;
use crate::ops::{Attention, Bands, Conv2d, ConvShape, GroupNorm, Linear, Mask, Padding, in_pool, thriftily};
use candle_core::{D, DType, Tensor};
use candle_nn::VarBuilder;
use std::fmt;
use std::sync::OnceLock;

/// Epsilon of every group norm of the VAE.
const NORM_EPS: f64 = 1e-6;
/// Pixels of a latent picture from which on freed pages are given back to the system while there are bands: they would add to their
/// peak. What smaller pictures free is little, and the next one finds it again.
const LARGE: usize = 96 * 96;
/// Channels of a picture.
const RGB: usize = 3;
/// Bounds of the posterior's log variance (`DiagonalGaussianDistribution` of diffusers).
const LOGVAR_BOUNDS: (f64, f64) = (-30.0, 20.0);

/// What an encoded picture may be: a normal distribution for each latent.
#[derive(Debug)]
pub struct Posterior {
    /// Means, `[B, h, w, latent channels]`, not yet scaled.
    pub mean: Tensor,
    /// Logarithms of the variances, of the same shape, within -30..=20.
    pub logvar: Tensor,
}

impl Posterior {
    /// The latents that `noise`, of the mean's shape, picks.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok((&self.mean + (&self.logvar * 0.5)?.exp()?.mul(noise)?)?)
    }
}

/// One head of attention over all pixels.
#[derive(Debug)]
struct PixelAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    attention: Attention,
    to_out: Linear,
}

impl PixelAttention {
    /// Reads the attention by today's names or by those of diffusers before 0.15.
    fn load(vb: &VarBuilder, channels: usize, groups: usize) -> Result<Self> {
        let old = vb.contains_tensor("query.weight");
        let project = |new: &str, former: &str| {
            Linear::load(&vb.pp(if old { former } else { new }), channels, channels)
        };
        Ok(Self {
            group_norm: GroupNorm::load(&vb.pp("group_norm"), channels, groups, NORM_EPS)?,
            to_q: project("to_q", "query")?,
            to_k: project("to_k", "key")?,
            to_v: project("to_v", "value")?,
            attention: Attention::new(1, Mask::None, vb.dtype()),
            to_out: project("to_out.0", "proj_attn")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let pixels = self.group_norm.forward(x)?.flatten(1, 2)?; // [B, H*W, C]
        let (q, k, v) =
            (self.to_q.forward(&pixels)?, self.to_k.forward(&pixels)?, self.to_v.forward(&pixels)?);
        let mixed = self.attention.forward([&q, &k, &v])?;
        Ok(self.to_out.forward_add(&mixed, &x.flatten(1, 2)?)?.reshape(x.shape())?)
    }
}

#[derive(Debug)]
struct MidBlock {
    resnets: [Resnet; 2],
    attention: Option<PixelAttention>,
}

impl MidBlock {
    fn load(vb: &VarBuilder, config: &VaeConfig, channels: usize) -> Result<Self> {
        let resnet =
            |index: usize| Resnet::load(&vb.pp("resnets").pp(index), shape(config, channels, channels));
        let attention = || PixelAttention::load(&vb.pp("attentions.0"), channels, config.norm_num_groups);
        Ok(Self {
            resnets: [resnet(0)?, resnet(1)?],
            attention: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.resnets[1].forward(&x, None)
    }
}

fn shape(config: &VaeConfig, inputs: usize, outputs: usize) -> ResnetShape {
    ResnetShape { inputs, outputs, time: None, groups: config.norm_num_groups, eps: NORM_EPS }
}

fn resnets(vb: &VarBuilder, shapes: impl Iterator<Item = ResnetShape>) -> Result<Vec<Resnet>> {
    let vb = vb.pp("resnets");
    shapes.enumerate().map(|(layer, shape)| Resnet::load(&vb.pp(layer), shape)).collect()
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<Resnet>, Option<Downsample>)>,
    mid_block: MidBlock,
    head: OutputHead,
}

impl Encoder {
    fn load(vb: &VarBuilder, config: &VaeConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let top = channels[channels.len() - 1];
        let down_block = |level: usize| {
            let vb = vb.pp("down_blocks").pp(level);
            let (before, here) = (channels[level.saturating_sub(1)], channels[level]);
            let shapes = (0..config.layers_per_block)
                .map(|layer| shape(config, if layer == 0 { before } else { here }, here));
            let downsample = || Downsample::load(&vb.pp("downsamplers.0"), here, Padding::BottomRight);
            let last = level + 1 == channels.len();
            Ok((resnets(&vb, shapes)?, (!last).then(downsample).transpose()?))
        };
        Ok(Self {
            conv_in: Conv2d::load(&vb.pp("conv_in"), ConvShape::same3(RGB, channels[0]))?,
            down_blocks: (0..channels.len()).map(down_block).collect::<Result<_>>()?,
            mid_block: MidBlock::load(&vb.pp("mid_block"), config, top)?,
            head: OutputHead::load(vb, shape(config, top, 2 * config.latent_channels))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x)?;
        for (resnets, downsample) in &self.down_blocks {
            for resnet in resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(downsample) = downsample {
                x = downsample.forward(&x)?;
            }
        }
        self.head.forward(&self.mid_block.forward(&x)?)
    }
}

/// An encoder and where it is read from. On a processor it is not held before a picture was encoded: many servers only draw, and it is
/// two fifths of the VAE's weights.
struct Encoding {
    vb: VarBuilder<'static>,
    config: VaeConfig,
    encoder: OnceLock<Encoder>,
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoding").field("held", &self.encoder.get().is_some()).finish_non_exhaustive()
    }
}

impl Encoding {
    /// Reads the encoder once, to hold it, or to know that it is whole.
    fn load(vb: VarBuilder<'static>, config: &VaeConfig) -> Result<Self> {
        let encoder = Encoder::load(&vb, config)?;
        let held = !vb.device().is_cpu();
        let encoder = if held { OnceLock::from(encoder) } else { OnceLock::new() };
        Ok(Self { vb, config: config.clone(), encoder })
    }

    /// The encoder, which is held from now on.
    fn encoder(&self) -> Result<&Encoder> {
        if let Some(encoder) = self.encoder.get() {
            return Ok(encoder);
        }
        let encoder = Encoder::load(&self.vb, &self.config)?;
        Ok(self.encoder.get_or_init(|| encoder))
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<(Vec<Resnet>, Option<Upsample>)>,
    head: OutputHead,
    /// The type that bands are kept in.
    kept: DType,
}

impl Decoder {
    fn load(vb: &VarBuilder, config: &VaeConfig) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let up_block = |level: usize| {
            let vb = vb.pp("up_blocks").pp(level);
            let (before, here) = (channels[level.saturating_sub(1)], channels[level]);
            let shapes = (0..=config.layers_per_block)
                .map(|layer| shape(config, if layer == 0 { before } else { here }, here));
            let upsample = || Upsample::load(&vb.pp("upsamplers.0"), here);
            let last = level + 1 == channels.len();
            Ok((resnets(&vb, shapes)?, (!last).then(upsample).transpose()?))
        };
        let bottom = channels[channels.len() - 1];
        Ok(Self {
            conv_in: Conv2d::load(&vb.pp("conv_in"), ConvShape::same3(config.latent_channels, channels[0]))?,
            mid_block: MidBlock::load(&vb.pp("mid_block"), config, channels[0])?,
            up_blocks: (0..channels.len()).map(up_block).collect::<Result<_>>()?,
            head: OutputHead::load(vb, shape(config, bottom, RGB))?,
            kept: vb.dtype(),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.mid_block.forward(&self.conv_in.forward(x)?)?;
        if Bands::take(&x) {
            let large = x.dim(1)? * x.dim(2)? >= LARGE;
            let rows = x.chunk(x.dim(0)?, 0)?;
            drop(x);
            let enlarge =
                || rows.into_iter().map(|row| self.enlarge_by_bands(row)).collect::<Result<Vec<_>>>();
            let pictures = if large { thriftily(enlarge)? } else { enlarge()? };
            return Ok(Tensor::cat(&pictures, 0)?);
        }
        for (resnets, upsample) in &self.up_blocks {
            for resnet in resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(upsample) = upsample {
                x = upsample.forward(&x, (2 * x.dim(1)?, 2 * x.dim(2)?))?;
            }
        }
        self.head.forward(&x)
    }

    /// The picture that one row becomes behind the middle block: its layers grow to a hundred times what they hold
    /// before, so that they are kept in as few bits as the weights, and never two of them whole.
    fn enlarge_by_bands(&self, row: Tensor) -> Result<Tensor> {
        let mut x = Bands::of(row, self.kept)?;
        for (resnets, upsample) in &self.up_blocks {
            for resnet in resnets {
                x = resnet.forward_bands(x)?;
            }
            if let Some(upsample) = upsample {
                x = upsample.forward_bands(x)?;
            }
        }
        self.head.forward_bands(x)
    }
}

/// The autoencoder.
#[derive(Debug)]
pub struct Vae {
    encoding: Encoding,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    tiling: Tiling,
}

impl Vae {
    /// Reads a VAE. On a processor its encoder is read again, from what the checkpoint is then, when the first picture is encoded.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn load(vb: &VarBuilder<'static>, config: &VaeConfig) -> Result<Self> {
        let latents = config.latent_channels;
        let pointwise =
            |name: &str, channels| Conv2d::load(&vb.pp(name), ConvShape::pointwise(channels, channels));
        Ok(Self {
            encoding: Encoding::load(vb.pp("encoder"), config)?,
            decoder: Decoder::load(&vb.pp("decoder"), config)?,
            quant_conv: config.use_quant_conv.then(|| pointwise("quant_conv", 2 * latents)).transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| pointwise("post_quant_conv", latents))
                .transpose()?,
            tiling: Tiling::of(config),
        })
    }

    /// What a picture `[B, H, W, 3]` with values in -1..=1 may be as latents.
    pub fn encode(&self, picture: &Tensor) -> Result<Posterior> {
        let mut moments = in_pool(picture, || self.encoding.encoder()?.forward(picture))?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let parts = moments.chunk(2, D::Minus1)?;
        let (low, high) = LOGVAR_BOUNDS;
        Ok(Posterior { mean: parts[0].contiguous()?, logvar: parts[1].clamp(low, high)? })
    }

    /// The picture `[B, 8h, 8w, 3]`, about -1..=1, of unscaled latents `[B, h, w, latent channels]`.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        in_pool(latents, || match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(latents)?),
            None => self.decoder.forward(latents),
        })
    }

    /// [`Vae::decode`] in overlapping tiles, blended: bounded memory for large pictures, at the price of small
    /// differences, since no tile sees the whole picture.
    pub fn decode_tiled(&self, latents: &Tensor, tiling: Tiling) -> Result<Tensor> {
        tiling.decode(latents, |tile| self.decode(tile))
    }

    /// The tiles that the model was trained on.
    pub fn tiling(&self) -> Tiling {
        self.tiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    const CONFIG: &str = r#"{"block_out_channels": [8, 8], "latent_channels": 4, "layers_per_block": 1,
        "norm_num_groups": 4, "scaling_factor": 1.0}"#;

    #[test]
    fn an_encoder_is_held_once_a_picture_was_encoded() {
        let config: VaeConfig = serde_json::from_str(CONFIG).expect("it is a config");
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        let vae = Vae::load(&vb, &config).expect("zeros are weights");
        assert!(vae.encoding.encoder.get().is_none(), "nobody asked for it");
        let picture = Tensor::zeros((1, 8, 8, RGB), DType::F32, &Device::Cpu).expect("a black picture");
        for _ in 0..2 {
            let posterior = vae.encode(&picture).expect("it is encoded");
            assert_eq!(posterior.mean.dims(), [1, 4, 4, 4]);
            assert!(vae.encoding.encoder.get().is_some());
        }
    }
}
