//! Counts what a thread allocates, for promises like "no more memory than a small multiple of the input".

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting per thread.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    /// Bytes allocated and not freed by this thread. Negative when it frees what others have allocated.
    static NOW: Cell<isize> = const { Cell::new(0) };
    /// The most that `NOW` was since [`peak`] began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The result of `work` and the most bytes it held at one time, beyond what was held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    let outer = PEAK.replace(before);
    let result = work();
    let most = PEAK.get();
    // An outer measurement saw this one too.
    PEAK.set(most.max(outer));
    (result, most.saturating_sub(before).unsigned_abs())
}

/// Runs `work`, which may hold `bytes_max` bytes at one time.
pub fn bounded<T>(what: &str, bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let (result, bytes) = peak(work);
    assert!(
        bytes <= bytes_max,
        "{what}: held {bytes} bytes, {bytes_max} are allowed"
    );
    result
}

/// `bytes` more are held. A thread that ends has no counter any more, and nobody to read it.
fn count(bytes: isize) {
    let _ = NOW.try_with(|now| {
        let held = now.get() + bytes;
        now.set(held);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held)));
    });
}

#[expect(
    unsafe_code,
    reason = "there is no other way to be the allocator; it only counts and passes on"
)]
// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; counting
// touches plain thread-local numbers and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Both are held while the content moves.
        count(bytes as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_was_held_is_told() {
        let (kept, bytes) = peak(|| {
            drop(vec![0u8; 10_000]);
            vec![0u8; 4_000]
        });
        assert_eq!((kept.len(), bytes), (4_000, 10_000));
        let (inner, outer) = peak(|| {
            drop(vec![0u8; 7_000]);
            peak(|| drop(vec![0u8; 3_000])).1
        });
        assert_eq!((inner, outer), (3_000, 7_000));
    }
}
