//! What systems other than Linux do in place of `linux`: they leave it.

use std::io;

use socket2::Socket;
use tokio::net::TcpStream;

use super::Service;

#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(super) fn tune_listener(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// What an accepted connection takes over from its listener differs.
pub(super) fn tune_accepted(stream: &TcpStream) -> io::Result<()> {
    super::tune(stream)
}

#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(super) fn tune(_: &Socket) -> io::Result<()> {
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(super) fn limit_unsent(_: &Socket, _: u32) -> io::Result<()> {
    Ok(())
}

pub(super) fn memory_limit() -> Option<u64> {
    None
}

pub(super) fn resident_bytes() -> Option<u64> {
    None
}

#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(super) fn notify(_: Service) -> io::Result<()> {
    Ok(())
}
