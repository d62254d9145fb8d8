//! From a checked request to pictures: tensors without queues, usable as a library.
//!
//! ```text
//! prompt -> condition ─┐
//! noise  -> job  ──────┴─> step (one UNet call for rows of many jobs) -> ... -> decode -> Picture
//! ```

mod condition;
mod decode;
mod generate;
mod job;
mod load;
mod noise;
pub mod prompt;
mod step;

pub use condition::{Conditioned, PromptKey, PromptPair, ReadPrompt};
pub use generate::Progress;
pub use job::Job;
pub use load::{LoadOptions, TextEncoders, open_device, parse_dtype};
pub use noise::Generator;

use crate::model::clip::TextEncoder;
use crate::model::config::VaeConfig;
use crate::model::memory_taken;
use crate::model::unet::Unet;
use crate::model::vae::Vae;
use crate::request::Defaults;
use crate::sampler::NoiseTable;
use crate::sampler::Prediction;
use crate::sampler::SpacingOptions;
use candle_core::{DType, Device};
use prompt::PromptTokenizer;
use std::path::{Path, PathBuf};

/// A text encoder with its tokenizer.
#[derive(Debug)]
struct TextTower {
    tokenizer: PromptTokenizer,
    encoder: TextEncoder,
}

/// The training noise of a model and what its network predicts.
#[derive(Debug)]
struct Training {
    table: NoiseTable,
    spacing: SpacingOptions,
    prediction: Prediction,
}

/// An SDXL model, resident on one device.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    folder: Option<PathBuf>,
    device: Device,
    dtype: DType,
    towers: [TextTower; 2],
    unet: Unet,
    unet_inputs: usize,
    vae: Vae,
    vae_config: VaeConfig,
    vae_dtype: DType,
    training: Training,
    defaults: Defaults,
    zeros_for_absent_negative: bool,
}

impl Pipeline {
    /// The model's name, as its folder or source names it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's folder on disk; none where it is bundled or made up.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The model's name, the device's, and how weights are held: what labels of metrics say.
    pub fn facts(&self) -> [&str; 3] {
        let device = if self.device.is_cpu() { "cpu" } else { "cuda" };
        [&self.name, device, self.dtype.as_str()]
    }

    /// All that its speed depends on, in one line.
    pub fn identity(&self) -> String {
        format!("{} threads {}", self.facts().join(" "), rayon::current_num_threads())
    }

    /// Bytes of memory that are taken on its device, where that is a GPU.
    pub fn memory_taken(&self) -> Option<u64> {
        memory_taken(&self.device)
    }

    /// What the model draws with where a request is silent.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }
}
