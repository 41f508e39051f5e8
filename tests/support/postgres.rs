//! A PostgreSQL server for tests: one of their own in a temporary directory, or the one that
//! `TEST_DATABASE_URL` names.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The account that Debian's packages make; PostgreSQL refuses to run as root.
const ACCOUNT: &str = "postgres";

/// A database of its own on a server that all tests of the process share.
pub struct Database {
    /// `postgres://…`
    pub url: String,
    _cluster: Option<Arc<Cluster>>,
}

/// A server that ends with the process that started it.
pub struct Cluster {
    port: u16,
    dir: TempDir,
    /// Whether commits outlive a loss of power; tests need not wait for that.
    fsync: bool,
    /// The shell that watches over it, while it runs.
    watch: Mutex<Option<Child>>,
}

/// An empty database.
pub fn database() -> Database {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_{}_{number}", std::process::id());
    let given = std::env::var("TEST_DATABASE_URL").ok();
    let cluster = given.is_none().then(cluster);
    let base = given.or_else(|| Some(cluster.as_ref()?.url())).unwrap();
    let mut client = postgres::Client::connect(&base, postgres::NoTls).unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    let (address, query) = base.split_once('?').map_or((&*base, None), |(a, q)| (a, Some(q)));
    let (server, _) = address.rsplit_once('/').unwrap();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Database { url: format!("{server}/{name}{query}"), _cluster: cluster }
}

fn cluster() -> Arc<Cluster> {
    static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut weak = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = weak.upgrade().unwrap_or_else(|| Arc::new(Cluster::start()));
    *weak = Arc::downgrade(&cluster);
    cluster
}

impl Cluster {
    /// A server of its own, for a test that stops it.
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// A server whose commits cost what they cost.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn start_durable() -> Self {
        Self::start_with(true)
    }

    fn start_with(fsync: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if is_root() {
            let owner = Command::new("chown").arg(ACCOUNT).arg(dir.path()).status().unwrap();
            assert!(owner.success(), "there is no account {ACCOUNT}");
        }
        let made = as_account(&bin_dir().join("initdb"))
            .args(["--auth=trust", "--no-sync", "-U", ACCOUNT, "-D"])
            .arg(dir.path().join("data"))
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {made:?}");
        let cluster = Self { port: free_port(), dir, fsync, watch: Mutex::default() };
        cluster.make_certificate();
        cluster.resume();
        cluster
    }

    /// The address of its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://{ACCOUNT}@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// The address by which its certificate knows it, and the certificate itself.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub fn tls(&self) -> (String, PathBuf) {
        let address = format!("postgres://{ACCOUNT}@localhost:{}/postgres", self.port);
        (address, self.dir.path().join("server.crt"))
    }

    /// Starts it, on the port that it had.
    pub fn resume(&self) {
        let server = as_account(&bin_dir().join("postgres"));
        // The shell ends the server when its input closes, so at the latest with this process.
        let script = r#""$@" >>"$LOG" 2>&1 & pid=$!; read -r _; kill -QUIT "$pid"; wait "$pid""#;
        let mut watch = Command::new("sh");
        watch.args(["-c", script, "sh"]).arg(server.get_program()).args(server.get_args());
        let dir = self.dir.path();
        watch
            .args(["-c", "listen_addresses=localhost", "-c", "max_connections=500"])
            .args(["-c", if self.fsync { "fsync=on" } else { "fsync=off" }, "-c", "ssl=on", "-c"])
            .arg(format!("ssl_cert_file={}", dir.join("server.crt").display()))
            .arg("-c")
            .arg(format!("ssl_key_file={}", dir.join("server.key").display()))
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(dir)
            .arg("-D")
            .arg(dir.join("data"))
            .env("LOG", dir.join("log"))
            .current_dir(dir)
            .stdin(Stdio::piped());
        *self.watch.lock().unwrap() = Some(watch.spawn().unwrap());
        wait_for(&self.url());
    }

    /// Stops it as a crash would.
    pub fn halt(&self) {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut watch) = watch {
            drop(watch.stdin.take());
            let _ = watch.wait();
        }
    }

    fn make_certificate(&self) {
        let made = as_account(Path::new("openssl"))
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "30", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "server.key"])
            .args(["-out", "server.crt"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "openssl: {made:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.halt();
    }
}

/// PgBouncer before a server, handing out connections by transaction.
#[allow(dead_code, reason = "not every test binary needs it")]
pub struct Pooler {
    port: u16,
    process: Child,
    _dir: TempDir,
}

#[allow(dead_code, reason = "not every test binary needs it")]
impl Pooler {
    /// Before the server of `database`.
    pub fn start(database: &Database) -> Self {
        let server = database.url.split('@').nth(1).unwrap().split('/').next().unwrap();
        let (host, server_port) = server.rsplit_once(':').unwrap();
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={server_port} user={ACCOUNT}\n[pgbouncer]\nlisten_addr=127.0.0.1\n\
             listen_port={port}\nauth_type=any\npool_mode=transaction\nunix_socket_dir=\n\
             default_pool_size=3\n"
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let process = as_account(&pgbouncer())
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer is not installed (Debian: apt-get install pgbouncer)");
        let pooler = Self { port, process, _dir: dir };
        wait_for(&pooler.url(database));
        pooler
    }

    /// The address of `database` by way of it.
    pub fn url(&self, database: &Database) -> String {
        let name = database.url.rsplit('/').next().unwrap().split('?').next().unwrap();
        format!("postgres://{ACCOUNT}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(url: &str) {
    let began = Instant::now();
    while let Err(error) = postgres::Client::connect(url, postgres::NoTls) {
        assert!(began.elapsed() < START_TIMEOUT, "it does not start: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program as the account that may run it.
fn as_account(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={ACCOUNT}"), &format!("--regid={ACCOUNT}"), "--clear-groups"]);
    command.arg(program);
    command
}

/// Debian puts it where not every account's PATH leads.
#[allow(dead_code, reason = "not every test binary needs it")]
fn pgbouncer() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    if debian.exists() { debian } else { PathBuf::from("pgbouncer") }
}

/// Where Debian and others put the server's programs.
fn bin_dir() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    dirs.sort();
    let found = dirs.pop().or_else(|| {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    });
    found.expect("PostgreSQL is not installed (Debian: apt-get install postgresql)")
}
