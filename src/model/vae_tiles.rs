//! Decoding in overlapping tiles (`AutoencoderKL.tiled_decode` of diffusers: same tiles, same linear blend).

use super::config::VaeConfig;
use crate::error::Result;
use candle_core::{Device, Tensor};

/// The share of a tile that overlaps the next one.
const OVERLAP: f64 = 0.25;

/// Latents of a tile's side below which tiles say too little of the picture to be worth decoding.
const SMALLEST: usize = 32;

/// Where tiles lie and how wide their seams are.
#[derive(Debug, Clone, Copy)]
pub struct Tiling {
    /// Side of a tile in latents.
    tile: usize,
    /// Side of a tile in pixels.
    pixels: usize,
}

impl Tiling {
    /// Tiles of the size that the VAE was trained on.
    pub(super) fn of(config: &VaeConfig) -> Self {
        Self { tile: (config.sample_size / config.factor()).max(1), pixels: config.sample_size }
    }

    /// Whether a picture of `height` by `width` latents has more pixels than one tile.
    pub fn is_wanted(&self, height: usize, width: usize) -> bool {
        height * width > self.tile * self.tile
    }

    /// Tiles of half the side; none where they would be too small.
    pub fn halved(self) -> Option<Self> {
        (self.tile >= 2 * SMALLEST).then_some(Self { tile: self.tile / 2, pixels: self.pixels / 2 })
    }

    /// Decodes `[B, h, w, C]` tile by tile.
    pub(super) fn decode(
        &self,
        latents: &Tensor,
        decode: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (_, height, width, _) = latents.dims4()?;
        let stride = (self.tile as f64 * (1.0 - OVERLAP)) as usize;
        let seam = (self.pixels as f64 * OVERLAP) as usize;
        let kept = self.pixels - seam;
        let mut above: Vec<Tensor> = Vec::new();
        let mut bands = Vec::new();
        for top in (0..height).step_by(stride) {
            let mut row: Vec<Tensor> = Vec::new();
            let mut band = Vec::new();
            for (column, left) in (0..width).step_by(stride).enumerate() {
                let tile = latents.narrow(1, top, self.tile.min(height - top))?.narrow(
                    2,
                    left,
                    self.tile.min(width - left),
                )?;
                let mut tile = decode(&tile.contiguous()?)?;
                // Unlike the tile to the left, the one above is blended in as it was decoded and blended itself.
                if let Some(above) = above.get(column) {
                    tile = blend(above, &tile, 1, seam)?;
                }
                if let Some(left) = row.last() {
                    tile = blend(left, &tile, 2, seam)?;
                }
                band.push(cropped(&tile, kept)?);
                row.push(tile);
            }
            bands.push(Tensor::cat(&band, 2)?);
            above = row;
        }
        Ok(Tensor::cat(&bands, 1)?)
    }
}

/// At most `kept` pixels from the top left of `[B, H, W, C]`.
fn cropped(tile: &Tensor, kept: usize) -> Result<Tensor> {
    let (_, height, width, _) = tile.dims4()?;
    Ok(tile.narrow(1, 0, kept.min(height))?.narrow(2, 0, kept.min(width))?.contiguous()?)
}

/// `next` with its first `seam` pixels along `axis` faded in from the last ones of `before`.
fn blend(before: &Tensor, next: &Tensor, axis: usize, seam: usize) -> Result<Tensor> {
    let (ends, starts) = (before.dim(axis)?, next.dim(axis)?);
    let seam = seam.min(ends).min(starts);
    let weights: Vec<f32> = (0..seam).map(|i| i as f32 / seam as f32).collect();
    let shape = if axis == 1 { (1, seam, 1, 1) } else { (1, 1, seam, 1) };
    let fade =
        Tensor::from_vec(weights, shape, &Device::Cpu)?.to_device(next.device())?.to_dtype(next.dtype())?;
    let old = before.narrow(axis, ends - seam, seam)?.broadcast_mul(&(1.0 - &fade)?)?;
    let new = next.narrow(axis, 0, seam)?.broadcast_mul(&fade)?;
    let rest = next.narrow(axis, seam, starts - seam)?;
    Ok(Tensor::cat(&[&(old + new)?, &rest], axis)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_halved_until_they_say_too_little() {
        let tiling = Tiling { tile: 128, pixels: 1024 };
        let sides = std::iter::successors(Some(tiling), |tiling| tiling.halved());
        let sides: Vec<(usize, usize)> = sides.map(|Tiling { tile, pixels }| (tile, pixels)).collect();
        assert_eq!(sides, [(128, 1024), (64, 512), (32, 256)]);
    }
}
