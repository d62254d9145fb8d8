//! Kernels for NVIDIA GPUs: cuBLASLt for linear maps, cuDNN's graphs for convolutions, ours for the rest; on Hopper ours for
//! large linear maps and convolutions too.
//!
//! Activations are f16, bf16 or f32 and every sum is taken in f32. All work of a device goes through one stream, so
//! memory that is dropped while work on it is queued is freed after that work.

pub(super) mod attention;
mod boxes;
pub(super) mod conv2d;
mod dnn;
mod gpu;
pub(super) mod linear;
mod map;
pub(super) mod norm;
pub(super) mod pointwise;
mod product;
pub(super) mod replay;
#[cfg(test)]
mod tests;
mod tiles;

pub use gpu::open;
