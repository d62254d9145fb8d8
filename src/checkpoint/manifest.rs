//! `models/manifest.toml`: settings that suit known checkpoints and that no diffusers file holds.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Good settings of a model, where the manifest knows them.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the model is, in a line.
    pub about: String,
    /// Its licence.
    pub license: String,
    /// Native width and height in pixels, as `WIDTHxHEIGHT`.
    #[serde(default)]
    pub size: Option<String>,
    /// The sizes that it draws well, as `SMALLER..LARGER`: sides of the squares that bound the area.
    #[serde(default)]
    pub sizes: Option<String>,
    /// Steps that give a finished picture.
    #[serde(default)]
    pub steps: Option<i64>,
    /// The sampler's name.
    #[serde(default)]
    pub sampler: Option<String>,
    /// The schedule's name.
    #[serde(default)]
    pub schedule: Option<String>,
    /// Guidance.
    #[serde(default)]
    pub guidance: Option<f64>,
}

const MANIFEST: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/manifest.toml"));

impl Settings {
    /// The settings of the model `name`: a hub id, or `sketch`. None where the manifest does not know it.
    ///
    /// # Errors
    /// If the manifest that was compiled in is damaged.
    pub fn of(name: &str) -> Result<Option<Self>> {
        Ok(Self::all()?.remove(name))
    }

    /// All known models by name.
    ///
    /// # Errors
    /// If the manifest that was compiled in is damaged.
    pub fn all() -> Result<BTreeMap<String, Self>> {
        toml::from_str(MANIFEST).map_err(|error| Error::internal(format!("models/manifest.toml: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_knows_the_bundled_model_and_sdxl() {
        let all = Settings::all().expect("the manifest is read");
        assert!(all.contains_key("sketch") && all.contains_key("stabilityai/stable-diffusion-xl-base-1.0"));
    }
}
