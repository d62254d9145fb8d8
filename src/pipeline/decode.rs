//! Between pixels and latents.

use super::{Job, Pipeline};
use crate::error::{Error, ErrorKind, Result};
use crate::model::vae::{Posterior, Tiling};
use crate::model::{activation_dtype, bytes};
use crate::request::{Mask, Picture};
use candle_core::{DType, Tensor};
use image::RgbImage;

impl Pipeline {
    /// The picture of a finished job.
    ///
    /// # Errors
    /// If the device fails.
    pub fn decode(&self, job: &Job) -> Result<Picture> {
        self.decode_latents(&job.base)
    }

    /// The picture that a job is heading for, as its newest evaluation sees it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn preview(&self, job: &Job) -> Result<Picture> {
        self.decode_latents(job.denoised.as_ref().unwrap_or(&job.base))
    }

    /// The latents of a job as they stand, `[1, h, w, 4]` in f32: for comparing with other programs.
    pub fn latents<'a>(&self, job: &'a Job) -> &'a Tensor {
        &job.base
    }

    fn decode_latents(&self, latents: &Tensor) -> Result<Picture> {
        let latents = self.unscaled(latents)?.to_dtype(activation_dtype(&self.device, self.vae_dtype))?;
        let (_, height, width, _) = latents.dims4()?;
        let own = self.vae.tiling();
        let mut tiling = (own.is_wanted(height, width) && height * width > WHOLE_AT_MOST).then_some(own);
        loop {
            let error = match self.decode_once(&latents, tiling) {
                Err(error) if *error.kind() == ErrorKind::DeviceMemory => error,
                decoded => return decoded,
            };
            tiling = Some(tiling.unwrap_or(own).halved().ok_or_else(|| error.clone())?);
            tracing::warn!(%error, "a picture did not fit into memory; decoding smaller tiles");
        }
    }

    /// The picture of the VAE's latents, whole or in tiles.
    fn decode_once(&self, latents: &Tensor, tiling: Option<Tiling>) -> Result<Picture> {
        let decoded = match tiling {
            Some(tiling) => self.vae.decode_tiled(latents, tiling)?,
            None => self.vae.decode(latents)?,
        };
        to_picture(&decoded)
    }

    /// What a picture `[1, H, W, 3]` in -1..=1 may be as latents, in f32.
    pub(super) fn encode(&self, pixels: &Tensor) -> Result<Posterior> {
        let pixels = pixels.to_dtype(activation_dtype(&self.device, self.vae_dtype))?;
        let Posterior { mean, logvar } = self.vae.encode(&pixels)?;
        Ok(Posterior { mean: mean.to_dtype(DType::F32)?, logvar: logvar.to_dtype(DType::F32)? })
    }

    /// The pixels of a picture as -1..=1, `[1, H, W, 3]`.
    pub(super) fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let values: Vec<f32> = picture.as_bytes().iter().map(|byte| f32::from(*byte) / 127.5 - 1.0).collect();
        let shape = (1, picture.height() as usize, picture.width() as usize, 3);
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }

    /// A mask as 0 and 1, `[1, H, W, 1]`.
    pub(super) fn mask_pixels(&self, mask: &Mask) -> Result<Tensor> {
        let values: Vec<f32> = mask.as_bytes().iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let shape = (1, mask.height() as usize, mask.width() as usize, 1);
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }

    /// A mask as 0 and 1 for each latent, `[1, h, w, 1]`: that of its top left pixel, as torch's nearest
    /// interpolation takes it.
    pub(super) fn mask_latents(&self, mask: &Mask) -> Result<Tensor> {
        let factor = self.vae_config.factor();
        let (width, height) = (mask.width() as usize, mask.height() as usize);
        let rows = mask.as_bytes().chunks_exact(width).step_by(factor).take(height / factor);
        let values: Vec<f32> = rows
            .flat_map(|row| row.iter().step_by(factor).take(width / factor))
            .map(|byte| f32::from(*byte) / 255.0)
            .collect();
        Ok(Tensor::from_vec(values, (1, height / factor, width / factor, 1), &self.device)?)
    }

    /// Latents of the VAE as the UNet knows them.
    pub(super) fn scaled(&self, latents: &Tensor) -> Result<Tensor> {
        let (mean, spread) = self.latent_statistics()?;
        Ok((latents.broadcast_sub(&mean)?.broadcast_div(&spread)? * self.vae_config.scaling_factor)?)
    }

    /// Latents of the UNet as the VAE knows them.
    fn unscaled(&self, latents: &Tensor) -> Result<Tensor> {
        let (mean, spread) = self.latent_statistics()?;
        Ok((latents / self.vae_config.scaling_factor)?.broadcast_mul(&spread)?.broadcast_add(&mean)?)
    }

    /// Mean and spread of each latent channel; 0 and 1 where the VAE has none.
    fn latent_statistics(&self) -> Result<(Tensor, Tensor)> {
        let channels = self.vae_config.latent_channels;
        let tensor = |values: &Option<Vec<f64>>, otherwise: f32| -> Result<Tensor> {
            let values = match values {
                Some(values) => values.iter().map(|value| *value as f32).collect(),
                None => vec![otherwise; channels],
            };
            Ok(Tensor::from_vec(values, channels, &self.device)?)
        };
        Ok((tensor(&self.vae_config.latents_mean, 0.0)?, tensor(&self.vae_config.latents_std, 1.0)?))
    }
}

/// The most latents that are decoded as one, whatever the tile: a picture of 1024x1024 pixels.
const WHOLE_AT_MOST: usize = 128 * 128;

/// The picture of pixels `[1, H, W, 3]` in -1..=1.
fn to_picture(pixels: &Tensor) -> Result<Picture> {
    let (_, height, width, _) = pixels.dims4()?;
    let pixels = RgbImage::from_raw(width as u32, height as u32, bytes(pixels)?)
        .ok_or_else(|| Error::internal("a decoded picture has three channels"))?;
    Picture::new(pixels)
}
