//! The commands behind the command line, one file each.

pub mod bench;
pub mod generate;
pub mod models;
pub mod openapi;
pub mod serve;
mod signals;
