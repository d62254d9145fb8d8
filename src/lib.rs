//! Easel: OpenAI's Images API over an SDXL model that stays on one device.
//!
//! # The way of a request
//! ```text
//! api/images    wire body -> parse -> GenerateRequest             (400 with the parameter's name)
//! engine        submit -> Ticket; dropping the ticket cancels; one thread owns the device
//! pipeline      prompts -> noise from the image's own seed -> UNet calls, each row at its own sigma, guidance and
//!               sampler -> one broadcast update -> VAE decode
//! output        PNG | JPEG | WebP with the parameters inside
//! ```
//! Five ideas keep it small. A request becomes a value once ([`request`]): nothing behind the edges validates again.
//! A sampler is a list of numbers ([`sampler`]): none touches a tensor. The scheduler never sees a tensor and the
//! pipeline never sees a queue. One thread owns the device. The edges are tables.
//!
//! # As a library
//! ```no_run
//! use easel::pipeline::{LoadOptions, Pipeline};
//! use easel::request::{Options, Prompt, Seed};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> easel::error::Result<()> {
//! let pipeline = Pipeline::load(&LoadOptions::sketch())?;
//! let request = Options::default().resolve(Prompt::new("red apple")?, pipeline.defaults(), Seed(7))?;
//! let pictures = pipeline.generate(&request, |progress| {
//!     eprintln!("step {} of {}", progress.step, progress.steps);
//!     ControlFlow::Continue(())
//! })?;
//! pictures[0].as_image().save("apple.png").ok();
//! # Ok(())
//! # }
//! ```
//!
//! # Glossary
//! - *step*: what the user asked for; *eval*: one UNet evaluation of a row (two-evaluation samplers have two a step).
//! - *row*: one latent in a UNet call; *job*: one image; *batch*: the rows that share a call; *group*: what may share
//!   one.
//! - *sigma*: the noise level, `x = x0 + sigma * noise`; *denoised*: the estimate of `x0`.
//! - *context*: the prompt's token embeddings; *pooled*: its one vector; *latents*: what the VAE decodes.

#[cfg(feature = "server")]
pub mod api;
pub mod checkpoint;
pub mod config;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod output;
pub mod pipeline;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod telemetry;
