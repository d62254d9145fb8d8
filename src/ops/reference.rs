//! The ops in plain candle: for devices without kernels of ours, and what the kernels are compared with.

mod activation;
mod attention;
mod conv2d;
mod linear;
mod norm;
mod rows;
mod upsample;

pub use activation::{geglu, gelu, quick_gelu, silu};
pub use attention::attention;
pub use conv2d::Conv2d;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use upsample::nearest;
