//! A diffusers folder: `model_index.json` and one folder for each part.

use super::{SchedulerConfig, Weights, read_json};
use crate::error::{Error, Result};
use candle_core::{DType, Device};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Pipeline classes whose parts this crate knows how to join.
const PIPELINES: [&str; 3] =
    ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"];

/// What `model_index.json` says beside the parts' classes.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelIndex {
    /// The pipeline's class.
    #[serde(rename = "_class_name")]
    class_name: String,
    /// Whether an absent negative prompt means zeros, not the encoded empty prompt.
    #[serde(default)]
    pub force_zeros_for_empty_prompt: bool,
}

/// A part of the pipeline with weights, by the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// CLIP ViT-L.
    TextEncoder,
    /// OpenCLIP ViT-bigG.
    TextEncoder2,
    /// The denoiser.
    Unet,
    /// The autoencoder.
    Vae,
}

impl Component {
    /// The folder's name.
    pub fn folder(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Unet => "unet",
            Self::Vae => "vae",
        }
    }

    /// The weights' file name without its ending.
    fn stem(self) -> &'static str {
        match self {
            Self::TextEncoder | Self::TextEncoder2 => "model",
            Self::Unet | Self::Vae => "diffusion_pytorch_model",
        }
    }
}

/// The variants of weights to look for, in order; the first is the plain one.
const VARIANTS: [&str; 3] = ["", ".fp16", ".bf16"];

/// A checkpoint as diffusers saves it.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// What `model_index.json` says.
    pub index: ModelIndex,
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// If it has no `model_index.json`, or that names a pipeline other than SDXL's.
    pub fn open(path: &Path) -> Result<Self> {
        let index_path = path.join("model_index.json");
        if !index_path.is_file() {
            let path = path.display();
            return Err(Error::checkpoint(format!("{path}: no diffusers model here, model_index.json is missing")));
        }
        let index: ModelIndex = read_json(&index_path)?;
        if !PIPELINES.contains(&index.class_name.as_str()) {
            return Err(Error::checkpoint(format!(
                "{}: pipeline class '{}' is not supported; known: {}",
                index_path.display(),
                index.class_name,
                PIPELINES.join(", ")
            )));
        }
        Ok(Self { path: path.to_owned(), index })
    }

    /// The folder's own path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `config.json` of a part.
    ///
    /// # Errors
    /// If it is missing, no JSON, or lacks a field.
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T> {
        read_json(&self.path.join(component.folder()).join("config.json"))
    }

    /// The scheduler's config.
    ///
    /// # Errors
    /// If it is missing or no JSON.
    pub fn scheduler(&self) -> Result<SchedulerConfig> {
        read_json(&self.path.join("scheduler/scheduler_config.json"))
    }

    /// The weights of a part, memory-mapped.
    ///
    /// # Errors
    /// If no safetensors file is there, or one is damaged.
    pub fn weights(&self, component: Component) -> Result<Weights> {
        let folder = self.path.join(component.folder());
        Weights::open(&weight_files(&folder, component.stem())?)
    }

    /// The weights of a part as a tree of tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// As [`Folder::weights`].
    pub fn tensors(
        &self,
        component: Component,
        dtype: DType,
        device: &Device,
    ) -> Result<candle_nn::VarBuilder<'static>> {
        Ok(self.weights(component)?.into_tensors(dtype, device))
    }
}

/// The weight files of a part: one file or the shards of an index, of the first variant that is there.
fn weight_files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    for variant in VARIANTS {
        let single = folder.join(format!("{stem}{variant}.safetensors"));
        if single.is_file() {
            return Ok(vec![single]);
        }
        let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
        if index.is_file() {
            return shards(folder, &index);
        }
    }
    let pickle = folder.join(format!("{stem}.bin"));
    let folder = folder.display();
    if pickle.is_file() {
        return Err(Error::checkpoint(format!(
            "{}: pickled weights can run any code when they are read; convert them to {stem}.safetensors",
            pickle.display()
        )));
    }
    Err(Error::checkpoint(format!("{folder}: no weights here; looked for {stem}.safetensors, its shards and variants")))
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

/// The files that a shard index names, each once.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let names: BTreeSet<String> = read_json::<ShardIndex>(index)?.weight_map.into_values().collect();
    names
        .into_iter()
        .map(|name| {
            let shard = folder.join(&name);
            if Path::new(&name).components().count() == 1 && shard.is_file() {
                return Ok(shard);
            }
            Err(Error::checkpoint(format!("{}: the shard '{name}' that it names is missing", index.display())))
        })
        .collect()
}
