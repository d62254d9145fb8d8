//! Channels side by side: what a UNet's way up makes of its own picture and of the one left for it on the way down.

use crate::error::Result;
use candle_core::{D, Tensor};

/// The channels of `a` `[.., A]` before those of `b` `[.., B]`: `[.., A + B]`.
pub fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() && super::cuda::pointwise::takes_join(a, b)? {
        return super::cuda::pointwise::join(a, b);
    }
    Ok(Tensor::cat(&[a, b], D::Minus1)?)
}
