//! What whoever looks after the server sees: log lines, and the admin listener.
//!
//! - `admin`: health and readiness; what is answered where
//! - `metrics`: all figures, for Prometheus
//! - `pprof`: profiles, for `go tool pprof`, and traces
//! - `status`: a page for a look

mod admin;
mod logs;
mod metrics;
mod pprof;
mod status;

pub use admin::Admin;
pub use logs::{Level, start_logs};
