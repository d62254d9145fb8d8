//! Freed memory, whose pages the allocator keeps for what comes next.

use std::ffi::c_long;

/// For how long it keeps them. Its own second is less than an evaluation of SDXL takes, so that each would have new pages cleared
/// for it: a twentieth of its time. Ten seconds are less than one at 1024x1024 takes, or than passes between two requests.
const KEPT_MS: c_long = 60_000;
/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator keep freed pages long enough for steps to find those of the steps before.
pub fn keep_freed() {
    // SAFETY: the option exists, and takes any number.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEPT_MS) };
}

/// Gives freed pages back to the system: before work whose buffers are much larger, which could not lie in them.
pub fn release_freed() {
    // SAFETY: it asks for nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
