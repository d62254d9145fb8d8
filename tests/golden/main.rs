//! Every stage and whole pictures against diffusers and transformers, in f32 and bf16, on three tiny models.
//!
//! The values come from `tests/fixtures/make_tiny.py`; `tests/fixtures/README.md` says what each tensor is.

mod bf16;
mod pictures;
mod stages;
mod support;
mod tokens;
