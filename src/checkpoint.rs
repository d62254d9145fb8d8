//! Reading checkpoints: where the parts of a model lie, their configs, and their weights.

mod dummy;
mod folder;
mod scheduler;
mod weights;

pub use folder::{Component, Folder, ModelIndex};
pub use scheduler::SchedulerConfig;
pub use weights::Weights;

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads a JSON file into `T`.
///
/// # Errors
/// If the file cannot be read, is no JSON, or lacks a field; the message names the file and the field.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::checkpoint(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Error::checkpoint(format!("{}: {error}", path.display())))
}
