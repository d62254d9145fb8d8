//! `easel serve`: the model behind HTTP.

use super::signals::Signals;
use anyhow::Result;
use easel::api::{self, KeySource, Keys, Server};
use easel::config::{AccessArgs, LogFormat, Secret, ServeArgs};
use easel::engine::{self, Engine};
use easel::metrics::Metrics;
use easel::pipeline::{LoadOptions, Pipeline};
use easel::telemetry;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Serves until told to stop. The server answers while the model loads.
pub fn run(args: &ServeArgs) -> Result<()> {
    telemetry::init(match args.log {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    })?;
    let options = crate::prepare(&args.model)?;
    let settings = api::Settings {
        timeout: args.timeout.0,
        grace: Duration::from_secs(u64::from(args.grace)),
        storage: args.storage.storage.clone(),
        url_lifetime: Duration::from_secs(u64::from(args.storage.url_lifetime)),
        public_url: args.storage.public_url.clone(),
        fetch_from: args.uploads.fetch_images_from.clone(),
        room: (args.uploads.upload_memory as usize) << 20,
        ..access(&args.access)?
    };
    let metrics = Metrics::new()?;
    let work = engine::Settings { queue: args.max_queue as usize, rows: args.max_rows.0, remember: true };
    let engine = Engine::start(move || load(&options), work, metrics.clone())?;
    let keys = settings.keys.clone();
    if !args.host.is_loopback() && !keys.asked_for() {
        tracing::warn!(
            host = %args.host,
            "anyone who reaches this address may draw: no API keys are set (--api-keys-file, EASEL_API_KEYS)"
        );
    }
    let server = Server::bind(&args.host.to_string(), args.port, engine, metrics, settings)?;
    tracing::info!("serving on http://{}", server.address()?);
    let (grace, reload) = (args.grace, args.access.api_keys_file.is_some());
    server.run(async move {
        if reload {
            tokio::spawn(reload_at_hangup(keys));
        }
        told_to_stop(grace).await;
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// The settings that say who may call.
fn access(args: &AccessArgs) -> easel::error::Result<api::Settings> {
    let text = args.api_keys.as_ref().map(|Secret(text)| text.clone());
    Ok(api::Settings {
        model_aliases: args.model_aliases.clone(),
        keys: Keys::read(KeySource { file: args.api_keys_file.clone(), text })?,
        requests_per_minute: args.requests_per_minute.and_then(NonZeroU32::new),
        pictures_per_caller: args.pictures_per_caller.and_then(NonZeroU32::new),
        cors_origins: args.cors_origins.clone(),
        ..api::Settings::default()
    })
}

/// Reads the keys again at every SIGHUP. Only for a server with a file of keys: any other ends, as programs do when the
/// terminal they were started from is closed.
async fn reload_at_hangup(keys: Keys) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(cause) => {
            return tracing::warn!("SIGHUP cannot be listened to, so that it ends the program: {cause}");
        }
    };
    while hangups.recv().await.is_some() {
        match keys.reload() {
            Ok(keys) => tracing::info!(keys, "the API keys have been read again"),
            Err(error) => tracing::error!(%error, "the API keys stay as they were"),
        }
    }
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
