//! Linux: each thread has a timer of its own CPU time, whose signal walks the thread's stack.
//!
//! A timer for the whole process would do for less, but which thread gets its signal is up to the
//! kernel, and older ones tend to choose the one that sleeps. The handler does what a handler may:
//! it reads its own stack and writes into memory that is there already.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, mem, ptr, thread};

pub use super::elf::Symbols;
pub use super::heap::{Sampled, heap_sample_bytes, sample_heap, sampled};
use super::{HeapStack, NoProfile, Stack, ThreadStack};

/// Frames of a stack that are kept; the innermost.
const DEPTH_MAX: usize = 128;
/// Words for what a profile sees, 32 MiB: memory that is not needed is never touched. What comes
/// when they are used up is not recorded.
const WORDS_MAX: usize = 4 * 1024 * 1024;
/// Threads that are looked at.
const THREADS_MAX: usize = 1024;
/// How long threads may take to say what they do.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);
/// Words at the top of a stack in which a saved frame pointer is looked for.
const SCANNED_WORDS: usize = 64;
/// Bits of a record's first word that hold the number of frames; the thread's number is above.
const DEPTH_BITS: u32 = 16;

/// Where the handler writes; null while nothing is recorded.
static WORDS: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// Words that are taken.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Handlers that run.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);
/// Whether somebody records.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Where this program's own code begins and ends.
static CODE_START: AtomicUsize = AtomicUsize::new(0);
static CODE_END: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The first address behind the thread's stack; 0 while it is not known.
    static STACK_TOP: Cell<usize> = const { Cell::new(0) };
}

/// The first address behind this thread's stack. Not for the handler, which takes what is known:
/// each thread allocates before it does anything, and the sampler asks for it then.
pub(super) fn stack_top() -> usize {
    let known = STACK_TOP.get();
    if known != 0 {
        return known;
    }
    // SAFETY: the attributes are made by the first call, and are read and let go only then.
    let top = unsafe {
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return 0;
        }
        let (mut lowest, mut bytes) = (ptr::null_mut(), 0);
        libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut bytes);
        libc::pthread_attr_destroy(&raw mut attributes);
        lowest as usize + bytes
    };
    STACK_TOP.set(top);
    top
}

/// The stack of whoever calls, from the caller on.
#[inline(never)]
pub(super) fn own_stack() -> Stack {
    let frame: usize;
    // SAFETY: it reads a register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    let mut frames = [0; DEPTH_MAX];
    let depth = walk(frame, frame, stack_top(), &mut frames);
    frames[..depth].into()
}

/// Follows the chain of frame pointers and gives how many callers there are. Whatever `frame` is,
/// nothing is read but this thread's stack between `stack_pointer` and `top`, all of which is there.
fn walk(mut frame: usize, stack_pointer: usize, top: usize, callers: &mut [usize]) -> usize {
    let mut depth = 0;
    let mut lowest = stack_pointer;
    while depth < callers.len()
        && frame >= lowest
        && frame.is_multiple_of(align_of::<usize>())
        && frame.checked_add(size_of::<[usize; 2]>()).is_some_and(|end| end <= top)
    {
        // SAFETY: it is aligned, and within the used part of this thread's stack.
        let [caller_frame, return_address] = unsafe { *(frame as *const [usize; 2]) };
        let return_address = code_address(return_address);
        if return_address == 0 {
            break;
        }
        callers[depth] = return_address;
        depth += 1;
        lowest = frame + size_of::<[usize; 2]>();
        frame = caller_frame;
    }
    depth
}

/// The frame of a caller, where a function without one has the frame pointer for something else, as
/// system calls of musl do: such a function saves it near the top of the stack. What is saved there
/// points to a frame whose return address is in this program.
fn saved_frame(stack_pointer: usize, top: usize) -> Option<usize> {
    let code = CODE_START.load(Ordering::Relaxed)..CODE_END.load(Ordering::Relaxed);
    let word = |address: usize| {
        let whole = address.is_multiple_of(align_of::<usize>())
            && (stack_pointer..top.saturating_sub(size_of::<usize>())).contains(&address);
        // SAFETY: it is aligned, and within the used part of this thread's stack.
        whole.then(|| unsafe { *(address as *const usize) })
    };
    let places = (0..SCANNED_WORDS).map(|n| stack_pointer + n * size_of::<usize>());
    places.filter_map(|place| Some((place, word(place)?))).find_map(|(place, frame)| {
        let return_address = word(frame.checked_add(size_of::<usize>())?)?;
        (frame > place && code.contains(&code_address(return_address))).then_some(frame)
    })
}

/// Without the signature that aarch64 may keep in its upper bits.
fn code_address(address: usize) -> usize {
    const ADDRESS_BITS: u32 = 48;
    if cfg!(target_arch = "aarch64") { address & ((1 << ADDRESS_BITS) - 1) } else { address }
}

