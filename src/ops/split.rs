//! Rows of a batch of which the first go through more than the others.

#[cfg(feature = "cuda")]
use super::cuda;
use super::linear::Linear;
use super::normed::Rows;
use crate::error::Result;
use candle_core::Tensor;
use candle_nn::VarBuilder;

/// A linear map with bias that adds `shift` besides to a batch's rows from some row on.
#[derive(Debug)]
pub struct SplitLinear {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain {
        map: Linear,
        shift: Tensor, // [1, 1, outputs]
    },
    #[cfg(feature = "cuda")]
    Cuda(cuda::linear::Linear),
}

impl SplitLinear {
    /// Reads `weight` `[outputs, inputs]` and `bias` `[outputs]`; `shift` is `[outputs]`.
    pub fn load(vb: &VarBuilder, shift: &Tensor, inputs: usize, outputs: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if vb.device().is_cuda() {
            let (weight, bias) = (vb.get((outputs, inputs), "weight")?, vb.get(outputs, "bias")?);
            return Ok(Self { kind: Kind::Cuda(cuda::linear::Linear::split(&weight, &bias, shift)?) });
        }
        let map = Linear::load(vb, inputs, outputs)?;
        Ok(Self { kind: Kind::Plain { map, shift: shift.reshape((1, 1, outputs))? } })
    }

    /// Maps `[B, L, inputs]`, plus `residual`; plus the shift where a row of the batch is `from` or later.
    pub fn forward_add(&self, x: &Tensor, residual: &Rows, from: usize) -> Result<Rows> {
        match &self.kind {
            Kind::Plain { map, .. } if from >= x.dim(0)? => map.forward_add_rows(x, residual),
            Kind::Plain { map, shift } => {
                let others = shift.repeat((x.dim(0)? - from, 1, 1))?;
                let shift = others.pad_with_zeros(0, from, 0)?;
                Ok(Rows::plain(map.forward_add_shifted(x, residual.values(), &shift)?))
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda(linear) => Ok(Rows::measured(linear.forward_split(x, residual.values(), from)?)),
        }
    }
}

impl Linear {
    /// Adds what it makes of `[n, L, inputs]` to the first `n` of the batch's `rows`: on a GPU in their place, so that nobody
    /// else may hold them.
    pub fn forward_onto_first(&self, x: &Tensor, rows: Rows) -> Result<Rows> {
        let (count, batch) = (x.dim(0)?, rows.values().dim(0)?);
        if count == 0 {
            return Ok(rows);
        }
        let first = rows.first(count)?;
        #[cfg(feature = "cuda")]
        if let Some(linear) = self.on_gpu() {
            let noted = linear.forward_onto(x, first.values(), first.moments())?;
            return Ok(if noted { rows } else { Rows::plain(rows.values().clone()) });
        }
        let first = self.forward_add_rows(x, &first)?;
        if count == batch {
            return Ok(first);
        }
        let others = rows.values().narrow(0, count, batch - count)?;
        Ok(Rows::plain(Tensor::cat(&[first.values(), &others], 0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;
    use candle_core::{DType, Device};
    use std::collections::HashMap;

    const WIDTH: usize = 40;

    fn vb() -> VarBuilder<'static> {
        let tensors = [("weight", random(&[WIDTH, WIDTH], 1)), ("bias", random(&[WIDTH], 2))];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor));
        VarBuilder::from_tensors(HashMap::from(tensors), DType::F32, &Device::Cpu)
    }

    #[test]
    fn the_shift_is_added_to_the_rows_from_the_split_on_and_moves_no_bit_of_the_others() {
        each(|_| {
            let shift = random(&[WIDTH], 3);
            let (split, plain) = (
                SplitLinear::load(&vb(), &shift, WIDTH, WIDTH).unwrap(),
                Linear::load(&vb(), WIDTH, WIDTH).unwrap(),
            );
            let (x, residual) = (random(&[3, 7, WIDTH], 4), random(&[3, 7, WIDTH], 5));
            let unshifted = plain.forward_add(&x, &residual).unwrap();
            let shifted = unshifted.broadcast_add(&shift).unwrap();
            for from in 0..=4 {
                let got = split.forward_add(&x, &Rows::plain(residual.clone()), from).unwrap();
                let (first, others) = (from.min(3), 3 - from.min(3));
                let part = |x: &Tensor, at, count| x.narrow(0, at, count).unwrap();
                assert_near(&part(got.values(), 0, first), &part(&unshifted, 0, first), 0.0);
                assert_near(&part(got.values(), first, others), &part(&shifted, first, others), 1e-6);
            }
        });
    }

    #[test]
    fn what_is_added_to_the_first_rows_leaves_the_others_as_they_are() {
        each(|_| {
            let linear = Linear::load(&vb(), WIDTH, WIDTH).unwrap();
            let (x, rows) = (random(&[3, 7, WIDTH], 4), random(&[3, 7, WIDTH], 5));
            let added = linear.forward_add(&x, &rows).unwrap();
            for count in 0..=3 {
                let part = |x: &Tensor, at, count| x.narrow(0, at, count).unwrap();
                let got = linear.forward_onto_first(&part(&x, 0, count), Rows::plain(rows.clone())).unwrap();
                assert_near(&part(got.values(), 0, count), &part(&added, 0, count), 0.0);
                assert_near(&part(got.values(), count, 3 - count), &part(&rows, count, 3 - count), 0.0);
            }
        });
    }
}
