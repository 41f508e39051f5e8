//! The allocator of Linux (musl's own is slow under threads) and macOS.
//!
//! Tuned for a small footprint at rest: memory that a crowd left behind goes back to the operating
//! system after a second of activity and not after ten. `_RJEM_MALLOC_CONF` in the environment
//! overrides it, `stats_print:true` there shows what is in force.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// - `narenas`: not four for each core; threads share them, and their own caches are in front.
/// - `dirty_decay_ms`, `muzzy_decay_ms`: how long freed pages are kept for the next allocation.
/// - `background_thread`: none; a server that does anything at all purges as it goes.
const OPTIONS: &[u8] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false\0";

/// jemalloc reads `const char *malloc_conf`, under the prefix that its crate gives all its symbols,
/// before the first allocation; a reference to an array is such a pointer.
#[allow(unsafe_code, reason = "an exported name has to be the only one, and no crate does this")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; OPTIONS.len()] = match OPTIONS.first_chunk() {
    Some(options) => options,
    None => unreachable!(),
};
