//! How the network's output becomes the denoised estimate (Karras et al. 2022, section 5, with sigma_data =
//! 1).

use std::str::FromStr;

use super::names::UnknownName;

/// What the network was trained to predict; diffusers' `prediction_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prediction {
    /// The noise; `epsilon` (Ho et al. 2020). SDXL base.
    Epsilon,
    /// The velocity `alpha*noise - sigma*x0`; `v_prediction` (Salimans and Ho 2022).
    V,
    /// The clean sample; `sample`.
    Sample,
}

/// The factors around one network call at one sigma:
/// `denoised = c_skip * x + c_out * network(c_in * x, timestep)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalings {
    /// The part of the latents in the denoised estimate.
    pub c_skip: f64,
    /// The factor of the network's output.
    pub c_out: f64,
    /// The factor of the network's input, `1 / sqrt(sigma^2 + 1)`.
    pub c_in: f64,
}

impl Prediction {
    /// The factors at `sigma` >= 0, for latents `x = x0 + sigma * noise`.
    pub fn scalings(self, sigma: f64) -> Scalings {
        let c_in = 1.0 / sigma.hypot(1.0);
        let (c_skip, c_out) = match self {
            Self::Epsilon => (1.0, -sigma),
            Self::V => (c_in * c_in, -sigma * c_in),
            Self::Sample => (0.0, 1.0),
        };
        Scalings { c_skip, c_out, c_in }
    }
}

impl FromStr for Prediction {
    type Err = UnknownName;

    /// Reads the name that stands in a checkpoint's `scheduler_config.json`.
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "epsilon" => Ok(Self::Epsilon),
            "v_prediction" => Ok(Self::V),
            "sample" => Ok(Self::Sample),
            _ => Err(UnknownName::new("prediction type", text, vec!["epsilon", "v_prediction", "sample"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prediction_gives_back_the_clean_sample() {
        let (clean, noise) = (0.7, -1.3);
        for sigma in [0.0_f64, 0.0292, 1.0, 14.6146, 4096.0] {
            let x = clean + sigma * noise;
            let (alpha, deviation) = (1.0 / sigma.hypot(1.0), sigma / sigma.hypot(1.0));
            let outputs = [
                (Prediction::Epsilon, noise),
                (Prediction::V, alpha * noise - deviation * clean),
                (Prediction::Sample, clean),
            ];
            for (prediction, output) in outputs {
                let Scalings { c_skip, c_out, c_in } = prediction.scalings(sigma);
                assert!((c_skip * x + c_out * output - clean).abs() < 1e-9, "{prediction:?} at {sigma}");
                assert!((c_in * x - (alpha * clean + deviation * noise)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn names_are_those_of_the_scheduler_config() {
        assert_eq!("epsilon".parse(), Ok(Prediction::Epsilon));
        assert_eq!("v_prediction".parse(), Ok(Prediction::V));
        assert_eq!("sample".parse(), Ok(Prediction::Sample));
        let message = "flow".parse::<Prediction>().expect_err("no such type").to_string();
        assert_eq!(message, r#"unknown prediction type "flow"; known: epsilon, v_prediction, sample"#);
    }
}