/// The program counter, the frame pointer and the stack pointer of an interrupted thread.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "they are addresses")]
fn registers(context: &libc::ucontext_t) -> [usize; 3] {
    let machine = &context.uc_mcontext;
    #[cfg(target_arch = "x86_64")]
    let registers =
        [libc::REG_RIP, libc::REG_RBP, libc::REG_RSP].map(|name| machine.gregs[name as usize]);
    #[cfg(target_arch = "aarch64")]
    let registers = [machine.pc, machine.regs[29], machine.sp];
    registers.map(|value| value as usize)
}

extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    HANDLERS.fetch_add(1, Ordering::SeqCst);
    let words = WORDS.load(Ordering::SeqCst);
    if !words.is_null() {
        // SAFETY: the kernel gives a handler with SA_SIGINFO such a context.
        let [counter, frame, stack_pointer] = registers(unsafe { &*context.cast() });
        let mut stack = [counter; DEPTH_MAX];
        let top = STACK_TOP.get();
        let mut depth = 1 + walk(frame, stack_pointer, top, &mut stack[1..]);
        if depth == 1
            && let Some(frame) = saved_frame(stack_pointer, top)
        {
            depth += walk(frame, stack_pointer, top, &mut stack[1..]);
        }
        let at = USED.fetch_add(1 + depth, Ordering::Relaxed);
        if at + 1 + depth <= WORDS_MAX {
            // SAFETY: there are so many words, and nobody else has these; they stay until no
            // handler runs.
            let record = unsafe { std::slice::from_raw_parts(words.add(at), 1 + depth) };
            // SAFETY: a call without arguments that can't fail.
            let thread = unsafe { libc::syscall(libc::SYS_gettid) }.unsigned_abs();
            record[0].store(thread << DEPTH_BITS | depth as u64, Ordering::Relaxed);
            for (word, address) in record[1..].iter().zip(stack) {
                word.store(address as u64, Ordering::Relaxed);
            }
        }
    }
    HANDLERS.fetch_sub(1, Ordering::SeqCst);
}

/// Memory into which handlers write, for one who records at a time.
struct Recorder(Box<[AtomicU64]>);

impl Recorder {
    fn start() -> Result<Self, NoProfile> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(NoProfile::Busy);
        }
        // Zeroed memory from the operating system: pages come as they are written to.
        let words = Box::into_raw(vec![0_u64; WORDS_MAX].into_boxed_slice());
        // SAFETY: the box is nobody else's, and the two types are alike in memory.
        let recorder = Self(unsafe { Box::from_raw(words as *mut [AtomicU64]) });
        // SAFETY: all zeros are an action; the handler keeps to what a handler may do. It stays: a
        // signal that comes late would end the process otherwise.
        let installed = unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut())
        };
        if installed != 0 {
            return Err(NoProfile::Refused);
        }
        let here = on_signal as *const () as usize;
        if let Some(code) = Symbols::load().mapping(here) {
            CODE_START.store(code.start, Ordering::Relaxed);
            CODE_END.store(code.end, Ordering::Relaxed);
        }
        USED.store(0, Ordering::SeqCst);
        WORDS.store(recorder.0.as_ptr().cast_mut(), Ordering::SeqCst);
        Ok(recorder)
    }

    /// Nothing is written any more.
    fn stop() {
        WORDS.store(ptr::null_mut(), Ordering::SeqCst);
        while HANDLERS.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }

    /// What was written, once it has stopped.
    fn records(&self) -> impl Iterator<Item = ThreadStack> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (head, after) = rest.split_first()?;
            let head = head.load(Ordering::Relaxed);
            let depth = usize::try_from(head & ((1 << DEPTH_BITS) - 1)).ok()?;
            let (stack, after) = after.split_at_checked(depth).filter(|_| depth > 0)?;
            rest = after;
            let address = |word: &AtomicU64| usize::try_from(word.load(Ordering::Relaxed)).ok();
            let thread = u32::try_from(head >> DEPTH_BITS).ok()?;
            Some(ThreadStack { thread, stack: stack.iter().filter_map(address).collect() })
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        Self::stop();
        TAKEN.store(false, Ordering::SeqCst);
    }
}

/// What a thread is called, if it is still there.
pub fn thread_name(thread: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The numbers of this process' threads.
fn thread_numbers() -> BTreeSet<u32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let number = |task: fs::DirEntry| task.file_name().to_str()?.parse().ok();
    tasks.filter_map(number).take(THREADS_MAX).collect()
}

/// A profile of CPU time that is being taken.
pub struct CpuProfile {
    recorder: Recorder,
    period: Duration,
    timers: BTreeMap<u32, Timer>,
}

impl CpuProfile {
    /// Starts one that looks at each thread `hz` times in a second of its CPU time.
    pub fn start(hz: u32) -> Result<Self, NoProfile> {
        let recorder = Recorder::start()?;
        let period = Duration::from_secs(1) / hz.max(1);
        let mut profile = Self { recorder, period, timers: BTreeMap::new() };
        profile.watch_new_threads();
        if profile.timers.is_empty() { Err(NoProfile::Refused) } else { Ok(profile) }
    }

    /// Looks at threads that have begun since, too; to be called every now and then.
    pub fn watch_new_threads(&mut self) {
        for thread in thread_numbers() {
            if !self.timers.contains_key(&thread)
                && let Some(timer) = Timer::start(thread, self.period)
            {
                self.timers.insert(thread, timer);
            }
        }
    }

