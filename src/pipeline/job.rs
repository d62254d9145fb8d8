//! One image on its way from noise to picture.

use super::{Conditioned, Generator, Pipeline};
use crate::error::{Error, Result};
use crate::request::{GenerateRequest, Mask, Picture, Size, Start};
use crate::sampler::Schedule;
use crate::sampler::{HISTORY, Plan, plan};
use candle_core::{D, DType, Tensor};

/// What an inpainting knows of the picture.
#[derive(Debug)]
pub(super) struct Canvas {
    /// What is put back after each evaluation, for UNets that do not see the mask.
    pub kept: Option<Kept>,
    /// Mask and latents of the picture without its masked part, `[1, h, w, 5]`, for UNets that see them.
    pub extra_inputs: Option<Tensor>,
}

/// The part of a picture that stays as it is.
#[derive(Debug)]
pub(super) struct Kept {
    /// The latents of the picture, `[1, h, w, 4]`.
    pub picture: Tensor,
    /// The noise that the job began with, `[1, h, w, 4]`.
    pub noise: Tensor,
    /// 1 where the picture is drawn anew, 0 where it stays, `[1, h, w, 1]`.
    pub mask: Tensor,
}

/// One image of a request: its latents, its plan, and how far it has come.
#[derive(Debug)]
pub struct Job {
    pub(super) positive: Conditioned,
    pub(super) negative: Option<Conditioned>,
    pub(super) guidance: f64,
    pub(super) rescale: f64,
    pub(super) time_ids: [f32; 6],
    pub(super) plan: Plan,
    /// The next evaluation.
    pub(super) next: usize,
    /// The latents at the last commit, `[1, h, w, 4]` in f32.
    pub(super) base: Tensor,
    /// The latents that the network sees next, of the same shape.
    pub(super) input: Tensor,
    /// What earlier evaluations kept, newest first; at most [`HISTORY`].
    pub(super) history: Vec<Tensor>,
    /// The draw of the evaluation before.
    pub(super) held_noise: Option<Tensor>,
    /// The draw of the evaluation that is next, once taken.
    pub(super) drawn: Option<Tensor>,
    /// The newest estimate of the picture's latents.
    pub(super) denoised: Option<Tensor>,
    pub(super) canvas: Option<Canvas>,
    generator: Generator,
    latents: (usize, usize),
}

/// Channels of SDXL's latents.
const CHANNELS: usize = 4;

impl Job {
    /// Steps done, as the user counts them.
    pub fn steps_done(&self) -> usize {
        self.plan.evals[..self.next].iter().filter(|eval| eval.commit).count()
    }

    /// UNet evaluations done.
    pub fn evals_done(&self) -> usize {
        self.next
    }

    /// Rows that it takes in a UNet call.
    pub fn rows(&self) -> usize {
        1 + usize::from(self.negative.is_some())
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.plan.steps()
    }

    /// Whether the latents are finished.
    pub fn is_done(&self) -> bool {
        self.next == self.plan.evals.len()
    }

    /// Keeps a value for later evaluations to look back on.
    pub(super) fn keep(&mut self, value: Tensor) {
        self.history.insert(0, value);
        self.history.truncate(HISTORY);
    }

    /// The standard normal draw of the evaluation that is next, `[1, h, w, 4]`: the same when it is tried again.
    pub(super) fn draw(&mut self) -> Result<Tensor> {
        if self.drawn.is_none() {
            self.drawn = Some(draw(&mut self.generator, self.latents, &self.base)?);
        }
        Ok(self.drawn.clone().expect("it has just been drawn"))
    }
}

/// The next draw of `generator` for latents of `height` by `width`, in torch's order (channels first), as
/// `[1, h, w, 4]` where `like` is.
fn draw(generator: &mut Generator, (height, width): (usize, usize), like: &Tensor) -> Result<Tensor> {
    let values = generator.normal(CHANNELS * height * width);
    let drawn = Tensor::from_vec(values, (1, CHANNELS, height, width), &candle_core::Device::Cpu)?;
    Ok(drawn.permute((0, 2, 3, 1))?.contiguous()?.to_device(like.device())?)
}

/// Where a job starts: its latents, its plan, and the canvas of an inpainting.
struct Beginning {
    latents: Tensor,
    plan: Plan,
    canvas: Option<Canvas>,
}

impl Pipeline {
    /// UNet evaluations that each image of `request` takes.
    ///
    /// # Errors
    /// If the strength leaves no step.
    pub fn evals(&self, request: &GenerateRequest) -> Result<usize> {
        let begin = Begin { pipeline: self, request, latents: self.latent_size(request.size) };
        let schedule = match &request.start {
            Start::Noise => begin.schedule()?,
            Start::Picture { strength, .. } | Start::Inpaint { strength, .. } => {
                begin.tail(strength.get())?
            }
        };
        Ok(begin.plan(&schedule).evals.len())
    }

    /// Height and width of the latents of a picture.
    pub fn latent_size(&self, size: Size) -> (usize, usize) {
        let factor = self.vae_config.factor();
        (size.height() as usize / factor, size.width() as usize / factor)
    }

