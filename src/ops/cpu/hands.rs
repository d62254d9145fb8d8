//! How many threads a piece of work may count on: all, unless others have work of their own meanwhile.

use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tasks for each thread, where there is enough to do, so that threads end together.
const TASKS: usize = 4;

/// Threads that share out pieces of work among themselves: those that are done with theirs help with what is left.
#[derive(Debug)]
struct Crew {
    threads: usize,
    /// Pieces of work that are not done.
    left: AtomicUsize,
}

thread_local! {
    static CREW: RefCell<Option<Arc<Crew>>> = const { RefCell::new(None) };
}

/// Puts back what the thread knew before, and counts its piece as done.
struct Piece<'a> {
    crew: &'a Crew,
    before: Option<Arc<Crew>>,
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        CREW.set(self.before.take());
        self.crew.left.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crew {
    /// So many threads for so many pieces of work.
    fn new(threads: usize, pieces: usize) -> Arc<Self> {
        Arc::new(Self { threads, left: AtomicUsize::new(pieces) })
    }

    /// Does a piece of the work.
    fn with<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        let _piece = Piece { crew: self, before: CREW.replace(Some(Arc::clone(self))) };
        work()
    }

    /// Threads for each piece that is left.
    fn hands(&self) -> usize {
        self.threads / self.left.load(Ordering::Relaxed).max(1)
    }
}

/// Tasks that work is to be cut into, where each cut costs something.
pub fn tasks() -> usize {
    let hands =
        CREW.with_borrow(|crew| crew.as_ref().map_or_else(rayon::current_num_threads, |crew| crew.hands()));
    if hands < 2 { 1 } else { TASKS * hands }
}

/// Does `work` with each of `tasks`, which threads take one by one: the pool would hand several to a thread together, and no other
/// could take what that has not begun.
pub fn one_by_one<T: Send>(tasks: impl Iterator<Item = T>, work: impl Fn(T) + Send + Sync) {
    let tasks: Vec<T> = tasks.collect();
    tasks.into_par_iter().with_max_len(1).for_each(work);
}

/// What `work` makes of each of so many pieces, which the threads share out among themselves.
pub fn share_out<R: Send>(pieces: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let crew = Crew::new(rayon::current_num_threads(), pieces);
    (0..pieces).into_par_iter().map(|piece| crew.with(|| work(piece))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_counts_on_its_share_of_the_threads_and_the_last_one_on_all() {
        let all = tasks();
        let crew = Crew::new(2, 2);
        assert_eq!((crew.with(tasks), crew.with(tasks)), (1, 2 * TASKS));
        assert_eq!(Crew::new(2, 3).with(tasks), 1);
        let crew = Crew::new(4, 2);
        assert!(std::panic::catch_unwind(|| crew.with(|| panic!("work fails"))).is_err());
        assert_eq!(crew.hands(), 4);
        assert_eq!(tasks(), all);
    }
}
