//! Convolutions through cuDNN's graphs: channels last, bias and residual added in the same pass.
//!
//! A plan is made once for each set of sizes and kept. Sums are taken in f32 whatever the pictures are stored in; the
//! library's older interface would take those of f16 in f16.

use super::gpu::{Gpu, WORKSPACE};
use crate::error::{Error, Result};
use candle_core::DType;
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Mode, cudnnDataType_t as Data,
};
use cudarc::driver::CudaStream;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

/// The sizes of a convolution over a batch of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sizes {
    pub batch: usize,
    /// Height and width in.
    pub from: (usize, usize),
    /// Height and width out.
    pub to: (usize, usize),
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before and after each axis.
    pub padding: (usize, usize),
    pub dtype: DType,
    pub added: Added,
}

/// What is added besides the bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Added {
    Nothing,
    /// A picture.
    Residual,
}

/// Where the operands lie: the picture, the weight `[outputs, kernel, kernel, inputs]`, the bias, what is added besides,
/// the result.
pub(super) type Addresses = [u64; 5];

/// The operands' numbers in the library's books, in the order of [`Addresses`].
const IDS: [i64; 5] = [1, 2, 3, 4, 5];

/// The library's handle and the plans made so far.
pub(super) struct Convolver {
    handle: sys::cudnnHandle_t,
    plans: RefCell<HashMap<Sizes, Rc<Plan>>>,
}

impl Convolver {
    /// Opens the library for work on `stream`.
    pub fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        let refused = |error| Error::internal(format!("cuDNN: {error:?}"));
        let handle = cudarc::cudnn::result::create_handle().map_err(refused)?;
        // SAFETY: the stream outlives the handle: both belong to one `Gpu`.
        unsafe { cudarc::cudnn::result::set_stream(handle, stream.cu_stream().cast()) }.map_err(refused)?;
        Ok(Self { handle, plans: RefCell::default() })
    }

    /// Queues a convolution.
    pub fn run(&self, gpu: &Gpu, sizes: Sizes, addresses: Addresses) -> Result<()> {
        let known = self.plans.borrow().get(&sizes).cloned();
        let plan = match known {
            Some(plan) => plan,
            None => {
                let plan = Rc::new(self.plan(sizes)?);
                self.plans.borrow_mut().insert(sizes, Rc::clone(&plan));
                plan
            }
        };
        plan.run(self.handle, gpu, addresses)
    }

    /// The first plan that the library suggests and supports.
    ///
    /// Timing the next two as well made a UNet evaluation no quicker than the spread of its times.
    fn plan(&self, sizes: Sizes) -> Result<Plan> {
        let graph = Graph::new(self.handle, sizes)?;
        for mode in [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK] {
            let mut plans = graph.configs(mode)?.into_iter();
            if let Some(plan) = plans.find_map(|config| Plan::new(self.handle, config, sizes.added).ok()) {
                return Ok(plan);
            }
        }
        Err(Error::internal(format!("cuDNN has no plan for {sizes:?}: {}", last_words())))
    }
}

/// What the library says about its last failure.
fn last_words() -> String {
    let mut text = [0u8; 512];
    // SAFETY: the library writes at most so many bytes, the last of them a zero.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

fn check(status: sys::cudnnStatus_t) -> Result<()> {
    match status {
        sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(()),
        other => Err(Error::internal(format!("cuDNN: {other:?}: {}", last_words()))),
    }
}

/// A thing of the library's, by its descriptor.
struct Descriptor(sys::cudnnBackendDescriptor_t);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by `new`, and destroyed once.
        let _ = unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    fn new(kind: Kind) -> Result<Self> {
        let mut descriptor = std::ptr::null_mut();
        // SAFETY: the library writes the new descriptor into a local.
        check(unsafe { sys::cudnnBackendCreateDescriptor(kind, &raw mut descriptor) })?;
        Ok(Self(descriptor))
    }

    /// Sets an attribute to values that have the type `of`.
    fn with<T>(self, name: Name, of: Type, values: &[T]) -> Result<Self> {
        // SAFETY: the library copies as many values, whose type is the one named.
        check(unsafe {
            sys::cudnnBackendSetAttribute(self.0, name, of, values.len() as i64, values.as_ptr().cast())
        })?;
        Ok(self)
    }

    fn with_numbers(self, name: Name, values: &[i64]) -> Result<Self> {
        self.with(name, Type::CUDNN_TYPE_INT64, values)
    }

    fn with_others(self, name: Name, others: &[&Self]) -> Result<Self> {
        let others: Vec<_> = others.iter().map(|other| other.0).collect();
        self.with(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &others)
    }

    fn finished(self) -> Result<Self> {
        // SAFETY: the descriptor is live.
        check(unsafe { sys::cudnnBackendFinalize(self.0) })?;
        Ok(self)
    }
}

