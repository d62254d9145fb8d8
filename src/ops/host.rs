//! Between tensors in the processor's memory and the slices that kernels work on.

use super::cpu::weight::{Order, Stored, Weight};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use std::ops::Deref;

/// Whether a tensor lies where the kernels reach it.
pub(super) fn holds(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu)
}

/// Does `work` with `x` on one of the threads that kernels share their tasks out to, if `x` lies where they reach it. On any
/// other thread each kernel would hand its tasks over and wait for word, while those threads look for tasks from one kernel to
/// the next, at the cost of the processor's time.
pub fn in_pool<R: Send>(x: &Tensor, work: impl FnOnce() -> R + Send) -> R {
    if holds(x) { rayon::scope(|_| work()) } else { work() }
}

/// Opens GPU `ordinal` for the kernels.
///
/// # Errors
/// If there is no such GPU, or this build has no kernels for it.
pub fn open_gpu(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    return super::cuda::open(ordinal);
    #[cfg(not(feature = "cuda"))]
    Err(Error::config(format!("this build has no CUDA: cuda:{ordinal} needs one with the feature cuda")))
}

/// Bytes of a GPU's memory that are taken, by whomever; none for a device that is no GPU. Freed memory is kept for
/// reuse, so that this is also the most that was ever taken.
pub fn memory_taken(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if let Ok(device) = device.as_cuda_device() {
        let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
        return Some((total - free) as u64);
    }
    let _ = device;
    None
}

/// The type that activations travel in: f32 on the CPU, whatever the weights are stored in; elsewhere as the weights.
pub fn activation_dtype(device: &Device, weights: DType) -> DType {
    if device.is_cpu() { DType::F32 } else { weights }
}

/// `x`, stored like the weights, in the type that activations travel in.
pub fn activations(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(activation_dtype(x.device(), x.dtype()))?)
}

/// `x` as one run of f32.
pub(super) fn plain(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F32)?.contiguous()?)
}

/// A tensor's memory, held open by `G` for as long as it is read.
pub(super) struct Numbers<G> {
    storage: G,
    start: usize,
    count: usize,
}

/// Opens what [`plain`] made.
pub(super) fn read(x: &Tensor) -> Numbers<impl Deref<Target = Storage>> {
    let (storage, layout) = x.storage_and_layout();
    Numbers { storage, start: layout.start_offset(), count: x.elem_count() }
}

impl<G: Deref<Target = Storage>> Numbers<G> {
    /// The numbers, in the order of the tensor's axes.
    pub fn slice(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => Ok(&values[self.start..self.start + self.count]),
            _ => Err(Error::internal("a kernel was given a tensor of another type or device")),
        }
    }
}

/// A tensor of `shape` made of a kernel's result.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// Packs a weight in the type it has, or in f32 where there are no kernels for that.
pub(super) fn pack(weight: &Tensor, order: Order) -> Result<Weight> {
    let weight = match weight.dtype() {
        DType::BF16 | DType::F16 => weight.contiguous()?,
        _ => plain(weight)?,
    };
    let (storage, layout) = weight.storage_and_layout();
    let range = layout.start_offset()..layout.start_offset() + weight.elem_count();
    let stored = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Stored::F32(&values[range]),
        Storage::Cpu(CpuStorage::BF16(values)) => Stored::Bf16(&values[range]),
        Storage::Cpu(CpuStorage::F16(values)) => Stored::F16(&values[range]),
        _ => return Err(Error::internal("weights are packed on the CPU alone")),
    };
    Ok(Weight::pack(stored, order))
}

/// The numbers of a vector of weights.
pub(super) fn vector(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_dtype(DType::F32)?.to_vec1()?)
}
