//! The UNet's transformers: self-attention, attention to the context, and a gated MLP.

use crate::error::Result;
use crate::ops::{
    Attention, Conv2d, ConvShape, GroupNorm, Linear, Linears, Mask, NormSource, NormedGated, NormedLinears,
    Rows, SplitLinear,
};
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// The sizes of a transformer.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransformerShape {
    /// Channels of the picture.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the context.
    pub context: usize,
    /// Groups of the group norm.
    pub groups: usize,
    /// Whether the picture enters through a linear map, not a 1x1 convolution.
    pub linear_projection: bool,
}

/// Epsilon of the group norm before a transformer (`Transformer2DModel` of diffusers).
const TRANSFORMER_NORM_EPS: f64 = 1e-6;
/// Epsilon of the layer norms (torch's default).
const LAYER_NORM_EPS: f64 = 1e-5;
/// The MLP's inner width over its outer one.
const MLP_RATIO: usize = 4;

/// Attention of a picture to itself, with the norm before it.
#[derive(Debug)]
struct SelfAttention {
    to_qkv: NormedLinears,
    attention: Attention,
    to_out: SplitLinear,
}

impl SelfAttention {
    /// `bare` `[C]` is what attention to a context of zeros would add to every pixel.
    fn load(vb: &VarBuilder, norm: NormSource, shape: TransformerShape, bare: &Tensor) -> Result<Self> {
        let channels = shape.channels;
        let maps = ["to_q", "to_k", "to_v"].map(|name| vb.pp(name));
        Ok(Self {
            to_qkv: NormedLinears::load_no_bias(norm, &maps, channels)?,
            attention: Attention::new(shape.heads, Mask::None, vb.dtype()),
            to_out: SplitLinear::load(&vb.pp("to_out.0"), bare, channels, channels)?,
        })
    }

    /// Adds to rows `[B, L, C]`, the first `prompted` of which have a context.
    fn forward(&self, x: &Rows, prompted: usize) -> Result<Rows> {
        let qkv = self.to_qkv.forward(x)?;
        let mixed = self.attention.forward([&qkv[0], &qkv[1], &qkv[2]])?;
        self.to_out.forward_add(&mixed, x, prompted)
    }
}

/// Attention of a picture to keys and values of the context, with the norm before it.
///
/// Keys and values have no bias: those of a context of zeros are zeros, whose mix is zeros whatever the queries, and what is
/// left of it all is the bias of `to_out`. Rows with such a context are spared the rest.
#[derive(Debug)]
struct CrossAttention {
    to_q: NormedLinears,
    attention: Attention,
    to_out: Linear,
}

impl CrossAttention {
    fn load(vb: &VarBuilder, norm: NormSource, shape: TransformerShape) -> Result<Self> {
        let channels = shape.channels;
        Ok(Self {
            to_q: NormedLinears::load_no_bias(norm, &[vb.pp("to_q")], channels)?,
            attention: Attention::new(shape.heads, Mask::None, vb.dtype()),
            to_out: Linear::load(&vb.pp("to_out.0"), channels, channels)?,
        })
    }

    /// Adds to the first `n` of the rows `[B, L, C]`, whose queries meet keys and values `[n, S, C]`. The others have been given
    /// their share.
    fn forward(&self, x: Rows, [keys, values]: [&Tensor; 2]) -> Result<Rows> {
        let prompted = keys.dim(0)?;
        if prompted == 0 {
            return Ok(x);
        }
        let queries = self.to_q.forward(&x.first(prompted)?)?;
        let mixed = self.attention.forward([&queries[0], keys, values])?;
        self.to_out.forward_onto_first(&mixed, x)
    }
}

#[derive(Debug)]
struct TransformerBlock {
    attn1: SelfAttention,
    attn2: CrossAttention,
    ff_in: NormedGated,
    ff_out: Linear,
}

impl TransformerBlock {
    fn load(vb: &VarBuilder, shape: TransformerShape) -> Result<Self> {
        let channels = shape.channels;
        let norms = ["norm1", "norm2", "norm3"].map(|name| vb.pp(name));
        let [norm1, norm2, norm3] =
            norms.each_ref().map(|vb| NormSource { vb, channels, eps: LAYER_NORM_EPS });
        let inner = channels * MLP_RATIO;
        let bare = vb.pp("attn2.to_out.0").get(channels, "bias")?;
        Ok(Self {
            attn1: SelfAttention::load(&vb.pp("attn1"), norm1, shape, &bare)?,
            attn2: CrossAttention::load(&vb.pp("attn2"), norm2, shape)?,
            ff_in: NormedGated::load(norm3, &vb.pp("ff.net.0.proj"), inner)?,
            ff_out: Linear::load(&vb.pp("ff.net.2"), inner, channels)?,
        })
    }

