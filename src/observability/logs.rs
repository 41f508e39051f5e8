//! Log lines on stderr: text for people on a terminal, JSON elsewhere.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogFormat;

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
    let lines = fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // An error: somebody has started logging already, and it goes there.
    let _ = if text {
        registry.with(lines.with_target(false).with_ansi(false)).try_init()
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()
    };
    Level(handle)
}
