//! `easel serve`: the model behind HTTP.

use anyhow::Result;
use easel::api::Server;
use easel::config::{LogFormat, ServeArgs};
use easel::engine::Engine;
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
    let start = Instant::now();
    let pipeline = Pipeline::load(&options)?;
    tracing::info!(
        model = pipeline.name(),
        dtype = options.dtype.as_str(),
        seconds = start.elapsed().as_secs_f64(),
        "the model is loaded"
    );
    let engine = Engine::start(pipeline, args.max_queue as usize)?;
    let server = Server::bind(&args.host.to_string(), args.port, engine)?;
    tracing::info!("serving on http://{}", server.address()?);
    Ok(server.run()?)
}
