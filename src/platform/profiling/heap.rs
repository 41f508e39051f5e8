//! Samples what is allocated, for heap profiles: an allocator over the allocator.
//!
//! Each thread counts down the bytes that it allocates to its next sample; distances are
//! exponentially distributed, so that an object of `size` bytes is met with the probability
//! `1 - exp(-size / mean)`, whatever the pattern of allocations, and each sample stands for the
//! inverse of that. An allocation that is not sampled costs a subtraction; one that is freed costs a
//! look at a byte of [`FILTER`], which says that it was not sampled, nearly always.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sys::{own_stack, stack_top};
use super::{HeapStack, Stack};

/// Different stacks that are told apart; what comes from others is put together, without a stack.
const STACKS_MAX: usize = 16 * 1024;
/// Bytes of [`FILTER`]; a power of two.
const FILTER_SLOTS: usize = 32 * 1024;
/// A count at which a byte of the filter stays.
const STUCK: u8 = u8::MAX;

/// An allocator whose allocations are sampled.
pub struct Sampled<A>(A);

/// Samples the allocations of `allocator`.
pub const fn sampled<A: Copy>(allocator: A) -> Sampled<A> {
    Sampled(allocator)
}

/// Bytes between two samples, in the mean; 0: none are taken. At first as many as Go has.
static MEAN: AtomicUsize = AtomicUsize::new(512 * 1024);

/// Sets how many bytes are allocated between two samples, in the mean; with 0 none are taken. To be
/// said before much is allocated: what was sampled is taken as if it had been so from the start.
pub fn sample_heap(mean: usize) {
    MEAN.store(mean, Ordering::Relaxed);
}

/// What [`sample_heap`] was told.
pub fn heap_sample_bytes() -> usize {
    MEAN.load(Ordering::Relaxed)
}

/// How many sampled objects have an address of each slot: 0 says that there is none.
static FILTER: [AtomicU8; FILTER_SLOTS] = [const { AtomicU8::new(0) }; FILTER_SLOTS];

static TABLE: Mutex<Table> =
    Mutex::new(Table { stacks: BTreeMap::new(), totals: Vec::new(), live: BTreeMap::new() });

/// What was sampled.
struct Table {
    stacks: BTreeMap<Stack, usize>,
    /// By the number of the stack: objects and bytes since the start.
    totals: Vec<(f64, f64)>,
    /// By address: the number of the stack, and bytes.
    live: BTreeMap<usize, (usize, usize)>,
}

/// A thread's way to its next sample.
struct Countdown {
    bytes_left: Cell<usize>,
    /// 0 before the thread's first allocation.
    random: Cell<u64>,
    /// Whether the sampler itself runs: what it allocates is not sampled.
    inside: Cell<bool>,
}

thread_local! {
    static COUNTDOWN: Countdown = const {
        Countdown { bytes_left: Cell::new(0), random: Cell::new(0), inside: Cell::new(false) }
    };
}

// Not inlined: all that is ever dropped frees something, and half a megabyte of copies costs more than
// a call.
// SAFETY: all is done by the allocator within; what it gives is passed on as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sampled<A> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        let pointer = unsafe { self.0.alloc(layout) };
        allocated(pointer, layout.size());
        pointer
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the same contract.
        let pointer = unsafe { self.0.alloc_zeroed(layout) };
        allocated(pointer, layout.size());
        pointer
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Before the address can be another's.
        freed(pointer);
        // SAFETY: the caller keeps the same contract.
        unsafe { self.0.dealloc(pointer, layout) };
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        freed(pointer);
        // SAFETY: the caller keeps the same contract.
        let moved = unsafe { self.0.realloc(pointer, layout, new_size) };
        allocated(moved, new_size);
        moved
    }
}

#[inline]
fn allocated(pointer: *mut u8, size: usize) {
    COUNTDOWN.with(|countdown| match countdown.bytes_left.get().checked_sub(size) {
        Some(left) => countdown.bytes_left.set(left),
        None => countdown.run_out(pointer as usize, size),
    });
}

#[inline]
fn freed(pointer: *mut u8) {
    if slot(pointer as usize).load(Ordering::Relaxed) != 0 {
        forget(pointer as usize);
    }
}

/// Neighbours have neighbouring bytes, and so share a cache line.
#[inline]
fn slot(address: usize) -> &'static AtomicU8 {
    const GRANULE_BITS: u32 = 4;
    let granule = address >> GRANULE_BITS;
    &FILTER[(granule ^ (granule >> FILTER_SLOTS.trailing_zeros())) % FILTER_SLOTS]
}

#[cold]
fn forget(address: usize) {
    COUNTDOWN.with(|countdown| {
        if countdown.inside.replace(true) {
            return;
        }
        if table().live.remove(&address).is_some() {
            count(address, |sampled| sampled - 1);
        }
        countdown.inside.set(false);
    });
}

