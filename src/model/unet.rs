//! The denoiser: SDXL's `UNet2DConditionModel`, with one timestep, one context and one set of sizes for each row.

use super::attention::{Transformer2d, TransformerShape};
use super::block::{Downsample, OutputHead, Resnet, ResnetShape, Upsample};
use super::config::UnetConfig;
use super::embed::{Sinusoid, TimestepEmbedding};
use crate::error::{Error, Result};
use crate::ops::{Conv2d, ConvShape, Kept, Padding, Replay, activations, join, silu};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

/// What the rows of one evaluation are conditioned on.
#[derive(Debug)]
pub struct Conditioning<'a> {
    /// The training timestep of each row, 0..1000, fractions allowed.
    pub timesteps: &'a [f32],
    /// The prompts' token embeddings, `[.., 77 k, D]`, one row or several in each: of the first of the B rows, one at least. The
    /// others are evaluated as if theirs were zeros. What is made of them alone is kept for as long as the same tensors come in
    /// the same order.
    pub contexts: &'a [&'a Tensor],
    /// The prompts' pooled embeddings, `[B, P]`; not read by models without `text_time`.
    pub pooled: &'a Tensor,
    /// For each row original height and width, crop top and left, target height and width, in pixels.
    pub time_ids: &'a [[f32; 6]],
}

/// Layers of one size, on the way down or up: residual blocks, each with a transformer where the class says so.
#[derive(Debug)]
struct Layers {
    resnets: Vec<Resnet>,
    attentions: Vec<Transformer2d>, // as many, or none
}

impl Layers {
    fn load(vb: &VarBuilder, resnets: &[ResnetShape], transformer: Option<TransformerShape>) -> Result<Self> {
        let (residual, attention) = (vb.pp("resnets"), vb.pp("attentions"));
        let attentions = match transformer {
            None => Vec::new(),
            Some(shape) => (0..resnets.len())
                .map(|layer| Transformer2d::load(&attention.pp(layer), shape))
                .collect::<Result<_>>()?,
        };
        let resnets = resnets
            .iter()
            .enumerate()
            .map(|(layer, shape)| Resnet::load(&residual.pp(layer), *shape))
            .collect::<Result<_>>()?;
        Ok(Self { resnets, attentions })
    }

    fn forward(&self, layer: usize, x: &Tensor, time: &Tensor, contexts: &mut Contexts) -> Result<Tensor> {
        let x = self.resnets[layer].forward(x, Some(time))?;
        match self.attentions.get(layer) {
            Some(attention) => attention.forward(&x, next(contexts)?),
            None => Ok(x),
        }
    }
}

/// What the transformers read of the context, one after the other.
type Contexts<'a> = std::slice::Iter<'a, Tensor>;

#[derive(Debug)]
struct DownBlock {
    layers: Layers,
    downsample: Option<Downsample>,
}

#[derive(Debug)]
struct UpBlock {
    layers: Layers,
    upsample: Option<Upsample>,
}

#[derive(Debug)]
struct MidBlock {
    resnets: [Resnet; 2],
    attention: Transformer2d,
}

/// Reads the blocks of a UNet with the sizes that its config implies.
struct Reader<'a, 'v> {
    vb: &'a VarBuilder<'v>,
    config: &'a UnetConfig,
}

impl Reader<'_, '_> {
    fn resnet(&self, inputs: usize, outputs: usize) -> ResnetShape {
        let config = self.config;
        let time = Some(time_width(config));
        ResnetShape { inputs, outputs, time, groups: config.norm_num_groups, eps: config.norm_eps }
    }

    /// The transformer of `block`, counted on the way down.
    fn transformer(&self, block: usize) -> TransformerShape {
        let config = self.config;
        TransformerShape {
            channels: config.block_out_channels[block],
            heads: config.heads(block).expect("checked: one number of heads a block"),
            layers: config.transformer_layers_per_block.at(block).expect("checked: one depth a block"),
            context: config.cross_attention_dim,
            groups: config.norm_num_groups,
            linear_projection: config.use_linear_projection,
        }
    }

    /// The transformer of `block` where `class` has one.
    fn transformer_of_class(&self, class: &str, block: usize) -> Result<Option<TransformerShape>> {
        match class {
            "DownBlock2D" | "UpBlock2D" => Ok(None),
            "CrossAttnDownBlock2D" | "CrossAttnUpBlock2D" => Ok(Some(self.transformer(block))),
            other => Err(Error::checkpoint(format!(
                "unet/config.json: block class '{other}' is not supported; known: DownBlock2D, \
                 CrossAttnDownBlock2D, UpBlock2D, CrossAttnUpBlock2D"
            ))),
        }
    }

