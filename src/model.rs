//! The networks of SDXL, named as the checkpoint names them; every size is read from its `config.json`.

mod attention;
mod block;
pub mod clip;
pub mod config;
pub mod cost;
mod embed;
pub mod unet;
pub mod vae;
mod vae_tiles;
