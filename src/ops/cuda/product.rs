//! Matrix products through cuBLASLt, with bias and residual added in the same pass.
//!
//! The library offers several algorithms for a product of given sizes; which is the quickest it only guesses. So the
//! first product of each size is timed with each of them, and the best one is kept.

use super::gpu::{Gpu, WORKSPACE, address, empty, empty_of, fault};
use crate::error::{Error, Result};
use candle_core::{D, DType, Tensor};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::{CUevent_flags, CUstreamCaptureStatus};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;

/// Algorithms that are timed.
const TRIED: usize = 8;
/// Timed runs of each.
const RUNS: usize = 3;

/// All that an algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    rows: usize,
    inputs: usize,
    outputs: usize,
    dtype: DType,
    /// The type of the result.
    result: DType,
    biased: bool,
    residual: bool,
    /// Whether all operands start at 16 bytes.
    aligned: bool,
}

/// The library's handle and the algorithms found so far.
pub(super) struct Multiplier {
    handle: sys::cublasLtHandle_t,
    plans: RefCell<HashMap<Key, Rc<Plan>>>,
}

fn refused(error: CublasError) -> Error {
    Error::internal(format!("cuBLASLt: {error}"))
}

/// Where the operands of a product lie.
#[derive(Debug, Clone, Copy)]
struct Operands {
    weight: u64,
    x: u64,
    residual: u64,
    y: u64,
    bias: u64,
}

impl Multiplier {
    /// Opens the library.
    pub fn new() -> Result<Self> {
        Ok(Self { handle: result::create_handle().map_err(refused)?, plans: RefCell::default() })
    }

    /// `x` `[.., inputs]` times `weight` `[outputs, inputs]` transposed, plus `bias` `[outputs]` and `residual`
    /// `[.., outputs]`; all of one type.
    pub fn multiply(
        &self,
        gpu: &Gpu,
        x: &Tensor,
        (weight, bias): (&Tensor, Option<&Tensor>),
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let x = x.contiguous()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = weight.dim(0)?;
        }
        let y = empty(&shape, &x)?;
        self.fill(gpu, &y, [&x, weight], (bias, residual))?;
        Ok(y)
    }

    /// The scores, in f32, of queries `[L, C]` and keys `[S, C]`: `[L, S]`.
    pub fn scores(&self, gpu: &Gpu, queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
        let (queries, keys) = (queries.contiguous()?, keys.contiguous()?);
        let y = empty_of(DType::F32, &[queries.dim(0)?, keys.dim(0)?], &queries)?;
        self.fill(gpu, &y, [&queries, &keys], (None, None))?;
        Ok(y)
    }

    /// Fills `y` with the product of `x` and the transposed `weight`, plus `bias` and `residual`, which may be `y` itself.
    pub fn fill(
        &self,
        gpu: &Gpu,
        y: &Tensor,
        [x, weight]: [&Tensor; 2],
        (bias, residual): (Option<&Tensor>, Option<&Tensor>),
    ) -> Result<()> {
        let (outputs, inputs) = weight.dims2()?;
        if x.dim(D::Minus1)? != inputs || residual.is_some_and(|residual| residual.dims() != y.dims()) {
            return Err(Error::internal(format!("a map of {inputs} inputs was given {:?}", x.dims())));
        }
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let operands = Operands {
            weight: address(weight)?,
            x: address(x)?,
            // Without a residual the result stands in for it, and is multiplied by zero.
            residual: address(residual.as_ref().unwrap_or(y))?,
            y: address(y)?,
            bias: bias.map(address).transpose()?.unwrap_or(0),
        };
        let key = Key {
            rows: x.elem_count() / inputs,
            inputs,
            outputs,
            dtype: x.dtype(),
            result: y.dtype(),
            biased: bias.is_some(),
            residual: residual.is_some(),
            aligned: [operands.weight, operands.x, operands.residual, operands.y, operands.bias]
                .iter()
                .all(|address| address.is_multiple_of(16)),
        };
        let known = self.plans.borrow().get(&key).cloned();
        let plan = match known {
            Some(plan) => plan,
            None => {
                let plan = Rc::new(Plan::new(self.handle, gpu, key, operands)?);
                self.plans.borrow_mut().insert(key, Rc::clone(&plan));
                plan
            }
        };
        plan.run(self.handle, gpu, operands, &plan.algorithm)
    }
}

