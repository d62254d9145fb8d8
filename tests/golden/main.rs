//! Every stage and whole pictures against diffusers and transformers, in f32, on three tiny models.
//!
//! The values come from `tests/fixtures/make_tiny.py`; `tests/fixtures/README.md` says what each tensor is.

mod pictures;
mod stages;
mod support;
mod tokens;