/// The operations of a convolution and what it adds.
struct Graph {
    graph: Descriptor,
    // The library does not say that a graph keeps its parts alive.
    _parts: Vec<Descriptor>,
}

/// Four axes as the library counts them: batch, channels, height, width.
type Axes = [usize; 4];

/// Makes the tensors of a graph.
struct Tensors {
    stored: Data,
    next: i64,
}

impl Tensors {
    /// A tensor in memory, channels last.
    fn stored(&self, id: i64, axes: Axes) -> Result<Descriptor> {
        describe(axes, self.stored, id)?.finished()
    }

    /// A value between two operations, in f32.
    fn between(&mut self, axes: Axes) -> Result<Descriptor> {
        self.next += 1;
        describe(axes, Data::CUDNN_DATA_FLOAT, self.next)?
            .with(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL, Type::CUDNN_TYPE_BOOLEAN, &[true])?
            .finished()
    }
}

fn describe([batch, channels, height, width]: Axes, dtype: Data, id: i64) -> Result<Descriptor> {
    let strides = [height * width * channels, 1, width * channels, channels].map(|stride| stride as i64);
    let axes = [batch, channels, height, width].map(|axis| axis as i64);
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .with(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[dtype])?
        .with_numbers(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &axes)?
        .with_numbers(Name::CUDNN_ATTR_TENSOR_STRIDES, &strides)?
        .with_numbers(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?
        .with_numbers(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16])
}

/// `y = a + b`, the smaller `b` repeated.
fn sum(a: &Descriptor, b: &Descriptor, y: &Descriptor) -> Result<[Descriptor; 2]> {
    let add = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .with(
            Name::CUDNN_ATTR_POINTWISE_MODE,
            Type::CUDNN_TYPE_POINTWISE_MODE,
            &[sys::cudnnPointwiseMode_t::CUDNN_POINTWISE_ADD],
        )?
        .with(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, Type::CUDNN_TYPE_DATA_TYPE, &[Data::CUDNN_DATA_FLOAT])?
        .finished()?;
    let operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .with_others(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[&add])?
        .with_others(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &[a])?
        .with_others(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[b])?
        .with_others(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[y])?
        .finished()?;
    Ok([operation, add])
}

