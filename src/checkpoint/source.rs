//! What `--model` can name, and the checkpoint behind it.

use super::{Component, Files, Folder, SchedulerConfig, Weights};
use crate::error::{Error, Result};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::de::DeserializeOwned;
use std::path::Path;

/// SDXL's own configs, for random weights of its sizes.
const SDXL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/sdxl.json"));

/// A model's files, or the sizes that random weights are made for.
#[derive(Debug, Clone)]
pub enum Checkpoint {
    /// A folder as diffusers saves it.
    Folder(Folder),
    /// SDXL's sizes with random weights, for benchmarks.
    DummySdxl,
}

impl Checkpoint {
    /// Opens what `--model` names: `sketch`, `dummy:sdxl`, or a diffusers folder.
    ///
    /// # Errors
    /// If there is no such model, or it is of a kind that cannot be read.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("");
        match name {
            "sketch" => Ok(Self::Folder(Folder::bundled()?)),
            "dummy:sdxl" => Ok(Self::DummySdxl),
            _ if path.is_dir() => Ok(Self::Folder(Folder::open(path)?)),
            _ if ["ckpt", "pt", "pth", "bin"].contains(&ending) => Err(Error::checkpoint(format!(
                "{name}: a pickled checkpoint can run any code when it is read; convert it to safetensors"
            ))),
            _ if path.is_file() => Err(Error::checkpoint(format!(
                "{name}: single-file checkpoints are not supported yet; give a diffusers folder"
            ))),
            _ => Err(Error::checkpoint(format!(
                "there is no model '{name}'; known: sketch, dummy:sdxl, or the path of a diffusers folder"
            ))),
        }
    }

    /// A short name for answers and files: the folder's own, or that of the source.
    pub fn name(&self) -> String {
        match self {
            Self::DummySdxl => "dummy:sdxl".into(),
            Self::Folder(folder) => match folder.files() {
                Files::Bundled(_) => "sketch".into(),
                Files::Disk(path) => {
                    let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                    path.file_name()
                        .map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
                }
            },
        }
    }

    /// The folder on disk, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => match folder.files() {
                Files::Disk(path) => Some(path),
                Files::Bundled(_) => None,
            },
            Self::DummySdxl => None,
        }
    }

    /// The config of a part.
    ///
    /// # Errors
    /// If it is missing, no JSON, or lacks a field.
    pub fn config<T: DeserializeOwned>(&self, component: Component) -> Result<T> {
        match self {
            Self::Folder(folder) => folder.config(component),
            Self::DummySdxl => sdxl(component.folder()),
        }
    }

    /// The scheduler's config.
    ///
    /// # Errors
    /// If it is missing or no JSON.
    pub fn scheduler(&self) -> Result<SchedulerConfig> {
        match self {
            Self::Folder(folder) => folder.scheduler(),
            Self::DummySdxl => sdxl("scheduler"),
        }
    }

    /// The weights of a part as a tree of tensors of `dtype` on `device`.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn tensors(
        &self,
        component: Component,
        dtype: DType,
        device: &Device,
    ) -> Result<VarBuilder<'static>> {
        match self {
            Self::Folder(folder) => folder.tensors(component, dtype, device),
            Self::DummySdxl => Ok(Weights::random().into_tensors(dtype, device)),
        }
    }

    /// The files of a tokenizer, `tokenizer` or `tokenizer_2`; `None` where CLIP's own vocabulary serves.
    pub fn tokenizer(&self, name: &str) -> Option<Files> {
        match self {
            Self::Folder(folder) => Some(folder.files().folder(name)),
            Self::DummySdxl => None,
        }
    }

    /// Whether an absent negative prompt means zeros, not the encoded empty prompt.
    pub fn zeros_for_absent_negative(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.index.force_zeros_for_empty_prompt,
            Self::DummySdxl => true,
        }
    }
}

/// One part of [`SDXL`].
fn sdxl<T: DeserializeOwned>(part: &str) -> Result<T> {
    let damaged = |error: serde_json::Error| Error::internal(format!("models/sdxl.json: {error}"));
    let mut parts: serde_json::Value = serde_json::from_str(SDXL).map_err(damaged)?;
    serde_json::from_value(parts[part].take()).map_err(damaged)
}
