//! One evaluation: one UNet call for rows of many jobs, each at its own sigma, guidance and sampler, then one update.

use super::{Job, Pipeline};
use crate::error::{Error, Result};
use crate::model::unet::Conditioning;
use crate::model::{activation_dtype, combine};
use crate::sampler::Scalings;
use crate::sampler::{Eval, HISTORY};
use candle_core::{D, DType, Tensor};

impl Pipeline {
    /// Takes every job one evaluation further. All must agree on the size of the latents and the context's length,
    /// and none may be done.
    ///
    /// # Errors
    /// If the device fails; the jobs are then unchanged.
    pub fn evaluate(&self, jobs: &mut [&mut Job]) -> Result<()> {
        let evals: Vec<Eval> = jobs.iter().map(|job| job.plan.evals[job.next]).collect();
        let scalings: Vec<Scalings> =
            evals.iter().map(|eval| self.training.prediction.scalings(eval.sigma)).collect();
        let outputs = self.predict(jobs, &evals, &scalings)?;
        let rows: Vec<Vec<Term>> = jobs
            .iter()
            .zip(&scalings)
            .zip(&outputs)
            .map(|((job, scaling), output)| Ok(denoised(job, *scaling, output.weights(job)?)))
            .collect::<Result<_>>()?;
        let denoised = combine(&rows)?; // [jobs, h, w, 4]
        let noise = jobs
            .iter_mut()
            .zip(&evals)
            .map(|(job, eval)| eval.draws().then(|| job.draw()).transpose())
            .collect::<Result<Vec<_>>>()?;
        let next = update(jobs, &evals, &denoised, &noise)?;
        let kept = kept(jobs, &evals, &denoised)?;
        // On a GPU the work has only been queued: its time, and its faults, belong to this evaluation.
        self.device.synchronize()?;
        for (row, ((job, eval), noise)) in jobs.iter_mut().zip(&evals).zip(noise).enumerate() {
            job.advance(eval, next.narrow(0, row, 1)?, denoised.narrow(0, row, 1)?)?;
            job.keep(kept.narrow(0, row, 1)?);
            job.held_noise = noise;
            job.drawn = None;
        }
        Ok(())
    }

    /// The network's outputs for each job.
    fn predict(&self, jobs: &[&mut Job], evals: &[Eval], scalings: &[Scalings]) -> Result<Vec<Output>> {
        let mut rows = Rows::default();
        let mut outputs = vec![[None; 2]; jobs.len()];
        // Rows without a context come last, as the network takes them.
        for prompted in [true, false] {
            for (at, ((job, eval), scaling)) in jobs.iter().zip(evals).zip(scalings).enumerate() {
                let conditions = [job.negative.as_ref(), Some(&job.positive)];
                for (condition, output) in conditions.into_iter().zip(&mut outputs[at]) {
                    let Some(condition) = condition.filter(|c| c.context.is_some() == prompted) else {
                        continue;
                    };
                    *output = Some(rows.inputs.len());
                    rows.inputs.push(vec![(&job.input, scaling.c_in)]);
                    rows.extras.extend(job.canvas.as_ref().and_then(|canvas| canvas.extra_inputs.as_ref()));
                    rows.timesteps.push(eval.timestep as f32);
                    rows.contexts.extend(&condition.context);
                    rows.pooled.push(&condition.pooled);
                    rows.time_ids.push(job.time_ids);
                }
            }
        }
        let mut inputs = combine(&rows.inputs)?;
        if !rows.extras.is_empty() {
            inputs = Tensor::cat(&[&inputs, &Tensor::cat(&rows.extras, 0)?], D::Minus1)?;
        }
        let conditioning = Conditioning {
            timesteps: &rows.timesteps,
            contexts: &rows.contexts,
            pooled: &Tensor::cat(&rows.pooled, 0)?,
            time_ids: &rows.time_ids,
        };
        let inputs = inputs.to_dtype(activation_dtype(&self.device, self.dtype))?;
        let made = self.unet.forward(&inputs, &conditioning)?.to_dtype(DType::F32)?;
        let output = |row: usize| made.narrow(0, row, 1);
        let pairs = outputs.into_iter().map(|[negative, positive]| {
            let positive = positive.ok_or_else(|| Error::internal("every job has a prompt"))?;
            Ok(Output { negative: negative.map(output).transpose()?, positive: output(positive)? })
        });
        pairs.collect()
    }
}

/// What the rows of one UNet call are made of.
#[derive(Default)]
struct Rows<'a> {
    inputs: Vec<Vec<Term<'a>>>,
    extras: Vec<&'a Tensor>, // of every row, or of none
    timesteps: Vec<f32>,
    contexts: Vec<&'a Tensor>, // of the first rows
    pooled: Vec<&'a Tensor>,
    time_ids: Vec<[f32; 6]>,
}

