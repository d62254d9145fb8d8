//! What all work on one GPU shares: its stream, our kernels, the libraries' handles, and plans made before.

use super::attention::Spread;
use super::dnn::Convolver;
use super::map::Map;
use super::pointwise::Sums;
use super::product::Multiplier;
use super::replay::Recordings;
use super::tiles::{Besides, Job};
use crate::error::{Error, Result};
use candle_core::cuda_backend::{CudaStorageSlice, DeviceId};
use candle_core::{CudaDevice, DType, Device, Storage, Tensor};
use cudarc::driver::sys::{
    self, CUdevice_attribute, CUmemPool_attribute, cuDeviceGetDefaultMemPool, cuDeviceGraphMemTrim,
    cuMemPoolSetAttribute, cuMemPoolTrimTo,
};
use cudarc::driver::{CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError};
use cudarc::nvrtc::Ptx;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Bytes that a library's algorithm may use at most beside its operands; what NVIDIA advises for Hopper, doubled.
pub(super) const WORKSPACE: usize = 64 << 20;

/// A source of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Attention,
    Norm,
    Pointwise,
    Product,
}

impl Source {
    fn compiled(self) -> &'static [u8] {
        match self {
            Self::Attention => include_bytes!(concat!(env!("OUT_DIR"), "/attention.fatbin")),
            Self::Norm => include_bytes!(concat!(env!("OUT_DIR"), "/norm.fatbin")),
            Self::Pointwise => include_bytes!(concat!(env!("OUT_DIR"), "/pointwise.fatbin")),
            Self::Product => include_bytes!(concat!(env!("OUT_DIR"), "/product.fatbin")),
        }
    }
}

