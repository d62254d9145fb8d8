//! Tensors by name: memory-mapped from safetensors files, or random for benchmarks.

use super::{Files, dummy};
use crate::error::{Error, Result};
use candle_core::safetensors::{Load, MmapedSafetensors, SliceSafetensors};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use safetensors::tensor::TensorView;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The tensors of one part of a model.
pub struct Weights {
    source: Source,
    shown: String,
}

enum Source {
    Mapped(MmapedSafetensors),
    Bundled(SliceSafetensors<'static>),
    Random,
}

impl Weights {
    /// Opens safetensors files of a folder, memory-mapped; nothing is read but their headers.
    ///
    /// # Errors
    /// If a file is missing, truncated, or no safetensors file; the message names it.
    pub fn open(folder: &Files, names: &[String]) -> Result<Self> {
        let shown = shown(folder, names);
        let damaged = |error: candle_core::Error| Error::checkpoint(format!("{shown}: {error}"));
        let source = match folder {
            Files::Disk(path) => {
                let files: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
                files.iter().try_for_each(|file| check_header(file))?;
                // SAFETY: the mapping is sound as long as nobody changes the file while it is mapped, which
                // nobody who serves a model does; tensors are copied out of it while the model is loaded.
                Source::Mapped(unsafe { MmapedSafetensors::multi(&files) }.map_err(damaged)?)
            }
            Files::Bundled(_) => {
                let name = names.first().map_or("", String::as_str);
                match folder.read(name)? {
                    Some(Cow::Borrowed(bytes)) => {
                        Source::Bundled(SliceSafetensors::new(bytes).map_err(damaged)?)
                    }
                    _ => return Err(Error::checkpoint(format!("{shown}: the file is missing"))),
                }
            }
        };
        Ok(Self { source, shown })
    }

    /// Random weights of whatever shape is asked for, made when they are asked for: for benchmarks.
    pub fn random() -> Self {
        Self { source: Source::Random, shown: "random weights".into() }
    }

    /// The weights as a tree of tensors of `dtype` on `device`.
    pub fn into_tensors(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), dtype, device.clone())
    }
}

/// The files' names in one phrase.
fn shown(folder: &Files, names: &[String]) -> String {
    match names {
        [one] => folder.shown(one),
        [first, rest @ ..] => format!("{} and {} more shards", folder.shown(first), rest.len()),
        [] => folder.to_string(),
    }
}

/// Tells a truncated file from one that is no safetensors file at all.
fn check_header(path: &Path) -> Result<()> {
    use std::io::Read;
    let wrong = |what: String| Error::checkpoint(format!("{}: {what}", path.display()));
    let mut file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let length = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix)
        .map_err(|_| wrong(format!("truncated: {length} bytes, not even a header")))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER {
        return Err(wrong("no safetensors file: its first bytes are not a header's length".into()));
    }
    if header + 8 > length {
        return Err(wrong(format!(
            "truncated: the header takes {} bytes, the file has {length}",
            header + 8
        )));
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

impl Weights {
    /// The tensor `name` where it lies in its file; `None` if there is none.
    fn view(&self, name: &str) -> Option<TensorView<'_>> {
        match &self.source {
            Source::Mapped(tensors) => tensors.get(name).ok(),
            Source::Bundled(tensors) => tensors.get(name).ok(),
            Source::Random => None,
        }
    }
}

impl SimpleBackend for Weights {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let shown = &self.shown;
        if let Source::Random = self.source {
            return dummy::random(&shape, name, dtype, device);
        }
        let Some(view) = self.view(name) else {
            return Err(refused(format!("{shown}: the tensor '{name}' is missing")));
        };
        if view.shape() != shape.dims() {
            return Err(refused(format!(
                "{shown}: the tensor '{name}' has the shape {:?}; the config asks for {:?}",
                view.shape(),
                shape.dims()
            )));
        }
        // The device converts: it is quicker at that, and what it is sent comes straight from the file.
        let tensor = view.load(device)?.to_dtype(dtype)?;
        if let Source::Mapped(_) = self.source {
            let_go(view.data());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        Err(refused(format!("{}: the tensor '{name}' is read without its shape", self.shown)))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.view(name).is_some()
    }
}

/// Gives up the memory in which a file's bytes were seen, which are read again where they are looked at again: what was read of
/// a model would else count twice, as the process' and as the file's.
fn let_go(bytes: &[u8]) {
    #[cfg(unix)]
    {
        const PAGE: usize = 4096;
        let from = bytes.as_ptr().addr();
        let (start, end) = (from.next_multiple_of(PAGE), (from + bytes.len()) / PAGE * PAGE);
        if start < end {
            let first = bytes.as_ptr().wrapping_add(start - from);
            // SAFETY: whole pages within a private mapping of a file, which nobody writes to: they stay readable. A larger page of
            // the system makes it refuse, which costs nothing but memory.
            unsafe { libc::madvise(first.cast_mut().cast(), end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// A checkpoint's fault in candle's clothes, undressed again by `Error::from`.
fn refused(message: String) -> candle_core::Error {
    candle_core::Error::WrappedContext {
        wrapped: Box::new(Error::checkpoint(message)),
        context: String::new(),
    }
}
