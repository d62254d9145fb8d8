//! Weighted sums: what a sampler makes of latents and noise.

use crate::error::Result;
use candle_core::Tensor;

/// For each row the sum of its terms, each times its coefficient: `[rows, ..]`.
///
/// Terms are tensors `[1, ..]` of one shape in f32; a row has one at least, and at most eight whose coefficient is not
/// 0. On a GPU all rows are one launch.
pub fn combine(rows: &[Vec<(&Tensor, f64)>]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if rows[0][0].0.device().is_cuda() {
        return super::cuda::pointwise::combine(rows);
    }
    let sums = rows.iter().map(|terms| {
        let (first, coefficient) = terms[0];
        let mut sum = (first * coefficient)?;
        for (term, coefficient) in terms[1..].iter().filter(|(_, coefficient)| *coefficient != 0.0) {
            sum = (sum + (*term * *coefficient)?)?;
        }
        Ok(sum)
    });
    Ok(Tensor::cat(&sums.collect::<Result<Vec<_>>>()?, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_near, random};

    #[test]
    fn rows_are_summed_each_with_its_own_coefficients() {
        let [a, b] = [1, 2].map(|seed| random(&[1, 3, 4], seed));
        let sums = combine(&[vec![(&a, 2.0), (&b, -0.5)], vec![(&b, 1.0), (&a, 0.0)]]).unwrap();
        let first = ((&a * 2.0).unwrap() - (&b * 0.5).unwrap()).unwrap();
        assert_near(&sums.narrow(0, 0, 1).unwrap(), &first, 1e-6);
        assert_near(&sums.narrow(0, 1, 1).unwrap(), &b, 0.0);
    }
}
