//! Where memory comes from: an allocator that keeps freed pages for what comes next.

mod recent;

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc_aligned, mi_usable_size, mi_zalloc, mi_zalloc_aligned,
};
use recent::Recent;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_long, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// For how long it keeps them. Its own second is less than an evaluation of SDXL takes, so that each would have new pages cleared
/// for it: a twentieth of its time. When the time is over it gives all of them back, however lately freed: with a minute, that comes
/// to one in four evaluations at 1024x1024.
const KEPT_MS: c_long = 600_000;
/// For how long it keeps them where memory is dear: longer than a band of a picture takes, which finds those of the band before.
const SPARING_MS: c_long = 300;
/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Bytes from which on a block has pages of its own, and begins with one as a rule.
const LARGE: usize = 1 << 18;

/// Free blocks that mimalloc does not know to be free.
static RECENT: Mutex<Recent> = Mutex::new(Recent::new());

fn recent() -> MutexGuard<'static, Recent> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees what [`recent`] kept.
///
/// # Safety
/// It must be the address of a block of mimalloc's that nobody uses.
unsafe fn free(address: usize) {
    // SAFETY: the caller's promise.
    unsafe { mi_free(std::ptr::with_exposed_provenance_mut(address)) };
}

/// mimalloc, which is told of no alignment that large blocks have anyway: it would ask for a byte more than there is in such a
/// block, and round that up, by 256 KiB for each of SDXL's weights and each part of a picture.
#[derive(Debug)]
pub struct Allocator;

impl Allocator {
    /// What `plain` finds, unless it is a small block or not aligned as asked for; then what `aligned` finds.
    fn find(
        layout: Layout,
        plain: unsafe extern "C" fn(usize) -> *mut c_void,
        aligned: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    ) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if size >= LARGE {
            // SAFETY: it may be asked for any size, and what it found is given back once.
            unsafe {
                let found = plain(size);
                if found.addr().is_multiple_of(align) {
                    return found.cast();
                }
                mi_free(found);
            }
        }
        // SAFETY: alignments of layouts are powers of two.
        unsafe { aligned(size, align).cast() }
    }
}

// SAFETY: blocks are mimalloc's, as large and aligned as asked for, or null; it frees what it found in either way.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE
            && let Some(address) = recent().take(layout.size(), layout.align())
        {
            return std::ptr::with_exposed_provenance_mut(address);
        }
        Self::find(layout, mi_malloc, mi_malloc_aligned)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::find(layout, mi_zalloc, mi_zalloc_aligned)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; what was kept is nobody's.
        unsafe {
            if layout.size() < LARGE {
                return mi_free(block.cast());
            }
            let bytes = mi_usable_size(block.cast());
            let freed = recent().keep(block.expose_provenance(), layout.size(), bytes);
            freed.into_iter().for_each(|address| free(address));
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { mi_realloc_aligned(block.cast(), size, layout.align()).cast() }
    }
}

/// Lets the allocator keep freed pages long enough for steps to find those of the steps before, and hand out first what was freed last.
pub fn keep_freed() {
    keep_for(KEPT_MS);
    recent().open();
}

/// Has freed pages given back to the system while `work` is done, whose buffers are so large that pages must not lie idle: at once,
/// and then as soon as nobody has taken them for a while.
pub fn thriftily<R>(work: impl FnOnce() -> R) -> R {
    struct Thrift {
        were_open: bool,
    }
    impl Drop for Thrift {
        fn drop(&mut self) {
            keep_for(KEPT_MS);
            if self.were_open {
                recent().open();
            }
        }
    }
    let kept = recent().close();
    let _thrift = Thrift { were_open: kept.is_some() };
    // SAFETY: nobody uses blocks that were kept.
    kept.into_iter().flatten().for_each(|address| unsafe { free(address) });
    keep_for(SPARING_MS);
    // SAFETY: it asks for nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
    work()
}

fn keep_for(milliseconds: c_long) {
    // SAFETY: the option exists, and takes any number.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_large_and_aligned_as_asked_for_and_keep_what_they_hold() {
        for size in [1, 100, LARGE - 1, LARGE, (4 << 20) + 1] {
            for align in [1, 4, 64, 1 << 12, 1 << 20] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout is not empty, and blocks are used within it until they are freed, once.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size}, {align}");
                    assert!((0..size).all(|at| *block.add(at) == 0));
                    block.write_bytes(7, size);
                    let grown = Allocator.realloc(block, layout, 2 * size);
                    assert!(grown.addr().is_multiple_of(align) && (0..size).all(|at| *grown.add(at) == 7));
                    Allocator.dealloc(grown, Layout::from_size_align(2 * size, align).unwrap());
                    let block = Allocator.alloc(layout);
                    assert!(block.addr().is_multiple_of(align), "{size}, {align}");
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn a_large_block_takes_no_more_than_its_size_rounded_up() {
        for align in [2, 4, 64] {
            let layout = Layout::from_size_align(4 << 20, align).unwrap();
            // SAFETY: the layout is not empty, and the block is freed once.
            unsafe {
                let block = Allocator.alloc(layout);
                assert_eq!(mi_usable_size(block.cast()), 4 << 20, "alignment {align}");
                Allocator.dealloc(block, layout);
            }
        }
    }
}
