//! A whole request, image by image, with a callback after each step.

use super::{Job, Pipeline};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{GenerateRequest, Picture};
use std::ops::ControlFlow;

/// How far a request has come.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The image being drawn, from 0.
    pub image: u32,
    /// Images in all.
    pub images: u32,
    /// Steps of this image that are done.
    pub step: usize,
    /// Steps of this image in all.
    pub steps: usize,
    pipeline: &'a Pipeline,
    job: &'a Job,
}

impl Progress<'_> {
    /// The picture that is coming, as the newest step sees it. Costs a decode.
    ///
    /// # Errors
    /// If the device fails.
    pub fn preview(&self) -> Result<Picture> {
        self.pipeline.preview(self.job)
    }
}

impl Pipeline {
    /// Draws all images of `request`, one after another, calling `progress` after each step.
    ///
    /// Image `k` is the very picture that a request for one image with the seed `k` further on gives.
    ///
    /// # Errors
    /// If a value cannot be honoured by this model, the device fails, or `progress` breaks off
    /// ([`ErrorKind::Cancelled`]).
    pub fn generate(
        &self,
        request: &GenerateRequest,
        mut progress: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Picture>> {
        let conditioned = self.encode_prompts(request)?;
        let images = request.count.get();
        let mut pictures = Vec::with_capacity(images as usize);
        for image in 0..images {
            let mut job = self.start(request, conditioned.clone(), image)?;
            let mut reported = 0;
            while !job.is_done() {
                self.evaluate(&mut [&mut job])?;
                let step = job.steps_done();
                if step == reported {
                    continue;
                }
                reported = step;
                let steps = job.steps();
                if progress(&Progress { image, images, step, steps, pipeline: self, job: &job }).is_break() {
                    return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
                }
            }
            pictures.push(self.decode(&job)?);
        }
        Ok(pictures)
    }
}
