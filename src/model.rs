//! The networks of SDXL, named as the checkpoint names them; every size is read from its `config.json`.
//!
//! Reading a network fails when its config selects a variant that is not built, or a tensor is missing or of another
//! shape; running one fails when shapes do not fit or the device fails.

mod attention;
mod block;
pub mod clip;
pub mod config;
pub mod cost;
mod embed;
pub mod unet;
pub mod vae;
mod vae_tiles;

pub use crate::ops::{activation_dtype, bytes, combine, memory_taken, open_gpu};
