//! Schedules and samplers.
pub mod ddpm;
pub mod error;
pub mod names;
pub mod plans;
pub mod prediction;
mod quantile;
mod rules;
pub mod schedule;
mod spacing;
#[cfg(test)]
mod testing;
