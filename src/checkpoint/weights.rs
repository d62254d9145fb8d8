//! Tensors by name: memory-mapped from safetensors files, or random for benchmarks.

use super::dummy;
use crate::error::{Error, Result};
use candle_core::safetensors::{Load, MmapedSafetensors};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::path::{Path, PathBuf};

/// The tensors of one part of a model.
pub struct Weights {
    source: Source,
}

enum Source {
    Files { tensors: MmapedSafetensors, shown: String },
    Random,
}

impl Weights {
    /// Maps safetensors files into memory; nothing is read but their headers.
    ///
    /// # Errors
    /// If a file is missing, truncated, or no safetensors file; the message names it.
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        for file in files {
            check_header(file)?;
        }
        // SAFETY: the mapping is sound as long as nobody changes the file while it is mapped, which nobody who
        // serves a model does; every tensor is copied out of it while the model is loaded.
        let tensors = unsafe { MmapedSafetensors::multi(files) }
            .map_err(|error| Error::checkpoint(format!("{}: {error}", shown(files))))?;
        Ok(Self { source: Source::Files { tensors, shown: shown(files) } })
    }

    /// Random weights of whatever shape is asked for, made when they are asked for: for benchmarks.
    pub fn random() -> Self {
        Self { source: Source::Random }
    }

    /// The weights as a tree of tensors of `dtype` on `device`.
    pub fn into_tensors(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }
}

/// The files' names in one phrase.
fn shown(files: &[PathBuf]) -> String {
    match files {
        [one] => one.display().to_string(),
        [first, rest @ ..] => format!("{} and {} more shards", first.display(), rest.len()),
        [] => "no files".into(),
    }
}

/// Tells a truncated file from one that is no safetensors file at all.
fn check_header(path: &Path) -> Result<()> {
    use std::io::Read;
    let wrong = |what: String| Error::checkpoint(format!("{}: {what}", path.display()));
    let mut file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let length = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| wrong(format!("truncated: {length} bytes, not even a header")))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER {
        return Err(wrong("no safetensors file: its first bytes are not a header's length".into()));
    }
    if header + 8 > length {
        return Err(wrong(format!("truncated: the header takes {} bytes, the file has {length}", header + 8)));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(|error| wrong(error.to_string()))?;
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("no safetensors file: {error}")))?;
    let end = |field: &serde_json::Value| field.get("data_offsets")?.get(1)?.as_u64();
    let data = fields.values().filter_map(end).max().unwrap_or(0);
    let whole = header + 8 + data;
    if length < whole {
        return Err(wrong(format!("truncated: its tensors take {whole} bytes, the file has {length}")));
    }
    Ok(())
}

/// The longest header that the safetensors format allows (`MAX_HEADER_SIZE` of the crate).
const MAX_HEADER: u64 = 100_000_000;

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let Source::Files { tensors, shown } = &self.source else {
            return dummy::random(&shape, name, dtype, device);
        };
        let view = tensors.get(name).map_err(|_| refused(format!("{shown}: the tensor '{name}' is missing")))?;
        if view.shape() != shape.dims() {
            return Err(refused(format!(
                "{shown}: the tensor '{name}' has the shape {:?}; the config asks for {:?}",
                view.shape(),
                shape.dims()
            )));
        }
        view.load(&Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        match &self.source {
            Source::Files { tensors, .. } => tensors.load(name, device)?.to_dtype(dtype),
            Source::Random => Err(refused(format!("random weights need a shape for '{name}'"))),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        match &self.source {
            Source::Files { tensors, .. } => tensors.get(name).is_ok(),
            Source::Random => false,
        }
    }
}

/// A checkpoint's fault in candle's clothes, undressed again by `Error::from`.
fn refused(message: String) -> candle_core::Error {
    candle_core::Error::WrappedContext { wrapped: Box::new(Error::checkpoint(message)), context: String::new() }
}
