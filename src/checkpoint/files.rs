//! Where a checkpoint's files are: in a folder on disk, or compiled into the program.

use super::bundled;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

/// A folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// A folder on disk.
    Disk(PathBuf),
    /// A folder of the bundled model, by its path from the model's root.
    Bundled(String),
}

impl Files {
    /// The root of the bundled model.
    pub fn bundled() -> Self {
        Self::Bundled(String::new())
    }

    /// The folder `name` inside this one.
    #[must_use]
    pub fn folder(&self, name: &str) -> Self {
        match self {
            Self::Disk(path) => Self::Disk(path.join(name)),
            Self::Bundled(prefix) => Self::Bundled(format!("{prefix}{name}/")),
        }
    }

    /// The content of the file `name`; `None` if there is no such file.
    ///
    /// # Errors
    /// If it is there but cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            Self::Bundled(prefix) => Ok(bundled::file(&format!("{prefix}{name}")).map(Cow::Borrowed)),
            Self::Disk(path) => match std::fs::read(path.join(name)) {
                Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::checkpoint(format!("{}: {error}", self.shown(name)))),
            },
        }
    }

    /// The JSON file `name` as a `T`; `None` if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read, is no JSON, or lacks a field; the message names the file and the field.
    pub fn json_if_there<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|error| Error::checkpoint(format!("{}: {error}", self.shown(name))))
    }

    /// The JSON file `name` as a `T`.
    ///
    /// # Errors
    /// As [`Files::json_if_there`], and if there is no such file.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let missing = || Error::checkpoint(format!("{}: the file is missing", self.shown(name)));
        self.json_if_there(name)?.ok_or_else(missing)
    }

    /// Whether the file `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Disk(path) => path.join(name).is_file(),
            Self::Bundled(prefix) => bundled::file(&format!("{prefix}{name}")).is_some(),
        }
    }

    /// The path of the file `name`, for a message.
    pub fn shown(&self, name: &str) -> String {
        match self {
            Self::Disk(path) => path.join(name).display().to_string(),
            Self::Bundled(prefix) => format!("models/sketch/{prefix}{name}"),
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Bundled(prefix) => write!(f, "models/sketch/{prefix}"),
        }
    }
}
