//! Scaled dot-product attention with several heads.

use super::cpu::attention::{Sizes, attention as on_cpu};
use super::cpu::isa::Isa;
#[cfg(feature = "cuda")]
use super::cuda;
use super::host::{holds, plain, read, tensor};
use super::reference;
use crate::error::Result;
use candle_core::Tensor;

/// Which keys a query may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
}

/// `softmax(q k^T / sqrt(C / heads)) v` in each of `heads` equal parts of the channels.
///
/// Queries are `[B, L, C]`, keys and values `[B, S, C]`; the answer is `[B, L, C]`. Scores and softmax are f32.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() && cuda::attention::takes(q, k, heads, mask == Mask::Causal)? {
        return cuda::attention::attention([q, k, v], heads, mask == Mask::Causal);
    }
    if !holds(q) {
        return reference::attention(q, k, v, heads, mask);
    }
    let (batch, queries, channels) = q.dims3()?;
    let causal = mask == Mask::Causal;
    let sizes = Sizes { batch, queries, keys: k.dim(1)?, heads, width: channels / heads, causal };
    let (q, k, v) = (plain(q)?, plain(k)?, plain(v)?);
    let (readable_q, readable_k, readable_v) = (read(&q), read(&k), read(&v));
    let operands = [readable_q.slice()?, readable_k.slice()?, readable_v.slice()?];
    tensor(on_cpu(Isa::current(), operands, sizes), q.shape())
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;

    #[test]
    fn it_attends_as_the_reference_does_whatever_the_sizes() {
        each(|_| {
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
                assert_near(&attention(&q, &k, &v, heads, Mask::None).unwrap(), &want, 3e-6);
            }
        });
    }

    #[test]
    fn a_causal_mask_hides_the_same_keys_as_in_the_reference() {
        each(|_| {
            for (length, heads, width) in [(1, 1, 8), (31, 2, 16), (77, 3, 64), (450, 1, 24)] {
                let [q, k, v] = [1, 2, 3].map(|seed| random(&[2, length, heads * width], seed));
                let want = reference::attention(&q, &k, &v, heads, Mask::Causal).unwrap();
                assert_near(&attention(&q, &k, &v, heads, Mask::Causal).unwrap(), &want, 3e-6);
            }
        });
    }

    #[test]
    fn scores_far_apart_neither_overflow_nor_vanish() {
        each(|_| {
            let [q, k, v] = [1, 2, 3].map(|seed| random(&[1, 500, 64], seed));
            let q = (q * 300.0).unwrap();
            let want = reference::attention(&q, &k, &v, 1, Mask::None).unwrap();
            assert_near(&attention(&q, &k, &v, 1, Mask::None).unwrap(), &want, 2e-4);
        });
    }

    #[test]
    fn a_row_attends_the_same_to_the_last_bit_alone_and_among_others() {
        each(|_| {
            let [q, k, v] = [1, 2, 3].map(|seed| random(&[3, 50, 64], seed));
            let all = attention(&q, &k, &v, 2, Mask::None).unwrap();
            for row in 0..3 {
                let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(0, row, 1).unwrap());
                assert_near(
                    &attention(&q, &k, &v, 2, Mask::None).unwrap(),
                    &all.narrow(0, row, 1).unwrap(),
                    0.0,
                );
            }
        });
    }
}
