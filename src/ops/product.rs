//! A packed weight with its bias: what linear maps and convolutions are on the CPU.

use super::cpu::finish::Finish;
use super::cpu::isa::Isa;
use super::cpu::norm::Affine;
use super::cpu::patches::{Patches, Walk};
use super::cpu::product::{Prepared, multiply, multiply_each};
use super::cpu::tile::COLUMNS;
use super::cpu::weight::{Order, Weight};
use super::host::{pack, plain, read, vector};
use crate::error::Result;
use candle_core::{D, Tensor};

/// A weight in the order of the kernels, and the bias in the order of its columns.
#[derive(Debug, Clone)]
pub(super) struct Product {
    weight: Weight,
    bias: Option<Vec<f32>>,
    order: Order,
}

/// What is added to a product besides its bias.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Added<'a> {
    /// Of the result's size.
    pub residual: Option<&'a Tensor>,
    /// `[B, 1, outputs]`, the same for all of a row's pixels.
    pub shift: Option<&'a Tensor>,
}

impl Product {
    /// Packs `weight` `[outputs, inputs, taps]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, order: Order) -> Result<Self> {
        let weight = pack(weight, order)?;
        let bias = bias.map(vector).transpose()?.map(|bias| columns(&bias, order, &weight));
        Ok(Self { weight, bias, order })
    }

    /// The width of the result.
    pub fn width(&self) -> usize {
        self.weight.width()
    }

    /// `x` `[B, .., inputs]`, walked over, times the weight: `rows` times [`Product::width`] numbers.
    pub fn multiply(&self, x: &Tensor, walk: Walk, rows: usize, added: Added) -> Result<Vec<f32>> {
        let x = plain(x)?;
        let numbers = read(&x);
        let patches = Patches { data: numbers.slice()?, channels: self.order.inputs, walk };
        let shifted = added.shift.map(|shift| self.shifted(shift)).transpose()?;
        let bias_rows = shifted.as_ref().map_or(rows, |(batch, _)| rows / batch);
        let bias = shifted.as_ref().map(|(_, bias)| &bias[..]).or(self.bias.as_deref());
        let residual = added.residual.map(plain).transpose()?;
        let residual = residual.as_ref().map(read);
        let add = residual.as_ref().map(|numbers| numbers.slice()).transpose()?;
        let finish = Finish { bias, bias_rows, add };
        Ok(multiply(Isa::current(), &patches, &self.weight, finish, rows))
    }

    /// `x` `[B, .., inputs]`, normalised if there is a norm and walked over, times the weights of all `products`.
    pub fn multiply_each(
        products: &[&Self],
        (x, norm): (&Tensor, Option<Affine>),
        walk: Walk,
        rows: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let x = plain(x)?;
        let numbers = read(&x);
        let channels = x.dim(D::Minus1)?;
        let patches = Patches { data: numbers.slice()?, channels, walk };
        let weights = products.iter().map(|product| {
            (&product.weight, Finish { bias: product.bias.as_deref(), bias_rows: rows, add: None })
        });
        let weights: Vec<_> = weights.collect();
        Ok(multiply_each(Isa::current(), &patches, norm, &weights, rows))
    }

    /// The weight, prepared for parts of what `whole` walks over.
    pub fn prepared(&self, whole: &Walk) -> Prepared<'_> {
        Prepared::new(Isa::current(), &self.weight, whole)
    }

    /// What [`Product::prepared`] gave, times the part `x` `[H, W, inputs]`, walked over, plus `residual`.
    pub fn multiply_part(
        &self,
        prepared: &Prepared,
        x: &[f32],
        walk: Walk,
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let rows = walk.out.0 * walk.out.1;
        let patches = Patches { data: x, channels: self.order.inputs, walk };
        prepared.multiply(
            &patches,
            Finish { bias: self.bias.as_deref(), bias_rows: rows, add: residual },
            rows,
        )
    }

    /// The rows of `shift` and, for each, the bias with it added.
    fn shifted(&self, shift: &Tensor) -> Result<(usize, Vec<f32>)> {
        let rows = shift.dim(0)?;
        let mut all = Vec::with_capacity(rows * self.weight.panels() * COLUMNS);
        for shift in shift.flatten_from(1)?.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>()? {
            let shift = columns(&shift, self.order, &self.weight);
            match &self.bias {
                Some(bias) => all.extend(bias.iter().zip(&shift).map(|(bias, shift)| bias + shift)),
                None => all.extend(shift),
            }
        }
        Ok((rows, all))
    }
}

/// A number for each output in the order of the panels' columns, zeros behind the last.
fn columns(values: &[f32], order: Order, weight: &Weight) -> Vec<f32> {
    let columns = 0..weight.panels() * COLUMNS;
    columns.map(|column| order.output(column).map_or(0.0, |output| values[output])).collect()
}
