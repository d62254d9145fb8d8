//! How much work a picture is worth.

use super::Steps;

/// OpenAI's `quality`: how many steps a picture gets, relative to the model's own number.
///
/// | effort | steps |
/// |---|---|
/// | low | half of the model's, at least 1 |
/// | medium | the model's |
/// | high | one and a half times |
/// | very high | twice |
/// | highest | three times |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// A sketch of what is to come.
    Low,
    /// What the model's makers found to be finished.
    Medium,
    /// Finer.
    High,
    /// Finer still.
    VeryHigh,
    /// Beyond this more steps show nothing.
    Highest,
}

impl Effort {
    /// The steps of a picture, of a model that by itself takes `usual` ones; halves are rounded up.
    pub fn steps(self, usual: Steps) -> Steps {
        let halves = match self {
            Self::Low => 1,
            Self::Medium => 2,
            Self::High => 3,
            Self::VeryHigh => 4,
            Self::Highest => 6,
        };
        usual.scaled(halves, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_scales_the_models_own_steps_within_their_bounds() {
        let all = [Effort::Low, Effort::Medium, Effort::High, Effort::VeryHigh, Effort::Highest];
        let steps = |usual| all.map(|effort| effort.steps(Steps::new(usual).unwrap()).get());
        assert_eq!(steps(12), [6, 12, 18, 24, 36]);
        assert_eq!(steps(25), [13, 25, 38, 50, 75]);
        assert_eq!(steps(1), [1, 1, 2, 2, 3]);
        assert_eq!(steps(1000), [500, 1000, 1000, 1000, 1000]);
    }
}
