//! The device thread: takes requests in, asks the scheduler what to do, does it, and tells what happened.

use super::conditionings::{Conditionings, MOST_BYTES};
use super::drawing::Drawing;
use super::guard::guarded;
use super::ticket::Event;
use super::{CurvePoint, MOST_ROWS, Model, Settings, Shared, State, Submission, curve};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::pipeline::{Conditioned, Job, Pipeline, PromptPair, ReadPrompt};
use crate::request::GenerateRequest;
use crate::scheduler::{CallerId, GroupKey, JobId, Limits, NewJob, Outcome, Scheduler, Work};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// Word to the device thread.
#[derive(Debug)]
pub(super) enum Message {
    /// A request has come.
    Arrival(Box<Arrival>),
    /// The caller of these jobs has left, or has all its pictures.
    Cancel {
        /// The first job.
        first: u64,
        /// How many there are.
        images: u32,
    },
    /// Take nothing more, and end at the latest at `until`.
    Drain {
        /// When what is left fails.
        until: Instant,
    },
}

/// A request as it comes in.
#[derive(Debug)]
pub(super) struct Arrival {
    pub submission: Submission,
    /// The number of its first job; the others follow.
    pub first: u64,
    pub events: UnboundedSender<Event>,
    /// One for each job.
    pub permits: OwnedSemaphorePermit,
    pub at: Instant,
}

/// What a test puts in the place of the device's own speed and faults.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Asked before each work on the device, with the requests that it is for; its failure or panic stands for the
    /// device's.
    pub probe: fn(&[&GenerateRequest]) -> Result<()>,
    /// What rows cost; measured where it is none.
    pub curve: Option<Vec<CurvePoint>>,
}

impl Default for Trial {
    /// The device as it is.
    fn default() -> Self {
        Self { probe: |_| Ok(()), curve: None }
    }
}

/// How often the process' memory is read.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// The device thread before it has a model.
pub(super) struct Worker {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    metrics: Metrics,
    trial: Trial,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, inbox: Receiver<Message>, metrics: Metrics, trial: Trial) -> Self {
        Self { shared, inbox, metrics, trial }
    }

    /// Loads the model, measures it, and draws what arrives until there is nothing left to do.
    pub fn live(self, load: impl FnOnce() -> Result<Pipeline>, settings: Settings) {
        let shared = Arc::clone(&self.shared);
        match guarded(load) {
            Ok(pipeline) => self.draw(&pipeline, settings),
            Err(error) => {
                tracing::error!(%error, "the model cannot be loaded");
                // Nobody else sets it.
                drop(shared.model.set(Err(error)));
            }
        }
        shared.advance(State::Failed);
    }

    fn draw(self, pipeline: &Pipeline, settings: Settings) {
        let most_rows = settings.rows.unwrap_or(MOST_ROWS);
        let Trial { probe, curve } = self.trial;
        let curve = curve.unwrap_or_else(|| curve::curve(pipeline, most_rows, settings.remember));
        self.metrics.model_info.with_label_values(&pipeline.facts()).set(1);
        let model = Model { name: pipeline.name().to_owned(), defaults: pipeline.defaults().clone() };
        drop(self.shared.model.set(Ok(model)));
        self.shared.advance(State::Ready);
        let limits = Limits { queue: settings.queue, inside: 2 * most_rows as usize, rows: most_rows };
        let floor = Floor {
            pipeline,
            shared: self.shared,
            inbox: self.inbox,
            metrics: self.metrics,
            probe,
            scheduler: Scheduler::new(limits, curve::costs(&curve)),
            drawings: HashMap::new(),
            conditionings: Conditionings::new(MOST_BYTES),
            origin: Instant::now(),
            until: None,
            memory_read: None,
        };
        floor.run();
    }
}

/// The device thread at work.
pub(super) struct Floor<'a> {
    pub(super) pipeline: &'a Pipeline,
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    pub(super) metrics: Metrics,
    pub(super) probe: fn(&[&GenerateRequest]) -> Result<()>,
    pub(super) scheduler: Scheduler,
    pub(super) drawings: HashMap<JobId, Drawing>,
    conditionings: Conditionings,
    /// When the scheduler's time began.
    origin: Instant,
    /// When a draining engine gives up.
    until: Option<Instant>,
    memory_read: Option<Instant>,
}

