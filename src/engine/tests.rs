//! The engine on the bundled model: fairness of faults, cancellation, limits, and pictures that do not feel a batch.

use super::*;
use crate::pipeline::LoadOptions;
use crate::request::{Count, Options, Picture, Prompt, Seed, Sizes};
use crate::scheduler::Stage;
use std::future::Future;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(1)),
        }
    }
}

/// Small pictures are quick, however they look.
fn load() -> Result<Pipeline> {
    Pipeline::load(&LoadOptions { sizes: Some(Sizes::ANY), ..LoadOptions::sketch() })
}

/// The model once more, for pictures drawn without an engine.
static ALONE: LazyLock<Pipeline> = LazyLock::new(|| load().unwrap());

/// What a device does before each work.
type Probe = fn(&[&GenerateRequest]) -> Result<()>;

fn healthy(_: &[&GenerateRequest]) -> Result<()> {
    Ok(())
}

/// A device on which eight rows cost little more than one, so that batches form.
fn steep() -> Vec<CurvePoint> {
    let point = |(rows, millis)| CurvePoint {
        stage: Stage::Denoise,
        area: 64,
        rows,
        taken: Duration::from_millis(millis),
    };
    [(1, 10), (2, 11), (4, 12), (8, 14)].map(point).to_vec()
}

/// An engine that has loaded its model and batches up to eight rows.
fn engine(queue: usize, probe: Probe) -> (Engine, Metrics) {
    let metrics = Metrics::new().unwrap();
    let settings = Settings { queue, rows: Some(8), remember: false };
    let engine =
        Engine::tried(load, settings, metrics.clone(), Trial { probe, curve: Some(steep()) }).unwrap();
    while engine.state() == State::Loading {
        std::thread::sleep(Duration::from_millis(5));
    }
    (engine, metrics)
}

fn request(prompt: &str, steps: &str, seed: u64) -> GenerateRequest {
    let options = Options {
        size: Some("64x64".parse().unwrap()),
        steps: Some(steps.parse().unwrap()),
        seed: Some(Seed(seed)),
        ..Options::default()
    };
    options.resolve(Prompt::new(prompt).unwrap(), ALONE.defaults(), Seed(0)).unwrap()
}

fn submission(request: GenerateRequest) -> Submission {
    Submission { request, caller: 0, previews: 0, timeout: None }
}

fn alone(request: &GenerateRequest) -> Vec<Picture> {
    ALONE.generate(request, |_| std::ops::ControlFlow::Continue(())).unwrap()
}

/// Fails requests whose prompt says so, in the manner that it says.
fn poisoned(requests: &[&GenerateRequest]) -> Result<()> {
    let is = |word| requests.iter().any(|request| request.prompt.as_str() == word);
    assert!(!is("panic"), "this job is poisoned");
    if is("memory") {
        return Err(Error::new(ErrorKind::DeviceMemory, "out of memory"));
    }
    if is("fault") { Err(Error::internal("the device is ill")) } else { Ok(()) }
}

/// A device with room for two rows, so that a guided job fits and a batch does not.
fn small(requests: &[&GenerateRequest]) -> Result<()> {
    if requests.len() > 1 { Err(Error::new(ErrorKind::DeviceMemory, "out of memory")) } else { Ok(()) }
}

#[test]
fn fifty_mixed_requests_at_once_are_each_the_picture_that_it_is_alone() {
    let (engine, metrics) = engine(64, healthy);
    let samplers = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde", "lms", "uni_pc", "ddim"];
    let requests: Vec<GenerateRequest> = (0..50u64)
        .map(|k| {
            let options = Options {
                negative: (k % 3 == 0).then(|| Prompt::negative("blue").unwrap()),
                size: Some(if k % 5 == 0 { "96x64" } else { "64x64" }.parse().unwrap()),
                steps: Some((1 + k * 7 % 50).to_string().parse().unwrap()),
                sampler: Some(samplers[k as usize % samplers.len()].parse().unwrap()),
                guidance: Some(if k % 4 == 0 { "1" } else { "7" }.parse().unwrap()),
                seed: Some(Seed(k)),
                ..Options::default()
            };
            let prompt = ["red apple", "tree", "a (blue:1.3) car"][k as usize % 3];
            options.resolve(Prompt::new(prompt).unwrap(), ALONE.defaults(), Seed(0)).unwrap()
        })
        .collect();
    let tickets: Vec<Ticket> =
        requests.iter().map(|request| engine.submit(submission(request.clone())).unwrap()).collect();
    for (ticket, request) in tickets.into_iter().zip(&requests) {
        let drawn = wait(ticket.finish()).unwrap();
        assert!(drawn.pictures == alone(request), "seed {} feels the batch", request.seed);
    }
    let evals: usize = requests.iter().map(|request| ALONE.evals(request).unwrap()).sum();
    let calls = metrics.batch_rows.get_sample_count();
    assert!((calls as usize) < evals, "{calls} calls for {evals} evaluations: nothing was shared");
}

