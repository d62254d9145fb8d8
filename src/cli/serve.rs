//! `easel serve`: the model behind HTTP.

use super::signals::Signals;
use anyhow::Result;
use easel::api::{self, Server};
use easel::config::{LogFormat, ServeArgs};
use easel::engine::{self, Engine};
use easel::metrics::Metrics;
use easel::pipeline::{LoadOptions, Pipeline};
use easel::telemetry;
use std::time::{Duration, Instant};

/// Serves until told to stop. The server answers while the model loads.
pub fn run(args: &ServeArgs) -> Result<()> {
    telemetry::init(match args.log {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    })?;
    let options = crate::prepare(&args.model)?;
    let metrics = Metrics::new()?;
    let work = engine::Settings { queue: args.max_queue as usize, rows: args.max_rows.0, remember: true };
    let engine = Engine::start(move || load(&options), work, metrics.clone())?;
    let settings = api::Settings {
        timeout: args.timeout.0,
        grace: Duration::from_secs(u64::from(args.grace)),
        model_aliases: args.access.model_aliases.clone(),
        storage: args.storage.storage.clone(),
        url_lifetime: Duration::from_secs(u64::from(args.storage.url_lifetime)),
        public_url: args.storage.public_url.clone(),
        fetch_from: args.uploads.fetch_images_from.clone(),
        room: (args.uploads.upload_memory as usize) << 20,
        ..api::Settings::default()
    };
    let server = Server::bind(&args.host.to_string(), args.port, engine, metrics, settings)?;
    tracing::info!("serving on http://{}", server.address()?);
    server.run(told_to_stop(args.grace))?;
    tracing::info!("stopped");
    Ok(())
}

fn load(options: &LoadOptions) -> easel::error::Result<Pipeline> {
    let start = Instant::now();
    let pipeline = Pipeline::load(options)?;
    tracing::info!(
        model = pipeline.name(),
        dtype = options.dtype.as_str(),
        seconds = start.elapsed().as_secs_f64(),
        "the model is loaded"
    );
    Ok(pipeline)
}

/// Resolves at the first SIGTERM or SIGINT. The second one ends the program at once.
async fn told_to_stop(grace: u16) {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(cause) => {
            tracing::warn!("signals cannot be listened to, so that one ends the program at once: {cause}");
            return std::future::pending().await;
        }
    };
    let first = signals.next().await;
    tracing::info!(signal = first.name, grace_s = grace, "stopping: no request is taken on any more");
    tokio::spawn(async move {
        let second = signals.next().await;
        tracing::warn!(signal = second.name, "stopping at once");
        std::process::exit(second.status());
    });
}
