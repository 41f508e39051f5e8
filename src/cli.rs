//! The command line: which command is meant, and those that need no server.
//!
//! Settings are the environment's matter (see `config`), so commands take nothing but what they work
//! on. A command that failed exits with 1; one that was never understood, or whose configuration
//! was not, with 2.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use crate::auth::SigningKeys;
use crate::config::{self, Config, Database, FILE_SUFFIX, SETTINGS, reachable};
use crate::games::Catalog;
use crate::games::wasm::check::check;
use crate::ids::MatchId;
use crate::matches::MatchError;
use crate::matches::replay::Kept;
use crate::platform;
use crate::plugins;
use crate::store::postgres::{self, Migrate, Postgres};
use crate::store::sqlite::Sqlite;
use crate::store::transfer::{self, Place, Report, TransferError};
use crate::store::{Store, StoreError};

/// How long a health check waits for its answer, all in all.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The start of an answer that a health check reads: more than any status line has.
const STATUS_LINE_BYTES_MAX: usize = 256;

/// Exit code of what was not understood.
const MISUSE: u8 = 2;

const COMMANDS: &[(&str, &str)] = &[
    ("serve", "Serve; also what `gameserver` alone does."),
    ("migrate", "Bring the schema of PostgreSQL up to date."),
    ("copy", "Copy everything to an empty store: copy --from URL --to URL."),
    (
        "backup",
        "Write everything in the store to a new file: backup FILE. By the clock: backup NAME --keep N \
         writes NAME-TIME.backup, and removes all but the newest N of them.",
    ),
    ("restore", "Fill the store, which has to be empty, from such a file: restore FILE."),
    ("replay", "Print a match, or rebuild it from its log and compare: replay MATCH [--verify]."),
    (
        "check-game",
        "Say whether a plugin is a game, play matches of it, and measure: check-game FILE.",
    ),
    ("keygen", "Print a new RSA private key for GAMESERVER_JWT_PRIVATE_KEY."),
    ("healthcheck", "Exit with 0 if the server on this machine can take players, with 1 if not."),
    ("version", "Print the version."),
    ("help", "Print this."),
];

/// Commands that have something after them.
const TRANSFERS: &[&str] = &["copy", "backup", "restore"];

/// Digits of a checksum that are shown.
const SHOWN_DIGITS: usize = 12;

/// Runs the command that `args` name, the program's own name left out.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("serve", &[][..]),
    };
    if TRANSFERS.contains(&command) {
        return transfer(command, rest);
    }
    if command == "replay" {
        return replay(rest);
    }
    if command == "check-game" {
        return match rest {
            [file] => check_game(Path::new(file)),
            _ => misuse("`check-game` takes one FILE"),
        };
    }
    if let Some(extra) = rest.first().filter(|_| is_command(command)) {
        return misuse(&format!("`{command}` takes nothing after it, and there is {extra:?}"));
    }
    match command {
        "serve" => with_config(crate::serve::main),
        "migrate" => with_config(migrate),
        "keygen" => print(&SigningKeys::generate_rsa_pem()),
        // 0 or 1, whatever is wrong: container runtimes keep 2 for themselves.
        "healthcheck" => match with_config(|config| healthcheck(config.admin_listen)) {
            ExitCode::SUCCESS => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        "version" | "--version" | "-V" => print(&version()),
        "help" | "--help" | "-h" => print(&help()),
        other => misuse(&format!("there is no command {other:?}")),
    }
}

fn is_command(name: &str) -> bool {
    COMMANDS.iter().any(|(command, _)| *command == name)
}

fn misuse(what: &str) -> ExitCode {
    eprintln!("gameserver: {what}; `gameserver help` lists the commands");
    ExitCode::from(MISUSE)
}

fn with_config(command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => command(config),
        Err(error) => {
            eprintln!("gameserver: {error}");
            ExitCode::from(MISUSE)
        }
    }
}

/// Prints to stdout. A reader that has gone away (`gameserver help | head`) is no reason to panic.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn version() -> String {
    format!("gameserver {}\n", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let mut text = version();
    text.push_str("\nUsage: gameserver [COMMAND]\n\n");
    for (command, description) in COMMANDS {
        let _ = writeln!(text, "  {command:<13}{description}");
    }
    text.push_str(
        "\nSettings are environment variables, also read from .env in \
         the directory it is started in:\n",
    );
    for setting in SETTINGS {
        let _ = write!(text, "\n  {}", setting.name);
        if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
            let _ = write!(text, " = {default}");
        }
        let _ = writeln!(text, "\n      {}\n      Takes {}.", setting.description, setting.takes);
        if setting.secret {
            let _ =
                writeln!(text, "      {}{FILE_SUFFIX} names a file that holds it.", setting.name);
        }
    }
    text
}

