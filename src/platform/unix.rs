//! Linux, macOS and what is like them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use rustix::time::{ClockId, clock_gettime};
use socket2::Socket;
use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use super::Signal;

/// A server that comes back at once must not wait for its predecessor's connections in TIME-WAIT.
pub(super) const REUSE_ADDRESS: bool = true;

/// The clock that goes on while the machine sleeps; on macOS the usual one does.
#[cfg(any(target_os = "linux", target_os = "android"))]
const WAKEFUL: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const WAKEFUL: ClockId = ClockId::Monotonic;

/// What macOS grants even where it calls the hard limit unlimited (`OPEN_MAX`).
const DESCRIPTORS_GRANTED: u64 = 10_240;

pub(super) struct Signals {
    terminate: Source,
    interrupt: Source,
    hangup: Source,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

pub(super) fn raise_descriptor_limit() -> u64 {
    // A limit of `None` is no limit.
    let before = getrlimit(Resource::Nofile);
    let granted = before.maximum.map_or(DESCRIPTORS_GRANTED, |hard| hard.min(DESCRIPTORS_GRANTED));
    for wanted in [before.maximum, Some(granted)] {
        let rises = before.current.is_some_and(|current| wanted.is_none_or(|new| new > current));
        let limit = Rlimit { current: wanted, maximum: before.maximum };
        if rises && setrlimit(Resource::Nofile, limit).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

pub(super) fn wakeful_time() -> Duration {
    Duration::try_from(clock_gettime(WAKEFUL)).unwrap_or_default()
}

pub(super) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

pub(super) fn cpu_time() -> Option<Duration> {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
}

pub(super) fn descriptors() -> Option<u64> {
    let listed = fs::read_dir("/dev/fd").ok()?.count() as u64;
    // One of them is the listing's own.
    listed.checked_sub(1)
}

pub(super) fn keep_new_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

pub(super) fn data_home(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    super::home::data_home(var)
}

pub(super) fn for_owner_alone(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

pub(super) fn for_owner_alone_dir(builder: &mut DirBuilder) -> &mut DirBuilder {
    builder.mode(0o700)
}

/// A new name survives a loss of power once its directory is synced.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::{Signals, private_dir, write_private_file};
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_private_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        assert_eq!((mode(&dir.path().join("a")), mode(&path)), (0o700, 0o700));
        write_private_file(&path.join("key"), b"x").unwrap();
        assert_eq!(mode(&path.join("key")), 0o600);
    }

    #[test]
    fn the_descriptor_limit_is_the_hard_one() {
        let limit = super::super::raise_descriptor_limit();
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!(limit == hard || limit >= DESCRIPTORS_GRANTED.min(hard));
    }

    #[tokio::test]
    async fn signals_are_told_apart() {
        let mut signals = Signals::listen().unwrap();
        for (number, meant) in [
            (Number::TERM, Signal::Terminate),
            (Number::HUP, Signal::Reload),
            (Number::INT, Signal::Terminate),
        ] {
            kill_process(getpid(), number).unwrap();
            assert_eq!(signals.next().await, meant);
        }
    }
}
