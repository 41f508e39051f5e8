//! What Linux alone has: options of TCP, control groups, `/proc`, systemd's notices.

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::{env, fs, io};

use rustix::param::page_size;
use rustix::time::{ClockId, clock_gettime};
use socket2::Socket;
use tokio::net::TcpStream;

use super::{Service, UNACKNOWLEDGED_MAX};

/// A connection is told of once its client has sent something, or this many seconds later: whoever
/// connects and says nothing costs no task, and a request is there when it is read for.
const SILENT_CONNECTION_SECONDS: libc::c_int = 1;

pub(super) fn tune_listener(socket: &Socket) -> io::Result<()> {
    tune(socket)?;
    defer_accept(socket)
}

/// Accepted connections take over what their listener has (tcp(7)): that saves the calls.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(super) fn tune_accepted(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

pub(super) fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// The rest stays with whoever writes (`TCP_NOTSENT_LOWAT`).
pub(super) fn limit_unsent(socket: &Socket, bytes: u32) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(bytes)
}

#[allow(unsafe_code, reason = "no crate has this option")]
fn defer_accept(socket: &Socket) -> io::Result<()> {
    let seconds = SILENT_CONNECTION_SECONDS;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the value is an int of the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_of(&own, Path::new("/sys/fs/cgroup"))
}

/// Of a process in these groups: the least that its own of version 2 and those above it allow.
fn memory_limit_of(groups: &str, root: &Path) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = root.join(own);
    let above = path.ancestors().take_while(|dir| dir.starts_with(root));
    above
        .filter_map(|dir| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

pub(super) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

pub(super) fn notify(notice: Service) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => notify_at(&socket, notice),
        _ => Ok(()),
    }
}

/// `sd_notify(3)`: one datagram to a path, or to a name that begins with `@`.
fn notify_at(socket: &OsStr, notice: Service) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let text = match notice {
        Service::Ready => "READY=1".to_owned(),
        Service::Stopping => "STOPPING=1".to_owned(),
        Service::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")
        }
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{listen, tests::LOOPBACK};
    use socket2::SockRef;

    #[test]
    fn the_memory_limit_is_the_least_of_the_groups_above() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("pods/one");
        fs::create_dir_all(&own).unwrap();
        let limit = |groups: &str| memory_limit_of(groups, root.path());
        let in_own = "1:cpu:/other\n0::/pods/one\n";
        assert_eq!(limit(in_own), None);
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(in_own), None);
        fs::write(root.path().join("pods/memory.max"), "1000\n").unwrap();
        assert_eq!(limit(in_own), Some(1000));
        fs::write(own.join("memory.max"), "400\n").unwrap();
        assert_eq!(limit(in_own), Some(400));
        assert_eq!((limit("0::/\n"), limit("1:memory:/pods\n")), (None, None));
    }

    #[test]
    fn notices_reach_a_path_and_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("gameserver-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, receiver) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}").into(), UnixDatagram::bind_addr(&address).unwrap()),
        ] {
            let told = |notice| {
                notify_at(&socket, notice).unwrap();
                let mut buffer = [0; 256];
                let count = receiver.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..count].to_vec()).unwrap()
            };
            assert_eq!(told(Service::Ready), "READY=1");
            assert_eq!(told(Service::Stopping), "STOPPING=1");
            let reloading = told(Service::Reloading);
            let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(since.parse::<u64>().unwrap() > 0);
        }
        assert!(notify_at(dir.path().join("none").as_os_str(), Service::Ready).is_err());
    }

    #[tokio::test]
    async fn a_silent_client_is_accepted_too() {
        let listener = listen(LOOPBACK, false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let timeout = SockRef::from(&accepted).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(UNACKNOWLEDGED_MAX));
    }
}
