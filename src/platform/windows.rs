//! Windows. What a Unix does with modes is left to the directory's access list, which a file takes
//! over: `%LOCALAPPDATA%` is its user's alone.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use super::Signal;

/// There it would let another process take over the port; what it does on a Unix is the default.
pub(super) const REUSE_ADDRESS: bool = false;

pub(super) struct Signals {
    c: CtrlC,
    r#break: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            c: ctrl_c()?,
            r#break: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.c.recv() => Signal::Terminate,
            _ = self.r#break.recv() => Signal::Terminate,
            _ = self.close.recv() => Signal::Terminate,
            _ = self.shutdown.recv() => Signal::Terminate,
        }
    }
}

pub(super) fn raise_descriptor_limit() -> u64 {
    u64::MAX
}

/// Its performance counter goes on while the machine sleeps.
pub(super) fn wakeful_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

pub(super) fn share_port(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "Windows cannot share a port"))
}

pub(super) fn cpu_time() -> Option<Duration> {
    None
}

pub(super) fn descriptors() -> Option<u64> {
    None
}

pub(super) fn keep_new_files_private() {}

pub(super) fn data_home(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    var("LOCALAPPDATA").map(PathBuf::from)
}

pub(super) fn for_owner_alone(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

pub(super) fn for_owner_alone_dir(builder: &mut DirBuilder) -> &mut DirBuilder {
    builder
}

/// Windows cannot sync a directory; NTFS keeps a journal of names.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(super) fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}
