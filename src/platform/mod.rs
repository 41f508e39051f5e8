//! What differs between operating systems: the contract, and nothing else in the program says
//! `cfg(target…)`.
//!
//! Each platform has a file that keeps the contract as well as the platform can, down to doing
//! nothing: `unix` (Linux, macOS and their kin) and `windows`; `linux` for what Linux alone has, and
//! `elsewhere` for the others. `xdg` and `macos` know where a user's data is on a Unix, and `jemalloc`
//! is the allocator where it is worth its size; elsewhere it is the system's. [`profiling`] looks into
//! the running process.
//!
//! Cores need nothing here: [`std::thread::available_parallelism`], and so tokio, goes by the
//! processors and the control group's quota that this process has, not by what the machine has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

pub mod profiling;

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[path = "jemalloc.rs"]
mod allocator;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
#[path = "system_allocator.rs"]
mod allocator;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod home;
#[cfg(all(unix, not(target_os = "macos")))]
#[path = "xdg.rs"]
mod home;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod kernel;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod kernel;
#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "windows.rs"]
mod sys;

/// Connections that the operating system may complete before they are accepted. When they are
/// more, it lets clients try again; Linux takes less if `net.core.somaxconn` is less.
pub const BACKLOG: i32 = 1024;
/// A connection on which nothing moves is asked whether it is still there, and given up if there is
/// no answer to [`KEEP_ALIVE_RETRIES`] questions. WebSockets have pings that come sooner.
pub const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
/// The time between such questions.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many there are.
pub const KEEP_ALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay unacknowledged before the connection is given up: as long as a
/// WebSocket may be silent. Linux alone; elsewhere it is minutes.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
/// Bytes that wait unsent in the system for a connection that is to be kept fresh: a few views. Linux
/// alone; elsewhere as many as it likes.
const UNSENT_BYTES_MAX: u32 = 4096;

/// What the operating system, or whoever looks after the server, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish what was promised and end: SIGTERM and SIGINT; Ctrl-C, Ctrl-Break, the closing of the
    /// console and the shutdown of Windows.
    Terminate,
    /// Read again what can change while it runs: SIGHUP. Never comes on Windows.
    Reload,
}

/// The signals to this process. From the first [`Signals::listen`] on they do nothing by themselves
/// any more, even when it is dropped.
pub struct Signals(sys::Signals);

impl Signals {
    /// Begins to listen. Needs a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        sys::Signals::listen().map(Self)
    }

    /// Waits for the next one. Cancel-safe. Equal ones that come while nobody waits are one.
    pub async fn next(&mut self) -> Signal {
        self.0.next().await
    }
}

/// Raises the number of files and sockets that the process may open as far as it may without more
/// rights, and tells how many that is; `u64::MAX` where there is no limit. A failure changes
/// nothing.
pub fn raise_descriptor_limit() -> u64 {
    sys::raise_descriptor_limit()
}

/// The time since some moment before the start of the process. Unlike [`std::time::Instant`] it goes
/// on while the machine sleeps, for what others expect of it by the time.
pub fn wakeful_time() -> Duration {
    sys::wakeful_time()
}

/// What the process creates from now on is its owner's alone, unless it says otherwise: the store holds
/// password hashes. Does nothing on Windows, where a file takes over what its directory grants.
pub fn keep_new_files_private() {
    sys::keep_new_files_private();
}

/// Gives memory that was not used for a while back to the operating system; to be called once a
/// second. Does nothing where the allocator looks after that itself.
pub fn release_unused_memory() {
    allocator::release_unused();
}

/// Where this user's applications keep their data, and there `gameserver`: it may not exist yet.
/// `None` where the user has no home.
///
/// - Linux: `$XDG_DATA_HOME`, otherwise `~/.local/share` (XDG Base Directory Specification)
/// - macOS: `~/Library/Application Support`
/// - Windows: `%LOCALAPPDATA%`
pub fn data_dir_default() -> Option<PathBuf> {
    let parent = sys::data_home(|name| std::env::var_os(name).filter(|value| !value.is_empty()))?;
    parent.is_absolute().then(|| parent.join("gameserver"))
}

