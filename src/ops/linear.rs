//! The affine map of the last axis.

use super::cpu::norm::Affine;
use super::cpu::patches::Walk;
use super::cpu::weight::Order;
#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{holds, tensor};
use super::norm::LayerNorm;
use super::product::{Added, Product};
use super::reference;
use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub struct Linear {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Cpu(Product),
    #[cfg(feature = "cuda")]
    Cuda(cuda::linear::Linear),
    Elsewhere(reference::Linear),
}

impl Kind {
    /// The map, its weight in the order that its device wants.
    fn new(weight: Tensor, bias: Option<Tensor>, gated: bool) -> Result<Self> {
        if holds(&weight) {
            return Ok(Self::Cpu(packed(&weight, bias.as_ref(), gated)?));
        }
        #[cfg(feature = "cuda")]
        if weight.device().is_cuda() {
            let linear = if gated { cuda::linear::Linear::gated } else { cuda::linear::Linear::new };
            return Ok(Self::Cuda(linear(&weight, bias.as_ref())?));
        }
        Ok(Self::Elsewhere(reference::Linear::new(weight, bias)))
    }
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn load(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::new(vb.get((outputs, inputs), "weight")?, Some(vb.get(outputs, "bias")?))
    }

    /// Reads `weight` `[outputs, inputs]` alone.
    pub fn load_no_bias(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        Self::new(vb.get((outputs, inputs), "weight")?, None)
    }

    /// The map of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { kind: Kind::new(weight, bias, false)? })
    }

    /// The map on a GPU, if it lies there.
    #[cfg(feature = "cuda")]
    pub(super) fn on_gpu(&self) -> Option<&cuda::linear::Linear> {
        match &self.kind {
            Kind::Cuda(linear) => Some(linear),
            _ => None,
        }
    }

    /// The width of what it makes.
    pub fn outputs(&self) -> Result<usize> {
        match &self.kind {
            Kind::Cpu(product) => Ok(product.width()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(linear) => linear.outputs(),
            Kind::Elsewhere(linear) => linear.outputs(),
        }
    }

    /// Maps `[B, L, inputs]` to `[B, L, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => forward(product, x, Added::default()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(linear) => linear.forward(x, None),
            Kind::Elsewhere(linear) => linear.forward(x),
        }
    }

    /// What each of several maps makes of `x`, normalised if there is a norm: where all lie on a processor, `x` is read once, and
    /// normalised on the way in.
    pub(super) fn forward_each(maps: &[Self], x: &Tensor, norm: Option<&LayerNorm>) -> Result<Vec<Tensor>> {
        let affine = norm.and_then(LayerNorm::on_cpu);
        let products = maps.iter().map(Self::on_cpu).collect::<Option<Vec<_>>>();
        if let Some(products) = products.filter(|_| affine.is_some() == norm.is_some()) {
            return forward_each(&products, x, affine);
        }
        let x = LayerNorm::forward_if(norm, x)?;
        maps.iter().map(|map| map.forward(&x)).collect()
    }

    fn on_cpu(&self) -> Option<&Product> {
        match &self.kind {
            Kind::Cpu(product) => Some(product),
            _ => None,
        }
    }

    /// [`Linear::forward`] plus `residual`, of the result's shape.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => forward(product, x, Added { residual: Some(residual), ..Added::default() }),
            #[cfg(feature = "cuda")]
            Kind::Cuda(linear) => linear.forward(x, Some(residual)),
            Kind::Elsewhere(linear) => Ok((linear.forward(x)? + residual)?),
        }
    }

    /// [`Linear::forward_add`] plus `shift` `[B, 1, outputs]`, the same for all of a batch row's numbers of a column.
    pub(super) fn forward_add_shifted(
        &self,
        x: &Tensor,
        residual: &Tensor,
        shift: &Tensor,
    ) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => forward(product, x, Added { residual: Some(residual), shift: Some(shift) }),
            _ => Ok(self.forward_add(x, residual)?.broadcast_add(shift)?),
        }
    }
}

