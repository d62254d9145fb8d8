//! One evaluation: one UNet call for rows of many jobs, each at its own sigma, guidance and sampler, then one update.

use super::{Job, Pipeline};
use crate::error::Result;
use crate::model::unet::Conditioning;
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
        let outputs = self.predict(jobs, &evals, &scalings)?; // one [1, h, w, 4] a job
        let inputs = Tensor::cat(&jobs.iter().map(|job| &job.input).collect::<Vec<_>>(), 0)?;
        let outputs = Tensor::cat(&outputs, 0)?;
        let column = |of: fn(&Scalings) -> f64| self.column(scalings.iter().map(of));
        let denoised = (inputs.broadcast_mul(&column(|s| s.c_skip)?)?
            + outputs.broadcast_mul(&column(|s| s.c_out)?)?)?;
        let noise = jobs
            .iter_mut()
            .zip(&evals)
            .map(|(job, eval)| eval.draws().then(|| job.draw()).transpose())
            .collect::<Result<Vec<_>>>()?;
        let next = self.update(jobs, &evals, &denoised, &noise)?;
        let kept = self.kept(&inputs, &evals, &denoised)?;
        for (row, ((job, eval), noise)) in jobs.iter_mut().zip(&evals).zip(noise).enumerate() {
            job.advance(eval, next.narrow(0, row, 1)?, denoised.narrow(0, row, 1)?)?;
            job.keep(kept.narrow(0, row, 1)?);
            job.held_noise = noise;
            job.drawn = None;
        }
        Ok(())
    }

    /// The network's output for each job, guided: `[1, h, w, 4]` in f32.
    fn predict(&self, jobs: &[&mut Job], evals: &[Eval], scalings: &[Scalings]) -> Result<Vec<Tensor>> {
        let mut rows = Rows::default();
        for ((job, eval), scaling) in jobs.iter().zip(evals).zip(scalings) {
            let mut input = (&job.input * scaling.c_in)?;
            if let Some(extra) = job.canvas.as_ref().and_then(|canvas| canvas.extra_inputs.as_ref()) {
                input = Tensor::cat(&[&input, extra], D::Minus1)?;
            }
            for condition in job.negative.iter().chain([&job.positive]) {
                rows.inputs.push(input.clone());
                rows.timesteps.push(eval.timestep as f32);
                rows.contexts.push(condition.context.clone());
                rows.pooled.push(condition.pooled.clone());
                rows.time_ids.push(job.time_ids);
            }
        }
        let inputs = Tensor::cat(&rows.inputs, 0)?.to_dtype(self.dtype)?;
        let conditioning = Conditioning {
            timesteps: &rows.timesteps,
            context: &Tensor::cat(&rows.contexts, 0)?,
            pooled: &Tensor::cat(&rows.pooled, 0)?,
            time_ids: &rows.time_ids,
        };
        let outputs = self.unet.forward(&inputs, &conditioning)?.to_dtype(DType::F32)?;
        let mut row = 0;
        jobs.iter()
            .map(|job| {
                let first = outputs.narrow(0, row, 1)?;
                row += 1;
                if job.negative.is_none() {
                    return Ok(first);
                }
                let positive = outputs.narrow(0, row, 1)?;
                row += 1;
                guided(&first, &positive, job)
            })
            .collect()
    }

    /// `next` of every row: the sum that [`Eval`] describes, as one broadcast.
    fn update(
        &self,
        jobs: &[&mut Job],
        evals: &[Eval],
        denoised: &Tensor,
        noise: &[Option<Tensor>],
    ) -> Result<Tensor> {
        let bases = Tensor::cat(&jobs.iter().map(|job| &job.base).collect::<Vec<_>>(), 0)?;
        let mut next = (bases.broadcast_mul(&self.column(evals.iter().map(|eval| eval.x))?)?
            + denoised.broadcast_mul(&self.column(evals.iter().map(|eval| eval.denoised))?)?)?;
        let mut add = |values: Vec<Option<&Tensor>>, coefficients: Vec<f64>| -> Result<()> {
            if coefficients.iter().any(|coefficient| *coefficient != 0.0) {
                let column = self.column(coefficients.into_iter())?;
                next = (&next + stacked(&values)?.broadcast_mul(&column)?)?;
            }
            Ok(())
        };
        for k in 0..HISTORY {
            let kept = jobs.iter().map(|job| job.history.get(k)).collect();
            add(kept, evals.iter().map(|eval| eval.history[k]).collect())?;
        }
        add(noise.iter().map(Option::as_ref).collect(), evals.iter().map(|eval| eval.noise).collect())?;
        let held = jobs.iter().map(|job| job.held_noise.as_ref()).collect();
        add(held, evals.iter().map(|eval| eval.held_noise).collect())?;
        Ok(next)
    }

    /// What every row keeps for later evaluations.
    fn kept(&self, inputs: &Tensor, evals: &[Eval], denoised: &Tensor) -> Result<Tensor> {
        if evals.iter().all(|eval| eval.keep_x == 0.0 && eval.keep_denoised == 1.0) {
            return Ok(denoised.clone());
        }
        let keep_x = self.column(evals.iter().map(|eval| eval.keep_x))?;
        let keep_denoised = self.column(evals.iter().map(|eval| eval.keep_denoised))?;
        Ok((inputs.broadcast_mul(&keep_x)? + denoised.broadcast_mul(&keep_denoised)?)?)
    }

    /// One coefficient a row: `[B, 1, 1, 1]` in f32.
    fn column(&self, values: impl Iterator<Item = f64>) -> Result<Tensor> {
        let values: Vec<f32> = values.map(|value| value as f32).collect();
        let rows = values.len();
        Ok(Tensor::from_vec(values, (rows, 1, 1, 1), &self.device)?)
    }
}

/// What the rows of one UNet call are made of.
#[derive(Default)]
struct Rows {
    inputs: Vec<Tensor>,
    timesteps: Vec<f32>,
    contexts: Vec<Tensor>,
    pooled: Vec<Tensor>,
    time_ids: Vec<[f32; 6]>,
}

/// Rows side by side, zeros where a job has none.
fn stacked(values: &[Option<&Tensor>]) -> Result<Tensor> {
    let like = values.iter().flatten().next().expect("a coefficient that is not 0 has its tensor");
    let zeros = like.zeros_like()?;
    Ok(Tensor::cat(&values.iter().map(|value| value.unwrap_or(&zeros)).collect::<Vec<_>>(), 0)?)
}

/// Classifier-free guidance (Ho and Salimans 2022), and its rescaling (Lin et al. 2023, section 3.4).
fn guided(negative: &Tensor, positive: &Tensor, job: &Job) -> Result<Tensor> {
    let guided = (negative + ((positive - negative)? * job.guidance)?)?;
    if job.rescale == 0.0 {
        return Ok(guided);
    }
    let ratio = spread(positive)? / spread(&guided)?;
    Ok((guided * (job.rescale * ratio + 1.0 - job.rescale))?)
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
