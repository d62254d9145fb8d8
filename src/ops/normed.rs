//! Maps behind a layer norm, and the rows that pass through them.

#[cfg(feature = "cuda")]
use super::cuda::linear::Normed;
use super::linear::{GatedLinear, Linear};
use super::linears::Linears;
use super::norm::LayerNorm;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// Rows `[B, L, C]` that layers add to, with what the device noted of them for the norm ahead.
#[derive(Debug, Clone)]
pub struct Rows {
    values: Tensor,
    /// Mean and squares about it of parts of each row.
    #[cfg(feature = "cuda")]
    moments: Option<Tensor>,
}

impl Rows {
    /// Rows of which nothing is noted.
    pub fn plain(values: Tensor) -> Self {
        Self {
            values,
            #[cfg(feature = "cuda")]
            moments: None,
        }
    }

    /// Rows and what the device noted of them.
    #[cfg(feature = "cuda")]
    pub(super) fn measured((values, moments): (Tensor, Option<Tensor>)) -> Self {
        Self { values, moments }
    }

    /// The rows themselves.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// What the device noted of them.
    #[cfg(feature = "cuda")]
    pub(super) fn moments(&self) -> Option<&Tensor> {
        self.moments.as_ref()
    }

    /// The first `count` rows of the batch.
    pub fn first(&self, count: usize) -> Result<Self> {
        Ok(Self {
            values: self.values.narrow(0, 0, count)?,
            #[cfg(feature = "cuda")]
            moments: match &self.moments {
                Some(moments) => Some(moments.narrow(0, 0, count * self.values.dim(1)?)?),
                None => None,
            },
        })
    }
}

/// A layer norm as it is read: where its factors and summands are, how many, and its epsilon.
#[derive(Clone, Copy)]
pub struct NormSource<'a, 'v> {
    /// Where `weight` and `bias` are.
    pub vb: &'a VarBuilder<'v>,
    /// Numbers of a row.
    pub channels: usize,
    /// Added to variances.
    pub eps: f64,
}

impl NormSource<'_, '_> {
    fn load(self) -> Result<LayerNorm> {
        LayerNorm::load(self.vb, self.channels, self.eps)
    }

    #[cfg(feature = "cuda")]
    fn fold(self, map: (&Tensor, Option<&Tensor>), gated: bool) -> Result<Option<Normed>> {
        let (weight, bias) = (self.vb.get(self.channels, "weight")?, self.vb.get(self.channels, "bias")?);
        Normed::new((&weight, &bias, self.eps), map, gated)
    }
}

/// A layer norm, and linear maps without bias that read what it makes and make results of one width.
#[derive(Debug)]
pub struct NormedLinears {
    kind: LinearsKind,
}

#[derive(Debug)]
enum LinearsKind {
    Apart {
        norm: LayerNorm,
        maps: Linears,
    },
    /// The norm is part of one map whose outputs are those of all.
    #[cfg(feature = "cuda")]
    Folded {
        map: Normed,
        outputs: usize,
        count: usize,
    },
}

impl NormedLinears {
    /// Reads the norm and the `weight` `[outputs, channels]` of each map.
    pub fn load_no_bias(norm: NormSource, maps: &[VarBuilder], outputs: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if norm.vb.device().is_cuda() {
            let weights = maps.iter().map(|vb| vb.get((outputs, norm.channels), "weight"));
            let weight = Tensor::cat(&weights.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
            if let Some(map) = norm.fold((&weight, None), false)? {
                return Ok(Self { kind: LinearsKind::Folded { map, outputs, count: maps.len() } });
            }
        }
        let maps = Linears::load_no_bias(maps, norm.channels, outputs)?;
        Ok(Self { kind: LinearsKind::Apart { norm: norm.load()?, maps } })
    }

    /// What each map makes of normalised rows: `[B, L, outputs]`, on a GPU side by side in memory.
    pub fn forward(&self, x: &Rows) -> Result<Vec<Tensor>> {
        match &self.kind {
            LinearsKind::Apart { norm, maps } => maps.forward(&x.values, Some(norm)),
            #[cfg(feature = "cuda")]
            LinearsKind::Folded { map, outputs, count } => {
                let all = map.forward(&x.values, x.moments.as_ref())?;
                let parts = (0..*count).map(|map| all.narrow(2, map * outputs, *outputs));
                Ok(parts.collect::<candle_core::Result<_>>()?)
            }
        }
    }
}

/// A layer norm and a gated map that reads what it makes.
#[derive(Debug)]
pub struct NormedGated {
    kind: GatedKind,
}

#[derive(Debug)]
enum GatedKind {
    Apart {
        norm: LayerNorm,
        map: GatedLinear,
    },
    /// The norm is part of the map.
    #[cfg(feature = "cuda")]
    Folded(Normed),
}

impl NormedGated {
    /// Reads the norm and the map's `weight` `[2 * outputs, channels]` and `bias` `[2 * outputs]`.
    pub fn load(norm: NormSource, vb: &VarBuilder, outputs: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if vb.device().is_cuda() {
            let weight = vb.get((2 * outputs, norm.channels), "weight")?;
            let bias = vb.get(2 * outputs, "bias")?;
            if let Some(map) = norm.fold((&weight, Some(&bias)), true)? {
                return Ok(Self { kind: GatedKind::Folded(map) });
            }
        }
        let map = GatedLinear::load(vb, norm.channels, outputs)?;
        Ok(Self { kind: GatedKind::Apart { norm: norm.load()?, map } })
    }

