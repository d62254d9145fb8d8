//! Scaled dot-product attention with several heads.

use super::cpu::attention::{Sizes, attention as on_cpu};
use super::cpu::isa::Isa;
#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{holds, plain, read, tensor};
use super::reference;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Which keys a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
}

/// Attention with several heads.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    heads: usize,
    mask: Mask,
    /// The type of the model's weights. On a processor that multiplies pairs of bf16, operands are rounded to that.
    dtype: DType,
}

impl Attention {
    /// For `heads` equal parts of the channels, in a model whose weights are of `dtype`.
    pub fn new(heads: usize, mask: Mask, dtype: DType) -> Self {
        Self { heads, mask, dtype }
    }

    /// `softmax(q k^T / sqrt(C / heads)) v` in each part of the channels.
    ///
    /// Queries are `[B, L, C]`, keys and values `[B, S, C]`; the answer is `[B, L, C]`. Scores and softmax are f32.
    pub fn forward(&self, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
        let (heads, causal) = (self.heads, self.mask == Mask::Causal);
        #[cfg(feature = "cuda")]
        if q.device().is_cuda() && cuda::attention::takes(q, k, heads, causal)? {
            return cuda::attention::attention([q, k, v], heads, causal);
        }
        if !holds(q) {
            return reference::attention(q, k, v, heads, self.mask);
        }
        let (batch, queries, channels) = q.dims3()?;
        let rounded = self.dtype == DType::BF16;
        let sizes =
            Sizes { batch, queries, keys: k.dim(1)?, heads, width: channels / heads, causal, rounded };
        let (q, k, v) = (plain(q)?, plain(k)?, plain(v)?);
        let (readable_q, readable_k, readable_v) = (read(&q), read(&k), read(&v));
        let operands = [readable_q.slice()?, readable_k.slice()?, readable_v.slice()?];
        tensor(on_cpu(Isa::current(), operands, sizes), q.shape())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;

    /// Runs `work` with each set of instructions and each type of weights, and with how far results may be off: where operands are
    /// rounded to bf16, by twice the 2^-8 that a number is off then.
    fn each_kind(mut work: impl FnMut(DType, f32)) {
        each(|isa| {
            work(DType::F32, 3e-6);
            work(DType::BF16, if isa == Isa::Avx512Bf16 { 8e-3 } else { 3e-6 });
        });
    }

    fn attend(dtype: DType, [q, k, v]: [&Tensor; 3], heads: usize, mask: Mask) -> Tensor {
        Attention::new(heads, mask, dtype).forward([q, k, v]).unwrap()
    }

    #[test]
    fn it_attends_as_the_reference_does_whatever_the_sizes() {
        each_kind(|dtype, bound| {
            for (queries, keys, heads, width) in [
                (1, 1, 1, 1),
                (3, 5, 2, 2),
                (77, 77, 2, 32),
                (33, 400, 1, 40),
                (64, 193, 3, 64),
                (40, 50, 1, 160),
                (70, 70, 1, 512),
            ] {
                let shape = |length| [2, length, heads * width];
                let (q, k, v) =
                    (random(&shape(queries), 1), random(&shape(keys), 2), random(&shape(keys), 3));
                let q = (q * 3.0).unwrap();
                let want = reference::attention(&q, &k, &v, heads, Mask::None).unwrap();
                assert_near(&attend(dtype, [&q, &k, &v], heads, Mask::None), &want, bound);
            }
        });
    }

    #[test]
    fn a_causal_mask_hides_the_same_keys_as_in_the_reference() {
        each_kind(|dtype, bound| {
            for (length, heads, width) in [(1, 1, 8), (31, 2, 16), (77, 3, 64), (450, 1, 24)] {
                let [q, k, v] = [1, 2, 3].map(|seed| random(&[2, length, heads * width], seed));
                let want = reference::attention(&q, &k, &v, heads, Mask::Causal).unwrap();
                assert_near(&attend(dtype, [&q, &k, &v], heads, Mask::Causal), &want, bound);
            }
        });
    }

    #[test]
    fn scores_far_apart_neither_overflow_nor_vanish() {
        each(|_| {
            let [q, k, v] = [1, 2, 3].map(|seed| random(&[1, 500, 64], seed));
            let q = (q * 300.0).unwrap();
            let want = reference::attention(&q, &k, &v, 1, Mask::None).unwrap();
            assert_near(&attend(DType::F32, [&q, &k, &v], 1, Mask::None), &want, 2e-4);
            // Scores of hundreds, rounded, choose other keys; what is mixed still lies among the values.
            let mixed = attend(DType::BF16, [&q, &k, &v], 1, Mask::None).abs().unwrap();
            assert!(mixed.max_all().unwrap().to_scalar::<f32>().unwrap() <= 1.0);
        });
    }

    #[test]
    fn a_row_attends_the_same_to_the_last_bit_alone_and_among_others() {
        each_kind(|dtype, _| {
            let [q, k, v] = [1, 2, 3].map(|seed| random(&[3, 50, 64], seed));
            let all = attend(dtype, [&q, &k, &v], 2, Mask::None);
            for row in 0..3 {
                let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(0, row, 1).unwrap());
                assert_near(
                    &attend(dtype, [&q, &k, &v], 2, Mask::None),
                    &all.narrow(0, row, 1).unwrap(),
                    0.0,
                );
            }
        });
    }
}