/// The affine map of the last axis whose first half is multiplied by the exact (erf) GELU of its second, as in
/// diffusers' `GEGLU`.
#[derive(Debug, Clone)]
pub struct GatedLinear {
    kind: Kind,
}

impl GatedLinear {
    /// Reads `weight` `[2 * outputs, inputs]` and `bias` `[2 * outputs]`.
    pub fn load(vb: &VarBuilder, inputs: usize, outputs: usize) -> Result<Self> {
        let (weight, bias) = (vb.get((2 * outputs, inputs), "weight")?, vb.get(2 * outputs, "bias")?);
        Ok(Self { kind: Kind::new(weight, Some(bias), true)? })
    }

    /// Maps `[B, L, inputs]` to `[B, L, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Cpu(product) => forward(product, x, Added::default()),
            #[cfg(feature = "cuda")]
            Kind::Cuda(linear) => linear.forward_gated(x),
            Kind::Elsewhere(linear) => reference::geglu(&linear.forward(x)?),
        }
    }

    /// [`GatedLinear::forward`] of `x` as `norm` makes it: on a processor on the way in.
    pub(super) fn forward_normed(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        match (&self.kind, norm.on_cpu()) {
            (Kind::Cpu(product), Some(norm)) => {
                let mut made = forward_each(&[product], x, Some(norm))?;
                Ok(made.swap_remove(0))
            }
            _ => self.forward(&norm.forward(x)?),
        }
    }
}

fn packed(weight: &Tensor, bias: Option<&Tensor>, gated: bool) -> Result<Product> {
    let (outputs, inputs) = weight.dims2()?;
    Product::new(weight, bias, Order { outputs, inputs, taps: 1, gated })
}

fn forward(product: &Product, x: &Tensor, added: Added) -> Result<Tensor> {
    let (walk, rows) = rows(x)?;
    tensor(product.multiply(x, walk, rows, added)?, shape(product, x)?)
}

/// What each of `products` makes of `x`, normalised if there is a norm.
fn forward_each(products: &[&Product], x: &Tensor, norm: Option<Affine>) -> Result<Vec<Tensor>> {
    let (walk, rows) = rows(x)?;
    let results = Product::multiply_each(products, (x, norm), walk, rows)?;
    products.iter().zip(results).map(|(product, result)| tensor(result, shape(product, x)?)).collect()
}

/// How to walk over `[.., L, inputs]`, and how many rows there are.
fn rows(x: &Tensor) -> Result<(Walk, usize)> {
    // Rows of a batch are pictures of `L` pixels.
    let each = if x.rank() > 2 { x.dim(D::Minus2)? } else { 1 };
    Ok((Walk::matrix(each), x.elem_count() / x.dim(D::Minus1)?))
}