    fn down_block(&self, block: usize) -> Result<DownBlock> {
        let vb = self.vb.pp("down_blocks").pp(block);
        let channels = &self.config.block_out_channels;
        let (before, outputs) = (channels[block.saturating_sub(1)], channels[block]);
        let shapes: Vec<_> = (0..self.config.layers_per_block)
            .map(|layer| self.resnet(if layer == 0 { before } else { outputs }, outputs))
            .collect();
        let transformer = self.transformer_of_class(&self.config.down_block_types[block], block)?;
        let last = block + 1 == channels.len();
        let downsample = || Downsample::load(&vb.pp("downsamplers.0"), outputs, Padding::Same(1));
        Ok(DownBlock {
            layers: Layers::load(&vb, &shapes, transformer)?,
            downsample: (!last).then(downsample).transpose()?,
        })
    }

    fn mid_block(&self) -> Result<MidBlock> {
        let vb = self.vb.pp("mid_block");
        let block = self.config.block_out_channels.len() - 1;
        let channels = self.config.block_out_channels[block];
        let resnet =
            |index: usize| Resnet::load(&vb.pp("resnets").pp(index), self.resnet(channels, channels));
        Ok(MidBlock {
            resnets: [resnet(0)?, resnet(1)?],
            attention: Transformer2d::load(&vb.pp("attentions.0"), self.transformer(block))?,
        })
    }

    /// Block `up` on the way up undoes block `last - up` on the way down, and reads its layers' outputs beside
    /// its own, the last of them of the block before.
    fn up_block(&self, up: usize) -> Result<UpBlock> {
        let vb = self.vb.pp("up_blocks").pp(up);
        let channels = &self.config.block_out_channels;
        let block = channels.len() - 1 - up;
        let outputs = channels[block];
        let below = channels[(block + 1).min(channels.len() - 1)];
        let layers = self.config.layers_per_block + 1;
        let shapes: Vec<_> = (0..layers)
            .map(|layer| {
                let inputs = if layer == 0 { below } else { outputs };
                let skip = if layer + 1 == layers { channels[block.saturating_sub(1)] } else { outputs };
                self.resnet(inputs + skip, outputs)
            })
            .collect();
        let transformer = self.transformer_of_class(&self.config.up_block_types[up], block)?;
        let upsample = || Upsample::load(&vb.pp("upsamplers.0"), outputs);
        Ok(UpBlock {
            layers: Layers::load(&vb, &shapes, transformer)?,
            upsample: (block > 0).then(upsample).transpose()?,
        })
    }
}

/// What the next transformer reads.
fn next<'a>(contexts: &mut Contexts<'a>) -> Result<&'a Tensor> {
    contexts.next().ok_or_else(|| Error::internal("the context is mapped for every transformer"))
}

/// The width of the time embedding over that of the first block.
fn time_width(config: &UnetConfig) -> usize {
    4 * config.block_out_channels[0]
}

/// Pooled text and sizes as a vector that is added to the time embedding (`text_time`).
#[derive(Debug)]
struct AddedConditioning {
    ids: Sinusoid,
    count: usize,
    add_embedding: TimestepEmbedding,
}

/// The context's place among the inputs of [`Unet::body`].
const CONTEXT: usize = 2;

/// The UNet.
#[derive(Debug)]
pub struct Unet {
    time: Sinusoid,
    time_embedding: TimestepEmbedding,
    added: Option<AddedConditioning>,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    head: OutputHead,
    replay: Replay,
}

impl Unet {
    /// Reads a UNet whose pooled text embedding is `pooled` wide.
    ///
    /// # Errors
    /// If the config selects a variant that is not built, or a tensor is missing or of another shape.
    pub fn load(vb: &VarBuilder, config: &UnetConfig, pooled: usize) -> Result<Self> {
        config.check()?;
        let blocks = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let width = time_width(config);
        let reader = Reader { vb, config };
        let head = ResnetShape { outputs: config.out_channels, ..reader.resnet(first, first) };
        Ok(Self {
            time: Sinusoid { width: first, cosines_first: config.flip_sin_to_cos, shift: config.freq_shift },
            time_embedding: TimestepEmbedding::load(&vb.pp("time_embedding"), first, width)?,
            added: config
                .addition_embed_type
                .is_some()
                .then(|| AddedConditioning::load(vb, config, pooled))
                .transpose()?,
            conv_in: Conv2d::load(&vb.pp("conv_in"), ConvShape::same3(config.in_channels, first))?,
            down_blocks: (0..blocks).map(|block| reader.down_block(block)).collect::<Result<_>>()?,
            mid_block: reader.mid_block()?,
            up_blocks: (0..blocks).map(|block| reader.up_block(block)).collect::<Result<_>>()?,
            head: OutputHead::load(vb, head)?,
            replay: Replay::default(),
        })
    }