/// Creates a directory, with those above it, that is its owner's alone (mode 0700; on Windows what
/// the directory above it grants). One that is there already is left as it is.
pub fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    sys::for_owner_alone_dir(&mut builder).recursive(true).create(path)
}

/// Creates a file that its owner alone can read (mode 0600; on Windows what its directory grants)
/// and returns once it would survive a loss of power. Under `path` there is all of it or nothing.
/// A file that is there already is left as it is: [`io::ErrorKind::AlreadyExists`]. Two processes
/// must not do this with one `path` at a time.
pub fn write_private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.try_exists()? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    let mut file = new_private_file(&unfinished)?;
    file.write_all(bytes)?;
    publish(file, &unfinished, path)
}

/// Creates a file that its owner alone can read, for [`publish`]. What an earlier try left is not
/// written over: it might be readable by others.
pub fn new_private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    sys::for_owner_alone(&mut options).write(true).create_new(true).open(path)
}

/// Gives a finished file its name, and returns once it would survive a loss of power.
pub fn publish(file: File, unfinished: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    drop(file);
    fs::rename(unfinished, path)?;
    sys::sync_dir(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Listens on `address`, at once after an earlier process that did, too. `[::]` takes IPv4 as well:
/// such a peer is `::ffff:a.b.c.d`, which [`IpAddr::to_canonical`] undoes; on a machine without IPv6
/// it takes IPv4 alone. With `shared`, other processes of the same user that share it may listen there
/// at the same time, and each gets a part of the connections: [`io::ErrorKind::Unsupported`] on
/// Windows. Needs a tokio runtime.
///
/// Linux tells of a connection once it has something to read, or a second later.
pub fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let open =
        |address| Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let everywhere = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let (socket, address) = match open(address) {
        Err(_) if everywhere => {
            let address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
            (open(address)?, address)
        }
        opened => (opened?, address),
    };
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    if sys::REUSE_ADDRESS {
        socket.set_reuse_address(true)?;
    }
    if shared {
        sys::share_port(&socket)?;
    }
    tune_socket(&socket)?;
    kernel::tune_listener(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Readies a connection for small messages, each of which leaves at once (`TCP_NODELAY`), and for
/// peers that vanish (keep-alive, [`UNACKNOWLEDGED_MAX`]).
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream))
}

/// The same for a connection that [`listen`]'s listener accepted.
pub fn tune_accepted(stream: &TcpStream) -> io::Result<()> {
    kernel::tune_accepted(stream)
}

/// Has the system hold few bytes that it has not sent yet, as far as it can: what waits there can't be
/// replaced by something newer.
pub fn keep_fresh(stream: &TcpStream) -> io::Result<()> {
    kernel::limit_unsent(&SockRef::from(stream), UNSENT_BYTES_MAX)
}

fn tune_socket(socket: &Socket) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_RETRIES);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keep_alive)?;
    kernel::tune(socket)
}

/// What the process uses; `None` where the platform does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time since the start, of all threads, in the kernel too.
    pub cpu: Option<Duration>,
    /// Memory that is in RAM, the program's own pages included, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory that was asked for and not given back, in bytes.
    pub allocated_bytes: Option<u64>,
    /// Memory that the allocator holds in RAM for it, in bytes.
    pub allocator_bytes: Option<u64>,
    /// Open files and sockets.
    pub descriptors: Option<u64>,
}

/// Takes the figures of this moment: cheap enough for every scrape, and for no message.
pub fn usage() -> Usage {
    let [allocated_bytes, allocator_bytes] = allocator::figures();
    Usage {
        cpu: sys::cpu_time(),
        resident_bytes: kernel::resident_bytes(),
        allocated_bytes,
        allocator_bytes,
        descriptors: sys::descriptors(),
    }
}

/// Bytes that the process and what shares its control group may take before some of them are killed:
/// cgroup v2 on Linux. `None` where nothing but the machine's memory bounds them.
pub fn memory_limit() -> Option<u64> {
    kernel::memory_limit()
}

