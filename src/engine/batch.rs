//! One UNet call for the jobs of a batch, and what happens when it fails.

use super::Submission;
use super::drawing::Drawing;
use super::guard::guarded;
use super::worker::Floor;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Job;
use crate::scheduler::{JobId, Outcome};
use std::sync::Arc;
use std::time::Instant;

/// The jobs of one call, taken out of the floor's table for as long as it lasts.
type Batch = Vec<(JobId, Drawing)>;

/// UNet evaluations that a job has behind it.
fn evals(drawing: &Drawing) -> usize {
    drawing.job.as_ref().map_or(0, Job::evals_done)
}

impl Floor<'_> {
    /// One evaluation for each of these jobs, in one call.
    pub fn denoise(&mut self, ids: &[JobId]) {
        let began = Instant::now();
        let mut batch: Batch =
            ids.iter().filter_map(|id| self.drawings.remove(id).map(|drawing| (*id, drawing))).collect();
        let rows: usize = batch.iter().filter_map(|(_, drawing)| drawing.job.as_ref()).map(Job::rows).sum();
        let before: Vec<usize> = batch.iter().map(|(_, drawing)| evals(drawing)).collect();
        let mut failed = Vec::new();
        let outcome = match self.evaluate(&mut batch) {
            Ok(()) => Outcome::Done,
            Err(error) if *error.kind() == ErrorKind::DeviceMemory && batch.len() > 1 => {
                tracing::warn!(rows, %error, "a batch did not fit into memory; trying smaller ones");
                Outcome::TooLarge
            }
            Err(error) => {
                failed = self.evaluate_each(&mut batch, &before, error);
                Outcome::DoneInParts
            }
        };
        if outcome != Outcome::TooLarge {
            self.metrics.batch_rows.observe(rows as f64);
            self.metrics
                .step_seconds
                .with_label_values(&[&rows.to_string()])
                .observe(began.elapsed().as_secs_f64());
            self.stage("denoise", began);
        }
        let previews: Vec<(JobId, u32)> =
            batch.iter_mut().filter_map(|(id, drawing)| Some((*id, drawing.told_step()?))).collect();
        self.drawings.extend(batch);
        for (id, error) in failed {
            self.fail(id, error);
        }
        self.scheduler.update(self.now(), outcome);
        for (id, index) in previews {
            self.preview(id, index);
        }
    }

    fn evaluate(&self, batch: &mut [(JobId, Drawing)]) -> Result<()> {
        guarded(|| {
            let submissions: Vec<Arc<Submission>> =
                batch.iter().map(|(_, drawing)| Arc::clone(&drawing.submission)).collect();
            (self.probe)(&submissions.iter().map(|submission| &submission.request).collect::<Vec<_>>())?;
            let mut jobs: Vec<&mut Job> =
                batch.iter_mut().filter_map(|(_, drawing)| drawing.job.as_mut()).collect();
            self.pipeline.evaluate(&mut jobs)
        })
    }

    /// After a batch has failed with `error`: each of its jobs alone, save those that are further than `before`, so
    /// that only those fail that are at fault. Returns these.
    fn evaluate_each(&self, batch: &mut Batch, before: &[usize], error: Error) -> Vec<(JobId, Error)> {
        if let [(id, _)] = batch.as_slice() {
            return vec![(*id, error)];
        }
        tracing::warn!(jobs = batch.len(), %error, "a batch failed; trying its jobs one by one");
        let mut failed = Vec::new();
        for (at, before) in before.iter().enumerate() {
            if evals(&batch[at].1) > *before {
                continue;
            }
            if let Err(error) = self.evaluate(&mut batch[at..=at]) {
                failed.push((batch[at].0, error));
            }
        }
        failed
    }
}
