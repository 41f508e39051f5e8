//! `/debug/pprof/`, as Go's `net/http/pprof` has it: `go tool pprof` works with it as it is.

mod profile;
mod tasks;

use std::fmt::Write as _;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, StatusCode};
use tokio::time::{Instant, sleep, sleep_until};

use self::profile::{Profile, SampleType};
use super::admin::{Admin, body};
use crate::http::input::{BODY_BYTES_MAX, Query};
use crate::http::problem::Refusal;
use crate::http::server::{Request, Response};
use crate::platform::profiling::{
    self, CpuProfile, NoProfile, Symbols, ThreadStack, heap_sample_bytes, thread_name,
};
use crate::telemetry::trace::Recording;

/// How long a profile of CPU time takes unless told otherwise, in seconds; as Go's.
const PROFILE_SECONDS: u64 = 30;
/// How long it may take.
const PROFILE_SECONDS_MAX: u64 = 300;
/// Looks at each running thread in a second, unless told otherwise.
const PROFILE_HZ: u64 = 100;
/// The same at most: the kernel's clock is not finer on most machines.
const PROFILE_HZ_MAX: u64 = 1000;
/// How often a profile looks for threads that have begun since.
const THREADS_INTERVAL: Duration = Duration::from_millis(100);
/// How long a trace takes unless told otherwise, in seconds; as Go's.
const TRACE_SECONDS: u64 = 1;
/// How long it may take.
const TRACE_SECONDS_MAX: u64 = 60;

const SAMPLES: SampleType = ("samples", "count");
const CPU: SampleType = ("cpu", "nanoseconds");
const SPACE: SampleType = ("space", "bytes");
const ALLOCATED: SampleType = ("alloc_space", "bytes");
const LIVE: SampleType = ("inuse_space", "bytes");
/// In Go's order.
const HEAP: &[SampleType] =
    &[("alloc_objects", "count"), ALLOCATED, ("inuse_objects", "count"), LIVE];
const THREADS: SampleType = ("threads", "count");

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// What is sampled, on the way into the allocator, is no part of who allocates.
const ALLOCATING: &[&str] = &[
    "gameserver::platform::profiling::",
    "<gameserver::platform::profiling::",
    "__rust",
    "alloc::",
    "<alloc::",
    "hashbrown::",
    "<hashbrown::",
    "core::",
    "<core::",
    "std::thread::local::",
];

/// Sends whoever left out the slash to the index page.
pub(super) fn to_index() -> Response {
    let mut response = body(TEXT, "");
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/debug/pprof/"));
    response
}

/// Answers what is below `/debug/pprof/`: `page` is the rest of the address.
pub(super) async fn answer(
    admin: &Admin,
    page: &str,
    request: Request,
) -> Result<Response, Refusal> {
    if page == "symbol" {
        return symbol(request).await;
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(Refusal::method_not_allowed("GET, HEAD"));
    }
    let query = Query::of(&request);
    let text = query.number("debug", 0..=2)?.unwrap_or(0) > 0;
    match page {
        "" => Ok(body(HTML, INDEX)),
        "cmdline" => Ok(body(TEXT, std::env::args().collect::<Vec<_>>().join("\0"))),
        "profile" => {
            let seconds = query.number("seconds", 1..=PROFILE_SECONDS_MAX)?;
            let hz = query.number("hz", 1..=PROFILE_HZ_MAX)?.unwrap_or(PROFILE_HZ);
            cpu(Duration::from_secs(seconds.unwrap_or(PROFILE_SECONDS)), hz, text).await
        }
        "heap" => heap(LIVE, text).await,
        "allocs" => heap(ALLOCATED, text).await,
        "threads" => threads(text).await,
        "tasks" | "goroutine" => {
            if text {
                Ok(body(TEXT, tasks::list(&admin.registry)))
            } else {
                shown(&tasks::profile(&admin.registry), false)
            }
        }
        "trace" => {
            let seconds = query.number("seconds", 1..=TRACE_SECONDS_MAX)?.unwrap_or(TRACE_SECONDS);
            trace(Duration::from_secs(seconds)).await
        }
        "block" | "mutex" => Err(Refusal::not_implemented(
            "locks keep no record of who waits for them: look at threads, and at the times in /metrics",
        )),
        "threadcreate" => Err(Refusal::not_implemented(
            "threads keep no record of who made them: threads says what each is doing",
        )),
        _ => Err(Refusal::not_found("profile: /debug/pprof/ lists them")),
    }
}

