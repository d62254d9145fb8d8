//! Linear maps, plain and gated, with the norm before them.

use super::gpu::{Gpu, empty};
use super::norm::{Scale, layer_norm};
use super::pointwise::{geglu, takes_gate};
use super::tiles::{Follow, Weights, interleaved, takes, takes_norm};
use crate::error::Result;
use crate::ops::reference;
use candle_core::{D, DType, Tensor};

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Linear {
    weight: Tensor, // [out, in], as the checkpoint holds it; of a gated map for tiles interleaved
    bias: Option<Tensor>,
    /// The bias of rows from the split on; none where all have the same.
    split: Option<Tensor>,
    tiles: Option<Weights>,
}

impl Linear {
    /// The map of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Self::plain(weight, bias, None)
    }

    /// [`Linear::new`] of a map that adds `shift` `[outputs]` besides to rows from some row of a batch on.
    pub fn split(weight: &Tensor, bias: &Tensor, shift: &Tensor) -> Result<Self> {
        Self::plain(weight, Some(bias), Some(shift))
    }

    fn plain(weight: &Tensor, bias: Option<&Tensor>, shift: Option<&Tensor>) -> Result<Self> {
        let weight = weight.contiguous()?;
        let takes = takes(Gpu::of(&weight)?, weight.dtype(), weight.dims2()?.into());
        let tiles = takes.then(|| Weights::new(&weight, [bias, shift], false)).transpose()?;
        let split = bias.zip(shift).map(|(bias, shift)| bias + shift).transpose()?;
        Ok(Self { weight, bias: bias.cloned(), split, tiles })
    }

    /// [`Linear::new`] of a map whose results are gated.
    pub fn gated(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        if !takes(Gpu::of(weight)?, weight.dtype(), weight.dims2()?.into()) {
            return Ok(Self { weight: weight.contiguous()?, bias: bias.cloned(), split: None, tiles: None });
        }
        let (weight, bias) = (interleaved(weight)?, bias.map(interleaved).transpose()?);
        let tiles = Some(Weights::new(&weight, [bias.as_ref(), None], true)?);
        Ok(Self { weight, bias, split: None, tiles })
    }

    /// The width of what it makes.
    pub fn outputs(&self) -> Result<usize> {
        Ok(self.weight.dim(0)?)
    }

    /// Maps `[.., inputs]` to `[.., outputs]`, plus `residual` of the result's shape.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.follow(x, Follow { residual, ..Follow::default() })?.0)
    }

    /// [`Linear::forward`] and, where the kernel measures them, the moments of the rows.
    pub fn forward_measured(
        &self,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let measured = takes_norm(self.outputs()?);
        self.follow(x, Follow { residual, measured, ..Follow::default() })
    }

    /// [`Linear::forward_measured`] of rows `[B, L, inputs]` plus `residual`, of which those from `from` on have the other bias.
    pub fn forward_split(
        &self,
        x: &Tensor,
        residual: &Tensor,
        from: usize,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (batch, length, _) = x.dims3()?;
        if from >= batch {
            return self.forward_measured(x, Some(residual));
        }
        let x = x.to_dtype(self.weight.dtype())?;
        let gpu = Gpu::of(&x)?;
        if let Some(tiles) = self.tiles_for(&x)?.filter(|_| takes_norm(self.weight.dims()[0])) {
            let split = Some(from * length);
            return tiles.map(
                gpu,
                &x,
                Follow { residual: Some(residual), measured: true, split, ..Follow::default() },
            );
        }
        let y = empty(residual.dims(), &x)?;
        for (first, rows, bias) in [(0, from, &self.bias), (from, batch - from, &self.split)] {
            if rows > 0 {
                let part = |x: &Tensor| x.narrow(0, first, rows);
                let added = (bias.as_ref(), Some(&part(residual)?));
                gpu.multiplier.fill(gpu, &part(&y)?, [&part(&x)?.contiguous()?, &self.weight], added)?;
            }
        }
        Ok((y, None))
    }

    /// Adds what it makes of `[B, L, inputs]` to `sums` `[B, L, outputs]` in their place; whether it noted their `moments` anew.
    pub fn forward_onto(&self, x: &Tensor, sums: &Tensor, moments: Option<&Tensor>) -> Result<bool> {
        let x = x.to_dtype(self.weight.dtype())?;
        let gpu = Gpu::of(&x)?;
        if let Some(tiles) = self.tiles_for(&x)? {
            tiles.map_onto(gpu, &x, sums, moments)?;
            return Ok(moments.is_some());
        }
        let weights = [&x.contiguous()?, &self.weight];
        gpu.multiplier.fill(gpu, sums, weights, (self.bias.as_ref(), Some(sums)))?;
        Ok(false)
    }

    /// Maps `[.., inputs]` to half of `outputs`, gated by the other half.
    pub fn forward_gated(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?;
        if let Some(tiles) = self.tiles_for(&x)? {
            return Ok(tiles.map(Gpu::of(&x)?, &x, Follow::default())?.0);
        }
        let both = self.product(&x, None)?;
        let width = self.outputs()? / 2;
        if self.tiles.is_some() {
            // Eight values and their eight gates lie together, as if rows were sixteen wide.
            let mut shape = both.dims().to_vec();
            if let Some(last) = shape.last_mut() {
                *last = width;
            }
            return Ok(geglu(&both.reshape((both.elem_count() / 16, 16))?)?.reshape(shape)?);
        }
        if takes_gate(width) { geglu(&both) } else { reference::geglu(&both) }
    }

    fn follow(&self, x: &Tensor, follow: Follow) -> Result<(Tensor, Option<Tensor>)> {
        let x = x.to_dtype(self.weight.dtype())?;
        match self.tiles_for(&x)? {
            Some(tiles) => tiles.map(Gpu::of(&x)?, &x, follow),
            None => Ok((self.product(&x, follow.residual)?, None)),
        }
    }

    fn product(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let gpu = Gpu::of(x)?;
        gpu.multiplier.multiply(gpu, x, (&self.weight, self.bias.as_ref()), residual)
    }

    /// The kernel's weights, if it is the quicker way for `x`.
    fn tiles_for(&self, x: &Tensor) -> Result<Option<&Weights>> {
        let Some(tiles) = &self.tiles else { return Ok(None) };
        let rows = x.elem_count() / x.dim(D::Minus1)?;
        Ok(tiles.pays(Gpu::of(x)?, [1, 1, rows])?.then_some(tiles))
    }
}

