//! Products of integers by seven multiplications of halves instead of eight, as Strassen found ("Gaussian elimination is not
//! optimal", 1969), with the sums of halves that Winograd's form of it takes ("On multiplication of 2 x 2 matrices", 1971).
//! Integers are added exactly, so that nothing is lost by it.
//!
//! The halves of the rows are the even and the odd ones, those of the depth are the halves of a chain ([`Cut`]), and those of the
//! columns are the even and the odd panels: what a row becomes depends on its neighbour, and on nothing else.

use super::finish::{Finish, Place};
use super::hands;
use super::isa::{Isa, vectorised};
use super::norm::Affine;
use super::product::ranges;
use super::scaled::{Cut, factor, greater, rounded, scaled_pieces, unit};
use super::scratch::{self, bits, bits_mut, halves_of, halves_of_mut};
use super::shared::{Shared, Slot, filled, halves};
use super::tile::{COLUMNS, Integers, ROWS, Run, Settled, Step, Units, add_integers};
use super::vector::{Loop, Vector, run};
use super::weight::{ScaledPanel, Weight};
use std::ops::Range;

/// The fewest rows of a picture that repay sums of columns.
const FEWEST_ROWS: usize = 128;
/// The fewest panels that repay sums of rows.
const FEWEST_PANELS: usize = 8;
/// The fewest pairs of half a chain that repay moving sums to and fro.
const FEWEST_PAIRS: usize = 128;
/// The most pairs of rows of a task.
const BLOCK: usize = 44 * ROWS;
/// Numbers of 16 bits that are added at once, in registers.
const LANES: usize = 32;
/// Right factors that are sums.
const RIGHT_SUMS: usize = 4;
/// Pieces in which the columns that come next are fetched.
const PIECES: usize = 8;

/// A quarter of an operand or of the result: which half of the rows, and which of the columns.
type Quarter = (usize, usize);

/// Multiplications.
const TERMS: usize = 7;
/// What a term is added to, the quarter of the result that this becomes, and whether that is complete.
type Sum = (Option<Quarter>, Quarter, bool);
/// What becomes of each term.
const SUMS: [&[Sum]; TERMS] = [
    &[(None, (0, 0), false)],
    &[(Some((0, 0)), (0, 1), false)],
    &[(Some((0, 1)), (1, 0), false)],
    &[(Some((1, 0)), (1, 1), true), (Some((0, 1)), (0, 1), false)],
    &[(Some((0, 0)), (0, 0), true)],
    &[(Some((0, 1)), (0, 1), true)],
    &[(Some((1, 0)), (1, 0), true)],
];
/// The terms during which columns are fetched.
const NEXT: [usize; 2] = [0, 4];

/// Whether seven multiplications repay for pictures of `rows` rows. That depends on nothing else, such as how many pictures there are.
pub fn repays(rows: usize, weight: &Weight) -> bool {
    rows >= FEWEST_ROWS && rows.is_multiple_of(2) && fits(weight.depth(), weight.outputs())
}

/// Whether a weight has halves that repay it.
pub fn fits(inputs: usize, outputs: usize) -> bool {
    let (cut, panels) = (Cut::of(inputs / 2), outputs / COLUMNS);
    let half = cut.chain / 2;
    (inputs.is_multiple_of(2) && cut.pairs == cut.chains() * cut.chain && cut.chain.is_multiple_of(2))
        && (half >= FEWEST_PAIRS && half.is_multiple_of(LANES / 2))
        && (panels >= FEWEST_PANELS && outputs.is_multiple_of(2 * COLUMNS))
}

