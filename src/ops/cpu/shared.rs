//! Outputs that several tasks write, each its own elements.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A slice that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut f32,
    length: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only way in is `part`, whose caller promises that parts do not overlap.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `slice`.
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), owner: PhantomData }
    }

    /// The elements `from..from + count`.
    ///
    /// # Safety
    /// No other part that overlaps it may be alive.
    ///
    /// # Panics
    /// If the slice ends before.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub unsafe fn part(&self, from: usize, count: usize) -> &mut [f32] {
        assert!(from + count <= self.length, "a part lies within the slice");
        // SAFETY: within the slice, and by the caller's promise nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), count) }
    }
}

/// A vector of `length` numbers that `write` fills.
///
/// Nothing is zeroed first: `write` must write every element before it reads it, which every kernel's test against
/// its reference holds.
pub fn filled(length: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(length);
    // SAFETY: elements that may be uninitialised need no initialisation.
    unsafe { values.set_len(length) };
    let mut values = std::mem::ManuallyDrop::new(values);
    let (start, capacity) = (values.as_mut_ptr().cast::<f32>(), values.capacity());
    // SAFETY: the memory is the vector's own, `write` writes all of it before anybody reads, and every bit pattern
    // is an f32.
    unsafe {
        write(std::slice::from_raw_parts_mut(start, length));
        Vec::from_raw_parts(start, length, capacity)
    }
}
