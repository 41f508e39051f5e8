//! The system's allocator, which is left to itself.

pub(super) fn release_unused() {}
