//! What rows must agree on to share a UNet call.

/// Jobs of equal keys may share a UNet call; steps, sampler, guidance and seed may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Height of the latents.
    pub height: u32,
    /// Width of the latents.
    pub width: u32,
    /// The context's length in chunks of 77 tokens.
    pub chunks: u32,
    /// Which set of adapters is active; 0 is none.
    pub adapters: u64,
}

impl GroupKey {
    /// Latents of one row.
    pub fn area(&self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }
}
