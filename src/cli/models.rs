//! `easel models`: the models known by name.

use anyhow::Result;
use easel::checkpoint::Settings;

/// Prints each known model with its licence and what it is.
pub fn list() -> Result<()> {
    for (name, settings) in Settings::all()? {
        println!("{name}\n    {}\n    licence: {}", settings.about, settings.license);
    }
    Ok(())
}