    /// Ends it. Gives what was seen, and how often.
    pub fn finish(self) -> Vec<(ThreadStack, u64)> {
        drop(self.timers);
        Recorder::stop();
        let mut counts = BTreeMap::new();
        for record in self.recorder.records() {
            *counts.entry(record).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }
}

/// Sends a thread a signal each time that it has used so much CPU time.
struct Timer(libc::timer_t);

// SAFETY: it is a number for the kernel; which thread uses it does not matter.
unsafe impl Send for Timer {}

impl Timer {
    /// `None` if the thread has gone, or the kernel takes no more timers.
    fn start(thread: u32, period: Duration) -> Option<Self> {
        let thread = c_int::try_from(thread).ok()?;
        // The clock of a thread's CPU time (`clock_getcpuclockid(3)`; the kernel's posix-timers.h).
        let clock = (!thread << 3) | 6;
        let nanos = period.subsec_nanos();
        let every =
            libc::timespec { tv_sec: period.as_secs().try_into().ok()?, tv_nsec: nanos.into() };
        let setting = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: all zeros are an event; what is pointed to lives longer than the calls.
        unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGPROF;
            event.sigev_notify_thread_id = thread;
            let mut timer = ptr::null_mut();
            if libc::timer_create(clock, &raw mut event, &raw mut timer) != 0 {
                return None;
            }
            let timer = Self(timer);
            (libc::timer_settime(timer.0, 0, &raw const setting, ptr::null_mut()) == 0)
                .then_some(timer)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it was made by `timer_create`, and is let go once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// What each thread does at this moment; blocks for a moment.
pub fn threads() -> Result<Vec<ThreadStack>, NoProfile> {
    let recorder = Recorder::start()?;
    let threads = thread_numbers();
    for thread in &threads {
        // SAFETY: the signal has a handler.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *thread, libc::SIGPROF) };
    }
    let asked = Instant::now();
    while recorder.records().count() < threads.len() && asked.elapsed() < ANSWER_TIMEOUT {
        thread::sleep(Duration::from_millis(1));
    }
    Recorder::stop();
    let mut stacks: BTreeMap<u32, Stack> =
        recorder.records().map(|seen| (seen.thread, seen.stack)).collect();
    let one = |thread| ThreadStack { thread, stack: stacks.remove(&thread).unwrap_or_default() };
    Ok(threads.into_iter().map(one).collect())
}

/// Who allocated how much.
pub fn heap() -> Result<Vec<HeapStack>, NoProfile> {
    match heap_sample_bytes() {
        0 => Err(NoProfile::Unsupported(
            "the heap is not sampled: GAMESERVER_HEAP_SAMPLE_BYTES is 0",
        )),
        _ => Ok(super::heap::profile()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[inline(never)]
    fn spin(done: &AtomicBool) -> u64 {
        let mut turns = 0;
        while !done.load(Ordering::Relaxed) {
            turns = black_box(turns + 1);
        }
        turns
    }

    #[test]
    fn a_busy_thread_is_found_and_named() {
        let symbols = Symbols::load();
        let spins = |seen: &ThreadStack| {
            let names = seen.stack.iter().filter_map(|address| symbols.name(*address));
            names.filter(|name| name.ends_with("tests::spin")).count() == 1
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| spin(&done));
            let mut profile = CpuProfile::start(500).unwrap();
            assert_eq!(CpuProfile::start(500).err(), Some(NoProfile::Busy));
            assert_eq!(threads().err(), Some(NoProfile::Busy));
            // A thread that begins later.
            scope.spawn(|| spin(&done));
            let mut late = Instant::now() + Duration::from_secs(1);
            while Instant::now() < late {
                profile.watch_new_threads();
                thread::sleep(Duration::from_millis(20));
            }
            let seen = profile.finish();
            let busy: BTreeSet<u32> =
                seen.iter().filter(|(seen, _)| spins(seen)).map(|(seen, _)| seen.thread).collect();
            assert_eq!(busy.len(), 2, "{seen:?}");

            // Both answer, though they never come to rest.
            late = Instant::now() + Duration::from_secs(20);
            while threads().unwrap().iter().filter(|seen| spins(seen)).count() < 2 {
                assert!(Instant::now() < late, "they are not seen");
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_chain_that_leads_nowhere_is_not_followed() {
        let top = stack_top();
        let here = std::ptr::from_ref(&top) as usize;
        assert!(here < top);
        let mut callers = [0; 8];
        for frame in [0, 1, here | 1, here - 4096, top - 8, top, usize::MAX & !7] {
            assert_eq!(walk(frame, here, top, &mut callers), 0, "{frame:#x}");
        }
        let mut ring = [0, 1];
        ring[0] = ring.as_ptr() as usize;
        assert_eq!(walk(ring[0], ring[0].min(here), top, &mut callers), 1, "it never ends");
        assert!(own_stack().len() > 3, "a test is called by something");
        for (stack_pointer, top) in [(here, here), (here, here + 8), (top - 64, top), (top, top)] {
            assert_eq!(saved_frame(stack_pointer, top), None);
        }
    }
}
