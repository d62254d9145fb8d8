//! Two-dimensional convolution on `[B, H, W, C]`.

use super::bands::{View, elsewhere};
use super::cpu::patches::Walk;
use super::cpu::product::Prepared;
use super::cpu::weight::Order;
#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{holds, tensor};
use super::product::{Added, Product};
use super::reference;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;
use std::ops::Range;

/// Zeros put around a picture before it is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// The same number of zeros on every side.
    Same(usize),
    /// One zero at the bottom and one at the right, as the VAE's encoder pads before it halves.
    BottomRight,
}

impl Padding {
    /// Zeros before and after an axis.
    pub(super) fn around(self) -> (usize, usize) {
        match self {
            Self::Same(zeros) => (zeros, zeros),
            Self::BottomRight => (0, 1),
        }
    }
}

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the square kernel.
    pub kernel: usize,
    /// Pixels between two outputs.
    pub stride: usize,
    /// Zeros around the picture.
    pub padding: Padding,
}

impl ConvShape {
    /// A 3x3 convolution that keeps the picture's size.
    pub fn same3(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, kernel: 3, stride: 1, padding: Padding::Same(1) }
    }

    /// A map of the channels of each pixel by itself.
    pub fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, kernel: 1, stride: 1, padding: Padding::Same(0) }
    }

    /// A 3x3 convolution that halves the picture.
    pub fn halving(channels: usize, padding: Padding) -> Self {
        Self { inputs: channels, outputs: channels, kernel: 3, stride: 2, padding }
    }

    /// How the convolution walks over a picture of height and width `stored` that it sees enlarged to `seen`.
    fn walk(&self, stored: (usize, usize), seen: (usize, usize)) -> Walk {
        let (before, after) = self.padding.around();
        let out = |side: usize| (side + before + after - self.kernel) / self.stride + 1;
        let out = (out(seen.0), out(seen.1));
        Walk { stored, seen, out, kernel: self.kernel, stride: self.stride, before }
    }
}

/// A convolution with bias.
#[derive(Debug, Clone)]
pub struct Conv2d {
    kind: Kind,
    shape: ConvShape,
}

#[derive(Debug, Clone)]
enum Kind {
    Cpu(Product),
    #[cfg(feature = "cuda")]
    Cuda(cuda::conv2d::Conv2d),
    Elsewhere(reference::Conv2d),
}

impl Kind {
    /// The convolution, its weight in the order that its device wants.
    fn new(weight: &Tensor, bias: &Tensor, shape: ConvShape) -> Result<Self> {
        let ConvShape { inputs, outputs, kernel, .. } = shape;
        if holds(weight) {
            let order = Order { outputs, inputs, taps: kernel * kernel, gated: false };
            return Ok(Self::Cpu(Product::new(weight, Some(bias), order)?));
        }
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() && cuda::conv2d::takes(weight.dtype()) {
            return Ok(Self::Cuda(cuda::conv2d::Conv2d::new(weight, bias, shape)?));
        }
        Ok(Self::Elsewhere(reference::Conv2d::new(weight, bias, shape)?))
    }
}

