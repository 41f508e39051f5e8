//! Tasks and threads without which the server is none.
//!
//! A panic in a request's or a socket's task harms that one alone. One in the log's writer, say,
//! would leave a server that answers and never gets anything done: better it ends, and whoever looks
//! after it starts it again; everything acknowledged is in the store.

/// Ends the process if the task or thread that holds it panics.
pub struct Vital(pub &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{} has failed, and nothing goes on without it", self.0);
            std::process::abort();
        }
    }
}
