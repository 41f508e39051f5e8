//! What the server counts and times while it runs: every room above says here what happens in it.
//!
//! - [`metrics`]: the kinds of figures; a count is an atomic addition, without a look-up
//! - [`figures`]: the figures, each with its name and what it means
//! - [`trace`]: what takes how long, written down only while somebody asks for it
//! - [`work`]: what the background tasks are doing
//!
//! Whoever looks after the server reads all of it by way of the admin listener.

pub mod figures;
pub mod metrics;
pub mod trace;
pub mod work;