/// The shape of what `x` becomes.
fn shape(product: &Product, x: &Tensor) -> Result<Vec<usize>> {
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = product.width();
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::Isa;
    use super::super::cpu::isa::forced::{each, force};
    use super::super::testing::{assert_near, random};
    use super::*;
    use candle_core::{DType, Device};

    fn pair(outputs: usize, inputs: usize, dtype: DType) -> (Linear, reference::Linear) {
        let weight = random(&[outputs, inputs], 1).to_dtype(dtype).unwrap();
        let bias = random(&[outputs], 2).to_dtype(dtype).unwrap();
        let wide = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
        let reference = reference::Linear::new(wide(&weight), Some(wide(&bias)));
        (Linear::new(weight, Some(bias)).unwrap(), reference)
    }

    #[test]
    fn it_maps_as_the_reference_does_whatever_the_sizes_and_the_type_of_the_weights() {
        each(|isa| {
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                // A chain of even weights has integers up to 1294, so that each is off by up to 3.9e-4 of the largest; in bf16 both
                // operands would be by up to 3.9e-3 of themselves.
                let integers = dtype == DType::BF16 && isa != Isa::Portable;
                let bound = if integers { 4e-4 } else { 2e-6 };
                // The last ones repay seven multiplications of halves instead of eight.
                for (rows, inputs, outputs) in [
                    (1, 1, 1),
                    (3, 7, 5),
                    (77, 64, 192),
                    (13, 33, 65),
                    (11, 1538, 70),
                    (300, 1600, 40),
                    (128, 512, 256),
                    (154, 2560, 320),
                ] {
                    let (linear, reference) = pair(outputs, inputs, dtype);
                    // Numbers that the weights' type holds: kernels may round to it.
                    let x = random(&[2, rows, inputs], 3).to_dtype(dtype).unwrap();
                    let x = x.to_dtype(DType::F32).unwrap();
                    let want = reference.forward(&x).unwrap();
                    assert_near(&linear.forward(&x).unwrap(), &want, bound);
                    let residual = random(&[2, rows, outputs], 4);
                    let want = (want + &residual).unwrap();
                    assert_near(&linear.forward_add(&x, &residual).unwrap(), &want, bound);
                }
            }
        });
    }

    #[test]
    fn weights_that_became_integers_are_multiplied_by_all_instructions() {
        for packed in Isa::available() {
            force(packed);
            let (linear, reference) = pair(70, 1538, DType::BF16);
            let x = random(&[1, 13, 1538], 3).to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            each(|_| assert_near(&linear.forward(&x).unwrap(), &reference.forward(&x).unwrap(), 4e-4));
        }
    }

    #[test]
    fn gates_open_as_in_the_reference() {
        each(|isa| {
            for (inputs, outputs, dtype) in [
                (8, 1, DType::F32),
                (33, 15, DType::F32),
                (64, 16, DType::F32),
                (40, 48, DType::F32),
                (512, 160, DType::BF16),
            ] {
                // What the weights' type holds.
                let held = |x: Tensor| x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
                let (weight, bias) =
                    (held(random(&[2 * outputs, inputs], 1)), held(random(&[2 * outputs], 2)));
                let tensors = [("weight", weight.clone()), ("bias", bias.clone())];
                let tensors = tensors.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
                let vb = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
                let gated = GatedLinear::load(&vb, inputs, outputs).unwrap();
                let x = random(&[2, if inputs < 512 { 7 } else { 130 }, inputs], 3);
                let want = reference::geglu(&reference::Linear::new(weight, Some(bias)).forward(&x).unwrap());
                // Integers as above.
                let bound = if dtype == DType::BF16 && isa != Isa::Portable { 4e-4 } else { 2e-6 };
                assert_near(&gated.forward(&x).unwrap(), &want.unwrap(), bound);
            }
        });
    }

    #[test]
    fn a_row_is_the_same_to_the_last_bit_alone_and_among_others() {
        each(|_| {
            for (dtype, inputs, outputs, rows) in
                [(DType::F32, 900, 70, 25), (DType::BF16, 900, 70, 25), (DType::BF16, 1280, 256, 130)]
            {
                let (linear, _) = pair(outputs, inputs, dtype);
                let x = random(&[3, rows, inputs], 3);
                let all = linear.forward(&x).unwrap();
                for row in 0..3 {
                    let alone = linear.forward(&x.narrow(0, row, 1).unwrap()).unwrap();
                    assert_near(&alone, &all.narrow(0, row, 1).unwrap(), 0.0);
                }
            }
        });
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        each(|_| {
            for (dtype, inputs, outputs) in [(DType::F32, 900, 700), (DType::BF16, 1024, 704)] {
                let (linear, _) = pair(outputs, inputs, dtype);
                let x = random(&[1, 300, inputs], 3);
                let with = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| linear.forward(&x).unwrap())
                };
                assert_near(&with(1), &with(2), 0.0);
                assert_near(&with(1), &with(5), 0.0);
            }
        });
    }
}
