//! Pixels that come with a request: a picture and a mask.

use super::{Extent, resample};
use crate::error::{Error, Result};
use image::{GrayImage, RgbImage};
use std::sync::Arc;

/// An RGB picture, eight bits a channel, row by row from the top left. Its clones share its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture(Arc<RgbImage>);

impl Picture {
    /// Wraps decoded pixels.
    ///
    /// # Errors
    /// If the picture has no pixels.
    pub fn new(pixels: RgbImage) -> Result<Self> {
        if pixels.width() == 0 || pixels.height() == 0 {
            return Err(Error::image("image", "image has no pixels"));
        }
        Ok(Self(Arc::new(pixels)))
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// The pixels, `width * height * 3` bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_raw()
    }

    /// The pixels as the `image` crate holds them.
    pub fn as_image(&self) -> &RgbImage {
        &self.0
    }

    /// The picture resampled to `extent`; itself where it has that size already.
    #[must_use]
    pub fn fitted(self, extent: impl Into<Extent>) -> Self {
        let extent = extent.into();
        if (self.width(), self.height()) == (extent.width(), extent.height()) {
            return self;
        }
        Self(Arc::new(resample::rgb(&self.0, extent)))
    }
}

/// The part of a picture to draw anew: 255 means draw, 0 means keep. Its clones share its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Arc<GrayImage>);

impl Mask {
    /// Wraps a grey picture whose white is to be drawn anew; values of 128 and more count as white, as in
    /// diffusers' mask processor.
    pub fn new(mut pixels: GrayImage) -> Self {
        for value in pixels.iter_mut() {
            *value = if *value >= 128 { 255 } else { 0 };
        }
        Self(Arc::new(pixels))
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.0.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.0.height()
    }

    /// One byte a pixel, 255 or 0.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_raw()
    }

    /// The mask resampled to `extent` and made two-valued again.
    #[must_use]
    pub fn fitted(self, extent: impl Into<Extent>) -> Self {
        let extent = extent.into();
        if (self.width(), self.height()) == (extent.width(), extent.height()) {
            return self;
        }
        Self::new(resample::grey(&self.0, extent))
    }
}
