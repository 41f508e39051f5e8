//! What whoever looks after the server sees: log lines, and the admin listener.

mod admin;
mod logs;

pub use admin::Admin;
pub use logs::{Level, start_logs};
