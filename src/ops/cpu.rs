//! Kernels for processors: slices in, slices out, no tensor in sight.
//!
//! Everything heavy is one small product, [`tile`]: up to 12 rows by 32 columns, summed in f32, or chain by chain in integers
//! of 32 bits, along a depth that is contiguous in both packed operands. [`product`], [`integers`] and [`strassen`] build matrix products
//! and convolutions of it, [`attention`] both of its products. A result's sum always runs in the same order, whatever rows, tiles or threads surround it, so
//! that results do not depend on the batch or the number of threads, to the last bit.
//!
//! Work is shared out by rayon; each thread keeps its scratch memory for the next call.

pub mod attention;
pub mod finish;
pub mod hands;
pub mod integers;
pub mod isa;
pub mod lines;
pub mod math;
pub mod norm;
pub mod pack;
pub mod patches;
pub mod peak;
pub mod pointwise;
pub mod product;
pub mod scaled;
pub mod scratch;
pub mod shared;
pub mod strassen;
pub mod tile;
pub mod values;
pub mod vector;
pub mod weight;
pub mod winograd;