/// What a service manager wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It serves, at first or again after [`Service::Reloading`].
    Ready,
    /// It reads its settings again.
    Reloading,
    /// It drains.
    Stopping,
}

/// Tells the service manager that started the process, if that asked to be told: `NOTIFY_SOCKET`, so
/// systemd with `Type=notify` or `Type=notify-reload`. Does nothing on other systems than Linux.
pub fn notify(service: Service) -> io::Result<()> {
    kernel::notify(service)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// A connection to `listener` and its other end, both from the first byte on.
    async fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        tune_accepted(&accepted).unwrap();
        assert_eq!(accepted.read(&mut [0]).await.unwrap(), 1);
        (client, accepted)
    }

    #[test]
    fn a_private_file_is_whole_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(dir.path().join("key.pem.new"), "left by a crash").unwrap();
        write_private_file(&path, b"first").unwrap();
        let again = write_private_file(&path, b"second").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let nowhere = write_private_file(&dir.path().join("none/key.pem"), b"").unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_private_dir_is_made_with_those_above_it_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        private_dir(&path).unwrap();
        assert!(path.is_dir());
        fs::write(path.join("file"), "").unwrap();
        assert!(private_dir(&path.join("file")).is_err());
    }

    #[test]
    fn the_descriptor_limit_only_rises() {
        let first = raise_descriptor_limit();
        assert!(first > 0);
        assert!(raise_descriptor_limit() >= first);
    }

    #[test]
    fn time_goes_on() {
        let (began, first) = (std::time::Instant::now(), wakeful_time());
        std::thread::sleep(Duration::from_millis(5));
        let passed = wakeful_time().checked_sub(first).unwrap();
        assert!(passed >= Duration::from_millis(5) && passed <= began.elapsed(), "{passed:?}");
    }

    #[test]
    fn the_data_directory_is_ours_alone() {
        if let Some(path) = data_dir_default() {
            assert!(path.is_absolute() && path.ends_with("gameserver"), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_listener_can_follow_another_on_its_port() {
        let first = listen(LOOPBACK, false).unwrap();
        let address = first.local_addr().unwrap();
        let taken = listen(address, false).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let (mut client, mut accepted) = connected(&first).await;
        // The side that closes first is the one whose port stays taken for a while.
        accepted.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop((first, accepted, client));
        listen(address, false).unwrap();
    }

    #[tokio::test]
    async fn connections_are_tuned_on_both_sides() {
        let listener = listen(LOOPBACK, false).unwrap();
        let (client, accepted) = connected(&listener).await;
        tune(&client).unwrap();
        for stream in [&client, &accepted] {
            assert!(stream.nodelay().unwrap());
            assert!(SockRef::from(stream).keepalive().unwrap());
        }
    }

    #[tokio::test]
    async fn a_port_is_shared_by_those_alone_who_say_so() {
        let first = match listen(LOOPBACK, true) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            listening => listening.unwrap(),
        };
        let address = first.local_addr().unwrap();
        assert_eq!(listen(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let second = listen(address, true).unwrap();
        drop(first);
        connected(&second).await;
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let listener = listen((Ipv6Addr::UNSPECIFIED, 0).into(), false).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
    }

    #[test]
    fn the_figures_are_of_this_process() {
        let held = vec![1_u8; 1 << 20];
        let Usage { cpu, resident_bytes, allocated_bytes, allocator_bytes, descriptors } = usage();
        assert!(cpu.is_none_or(|cpu| !cpu.is_zero()));
        let least = held.len() as u64;
        for bytes in [resident_bytes, allocated_bytes, allocator_bytes].into_iter().flatten() {
            assert!((least..1 << 40).contains(&bytes), "{bytes}");
        }
        let _one_more = tempfile::tempfile().unwrap();
        assert!(descriptors.is_none_or(|count| count > 1));
    }

    #[test]
    fn nobody_who_did_not_ask_is_told() {
        // A test runner does not run as a service of the type that asks.
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            notify(Service::Ready).unwrap();
        }
        assert!(memory_limit().is_none_or(|bytes| bytes > 0));
    }
}
