//! A diffusers folder: `model_index.json` and one folder for each part.

use super::{Files, SchedulerConfig, Weights};
use crate::error::{Error, Result};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

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
    files: Files,
    /// What `model_index.json` says.
    pub index: ModelIndex,
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// If it has no `model_index.json`, or that names a pipeline other than SDXL's.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(Files::Disk(path.to_owned()))
    }

    /// The bundled model.
    ///
    /// # Errors
    /// If the program was built with a damaged one.
    pub fn bundled() -> Result<Self> {
        Self::of(Files::bundled())
    }

    fn of(files: Files) -> Result<Self> {
        let missing =
            || Error::checkpoint(format!("{files}: no diffusers model here, model_index.json is missing"));
        let index: ModelIndex = files.json_if_there("model_index.json")?.ok_or_else(missing)?;
        if !PIPELINES.contains(&index.class_name.as_str()) {
            return Err(Error::checkpoint(format!(
                "{}: pipeline class '{}' is not supported; known: {}",
                files.shown("model_index.json"),
                index.class_name,
                PIPELINES.join(", ")
            )));
        }
        Ok(Self { files, index })
    }

    /// The folder's own files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The `config.json` of a part.
    ///
    /// # Errors
    /// If it is missing, no JSON, or lacks a field.
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T> {
        self.files.folder(component.folder()).json("config.json")
    }

    /// The scheduler's config.
    ///
    /// # Errors
    /// If it is missing or no JSON.
    pub fn scheduler(&self) -> Result<SchedulerConfig> {
        self.files.folder("scheduler").json("scheduler_config.json")
    }

    /// The weights of a part as a tree of tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// If no safetensors file is there, or one is damaged.
    pub fn tensors(
        &self,
        component: Component,
        dtype: DType,
        device: &Device,
    ) -> Result<VarBuilder<'static>> {
        let folder = self.files.folder(component.folder());
        let names = weight_files(&folder, component.stem())?;
        Ok(Weights::open(&folder, &names)?.into_tensors(dtype, device))
    }
}

/// The weight files of a part: one file or the shards of an index, of the first variant that is there.
fn weight_files(folder: &Files, stem: &str) -> Result<Vec<String>> {
    for variant in VARIANTS {
        let single = format!("{stem}{variant}.safetensors");
        if folder.contains(&single) {
            return Ok(vec![single]);
        }
        let index = format!("{stem}.safetensors.index{variant}.json");
        if let Some(shards) = folder.json_if_there::<ShardIndex>(&index)? {
            return shards.names(folder, &index);
        }
    }
    let pickle = format!("{stem}.bin");
    if folder.contains(&pickle) || folder.contains("pytorch_model.bin") {
        return Err(Error::checkpoint(format!(
            "{folder}: pickled weights can run any code when they are read; convert them to {stem}.safetensors"
        )));
    }
    Err(Error::checkpoint(format!(
        "{folder}: no weights here; looked for {stem}.safetensors, its shards and variants"
    )))
}

/// `*.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl ShardIndex {
    /// The files that the index names, each once; all must lie beside it.
    fn names(self, folder: &Files, index: &str) -> Result<Vec<String>> {
        let names: BTreeSet<String> = self.weight_map.into_values().collect();
        let astray =
            names.iter().find(|name| Path::new(name).components().count() != 1 || !folder.contains(name));
        match astray {
            Some(name) => {
                let index = folder.shown(index);
                Err(Error::checkpoint(format!("{index}: the shard '{name}' that it names is missing")))
            }
            None => Ok(names.into_iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_model_is_whole() {
        let folder = Folder::bundled().expect("the bundled model opens");
        for component in [Component::TextEncoder, Component::TextEncoder2, Component::Unet, Component::Vae] {
            folder.tensors(component, DType::F32, &Device::Cpu).expect("its weights open");
            folder.config::<serde_json::Value>(component).expect("its configs are read");
        }
        folder.scheduler().expect("its scheduler is read");
    }
}
