//! What the tests of the scheduler share: devices with known costs and a small generator.

use super::{Costs, Stage};
use std::time::Duration;

/// A device on which a row of `area` latents costs `(first, further)` seconds: the first row of a call and each more.
pub struct Device {
    small: (f64, f64),
    large: (f64, f64),
    /// Seconds of decoding for a row of 64x64 latents; four times that for 128x128.
    decode: f64,
}

/// Eight rows cost 3 times one at 64x64 latents and 7 times one at 128x128.
pub const H100: Device =
    Device { small: (0.025, 0.025 * 2.0 / 7.0), large: (0.040, 0.040 * 6.0 / 7.0), decode: 0.015 };
/// Each row costs as much as the first.
pub const FLAT: Device = Device { small: (1.0, 1.0), large: (4.5, 4.5), decode: 2.0 };

impl Device {
    /// Seconds of one piece of work.
    pub fn seconds(&self, stage: Stage, area: u64, rows: u32) -> f64 {
        match stage {
            Stage::Encode => 0.4 * self.small.0,
            Stage::Denoise => {
                let (first, further) = if area <= 4096 { self.small } else { self.large };
                first + further * f64::from(rows - 1)
            }
            Stage::Decode => self.decode * area as f64 / 4096.0,
        }
    }

    /// What warm-up measures on this device for up to `rows` rows.
    pub fn costs(&self, rows: u32) -> Costs {
        let mut costs = Costs::default();
        for area in [4096, 16384] {
            for stage in [Stage::Encode, Stage::Decode] {
                costs.measured(stage, (area, 1), Duration::from_secs_f64(self.seconds(stage, area, 1)));
            }
            for rows in (0..).map(|power| 1 << power).take_while(|few| *few <= rows) {
                let taken = self.seconds(Stage::Denoise, area, rows);
                costs.measured(Stage::Denoise, (area, rows), Duration::from_secs_f64(taken));
            }
        }
        costs
    }
}

/// Knuth's 64-bit linear congruential generator.
pub struct Lcg(pub u64);

impl Lcg {
    /// A whole number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 30)
    }
}