/// Changes the filter; under the lock of the table.
fn count(address: usize, change: impl Fn(u8) -> u8) {
    let slot = slot(address);
    let sampled = slot.load(Ordering::Relaxed);
    if sampled != STUCK {
        slot.store(change(sampled), Ordering::Relaxed);
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Countdown {
    #[cold]
    #[inline(never)]
    fn run_out(&self, address: usize, size: usize) {
        if address == 0 || self.inside.replace(true) {
            return;
        }
        if self.random.get() == 0 {
            // The address of a thread's own variable: no two threads have the same.
            self.random.set(std::ptr::from_ref(self) as u64 | 1);
            stack_top();
            self.bytes_left.set(self.distance());
        }
        if let Some(left) = self.bytes_left.get().checked_sub(size) {
            self.bytes_left.set(left);
        } else {
            table().sample(address, size);
            self.bytes_left.set(self.distance());
        }
        self.inside.set(false);
    }

    /// Bytes to the next sample.
    #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    fn distance(&self) -> usize {
        // xorshift64* (Vigna, 2016).
        let mut random = self.random.get();
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        self.random.set(random);
        let bits = random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        let uniform = (bits as f64 + 1.0) / (1_u64 << 53) as f64;
        match heap_sample_bytes() {
            0 => usize::MAX,
            mean => (-uniform.ln() * mean as f64) as usize,
        }
    }
}

impl Table {
    fn sample(&mut self, address: usize, size: usize) {
        let stack = own_stack();
        let room = self.totals.len() < STACKS_MAX || self.stacks.contains_key(&stack);
        let next = self.totals.len();
        let number =
            *self.stacks.entry(if room { stack } else { Stack::default() }).or_insert(next);
        if number == next {
            self.totals.push((0.0, 0.0));
        }
        let (objects, bytes) = &mut self.totals[number];
        let stands_for = weight(size);
        *objects += stands_for;
        *bytes += stands_for * to_f64(size);
        self.live.insert(address, (number, size));
        count(address, |sampled| sampled + 1);
    }

    fn profile(&self) -> Vec<HeapStack> {
        let mut all = vec![HeapStack::default(); self.totals.len()];
        for (stack, number) in &self.stacks {
            let (allocated_objects, allocated_bytes) = self.totals[*number];
            let stack = stack.clone();
            all[*number] =
                HeapStack { stack, allocated_objects, allocated_bytes, ..HeapStack::default() };
        }
        for (number, size) in self.live.values() {
            all[*number].live_objects += weight(*size);
            all[*number].live_bytes += weight(*size) * to_f64(*size);
        }
        all
    }
}

/// How many objects of `size` bytes a sampled one stands for.
fn weight(size: usize) -> f64 {
    1.0 / (1.0 - (-to_f64(size) / to_f64(heap_sample_bytes())).exp())
}

#[expect(clippy::cast_precision_loss, reason = "an estimate is not that precise")]
fn to_f64(bytes: usize) -> f64 {
    bytes as f64
}

/// Who allocated how much.
pub(super) fn profile() -> Vec<HeapStack> {
    COUNTDOWN.with(|countdown| {
        // What is allocated under the lock must not ask for it.
        countdown.inside.set(true);
        let profile = table().profile();
        countdown.inside.set(false);
        profile
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::profiling::Symbols;
    use std::hint::black_box;

    const HELD: usize = 32 * 1024 * 1024;
    const PIECE: usize = 64 * 1024;

    /// Live and allocated bytes that the profile says are from the function called `name`.
    fn of(name: &str) -> (f64, f64) {
        let symbols = Symbols::load();
        let is_from = |seen: &&HeapStack| {
            let mut names = seen.stack.iter().filter_map(|address| symbols.name(address - 1));
            names.any(|found| found.ends_with(name))
        };
        let profile = profile();
        let from = profile.iter().filter(is_from);
        from.fold((0.0, 0.0), |(live, all), seen| {
            (live + seen.live_bytes, all + seen.allocated_bytes)
        })
    }

    #[inline(never)]
    fn hoard() -> Vec<Vec<u8>> {
        (0..HELD / PIECE).map(|_| black_box(vec![1; PIECE])).collect()
    }

    #[test]
    fn what_is_held_is_seen_until_it_is_freed() {
        let held = black_box(hoard());
        let (live, all) = of("tests::hoard");
        let truly = to_f64(HELD);
        assert!((truly * 0.4..truly * 2.0).contains(&live), "{live} of {truly}");
        drop(held);
        let (left, still_all) = of("tests::hoard");
        assert!(left < truly * 0.1, "{left} are left");
        assert!(still_all >= all && all >= live, "{still_all}, {all}, {live}");
    }

    #[inline(never)]
    fn grow() -> Vec<u8> {
        let mut grown = Vec::new();
        while grown.len() < HELD {
            grown.resize(grown.len() + PIECE, 1);
        }
        grown
    }

    #[test]
    fn what_grew_is_counted_once() {
        let held = black_box(grow());
        let (live, _) = of("tests::grow");
        let capacity = to_f64(held.capacity());
        assert!((capacity * 0.99..capacity * 1.01).contains(&live), "{live} of {capacity}");
    }

    const DISTANCES: usize = 20_000;

    #[test]
    fn samples_are_as_far_apart_as_they_should_be() {
        let countdown = Countdown {
            bytes_left: Cell::new(0),
            random: Cell::new(0x5EED),
            inside: Cell::new(false),
        };
        let mean = (0..DISTANCES).map(|_| countdown.distance()).sum::<usize>() / DISTANCES;
        let wanted = heap_sample_bytes();
        assert!((wanted * 97 / 100..wanted * 103 / 100).contains(&mean), "{mean}");
    }
}
