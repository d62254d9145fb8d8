//! `easel serve`: the model behind HTTP.

use anyhow::{Result, bail};
use easel::config::ServeArgs;

/// Loads the model and serves until told to stop.
pub fn run(_args: &ServeArgs) -> Result<()> {
    bail!("wip")
}