fn migrate(config: Config) -> ExitCode {
    let Database::Postgres(settings, _) = config.database else {
        println!("An embedded file is brought up to date when the server opens it.");
        return ExitCode::SUCCESS;
    };
    match postgres::migrate(&settings.url, Migrate::Apply) {
        Ok(0) => print("The schema is up to date.\n"),
        Ok(applied) => print(&format!("The schema is up to date: {applied} changes applied.\n")),
        Err(error) => {
            eprintln!("gameserver: {}: {error}", settings.url);
            ExitCode::FAILURE
        }
    }
}

fn transfer(command: &str, rest: &[String]) -> ExitCode {
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (command, &rest[..]) {
        ("copy", ["--from", from, "--to", to] | ["--to", to, "--from", from]) => {
            let store = |name: &str, url| {
                config::store_at(url).map_err(|error| {
                    let takes = "sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
                    misuse(&format!("{name} takes {takes}: {error}"))
                })
            };
            match (store("--from", from), store("--to", to)) {
                (Ok(from), Ok(to)) => with_config(|config| {
                    let [from, to] = [from, to].map(|place| with_keys(place, &config));
                    carried(|| transfer::copy(&from, &to))
                }),
                (Err(code), _) | (_, Err(code)) => code,
            }
        }
        ("copy", _) => misuse("`copy` takes --from URL --to URL"),
        ("backup", [file]) => {
            with_config(|config| carried(|| transfer::backup(&own_store(config), Path::new(file))))
        }
        ("backup", [name, "--keep", keep] | ["--keep", keep, name]) => {
            let Ok(keep) = keep.parse() else {
                return misuse(&format!("--keep takes a whole number from 1 on, not {keep:?}"));
            };
            with_config(|config| carried_in_series(&own_store(config), Path::new(name), keep))
        }
        ("backup", _) => misuse("`backup` takes one FILE, or NAME --keep N"),
        ("restore", [file]) => {
            with_config(|config| carried(|| transfer::restore(Path::new(file), &own_store(config))))
        }
        _ => misuse(&format!("`{command}` takes one FILE")),
    }
}

/// The store of the settings.
fn own_store(config: Config) -> Place {
    match config.database {
        Database::Sqlite(file) => Place::Sqlite { file, data_dir: config.data_dir },
        Database::Postgres(settings, _) => Place::Postgres(settings.url),
    }
}

/// A file in the data directory, or the one of the settings, goes with the keys there; no other
/// does: they would be another server's.
fn with_keys(place: Place, config: &Config) -> Place {
    let Place::Sqlite { file, .. } = place else { return place };
    let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    let parent = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inside = |dir: &PathBuf| whole(dir).is_some() && whole(dir) == whole(parent);
    let own = config.database == Database::Sqlite(file.clone());
    let data_dir = config.data_dir.clone().filter(|dir| own || inside(dir));
    Place::Sqlite { file, data_dir }
}