    /// The model's output (noise or velocity) `[B, H, W, out]` for inputs `[B, H, W, in]`, scaled for their noise.
    pub fn forward(&self, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let sinusoids = self.time.of(conditioning.timesteps, x.device())?.unsqueeze(1)?; // [B, 1, first]
        let context = activations(&Tensor::cat(conditioning.contexts, 0)?)?;
        let mut inputs = vec![x.clone(), sinusoids, context];
        if let Some(added) = &self.added {
            inputs.push(added.inputs(conditioning.pooled, conditioning.time_ids)?);
        }
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let of = conditioning.contexts.iter().map(|context| context.id()).collect();
        let make = |context: &Tensor| self.mapped(context);
        let kept = Kept { input: CONTEXT, of, make: &make };
        let mut outputs =
            self.replay.run(&inputs, kept, |inputs, kept| Ok(vec![self.body(inputs, kept)?]))?;
        Ok(outputs.swap_remove(0))
    }

    /// What every transformer reads of the context, in the order in which they come.
    fn mapped(&self, context: &Tensor) -> Result<Vec<Tensor>> {
        let down = self.down_blocks.iter().flat_map(|block| &block.layers.attentions);
        let up = self.up_blocks.iter().flat_map(|block| &block.layers.attentions);
        down.chain([&self.mid_block.attention]).chain(up).map(|attention| attention.mapped(context)).collect()
    }

    /// [`Unet::forward`] of the picture, the timesteps' sinusoids, the context, and the added conditioning if any; with what
    /// [`Unet::mapped`] made of the context.
    fn body(&self, inputs: &[&Tensor], mapped: &[Tensor]) -> Result<Tensor> {
        let [x, sinusoids, _, added @ ..] = inputs else {
            return Err(Error::internal("a UNet reads a picture, timesteps and a context"));
        };
        let mut contexts = mapped.iter();
        let time = self.time_vector(sinusoids, added.first().copied())?;
        let mut x = self.conv_in.forward(x)?;
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            for layer in 0..block.layers.resnets.len() {
                x = block.layers.forward(layer, &x, &time, &mut contexts)?;
                skips.push(x.clone());
            }
            if let Some(downsample) = &block.downsample {
                x = downsample.forward(&x)?;
                skips.push(x.clone());
            }
        }
        let [before, after] = &self.mid_block.resnets;
        x = before.forward(&x, Some(&time))?;
        x = after.forward(&self.mid_block.attention.forward(&x, next(&mut contexts)?)?, Some(&time))?;
        for block in &self.up_blocks {
            for layer in 0..block.layers.resnets.len() {
                let skip = skips.pop().expect("the way up has as many layers as the way down left skips");
                let joined = join(&x, &skip)?;
                x = block.layers.forward(layer, &joined, &time, &mut contexts)?;
            }
            if let (Some(upsample), Some(skip)) = (&block.upsample, skips.last()) {
                x = upsample.forward(&x, (skip.dim(1)?, skip.dim(2)?))?;
            }
        }
        self.head.forward(&x)
    }

    /// Time, pooled text and sizes as one vector a row, after the SiLU that every residual block would apply.
    fn time_vector(&self, sinusoids: &Tensor, added: Option<&Tensor>) -> Result<Tensor> {
        let mut vector = self.time_embedding.forward(sinusoids)?;
        if let (Some(layers), Some(added)) = (&self.added, added) {
            vector = (vector + layers.add_embedding.forward(added)?)?;
        }
        silu(&vector)
    }
}

impl AddedConditioning {
    fn load(vb: &VarBuilder, config: &UnetConfig, pooled: usize) -> Result<Self> {
        let missing = || {
            Error::checkpoint(
                "unet/config.json: addition_embed_type text_time needs addition_time_embed_dim and \
                 projection_class_embeddings_input_dim",
            )
        };
        let width = config.addition_time_embed_dim.ok_or_else(missing)?;
        let inputs = config.projection_class_embeddings_input_dim.ok_or_else(missing)?;
        let count = config.time_ids(pooled).filter(|count| pooled + count * width == inputs && *count == 6);
        let count = count.ok_or_else(|| {
            Error::checkpoint(format!(
                "unet/config.json: projection_class_embeddings_input_dim {inputs} is not the pooled width {pooled} \
                 and six time ids of {width}"
            ))
        })?;
        Ok(Self {
            ids: Sinusoid { width, cosines_first: config.flip_sin_to_cos, shift: config.freq_shift },
            count,
            add_embedding: TimestepEmbedding::load(&vb.pp("add_embedding"), inputs, time_width(config))?,
        })
    }

    /// What its layers read, `[B, 1, inputs]` in f32: pooled text `[B, P]` and one set of sizes a row.
    fn inputs(&self, pooled: &Tensor, time_ids: &[[f32; 6]]) -> Result<Tensor> {
        let sizes: Vec<f32> = time_ids.iter().flatten().copied().collect();
        let sizes = self.ids.of(&sizes, pooled.device())?; // [B * 6, width]
        let sizes = sizes.reshape((time_ids.len(), self.count * self.ids.width))?;
        let pooled = pooled.to_dtype(sizes.dtype())?;
        Ok(Tensor::cat(&[&pooled, &sizes], D::Minus1)?.unsqueeze(1)?)
    }
}