/// Rows as [`scaled_rows`] makes them times `weight`, plus `finish`: `[rows, width]`.
///
/// # Panics
/// If the weight is not integers, or [`repays`] does not hold.
pub fn multiply(isa: Isa, left: &[f32], weight: &Weight, finish: Finish) -> Vec<f32> {
    let cut = Cut::of(weight.depth() / 2);
    let length = left_length(cut);
    let pairs = left.len() / length;
    let product = Product { isa, cut, left, length, weight, finish };
    let write = |out: &mut [Slot]| {
        let out = Shared::new(out);
        let blocks = pairs.div_ceil(BLOCK).max(1);
        let block = pairs.div_ceil(blocks).next_multiple_of(ROWS);
        let tasks = ranges(pairs, block)
            .flat_map(|pairs| (0..weight.panels() / 2).map(move |two| (pairs.clone(), two)));
        hands::one_by_one(tasks, |(pairs, two)| product.task(&pairs, two, out));
    };
    // SAFETY: the tasks make up all pairs of rows and of panels, and the panels all columns.
    unsafe { filled(2 * pairs * weight.width(), write) }
}

/// The left factors of all terms, of each pair of rows of `depth` numbers, which are normalised if there is a norm.
pub fn scaled_rows(isa: Isa, data: &[f32], depth: usize, norm: Option<Affine>) -> Vec<f32> {
    let cut = Cut::of(depth / 2);
    let scale = |rows: &[f32], out: &mut [Slot]| scale_two_rows(isa, rows, cut, out);
    // SAFETY: all factors of every pair of rows are written, and its units.
    unsafe { scaled_pieces(isa, (data, norm), 2 * depth, left_length(cut), scale) }
}

/// Elements of a pair of rows: a factor of each term for each chain, and their units.
fn left_length(cut: Cut) -> usize {
    TERMS * cut.pairs / 2 + cut.chains()
}

/// What a tile's rows are multiplied by.
struct Right<'a> {
    factors: &'a [&'a [u32]; TERMS],
    /// What is fetched during the terms [`NEXT`].
    next: [Option<&'a [u32]>; 2],
}

struct Product<'a> {
    isa: Isa,
    cut: Cut,
    left: &'a [f32],
    /// Its elements for a pair of rows.
    length: usize,
    weight: &'a Weight,
    finish: Finish<'a>,
}

