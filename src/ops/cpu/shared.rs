//! Outputs that several tasks write, each its own elements, into memory that nobody zeroed first.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// An element of an output before it is written.
pub type Slot<T = f32> = MaybeUninit<T>;

/// A slice that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut Slot,
    length: usize,
    owner: PhantomData<&'a mut [Slot]>,
}

// SAFETY: the only way in is `part`, whose caller promises that parts do not overlap.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `slice`.
    pub fn new(slice: &'a mut [Slot]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), owner: PhantomData }
    }

    /// The elements `from..from + count`.
    ///
    /// # Safety
    /// No other part that overlaps it may be alive.
    ///
    /// # Panics
    /// If the slice ends before.
    pub unsafe fn part(&self, from: usize, count: usize) -> &'a mut [Slot] {
        assert!(from + count <= self.length, "a part lies within the slice");
        // SAFETY: within the slice, and by the caller's promise nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}

/// A vector of `length` numbers that `write` fills.
///
/// # Safety
/// `write` must write every element.
pub unsafe fn filled<T>(length: usize, write: impl FnOnce(&mut [Slot<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    write(&mut values.spare_capacity_mut()[..length]);
    // SAFETY: the capacity is `length` at least, and by the caller's promise that many elements were written.
    unsafe { values.set_len(length) };
    values
}
