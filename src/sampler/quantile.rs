//! The quantiles of the symmetric beta distribution that ComfyUI's `beta` schedule takes its timesteps from.

/// Both shape parameters: ComfyUI's defaults, those of "Beta Sampling is All You Need" (arXiv 2407.12173).
const SHAPE: f64 = 0.6;

/// `B(0.6, 0.6) = gamma(0.6)^2 / gamma(1.2)`, from `scipy.special.beta(0.6, 0.6)`.
const COMPLETE_BETA: f64 = 2.4153442080024723;

/// The number below which a draw from Beta(0.6, 0.6) lies with probability `p` in [0, 1];
/// `scipy.stats.beta.ppf`.
pub(super) fn beta_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    let (mut low, mut high) = (0.0, 0.5);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if lower_half_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// The probability of a draw below `x` in [0, 1/2], by the power series of the incomplete beta function
/// (DLMF 8.17.7); its terms fall at least by half each, so that the loop ends.
fn lower_half_cdf(x: f64) -> f64 {
    let (mut k, mut term, mut sum) = (0.0, 1.0, 0.0);
    while term > f64::EPSILON * 1e-2 * sum {
        sum += term / (SHAPE + k);
        term *= x * (1.0 - SHAPE + k) / (k + 1.0);
        k += 1.0;
    }
    x.powf(SHAPE) * sum / COMPLETE_BETA
}

#[cfg(test)]
mod tests {
    use super::super::testing::{golden, list};
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        let golden = golden("quantiles");
        for (p, theirs) in list(&golden["p"]).into_iter().zip(list(&golden["quantile"])) {
            assert!((beta_quantile(p) / theirs - 1.0).abs() < 1e-11, "{p} {} {theirs}", beta_quantile(p));
        }
    }

    #[test]
    fn the_ends_and_the_middle_are_where_symmetry_puts_them() {
        assert_eq!(beta_quantile(1.0), 1.0);
        assert_eq!(beta_quantile(0.0), 0.0);
        assert!((beta_quantile(0.5) - 0.5).abs() < 1e-15);
    }
}
