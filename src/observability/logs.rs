//! Log lines on stderr: text for people on a terminal, JSON elsewhere.
//!
//! What is known of where something happens is a span's: of a request its id, and the match that it
//! is about. A line of JSON has that beside what happened, in one object.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Debug;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::panic::PanicHookInfo;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::LogFormat;
use crate::ids::Timestamp;

/// The least important level that is logged, to be changed while the server runs.
pub struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    /// Another one from now on.
    pub fn set(&self, level: tracing::Level) {
        // An error: nobody logs any more.
        let _ = self.0.reload(LevelFilter::from_level(level));
    }
}

/// Starts logging for the whole process.
pub fn start_logs(level: tracing::Level, format: LogFormat) -> Level {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let text = match format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    // An error: somebody has started logging already, and it goes there.
    let _ = if text {
        let lines = fmt::layer().with_writer(stderr).with_target(false).with_ansi(false);
        registry.with(lines).try_init()
    } else {
        registry.with(JsonLines(write_line)).try_init()
    };
    std::panic::set_hook(Box::new(log_panic));
    Level(handle)
}

/// A panic is a line as any other: with the id of the request that it ended.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let why = payload.downcast_ref::<&str>().copied();
    let why = why.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    // Where the environment asks for one (RUST_BACKTRACE).
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(at, why, trace, "panicked");
}

/// All of it at once: no two lines are mixed.
fn write_line(line: &[u8]) {
    // Nobody is there to be told that nobody listens.
    let _ = stderr().lock().write_all(line);
}

/// Gives each line to be written, as an object of JSON.
struct JsonLines<W>(W);

/// Fields of a span or a line, by name.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Fields::default();
        line.put("timestamp", Timestamp::now().to_string());
        line.put("level", event.metadata().level().as_str());
        line.put("target", event.metadata().target());
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(Fields(fields)) = span.extensions().get() {
                line.0.extend(fields.clone());
            }
        }
        event.record(&mut line);
        (self.0)(format!("{}\n", Value::Object(line.0)).as_bytes());
    }
}

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        // A name that is a word of Rust's.
        let name = name.trim_start_matches("r#");
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex};

    /// The lines that `act` writes.
    fn lines(act: impl FnOnce()) -> Vec<Value> {
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let keep = move |line: &[u8]| {
            let text = std::str::from_utf8(line).unwrap();
            assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
            kept.lock().unwrap().push(serde_json::from_str(text).unwrap());
        };
        let registry = tracing_subscriber::registry().with(JsonLines(keep));
        tracing::subscriber::with_default(registry, act);
        Arc::into_inner(lines).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_line_has_what_its_span_knows() {
        let lines = lines(|| {
            let span =
                tracing::error_span!("request", request_id = "r", "match" = tracing::field::Empty);
            span.in_scope(|| tracing::info!(status = 200_u16, "first\nline"));
            span.record("match", tracing::field::display("m"));
            span.in_scope(
                || tracing::warn!(r#match = %"n", good = true, change = -1, error = ?"e"),
            );
            tracing::debug!("outside");
        });
        let expected = serde_json::json!([
            {"level": "INFO", "request_id": "r", "status": 200, "message": "first\nline"},
            {"level": "WARN", "request_id": "r", "match": "n", "good": true, "change": -1, "error": "\"e\""},
            {"level": "DEBUG", "message": "outside"},
        ]);
        let without = |mut line: Value| {
            let fields = line.as_object_mut().unwrap();
            assert!(fields.remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
            assert!(fields.remove("target").unwrap().as_str().unwrap().starts_with("gameserver::"));
            line
        };
        assert_eq!(Value::Array(lines.into_iter().map(without).collect()), expected);
    }

    #[test]
    fn a_panic_is_a_line_of_its_request() {
        let before = take_hook();
        set_hook(Box::new(log_panic));
        let lines = lines(|| {
            let span = tracing::error_span!("request", request_id = "r");
            let caught = span.in_scope(|| catch_unwind(|| panic!("so {}", "much")));
            assert!(caught.is_err());
        });
        set_hook(before);
        assert_eq!((&lines[0]["request_id"], &lines[0]["why"]), (&"r".into(), &"so much".into()));
        assert!(lines[0]["at"].as_str().unwrap().contains("logs.rs:"), "{lines:?}");
    }
}