impl Product<'_> {
    /// Computes pairs of rows in the columns of the panels `2 * two` and `2 * two + 1`.
    fn task(&self, pairs: &Range<usize>, two: usize, out: Shared) {
        let (chains, half) = (self.cut.chains(), self.cut.chain / 2 * COLUMNS);
        // Results wait between two chains; with one, each tile is done with at once.
        let waiting = 4 * COLUMNS * if chains == 1 { ROWS } else { pairs.len() };
        scratch::with([RIGHT_SUMS * half, 4 * ROWS * COLUMNS, waiting], |[room, tile, waiting]| {
            for chain in 0..chains {
                let right = self.right(two, chain, bits_mut(room));
                for first in pairs.clone().step_by(ROWS) {
                    let rows = first..pairs.end.min(first + ROWS);
                    let tile = &mut bits_mut(tile)[..4 * rows.len() * COLUMNS];
                    // Tiles behind this one.
                    let behind = (pairs.end - first - 1) / ROWS;
                    let left = self.factors(&rows, chain);
                    let right = Right { factors: &right, next: self.next(two, chain, behind) };
                    let place = if chains == 1 { 0 } else { 4 * (first - pairs.start) * COLUMNS };
                    let waiting = &mut waiting[place..][..tile.len()];
                    let last = chain + 1 == chains;
                    let units = Units {
                        rows: self.units(&rows, chain),
                        columns: last.then(|| self.panel(2 * two).units),
                    };
                    let places =
                        [0, 1].map(|odd| Place { weight: self.weight, row: 2 * first, panel: 2 * two + odd });
                    for term in 0..TERMS {
                        if last && term + 1 == TERMS {
                            places.iter().for_each(|place| self.finish.fetch(*place, 2 * rows.len(), out));
                        }
                        let settled = Settled { units, sums: waiting, fresh: chain == 0 };
                        self.add_term(term, &left, &right, (tile, settled));
                    }
                    let sums = waiting.chunks_exact_mut(2 * rows.len() * COLUMNS);
                    for (place, sums) in places.into_iter().zip(sums).filter(|_| last) {
                        // SAFETY: each task has its own rows and panels, hence its own elements.
                        unsafe { self.finish.write(self.isa, sums, place, out) };
                    }
                }
            }
        });
    }

    /// The units of a chain of pairs of rows.
    fn units(&self, pairs: &Range<usize>, chain: usize) -> [f32; ROWS] {
        let mut units = [0.0; ROWS];
        for (unit, left) in units.iter_mut().zip(self.left(pairs).chunks_exact(self.length)) {
            *unit = left[TERMS * self.cut.pairs / 2 + chain];
        }
        units
    }

    /// A half of a chain in a panel.
    fn quarter(&self, panel: usize, chain: usize, half: usize) -> &[u32] {
        let length = self.cut.chain / 2;
        &self.panel(panel).pairs[(2 * chain + half) * length * COLUMNS..][..length * COLUMNS]
    }

    fn panel(&self, panel: usize) -> ScaledPanel<'_> {
        self.weight.scaled(panel).expect("the weight is integers")
    }

    /// The right factors of all terms in a chain of two panels, for whose sums there is `room`.
    fn right<'a>(&'a self, two: usize, chain: usize, room: &'a mut [u32]) -> [&'a [u32]; TERMS] {
        let quarter = |half, odd| self.quarter(2 * two + odd, chain, half);
        let quarters = [quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)];
        add_columns(self.isa, quarters, room);
        let length = quarters[0].len();
        let sum = |at: usize| &room[at * length..][..length];
        [quarters[0], sum(0), sum(1), sum(2), quarters[2], quarters[3], sum(3)]
    }

    /// What is fetched during two of a tile's terms: columns that come next, in the last tiles, or they would have left the cache.
    fn next(&self, two: usize, chain: usize, tile: usize) -> [Option<&[u32]>; 2] {
        let (two, chain) = if chain + 1 < self.cut.chains() { (two, chain + 1) } else { (two + 1, 0) };
        let length = self.cut.chain * COLUMNS;
        [2 * tile, 2 * tile + 1].map(|piece| {
            let panel = 2 * two + piece * 2 / PIECES;
            let fetched = piece < PIECES && panel < self.weight.panels();
            fetched.then(|| {
                let from = chain * length + piece % (PIECES / 2) * length * 2 / PIECES;
                &self.panel(panel).pairs[from..][..length * 2 / PIECES]
            })
        })
    }

    /// The left factors of all terms of pairs of rows in a chain.
    fn factors(&self, pairs: &Range<usize>, chain: usize) -> Run<'_, u32> {
        let length = TERMS * self.cut.chain / 2;
        Run::of_matrix(bits(self.left(pairs)), self.length, chain * length..(chain + 1) * length)
    }

    /// What the factors of all terms of pairs of rows are, and their units.
    fn left(&self, pairs: &Range<usize>) -> &[f32] {
        &self.left[pairs.start * self.length..pairs.end * self.length]
    }

    /// Adds a term to the sums of a tile `[2 panels, rows, 2, 32]`.
    fn add_term(&self, term: usize, left: &Run<u32>, right: &Right, (tile, settled): (&mut [u32], Settled)) {
        let (count, half) = (tile.len() / (4 * COLUMNS), self.cut.chain / 2);
        let next = NEXT.iter().position(|next| *next == term).and_then(|at| right.next[at]);
        let a = left.part(term * half..(term + 1) * half);
        let integers = Integers { a, b: right.factors[term].into(), next };
        let place = |(row, panel): Quarter| (2 * panel * count + row) * COLUMNS;
        let step = |(from, to, last): Sum| Step { from: from.map(place), to: place(to), last };
        match *SUMS[term] {
            [one, other] => add_integers(self.isa, &integers, &[step(one), step(other)], tile, settled),
            ref sums => add_integers(self.isa, &integers, &[step(sums[0])], tile, settled),
        }
    }
}