/// A product's descriptors and its best algorithm. The library counts columns first, so that it sees the transposes:
/// y^T = weight x^T.
struct Plan {
    descriptor: sys::cublasLtMatmulDesc_t,
    weight: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    y: sys::cublasLtMatrixLayout_t,
    residual: bool,
    biased: bool,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: all four were created by `Plan::new` and are used nowhere else.
        unsafe {
            let _ = result::destroy_matmul_desc(self.descriptor);
            for layout in [self.weight, self.x, self.y] {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

/// A type as the library names it.
fn named(dtype: DType) -> Result<sys::cudaDataType_t> {
    match dtype {
        DType::F16 => Ok(sys::cudaDataType_t::CUDA_R_16F),
        DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
        DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
        other => Err(Error::internal(format!("no matrix product in {other:?}"))),
    }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, gpu: &Gpu, key: Key, operands: Operands) -> Result<Self> {
        let layout = |dtype, rows: usize, columns: usize| {
            result::create_matrix_layout(named(dtype)?, rows as u64, columns as u64, rows as i64)
                .map_err(refused)
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let mut plan = Self {
            descriptor: result::create_matmul_desc(compute, sys::cudaDataType_t::CUDA_R_32F)
                .map_err(refused)?,
            weight: layout(key.dtype, key.inputs, key.outputs)?,
            x: layout(key.dtype, key.inputs, key.rows)?,
            y: layout(key.result, key.outputs, key.rows)?,
            residual: key.residual,
            biased: key.biased,
            // SAFETY: plain numbers; overwritten below by what the library suggests.
            algorithm: unsafe { std::mem::zeroed() },
        };
        plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        if key.biased {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let suggested = plan.suggested(handle, key)?;
        plan.algorithm = plan.quickest(handle, gpu, operands, &suggested)?;
        Ok(plan)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &T) -> Result<()> {
        let from = std::ptr::from_ref(value).cast();
        // SAFETY: the library copies `size_of::<T>()` bytes of a value whose type is the attribute's.
        unsafe { result::set_matmul_desc_attribute(self.descriptor, attribute, from, size_of::<T>()) }
            .map_err(refused)
    }

    /// Algorithms that the library thinks quick, best guess first.
    fn suggested(&self, handle: sys::cublasLtHandle_t, key: Key) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let preference = result::create_matmul_pref().map_err(refused)?;
        let alignment = if key.aligned { 16u32 } else { key.dtype.size_in_bytes() as u32 };
        let workspace = WORKSPACE;
        // Parts of a split sum are added in f32, never in the type of the result.
        let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        // SAFETY: the results are plain numbers; the library fills the first `found` of them.
        let mut results: [sys::cublasLtMatmulHeuristicResult_t; TRIED] = unsafe { std::mem::zeroed() };
        let mut found = 0;
        // SAFETY: all handles are live, the attributes have the types that the library states, and `results` holds
        // as many entries as are asked for.
        let status = unsafe {
            let set = |attribute, from: *const c_void, size| {
                result::set_matmul_pref_attribute(preference, attribute, from, size).map_err(refused)
            };
            set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)?;
            set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const schemes).cast(), 4)?;
            for attribute in [
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                set(attribute, (&raw const alignment).cast(), 4)?;
            }
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                self.descriptor,
                self.weight,
                self.x,
                self.y,
                self.y,
                preference,
                TRIED as i32,
                results.as_mut_ptr(),
                &raw mut found,
            );
            let _ = result::destroy_matmul_pref(preference);
            status
        };
        status.result().map_err(refused)?;
        let good = |result: &&sys::cublasLtMatmulHeuristicResult_t| result.state.result().is_ok();
        Ok(results[..found as usize].iter().filter(good).map(|result| result.algo).collect())
    }

    /// The quickest of `algorithms` on these operands; the first where nothing can be timed.
    fn quickest(
        &self,
        handle: sys::cublasLtHandle_t,
        gpu: &Gpu,
        operands: Operands,
        algorithms: &[sys::cublasLtMatmulAlgo_t],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        let first = *algorithms.first().ok_or_else(|| Error::internal("cuBLASLt knows no algorithm"))?;
        let status = gpu.stream.capture_status().map_err(fault)?;
        if algorithms.len() == 1 || status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Ok(first);
        }
        let mut best = (f32::INFINITY, first);
        for algorithm in algorithms {
            if self.run(handle, gpu, operands, algorithm).is_err() {
                continue;
            }
            let event = || gpu.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(fault);
            let began = event()?;
            for _ in 0..RUNS {
                self.run(handle, gpu, operands, algorithm)?;
            }
            let taken = began.elapsed_ms(&event()?).map_err(fault)?;
            if taken < best.0 {
                best = (taken, *algorithm);
            }
        }
        Ok(best.1)
    }

    fn run(
        &self,
        handle: sys::cublasLtHandle_t,
        gpu: &Gpu,
        operands: Operands,
        algorithm: &sys::cublasLtMatmulAlgo_t,
    ) -> Result<()> {
        if self.biased {
            self.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let (alpha, beta) = (1f32, if self.residual { 1f32 } else { 0f32 });
        // SAFETY: the layouts describe the operands, whose tensors live until the stream has passed this product; the
        // workspace is as large as was promised.
        unsafe {
            result::matmul(
                handle,
                self.descriptor,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                operands.weight as *const c_void,
                self.weight,
                operands.x as *const c_void,
                self.x,
                operands.residual as *const c_void,
                self.y,
                operands.y as *mut c_void,
                self.y,
                algorithm,
                gpu.workspace() as *mut c_void,
                WORKSPACE,
                gpu.stream.cu_stream().cast(),
            )
        }
        .map_err(refused)
    }
}
