//! The allocator of Linux (musl's own is slow under threads) and macOS.
//!
//! Tuned for a small footprint at rest: memory that a crowd left behind goes back to the operating
//! system after a second and not after ten. `_RJEM_MALLOC_CONF` in the environment
//! overrides it, `stats_print:true` there shows what is in force.

use std::ffi::CStr;
use std::ptr::null_mut;

use tikv_jemalloc_sys::mallctl;
use tikv_jemallocator::Jemalloc;

use super::profiling::{Sampled, sampled};

#[global_allocator]
static ALLOCATOR: Sampled<Jemalloc> = sampled(Jemalloc);

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
    const DECAY: &CStr = c"arena.4096.decay";
    // SAFETY: the name ends in a zero, and this control reads and writes nothing.
    let _ = unsafe { mallctl(DECAY.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
}

/// Bytes that the program holds, and those in RAM for that.
pub(super) fn figures() -> [Option<u64>; 2] {
    // The figures are those of the last change of the epoch.
    let _: Option<u64> = control(c"epoch", Some(1));
    [c"stats.allocated", c"stats.resident"].map(|name| Some(control::<usize>(name, None)? as u64))
}

/// Reads a value, which must be of the type that jemalloc's manual says, after writing another.
#[allow(unsafe_code, reason = "jemalloc's control interface is C")]
fn control<T: Copy + Default>(name: &CStr, mut new: Option<T>) -> Option<T> {
    let (mut value, mut length) = (T::default(), size_of::<T>());
    let (new, new_length) = new.as_mut().map_or((null_mut(), 0), |new| (&raw mut *new, length));
    // SAFETY: both values live through the call and are as long as is said; jemalloc answers EINVAL
    // and touches neither if that is not the length of its own.
    let failed = unsafe {
        let value = (&raw mut value).cast();
        mallctl(name.as_ptr(), value, &raw mut length, new.cast(), new_length)
    };
    (failed == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name under which jemalloc looks for them differs between its builds.
    #[test]
    fn the_options_are_in_force() {
        assert_eq!(control::<isize>(c"opt.dirty_decay_ms", None), Some(1000));
        assert_eq!(control::<isize>(c"opt.muzzy_decay_ms", None), Some(0));
        assert_eq!(control::<u32>(c"opt.narenas", None), Some(4));
        assert_eq!(control::<u32>(c"opt.none", None), None);
    }
}
