//! The log: tracing's events as text or as JSON lines on standard error.

use crate::error::{Error, Result};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log at level `info`, or at what `RUST_LOG` asks for.
///
/// # Errors
/// If `RUST_LOG` cannot be read as a filter, or a log was started before.
pub fn init(format: LogFormat) -> Result<()> {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() { "info".into() } else { wanted };
    let filter = EnvFilter::builder()
        .parse(&wanted)
        .map_err(|cause| Error::config(format!("RUST_LOG '{wanted}': {cause}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|cause| Error::internal(format!("the log: {cause}")))
}