impl From<NoProfile> for Refusal {
    fn from(reason: NoProfile) -> Self {
        match reason {
            NoProfile::Unsupported(why) => Self::not_implemented(why),
            NoProfile::Busy => Self::conflict("another profile is being taken: try again after it"),
            NoProfile::Refused => Self::unavailable("the operating system gives no more timers"),
        }
    }
}

async fn cpu(duration: Duration, hz: u64, text: bool) -> Result<Response, Refusal> {
    let hz = u32::try_from(hz).unwrap_or(u32::MAX);
    let mut sampling = CpuProfile::start(hz)?;
    let end = Instant::now() + duration;
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + THREADS_INTERVAL)).await;
        sampling.watch_new_threads();
    }
    elsewhere(move || {
        let period = u64::from(1_000_000_000 / hz);
        let symbols = Symbols::load();
        let mut profile = Profile::new(&[SAMPLES, CPU], CPU, symbols.mappings())
            .period(CPU, period)
            .duration(duration);
        for (ThreadStack { thread, stack }, count) in sampling.finish() {
            let values = vec![count, count * period];
            profile.add(&symbols, &stack, |_| false, values, Some(("thread", called(thread))));
        }
        shown(&profile, text)
    })
    .await
}

async fn heap(show: SampleType, text: bool) -> Result<Response, Refusal> {
    elsewhere(move || {
        let stacks = profiling::heap()?;
        let symbols = Symbols::load();
        let mut profile =
            Profile::new(HEAP, show, symbols.mappings()).period(SPACE, heap_sample_bytes() as u64);
        for seen in stacks {
            let values =
                [seen.allocated_objects, seen.allocated_bytes, seen.live_objects, seen.live_bytes];
            let is_own = |name: &str| ALLOCATING.iter().any(|own| name.starts_with(own));
            profile.add(&symbols, &seen.stack, is_own, values.map(whole).to_vec(), None);
        }
        shown(&profile, text)
    })
    .await
}

async fn threads(text: bool) -> Result<Response, Refusal> {
    elsewhere(move || {
        let threads = profiling::threads()?;
        let symbols = Symbols::load();
        let mut profile = Profile::new(&[THREADS], THREADS, symbols.mappings());
        for ThreadStack { thread, stack } in threads {
            let label = Some(("thread", called(thread)));
            profile.add(&symbols, &stack, |_| false, vec![1], label);
        }
        shown(&profile, text)
    })
    .await
}

async fn trace(duration: Duration) -> Result<Response, Refusal> {
    let busy = || Refusal::conflict("another trace is being taken: try again after it");
    let recording = Recording::start().ok_or_else(busy)?;
    sleep(duration).await;
    elsewhere(move || Ok(body(JSON, recording.finish().to_string()))).await
}

/// Names of addresses, as Go answers: the number of symbols if there is nothing to name.
async fn symbol(request: Request) -> Result<Response, Refusal> {
    let asked = match *request.method() {
        Method::GET | Method::HEAD => request.uri().query().unwrap_or_default().to_owned(),
        Method::POST => addresses(request.into_body()).await?,
        _ => return Err(Refusal::method_not_allowed("GET, HEAD, POST")),
    };
    elsewhere(move || {
        let symbols = Symbols::load();
        // A number above 0 says that there are names.
        let mut text = format!("num_symbols: {}\n", usize::from(!symbols.mappings().is_empty()));
        for word in asked.split(['+', ' ']) {
            let digits = word.trim().trim_start_matches("0x");
            if let Ok(address) = usize::from_str_radix(digits, 16)
                && let Some(name) = symbols.name(address)
            {
                let _ = writeln!(text, "{address:#x} {name}");
            }
        }
        Ok(body(TEXT, text))
    })
    .await
}

async fn addresses(body: Incoming) -> Result<String, Refusal> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Refusal::too_large(BODY_BYTES_MAX))?.to_bytes();
    String::from_utf8(body.to_vec()).map_err(|_| Refusal::malformed("addresses are text"))
}

/// Runs on a thread that may take its time.
async fn elsewhere(
    act: impl FnOnce() -> Result<Response, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    tokio::task::spawn_blocking(act).await.map_err(|_| Refusal::internal())?
}

fn shown(profile: &Profile, text: bool) -> Result<Response, Refusal> {
    if text {
        return Ok(body(TEXT, profile.to_text()));
    }
    let proto = profile.to_proto().map_err(|_| Refusal::internal())?;
    Ok(body(BINARY, proto))
}

fn called(thread: u32) -> String {
    let name = thread_name(thread).unwrap_or_else(|| "ended".into());
    format!("{name} ({thread})")
}

#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "it is not negative")]
fn whole(estimate: f64) -> u64 {
    estimate.round() as u64
}

const INDEX: &str = include_str!("index.html");
