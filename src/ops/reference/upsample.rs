//! Enlarging pictures.

use crate::error::Result;
use candle_core::Tensor;

/// Enlarges `[B, H, W, C]` to `[B, height, width, C]` by repeating the nearest pixel, as torch's `nearest` does.
pub fn nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, from_h, from_w, _) = x.dims4()?;
    let x = stretch(x, 1, (from_h, height))?;
    stretch(&x, 2, (from_w, width))
}

fn stretch(x: &Tensor, axis: usize, (from, to): (usize, usize)) -> Result<Tensor> {
    if from == to {
        return Ok(x.clone());
    }
    let sources: Vec<u32> = (0..to).map(|target| (target * from / to) as u32).collect();
    let sources = Tensor::from_vec(sources, to, x.device())?;
    Ok(x.contiguous()?.index_select(&sources, axis)?)
}