#[test]
fn a_poisoned_job_fails_alone_among_eight() {
    for (word, kind) in
        [("panic", ErrorKind::Internal), ("fault", ErrorKind::Internal), ("memory", ErrorKind::DeviceMemory)]
    {
        let (engine, _) = engine(16, poisoned);
        let prompts: Vec<&str> = (0..8).map(|k| if k == 3 { word } else { "tree" }).collect();
        let submit =
            |(seed, prompt): (u64, &&str)| engine.submit(submission(request(prompt, "3", seed))).unwrap();
        let tickets: Vec<Ticket> = (0..).zip(&prompts).map(submit).collect();
        for (seed, (ticket, prompt)) in (0..).zip(tickets.into_iter().zip(prompts)) {
            match wait(ticket.finish()) {
                Ok(drawn) => assert!(drawn.pictures == alone(&request(prompt, "3", seed))),
                Err(error) => assert_eq!((prompt, error.kind()), (word, &kind), "{error}"),
            }
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_into_memory_is_tried_in_smaller_ones() {
    let (engine, metrics) = engine(16, small);
    let tickets: Vec<Ticket> =
        (0..6).map(|seed| engine.submit(submission(request("tree", "2", seed))).unwrap()).collect();
    for (seed, ticket) in (0..).zip(tickets) {
        assert!(wait(ticket.finish()).unwrap().pictures == alone(&request("tree", "2", seed)));
    }
    assert_eq!(metrics.images.get(), 6);
}

#[test]
fn a_dropped_ticket_stops_its_jobs_and_frees_their_places() {
    let (engine, metrics) = engine(4, healthy);
    let mut running = engine.submit(submission(request("tree", "1000", 1))).unwrap();
    while !matches!(wait(running.event()), Some(Event::Step { .. })) {}
    let mut waiting = submission(request("tree", "1000", 2));
    waiting.request.count = Count::new(3).unwrap();
    let waiting = engine.submit(waiting).unwrap();
    let full = engine.submit(submission(request("tree", "1", 3))).unwrap_err();
    assert!(matches!(full.kind(), ErrorKind::QueueFull { retry_after: 1.. }), "{full:?}");
    drop(waiting);
    drop(running);
    let after = loop {
        match engine.submit(submission(request("tree", "1", 3))) {
            Ok(ticket) => break ticket,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert_eq!(wait(after.finish()).unwrap().pictures.len(), 1);
    assert_eq!((metrics.cancelled.get(), metrics.images.get()), (4, 1));
    assert_eq!((metrics.queue_depth.get(), metrics.running_jobs.get()), (0, 0));
}

#[test]
fn events_tell_the_place_every_step_the_previews_and_the_picture() {
    let (engine, _) = engine(4, healthy);
    let mut ticket =
        engine.submit(Submission { previews: 2, ..submission(request("tree", "6", 1)) }).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = wait(ticket.event()) {
        seen.push(match event {
            Event::Queued { place, .. } => format!("queued {place}"),
            Event::Step { step, steps, .. } => format!("{step}/{steps}"),
            Event::Preview { index, picture, .. } => format!("preview {index} {}", picture.width()),
            Event::Done { picture, .. } => format!("done {}", picture.width()),
            Event::Failed(error) => format!("failed {error}"),
        });
        if seen.last().is_some_and(|event| event.starts_with("done")) {
            break;
        }
    }
    let want =
        ["queued 0", "1/6", "2/6", "preview 0 64", "3/6", "4/6", "preview 1 64", "5/6", "6/6", "done 64"];
    assert_eq!(seen, want);
}

#[test]
fn equal_prompts_are_encoded_once() {
    let (engine, metrics) = engine(8, healthy);
    let mut four = submission(request("tree", "1", 1));
    four.request.count = Count::new(4).unwrap();
    wait(engine.submit(four).unwrap().finish()).unwrap();
    let count = |result| metrics.prompt_cache.with_label_values(&[result]).get();
    assert_eq!((count("miss"), count("hit")), (2, 6), "the prompt and the empty negative prompt, once each");
}

#[test]
fn a_request_whose_time_is_up_fails_and_others_go_on() {
    let (engine, _) = engine(8, healthy);
    let late =
        Submission { timeout: Some(Duration::from_millis(50)), ..submission(request("tree", "1000", 1)) };
    let (late, other) =
        (engine.submit(late).unwrap(), engine.submit(submission(request("tree", "2", 2))).unwrap());
    let error = wait(late.finish()).unwrap_err();
    assert_eq!((error.kind(), error.message().contains("time was up")), (&ErrorKind::Timeout, true));
    assert!(wait(other.finish()).is_ok());
}

#[test]
fn a_draining_engine_finishes_what_fits_the_grace_and_fails_the_rest() {
    let (patient, _) = engine(8, healthy);
    let tickets: Vec<Ticket> =
        (0..4).map(|seed| patient.submit(submission(request("tree", "2", seed))).unwrap()).collect();
    patient.drain(Duration::from_secs(60));
    assert_eq!(
        *patient.submit(submission(request("tree", "1", 9))).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(tickets.into_iter().all(|ticket| wait(ticket.finish()).is_ok()));
    wait(patient.ended());
    let (hasty, _) = engine(8, healthy);
    let long = hasty.submit(submission(request("tree", "1000", 1))).unwrap();
    hasty.drain(Duration::from_millis(100));
    let error = wait(long.finish()).unwrap_err();
    assert_eq!((error.kind(), error.message().contains("shut down")), (&ErrorKind::Unavailable, true));
    wait(hasty.ended());
    assert_eq!(hasty.state(), State::Failed);
}

#[test]
fn a_model_that_cannot_be_loaded_fails_every_request_with_its_reason() {
    let settings = Settings { queue: 1, rows: None, remember: false };
    let refuse = || Err(Error::checkpoint("weights.safetensors: truncated"));
    let engine = Engine::start(refuse, settings, Metrics::new().unwrap()).unwrap();
    wait(engine.ended());
    let error = engine.submit(submission(request("tree", "1", 1))).unwrap_err();
    assert_eq!((engine.state(), error.kind()), (State::Failed, &ErrorKind::Checkpoint));
}