/// Scales two rows and writes the left factor of each term, for each chain, and the units of the chains behind them.
fn scale_two_rows(isa: Isa, rows: &[f32], cut: Cut, out: &mut [Slot]) {
    // SAFETY: nothing is asked for but the instructions.
    unsafe { run(isa, TwoRows { rows, cut, out }) }
}

struct TwoRows<'a> {
    rows: &'a [f32],
    cut: Cut,
    out: &'a mut [Slot],
}

impl Loop for TwoRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Self { rows, cut, out } = self;
        let (even, odd) = rows.split_at(rows.len() / 2);
        let (factors, units) = out.split_at_mut(TERMS * cut.pairs / 2);
        let chains = even.chunks_exact(2 * cut.chain).zip(odd.chunks_exact(2 * cut.chain));
        for (((even, odd), factors), out) in
            chains.zip(factors.chunks_exact_mut(TERMS * cut.chain / 2)).zip(units)
        {
            // SAFETY: the caller's promise.
            let unit = unsafe { greater(unit::<V>(even, cut.chain), unit::<V>(odd, cut.chain)) };
            let factor = factor(unit);
            let factors = halves(factors);
            for at in (0..cut.chain).step_by(LANES) {
                let (a11, a12) = (scaled(even, at, factor), scaled(even, cut.chain + at, factor));
                let (a21, a22) = (scaled(odd, at, factor), scaled(odd, cut.chain + at, factor));
                let s1 = plus(a21, a22);
                let s2 = minus(s1, a11);
                let terms = [a11, s2, minus(a11, a21), s1, a12, minus(a12, s2), a22];
                for (term, values) in terms.iter().enumerate() {
                    let out = &mut factors[term * cut.chain + at..][..LANES];
                    for lane in 0..LANES {
                        out[lane].write(values[lane]);
                    }
                }
            }
            out.write(unit);
        }
    }
}

/// Numbers from the place `at` on as integers.
#[inline(always)]
fn scaled(row: &[f32], at: usize, factor: f32) -> [u16; LANES] {
    let numbers = &row[at..][..LANES];
    let mut integers = [0; LANES];
    for lane in 0..LANES {
        integers[lane] = rounded(numbers[lane], factor);
    }
    integers
}

vectorised!(
    /// The right factors that are sums, of the quarters of a chain in two panels: `[4, length]`.
    fn add_columns(quarters: [&[u32]; 4], sums: &mut [u32]) => add_columns_inner
);

#[inline(always)]
fn add_columns_inner<const FUSED: bool>(quarters: [&[u32]; 4], sums: &mut [u32]) {
    let [b11, b12, b21, b22] = quarters;
    let (b11, b12, b21, b22) = (halves_of(b11), halves_of(b12), halves_of(b21), halves_of(b22));
    let (length, sums) = (b11.len(), halves_of_mut(sums));
    for at in (0..length).step_by(LANES) {
        let (b11, b12, b21, b22) = (lanes(b11, at), lanes(b12, at), lanes(b21, at), lanes(b22, at));
        let t1 = minus(b12, b11);
        let t2 = minus(b22, t1);
        for (sum, values) in [t2, minus(b22, b12), t1, minus(b21, t2)].iter().enumerate() {
            sums[sum * length + at..][..LANES].copy_from_slice(values);
        }
    }
}

#[inline(always)]
fn lanes(numbers: &[u16], at: usize) -> [u16; LANES] {
    let mut lanes = [0; LANES];
    lanes.copy_from_slice(&numbers[at..][..LANES]);
    lanes
}

#[inline(always)]
fn plus(a: [u16; LANES], b: [u16; LANES]) -> [u16; LANES] {
    let mut result = [0; LANES];
    for lane in 0..LANES {
        result[lane] = a[lane].wrapping_add(b[lane]);
    }
    result
}

