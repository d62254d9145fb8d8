//! How many pictures a caller may have in the server at once.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

/// Pictures by caller; a caller with none is not in it.
type Taken = Arc<Mutex<HashMap<u64, u32>>>;

/// Hands out each caller's places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    each: NonZeroU32,
    taken: Taken,
}

/// Places of a caller, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Taken,
    caller: u64,
    pictures: u32,
}

impl Places {
    /// Gives every caller `each` places.
    pub(super) fn new(each: NonZeroU32) -> Self {
        Self { each, taken: Taken::default() }
    }

    /// How many places a caller has.
    pub(super) fn each(&self) -> u32 {
        self.each.get()
    }

    /// Takes a place of `caller` for each of so many pictures, or none if there are too few.
    pub(super) fn take(&self, caller: u64, pictures: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let before = taken.get(&caller).copied().unwrap_or(0);
        let after = before.checked_add(pictures).filter(|after| *after <= self.each.get())?;
        taken.insert(caller, after);
        Some(Place { taken: Arc::clone(&self.taken), caller, pictures })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pictures) = taken.get_mut(&self.caller) {
            *pictures = pictures.saturating_sub(self.pictures);
            if *pictures == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_caller_and_come_back_when_they_are_dropped() {
        let places = Places::new(NonZeroU32::new(3).unwrap());
        let two = places.take(1, 2).unwrap();
        assert!(places.take(1, 2).is_none(), "three are all there are");
        let one = places.take(1, 1).unwrap();
        assert!(places.take(2, 3).is_some(), "another caller has its own");
        drop(two);
        assert!(places.take(1, 3).is_none() && places.take(1, 2).is_some());
        drop(one);
        assert!(places.taken.lock().unwrap().is_empty(), "nobody is remembered");
        assert!(places.take(1, u32::MAX).is_none());
    }
}
