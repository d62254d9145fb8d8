//! Requests that arrive at random: Poisson arrivals of mixed steps, sizes and guidance.

use crate::device::{Device, LARGE, SMALL};
use easel::scheduler::Stage;

/// One request for one picture. Times are seconds.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub arrival: f64,
    /// When its client hangs up, unless the picture came before.
    pub gone: f64,
    pub caller: u64,
    pub evals: u32,
    /// Rows of each evaluation.
    pub rows: u32,
    /// Latents of a row.
    pub area: u64,
}

/// Which sizes are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Its name in the tables.
    pub name: &'static str,
    /// The share of requests of 1024x1024; the others are 512x512.
    large: f64,
}

impl Mix {
    /// Small pictures alone.
    pub const SMALL: Self = Self { name: "512x512", large: 0.0 };
    /// Mostly small pictures.
    pub const MIXED: Self = Self { name: "three of 512x512 to one of 1024x1024", large: 0.25 };
    /// As many small as large pictures.
    pub const EVEN: Self = Self { name: "one of 512x512 to one of 1024x1024", large: 0.5 };
    /// Large pictures alone.
    pub const LARGE: Self = Self { name: "1024x1024", large: 1.0 };
}

/// A run's requests in the making.
pub struct Traffic<'a> {
    pub device: &'a Device,
    pub mix: Mix,
    pub requests: usize,
    /// What the random numbers begin with.
    pub seed: u64,
    /// Arrivals a second as a share of what one request at a time can do at most; none: all arrive at once.
    pub load: Option<f64>,
}

/// Step counts that people ask for. Any count would do for the scheduler; batches of equal requests need equal ones.
const STEPS: [u32; 8] = [4, 8, 12, 20, 25, 30, 40, 50];
/// Callers.
const CALLERS: u64 = 40;
/// The share of clients that hang up some time after they came.
const HANG_UP: f64 = 0.05;

impl Request {
    /// Seconds that it takes alone.
    pub fn alone(&self, device: &Device) -> f64 {
        device.seconds(Stage::Encode, self.area, 1)
            + f64::from(self.evals) * device.seconds(Stage::Denoise, self.area, self.rows)
            + device.seconds(Stage::Decode, self.area, 1)
    }
}

impl Traffic<'_> {
    /// The requests in the order of their arrival: the same for the same traffic.
    pub fn requests(&self) -> Vec<Request> {
        let mut random = Lcg(self.seed);
        let mut requests: Vec<Request> = (0..self.requests).map(|_| self.request(&mut random)).collect();
        let mean =
            requests.iter().map(|request| request.alone(self.device)).sum::<f64>() / self.requests as f64;
        let mut now = 0.0;
        for request in &mut requests {
            now += self.load.map_or(0.0, |load| mean / load * -(1.0 - random.unit()).ln());
            request.arrival = now;
            request.gone =
                if random.unit() < HANG_UP { now + 4.0 * mean * random.unit() } else { f64::INFINITY };
        }
        requests
    }

    fn request(&self, random: &mut Lcg) -> Request {
        Request {
            arrival: 0.0,
            gone: f64::INFINITY,
            caller: random.below(CALLERS),
            evals: STEPS[random.below(STEPS.len() as u64) as usize],
            rows: 1 + random.below(2) as u32,
            area: if random.unit() < self.mix.large { LARGE } else { SMALL },
        }
    }
}

/// Knuth's 64-bit linear congruential generator.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn unit(&mut self) -> f64 {
        self.below(1 << 30) as f64 / f64::from(1 << 30)
    }
}
