//! The most that this machine's cores can do: what kernels are held against.

use super::isa::Isa;
use super::tile::{self, COLUMNS, Run};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long a set of instructions is tried: long enough for cores to settle at their clock under load.
const TRIAL: Duration = Duration::from_millis(300);
/// Steps between two looks at the clock.
const STEPS: usize = 100_000;

/// The most operations a second of all threads together, a multiplication and an addition each counting for one: sums in
/// registers, no memory touched. [`Isa::Avx512Bf16`] counts its dot products.
pub fn peak(isa: Isa) -> f64 {
    rayon::broadcast(|_| rate(isa)).iter().sum()
}

/// Operations a second of this thread.
fn rate(isa: Isa) -> f64 {
    let start = Instant::now();
    let mut best = 0f64;
    while start.elapsed() < TRIAL {
        let before = Instant::now();
        let operations = burn(isa);
        best = best.max(operations / before.elapsed().as_secs_f64());
    }
    best
}

/// Multiplies and adds for a while, and says how often.
fn burn(isa: Isa) -> f64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::available` found the features.
        Isa::Avx512Bf16 => (STEPS * unsafe { tile::avx512bf16::burn(STEPS) }) as f64,
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => (STEPS * unsafe { tile::avx512::burn(STEPS) }) as f64,
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => (STEPS * unsafe { tile::avx2::burn(STEPS) }) as f64,
        _ => portable(),
    }
}

/// Plain loops have no registers of their own: their peak is a tile whose operands stay in the first-level cache.
fn portable() -> f64 {
    const DEPTH: usize = 128;
    let (a, b, mut c) = ([1f32; 4 * DEPTH], [1f32; COLUMNS * DEPTH], [0f32; 4 * COLUMNS]);
    let calls = STEPS / DEPTH;
    for _ in 0..calls {
        let a = [Run::of_columns(black_box(&a), 4)];
        tile::multiply(Isa::Portable, &a, black_box(&b[..]).into(), &mut c, true);
    }
    black_box(c);
    (calls * DEPTH * 4 * COLUMNS * 2) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in Isa::available() {
            let found = rate(isa);
            assert!(found.is_finite() && found > 1e8, "{isa:?}: {found}");
        }
    }
}
