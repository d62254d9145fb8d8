//! `easel openapi`: what the server answers, for programs that make clients of it.

use anyhow::Result;

/// Prints the OpenAPI document as JSON.
pub fn print() -> Result<()> {
    println!("{}", easel::api::document().to_pretty_json()?);
    Ok(())
}
