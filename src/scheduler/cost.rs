//! The worth of a batch, measured: how long the device takes for work of so many rows of such a size.

use std::collections::BTreeMap;
use std::time::Duration;

/// What the device does for a job, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Prompts to conditionings, noise to latents.
    Encode,
    /// One UNet call.
    Denoise,
    /// Latents to pixels.
    Decode,
}

/// Times by rows; never empty.
type Curve = BTreeMap<u32, Point>;

/// The time of one number of rows.
#[derive(Debug, Clone, Copy)]
struct Point {
    seconds: f64,
    /// Whether it was measured, or taken over from another size.
    measured: bool,
}

/// Seconds for work of each stage, by size class and rows. Starts from what warm-up measured and learns from all work.
///
/// Sizes fall into classes a quarter of an octave wide (of the number of latents), so that whatever is asked for,
/// there are at most some sixty.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    curves: BTreeMap<(Stage, i32), Curve>,
    /// The most latents that one call had in warm-up: what is known to fit into memory.
    fits: u64,
    /// Rows that turned out too many, by class: no call may have more than the number here.
    caps: BTreeMap<i32, u32>,
    /// Calls so far, by class and rows, of numbers of rows that are not measured.
    met: BTreeMap<(i32, u32), u32>,
}

/// The share of the news in what is known.
const NEWS: f64 = 0.1;
/// A single time counts for at most so many times what was known: a first call of a new shape compiles and tunes.
const SURPRISE: f64 = 3.0;
/// The first calls of so many rows, which teach nothing: in one a GPU makes plans, in the next it records.
const PREPARING: u32 = 2;
/// The shortest time that is believed, in seconds: clocks may stand still, and ratios of times must be numbers.
const SHORTEST: f64 = 1e-9;
/// Rows must raise the throughput by this factor to pay; less is noise of the measurement.
const WORTHWHILE: f64 = 1.05;
/// Seconds for one row of one latent while nothing is measured at all. Only ratios matter then.
const UNMEASURED: f64 = 1e-5;

fn class(area: u64) -> i32 {
    (4.0 * (area.max(1) as f64).log2()).round() as i32
}

fn class_area(class: i32) -> f64 {
    (f64::from(class) / 4.0).exp2()
}

impl Costs {
    /// Takes over a time that warm-up measured, for `rows` rows of `area` latents each.
    pub fn measured(&mut self, stage: Stage, (area, rows): (u64, u32), taken: Duration) {
        if stage == Stage::Denoise {
            self.fits = self.fits.max(area * u64::from(rows));
        }
        let class = class(area);
        let seconds = taken.as_secs_f64().max(SHORTEST) * class_area(class) / area.max(1) as f64;
        self.curves.entry((stage, class)).or_default().insert(rows, Point { seconds, measured: true });
    }

    /// Learns from work that was done for jobs.
    ///
    /// What is learned of some rows of a size also moves what is known of its other rows, by half (the device may have
    /// become slower, or these rows alone). The first calls of a number of rows that was not measured only make the next ones
    /// quick, and teach nothing; the time of the one behind them is taken as it is, and says nothing of other rows that were
    /// measured: a device may need as long for twelve as for sixteen. A size that was never measured begins with the nearest size's
    /// curve, which moves as a whole until each of its points has been measured.
    pub fn learn(&mut self, stage: Stage, (area, rows): (u64, u32), taken: Duration) {
        let class = class(area);
        if stage == Stage::Denoise && self.prepares(class, rows) {
            return;
        }
        let scale = class_area(class) / area.max(1) as f64;
        let taken = taken.as_secs_f64().max(SHORTEST) * scale;
        if self.nearest(stage, class).is_none() {
            self.curves
                .insert((stage, class), Curve::from([(rows, Point { seconds: taken, measured: true })]));
            return;
        }
        let known = self.seconds(stage, area, rows) * scale;
        let mut curve = self.curves.remove(&(stage, class)).unwrap_or_else(|| self.borrowed(stage, class));
        // Whether it is a first time among others that were measured.
        let new = !is_measured(&curve, rows) && curve.values().any(|point| point.measured);
        let taken = taken.min(SURPRISE * known);
        let moved = 1.0 + NEWS * (taken / known - 1.0);
        for point in curve.values_mut() {
            point.seconds *= match (point.measured, new) {
                (false, _) => moved,
                (true, false) => moved.sqrt(),
                (true, true) => 1.0,
            };
        }
        let seconds = if new { taken } else { known * moved };
        curve.insert(rows, Point { seconds, measured: true });
        self.curves.insert((stage, class), curve);
    }

