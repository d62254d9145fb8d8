//! Devices with a known cost curve.

use easel::scheduler::{Costs, Stage};
use std::time::Duration;

/// Latents of a 512x512 picture.
pub const SMALL: u64 = 64 * 64;
/// Latents of a 1024x1024 picture.
pub const LARGE: u64 = 128 * 128;

/// Seconds of a UNet call by its rows: as many as were measured, in rising order.
type Curve = &'static [(u32, f64)];

/// The times of a device, in seconds.
pub struct Device {
    /// Its name in the tables.
    pub name: &'static str,
    /// UNet calls at 512x512 and at 1024x1024.
    pub denoise: [Curve; 2],
    /// Encoding one request.
    pub encode: f64,
    /// Decoding one 512x512 picture, and one of 1024x1024.
    pub decode: [f64; 2],
    /// The most rows of a call.
    pub rows: u32,
    /// Whether a call is filled up to the next number of rows that was measured.
    pub fills: bool,
    /// Rows of the calls that warm-up measures, at either size.
    pub warm_up: [&'static [u32]; 2],
}

/// SDXL in f16 on one H100, as `easel bench` measured it (docs/scheduling.md).
pub const H100: Device = Device {
    name: "H100",
    denoise: [&H100_SMALL, &H100_LARGE],
    encode: 0.0013,
    decode: [0.0052, 0.0195],
    rows: 16,
    fills: true,
    // A server measures the model's own size, and learns what lies between, and other sizes, from work.
    warm_up: [&[], &[1, 2, 16]],
};

const H100_SMALL: [(u32, f64); 8] = [
    (1, 0.0076),
    (2, 0.0099),
    (3, 0.0119),
    (4, 0.0141),
    (6, 0.0198),
    (8, 0.0240),
    (12, 0.0368),
    (16, 0.0463),
];
const H100_LARGE: [(u32, f64); 8] = [
    (1, 0.0150),
    (2, 0.0259),
    (3, 0.0415),
    (4, 0.0502),
    (6, 0.0746),
    (8, 0.0984),
    (12, 0.1454),
    (16, 0.1927),
];

/// Each row costs as much as the first: a processor. Made up.
pub const CPU: Device = Device {
    name: "flat-cost curve",
    denoise: [&[(1, 3.0), (16, 48.0)], &[(1, 13.0), (16, 208.0)]],
    encode: 0.6,
    decode: [8.0, 32.0],
    rows: 16,
    fills: false,
    warm_up: [&[1, 2, 4, 8, 16]; 2],
};

impl Device {
    /// Seconds of a piece of work.
    pub fn seconds(&self, stage: Stage, area: u64, rows: u32) -> f64 {
        let size = usize::from(area != SMALL);
        match stage {
            Stage::Encode => self.encode,
            Stage::Denoise => self.call(self.denoise[size], rows),
            Stage::Decode => self.decode[size],
        }
    }

    /// Seconds of a UNet call: that of the next number of rows that was measured, or on a line between two.
    fn call(&self, curve: Curve, rows: u32) -> f64 {
        let next = curve.partition_point(|(measured, _)| *measured < rows).min(curve.len() - 1);
        let (above, slow) = curve[next];
        let Some((below, quick)) = next.checked_sub(1).map(|before| curve[before]).filter(|_| !self.fills)
        else {
            return slow;
        };
        quick + (slow - quick) * f64::from(rows - below) / f64::from(above - below)
    }

    /// What warm-up measures here.
    pub fn costs(&self) -> Costs {
        let mut costs = Costs::default();
        let mut measure = |stage, area, rows| {
            costs.measured(stage, (area, rows), Duration::from_secs_f64(self.seconds(stage, area, rows)));
        };
        for (area, rows) in [SMALL, LARGE].into_iter().zip(self.warm_up) {
            if !rows.is_empty() {
                measure(Stage::Encode, area, 1);
                measure(Stage::Decode, area, 1);
            }
            for rows in rows {
                measure(Stage::Denoise, area, *rows);
            }
        }
        costs
    }
}
