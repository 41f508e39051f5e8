//! Starts, kills and restarts real servers.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::{self, Database};

/// How long anything may take before a test fails: generous, since machines that test are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Lines of a server's stderr that a failed test shows.
const SHOWN_LINES_MAX: usize = 40;
/// Lines of a server's stderr that are kept.
const KEPT_LINES_MAX: usize = 2000;

/// Whether servers are to store in PostgreSQL: the whole suite runs against both stores.
pub fn on_postgres() -> bool {
    std::env::var("TEST_STORE").is_ok_and(|store| store == "postgres")
}

/// A command of the binary under test, in an environment of its own: `TEST_BINARY`, a whole path, or
/// this build's.
pub fn gameserver() -> Command {
    let given = std::env::var_os("TEST_BINARY");
    let mut command = Command::new(given.unwrap_or(env!("CARGO_BIN_EXE_gameserver").into()));
    command.env_clear();
    command
}

/// An RSA key for all servers: making one takes seconds.
pub fn signing_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let output = gameserver().arg("keygen").output().unwrap();
        assert!(output.status.success(), "keygen: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

/// The server that most tests share. It lives as long as one of them holds it.
pub fn shared() -> Shared {
    static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut weak = SERVER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let server = weak.upgrade().unwrap_or_else(|| Arc::new(Server::start()));
    *weak = Arc::downgrade(&server);
    Shared(server)
}

/// A hold on the shared server.
pub struct Shared(Arc<Server>);

impl Deref for Shared {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() && Arc::strong_count(&self.0) > 1 {
            self.0.show_log();
        }
    }
}

/// A running server with a data directory of its own; dropping it kills it.
pub struct Server {
    /// Where players connect.
    pub public: SocketAddr,
    /// Where health is asked for.
    pub admin: SocketAddr,
    /// Its data directory, or the one it was told to share.
    pub data: Arc<TempDir>,
    settings: Vec<(String, String)>,
    database: Option<Arc<Database>>,
    child: Child,
    log: Arc<Log>,
}

impl Server {
    /// Starts with the common signing key.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts with more settings; `GAMESERVER_` goes before each name.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let common = [("JWT_PRIVATE_KEY", signing_key())];
        Self::with_only(&[&common, settings].concat())
    }

    /// Starts without the common signing key.
    pub fn with_only(settings: &[(&str, &str)]) -> Self {
        let named = |(name, value): &(&str, &str)| (format!("GAMESERVER_{name}"), (*value).into());
        let database = on_postgres().then(|| Arc::new(postgres::database()));
        let data = Arc::new(tempfile::tempdir().unwrap());
        let mut settings: Vec<(String, String)> = settings.iter().map(named).collect();
        if database.is_some() && !settings.iter().any(|(name, _)| name.ends_with("DATABASE_URL")) {
            // The only node of its database keeps its address when it starts again.
            settings.push(("GAMESERVER_ADVERTISE".into(), "the-only-node:1".into()));
        }
        Self::in_dir(data, database, settings)
    }

    fn in_dir(
        data: Arc<TempDir>,
        database: Option<Arc<Database>>,
        settings: Vec<(String, String)>,
    ) -> Self {
        let url = database.as_ref().map(|database| ("GAMESERVER_DATABASE_URL", &database.url));
        let mut child = command_in(&data)
            .envs(url)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::drain(child.stderr.take().unwrap());
        let Some(line) = log.wait_for(|line| field(line, "admin").is_some()) else {
            let _ = child.kill();
            log.show();
            panic!("the server did not say where it listens");
        };
        let address = |name: &str| field(&line, name).unwrap().as_str().unwrap().parse().unwrap();
        Self {
            public: address("public"),
            admin: address("admin"),
            data,
            settings,
            database,
            child,
            log,
        }
    }

    /// The address of its database, if it does not store in a file.
    pub fn database_url(&self) -> Option<String> {
        self.database.as_ref().map(|database| database.url.clone())
    }

    /// Starts again on the same data; the process must have ended.
    pub fn restart(&mut self) {
        let database = self.database.clone();
        *self = Self::in_dir(Arc::clone(&self.data), database, self.settings.clone());
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        let name = format!("GAMESERVER_{name}");
        self.settings.retain(|(other, _)| *other != name);
        self.settings.push((name, value.into()));
    }

    /// Ends it as a crash would.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it had ended by itself: {status}");
    }

    /// Asks it to drain, as SIGTERM does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Stops all its threads, and gives back once they stand still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        until("all threads stand still", || {
            let stopped = |task: std::fs::DirEntry| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            };
            std::fs::read_dir(&tasks).unwrap().flatten().all(stopped).then_some(())
        });
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        until("the server ends", || self.child.try_wait().unwrap())
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().iter().cloned().collect()
    }

    /// The first line of stderr that `wanted` takes, once it comes.
    pub fn logged(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.log.wait_for(wanted).expect("a line of the log")
    }

    fn show_log(&self) {
        self.log.show();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.show_log();
        }
    }
}

/// The binary on a data directory, on ports that the operating system chooses.
pub fn command_in(data: &TempDir) -> Command {
    let mut command = gameserver();
    command
        .current_dir(data.path())
        .env("GAMESERVER_DATA_DIR", data.path().join("data"))
        .env("GAMESERVER_LISTEN", "127.0.0.1:0")
        .env("GAMESERVER_ADMIN_LISTEN", "127.0.0.1:0");
    command
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The value under `name`, at any depth of a JSON log line.
pub fn field(line: &str, name: &str) -> Option<Value> {
    fn find(value: &Value, name: &str) -> Option<Value> {
        let object = value.as_object()?;
        let here = object.get(name).cloned();
        here.or_else(|| object.values().find_map(|inner| find(inner, name)))
    }
    find(&serde_json::from_str(line).ok()?, name)
}

/// A server's stderr, drained so that it never blocks.
struct Log {
    lines: Mutex<VecDeque<String>>,
    grown: Condvar,
    ended: Mutex<bool>,
}

impl Log {
    fn drain(stderr: std::process::ChildStderr) -> Arc<Self> {
        let log = Arc::new(Self {
            lines: Mutex::default(),
            grown: Condvar::new(),
            ended: Mutex::default(),
        });
        let drained = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = drained.lines.lock().unwrap();
                if lines.len() == KEPT_LINES_MAX {
                    // The first lines say how it began: those are kept.
                    lines.remove(KEPT_LINES_MAX / 2);
                }
                lines.push_back(line);
                drained.grown.notify_all();
            }
            *drained.ended.lock().unwrap() = true;
            drained.grown.notify_all();
        });
        log
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            let ended = *self.ended.lock().unwrap();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                return None;
            }
            // Not only for lines: the end is told without the lock on them.
            let short = left.min(Duration::from_millis(100));
            lines = self.grown.wait_timeout(lines, short).unwrap().0;
        }
    }

    fn show(&self) {
        let lines = self.lines.lock().unwrap();
        let skipped = lines.len().saturating_sub(SHOWN_LINES_MAX);
        eprintln!("--- the server's stderr ({skipped} lines before) ---");
        lines.iter().skip(skipped).for_each(|line| eprintln!("{line}"));
    }
}