    /// Image `k` of `request`, ready for its first evaluation.
    ///
    /// # Errors
    /// If the strength leaves no step, or the model can only inpaint and there is no mask.
    pub fn start(
        &self,
        request: &GenerateRequest,
        (positive, negative): (Conditioned, Option<Conditioned>),
        k: u32,
    ) -> Result<Job> {
        let latents = self.latent_size(request.size);
        let mut generator = Generator::new(request.seed.image(k).0);
        let begin = Begin { pipeline: self, request, latents };
        let Beginning { latents: start, plan, canvas } = begin.run(&mut generator)?;
        let (height, width) = (request.size.height() as f32, request.size.width() as f32);
        Ok(Job {
            positive,
            negative,
            guidance: request.guidance.get(),
            rescale: request.rescale.get(),
            time_ids: [height, width, 0.0, 0.0, height, width],
            plan,
            next: 0,
            base: start.clone(),
            input: start,
            history: Vec::new(),
            held_noise: None,
            drawn: None,
            denoised: None,
            canvas,
            generator,
            latents,
        })
    }
}

/// The work of starting one job.
struct Begin<'a> {
    pipeline: &'a Pipeline,
    request: &'a GenerateRequest,
    latents: (usize, usize),
}

impl Begin<'_> {
    fn run(&self, generator: &mut Generator) -> Result<Beginning> {
        let inpaints_only = self.pipeline.unet_inputs > CHANNELS;
        match &self.request.start {
            Start::Inpaint { picture, mask, strength } => {
                self.inpaint((picture, mask), strength.get(), generator)
            }
            _ if inpaints_only => Err(Error::parameter(
                "mask",
                "this model only inpaints: send an image to edits with a mask of what to draw anew",
            )),
            Start::Noise => self.noise(generator),
            Start::Picture { picture, strength } => self.picture(picture, strength.get(), generator),
        }
    }

    fn noise(&self, generator: &mut Generator) -> Result<Beginning> {
        let plan = self.plan(&self.schedule()?);
        let noise = self.draw(generator)?;
        Ok(Beginning { latents: (noise * plan.noise_scale)?, plan, canvas: None })
    }

    /// The generator first picks the picture's latents, then the noise, as in diffusers.
    fn picture(&self, picture: &Picture, strength: f64, generator: &mut Generator) -> Result<Beginning> {
        let plan = self.plan(&self.tail(strength)?);
        let latents = self.encode(&self.pipeline.pixels(picture)?, generator)?;
        let noise = self.draw(generator)?;
        let latents = (latents + (noise * plan.start_sigma())?)?;
        Ok(Beginning { latents, plan, canvas: None })
    }

    /// The generator picks the picture's latents, then the noise, then the latents of the picture without its
    /// masked part, as in diffusers, which draws for the last even where the network takes four channels alone,
    /// and not for the first where it takes nine and forgets the picture.
    fn inpaint(
        &self,
        (picture, mask): (&Picture, &Mask),
        strength: f64,
        generator: &mut Generator,
    ) -> Result<Beginning> {
        let plan = self.plan(&self.tail(strength)?);
        let takes_mask = self.pipeline.unet_inputs > CHANNELS;
        let forgets = strength >= 1.0;
        let pixels = self.pipeline.pixels(picture)?;
        let latents = if takes_mask && forgets { None } else { Some(self.encode(&pixels, generator)?) };
        let noise = self.draw(generator)?;
        let fine = self.pipeline.mask_pixels(mask)?; // [1, H, W, 1]
        let mask = self.pipeline.mask_latents(mask)?;
        let extra_inputs = if takes_mask {
            let kept = pixels.broadcast_mul(&fine.affine(-1.0, 1.0)?)?;
            Some(Tensor::cat(&[&mask, &self.encode(&kept, generator)?], D::Minus1)?)
        } else {
            self.draw(generator)?;
            None
        };
        let start = match &latents {
            Some(latents) if !forgets => (latents + (&noise * plan.start_sigma())?)?,
            _ => (&noise * plan.noise_scale)?,
        };
        let kept = latents.filter(|_| !takes_mask).map(|picture| Kept { picture, noise, mask });
        Ok(Beginning { latents: start, plan, canvas: Some(Canvas { kept, extra_inputs }) })
    }

    fn schedule(&self) -> Result<Schedule> {
        let request = self.request;
        let training = &self.pipeline.training;
        let steps = request.steps.get() as usize;
        Schedule::new(request.sampler, request.schedule, steps, &training.table, &training.spacing)
            .map_err(|error| Error::parameter("steps", error.to_string()))
    }

    fn tail(&self, strength: f64) -> Result<Schedule> {
        self.schedule()?.tail(strength).map_err(|error| Error::parameter("strength", error.to_string()))
    }

    fn plan(&self, schedule: &Schedule) -> Plan {
        plan(schedule, &self.pipeline.training.table)
    }

    fn draw(&self, generator: &mut Generator) -> Result<Tensor> {
        draw(generator, self.latents, &Tensor::zeros(1, DType::F32, &self.pipeline.device)?)
    }

    /// A picture's scaled latents, picked from the VAE's posterior by the job's own generator.
    fn encode(&self, pixels: &Tensor, generator: &mut Generator) -> Result<Tensor> {
        let posterior = self.pipeline.encode(pixels)?;
        let noise = self.draw(generator)?;
        self.pipeline.scaled(&posterior.sample(&noise)?)
    }
}
