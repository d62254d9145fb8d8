//! The tensor operations that decide speed, one struct each.
//!
//! Activations are `[B, H, W, C]` (pictures) or `[B, L, C]` (sequences), contiguous, throughout. A row of the
//! batch is computed by the same sequence of operations however many rows run with it, so that on the CPU a
//! row's result does not depend, to the last bit, on its company.
//!
//! On the CPU the structs hold weights packed for the kernels, in the type they were loaded in, and activations
//! are f32. On an NVIDIA GPU, where the feature `cuda` is built in, they are kernels of ours and of NVIDIA's libraries.
//! Elsewhere, and for sizes that the kernels do not take, they are the plain candle of `reference`, which the kernels are
//! compared with.
//!
//! Every op fails when shapes do not fit or the device fails, and reading one when a tensor is missing or of another
//! shape.

mod activation;
mod attention;
mod bands;
mod bytes;
mod combine;
mod conv2d;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod host;
mod join;
mod linear;
mod linears;
mod memory;
mod norm;
mod normed;
mod product;
mod reference;
mod replay;
mod split;
#[cfg(test)]
mod testing;

pub use activation::{Activation, silu};
pub use attention::{Attention, Mask};
pub use bands::{Bands, View};
pub use bytes::bytes;
pub use combine::combine;
pub use conv2d::{BandConv, Conv2d, ConvShape, Padding};
pub use cpu::isa::Isa;
pub use cpu::peak::peak;
pub use host::{activation_dtype, activations, in_pool, memory_taken, open_gpu};
pub use join::join;
pub use linear::{GatedLinear, Linear};
pub use linears::Linears;
pub use memory::{Allocator, keep_freed, thriftily};
pub use norm::{GroupNorm, LayerNorm};
pub use normed::{NormSource, NormedGated, NormedLinears, Rows};
pub use replay::{Kept, Replay};
pub use split::SplitLinear;
