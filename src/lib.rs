//! Easel
pub mod checkpoint;
pub mod error;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod request;
pub mod sampler;
pub mod config;
pub mod output;
