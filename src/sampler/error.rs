//! What can be wrong with the numbers that a table or a schedule is asked for.

use std::fmt;

/// A training table or schedule that cannot be made. Its text names the value and the bound.
#[derive(Debug, Clone, PartialEq)]
pub enum SamplerError {
    /// The betas do not describe a training table: they must satisfy 0 < start <= end < 1 and there must be
    /// two or more.
    Training {
        /// The first beta given.
        beta_start: f64,
        /// The last beta given.
        beta_end: f64,
        /// The number of training timesteps given.
        steps: usize,
    },
    /// The number of steps is 0 or above the number of training timesteps.
    Steps {
        /// The number of steps given.
        given: usize,
        /// The number of training timesteps.
        most: usize,
    },
    /// The strength is outside 0..=1, or so small that no step is left.
    Strength {
        /// The strength given.
        given: f64,
        /// The number of steps it was to be a part of.
        steps: usize,
    },
}

impl fmt::Display for SamplerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Training { beta_start, beta_end, steps } => write!(
                f,
                "a training table needs 0 < beta_start <= beta_end < 1 and at least 2 timesteps, \
                 not beta_start {beta_start}, beta_end {beta_end} and {steps} timesteps"
            ),
            Self::Steps { given, most } => write!(f, "steps must be between 1 and {most}, not {given}"),
            Self::Strength { given, steps } => {
                write!(
                    f,
                    "strength must be between {} and 1 for {steps} steps, not {given}",
                    1.0 / *steps as f64
                )
            }
        }
    }
}

impl std::error::Error for SamplerError {}
