//! The system's allocator, which is left to itself.

pub(super) fn release_unused() {}

pub(super) fn figures() -> [Option<u64>; 2] {
    [None; 2]
}
