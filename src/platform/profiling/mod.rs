//! Looks into the running process: where its time goes, what holds its memory, what its threads do.
//!
//! Stacks are walked by frame pointers, which a signal handler may do at any point and which need
//! no tables: the program is built with them (`.cargo/config.toml`). `linux` does it, `elf` knows the
//! names of functions, and `heap` samples what is allocated; elsewhere `unsupported` says so.

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    frame_pointers
))]
mod elf;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    frame_pointers
))]
#[allow(unsafe_code, reason = "an allocator is unsafe")]
mod heap;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    frame_pointers
))]
#[allow(unsafe_code, reason = "a signal handler, and a walk over the own stack")]
#[path = "linux.rs"]
mod sys;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    frame_pointers
)))]
#[path = "unsupported.rs"]
mod sys;

pub use sys::{
    CpuProfile, Sampled, Symbols, heap, heap_sample_bytes, sample_heap, sampled, thread_name,
    threads,
};

/// Why there is no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoProfile {
    /// It can't be had on this platform, in this build or as it was started: a sentence that says why.
    Unsupported(&'static str),
    /// Another one is being taken.
    Busy,
    /// The operating system refused.
    Refused,
}

/// A call stack that was seen, as addresses: the innermost first. All but the first are those that
/// calls return to.
pub type Stack = Box<[usize]>;

/// What a thread was seen to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadStack {
    /// The number that the operating system gave it.
    pub thread: u32,
    /// Where it was; empty if it did not answer.
    pub stack: Stack,
}

/// Who allocated how much, all of it estimated from samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeapStack {
    /// Who allocated.
    pub stack: Stack,
    /// Objects since the start.
    pub allocated_objects: f64,
    /// Their bytes.
    pub allocated_bytes: f64,
    /// Objects that are not freed.
    pub live_objects: f64,
    /// Their bytes.
    pub live_bytes: f64,
}

/// A part of the address space that holds code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: usize,
    /// The first address behind it.
    pub end: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file, or what the operating system calls it.
    pub path: String,
    /// What tells the file from other builds of it; empty if nothing does.
    pub build_id: String,
}