/// A tensor `[1, h, w, 4]` in f32 with its coefficient in a sum.
type Term<'a> = (&'a Tensor, f64);

/// What the network says of one job's input, each `[1, h, w, 4]` in f32.
struct Output {
    negative: Option<Tensor>,
    positive: Tensor,
}

impl Output {
    /// The terms whose sum is the guided output: classifier-free guidance (Ho and Salimans 2022), and its rescaling (Lin
    /// et al. 2023, section 3.4).
    fn weights(&self, job: &Job) -> Result<Vec<Term<'_>>> {
        let Some(negative) = &self.negative else { return Ok(vec![(&self.positive, 1.0)]) };
        let terms = vec![(negative, 1.0 - job.guidance), (&self.positive, job.guidance)];
        if job.rescale == 0.0 {
            return Ok(terms);
        }
        let ratio = spread(&self.positive)? / spread(&combine(std::slice::from_ref(&terms))?)?;
        let scale = job.rescale * ratio + 1.0 - job.rescale;
        Ok(terms.into_iter().map(|(output, weight)| (output, weight * scale)).collect())
    }
}

/// The terms of a job's denoised latents, of its input and its guided output.
fn denoised<'a>(job: &'a Job, scalings: Scalings, output: Vec<Term<'a>>) -> Vec<Term<'a>> {
    let output = output.into_iter().map(|(output, weight)| (output, weight * scalings.c_out));
    [(&job.input, scalings.c_skip)].into_iter().chain(output).collect()
}

/// `next` of every row: the sum that [`Eval`] describes.
fn update(jobs: &[&mut Job], evals: &[Eval], denoised: &Tensor, noise: &[Option<Tensor>]) -> Result<Tensor> {
    let news = each(denoised)?;
    let terms = jobs.iter().zip(evals).zip(news.iter().zip(noise)).map(|((job, eval), (new, noise))| {
        let mut terms = vec![(&job.base, eval.x), (new, eval.denoised)];
        terms.extend((0..HISTORY).filter_map(|k| Some((job.history.get(k)?, eval.history[k]))));
        terms.extend(noise.as_ref().map(|noise| (noise, eval.noise)));
        terms.extend(job.held_noise.as_ref().map(|held| (held, eval.held_noise)));
        terms
    });
    combine(&terms.collect::<Vec<_>>())
}

/// What every row keeps for later evaluations.
fn kept(jobs: &[&mut Job], evals: &[Eval], denoised: &Tensor) -> Result<Tensor> {
    if evals.iter().all(|eval| eval.keep_x == 0.0 && eval.keep_denoised == 1.0) {
        return Ok(denoised.clone());
    }
    let news = each(denoised)?;
    let terms = jobs.iter().zip(evals).zip(&news);
    let terms = terms.map(|((job, eval), new)| vec![(&job.input, eval.keep_x), (new, eval.keep_denoised)]);
    combine(&terms.collect::<Vec<_>>())
}

/// The rows of `[B, ..]`, each `[1, ..]`.
fn each(x: &Tensor) -> Result<Vec<Tensor>> {
    (0..x.dim(0)?).map(|row| Ok(x.narrow(0, row, 1)?)).collect()
}

/// The standard deviation of all values, over one less than their number, as torch takes it.
fn spread(x: &Tensor) -> Result<f64> {
    let values: Vec<f32> = x.flatten_all()?.to_vec1()?;
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    Ok((squares / (count - 1.0)).sqrt())
}

impl Job {
    /// Takes over the result of the evaluation `eval`.
    fn advance(&mut self, eval: &Eval, next: Tensor, denoised: Tensor) -> Result<()> {
        self.input = self.under_mask(next)?;
        if eval.commit {
            self.base = self.input.clone();
        }
        self.denoised = Some(denoised);
        self.next += 1;
        Ok(())
    }

    /// Puts the picture, at the noise level that the evaluation led to, back where the mask keeps it.
    fn under_mask(&self, next: Tensor) -> Result<Tensor> {
        let Some(kept) = self.canvas.as_ref().and_then(|canvas| canvas.kept.as_ref()) else {
            return Ok(next);
        };
        let sigma = self.plan.sigma_after(self.next);
        let stays = (&kept.picture + (&kept.noise * sigma)?)?;
        let anew = next.broadcast_mul(&kept.mask)?;
        Ok((anew + stays.broadcast_mul(&kept.mask.affine(-1.0, 1.0)?)?)?)
    }
}