impl Floor<'_> {
    fn run(mut self) {
        loop {
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            for id in self.scheduler.expire(self.now()) {
                let late = Error::new(ErrorKind::Timeout, "the request's time was up before it was drawn");
                self.fail(id, late);
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                self.abandon();
            }
            self.publish();
            match self.scheduler.schedule(self.now()) {
                Work::Encode(id) => self.encode(id),
                Work::Denoise(ids) => self.denoise(&ids),
                Work::Decode(id) => self.decode(id),
                Work::Idle if self.until.is_some() => break,
                Work::Idle => match self.inbox.recv() {
                    Ok(message) => self.take(message),
                    Err(_) => break,
                },
            }
        }
        self.publish();
    }

    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Arrival(arrival) => self.arrive(*arrival),
            Message::Cancel { first, images } => self.cancel(first, images),
            Message::Drain { until } => {
                self.until = Some(self.until.map_or(until, |before| before.min(until)));
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { submission, first, events, mut permits, at } = arrival;
        let arrived = at.saturating_duration_since(self.origin);
        let (template, prompts) = match self.template(&submission, arrived) {
            Ok(read) => read,
            Err(error) => return drop(events.send(Event::Failed(error))),
        };
        let request = (Arc::new(submission), Arc::new(prompts));
        for image in 0..request.0.request.count.get() {
            let id = JobId(first + u64::from(image));
            let Some(permit) = permits.split(1) else { break };
            let drawing = Drawing::new(request.clone(), image, arrived, events.clone(), permit);
            match self.scheduler.add(NewJob { id, ..template }, self.now()) {
                Ok(()) => {
                    let place = self.scheduler.place(id).unwrap_or(0);
                    drawing.tell(Event::Queued { image, place });
                    self.drawings.insert(id, drawing);
                }
                Err(error) => drawing.tell(Event::Failed(error)),
            }
        }
    }

    /// What the scheduler is told of each job of a request, and the request's prompts, which are read here once.
    fn template(&self, submission: &Submission, arrived: Duration) -> Result<(NewJob, PromptPair)> {
        guarded(|| {
            let request = &submission.request;
            let (height, width) = self.pipeline.latent_size(request.size);
            let prompts = self.pipeline.prompts(request)?;
            let chunks = prompts.chunks as u32;
            let job = NewJob {
                id: JobId(0),
                caller: CallerId(submission.caller),
                group: GroupKey { height: height as u32, width: width as u32, chunks, adapters: 0 },
                guided: request.guidance.is_active(),
                evals: self.pipeline.evals(request)? as u32,
                deadline: submission.timeout.map(|timeout| arrived + timeout),
            };
            Ok((job, prompts))
        })
    }

    fn cancel(&mut self, first: u64, images: u32) {
        for id in (first..first + u64::from(images)).map(JobId) {
            if self.drawings.remove(&id).is_some() {
                self.scheduler.remove(id);
                self.metrics.cancelled.inc();
            }
        }
    }

    fn abandon(&mut self) {
        for id in self.scheduler.abandon() {
            let error =
                Error::new(ErrorKind::Unavailable, "the server shut down before the request was drawn");
            self.fail(id, error);
        }
    }

    /// Fails one job, and with it its request: the caller drops the ticket, which cancels the others.
    pub(super) fn fail(&mut self, id: JobId, error: Error) {
        self.scheduler.remove(id);
        if let Some(drawing) = self.drawings.remove(&id) {
            tracing::warn!(job = id.0, %error, "a job failed");
            drawing.tell(Event::Failed(error));
        }
    }

    fn encode(&mut self, id: JobId) {
        let now = self.now();
        let Some(mut drawing) = self.drawings.remove(&id) else {
            return self.scheduler.update(now, Outcome::Done);
        };
        drawing.waited = now.saturating_sub(drawing.arrived);
        self.metrics.queue_wait_seconds.observe(drawing.waited.as_secs_f64());
        let began = Instant::now();
        let started = guarded(|| self.start(&drawing));
        self.stage("encode", began);
        self.drawings.insert(id, drawing);
        match started {
            Ok(job) => {
                if let Some(drawing) = self.drawings.get_mut(&id) {
                    drawing.job = Some(job);
                }
            }
            Err(error) => self.fail(id, error),
        }
        self.scheduler.update(self.now(), Outcome::Done);
    }

    fn start(&mut self, drawing: &Drawing) -> Result<Job> {
        let request = &drawing.submission.request;
        (self.probe)(&[request])?;
        let PromptPair { positive, negative, .. } = &*drawing.prompts;
        let positive = self.conditioned(positive)?;
        let negative = negative.as_ref().map(|prompt| self.conditioned(prompt)).transpose()?;
        self.pipeline.start(request, (positive, negative), drawing.image)
    }

    fn conditioned(&mut self, prompt: &ReadPrompt) -> Result<Conditioned> {
        let known = self.conditionings.get(&prompt.key);
        let result = if known.is_some() { "hit" } else { "miss" };
        self.metrics.prompt_cache.with_label_values(&[result]).inc();
        if let Some(known) = known {
            return Ok(known);
        }
        let conditioned = self.pipeline.encode_prompt(prompt)?;
        self.conditionings.put(prompt.key.clone(), conditioned.clone());
        Ok(conditioned)
    }

    pub(super) fn preview(&mut self, id: JobId, index: u32) {
        let Some(drawing) = self.drawings.get(&id) else { return };
        let Some(job) = &drawing.job else { return };
        let began = Instant::now();
        let preview = guarded(|| self.pipeline.preview(job));
        self.stage("preview", began);
        match preview {
            Ok(picture) => drawing.tell(Event::Preview { image: drawing.image, index, picture }),
            Err(error) => tracing::warn!(job = id.0, %error, "a preview failed"),
        }
    }

    fn decode(&mut self, id: JobId) {
        let began = Instant::now();
        let decoded = self.drawings.get(&id).and_then(|drawing| Some((drawing, drawing.job.as_ref()?))).map(
            |(drawing, job)| {
                guarded(|| {
                    (self.probe)(&[&drawing.submission.request])?;
                    self.pipeline.decode(job)
                })
            },
        );
        self.stage("decode", began);
        let mut finished = None;
        match decoded {
            Some(Ok(picture)) => finished = self.drawings.remove(&id).map(|drawing| (drawing, picture)),
            Some(Err(error)) => self.fail(id, error),
            None => {}
        }
        self.scheduler.update(self.now(), Outcome::Done);
        // Counted before it is told, so that a caller who has the picture finds it in the metrics.
        if let Some((drawing, picture)) = finished {
            self.metrics.images.inc();
            self.publish();
            let (image, waited, text_tokens) = (drawing.image, drawing.waited, drawing.prompts.tokens());
            drawing.tell(Event::Done { image, picture, waited, text_tokens });
        }
    }

    pub(super) fn stage(&self, stage: &str, began: Instant) {
        self.metrics.stage_seconds.with_label_values(&[stage]).observe(began.elapsed().as_secs_f64());
    }

    /// Sets the gauges, and the time that a refused caller is told.
    fn publish(&mut self) {
        self.metrics.queue_depth.set(self.scheduler.waiting() as i64);
        self.metrics.running_jobs.set(self.scheduler.inside() as i64);
        let retry_after = self.scheduler.retry_after(1, self.now());
        self.shared.retry_after.store(retry_after, Ordering::Relaxed);
        if self.memory_read.is_none_or(|read| read.elapsed() >= MEMORY_EVERY) {
            self.memory_read = Some(Instant::now());
            let taken = self.pipeline.memory_taken().map(|bytes| bytes as i64);
            self.metrics.device_memory.set(taken.or_else(resident_bytes).unwrap_or(0));
        }
    }
}

/// Bytes of memory that this process holds, from Linux' own books.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? * 1024)
}
