//! What rows cost on this device: measured when a model is loaded, and remembered for the next start.

use crate::error::{ErrorKind, Result};
use crate::pipeline::{Job, Pipeline};
use crate::request::{GenerateRequest, Guidance, Options, Prompt, Seed, Size, Steps};
use crate::scheduler::{Costs, Stage};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One measured time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// What was done.
    pub stage: Stage,
    /// Latents of a row.
    pub area: u64,
    /// Rows of the call.
    pub rows: u32,
    /// How long it took.
    pub taken: Duration,
}

/// How long measuring may take before it starts no further call.
const BOUND: Duration = Duration::from_secs(10);
/// On a processor, a doubling of the rows that costs this much more shows that further rows bring nothing.
const FLAT: f64 = 1.9;
/// Runs of each number of rows, of which the quickest counts. On a GPU the first makes plans and the second records.
const RUNS: usize = 2;
const RUNS_ON_A_GPU: usize = 4;

/// Measures encode, decode, and UNet calls of 1, 2, 4, .. rows up to `most_rows` at `size`, or else the model's own. Calls of two
/// rows or more are for jobs with the model's own guidance, whose second rows may cost less than the first.
///
/// On a processor it stops when further rows bring nothing. On a GPU what lies between two rows and the most that fit into its
/// memory is near a straight line, and not measured: each number of rows there takes half a second to prepare. It stops when
/// time runs out, too.
///
/// # Errors
/// If the device fails in another way than for want of memory.
pub fn measure(pipeline: &Pipeline, most_rows: u32, size: Option<Size>) -> Result<Vec<CurvePoint>> {
    let began = Instant::now();
    let (alone, usual) =
        (probe_request(pipeline, size, Some(Guidance::new(1.0)?))?, probe_request(pipeline, size, None)?);
    let (height, width) = pipeline.latent_size(alone.size);
    let area = (height * width) as u64;
    let point = |stage, rows, taken| CurvePoint { stage, area, rows, taken };
    let on_a_gpu = pipeline.memory_taken().is_some();
    let runs = if on_a_gpu { RUNS_ON_A_GPU } else { RUNS };
    if on_a_gpu {
        pipeline.decode(&start(pipeline, &alone, 0)?)?;
    }
    let (job, encode) = timed(|| start(pipeline, &alone, 0))?;
    let (_, decode) = timed(|| pipeline.decode(&job))?;
    let mut points = vec![point(Stage::Encode, 1, encode), point(Stage::Decode, 1, decode)];
    let mut jobs = vec![job];
    let (mut rows, mut most_rows) = (1, most_rows);
    let mut before: Option<(u32, Duration)> = None;
    loop {
        match quickest(pipeline, &mut jobs, runs) {
            Err(error) if *error.kind() == ErrorKind::DeviceMemory && rows > 1 => most_rows = rows / 2,
            taken => {
                let taken = taken?;
                points.push(point(Stage::Denoise, rows, taken));
                let flat = before.is_some_and(|(_, before)| taken > before.mul_f64(FLAT));
                if flat && !on_a_gpu {
                    break;
                }
                before = Some((rows, taken));
            }
        }
        let Some(known) = before else { break };
        let left = BOUND.saturating_sub(began.elapsed()) / runs as u32;
        let Some(next) = next_rows(known, (most_rows, left), on_a_gpu) else { break };
        rows = next;
        jobs = usual_jobs(pipeline, &usual, rows)?;
    }
    Ok(points)
}

/// The rows that are measured after those that are `known`: at most so many as a call of them is likely to end in the time
/// that is left for it.
fn next_rows(known: (u32, Duration), (most_rows, left): (u32, Duration), on_a_gpu: bool) -> Option<u32> {
    let (rows, taken) = known;
    let affordable = f64::from(rows) * left.as_secs_f64() / taken.as_secs_f64().max(f64::MIN_POSITIVE);
    let most = most_rows.min(affordable as u32);
    let next = if on_a_gpu && rows > 1 { 1 << most.checked_ilog2()? } else { 2 * rows };
    (rows < next && next <= most).then_some(next)
}

/// Jobs of `request` that make up a call of `rows` rows, an even number.
fn usual_jobs(pipeline: &Pipeline, request: &GenerateRequest, rows: u32) -> Result<Vec<Job>> {
    let prompts = pipeline.encode_prompts(request)?;
    let mut jobs: Vec<Job> = Vec::new();
    while jobs.iter().map(Job::rows).sum::<usize>() < rows as usize {
        jobs.push(pipeline.start(request, prompts.clone(), jobs.len() as u32)?);
    }
    Ok(jobs)
}

/// The quickest of a few calls with all of `jobs`.
fn quickest(pipeline: &Pipeline, jobs: &mut [Job], runs: usize) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let mut batch: Vec<&mut Job> = jobs.iter_mut().collect();
        best = best.min(timed(|| pipeline.evaluate(&mut batch))?.1);
    }
    Ok(best)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = Instant::now();
    let result = work()?;
    Ok((result, began.elapsed()))
}

/// A request whose plan outlasts the measuring.
fn probe_request(
    pipeline: &Pipeline,
    size: Option<Size>,
    guidance: Option<Guidance>,
) -> Result<GenerateRequest> {
    let options =
        Options { size: size.map(Into::into), guidance, steps: Some(Steps::new(100)?), ..Options::default() };
    options.resolve(Prompt::new("a picture")?, pipeline.defaults(), Seed(0))
}

fn start(pipeline: &Pipeline, request: &GenerateRequest, k: u32) -> Result<Job> {
    pipeline.start(request, pipeline.encode_prompts(request)?, k)
}

