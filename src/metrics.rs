//! Every metric, one field each; a field's help text is what its doc comment says.
//!
//! The device thread, the HTTP middleware and the store's handlers record here, and nobody else. Labels are bounded: routes are the
//! registered patterns, rows at most the device's budget.

use crate::error::{Error, Result};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

/// Upper bounds in seconds, for whole requests and waits: a tenth of a second to ten minutes.
const LONG: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0];
/// Upper bounds in seconds, for steps and stages: a millisecond to half a minute.
const SHORT: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds in rows.
const ROWS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0];

/// All metrics of one process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// HTTP requests answered, by route pattern and status.
    pub requests: IntCounterVec,
    /// Seconds from a request's arrival to the end of its answer.
    pub request_seconds: Histogram,
    /// Jobs (pictures) that wait for the device.
    pub queue_depth: IntGauge,
    /// Seconds that a job waited before its first work on the device.
    pub queue_wait_seconds: Histogram,
    /// Jobs that the device has begun and not finished.
    pub running_jobs: IntGauge,
    /// Rows of each UNet call.
    pub batch_rows: Histogram,
    /// Seconds of each UNet call with its update, by rows.
    pub step_seconds: HistogramVec,
    /// Seconds of device or output work, by stage: encode, denoise, preview, decode, output.
    pub stage_seconds: HistogramVec,
    /// Pictures drawn.
    pub images: IntCounter,
    /// Jobs whose caller went away before they were done.
    pub cancelled: IntCounter,
    /// Requests refused before any work, by reason.
    pub rejected: IntCounterVec,
    /// Bytes of pictures that were kept for callers who fetch them.
    pub stored_bytes: IntCounter,
    /// Failures of the store of pictures, by operation: write, read, sweep.
    pub storage_failures: IntCounterVec,
    /// Look-ups of a prompt's conditioning, by result: hit, miss.
    pub prompt_cache: IntCounterVec,
    /// The resident model: always 1, its facts are in the labels.
    pub model_info: IntGaugeVec,
    /// Memory that the process or its device holds, in bytes.
    pub device_memory: IntGauge,
}

/// Registers a collector as it is made.
struct Register<'a>(&'a Registry);

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> Result<C> {
        let refused =
            |error: prometheus::Error| Error::internal(format!("a metric is defined wrongly: {error}"));
        let collector = made.map_err(refused)?;
        self.0.register(Box::new(collector.clone())).map_err(refused)?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(SHORT.to_vec()), labels))
    }
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// If two metrics share a name: a fault of this file.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let new = Register(&registry);
        Ok(Self {
            requests: new.counters("easel_requests_total", "HTTP requests answered", &["route", "status"])?,
            request_seconds: new.histogram(
                "easel_request_seconds",
                "Seconds from a request's arrival to the end of its answer",
                LONG,
            )?,
            queue_depth: new.gauge("easel_queue_depth", "Jobs (pictures) that wait for the device")?,
            queue_wait_seconds: new.histogram(
                "easel_queue_wait_seconds",
                "Seconds that a job waited before its first work on the device",
                LONG,
            )?,
            running_jobs: new
                .gauge("easel_running_jobs", "Jobs that the device has begun and not finished")?,
            batch_rows: new.histogram("easel_batch_rows", "Rows of each UNet call", ROWS)?,
            step_seconds: new.histograms(
                "easel_step_seconds",
                "Seconds of each UNet call with its update",
                &["rows"],
            )?,
            stage_seconds: new.histograms("easel_stage_seconds", "Seconds of work, by stage", &["stage"])?,
            images: new.counter("easel_images_total", "Pictures drawn")?,
            cancelled: new
                .counter("easel_cancelled_total", "Jobs whose caller went away before they were done")?,
            rejected: new.counters(
                "easel_rejected_total",
                "Requests refused before any work",
                &["reason"],
            )?,
            stored_bytes: new
                .counter("easel_stored_bytes_total", "Bytes of pictures kept for callers who fetch them")?,
            storage_failures: new.counters(
                "easel_storage_failures_total",
                "Failures of the store of pictures",
                &["operation"],
            )?,
            prompt_cache: new.counters(
                "easel_prompt_cache_total",
                "Look-ups of a prompt's conditioning",
                &["result"],
            )?,
            model_info: new.add(IntGaugeVec::new(
                Opts::new("easel_model_info", "The resident model; always 1"),
                &["model", "device", "dtype"],
            ))?,
            device_memory: new
                .gauge("easel_device_memory_bytes", "Memory that the process or its device holds")?,
            registry,
        })
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a value cannot be written: a fault of this file.
    pub fn text(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let written = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        written.map_err(|error| Error::internal(format!("the metrics cannot be written: {error}")))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_name_that_dashboards_read() {
        let metrics = Metrics::new().expect("the metrics are defined");
        metrics.requests.with_label_values(&["/healthz", "200"]).inc();
        metrics.step_seconds.with_label_values(&["2"]).observe(0.1);
        metrics.stage_seconds.with_label_values(&["decode"]).observe(0.1);
        metrics.rejected.with_label_values(&["queue_full"]).inc();
        metrics.storage_failures.with_label_values(&["write"]).inc();
        metrics.prompt_cache.with_label_values(&["hit"]).inc();
        metrics.model_info.with_label_values(&["sketch", "cpu", "f32"]).set(1);
        let text = String::from_utf8(metrics.text().expect("it is written")).expect("it is text");
        for name in [
            "easel_requests_total{route=\"/healthz\",status=\"200\"} 1",
            "easel_request_seconds_bucket",
            "easel_queue_depth 0",
            "easel_queue_wait_seconds_count 0",
            "easel_running_jobs 0",
            "easel_batch_rows_bucket",
            "easel_step_seconds_count{rows=\"2\"} 1",
            "easel_stage_seconds_count{stage=\"decode\"} 1",
            "easel_images_total 0",
            "easel_cancelled_total 0",
            "easel_rejected_total{reason=\"queue_full\"} 1",
            "easel_stored_bytes_total 0",
            "easel_storage_failures_total{operation=\"write\"} 1",
            "easel_prompt_cache_total{result=\"hit\"} 1",
            "easel_model_info{device=\"cpu\",dtype=\"f32\",model=\"sketch\"} 1",
            "easel_device_memory_bytes 0",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