    /// Counts a call of so many rows, and says whether it is one of the first, unless they were measured.
    fn prepares(&mut self, class: i32, rows: u32) -> bool {
        if self.curves.get(&(Stage::Denoise, class)).is_some_and(|curve| is_measured(curve, rows)) {
            return false;
        }
        let met = self.met.entry((class, rows)).or_insert(0);
        *met += 1;
        *met <= PREPARING
    }

    /// The curve of the nearest size at the rows that warm-up measures.
    fn borrowed(&self, stage: Stage, class: i32) -> Curve {
        let area = class_area(class).round() as u64;
        let point = |rows| (rows, Point { seconds: self.seconds(stage, area, rows), measured: false });
        [1, 2, 4, 8, 16, 32].map(point).into()
    }

    /// Seconds that work of `rows` rows of `area` latents each takes: measured, or else between what was measured, or
    /// else from the nearest size as if only the sum of the latents counted.
    pub fn seconds(&self, stage: Stage, area: u64, rows: u32) -> f64 {
        time(self.curve(stage, class(area)), area, rows)
    }

    /// The curve of a class, or else of the nearest that has one, with its class.
    fn curve(&self, stage: Stage, class: i32) -> Option<(i32, &Curve)> {
        let own = self.curves.get(&(stage, class)).map(|curve| (class, curve));
        own.or_else(|| self.nearest(stage, class))
    }

    fn nearest(&self, stage: Stage, class: i32) -> Option<(i32, &Curve)> {
        let of_stage = self.curves.range((stage, i32::MIN)..=(stage, i32::MAX));
        of_stage.map(|((_, other), curve)| (*other, curve)).min_by_key(|(other, _)| (other - class).abs())
    }

    /// Seconds of UNet calls by their rows of `area` latents each, from none to at least two and as many as fit; and the most rows
    /// that a call may have: what fits, and within that what pays. 1 where two rows cost twice one.
    ///
    /// No call takes longer than two of half its rows, if so many were measured. Where it seems to, what is known of it is out
    /// of date, and would stay so, since such calls would not be made again.
    pub fn calls(&self, area: u64, limit: u32) -> (Vec<f64>, u32) {
        let here = class(area);
        let fits =
            if self.fits == 0 { limit } else { u32::try_from(self.fits / area.max(1)).unwrap_or(limit) };
        let cap = self.caps.get(&here).copied().unwrap_or(limit);
        let most = limit.min(fits).min(cap).max(1) as usize;
        let curve = self.curve(Stage::Denoise, here);
        let own = curve.filter(|(class, _)| *class == here).map(|(_, curve)| curve);
        let mut seconds = vec![0.0];
        for rows in 1..=most.max(2) {
            let taken = time(curve, area, rows as u32);
            let halves =
                rows.is_multiple_of(2) && own.is_some_and(|curve| is_measured(curve, rows as u32 / 2));
            seconds.push(if halves { taken.min(2.0 * seconds[rows / 2]) } else { taken });
        }
        let per_second = |rows: usize| rows as f64 / seconds[rows];
        let one = per_second(1);
        let best = (1..=most).map(|rows| (per_second(rows), rows));
        let best = best.fold((one, 1), |best, other| if other.0 >= best.0 { other } else { best });
        let budget = if best.0 >= one * WORTHWHILE { best.1 } else { 1 };
        (seconds, budget as u32)
    }

    /// The most rows of [`Costs::calls`] alone.
    pub fn budget(&self, area: u64, limit: u32) -> u32 {
        self.calls(area, limit).1
    }

    /// Whether there is a measured size of which two or more rows pay.
    pub fn batches(&self, limit: u32) -> bool {
        self.table(Stage::Denoise).any(|(area, ..)| self.budget(area, limit) > 1)
    }

    /// Learns that a call of `rows` rows of `area` latents each was too much for the device's memory: later calls
    /// have at most half.
    pub fn too_large(&mut self, area: u64, rows: u32) {
        let half = (rows / 2).max(1);
        let cap = self.caps.entry(class(area)).or_insert(half);
        *cap = half.min(*cap);
    }

