//! Requests that arrive at random: Poisson arrivals of mixed steps, sizes and guidance.

use crate::device::{Device, LARGE, SMALL};
use easel::scheduler::Stage;
use std::collections::VecDeque;

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

/// Clients who ask for the same picture again and again, each as soon as it has the one before.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    pub count: u64,
    /// Seconds from the end of a picture's decode to its client's next request: coding it, sending it, asking.
    pub pause: f64,
    /// When they ask no more.
    pub until: f64,
}

/// Requests on their way, in the order of their arrival.
#[derive(Debug, Clone)]
pub struct Arrivals {
    coming: VecDeque<Request>,
    /// What clients do once they have a picture: nothing, or ask anew.
    clients: Option<Clients>,
}

impl Arrivals {
    /// The next request that has come by `now`.
    pub fn come(&mut self, now: f64) -> Option<Request> {
        self.coming.pop_front_if(|request| request.arrival <= now)
    }

    /// When the next one comes.
    pub fn next(&self) -> Option<f64> {
        self.coming.front().map(|request| request.arrival)
    }

    /// How many are known to come.
    pub fn len(&self) -> usize {
        self.coming.len()
    }

    /// Tells that a request was drawn at `now`, no earlier than those before.
    pub fn drawn(&mut self, request: &Request, now: f64) {
        let Some(clients) = self.clients else { return };
        let arrival = now + clients.pause;
        if arrival < clients.until {
            self.coming.push_back(Request { arrival, ..*request });
        }
    }
}

impl Clients {
    /// Their first requests, at once, for guided pictures of 1024x1024 in 30 steps; and what follows.
    pub fn arrivals(self) -> Arrivals {
        let first =
            |caller| Request { arrival: 0.0, gone: f64::INFINITY, caller, evals: 30, rows: 2, area: LARGE };
        Arrivals { coming: (0..self.count).map(first).collect(), clients: Some(self) }
    }
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
    /// The same requests for the same traffic.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals { coming: self.requests().into(), clients: None }
    }

    fn requests(&self) -> Vec<Request> {
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
