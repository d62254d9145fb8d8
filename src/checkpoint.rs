//! Reading checkpoints: where the parts of a model lie, their configs, and their weights.

mod bundled;
mod dummy;
mod files;
mod folder;
mod manifest;
mod scheduler;
mod source;
mod weights;

pub use files::Files;
pub use folder::{Component, Folder, ModelIndex};
pub use manifest::Settings;
pub use scheduler::SchedulerConfig;
pub use source::Checkpoint;
pub use weights::Weights;