    /// What is known of one stage: latents of a row, rows, seconds, in this order.
    pub fn table(&self, stage: Stage) -> impl Iterator<Item = (u64, u32, f64)> {
        self.curves.range((stage, i32::MIN)..=(stage, i32::MAX)).flat_map(|((_, class), curve)| {
            let area = class_area(*class).round() as u64;
            curve.iter().map(move |(rows, point)| (area, *rows, point.seconds))
        })
    }
}

/// Whether so many rows of a curve were measured.
fn is_measured(curve: &Curve, rows: u32) -> bool {
    curve.get(&rows).is_some_and(|point| point.measured)
}

/// Seconds for `rows` rows of `area` latents each by the curve of a class; see [`Costs::seconds`].
fn time(curve: Option<(i32, &Curve)>, area: u64, rows: u32) -> f64 {
    let Some((of, curve)) = curve else { return UNMEASURED * area as f64 * f64::from(rows) };
    let scale = area as f64 / class_area(of);
    if of == class(area) {
        scale * along(curve, f64::from(rows))
    } else {
        along(curve, scale * f64::from(rows))
    }
}

/// The curve at `x` rows, which need not be whole: straight between neighbours, and straight on beyond the ends, but
/// before the first never below the proportional share. From a single point all is proportional.
fn along(curve: &Curve, x: f64) -> f64 {
    let floor = x.floor() as u32;
    let below = curve.range(..=floor).next_back();
    let above = curve.range(floor + 1..).next();
    let line = |(r0, p0): (&u32, &Point), (r1, p1): (&u32, &Point)| {
        let slope = (p1.seconds - p0.seconds) / (f64::from(*r1) - f64::from(*r0));
        p0.seconds + slope * (x - f64::from(*r0))
    };
    let share = |(rows, point): (&u32, &Point)| point.seconds * x / f64::from(*rows);
    match (below, above) {
        (Some(below), Some(above)) => line(below, above),
        (Some(last), None) => {
            let before = curve.range(..last.0).next_back();
            before.map_or(share(last), |before| line(before, last).max(last.1.seconds))
        }
        (None, Some(first)) => {
            let second = curve.range(first.0 + 1..).next();
            second.map_or(share(first), |second| line(first, second).max(share(first)))
        }
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::testing::{FLAT, H100};

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn assert_near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-6, "{got} is not {want}");
    }

    #[test]
    fn times_between_measured_rows_lie_on_a_line_and_go_on_beyond_the_last() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 1.0), (2, 1.5), (4, 2.0)] {
            costs.measured(Stage::Denoise, (4096, rows), seconds(taken));
        }
        assert_near(costs.seconds(Stage::Denoise, 4096, 3), 1.75);
        assert_near(costs.seconds(Stage::Denoise, 4096, 8), 3.0);
    }

    #[test]
    fn an_unmeasured_size_costs_what_its_latents_cost_at_the_nearest_size() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 7.0), (2, 13.0)] {
            costs.measured(Stage::Denoise, (16384, rows), seconds(taken));
        }
        assert_near(costs.seconds(Stage::Denoise, 4096, 1), 2.5);
        assert_near(costs.seconds(Stage::Denoise, 4096, 8), 13.0);
        assert_near(costs.seconds(Stage::Denoise, 65536, 1), 25.0);
    }

    #[test]
    fn the_budget_is_one_row_where_two_cost_twice_one() {
        assert_eq!(FLAT.costs(16).budget(4096, 16), 1);
        assert_eq!(H100.costs(16).budget(4096, 16), 16);
    }

    #[test]
    fn a_call_never_has_more_latents_than_warm_up_has_shown_to_fit() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 1.0), (8, 2.0)] {
            costs.measured(Stage::Denoise, (16384, rows), seconds(taken));
        }
        let budgets = [65536, 16384, 4096].map(|area| costs.budget(area, 64));
        assert_eq!(budgets, [2, 8, 32]);
    }

    #[test]
    fn rows_that_ran_out_of_memory_are_not_tried_again() {
        let mut costs = H100.costs(16);
        costs.too_large(4096, 12);
        costs.too_large(4096, 14);
        assert_eq!(costs.budget(4096, 16), 6);
        assert_eq!(costs.budget(16384, 16), 16);
    }

    #[test]
    fn work_moves_what_is_known_and_one_slow_call_does_not_upset_it() {
        let mut costs = Costs::default();
        costs.learn(Stage::Decode, (4096, 1), seconds(1.0));
        assert_near(costs.seconds(Stage::Decode, 4096, 1), 1.0);
        costs.learn(Stage::Decode, (4096, 1), seconds(100.0));
        assert_near(costs.seconds(Stage::Decode, 4096, 1), 1.2);
        for _ in 0..80 {
            costs.learn(Stage::Decode, (4096, 1), seconds(0.5));
        }
        assert!((costs.seconds(Stage::Decode, 4096, 1) - 0.5).abs() < 0.01);
    }

    #[test]
    fn a_size_that_was_never_measured_takes_its_first_times_as_a_sign_for_all_rows() {
        let mut costs = H100.costs(8);
        let before = [1, 8].map(|rows| costs.seconds(Stage::Denoise, 8192, rows));
        for _ in 0..80 {
            costs.learn(Stage::Denoise, (8192, 8), seconds(before[1] / 2.0));
        }
        let after = [1, 8].map(|rows| costs.seconds(Stage::Denoise, 8192, rows));
        assert!((after[0] / after[1] / (before[0] / before[1]) - 1.0).abs() < 0.01, "{before:?} {after:?}");
    }

    #[test]
    fn a_curve_that_was_measured_wrong_is_learned_from_work_of_some_rows() {
        let mut costs = H100.costs(16);
        for turn in 0..200 {
            let rows = [1, 2, 8][turn % 3];
            costs.learn(Stage::Denoise, (4096, rows), seconds(FLAT.seconds(Stage::Denoise, 4096, rows)));
        }
        for rows in [1, 2, 8] {
            let want = FLAT.seconds(Stage::Denoise, 4096, rows);
            assert!((costs.seconds(Stage::Denoise, 4096, rows) / want - 1.0).abs() < 0.05);
        }
    }

    #[test]
    fn the_first_calls_of_so_many_rows_do_not_make_them_seem_slow() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 1.0), (2, 1.5), (16, 8.5)] {
            costs.measured(Stage::Denoise, (4096, rows), seconds(taken));
        }
        for _ in 0..PREPARING {
            costs.learn(Stage::Denoise, (4096, 4), seconds(9.0));
        }
        assert_near(costs.seconds(Stage::Denoise, 4096, 4), 2.5);
        costs.learn(Stage::Denoise, (4096, 4), seconds(2.0));
        assert_near(costs.seconds(Stage::Denoise, 4096, 4), 2.0);
    }

    #[test]
    fn rows_that_take_as_long_as_more_do_not_make_these_seem_slow() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 1.0), (2, 1.5), (16, 8.5)] {
            costs.measured(Stage::Denoise, (4096, rows), seconds(taken));
        }
        for _ in 0..80 {
            costs.learn(Stage::Denoise, (4096, 12), seconds(8.5));
        }
        assert_near(costs.seconds(Stage::Denoise, 4096, 12), 8.5);
        assert_near(costs.seconds(Stage::Denoise, 4096, 16), 8.5);
    }

    #[test]
    fn a_call_is_not_held_slower_than_two_of_half_its_rows() {
        let mut costs = Costs::default();
        for (rows, taken) in [(1, 1.0), (2, 1.5), (8, 4.0), (16, 9.0)] {
            costs.measured(Stage::Denoise, (4096, rows), seconds(taken));
        }
        assert_near(costs.calls(4096, 16).0[16], 8.0);
        assert_eq!(costs.budget(4096, 16), 16, "so that it is tried again");
    }

    #[test]
    fn a_clock_that_stands_still_spoils_nothing() {
        let mut costs = Costs::default();
        costs.measured(Stage::Denoise, (4096, 1), Duration::ZERO);
        costs.measured(Stage::Denoise, (4096, 2), Duration::ZERO);
        costs.learn(Stage::Denoise, (4096, 2), Duration::ZERO);
        assert!(costs.seconds(Stage::Denoise, 4096, 2) > 0.0);
        assert!((1..=8).contains(&costs.budget(4096, 8)));
    }

    #[test]
    fn whatever_sizes_come_the_classes_stay_few() {
        let mut costs = Costs::default();
        for height in (4..=512).step_by(4) {
            for width in (4..=512).step_by(4) {
                costs.learn(Stage::Denoise, (height * width, 1), seconds(1.0));
            }
        }
        let classes: std::collections::BTreeSet<_> =
            costs.table(Stage::Denoise).map(|(area, ..)| area).collect();
        assert!(classes.len() <= 60, "{}", classes.len());
    }
}