impl Conv2d {
    /// Reads `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    pub fn load(vb: &VarBuilder, shape: ConvShape) -> Result<Self> {
        let ConvShape { inputs, outputs, kernel, .. } = shape;
        Self::new(&vb.get((outputs, inputs, kernel, kernel), "weight")?, &vb.get(outputs, "bias")?, shape)
    }

    /// The convolution of `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    fn new(weight: &Tensor, bias: &Tensor, shape: ConvShape) -> Result<Self> {
        Ok(Self { kind: Kind::new(weight, bias, shape)?, shape })
    }

    /// Convolves `[B, H, W, inputs]` to `[B, H', W', outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => self.on_cpu(product, x, size(x)?, Added::default()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(conv) => conv.forward(x, size(x)?, cuda::conv2d::Added::default()),
            Kind::Elsewhere(conv) => conv.forward(x),
        }
    }

    /// [`Conv2d::forward`] plus `residual`, of the result's shape.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => {
                self.on_cpu(product, x, size(x)?, Added { residual: Some(residual), shift: None })
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(conv) => {
                conv.forward(x, size(x)?, cuda::conv2d::Added { residual: Some(residual), shift: None })
            }
            Kind::Elsewhere(conv) => Ok((conv.forward(x)? + residual)?),
        }
    }

    /// [`Conv2d::forward`] plus `shift` `[B, 1, outputs]`, the same for all of a row's pixels.
    pub fn forward_shifted(&self, x: &Tensor, shift: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => {
                self.on_cpu(product, x, size(x)?, Added { residual: None, shift: Some(shift) })
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(conv) => {
                conv.forward(x, size(x)?, cuda::conv2d::Added { residual: None, shift: Some(shift) })
            }
            Kind::Elsewhere(conv) => Ok(conv.forward(x)?.broadcast_add(&shift.unsqueeze(1)?)?),
        }
    }

    /// Convolves what `[B, H, W, inputs]` becomes when it is enlarged to `size`, height and width, by repeating the
    /// nearest pixel as torch's `nearest` does.
    pub fn forward_enlarged(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => self.on_cpu(product, x, size, Added::default()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(conv) => conv.forward(x, size, cuda::conv2d::Added::default()),
            Kind::Elsewhere(conv) => conv.forward(&reference::nearest(x, size.0, size.1)?),
        }
    }

    /// The convolution, stride 1, for bands of what `view` sees: its weight is mapped once for all of them.
    pub fn for_bands(&self, view: View) -> Result<BandConv<'_>> {
        let Kind::Cpu(product) = &self.kind else { return Err(elsewhere()) };
        let whole = self.shape.walk(view.size(), view.size());
        Ok(BandConv { product, prepared: product.prepared(&whole), kernel: self.shape.kernel })
    }

    fn on_cpu(&self, product: &Product, x: &Tensor, seen: (usize, usize), added: Added) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let walk = self.shape.walk(size(x)?, seen);
        let (height, width) = walk.out;
        let values = product.multiply(x, walk, batch * height * width, added)?;
        tensor(values, (batch, height, width, self.shape.outputs))
    }
}

/// A convolution that is computed band by band.
#[derive(Debug)]
pub struct BandConv<'a> {
    product: &'a Product,
    prepared: Prepared<'a>,
    kernel: usize,
}

impl BandConv<'_> {
    /// The band of `lines`, which begin at a multiple of four, plus `residual` of its size.
    pub fn band(&self, view: View, lines: &Range<usize>, residual: Option<&[f32]>) -> Vec<f32> {
        let (margin, width) = (self.kernel / 2, view.size().1);
        let window = view.window(self.prepared.isa(), lines.clone(), margin);
        let stored = (lines.len() + 2 * margin, width + 2 * margin);
        let out = (lines.len(), width);
        let walk = Walk { stored, seen: stored, out, kernel: self.kernel, stride: 1, before: 0 };
        self.product.multiply_part(&self.prepared, &window, walk, residual)
    }
}