/// One of our kernels: its source, its name, and the type that its name ends with.
pub(super) type Kernel = (Source, &'static str, Option<DType>);

/// The threads of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads {
    /// Blocks.
    pub grid: (usize, usize, usize),
    /// Threads of a block.
    pub block: (usize, usize),
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

impl Threads {
    /// At least `count` threads in a row.
    pub fn line(count: usize) -> Self {
        Self { grid: (count.div_ceil(256), 1, 1), block: (256, 1), shared: 0 }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Map(Map),
    Sums(Box<Sums>),
    Job(Job),
    Besides(Besides),
    Spread(Spread),
}

impl Arg {
    /// Where its value lies.
    fn value(&self) -> *mut c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Map(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Sums(value) => std::ptr::from_ref(&**value).cast_mut().cast(),
            Self::Job(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Besides(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Spread(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

// SAFETY: plain numbers in the order that the kernel declares.
unsafe impl DeviceRepr for Sums {}

impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).expect("sizes of tensors fit in 31 bits"))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// A GPU, as one thread uses it.
pub(super) struct Gpu {
    /// The stream that all work goes through.
    pub stream: Arc<CudaStream>,
    /// Linear maps.
    pub multiplier: Multiplier,
    /// Convolutions.
    pub convolver: Convolver,
    /// Work recorded before.
    pub recordings: Recordings,
    /// Whether it has Hopper's own instructions.
    pub hopper: bool,
    /// Its multiprocessors.
    pub processors: usize,
    modules: RefCell<HashMap<Source, Arc<CudaModule>>>,
    functions: RefCell<HashMap<Kernel, CudaFunction>>,
    workspace: CudaSlice<u8>,
}

thread_local! {
    // The libraries' handles belong to a thread, and ops are loaded and run without a word about their device. They are
    // never closed: a thread that works on a GPU ends with the process, when the libraries may be gone already.
    static GPUS: RefCell<HashMap<DeviceId, &'static Gpu>> = RefCell::new(HashMap::new());
}

/// Opens GPU `ordinal`.
///
/// # Errors
/// If there is no such GPU, or no driver.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: nothing here uses a second stream, so that the order of one stream is all the order there is.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(&cuda.cuda_stream())?;
    Ok(device)
}

/// Lets the driver's pool keep what is freed: by default it gives memory back at every synchronisation.
fn keep_freed_memory(stream: &CudaStream) -> Result<()> {
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the context is that of the stream; both calls write to or read from locals of the types they state.
    unsafe {
        cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device()).result().map_err(fault)?;
        cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().map_err(fault)
    }
}

/// Gives back what neither tensors nor recordings hold.
fn give_back(stream: &CudaStream) -> Result<()> {
    stream.synchronize().map_err(fault)?;
    let (mut pool, device) = (std::ptr::null_mut(), stream.context().cu_device());
    // SAFETY: the context is that of the stream, and the first call writes the pool into a local.
    unsafe {
        cuDeviceGetDefaultMemPool(&raw mut pool, device).result().map_err(fault)?;
        cuMemPoolTrimTo(pool, 0).result().map_err(fault)?;
        cuDeviceGraphMemTrim(device).result().map_err(fault)
    }
}

/// A driver's error as ours.
pub(super) fn fault(error: DriverError) -> Error {
    Error::of_device(error.to_string())
}

impl Gpu {
    /// The GPU that holds `x`.
    pub fn of(x: &Tensor) -> Result<&'static Self> {
        let device = x.device().as_cuda_device()?;
        GPUS.with_borrow_mut(|gpus| {
            if let Some(gpu) = gpus.get(&device.id()) {
                return Ok(*gpu);
            }
            let gpu: &'static Self = Box::leak(Box::new(Self::new(device)?));
            gpus.insert(device.id(), gpu);
            Ok(gpu)
        })
    }

    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let count = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let processors = stream.context().attribute(count).map_err(fault)? as usize;
        // SAFETY: a workspace is written before it is read.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(fault)?;
        Ok(Self {
            multiplier: Multiplier::new()?,
            convolver: Convolver::new(&stream)?,
            recordings: Recordings::default(),
            hopper: stream.context().compute_capability().map_err(fault)? == (9, 0),
            processors,
            modules: RefCell::default(),
            functions: RefCell::default(),
            workspace,
            stream,
        })
    }

    /// Where the workspace lies; it is [`WORKSPACE`] bytes long and belongs to whoever is queued next.
    pub fn workspace(&self) -> u64 {
        self.workspace.device_ptr(&self.stream).0
    }

    /// Gives back the memory that the pools keep for nobody.
    pub fn release_memory(&self) -> Result<()> {
        give_back(&self.stream)
    }

    /// Queues one of our kernels.
    pub fn launch(&self, kernel: Kernel, threads: Threads, args: &[Arg]) -> Result<()> {
        self.start(kernel, threads, args, &mut [])
    }

    /// Queues one of our kernels that itself waits for the one ahead, so that it may begin, on Hopper, while that one ends.
    pub fn launch_early(&self, kernel: Kernel, threads: Threads, args: &[Arg]) -> Result<()> {
        if !self.hopper {
            return self.launch(kernel, threads, args);
        }
        self.start(kernel, threads, args, &mut [early()])
    }

    /// As [`Gpu::launch_early`] on Hopper, for a kernel whose blocks work together in twos.
    pub fn launch_pairs(&self, kernel: Kernel, threads: Threads, args: &[Arg]) -> Result<()> {
        self.start(kernel, threads, args, &mut [early(), pairs()])
    }

    fn start(
        &self,
        kernel: Kernel,
        threads: Threads,
        args: &[Arg],
        attributes: &mut [sys::CUlaunchAttribute],
    ) -> Result<()> {
        let function = self.function(kernel, threads.shared)?;
        let mut values: Vec<*mut c_void> = args.iter().map(Arg::value).collect();
        let config = sys::CUlaunchConfig {
            gridDimX: threads.grid.0 as u32,
            gridDimY: threads.grid.1 as u32,
            gridDimZ: threads.grid.2 as u32,
            blockDimX: threads.block.0 as u32,
            blockDimY: threads.block.1 as u32,
            blockDimZ: 1,
            sharedMemBytes: threads.shared as u32,
            hStream: self.stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        self.stream.context().bind_to_thread().map_err(fault)?;
        // SAFETY: callers pass what the kernel declares, addresses of tensors that are large enough for its sizes, and
        // the stream's order keeps these tensors until the kernel has run. Each kernel is tested against the reference.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                values.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
        .result()
        .map_err(fault)
    }

    fn function(&self, kernel: Kernel, shared: usize) -> Result<CudaFunction> {
        if let Some(function) = self.functions.borrow().get(&kernel) {
            return Ok(function.clone());
        }
        let (source, name, dtype) = kernel;
        let module = self.module(source)?;
        let name = dtype.map_or_else(|| name.to_owned(), |dtype| format!("{name}_{}", dtype.as_str()));
        let function = module.load_function(&name).map_err(fault)?;
        if shared > STATIC_LIMIT {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared as i32).map_err(fault)?;
        }
        self.functions.borrow_mut().insert(kernel, function.clone());
        Ok(function)
    }

    fn module(&self, source: Source) -> Result<Arc<CudaModule>> {
        if let Some(module) = self.modules.borrow().get(&source) {
            return Ok(Arc::clone(module));
        }
        let module =
            self.stream.context().load_module(Ptx::from_binary(source.compiled().to_vec())).map_err(fault)?;
        self.modules.borrow_mut().insert(source, Arc::clone(&module));
        Ok(module)
    }
}

fn attribute(
    id: sys::CUlaunchAttributeID,
    set: impl FnOnce(&mut sys::CUlaunchAttributeValue),
) -> sys::CUlaunchAttribute {
    // SAFETY: plain numbers and unions of such.
    let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = id;
    set(&mut attribute.value);
    attribute
}

/// A launch that may begin while the kernel ahead of it ends.
fn early() -> sys::CUlaunchAttribute {
    attribute(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, |value| {
        value.programmaticStreamSerializationAllowed = 1;
    })
}

/// A launch by clusters of two blocks.
fn pairs() -> sys::CUlaunchAttribute {
    attribute(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, |value| {
        value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: 2, y: 1, z: 1 };
    })
}

/// The dynamic shared memory that a block gets unasked.
const STATIC_LIMIT: usize = 48 << 10;

/// Where a tensor's first number lies.
pub(super) fn address(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::internal("a CUDA kernel was given a tensor of another device"));
    };
    let stream = storage.device.cuda_stream();
    let start = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U8(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I64(slice) => slice.device_ptr(&stream).0,
        _ => return Err(Error::internal("a CUDA kernel was given a tensor of another type")),
    };
    Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
}

/// [`address`] as an argument.
pub(super) fn at(x: &Tensor) -> Result<Arg> {
    Ok(Arg::Address(address(x)?))
}

/// A tensor for a kernel to fill, of the type and on the device of `like`.
pub(super) fn empty(shape: &[usize], like: &Tensor) -> Result<Tensor> {
    empty_of(like.dtype(), shape, like)
}

/// A tensor for a kernel to fill, on the device of `like`.
pub(super) fn empty_of(dtype: DType, shape: &[usize], like: &Tensor) -> Result<Tensor> {
    // SAFETY: the kernel that it is made for writes every number before any other work reads it.
    Ok(unsafe { Tensor::empty(shape, dtype, like.device()) }?)
}
