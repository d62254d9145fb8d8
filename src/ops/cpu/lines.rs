//! Memory that begins with a cache line. A vector load that straddles two lines counts for two: tiles whose columns begin
//! amid a line run at 0.6 of their speed.

use half::f16;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vectors.
const LINE: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// What lines may be read as: any bits are a number.
pub trait Plain: Copy {}

impl Plain for f32 {}
impl Plain for u32 {}
impl Plain for f16 {}

/// Numbers that begin with a cache line.
#[derive(Debug, Clone)]
pub struct Lines<T> {
    lines: Vec<Line>,
    length: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Lines<T> {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        let lines = vec![Line([0; LINE]); (length * size_of::<T>()).div_ceil(LINE)];
        Self { lines, length, of: PhantomData }
    }
}

impl<T: Plain> Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines have room for `length` numbers, stricter alignment, and any bits are a number.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_with_a_line_and_are_what_was_written() {
        for length in [0, 1, 15, 16, 17, 1000] {
            let mut lines = Lines::<f32>::zeros(length);
            assert_eq!((lines.len(), lines.as_ptr() as usize % LINE), (length, 0));
            assert!(lines.iter().all(|value| *value == 0.0));
            lines.iter_mut().enumerate().for_each(|(i, value)| *value = i as f32);
            assert!(lines.iter().enumerate().all(|(i, value)| *value == i as f32));
        }
    }
}
