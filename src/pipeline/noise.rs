//! Normal noise on the host, value for value that of torch's CPU generator, so that a seed draws the picture it
//! draws in diffusers, ComfyUI and A1111.
//!
//! Sources: `ATen/core/MT19937RNGEngine.h`, `ATen/core/DistributionsHelper.h` (`uniform_real_distribution`,
//! `normal_distribution`) and `ATen/native/cpu/DistributionTemplates.h` (`normal_fill`) of PyTorch 2.15.

use std::f32;
use std::f64;

/// Numbers in a state of the twister.
const STATE: usize = 624;
/// The distance of the twister's recurrence.
const SHIFT: usize = 397;
/// Values that torch transforms at a time; shorter draws take the scalar path.
const BLOCK: usize = 16;

/// A stream of normal numbers for one image: `torch.Generator("cpu").manual_seed(seed)`.
///
/// Draws continue the stream, so the order and the sizes of the draws are part of what a seed means.
#[derive(Debug, Clone)]
pub struct Generator {
    twister: Twister,
    /// The second value of the last pair drawn one by one. Torch keeps it across draws, block draws included.
    spare: Option<f64>,
}

impl Generator {
    /// The generator of `seed`. As in torch only the low 32 bits count.
    pub fn new(seed: u64) -> Self {
        Self { twister: Twister::new((seed & 0xFFFF_FFFF) as u32), spare: None }
    }

    /// The next `count` standard normal values: `torch.randn(count, generator=...)` in f32.
    ///
    /// Sixteen values or more are drawn in blocks of single precision; fewer are drawn one by one in double.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.single() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.twister.uniform_f32()).collect();
        values.as_chunks_mut::<BLOCK>().0.iter_mut().for_each(to_normal);
        if !count.is_multiple_of(BLOCK)
            && let Some(last) = values.last_chunk_mut::<BLOCK>()
        {
            // Torch draws the last sixteen afresh rather than a part of a block.
            last.fill_with(|| self.twister.uniform_f32());
            to_normal(last);
        }
        values
    }

    /// One value of a Box-Muller pair in double precision; every second call returns the kept one.
    fn single(&mut self) -> f64 {
        if let Some(kept) = self.spare.take() {
            return kept;
        }
        let angle = 2.0 * f64::consts::PI * self.twister.uniform_f64();
        let radius = (-2.0 * (-self.twister.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Box-Muller over sixteen uniforms: eight radii, then eight angles.
fn to_normal(block: &mut [f32; BLOCK]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (a, b) in radii.iter_mut().zip(angles) {
        // 1 - u is in (0, 1], so that the logarithm is finite.
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let (sin, cos) = (2.0 * f32::consts::PI * *b).sin_cos();
        (*a, *b) = (radius * cos, radius * sin);
    }
}

/// The Mersenne twister MT19937 (Matsumoto and Nishimura 1998).
#[derive(Debug, Clone)]
struct Twister {
    state: Box<[u32; STATE]>,
    next: usize,
}

impl Twister {
    fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; STATE]);
        for i in 1..STATE {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: STATE }
    }

    /// Uniform in [0, 1) with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.draw() & 0xFF_FFFF) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// Uniform in [0, 1) with 53 bits; the first draw is the high word.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.draw());
        let bits = ((high << 32) | u64::from(self.draw())) & ((1 << 53) - 1);
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }

    fn draw(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
            self.next = 0;
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9D2C_5680;
        word ^= (word << 15) & 0xEFC6_0000;
        word ^ (word >> 18)
    }

    /// Replaces the state by the next 624 words.
    fn twist(&mut self) {
        let word = |high: u32, low: u32, shifted: u32| {
            let joined = (high & 0x8000_0000) | (low & 0x7FFF_FFFF);
            shifted ^ (joined >> 1) ^ ((joined & 1) * 0x9908_B0DF)
        };
        let state = &mut self.state;
        for i in 0..STATE - SHIFT {
            state[i] = word(state[i], state[i + 1], state[i + SHIFT]);
        }
        for i in STATE - SHIFT..STATE - 1 {
            state[i] = word(state[i], state[i + 1], state[i + SHIFT - STATE]);
        }
        state[STATE - 1] = word(state[STATE - 1], state[0], state[SHIFT - 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Made by `tests/fixtures/prompt/make_noise_golden.py` with torch 2.15.
    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prompt/noise.json"));

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        seed: u64,
        draws: Vec<Draw>,
    }

    #[derive(Deserialize)]
    struct Draw {
        count: usize,
        first: Vec<f32>,
        last: Vec<f32>,
        /// The sum, and the sum of each value times its place (from 1) divided by the count.
        sums: [f64; 2],
    }

    #[test]
    fn draws_are_those_of_torch_value_for_value_and_go_on_where_the_last_one_ended() {
        let golden: Golden = serde_json::from_str(GOLDEN).expect("the golden file is JSON");
        assert_eq!(golden.cases.len(), 40);
        for Case { seed, draws } in golden.cases {
            let mut generator = Generator::new(seed);
            for (k, Draw { count, first, last, sums }) in draws.into_iter().enumerate() {
                let case = format!("draw {k} of {count} values with seed {seed}");
                let values = generator.normal(count);
                assert_eq!(values.len(), count, "{case}");
                let ends = [(&values[..first.len()], first), (&values[count - last.len()..], last)];
                for (got, want) in ends.iter().flat_map(|(got, want)| got.iter().zip(want)) {
                    assert!((got - want).abs() <= 5e-7, "{case}: {got} is not {want}");
                }
                let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
                let placed: f64 = (1..).zip(&values).map(|(k, &v)| f64::from(k) * f64::from(v)).sum();
                for (got, want) in [sum, placed / count as f64].into_iter().zip(sums) {
                    assert!((got - want).abs() <= 1e-4, "{case}: the sum {got} is not {want}");
                }
            }
        }
    }

    #[test]
    fn only_the_low_32_bits_of_a_seed_count() {
        let draw = |seed| Generator::new(seed).normal(40);
        assert_eq!(draw(7), draw((1 << 32) + 7));
        assert_eq!(draw(7), draw((0xFFFF_FFFF << 32) + 7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn nothing_drawn_leaves_the_stream_where_it_is() {
        let (mut one, mut other) = (Generator::new(3), Generator::new(3));
        assert!(one.normal(0).is_empty());
        assert_eq!(one.normal(17), other.normal(17));
    }

    #[test]
    fn a_long_draw_is_finite_with_mean_0_and_variance_1() {
        let values = Generator::new(11).normal(1 << 20);
        let mean =
            |f: fn(f64) -> f64| values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / values.len() as f64;
        assert!(values.iter().all(|v| v.is_finite()));
        assert!(mean(|v| v).abs() < 3e-3, "mean {}", mean(|v| v));
        assert!((mean(|v| v * v) - 1.0).abs() < 5e-3, "variance {}", mean(|v| v * v));
        assert!((mean(|v| v.powi(4)) - 3.0).abs() < 3e-2, "fourth moment {}", mean(|v| v.powi(4)));
    }
}
