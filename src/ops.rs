//! The tensor operations that decide speed, one struct each.
//!
//! Activations are `[B, H, W, C]` (pictures) or `[B, L, C]` (sequences), contiguous, throughout. A row of the
//! batch is computed by the same sequence of operations however many rows run with it, so that on the CPU a
//! row's result does not depend, to the last bit, on its company.
//!
//! Every op fails when shapes do not fit or the device fails, and reading one when a tensor is missing or of another
//! shape.
//!
//! What stands here is plain candle: the reference that faster kernels are compared with.

mod activation;
mod attention;
mod conv2d;
mod linear;
mod norm;
mod rows;
mod upsample;

pub use activation::{Activation, geglu, silu};
pub use attention::{Mask, attention};
pub use conv2d::{Conv2d, ConvShape, Padding};
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use upsample::nearest;
