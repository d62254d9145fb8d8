//! Residual blocks and the steps between sizes, which the UNet and the VAE share.

use crate::error::Result;
use crate::ops::{Bands, Conv2d, ConvShape, GroupNorm, Linear, Padding, View};
use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

/// The sizes of a residual block.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResnetShape {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Width of the time embedding; none in the VAE.
    pub time: Option<usize>,
    /// Groups of the group norms.
    pub groups: usize,
    /// Epsilon of the group norms.
    pub eps: f64,
}

/// Norm, SiLU, convolution, twice, around a shortcut (`ResnetBlock2D` of diffusers).
#[derive(Debug)]
pub(super) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    outputs: usize,
}

impl Resnet {
    /// Reads a block; it has a `conv_shortcut` where the number of channels changes.
    pub fn load(vb: &VarBuilder, shape: ResnetShape) -> Result<Self> {
        let ResnetShape { inputs, outputs, time, groups, eps } = shape;
        let shortcut = |vb| Conv2d::load(&vb, ConvShape::pointwise(inputs, outputs));
        Ok(Self {
            norm1: GroupNorm::load(&vb.pp("norm1"), inputs, groups, eps)?,
            conv1: Conv2d::load(&vb.pp("conv1"), ConvShape::same3(inputs, outputs))?,
            time_emb_proj: time
                .map(|width| Linear::load(&vb.pp("time_emb_proj"), width, outputs))
                .transpose()?,
            norm2: GroupNorm::load(&vb.pp("norm2"), outputs, groups, eps)?,
            conv2: Conv2d::load(&vb.pp("conv2"), ConvShape::same3(outputs, outputs))?,
            conv_shortcut: (inputs != outputs).then(|| shortcut(vb.pp("conv_shortcut"))).transpose()?,
            outputs,
        })
    }

    /// Maps `[B, H, W, inputs]`, with the time embedding after its SiLU `[B, 1, time]`, to `[B, H, W, outputs]`.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let normed = self.norm1.forward_silu(x)?;
        let inner = match (&self.time_emb_proj, time) {
            (Some(project), Some(time)) => self.conv1.forward_shifted(&normed, &project.forward(time)?)?,
            _ => self.conv1.forward(&normed)?,
        };
        let shortcut = match &self.conv_shortcut {
            Some(conv) => conv.forward(x)?,
            None => x.clone(),
        };
        self.conv2.forward_add(&self.norm2.forward_silu(&inner)?, &shortcut)
    }

    /// [`Resnet::forward`] without a time embedding, letting go of `x` while it is read.
    pub fn forward_bands(&self, mut x: Bands) -> Result<Bands> {
        let (mut inner, shortcut) = self.open_bands(&mut x)?;
        let mut shortcut = shortcut.unwrap_or(x);
        let map = self.norm2.map(&inner)?;
        let conv = self.conv2.for_bands(View::normed(&inner, &map))?;
        let mut out = inner.next(1, self.outputs);
        for group in out.cuts() {
            group.make(&mut out, |lines| {
                conv.band(View::normed(&inner, &map), lines, Some(&shortcut.numbers(lines.clone())))
            });
            shortcut.release(group.end());
            inner.release(group.end() - 1);
        }
        Ok(out)
    }

    /// What is between the convolutions, and the shortcut if it is not `x` itself.
    fn open_bands(&self, x: &mut Bands) -> Result<(Bands, Option<Bands>)> {
        let map = self.norm1.map(x)?;
        let conv = self.conv1.for_bands(View::normed(x, &map))?;
        let conv_shortcut =
            self.conv_shortcut.as_ref().map(|conv| conv.for_bands(View::plain(x))).transpose()?;
        let mut inner = x.next(1, self.outputs);
        let mut shortcut = conv_shortcut.as_ref().map(|_| x.next(1, self.outputs));
        for group in inner.cuts() {
            group.make(&mut inner, |lines| conv.band(View::normed(x, &map), lines, None));
            if let (Some(conv), Some(shortcut)) = (&conv_shortcut, &mut shortcut) {
                group.make(shortcut, |lines| conv.band(View::plain(x), lines, None));
                x.release(group.end() - 1);
            }
        }
        Ok((inner, shortcut))
    }
}

/// Halves a picture with a strided convolution.
#[derive(Debug)]
pub(super) struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// Reads `conv`.
    pub fn load(vb: &VarBuilder, channels: usize, padding: Padding) -> Result<Self> {
        Ok(Self { conv: Conv2d::load(&vb.pp("conv"), ConvShape::halving(channels, padding))? })
    }

    /// Maps `[B, H, W, C]` to half of it, rounded up under symmetric padding.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(x)
    }
}

/// Enlarges a picture by repeating pixels, then convolves it.
#[derive(Debug)]
pub(super) struct Upsample {
    conv: Conv2d,
    channels: usize,
}

impl Upsample {
    /// Reads `conv`.
    pub fn load(vb: &VarBuilder, channels: usize) -> Result<Self> {
        Ok(Self { conv: Conv2d::load(&vb.pp("conv"), ConvShape::same3(channels, channels))?, channels })
    }

    /// Maps `[B, H, W, C]` to `[B, height, width, C]` for the `size` (height, width).
    pub fn forward(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.conv.forward_enlarged(x, size)
    }

    /// Maps bands to ones of twice the height and width, letting go of `x` while it is read.
    pub fn forward_bands(&self, mut x: Bands) -> Result<Bands> {
        let conv = self.conv.for_bands(View::doubled(&x))?;
        let mut out = x.next(2, self.channels);
        for group in out.cuts() {
            group.make(&mut out, |lines| conv.band(View::doubled(&x), lines, None));
            x.release((group.end() - 1) / 2);
        }
        Ok(out)
    }
}

/// The last layers of a network: norm, SiLU, convolution.
#[derive(Debug)]
pub(super) struct OutputHead {
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    outputs: usize,
}

impl OutputHead {
    /// Reads `conv_norm_out` and `conv_out`.
    pub fn load(vb: &VarBuilder, shape: ResnetShape) -> Result<Self> {
        Ok(Self {
            conv_norm_out: GroupNorm::load(&vb.pp("conv_norm_out"), shape.inputs, shape.groups, shape.eps)?,
            conv_out: Conv2d::load(&vb.pp("conv_out"), ConvShape::same3(shape.inputs, shape.outputs))?,
            outputs: shape.outputs,
        })
    }

    /// Maps `[B, H, W, inputs]` to `[B, H, W, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv_out.forward(&self.conv_norm_out.forward_silu(x)?)
    }

    /// Maps bands to the whole picture `[1, H, W, outputs]` in f32.
    pub fn forward_bands(&self, mut x: Bands) -> Result<Tensor> {
        let map = self.conv_norm_out.map(&x)?;
        let conv = self.conv_out.for_bands(View::normed(&x, &map))?;
        let mut out = x.next(1, self.outputs).kept_in(DType::F32);
        for group in x.cuts() {
            group.make(&mut out, |lines| conv.band(View::normed(&x, &map), lines, None));
            x.release(group.end() - 1);
        }
        out.whole()
    }
}
