//! An allocator that counts: what the whole process holds, and the most it has held during some work.
//!
//! For test binaries with a single test, since everything that runs at the same time is counted too.
#![allow(unsafe_code, reason = "a global allocator that counts can only be written with it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that `LIVE` has been since it was last reset.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted. Growing and zeroing are the trait's own: through `alloc` and `dealloc`.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `System` with the layout it came with; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract, which is the one of `System`.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `memory` came from `alloc` with this layout, and so from `System` with it.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The most bytes that some work held beyond what was held before it, and what the work gives.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let given = work();
    (PEAK.load(Ordering::Relaxed) - before, given)
}