    /// Maps rows `[B, L, C]`, normalised, to `[B, L, outputs]`.
    pub fn forward(&self, x: &Rows) -> Result<Tensor> {
        match &self.kind {
            GatedKind::Apart { norm, map } => map.forward_normed(&x.values, norm),
            #[cfg(feature = "cuda")]
            GatedKind::Folded(map) => map.forward(&x.values, x.moments.as_ref()),
        }
    }
}

impl Linear {
    /// [`Linear::forward`], making rows that a norm is ahead of.
    pub fn forward_rows(&self, x: &Tensor) -> Result<Rows> {
        #[cfg(feature = "cuda")]
        if let Some(linear) = self.on_gpu() {
            return Ok(Rows::measured(linear.forward_measured(x, None)?));
        }
        Ok(Rows::plain(self.forward(x)?))
    }

    /// [`Linear::forward_add`], making rows that a norm is ahead of.
    pub fn forward_add_rows(&self, x: &Tensor, residual: &Rows) -> Result<Rows> {
        #[cfg(feature = "cuda")]
        if let Some(linear) = self.on_gpu() {
            return Ok(Rows::measured(linear.forward_measured(x, Some(&residual.values))?));
        }
        Ok(Rows::plain(self.forward_add(x, &residual.values)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;
    use candle_core::{DType, Device};
    use std::collections::HashMap;

    const CHANNELS: usize = 512;
    const OUTPUTS: usize = 256;

    fn source(dtype: DType) -> VarBuilder<'static> {
        let (channels, outputs) = (CHANNELS, OUTPUTS);
        let tensors = [
            ("norm.weight", random(&[channels], 1)),
            ("norm.bias", random(&[channels], 2)),
            ("a.weight", random(&[outputs, channels], 3)),
            ("b.weight", random(&[outputs, channels], 4)),
            ("gated.weight", random(&[2 * outputs, channels], 5)),
            ("gated.bias", random(&[2 * outputs], 6)),
        ];
        let stored = tensors.map(|(name, tensor)| (name.to_owned(), tensor.to_dtype(dtype).unwrap()));
        VarBuilder::from_tensors(HashMap::from(stored), dtype, &Device::Cpu)
    }

    #[test]
    fn what_is_normalised_on_the_way_in_is_what_the_norm_makes_to_the_last_bit() {
        each(|_| {
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                let vb = source(dtype);
                let norm = NormSource { vb: &vb.pp("norm"), channels: CHANNELS, eps: 1e-5 };
                let maps = [vb.pp("a"), vb.pp("b")];
                let normed = NormedLinears::load_no_bias(norm, &maps, OUTPUTS).unwrap();
                let gated = NormedGated::load(norm, &vb.pp("gated"), OUTPUTS).unwrap();
                let plain = norm.load().unwrap();
                let plain_maps = Linears::load_no_bias(&maps, CHANNELS, OUTPUTS).unwrap();
                let plain_gated = GatedLinear::load(&vb.pp("gated"), CHANNELS, OUTPUTS).unwrap();
                // So many rows that seven products repay, and fewer.
                for rows in [3, 128] {
                    let x = (random(&[2, rows, CHANNELS], 7) + 1.0).unwrap();
                    let want = plain.forward(&x).unwrap();
                    let rows = Rows::plain(x);
                    let got = normed.forward(&rows).unwrap();
                    for (got, want) in got.iter().zip(plain_maps.forward(&want, None).unwrap()) {
                        assert_near(got, &want, 0.0);
                    }
                    assert_near(&gated.forward(&rows).unwrap(), &plain_gated.forward(&want).unwrap(), 0.0);
                }
            }
        });
    }
}