    /// Maps rows `[B, L, C]` in the light of the context's keys and values, which the first rows have.
    fn forward(&self, x: &Rows, context: [&Tensor; 2]) -> Result<Rows> {
        let x = self.attn1.forward(x, context[0].dim(0)?)?;
        let x = self.attn2.forward(x, context)?;
        self.ff_out.forward_add_rows(&self.ff_in.forward(&x)?, &x)
    }
}

/// A 1x1 map of the channels, as either kind of checkpoint holds it.
#[derive(Debug)]
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn load(vb: &VarBuilder, shape: TransformerShape) -> Result<Self> {
        let channels = shape.channels;
        Ok(if shape.linear_projection {
            Self::Linear(Linear::load(vb, channels, channels)?)
        } else {
            Self::Conv(Conv2d::load(vb, ConvShape::pointwise(channels, channels))?)
        })
    }

    /// Maps `[B, H, W, C]` to rows `[B, H * W, C]`.
    fn forward(&self, x: &Tensor) -> Result<Rows> {
        match self {
            Self::Conv(conv) => Ok(Rows::plain(conv.forward(x)?.flatten(1, 2)?)),
            Self::Linear(linear) => linear.forward_rows(&x.flatten(1, 2)?),
        }
    }

    /// [`Projection::forward`] plus `residual` `[B, H, W, C]`.
    fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match self {
            Self::Conv(conv) => conv.forward_add(x, residual),
            Self::Linear(linear) => {
                let sum = linear.forward_add(&x.flatten(1, 2)?, &residual.flatten(1, 2)?)?;
                Ok(sum.reshape(x.shape())?)
            }
        }
    }
}

/// Transformer layers over the pixels of a picture (`Transformer2DModel` of diffusers).
#[derive(Debug)]
pub(super) struct Transformer2d {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    /// Keys and values of the context for every block, `attn2.to_k` and `attn2.to_v` of each in turn.
    context_maps: Linears,
    proj_out: Projection,
}

impl Transformer2d {
    /// Reads `norm`, `proj_in`, `transformer_blocks.*` and `proj_out`.
    pub fn load(vb: &VarBuilder, shape: TransformerShape) -> Result<Self> {
        let layers = vb.pp("transformer_blocks");
        let context_maps: Vec<VarBuilder> = (0..shape.layers)
            .flat_map(|layer| ["to_k", "to_v"].map(|name| layers.pp(layer).pp("attn2").pp(name)))
            .collect();
        Ok(Self {
            norm: GroupNorm::load(&vb.pp("norm"), shape.channels, shape.groups, TRANSFORMER_NORM_EPS)?,
            proj_in: Projection::load(&vb.pp("proj_in"), shape)?,
            transformer_blocks: (0..shape.layers)
                .map(|layer| TransformerBlock::load(&layers.pp(layer), shape))
                .collect::<Result<_>>()?,
            context_maps: Linears::load_no_bias(&context_maps, shape.context, shape.channels)?,
            proj_out: Projection::load(&vb.pp("proj_out"), shape)?,
        })
    }

    /// Keys and values of `context` `[n, S, D]` for all layers side by side: `[n, S, 2 layers C]`.
    pub fn mapped(&self, context: &Tensor) -> Result<Tensor> {
        self.context_maps.forward_joined(context)
    }

    /// Maps pictures `[B, H, W, C]`, the first `n` of them in the light of what [`Transformer2d::mapped`] made of their context,
    /// the others as if theirs were zeros.
    pub fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let mut pixels = self.proj_in.forward(&self.norm.forward(x)?)?;
        let context = self.context_maps.split(context)?;
        for (block, context) in self.transformer_blocks.iter().zip(context.chunks_exact(2)) {
            pixels = block.forward(&pixels, [&context[0], &context[1]])?;
        }
        self.proj_out.forward_add(&pixels.values().reshape(x.shape())?, x)
    }
}
