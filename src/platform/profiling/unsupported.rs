//! No stacks: the platform has no walker here, or the build no frame pointers.

use super::{HeapStack, Mapping, NoProfile, ThreadStack};

const WHY: NoProfile = NoProfile::Unsupported(
    "profiles are taken on Linux, on x86_64 and aarch64, and need a build with frame pointers \
     (-Cforce-frame-pointers=yes)",
);

/// The allocator as it is.
pub type Sampled<A> = A;

pub const fn sampled<A: Copy>(allocator: A) -> Sampled<A> {
    allocator
}

/// There is nothing to set.
pub fn sample_heap(_: usize) {}

/// None are taken.
pub fn heap_sample_bytes() -> usize {
    0
}

/// Never there.
pub struct CpuProfile(std::convert::Infallible);

impl CpuProfile {
    pub fn start(_: u32) -> Result<Self, NoProfile> {
        Err(WHY)
    }

    pub fn watch_new_threads(&mut self) {
        match self.0 {}
    }

    pub fn finish(self) -> Vec<(ThreadStack, u64)> {
        match self.0 {}
    }
}

pub fn threads() -> Result<Vec<ThreadStack>, NoProfile> {
    Err(WHY)
}

pub fn heap() -> Result<Vec<HeapStack>, NoProfile> {
    Err(WHY)
}

pub fn thread_name(_: u32) -> Option<String> {
    None
}

/// No names.
pub struct Symbols;

impl Symbols {
    pub fn load() -> Self {
        Self
    }

    pub fn mappings(&self) -> &[Mapping] {
        &[]
    }

    pub fn name(&self, _: usize) -> Option<String> {
        None
    }
}
