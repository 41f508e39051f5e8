//! What differs between operating systems: the contract, and nothing else in the program says
//! `cfg(target…)`.
//!
//! Each platform has a file that keeps the contract as well as the platform can, down to doing
//! nothing: `unix` (Linux, macOS and their kin) and `windows`. `xdg` and `macos` know where a user's
//! data is on a Unix, and `jemalloc` is the allocator where it is worth its size; elsewhere it is
//! the system's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

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
#[cfg(unix)]
#[path = "unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "windows.rs"]
mod sys;

/// Connections that the operating system may complete before they are accepted. When they are
/// more, it lets clients try again; Linux takes less if `net.core.somaxconn` is less.
pub const BACKLOG: i32 = 1024;

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
/// such a peer is `::ffff:a.b.c.d`, which [`IpAddr::to_canonical`] undoes. Needs a tokio runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    if sys::REUSE_ADDRESS {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Readies an accepted connection for small messages: each leaves at once (`TCP_NODELAY`).
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let taken = listen(address).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut accepted, _) = first.accept().await.unwrap();
        tune(&accepted).unwrap();
        assert!(accepted.nodelay().unwrap());
        // The side that closes first is the one whose port stays taken for a while.
        accepted.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        drop((first, accepted, client));
        listen(address).unwrap();
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let Ok(listener) = listen("[::]:0".parse().unwrap()) else { return };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
    }
}