/// A layer norm and a map behind it. The norm's factors and summands are part of the map: what is left of it is the same for
/// every column, so that it can be made up for behind a product of rows as they are.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Normed {
    norm: Scale, // all ones and zeros
    linear: Linear,
    eps: f64,
    gated: bool,
}

impl Normed {
    /// The norm of `factors` and `summands` and `eps`, and the map of `weight` and `bias`; none if its sizes or its type are
    /// not the kernel's.
    pub fn new(
        (factors, summands, eps): (&Tensor, &Tensor, f64),
        (weight, bias): (&Tensor, Option<&Tensor>),
        gated: bool,
    ) -> Result<Option<Self>> {
        let (sizes, dtype): ([usize; 2], _) = (weight.dims2()?.into(), weight.dtype());
        if !takes(Gpu::of(weight)?, dtype, sizes) || !takes_norm(sizes[1]) {
            return Ok(None);
        }
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        let (factors, summands) = (wide(factors)?, wide(summands)?);
        let weight = wide(weight)?;
        let mut bias = bias.map_or_else(|| Tensor::zeros(sizes[0], DType::F32, weight.device()), wide)?;
        bias = (bias + weight.broadcast_mul(&summands)?.sum(1)?)?;
        let mut weight = weight.broadcast_mul(&factors)?.to_dtype(dtype)?;
        if gated {
            (weight, bias) = (interleaved(&weight)?, interleaved(&bias)?);
        }
        // Of the weights as they are stored, so that a row's mean falls out of its products but for their rounding.
        let sums = wide(&weight)?.sum(1)?;
        let tiles = Some(Weights::new(&weight, [Some(&bias), Some(&sums)], gated)?);
        let norm = Scale::new(&factors.ones_like()?, &factors.zeros_like()?, eps)?;
        let linear = Linear { weight, bias: Some(bias.to_dtype(dtype)?), split: None, tiles };
        Ok(Some(Self { norm, linear, eps, gated }))
    }

    /// Maps `[.., inputs]`, whose moments may be known, to `[.., outputs]`, half as many if they are gated.
    pub fn forward(&self, x: &Tensor, moments: Option<&Tensor>) -> Result<Tensor> {
        let x = x.to_dtype(self.linear.weight.dtype())?;
        if let (Some(tiles), Some(moments)) = (self.linear.tiles_for(&x)?, moments) {
            let follow = Follow { normed: Some((moments, self.eps)), ..Follow::default() };
            return Ok(tiles.map(Gpu::of(&x)?, &x, follow)?.0);
        }
        let x = layer_norm(&x, &self.norm)?;
        if self.gated { self.linear.forward_gated(&x) } else { self.linear.forward(&x, None) }
    }
}