/// What the scheduler is to know of these times.
pub(super) fn costs(points: &[CurvePoint]) -> Costs {
    let mut costs = Costs::default();
    for point in points {
        costs.measured(point.stage, (point.area, point.rows), point.taken);
    }
    costs
}

/// The curve of this model on this device: remembered from an earlier start, or measured now and remembered.
///
/// A curve that cannot be measured or kept costs speed, not pictures: it is logged and left empty.
pub(super) fn curve(pipeline: &Pipeline, most_rows: u32, remember: bool) -> Vec<CurvePoint> {
    let file = remember.then(|| file(pipeline)).flatten();
    let identity = format!("easel {} {}", env!("CARGO_PKG_VERSION"), pipeline.identity());
    let known = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    if let Some(points) = known.and_then(|text| parse(&text, &identity)) {
        tracing::info!(points = points.len(), "the cost curve is remembered from an earlier start");
        return points;
    }
    // An inpainting model has no request without a picture; its costs are learnt from work.
    let points = measure(pipeline, most_rows, None).unwrap_or_else(|error| {
        tracing::warn!(%error, "the cost curve could not be measured; it is learnt from work");
        Vec::new()
    });
    for point in &points {
        let seconds = point.taken.as_secs_f64();
        tracing::info!(stage = ?point.stage, latents = point.area, rows = point.rows, seconds, "measured");
    }
    if let Some(file) = file
        && !points.is_empty()
        && let Err(error) = keep(&file, &identity, &points)
    {
        tracing::info!(file = %file.display(), %error, "the cost curve is not remembered");
    }
    points
}

/// Beside the model where it is a folder, in the user's cache where it is bundled.
fn file(pipeline: &Pipeline) -> Option<PathBuf> {
    let beside = pipeline.folder().map(|folder| folder.join("easel-curve.txt"));
    let cache = || {
        let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let folder = given.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(folder.join("easel").join(format!("curve-{}.txt", pipeline.name().replace([':', '/'], "-"))))
    };
    beside.or_else(cache)
}

fn keep(file: &std::path::Path, identity: &str, points: &[CurvePoint]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, text(identity, points))
}

/// A line that says what was measured, then a line for each time: stage, latents, rows, seconds.
fn text(identity: &str, points: &[CurvePoint]) -> String {
    let mut text = format!("{identity}\n");
    for CurvePoint { stage, area, rows, taken } in points {
        // Writing into a text cannot fail.
        let _ = writeln!(text, "{stage:?} {area} {rows} {}", taken.as_secs_f64());
    }
    text
}

/// The times in a text of [`text`]'s; none if it was measured of something else, or is damaged.
fn parse(text: &str, identity: &str) -> Option<Vec<CurvePoint>> {
    let mut lines = text.lines();
    if lines.next()? != identity {
        return None;
    }
    lines.map(point).collect::<Option<Vec<_>>>().filter(|points| !points.is_empty())
}

fn point(line: &str) -> Option<CurvePoint> {
    let mut words = line.split_whitespace();
    let stage = match words.next()? {
        "Encode" => Stage::Encode,
        "Denoise" => Stage::Denoise,
        "Decode" => Stage::Decode,
        _ => return None,
    };
    let (area, rows) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let seconds: f64 = words.next()?.parse().ok()?;
    let taken = Duration::try_from_secs_f64(seconds).ok().filter(|taken| !taken.is_zero())?;
    Some(CurvePoint { stage, area, rows, taken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_curve_is_read_back_and_that_of_another_device_is_not() {
        let point =
            |stage, rows, millis| CurvePoint { stage, area: 256, rows, taken: Duration::from_millis(millis) };
        let points =
            vec![point(Stage::Encode, 1, 5), point(Stage::Denoise, 2, 12), point(Stage::Decode, 1, 30)];
        let text = text("easel 1 sketch", &points);
        assert_eq!(parse(&text, "easel 1 sketch"), Some(points));
        assert_eq!(parse(&text, "easel 2 sketch"), None);
    }

    #[test]
    fn rows_double_on_a_processor_and_a_gpu_goes_on_to_the_most() {
        let (taken, ample) = (Duration::from_millis(10), Duration::from_secs(9));
        let next = |rows, most, left, on_a_gpu| next_rows((rows, taken), (most, left), on_a_gpu);
        assert_eq!([1, 2, 4, 8].map(|rows| next(rows, 12, ample, false)), [Some(2), Some(4), Some(8), None]);
        assert_eq!([1, 2, 8].map(|rows| next(rows, 12, ample, true)), [Some(2), Some(8), None]);
        assert_eq!(next(1, 1, ample, true), None);
    }

    #[test]
    fn no_more_rows_are_measured_than_there_is_time_for() {
        let next = |left, on_a_gpu| next_rows((2, Duration::from_secs(1)), (16, left), on_a_gpu);
        assert_eq!(next(Duration::from_millis(2500), true), Some(4));
        for on_a_gpu in [false, true] {
            assert_eq!(next(Duration::from_millis(1500), on_a_gpu), None);
            assert_eq!(next(Duration::ZERO, on_a_gpu), None);
        }
    }

    #[test]
    fn a_damaged_curve_is_measured_anew() {
        for damaged in [
            "",
            "me",
            "me\n",
            "me\nDenoise 256 1",
            "me\nDenoise 256 1 NaN",
            "me\nPaint 1 1 1",
            "me\nDenoise 1 1 0",
        ] {
            assert_eq!(parse(damaged, "me"), None, "{damaged:?}");
        }
    }
}