/// Carries, and says what was carried.
fn carried(carry: impl FnOnce() -> Result<Report, TransferError>) -> ExitCode {
    platform::keep_new_files_private();
    match carry() {
        Ok(report) => print(&summary(&report)),
        Err(error) => {
            eprintln!("gameserver: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The same to a file that is named for the time, whose name is told last.
fn carried_in_series(store: &Place, name: &Path, keep: NonZeroUsize) -> ExitCode {
    let mut written = None;
    let done = carried(|| {
        let now = SystemTime::now().into();
        let (file, report) = transfer::backup_in_series(store, name, keep, now)?;
        written = Some(file);
        Ok(report)
    });
    match written {
        Some(file) if done == ExitCode::SUCCESS => print(&format!("{}\n", file.display())),
        _ => done,
    }
}

fn summary(report: &Report) -> String {
    let mut text = format!("{:<16}{:>12}  checksum\n", "table", "rows");
    for (table, rows, digest) in &report.tables {
        let _ = write!(text, "{table:<16}{rows:>12}  ");
        for byte in &digest[..SHOWN_DIGITS / 2] {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}\nDone in {:.1} s.", report.key, report.took.as_secs_f64());
    text
}

fn replay(rest: &[String]) -> ExitCode {
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (id, verify) = match rest[..] {
        [id] => (id, false),
        [id, "--verify"] | ["--verify", id] => (id, true),
        _ => return misuse("`replay` takes one MATCH, and perhaps --verify"),
    };
    let Ok(id) = id.parse() else { return misuse(&format!("{id:?} is no id of a match")) };
    with_config(|config| match replayed(config, id, verify) {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("gameserver: {error}");
            ExitCode::FAILURE
        }
    })
}

/// A match as text; only read, so that a server may work on it.
fn replayed(config: Config, id: MatchId, verify: bool) -> Result<String, MatchError> {
    let catalog = Catalog::new(None, config.relay_games);
    let unusable = |error: io::Error| StoreError::Unavailable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(unusable)?.block_on(async {
        let store = match config.database {
            Database::Sqlite(file) => {
                file.metadata().map_err(unusable)?;
                Store::Sqlite(Sqlite::open_as_it_is(&file)?)
            }
            Database::Postgres(settings, _) => Store::Postgres(Postgres::new(&settings)?),
        };
        let kept = Kept::read(&store, id, &catalog).await;
        store.close();
        let kept = kept?;
        let mut text = kept.text();
        if verify {
            let view = kept.verify(&catalog)?;
            let _ = writeln!(
                text,
                "verified: the log comes to what is written down; in the end\n{view}"
            );
        }
        Ok(text)
    })
}

fn check_game(file: &Path) -> ExitCode {
    match checked_game(file, &Catalog::new(None, Vec::new())) {
        Ok(report) => print(&report),
        Err(why) => {
            eprintln!("gameserver: {}: {why}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn checked_game(file: &Path, catalog: &Catalog) -> Result<String, String> {
    let began = Instant::now();
    let (game, code) = plugins::game_of(file, catalog)?;
    let loaded = began.elapsed();
    let began = Instant::now();
    let mut report = check(&game)?;
    Ok(report.text(&game, code.len(), loaded, began.elapsed()))
}

fn healthcheck(admin: SocketAddr) -> ExitCode {
    let address = reachable(admin);
    match readiness(address, HEALTHCHECK_TIMEOUT) {
        Ok(status) if status.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("gameserver: http://{address}/readyz answers {status:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("gameserver: http://{address}/readyz does not answer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The status line that `/readyz` answers within `timeout`.
fn readiness(address: SocketAddr, timeout: Duration) -> io::Result<String> {
    let deadline = Instant::now() + timeout;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(left()?)?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES_MAX {
        stream.set_read_timeout(left()?)?;
        let mut buffer = [0; STATUS_LINE_BYTES_MAX];
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    Ok(line.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn code(args: &[&str]) -> ExitCode {
        run(args.iter().map(OsString::from))
    }

    /// A server that answers one request with these bytes, one after the other.
    fn answering(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
            for byte in bytes {
                stream.write_all(&[*byte]).unwrap();
            }
        });
        address
    }

    #[test]
    fn what_is_not_understood_exits_with_2() {
        for args in
            [&["frobnicate"][..], &["serve", "--fast"], &["help", "me"], &["--port=1"], &[""]]
        {
            assert_eq!(code(args), ExitCode::from(MISUSE), "{args:?}");
        }
    }

    #[test]
    fn version_and_help_succeed() {
        for args in [["version"], ["--version"], ["-V"], ["help"], ["--help"], ["-h"]] {
            assert_eq!(code(&args), ExitCode::SUCCESS, "{args:?}");
        }
    }

    #[test]
    fn help_names_every_command_and_setting_with_its_default() {
        let help = help();
        for (command, _) in COMMANDS {
            assert!(help.contains(&format!("\n  {command} ")), "{command}");
        }
        for setting in SETTINGS {
            assert!(help.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
            assert!(help.contains(setting.default.unwrap_or_default()));
        }
        assert!(help.contains("GAMESERVER_JWT_PRIVATE_KEY_FILE"));
    }

    #[test]
    fn a_ready_server_is_healthy_and_others_are_not() {
        let ready = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(healthcheck(ready), ExitCode::SUCCESS);
        for other in [&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], b"SSH-2.0-x 200\r\n", b""] {
            assert_eq!(healthcheck(answering(other)), ExitCode::FAILURE);
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(healthcheck(closed), ExitCode::FAILURE);
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let timeout = Duration::from_millis(50);
        assert!(readiness(silent.local_addr().unwrap(), timeout).is_err());
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
