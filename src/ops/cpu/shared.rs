//! Outputs that several tasks write, each its own elements, into memory that nobody zeroed first.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// An element of an output before it is written.
pub type Slot<T = f32> = MaybeUninit<T>;

/// Numbers to be written over.
///
/// # Safety
/// Only numbers may be written.
pub unsafe fn slots(values: &mut [f32]) -> &mut [Slot] {
    // SAFETY: the layouts are the same, and by the caller's promise what is there stays a number.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Elements of 32 bits, half by half.
pub fn halves(slots: &mut [Slot]) -> &mut [Slot<u16>] {
    // SAFETY: two halves of 16 bits lie in 32, aligned more strictly; what is not written yet stays so.
    unsafe { std::slice::from_raw_parts_mut(slots.as_mut_ptr().cast(), 2 * slots.len()) }
}

/// A slice that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut Slot,
    length: usize,
    owner: PhantomData<&'a mut [Slot]>,
}

// SAFETY: the ways in are `part`, whose caller promises that parts do not overlap, and pointers, whose users promise the same.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `slice`.
    pub fn new(slice: &'a mut [Slot]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), owner: PhantomData }
    }

    /// Where the first of some elements lies, for those who write some of them alone.
    ///
    /// # Panics
    /// If the slice ends before.
    pub fn start_of(&self, elements: Range<usize>) -> *mut f32 {
        assert!(
            elements.start <= elements.end && elements.end <= self.length,
            "elements lie within the slice"
        );
        self.start.wrapping_add(elements.start).cast()
    }

    /// The elements `from..from + count`.
    ///
    /// # Safety
    /// No other part that overlaps it may be alive.
    ///
    /// # Panics
    /// If the slice ends before.
    pub unsafe fn part(&self, from: usize, count: usize) -> &'a mut [Slot] {
        // SAFETY: within the slice, and by the caller's promise nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start_of(from..from + count).cast(), count) }
    }
}

/// A vector of `length` numbers that `write` fills.
///
/// # Safety
/// `write` must write every element.
pub unsafe fn filled<T>(length: usize, write: impl FnOnce(&mut [Slot<T>])) -> Vec<T> {
    let mut values = Vec::new();
    // SAFETY: the caller's promise.
    unsafe { append(&mut values, length, write) };
    values
}

/// Adds `count` numbers that `write` fills to `values`, for which it takes no more memory than they need.
///
/// # Safety
/// `write` must write every element.
pub unsafe fn append<T>(values: &mut Vec<T>, count: usize, write: impl FnOnce(&mut [Slot<T>])) {
    values.reserve_exact(count);
    write(&mut values.spare_capacity_mut()[..count]);
    // SAFETY: the capacity has `count` more at least, and by the caller's promise that many were written.
    unsafe { values.set_len(values.len() + count) };
}
