//! The allocator of Linux (musl's own is slow under threads) and macOS.
//!
//! Tuned for a small footprint at rest: memory that a crowd left behind goes back to the operating
//! system after a second and not after ten. `_RJEM_MALLOC_CONF` in the environment
//! overrides it, `stats_print:true` there shows what is in force.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// - `narenas`: not four for each core; threads share them, and their own caches are in front.
/// - `dirty_decay_ms`, `muzzy_decay_ms`: how long freed pages are kept for the next allocation.
/// - `background_thread`: none; [`release_unused`] does the little that is to do.
const OPTIONS: &[u8] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false\0";

/// jemalloc reads `const char *malloc_conf`, under the prefix that its crate gives all its symbols,
/// before the first allocation; a reference to an array is such a pointer.
#[allow(unsafe_code, reason = "an exported name has to be the only one, and no crate does this")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; OPTIONS.len()] = match OPTIONS.first_chunk() {
    Some(options) => options,
    None => unreachable!(),
};

/// Gives back the pages that were not used for the time that [`OPTIONS`] says. jemalloc itself looks
/// after that only while memory is allocated; a server at rest would keep what its last crowd left.
#[allow(unsafe_code, reason = "jemalloc's control interface is C")]
pub(super) fn release_unused() {
    // `MALLCTL_ARENAS_ALL` is 4096 in jemalloc 5.
    const DECAY: &std::ffi::CStr = c"arena.4096.decay";
    let (none, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the name ends in a zero, and this control reads and writes nothing.
    let _ = unsafe {
        tikv_jemalloc_sys::mallctl(DECAY.as_ptr(), none, no_length, std::ptr::null_mut(), 0)
    };
}