impl Graph {
    fn new(handle: sys::cudnnHandle_t, sizes: Sizes) -> Result<Self> {
        let stored = match sizes.dtype {
            DType::F16 => Data::CUDNN_DATA_HALF,
            DType::BF16 => Data::CUDNN_DATA_BFLOAT16,
            other => return Err(Error::internal(format!("no convolution in {other:?}"))),
        };
        let mut tensors = Tensors { stored, next: 100 };
        let Sizes { batch, from, to, inputs, outputs, kernel, .. } = sizes;
        let picture = [batch, outputs, to.0, to.1];
        let x = tensors.stored(IDS[0], [batch, inputs, from.0, from.1])?;
        let weight = tensors.stored(IDS[1], [outputs, inputs, kernel, kernel])?;
        let bias = tensors.stored(IDS[2], [1, outputs, 1, 1])?;
        let y = tensors.stored(IDS[4], picture)?;
        let product = tensors.between(picture)?;
        let [convolution, convolve] = convolution(sizes, [&x, &weight, &product])?;
        let mut parts = vec![convolve];
        let mut operations = vec![convolution];
        let added = match sizes.added {
            Added::Nothing => None,
            Added::Residual => Some(tensors.stored(IDS[3], picture)?),
        };
        if let Some(added) = added {
            // In this order the library has kernels at hand; for bias before picture it compiles them, which takes a
            // quarter of a second for each set of sizes.
            let summed = tensors.between(picture)?;
            let sums = [sum(&product, &added, &summed)?, sum(&summed, &bias, &y)?];
            for [operation, add] in sums {
                operations.push(operation);
                parts.push(add);
            }
            parts.extend([added, summed]);
        } else {
            let [operation, add] = sum(&product, &bias, &y)?;
            operations.push(operation);
            parts.push(add);
        }
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .with(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?
            .with_others(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &operations.iter().collect::<Vec<_>>())?
            .finished()?;
        parts.extend(operations);
        parts.extend([x, weight, bias, y, product]);
        Ok(Self { graph, _parts: parts })
    }

    /// Ways to run the graph that the library suggests, best guess first.
    fn configs(&self, mode: Mode) -> Result<Vec<Descriptor>> {
        let guess = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .with_others(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&self.graph])?
            .with(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode])?
            .finished()?;
        const MOST: usize = 16;
        let configs = (0..MOST)
            .map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
            .collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = configs.iter().map(|config| config.0).collect();
        let mut found = 0;
        // SAFETY: the library fills at most as many of the descriptors as there are.
        check(unsafe {
            sys::cudnnBackendGetAttribute(
                guess.0,
                Name::CUDNN_ATTR_ENGINEHEUR_RESULTS,
                Type::CUDNN_TYPE_BACKEND_DESCRIPTOR,
                MOST as i64,
                &raw mut found,
                raw.as_mut_ptr().cast(),
            )
        })?;
        Ok(configs.into_iter().take(found as usize).collect())
    }
}

fn convolution(sizes: Sizes, [x, weight, y]: [&Descriptor; 3]) -> Result<[Descriptor; 2]> {
    let twice = |value: usize| [value as i64; 2];
    let convolve = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .with(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[Data::CUDNN_DATA_FLOAT])?
        .with(
            Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            Type::CUDNN_TYPE_CONVOLUTION_MODE,
            &[sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
        )?
        .with_numbers(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?
        .with_numbers(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &twice(1))?
        .with_numbers(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &twice(sizes.stride))?
        .with_numbers(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &twice(sizes.padding.0))?
        .with_numbers(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &twice(sizes.padding.1))?
        .finished()?;
    let operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
        .with_others(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, &[&convolve])?
        .with_others(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, &[x])?
        .with_others(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, &[weight])?
        .with_others(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, &[y])?
        .with(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, Type::CUDNN_TYPE_FLOAT, &[1f32])?
        .with(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, Type::CUDNN_TYPE_FLOAT, &[0f32])?
        .finished()?;
    Ok([operation, convolve])
}

/// A compiled way to run a graph.
struct Plan {
    plan: Descriptor,
    _config: Descriptor,
    added: Added,
}

impl Plan {
    fn new(handle: sys::cudnnHandle_t, config: Descriptor, added: Added) -> Result<Self> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .with(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[handle])?
            .with_others(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[&config])?
            .finished()?;
        let (mut workspace, mut found) = (0i64, 0);
        // SAFETY: the library writes one number into a local.
        check(unsafe {
            sys::cudnnBackendGetAttribute(
                plan.0,
                Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                Type::CUDNN_TYPE_INT64,
                1,
                &raw mut found,
                (&raw mut workspace).cast(),
            )
        })?;
        if workspace > WORKSPACE as i64 {
            return Err(Error::internal(format!("a plan asks for {workspace} bytes of workspace")));
        }
        Ok(Self { plan, _config: config, added })
    }

    fn run(&self, handle: sys::cudnnHandle_t, gpu: &Gpu, addresses: Addresses) -> Result<()> {
        let used: &[usize] = if self.added == Added::Nothing { &[0, 1, 2, 4] } else { &[0, 1, 2, 3, 4] };
        let ids: Vec<i64> = used.iter().map(|index| IDS[*index]).collect();
        let places: Vec<*mut c_void> = used.iter().map(|index| addresses[*index] as *mut c_void).collect();
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .with_numbers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
            .with(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &places)?
            .with(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[gpu.workspace()])?
            .finished()?;
        // SAFETY: the pack names every tensor of the graph, each as large as its description and alive until the
        // stream has passed this work; the workspace is at least as large as the plan asks for.
        check(unsafe { sys::cudnnBackendExecute(handle, self.plan.0, pack.0) })
    }
}
