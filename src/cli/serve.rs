//! `easel serve`: the model behind HTTP.

use anyhow::Result;
use easel::api::Server;
use easel::config::{LogFormat, ServeArgs};
use easel::engine::{Engine, Settings};
use easel::metrics::Metrics;
use easel::pipeline::Pipeline;
use easel::telemetry;
use std::time::Instant;

/// Loads the model and serves until told to stop.
pub fn run(args: &ServeArgs) -> Result<()> {
    telemetry::init(match args.log {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    })?;
    let options = crate::prepare(&args.model)?;
    let load = move || {
        let start = Instant::now();
        let pipeline = Pipeline::load(&options)?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(
            model = pipeline.name(),
            dtype = options.dtype.as_str(),
            seconds,
            "the model is loaded"
        );
        Ok(pipeline)
    };
    let settings = Settings { queue: args.max_queue as usize, rows: None, remember: true };
    let engine = Engine::start(load, settings, Metrics::new()?)?;
    let server = Server::bind(&args.host.to_string(), args.port, engine)?;
    tracing::info!("serving on http://{}", server.address()?);
    Ok(server.run()?)
}
