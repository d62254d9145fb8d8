//! Devices with a known cost curve.

use easel::scheduler::{Costs, Stage};
use std::time::Duration;

/// Latents of a 512x512 picture.
pub const SMALL: u64 = 64 * 64;
/// Latents of a 1024x1024 picture.
pub const LARGE: u64 = 128 * 128;

/// The times of a device, in seconds.
pub struct Device {
    /// Its name in the tables.
    pub name: &'static str,
    /// The first row of a call at 512x512, and each further one.
    pub small: (f64, f64),
    /// The first row of a call at 1024x1024, and each further one.
    pub large: (f64, f64),
    /// Encoding one request.
    pub encode: f64,
    /// Decoding one 512x512 picture; a larger one in proportion to its pixels.
    pub decode: f64,
    /// The most rows of a call.
    pub rows: u32,
}

/// Eight rows cost 3 times one at 512x512 and 7 times one at 1024x1024. The ratio of the two first rows makes two
/// rows of 1024x1024 cost what eight of 512x512 do, which are as many pixels.
pub const H100: Device = Device {
    name: "H100-like curve",
    small: (0.025, 0.025 * 2.0 / 7.0),
    large: (0.040, 0.040 * 6.0 / 7.0),
    encode: 0.008,
    decode: 0.012,
    rows: 16,
};

/// Each row costs as much as the first: a processor.
pub const CPU: Device = Device {
    name: "flat-cost curve",
    small: (3.0, 3.0),
    large: (13.0, 13.0),
    encode: 0.6,
    decode: 8.0,
    rows: 16,
};

impl Device {
    /// Seconds of a piece of work.
    pub fn seconds(&self, stage: Stage, area: u64, rows: u32) -> f64 {
        let (first, further) = if area == SMALL { self.small } else { self.large };
        match stage {
            Stage::Encode => self.encode,
            Stage::Denoise => first + further * f64::from(rows - 1),
            Stage::Decode => self.decode * area as f64 / SMALL as f64,
        }
    }

    /// What warm-up measures here.
    pub fn costs(&self) -> Costs {
        let mut costs = Costs::default();
        let mut measure = |stage, area, rows| {
            costs.measured(stage, (area, rows), Duration::from_secs_f64(self.seconds(stage, area, rows)));
        };
        for area in [SMALL, LARGE] {
            measure(Stage::Encode, area, 1);
            measure(Stage::Decode, area, 1);
            for rows in [1, 2, 4, 8, 16] {
                measure(Stage::Denoise, area, rows);
            }
        }
        costs
    }
}
