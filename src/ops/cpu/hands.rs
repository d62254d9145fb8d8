//! How many threads a piece of work may count on: all, unless others have work of their own meanwhile.

use std::cell::Cell;

/// Tasks for each thread, where there is enough to do, so that threads end together.
const TASKS: usize = 4;

thread_local! {
    static HANDS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Puts back what the thread knew before.
struct Before(Option<usize>);

impl Drop for Before {
    fn drop(&mut self) {
        HANDS.set(self.0);
    }
}

/// Does `work`, whose tasks may count on `hands` threads. Others help where they are idle, all the same.
pub fn with<R>(hands: usize, work: impl FnOnce() -> R) -> R {
    let _before = Before(HANDS.replace(Some(hands)));
    work()
}

/// Tasks that work is to be cut into, where each cut costs something.
pub fn tasks() -> usize {
    match HANDS.get().unwrap_or_else(rayon::current_num_threads) {
        1 => 1,
        hands => TASKS * hands,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hand_cuts_nothing_and_others_are_counted_again_behind_it() {
        let all = tasks();
        assert_eq!((with(1, tasks), with(3, || with(2, tasks))), (1, 2 * TASKS));
        assert!(std::panic::catch_unwind(|| with(1, || panic!("work fails"))).is_err());
        assert_eq!(tasks(), all);
    }
}