#[inline(always)]
fn minus(a: [u16; LANES], b: [u16; LANES]) -> [u16; LANES] {
    let mut result = [0; LANES];
    for lane in 0..LANES {
        result[lane] = a[lane].wrapping_sub(b[lane]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::weight::{Order, Stored};
    use super::*;
    use crate::ops::cpu::isa::forced::each;
    use crate::ops::testing::numbers;
    use half::bf16;

    /// The sum of a chain's products, exactly.
    fn exact_sum(row: &[f32], unit: f32, pairs: &[u32], column: usize) -> f32 {
        let integer = |value: f32| i64::from(rounded(value, factor(unit)).cast_signed());
        let columns = pairs.chunks_exact(COLUMNS).map(|pairs| pairs[column]);
        let columns = columns.flat_map(|pair| [pair as i16, (pair >> 16) as i16]);
        row.iter().zip(columns).map(|(value, column)| integer(*value) * i64::from(column)).sum::<i64>() as f32
    }

    #[test]
    fn seven_products_are_the_eight_to_the_last_bit() {
        let (depth, rows, outputs) = (2560, 156, 256);
        let values: Vec<bf16> = numbers(outputs * depth, 1).into_iter().map(bf16::from_f32).collect();
        let data = numbers(rows * depth, 2);
        each(|isa| {
            if isa == Isa::Portable {
                return;
            }
            let order = Order { outputs, inputs: depth, taps: 1, gated: false };
            let weight = Weight::pack(Stored::Bf16(&values), order);
            assert!(repays(rows, &weight));
            let left = scaled_rows(isa, &data, depth, None);
            let got = multiply(isa, &left, &weight, Finish::default());
            let cut = Cut::of(depth / 2);
            assert_eq!(cut.chains(), 2);
            // Some of all halves of tiles and panels.
            for (row, column) in (0..rows).zip((0..outputs).cycle().step_by(3)) {
                let panel = weight.scaled(column / COLUMNS).unwrap();
                let sum = (0..2).fold(0.0, |sum, chain| {
                    let pairs = cut.range(chain);
                    let part = |row: usize| &data[row * depth + 2 * pairs.start..row * depth + 2 * pairs.end];
                    let unit = left[(row / 2 + 1) * left_length(cut) - cut.chains() + chain];
                    // SAFETY: plain loops need no instructions. They add in another order.
                    let [own, other] =
                        [row, row ^ 1].map(|row| unsafe { super::unit::<[f32; 4]>(part(row), cut.chain) });
                    let want = greater(own, other);
                    assert!((unit - want).abs() <= 1e-6 * want, "{isa:?}: unit {unit} for {want}");
                    let pairs = &panel.pairs[pairs.start * COLUMNS..pairs.end * COLUMNS];
                    sum + exact_sum(part(row), unit, pairs, column % COLUMNS) * unit
                });
                let want = sum * panel.units[column % COLUMNS];
                assert_eq!(got[row * outputs + column], want, "{isa:?}: row {row}, column {column}");
            }
        });
    }

    #[test]
    fn what_does_not_fit_together_in_halves_does_not_repay() {
        let repays = |rows, inputs, outputs| {
            let values = vec![bf16::ONE; inputs * outputs];
            repays(
                rows,
                &Weight::pack(Stored::Bf16(&values), Order { outputs, inputs, taps: 1, gated: false }),
            )
        };
        assert!(repays(128, 512, 256));
        for (rows, inputs, outputs) in [
            (126, 512, 256),
            (129, 512, 256),
            (128, 256, 256),
            (128, 516, 256),
            (128, 512, 288),
            (128, 512, 250),
        ] {
            assert!(!repays(rows, inputs, outputs), "{rows} rows, {inputs} to {outputs}");
        }
    }
}