/// Height and width of `[B, H, W, C]`.
fn size(x: &Tensor) -> Result<(usize, usize)> {
    let (_, height, width, _) = x.dims4()?;
    Ok((height, width))
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::{Isa, forced::each};
    use super::super::testing::{assert_near, random};
    use super::*;
    use candle_core::DType;

    fn pair(shape: ConvShape, dtype: DType) -> (Conv2d, reference::Conv2d) {
        let weight = random(&[shape.outputs, shape.inputs, shape.kernel, shape.kernel], 1);
        let weight = weight.to_dtype(dtype).unwrap();
        let wide = weight.to_dtype(DType::F32).unwrap();
        let bias = random(&[shape.outputs], 2);
        (Conv2d::new(&weight, &bias, shape).unwrap(), reference::Conv2d::new(&wide, &bias, shape).unwrap())
    }

    /// A picture of numbers that `dtype` holds: kernels may round to the type of their weights.
    fn picture(shape: &[usize], dtype: DType) -> Tensor {
        random(shape, 3).to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
    }

    fn shapes() -> Vec<ConvShape> {
        vec![
            ConvShape::same3(3, 5),
            ConvShape::same3(20, 33),
            ConvShape::same3(130, 64),
            ConvShape::pointwise(7, 40),
            ConvShape::halving(16, Padding::Same(1)),
            ConvShape::halving(9, Padding::BottomRight),
        ]
    }

    /// Runs `work` with each set of instructions and each type of weights.
    fn each_kind(mut work: impl FnMut(Isa, DType)) {
        each(|isa| [DType::F32, DType::BF16].into_iter().for_each(|dtype| work(isa, dtype)));
    }

    #[test]
    fn it_convolves_as_the_reference_does_whatever_the_sizes() {
        each_kind(|_, dtype| {
            for shape in shapes() {
                let (conv, reference) = pair(shape, dtype);
                for (height, width) in [(2, 2), (5, 7), (16, 13), (9, 40)] {
                    let x = picture(&[2, height, width, shape.inputs], dtype);
                    let want = reference.forward(&x).unwrap();
                    assert_near(&conv.forward(&x).unwrap(), &want, 2e-6);
                    let residual = random(want.dims(), 4);
                    let both = (&want + &residual).unwrap();
                    assert_near(&conv.forward_add(&x, &residual).unwrap(), &both, 2e-6);
                    let shift = random(&[2, 1, shape.outputs], 5);
                    let both = want.broadcast_add(&shift.unsqueeze(1).unwrap()).unwrap();
                    assert_near(&conv.forward_shifted(&x, &shift).unwrap(), &both, 2e-6);
                }
            }
        });
    }

    #[test]
    fn it_sees_an_enlarged_picture_as_if_that_were_written_out() {
        each_kind(|_, dtype| {
            let (conv, reference) = pair(ConvShape::same3(12, 8), dtype);
            for ((height, width), to) in
                [((3, 4), (6, 8)), ((3, 5), (5, 9)), ((4, 4), (4, 4)), ((2, 3), (5, 7))]
            {
                let x = picture(&[2, height, width, 12], dtype);
                let want = reference.forward(&reference::nearest(&x, to.0, to.1).unwrap()).unwrap();
                assert_near(&conv.forward_enlarged(&x, to).unwrap(), &want, 2e-6);
            }
        });
    }

    /// Large enough for minimal filtering, which rounds more: by tiles of 4 x 4 its bound is five times that of the direct sum, by
    /// those of 2 x 2 twice. With weights in bf16 it multiplies integers of 14 bits, which at such sizes err by 3.3e-3 and 1.7e-4 of
    /// the greatest at worst (simulated in f64; in the mean square by 9e-4 of the result's, bf16 by 1.7e-3).
    #[test]
    fn large_pictures_are_convolved_as_the_reference_does() {
        each_kind(|isa, dtype| {
            let (conv, reference) = pair(ConvShape::same3(48, 40), dtype);
            let (four, two) = ([(16, 16), (19, 14), (9, 40)], [(8, 8), (7, 9), (5, 13), (2, 31)]);
            let integers = dtype == DType::BF16 && isa != Isa::Portable;
            let (by_four, by_two) = if integers { (4e-3, 2.5e-4) } else { (1e-5, 4e-6) };
            for ((height, width), bound) in
                four.map(|size| (size, by_four)).into_iter().chain(two.map(|size| (size, by_two)))
            {
                let x = picture(&[2, height, width, 48], dtype);
                let want = reference.forward(&x).unwrap();
                let residual = random(want.dims(), 4);
                let both = (&want + &residual).unwrap();
                assert_near(&conv.forward_add(&x, &residual).unwrap(), &both, bound);
                let shift = random(&[2, 1, 40], 5);
                let both = want.broadcast_add(&shift.unsqueeze(1).unwrap()).unwrap();
                assert_near(&conv.forward_shifted(&x, &shift).unwrap(), &both, bound);
                let to = (2 * height, 2 * width - 1);
                let want = reference.forward(&reference::nearest(&x, to.0, to.1).unwrap()).unwrap();
                assert_near(&conv.forward_enlarged(&x, to).unwrap(), &want, by_four);
            }
        });
    }

    #[test]
    fn a_picture_is_the_same_to_the_last_bit_alone_and_among_others() {
        each_kind(|_, dtype| {
            for shape in shapes().into_iter().chain([ConvShape::same3(48, 40)]) {
                let (conv, _) = pair(shape, dtype);
                let x = picture(&[3, 17, 15, shape.inputs], dtype);
                let all = conv.forward(&x).unwrap();
                for row in 0..3 {
                    let alone = conv.forward(&x.narrow(0, row, 1).unwrap()).unwrap();
                    assert_near(&alone, &all.narrow(0, row, 1).unwrap(), 0.0);
                }
            }
        });
    }
}
