//! Memory that a thread keeps from one kernel to the next.

use super::lines::Lines;
use std::cell::RefCell;

thread_local! {
    /// Those that nobody works in; more than one, since work may call for work with its own.
    static KEPT: RefCell<Vec<Lines<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` `lengths` numbers each, from the beginning of a cache line, with whatever the thread's last work left in
/// them.
///
/// `work` should not wait for other tasks of the pool: the thread would take some up meanwhile, each with memory of its own.
pub fn with<const N: usize, R>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    let whole: usize = lengths.iter().map(|length| padded(*length)).sum();
    let kept = KEPT.with_borrow_mut(Vec::pop);
    let mut kept = kept.filter(|kept| kept.len() >= whole).unwrap_or_else(|| Lines::zeros(whole));
    let mut rest = &mut kept[..];
    let result = work(lengths.map(|length| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(padded(length));
        rest = after;
        &mut part[..length]
    }));
    KEPT.with_borrow_mut(|all| all.push(kept));
    result
}

/// The bits of numbers, to read.
pub fn bits(values: &[f32]) -> &[u32] {
    // SAFETY: both types are 32 bits wide, aligned alike, and have no invalid patterns.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// The bits of numbers, to write.
pub fn bits_mut(values: &mut [f32]) -> &mut [u32] {
    // SAFETY: as for `bits`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Pairs of 16 bits, half by half.
pub fn halves_of(pairs: &[u32]) -> &[u16] {
    // SAFETY: two numbers of 16 bits lie in 32, aligned more strictly, and any bits are a number.
    unsafe { std::slice::from_raw_parts(pairs.as_ptr().cast(), 2 * pairs.len()) }
}

/// Pairs of 16 bits, half by half, to write.
pub fn halves_of_mut(pairs: &mut [u32]) -> &mut [u16] {
    // SAFETY: as for `halves_of`.
    unsafe { std::slice::from_raw_parts_mut(pairs.as_mut_ptr().cast(), 2 * pairs.len()) }
}

/// A length that keeps the next part on its own cache line.
fn padded(length: usize) -> usize {
    length.next_multiple_of(16)
}
