//! What takes how long, written down only while somebody asks for it.
//!
//! A span that nobody asks for costs a look at one flag. What was written down is told in Chrome's
//! trace event format, which Perfetto and `chrome://tracing` open.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

/// Spans of one recording at most, 10 MiB; those that come later are counted and not written down.
const SPANS_MAX: usize = 200_000;

static RECORDS: AtomicBool = AtomicBool::new(false);
static RECORDING: Mutex<Option<Written>> = Mutex::new(None);

struct Written {
    since: Instant,
    spans: Vec<Done>,
    left_out: u64,
    threads: BTreeMap<u32, String>,
}

struct Done {
    name: &'static str,
    began: Instant,
    ended: Instant,
    amount: u64,
    place: Place,
    /// The thread in which it ended.
    thread: u32,
}

/// Where a span is drawn.
#[derive(Clone, Copy)]
enum Place {
    /// In its thread, which did nothing else meanwhile.
    Thread,
    /// By itself: it waited, and others ran.
    Own(u64),
}

/// Something that takes time; it ends when it is dropped.
#[must_use]
pub struct Span(Option<Begun>);

struct Begun {
    name: &'static str,
    began: Instant,
    amount: u64,
    place: Place,
}

/// Something begins that its thread does to the end without waiting.
#[inline]
pub fn span(name: &'static str) -> Span {
    if RECORDS.load(Ordering::Relaxed) { Span::begin(name, Place::Thread) } else { Span(None) }
}

/// Something begins that waits now and then.
#[inline]
pub fn waiting_span(name: &'static str) -> Span {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if RECORDS.load(Ordering::Relaxed) {
        Span::begin(name, Place::Own(NEXT.fetch_add(1, Ordering::Relaxed)))
    } else {
        Span(None)
    }
}

impl Span {
    #[cold]
    fn begin(name: &'static str, place: Place) -> Self {
        Self(Some(Begun { name, began: Instant::now(), amount: 0, place }))
    }

    /// How much it was about: bytes, changes, matches.
    pub fn amount(&mut self, amount: usize) {
        if let Some(begun) = &mut self.0 {
            begun.amount = amount as u64;
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(begun) = self.0.take() {
            begun.end();
        }
    }
}

impl Begun {
    #[cold]
    fn end(self) {
        thread_local! {
            static THREAD: Cell<u32> = const { Cell::new(0) };
        }
        static THREADS: AtomicU32 = AtomicU32::new(1);
        let ended = Instant::now();
        let mut recording = recording();
        // It has ended, or another has begun since.
        let Some(written) = recording.as_mut().filter(|written| written.since <= self.began) else {
            return;
        };
        if written.spans.len() >= SPANS_MAX {
            written.left_out += 1;
            return;
        }
        if THREAD.get() == 0 {
            THREAD.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        let thread = THREAD.get();
        written
            .threads
            .entry(thread)
            .or_insert_with(|| std::thread::current().name().unwrap_or("unnamed").to_owned());
        let Self { name, began, amount, place } = self;
        written.spans.push(Done { name, began, ended, amount, place, thread });
    }
}

fn recording() -> MutexGuard<'static, Option<Written>> {
    RECORDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spans are written down until it is dropped.
pub struct Recording(());

impl Recording {
    /// Starts one; `None` while there is another.
    pub fn start() -> Option<Self> {
        let mut recording = recording();
        if recording.is_some() {
            return None;
        }
        *recording = Some(Written {
            since: Instant::now(),
            spans: Vec::new(),
            left_out: 0,
            threads: BTreeMap::new(),
        });
        RECORDS.store(true, Ordering::Relaxed);
        Some(Self(()))
    }

    /// Ends it and tells what happened, in Chrome's trace event format.
    pub fn finish(self) -> Value {
        let written = recording().take();
        written.map_or(Value::Null, |written| written.to_chrome())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDS.store(false, Ordering::Relaxed);
        recording().take();
    }
}

impl Written {
    #[expect(clippy::cast_precision_loss, reason = "recordings are minutes long at most")]
    fn to_chrome(&self) -> Value {
        let pid = std::process::id();
        let micros = |at: Instant| at.duration_since(self.since).as_nanos() as f64 / 1e3;
        let names = self.threads.iter().map(|(tid, name)| {
            let args = json!({"name": name});
            json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": args})
        });
        let mut events: Vec<Value> = names.collect();
        for Done { name, began, ended, amount, place, thread } in &self.spans {
            let (ts, end, args) = (micros(*began), micros(*ended), json!({"amount": amount}));
            match place {
                Place::Thread => events.push(json!({
                    "ph": "X", "cat": "work", "name": name, "pid": pid, "tid": thread,
                    "ts": ts, "dur": end - ts, "args": args,
                })),
                Place::Own(id) => {
                    let half = |ph: &str, ts: f64, args: &Value| {
                        json!({
                            "ph": ph, "cat": "waits", "id": id, "name": name, "pid": pid,
                            "tid": thread, "ts": ts, "args": args,
                        })
                    };
                    events.extend([half("b", ts, &args), half("e", end, &json!({}))]);
                }
            }
        }
        json!({
            "displayTimeUnit": "ms",
            "traceEvents": events,
            "otherData": {"spans_left_out": self.left_out},
        })
    }
}
