//! From the environment to ready values, once, before anything else starts.
//!
//! [`SETTINGS`] is the one list of what can be set: reading, the check for unknown names,
//! `gameserver help` and the README follow it. Whatever is wrong ends the start with a single line
//! that names the variable, what it got (a secret is never shown) and what it takes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use thiserror::Error;
use tracing::Level;

use crate::auth::SigningKeys;
use crate::games::{BUILT_IN, NAME_BYTES_MAX, RelayGame, is_built_in, is_name};
use crate::platform;
use crate::store::postgres::{Migrate, PostgresSettings, PostgresUrl, UrlError};
use crate::store::transfer::Place;
use crate::tls::TlsFiles;

/// What the name of every setting begins with.
pub const PREFIX: &str = "GAMESERVER_";

/// What a secret's name ends with to name a file that holds the value.
pub const FILE_SUFFIX: &str = "_FILE";

/// Most origins beside the server's own.
pub const ORIGINS_MAX: usize = 100;

/// Most addresses and networks of proxies that are believed.
pub const PROXIES_MAX: usize = 100;

/// Most relay games under names of their own.
pub const RELAY_GAMES_MAX: usize = 100;

/// Longest issuer: it is in every access token.
const ISSUER_BYTES_MAX: usize = 200;

/// As much of a bad value as fits on a line.
const SHOWN_CHARS_MAX: usize = 80;

/// The file in the data directory where `GAMESERVER_DATABASE_URL` names none.
const DATABASE_FILE: &str = "gameserver.db";

/// One thing that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// What it is where it is not set; `None` where the description says what happens then.
    pub default: Option<&'static str>,
    /// The values that are taken.
    pub takes: Takes,
    /// What it is for, in a sentence.
    pub description: &'static str,
    /// Whether its value is never shown, and can be in a file that [`FILE_SUFFIX`] names.
    pub secret: bool,
}

/// The values that a setting takes, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// In words.
    Text(&'static str),
    /// A whole number of something, both ends included.
    Number {
        /// The unit.
        of: &'static str,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number { of, min, max } => {
                write!(f, "a whole number of {of} from {min} to {max}")
            }
        }
    }
}

const fn text(
    name: &'static str,
    default: Option<&'static str>,
    takes: &'static str,
    description: &'static str,
) -> Setting {
    Setting { name, default, takes: Takes::Text(takes), description, secret: false }
}

const fn secret(name: &'static str, takes: &'static str, description: &'static str) -> Setting {
    Setting { name, default: None, takes: Takes::Text(takes), description, secret: true }
}

const fn number(
    name: &'static str,
    default: Option<&'static str>,
    of: &'static str,
    (min, max): (u64, u64),
    description: &'static str,
) -> Setting {
    Setting { name, default, takes: Takes::Number { of, min, max }, description, secret: false }
}

const LISTEN: Setting = text(
    "GAMESERVER_LISTEN",
    Some("127.0.0.1:8080"),
    "an IP address and a port, such as 0.0.0.0:8080 or [::]:8080",
    "Where players connect.",
);
const ADMIN_LISTEN: Setting = text(
    "GAMESERVER_ADMIN_LISTEN",
    Some("127.0.0.1:9090"),
    "an IP address and a port, such as 127.0.0.1:9090",
    "Where health and metrics are asked for; not for players.",
);
const DATA_DIR: Setting = text(
    "GAMESERVER_DATA_DIR",
    None,
    "a directory",
    "Where the store and the keys are kept; if not set, in the platform's place for an \
     application's data.",
);
const DATABASE_URL: Setting = secret(
    "GAMESERVER_DATABASE_URL",
    "sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE (with sslmode=disable, prefer, \
     require or verify-full, and sslrootcert=FILE)",
    "The store; if not set, a SQLite file in the data directory.",
);
const DATABASE_CONNECTIONS_MAX: Setting = number(
    "GAMESERVER_DATABASE_CONNECTIONS_MAX",
    Some("16"),
    "connections",
    (2, 1000),
    "Open connections to PostgreSQL, beside two for the node's lease and the log of matches.",
);
const DATABASE_WAIT_SECONDS: Setting = number(
    "GAMESERVER_DATABASE_WAIT_SECONDS",
    Some("5"),
    "seconds",
    (1, 300),
    "How long a request waits for one of them before it is answered 503.",
);
const DATABASE_STATEMENT_SECONDS: Setting = number(
    "GAMESERVER_DATABASE_STATEMENT_SECONDS",
    Some("10"),
    "seconds",
    (1, 300),
    "How long a statement may run in PostgreSQL.",
);
const DATABASE_LOCK_SECONDS: Setting = number(
    "GAMESERVER_DATABASE_LOCK_SECONDS",
    Some("5"),
    "seconds",
    (1, 300),
    "How long a statement may wait there for another's lock.",
);
const DATABASE_PREPARE: Setting = text(
    "GAMESERVER_DATABASE_PREPARE",
    Some("true"),
    "true or false",
    "Whether statements are prepared; false through a pooler by transaction that can't keep them, \
     such as PgBouncer before 1.21.",
);
const ADVERTISE: Setting = text(
    "GAMESERVER_ADVERTISE",
    None,
    "a host and a port, such as 10.0.0.7:8080",
    "Where other nodes reach this one, and this one alone; if not set, the public address, or where that is everywhere \
     the one from which PostgreSQL is reached.",
);
const LEASE_SECONDS: Setting = number(
    "GAMESERVER_LEASE_SECONDS",
    Some("3"),
    "seconds",
    (1, 60),
    "After which others take over the matches of a node that is not heard of.",
);
const MIGRATE: Setting = text(
    "GAMESERVER_MIGRATE",
    Some("auto"),
    "auto or never",
    "Whether a start brings the schema of PostgreSQL up to date; never leaves that to \
     `gameserver migrate`.",
);
const JWT_PRIVATE_KEY: Setting = secret(
    "GAMESERVER_JWT_PRIVATE_KEY",
    "PEM text with one or more keys (RSA of 2048 bits or more, P-256, Ed25519), a private one \
     among them",
    "The keys of access tokens: the first private one signs, all verify; if not set, one is made \
     and kept in the data directory.",
);
const JWT_ISSUER: Setting = text(
    "GAMESERVER_JWT_ISSUER",
    Some("gameserver"),
    "1 to 200 bytes of text on one line",
    "The `iss` of access tokens; tokens of another issuer are refused.",
);
const ACCESS_TOKEN_SECONDS: Setting = number(
    "GAMESERVER_ACCESS_TOKEN_SECONDS",
    Some("900"),
    "seconds",
    (60, 86_400),
    "How long an access token lives.",
);
const REFRESH_TOKEN_DAYS: Setting = number(
    "GAMESERVER_REFRESH_TOKEN_DAYS",
    Some("30"),
    "days",
    (1, 365),
    "How long somebody who stays away stays signed in.",
);
const ALLOWED_ORIGINS: Setting = text(
    "GAMESERVER_ALLOWED_ORIGINS",
    Some(""),
    "a list of origins, scheme://host[:port], with commas between them",
    "Web pages elsewhere that may connect; the server's own always may.",
);
const TRUSTED_PROXIES: Setting = text(
    "GAMESERVER_TRUSTED_PROXIES",
    Some(""),
    "a list of addresses and networks, such as 10.0.0.0/8, with commas between them",
    "Proxies whose `Forwarded` and `X-Forwarded-For` say where a request comes from; nobody else's \
     are believed.",
);
const TLS_CERT_FILE: Setting = text(
    "GAMESERVER_TLS_CERT_FILE",
    None,
    "a file in PEM: the server's certificate, and those that lead to a root",
    "Makes the public listener speak TLS; needs the key too. Read again when it changes.",
);
const TLS_KEY_FILE: Setting =
    text("GAMESERVER_TLS_KEY_FILE", None, "a file in PEM", "The private key of that certificate.");
const BUILTIN_GAMES: Setting = text(
    "GAMESERVER_BUILTIN_GAMES",
    None,
    "a list of built-in games, with commas between them",
    "Those that are offered; if not set, all. Matches of others can't be played on.",
);
const RELAY_GAMES: Setting = text(
    "GAMESERVER_RELAY_GAMES",
    Some("[]"),
    r#"a JSON list of {"name": …, "title": …, "description": …}"#,
    "Relay games under names of their own.",
);
const GAMES_DIR: Setting = text(
    "GAMESERVER_GAMES_DIR",
    None,
    "a directory",
    "Games of your own: each NAME.wasm there is one (docs/plugins.md). Looked at again as it changes.",
);
const GRACE_SECONDS: Setting = number(
    "GAMESERVER_GRACE_SECONDS",
    None,
    "seconds",
    (1, 86_400),
    "How long a player whose connection is lost keeps the seat; if not set, each game's own time.",
);
const TICK_LOSS_MS: Setting = number(
    "GAMESERVER_TICK_LOSS_MS",
    Some("1000"),
    "milliseconds",
    (100, 2000),
    "How much of a match of a `ticks` game a crash may lose; it stands still while the store is away \
     for longer.",
);
const COMMANDS_PER_SECOND: Setting = number(
    "GAMESERVER_COMMANDS_PER_SECOND",
    Some("50"),
    "messages a second",
    (1, 100_000),
    "What one socket may send in a game that is played in turns, or by the clock.",
);
const RELAY_COMMANDS_PER_SECOND: Setting = number(
    "GAMESERVER_RELAY_COMMANDS_PER_SECOND",
    Some("5000"),
    "messages a second",
    (1, 100_000),
    "What one socket may send in a relay game.",
);
const TICKET_SECONDS: Setting = number(
    "GAMESERVER_TICKET_SECONDS",
    Some("300"),
    "seconds",
    (1, 86_400),
    "How long a matchmaking ticket searches before it expires.",
);
const FAILED_SIGN_INS_PER_MINUTE: Setting = number(
    "GAMESERVER_FAILED_SIGN_INS_PER_MINUTE",
    Some("10"),
    "sign-ins a minute",
    (0, 1_000_000),
    "Wrong passwords for one user name, before even the right one is refused for that minute; 0: \
     no limit.",
);
const MATCHES_PER_MINUTE: Setting = number(
    "GAMESERVER_MATCHES_PER_MINUTE",
    Some("600"),
    "matches a minute",
    (0, 1_000_000),
    "Matches, tickets and quick plays that one user may begin; 0: no limit.",
);
const ACCOUNTS_PER_MINUTE: Setting = number(
    "GAMESERVER_ACCOUNTS_PER_MINUTE",
    Some("0"),
    "accounts a minute",
    (0, 1_000_000),
    "Accounts and guests that one address may make; 0: no limit, since a network or a proxy may be \
     one address.",
);
const REQUEST_TIMEOUT_SECONDS: Setting = number(
    "GAMESERVER_REQUEST_TIMEOUT_SECONDS",
    Some("10"),
    "seconds",
    (1, 300),
    "After which a request is answered 504.",
);
const CONNECTIONS_MAX: Setting = number(
    "GAMESERVER_CONNECTIONS_MAX",
    Some("10000"),
    "connections",
    (1, 1_000_000),
    "Open connections of players; more have to wait.",
);
const SHARE_PORT: Setting = text(
    "GAMESERVER_SHARE_PORT",
    Some("false"),
    "true or false",
    "Whether other servers that say so, too, may listen at the same address on this machine: each gets \
     a part of the connections. Not on Windows.",
);
const LOG: Setting = text(
    "GAMESERVER_LOG",
    Some("info"),
    "error, warn, info, debug or trace",
    "How much is logged.",
);
const LOG_FORMAT: Setting = text(
    "GAMESERVER_LOG_FORMAT",
    Some("auto"),
    "auto, text or json",
    "How it is logged; auto is text on a terminal and JSON elsewhere.",
);
const HEAP_SAMPLE_BYTES: Setting = number(
    "GAMESERVER_HEAP_SAMPLE_BYTES",
    Some("524288"),
    "bytes",
    (0, 1 << 30),
    "For profiles of memory: how many are allocated between two that are looked at, in the mean; 0: \
     none are.",
);

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    LISTEN,
    ADMIN_LISTEN,
    DATA_DIR,
    DATABASE_URL,
    DATABASE_CONNECTIONS_MAX,
    DATABASE_WAIT_SECONDS,
    DATABASE_STATEMENT_SECONDS,
    DATABASE_LOCK_SECONDS,
    DATABASE_PREPARE,
    MIGRATE,
    ADVERTISE,
    LEASE_SECONDS,
    JWT_PRIVATE_KEY,
    JWT_ISSUER,
    ACCESS_TOKEN_SECONDS,
    REFRESH_TOKEN_DAYS,
    ALLOWED_ORIGINS,
    TRUSTED_PROXIES,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
    BUILTIN_GAMES,
    RELAY_GAMES,
    GAMES_DIR,
    GRACE_SECONDS,
    TICK_LOSS_MS,
    COMMANDS_PER_SECOND,
    RELAY_COMMANDS_PER_SECOND,
    TICKET_SECONDS,
    FAILED_SIGN_INS_PER_MINUTE,
    MATCHES_PER_MINUTE,
    ACCOUNTS_PER_MINUTE,
    REQUEST_TIMEOUT_SECONDS,
    CONNECTIONS_MAX,
    SHARE_PORT,
    LOG,
    LOG_FORMAT,
    HEAP_SAMPLE_BYTES,
];

/// Everything that is set, ready for use. `Debug` shows no secret.
#[derive(Debug)]
pub struct Config {
    /// The public address.
    pub listen: SocketAddr,
    /// The address of health and metrics.
    pub admin_listen: SocketAddr,
    /// Where the server keeps what it must not lose; it may not exist yet. `None` where nothing is
    /// kept in files and the account has no home.
    pub data_dir: Option<PathBuf>,
    /// The store.
    pub database: Database,
    /// Where other nodes reach this one: `host:port`.
    pub advertise: Option<String>,
    /// How long a node's matches stay its own when it is not heard of.
    pub lease: Duration,
    /// The keys of access tokens; `None`: those in the data directory, made on the first start.
    pub signing_keys: Option<SigningKeys>,
    /// `iss` of access tokens.
    pub jwt_issuer: String,
    /// How long an access token lives, in whole seconds.
    pub access_token_lifetime: Duration,
    /// How long a refresh token lives, in whole days.
    pub refresh_token_lifetime: Duration,
    /// Origins as browsers write them: in lower case, without a scheme's usual port.
    pub allowed_origins: Vec<String>,
    /// Networks of proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Where the public listener's certificate and key are; `None`: it does not speak TLS.
    pub tls: Option<TlsFiles>,
    /// The built-in games that are offered; `None`: all.
    pub built_in_games: Option<Vec<String>>,
    /// Relay games beside the built-in one, their names all different.
    pub relay_games: Vec<RelayGame>,
    /// Where plugins are.
    pub games_dir: Option<PathBuf>,
    /// How long a seat is kept, in place of each game's own time.
    pub grace: Option<Duration>,
    /// How much of a `ticks` match a crash may lose.
    pub tick_loss: Duration,
    /// Rate limit of a seat in `turns` games.
    pub commands_per_second: u32,
    /// Rate limit of a seat in `relay` games.
    pub relay_commands_per_second: u32,
    /// How long a matchmaking ticket searches.
    pub ticket_lifetime: Duration,
    /// Wrong passwords for a user name; 0: no limit.
    pub failed_sign_ins_per_minute: u32,
    /// Matches, tickets and quick plays of a user; 0: no limit.
    pub matches_per_minute: u32,
    /// Accounts from an address; 0: no limit.
    pub accounts_per_minute: u32,
    /// The deadline of a request.
    pub request_timeout: Duration,
    /// Most open connections of the public listener.
    pub connections_max: usize,
    /// Whether others may listen where players connect.
    pub share_port: bool,
    /// The least important level that is logged.
    pub log: Level,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// Bytes between two samples of the heap; 0: there are none.
    pub heap_sample_bytes: usize,
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file that this process alone opens; its directory exists or is the data directory.
    Sqlite(PathBuf),
    /// A server that many nodes share, and what is done at the start if its schema is old.
    Postgres(PostgresSettings, Migrate),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(settings, _) => settings.url.fmt(f),
        }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Text`] on a terminal, [`LogFormat::Json`] elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Why the environment is no configuration. One line each; never holds a secret.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A name that begins like a setting's and is none.
    #[error("{name} is no setting; {}", hint(*.nearest))]
    Unknown {
        /// The variable.
        name: String,
        /// The setting that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value that is not taken.
    #[error("{name}: got {got}; it takes {takes}{}", because(.reason))]
    Bad {
        /// The variable.
        name: &'static str,
        /// The value in quotes, or words in its place.
        got: String,
        /// What would do.
        takes: Takes,
        /// What is wrong, where that isn't plain; may be empty.
        reason: String,
    },
    /// A secret twice.
    #[error("{name} and {name}_FILE are both set; it takes one of them")]
    Twice {
        /// The variable.
        name: &'static str,
    },
    /// A secret's file that cannot be read.
    #[error("{name}_FILE: got {path:?}, which cannot be read ({error}); it takes a file of text")]
    File {
        /// The variable without the ending.
        name: &'static str,
        /// What it got.
        path: String,
        /// Why not.
        error: String,
    },
    /// A value that is not UTF-8.
    #[error("{name}: got bytes that are not UTF-8; it takes text")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// An environment file that cannot be read.
    #[error(".env: {0}")]
    EnvironmentFile(String),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or("`gameserver help` lists them all".into(), |name| format!("is it {name}?"))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// All settings as text. The names are those of [`SETTINGS`], which a test holds together.
#[derive(Deserialize)]
struct Raw {
    listen: Option<String>,
    admin_listen: Option<String>,
    data_dir: Option<String>,
    database_url: Option<String>,
    database_connections_max: Option<String>,
    database_wait_seconds: Option<String>,
    database_statement_seconds: Option<String>,
    database_lock_seconds: Option<String>,
    database_prepare: Option<String>,
    migrate: Option<String>,
    advertise: Option<String>,
    lease_seconds: Option<String>,
    jwt_private_key: Option<String>,
    jwt_issuer: Option<String>,
    access_token_seconds: Option<String>,
    refresh_token_days: Option<String>,
    allowed_origins: Option<String>,
    trusted_proxies: Option<String>,
    tls_cert_file: Option<String>,
    tls_key_file: Option<String>,
    builtin_games: Option<String>,
    relay_games: Option<String>,
    games_dir: Option<String>,
    grace_seconds: Option<String>,
    tick_loss_ms: Option<String>,
    commands_per_second: Option<String>,
    relay_commands_per_second: Option<String>,
    ticket_seconds: Option<String>,
    failed_sign_ins_per_minute: Option<String>,
    matches_per_minute: Option<String>,
    accounts_per_minute: Option<String>,
    request_timeout_seconds: Option<String>,
    connections_max: Option<String>,
    share_port: Option<String>,
    log: Option<String>,
    log_format: Option<String>,
    heap_sample_bytes: Option<String>,
}

impl Config {
    /// Reads the process's environment, after it `.env` in the working directory, and the files
    /// that secrets are in.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut vars = environment()?;
        let file = match std::fs::read(".env") {
            Ok(bytes) => dotenv(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ConfigError::EnvironmentFile(error.to_string())),
        };
        for (name, value) in file {
            vars.entry(name).or_insert(value);
        }
        read_secret_files(&mut vars, |path| std::fs::read_to_string(path))?;
        Self::from_vars(vars.into_iter())
    }

    /// Reads variables; those of other programs are passed over. The `_FILE` twins of secrets are
    /// [`Config::from_env`]'s matter and are unknown here.
    pub fn from_vars(vars: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let ours: BTreeMap<String, String> =
            vars.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let (known, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            ours.into_iter().partition(|(name, _)| is_known(name));
        if let Some(name) = others.into_keys().find(|name| !is_of_kubernetes(name)) {
            return Err(ConfigError::Unknown { nearest: nearest(&name), name });
        }
        let raw: Raw = envy::prefixed(PREFIX)
            .from_iter(known)
            .expect("every setting is a text that may be missing");
        Self::from_raw(raw)
    }

    fn from_raw(raw: Raw) -> Result<Self, ConfigError> {
        let data_dir = DATA_DIR.read(raw.data_dir, path)?.or_else(platform::data_dir_default);
        let migrate = MIGRATE.required(raw.migrate, migrate)?;
        let connections_max =
            DATABASE_CONNECTIONS_MAX.required(raw.database_connections_max, whole)?;
        let connection_wait = DATABASE_WAIT_SECONDS.required(raw.database_wait_seconds, seconds)?;
        let statement_timeout =
            DATABASE_STATEMENT_SECONDS.required(raw.database_statement_seconds, seconds)?;
        let lock_timeout = DATABASE_LOCK_SECONDS.required(raw.database_lock_seconds, seconds)?;
        let prepare = DATABASE_PREPARE.required(raw.database_prepare, truth)?;
        let homeless = || DATA_DIR.bad("nothing".into(), "this account has no home".into());
        let database = match DATABASE_URL.read(raw.database_url, database)? {
            Some(Address::Postgres(url)) => Database::Postgres(
                PostgresSettings {
                    url,
                    connections_max,
                    connection_wait,
                    statement_timeout,
                    lock_timeout,
                    prepare,
                },
                migrate,
            ),
            Some(Address::Sqlite(file)) => Database::Sqlite(file),
            None => Database::Sqlite(data_dir.as_ref().ok_or_else(homeless)?.join(DATABASE_FILE)),
        };
        let days = REFRESH_TOKEN_DAYS.required(raw.refresh_token_days, whole::<u64>)?;
        Ok(Self {
            listen: LISTEN.required(raw.listen, address)?,
            admin_listen: ADMIN_LISTEN.required(raw.admin_listen, address)?,
            data_dir,
            database,
            advertise: ADVERTISE.read(raw.advertise, host_and_port)?,
            lease: LEASE_SECONDS.required(raw.lease_seconds, seconds)?,
            signing_keys: JWT_PRIVATE_KEY.read(raw.jwt_private_key, keys)?,
            jwt_issuer: JWT_ISSUER.required(raw.jwt_issuer, issuer)?,
            access_token_lifetime: ACCESS_TOKEN_SECONDS
                .required(raw.access_token_seconds, seconds)?,
            refresh_token_lifetime: Duration::from_secs(days * 24 * 60 * 60),
            allowed_origins: ALLOWED_ORIGINS.required(raw.allowed_origins, origins)?,
            trusted_proxies: TRUSTED_PROXIES.required(raw.trusted_proxies, networks)?,
            tls: tls(raw.tls_cert_file, raw.tls_key_file)?,
            built_in_games: BUILTIN_GAMES.read(raw.builtin_games, built_in_games)?,
            relay_games: RELAY_GAMES.required(raw.relay_games, relay_games)?,
            games_dir: GAMES_DIR.read(raw.games_dir, path)?,
            grace: GRACE_SECONDS.read(raw.grace_seconds, seconds)?,
            tick_loss: TICK_LOSS_MS.required(raw.tick_loss_ms, milliseconds)?,
            commands_per_second: COMMANDS_PER_SECOND.required(raw.commands_per_second, whole)?,
            relay_commands_per_second: RELAY_COMMANDS_PER_SECOND
                .required(raw.relay_commands_per_second, whole)?,
            ticket_lifetime: TICKET_SECONDS.required(raw.ticket_seconds, seconds)?,
            failed_sign_ins_per_minute: FAILED_SIGN_INS_PER_MINUTE
                .required(raw.failed_sign_ins_per_minute, whole)?,
            matches_per_minute: MATCHES_PER_MINUTE.required(raw.matches_per_minute, whole)?,
            accounts_per_minute: ACCOUNTS_PER_MINUTE.required(raw.accounts_per_minute, whole)?,
            request_timeout: REQUEST_TIMEOUT_SECONDS
                .required(raw.request_timeout_seconds, seconds)?,
            connections_max: CONNECTIONS_MAX.required(raw.connections_max, whole)?,
            share_port: SHARE_PORT.required(raw.share_port, truth)?,
            log: LOG.required(raw.log, level)?,
            log_format: LOG_FORMAT.required(raw.log_format, log_format)?,
            heap_sample_bytes: HEAP_SAMPLE_BYTES.required(raw.heap_sample_bytes, whole)?,
        })
    }
}

/// Both files or neither.
fn tls(certificate: Option<String>, key: Option<String>) -> Result<Option<TlsFiles>, ConfigError> {
    let (certificate, key) =
        (TLS_CERT_FILE.read(certificate, path)?, TLS_KEY_FILE.read(key, path)?);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(TLS_KEY_FILE.bad("nothing".into(), "the certificate needs it".into()))
        }
        (None, Some(_)) => Err(TLS_CERT_FILE.bad("nothing".into(), "the key needs it".into())),
    }
}

/// Where to connect to a server that listens on `address`: it may listen everywhere.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// A value, or what is wrong with it; an empty text where that is plain.
type Parsed<T> = Result<T, String>;

impl Setting {
    /// The ready value of what was set, if anything was.
    fn read<T>(
        &self,
        value: Option<String>,
        parse: impl FnOnce(&Setting, &str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        parse(self, &value).map(Some).map_err(|reason| {
            let got = if self.secret { "a value that is not shown".into() } else { shown(&value) };
            self.bad(got, reason)
        })
    }

    /// The ready value of what was set or of the default.
    fn required<T>(
        &self,
        value: Option<String>,
        parse: impl FnOnce(&Setting, &str) -> Parsed<T>,
    ) -> Result<T, ConfigError> {
        let value = value.or_else(|| self.default.map(str::to_owned));
        self.read(value, parse).map(|value| value.expect("this setting has a default"))
    }

    fn bad(&self, got: String, reason: String) -> ConfigError {
        ConfigError::Bad { name: self.name, got, takes: self.takes, reason }
    }

    /// The name of the variable that names a file.
    fn file_name(&self) -> String {
        format!("{}{FILE_SUFFIX}", self.name)
    }
}

/// A value in quotes, on one line.
fn shown(value: &str) -> String {
    let start: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if start.len() < value.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

fn address(_: &Setting, value: &str) -> Parsed<SocketAddr> {
    value.parse().map_err(|_| String::new())
}

fn path(_: &Setting, value: &str) -> Parsed<PathBuf> {
    if value.is_empty() { Err(String::new()) } else { Ok(value.into()) }
}

/// What `GAMESERVER_DATABASE_URL` says.
enum Address {
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

fn database(_: &Setting, value: &str) -> Parsed<Address> {
    if value.starts_with("postgres://") || value.starts_with("postgresql://") {
        return value.parse().map(Address::Postgres).map_err(|error: UrlError| error.to_string());
    }
    let path = value.strip_prefix("sqlite:").ok_or("it begins with no scheme that is known")?;
    // As other programs read it: `sqlite:///absolute/path` and `sqlite://relative/path`.
    match path.strip_prefix("//").unwrap_or(path) {
        "" => Err("the path is missing".into()),
        ":memory:" => Err("a store in memory would lose every match".into()),
        path => Ok(Address::Sqlite(path.into())),
    }
}

/// Reads the URL of a store as `GAMESERVER_DATABASE_URL` is read; what is wrong shows no secret.
pub fn store_at(url: &str) -> Result<Place, String> {
    Ok(match database(&DATABASE_URL, url)? {
        Address::Sqlite(file) => Place::Sqlite { file, data_dir: None },
        Address::Postgres(url) => Place::Postgres(url),
    })
}

fn networks(_: &Setting, value: &str) -> Parsed<Vec<IpNet>> {
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    let network = |item: &str| item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
    let networks: Vec<IpNet> = items
        .map(|item| network(item).map_err(|_| format!("{item:?} is neither")))
        .collect::<Result<_, _>>()?;
    if networks.len() > PROXIES_MAX {
        return Err(format!("more than {PROXIES_MAX}"));
    }
    Ok(networks)
}

fn host_and_port(_: &Setting, value: &str) -> Parsed<String> {
    let (host, port) = value.rsplit_once(':').ok_or_else(String::new)?;
    if is_host(host) && is_port(port) { Ok(value.to_owned()) } else { Err(String::new()) }
}

fn truth(_: &Setting, value: &str) -> Parsed<bool> {
    value.parse().map_err(|_| String::new())
}

fn migrate(_: &Setting, value: &str) -> Parsed<Migrate> {
    match value {
        "auto" => Ok(Migrate::Apply),
        "never" => Ok(Migrate::Check),
        _ => Err(String::new()),
    }
}

fn keys(_: &Setting, value: &str) -> Parsed<SigningKeys> {
    SigningKeys::from_pem(value).map_err(|error| error.to_string())
}

fn issuer(_: &Setting, value: &str) -> Parsed<String> {
    let fits = (1..=ISSUER_BYTES_MAX).contains(&value.len()) && !value.contains(char::is_control);
    if fits { Ok(value.to_owned()) } else { Err(String::new()) }
}

/// A whole number in the setting's range, in digits alone.
fn whole<T: TryFrom<u64>>(setting: &Setting, value: &str) -> Parsed<T> {
    let Takes::Number { min, max, .. } = setting.takes else {
        unreachable!("{} takes no number", setting.name)
    };
    Some(value)
        .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|value| value.parse::<u64>().ok())
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(String::new)
}

fn seconds(setting: &Setting, value: &str) -> Parsed<Duration> {
    whole(setting, value).map(Duration::from_secs)
}

fn milliseconds(setting: &Setting, value: &str) -> Parsed<Duration> {
    whole(setting, value).map(Duration::from_millis)
}

fn level(_: &Setting, value: &str) -> Parsed<Level> {
    match value {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(String::new()),
    }
}

fn log_format(_: &Setting, value: &str) -> Parsed<LogFormat> {
    match value {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(String::new()),
    }
}

fn origins(_: &Setting, value: &str) -> Parsed<Vec<String>> {
    if value.trim().is_empty() {
        return Ok(Vec::new());
    }
    let origins: Vec<String> =
        value.split(',').map(|item| origin(item.trim())).collect::<Result<_, _>>()?;
    if origins.len() > ORIGINS_MAX {
        return Err(format!("more than {ORIGINS_MAX}"));
    }
    Ok(origins)
}

/// An origin as browsers write it (RFC 6454, section 6.1).
fn origin(item: &str) -> Parsed<String> {
    if item == "*" {
        return Err("* would let any page play as whoever looks at it".into());
    }
    let item = item.to_ascii_lowercase();
    let wrong = |what: &str| format!("{item:?} {what}");
    let (scheme, authority) = item.split_once("://").ok_or_else(|| wrong("has no scheme://"))?;
    let scheme_holds = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_holds {
        return Err(wrong("has no proper scheme"));
    }
    if authority.contains(['/', '?', '#', '@']) {
        return Err(wrong("has more than a host and a port"));
    }
    let host_bytes = authority.find(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[host_bytes..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(host_bytes + colon);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    };
    if !is_host(host) {
        return Err(wrong("has no proper host"));
    }
    match port {
        Some(port) if !is_port(port) => Err(wrong("has no proper port")),
        Some("80") if scheme == "http" => Ok(format!("http://{host}")),
        Some("443") if scheme == "https" => Ok(format!("https://{host}")),
        _ => Ok(item),
    }
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

/// Digits without a leading zero, so that equal ports are equal texts.
fn is_port(port: &str) -> bool {
    port.starts_with(|first: char| first.is_ascii_digit() && first != '0')
        && port.parse::<u16>().is_ok()
}

fn built_in_games(_: &Setting, value: &str) -> Parsed<Vec<String>> {
    let games = value.split(',').map(str::trim);
    let known = |name: &str| is_built_in(name).then(|| name.to_owned());
    let none = |name| format!("{} is none: there are {}", shown(name), BUILT_IN.join(", "));
    games.map(|name| known(name).ok_or_else(|| none(name))).collect()
}

fn relay_games(_: &Setting, value: &str) -> Parsed<Vec<RelayGame>> {
    let games: Vec<RelayGame> = serde_json::from_str(value).map_err(|error| error.to_string())?;
    if games.len() > RELAY_GAMES_MAX {
        return Err(format!("more than {RELAY_GAMES_MAX}"));
    }
    for (index, game) in games.iter().enumerate() {
        if !is_name(&game.name) {
            return Err(format!(
                "the name {} is not 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -",
                shown(&game.name)
            ));
        }
        if is_built_in(&game.name) {
            return Err(format!("the name {:?} is a built-in game's", game.name));
        }
        if games[..index].iter().any(|earlier| earlier.name == game.name) {
            return Err(format!("the name {:?} is there twice", game.name));
        }
    }
    Ok(games)
}

/// The variables of the process that are ours.
fn environment() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut vars = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        // Settings are ASCII: a name that is not UTF-8 belongs to somebody else.
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::NotUnicode { name: name.to_owned() });
        };
        vars.insert(name.to_owned(), value);
    }
    Ok(vars)
}

/// The variables of an environment file, in its order. A broken line is not shown: it may be part
/// of a secret.
fn dotenv(bytes: &[u8]) -> Result<Vec<(String, String)>, ConfigError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut vars: Vec<(String, String)> = Vec::new();
    for item in dotenvy::from_read_iter(bytes) {
        let var = item.map_err(|error| {
            let after =
                vars.last().map_or("at its start".into(), |(name, _)| format!("after {name}"));
            ConfigError::EnvironmentFile(match error {
                dotenvy::Error::LineParse(..) => {
                    format!("the line {after} is not NAME=value (values of many lines need quotes)")
                }
                other => format!("it cannot be read {after} ({other})"),
            })
        })?;
        vars.push(var);
    }
    Ok(vars)
}

/// Puts the content of the files that `…_FILE` variables name in their place, without the line end
/// that editors leave.
fn read_secret_files(
    vars: &mut BTreeMap<String, String>,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<(), ConfigError> {
    for setting in SETTINGS.iter().filter(|setting| setting.secret) {
        let Some(path) = vars.remove(&setting.file_name()) else { continue };
        if vars.contains_key(setting.name) {
            return Err(ConfigError::Twice { name: setting.name });
        }
        let content = read(Path::new(&path)).map_err(|error| ConfigError::File {
            name: setting.name,
            path,
            error: error.to_string(),
        })?;
        vars.insert(setting.name.to_owned(), content.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(())
}

/// A name without the prefix.
fn bare(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn is_known(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
}

/// Kubernetes gives each container such variables for each Service of its namespace, and ours may
/// well be called `gameserver` or `gameserver-admin`.
fn is_of_kubernetes(name: &str) -> bool {
    let words = format!("_{}_", bare(name));
    words.ends_with("_SERVICE_HOST_")
        || words.contains("_SERVICE_PORT_")
        || words.contains("_PORT_")
}

/// The setting whose name is most like `name`, if one is.
fn nearest(name: &str) -> Option<&'static str> {
    let typed = bare(name);
    SETTINGS
        .iter()
        .map(|setting| {
            let known = bare(setting.name);
            (edits(typed, known), known.len(), setting.name)
        })
        .filter(|(edits, length, _)| edits * 2 <= *length)
        .min()
        .map(|(_, _, name)| name)
}

/// Levenshtein's distance: the letters to put in, take out or change.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("auth/testdata/ed25519.pem");

    fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        // A home of some kind, so that the tests do not depend on this machine's.
        let data_dir = ("GAMESERVER_DATA_DIR", "/somewhere");
        Config::from_vars(
            [data_dir].iter().chain(vars).map(|(name, value)| ((*name).into(), (*value).into())),
        )
    }

    /// The one line that a single bad variable gives.
    fn line(name: &str, value: &str) -> String {
        let line = config(&[(name, value)]).expect_err(value).to_string();
        assert!(!line.contains('\n'), "{line}");
        assert!(line.starts_with(name), "{line}");
        line
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let config = config(&[("PATH", "/bin"), ("GAMESERVERX", "1")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
        assert_eq!(config.database, Database::Sqlite("/somewhere/gameserver.db".into()));
        assert!(config.signing_keys.is_none());
        assert_eq!(config.jwt_issuer, "gameserver");
        assert_eq!(config.access_token_lifetime, Duration::from_secs(900));
        assert_eq!(config.refresh_token_lifetime, Duration::from_secs(30 * 86_400));
        assert!(config.allowed_origins.is_empty() && config.relay_games.is_empty());
        assert_eq!((config.built_in_games, config.grace), (None, None));
        assert_eq!(config.tick_loss, Duration::from_secs(1));
        assert_eq!((config.commands_per_second, config.relay_commands_per_second), (50, 5000));
        assert_eq!(config.ticket_lifetime, Duration::from_secs(300));
        let limits = (config.failed_sign_ins_per_minute, config.matches_per_minute);
        assert_eq!((limits, config.accounts_per_minute), ((10, 600), 0));
        assert_eq!(config.request_timeout, Duration::from_secs(10));
        assert_eq!(config.connections_max, 10_000);
        assert_eq!((config.log, config.log_format), (Level::INFO, LogFormat::Auto));
        assert_eq!(config.heap_sample_bytes, 512 * 1024);
    }

    #[test]
    fn everything_can_be_set() {
        let config = config(&[
            ("GAMESERVER_LISTEN", "[::]:0"),
            ("GAMESERVER_ADMIN_LISTEN", "0.0.0.0:1"),
            ("GAMESERVER_DATA_DIR", "data"),
            ("GAMESERVER_DATABASE_URL", "sqlite:games.db"),
            ("GAMESERVER_JWT_PRIVATE_KEY", KEY),
            ("GAMESERVER_JWT_ISSUER", "https://games.example"),
            ("GAMESERVER_ACCESS_TOKEN_SECONDS", "60"),
            ("GAMESERVER_REFRESH_TOKEN_DAYS", "365"),
            ("GAMESERVER_ALLOWED_ORIGINS", "https://a.example"),
            ("GAMESERVER_TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::1"),
            ("GAMESERVER_TLS_CERT_FILE", "cert.pem"),
            ("GAMESERVER_TLS_KEY_FILE", "key.pem"),
            ("GAMESERVER_BUILTIN_GAMES", "relay, pairs"),
            (
                "GAMESERVER_RELAY_GAMES",
                r#"[{"name": "golf", "title": "Golf", "description": "Nine holes."}]"#,
            ),
            ("GAMESERVER_GRACE_SECONDS", "5"),
            ("GAMESERVER_TICK_LOSS_MS", "250"),
            ("GAMESERVER_COMMANDS_PER_SECOND", "1"),
            ("GAMESERVER_RELAY_COMMANDS_PER_SECOND", "100000"),
            ("GAMESERVER_TICKET_SECONDS", "7"),
            ("GAMESERVER_FAILED_SIGN_INS_PER_MINUTE", "1"),
            ("GAMESERVER_MATCHES_PER_MINUTE", "2"),
            ("GAMESERVER_ACCOUNTS_PER_MINUTE", "3"),
            ("GAMESERVER_REQUEST_TIMEOUT_SECONDS", "1"),
            ("GAMESERVER_CONNECTIONS_MAX", "7"),
            ("GAMESERVER_LOG", "trace"),
            ("GAMESERVER_LOG_FORMAT", "json"),
            ("GAMESERVER_HEAP_SAMPLE_BYTES", "0"),
        ])
        .unwrap();
        assert!(config.listen.is_ipv6());
        assert_eq!(config.admin_listen.port(), 1);
        assert_eq!(config.data_dir.as_deref(), Some(Path::new("data")));
        assert_eq!(config.database, Database::Sqlite("games.db".into()));
        assert!(config.signing_keys.is_some());
        assert_eq!(config.jwt_issuer, "https://games.example");
        assert_eq!(config.access_token_lifetime, Duration::from_secs(60));
        assert_eq!(config.refresh_token_lifetime, Duration::from_secs(365 * 86_400));
        assert_eq!(config.allowed_origins, ["https://a.example"]);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(config.tls.map(|files| files.key), Some("key.pem".into()));
        assert_eq!(config.built_in_games.unwrap(), ["relay", "pairs"]);
        assert_eq!(config.relay_games[0].name, "golf");
        assert_eq!(config.grace, Some(Duration::from_secs(5)));
        assert_eq!(config.tick_loss, Duration::from_millis(250));
        assert_eq!((config.commands_per_second, config.relay_commands_per_second), (1, 100_000));
        assert_eq!(config.ticket_lifetime, Duration::from_secs(7));
        let limits = (config.failed_sign_ins_per_minute, config.matches_per_minute);
        assert_eq!((limits, config.accounts_per_minute), ((1, 2), 3));
        assert_eq!(config.request_timeout, Duration::from_secs(1));
        assert_eq!(config.connections_max, 7);
        assert_eq!((config.log, config.log_format), (Level::TRACE, LogFormat::Json));
        assert_eq!(config.heap_sample_bytes, 0);
    }

    #[test]
    fn each_setting_is_read_and_refuses_an_empty_value() {
        let lists = [ALLOWED_ORIGINS.name, TRUSTED_PROXIES.name];
        for setting in SETTINGS.iter().filter(|setting| !lists.contains(&setting.name)) {
            let line = line(setting.name, "");
            assert!(line.contains(&format!("; it takes {}", setting.takes)), "{line}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        for setting in SETTINGS {
            let Takes::Number { min, max, .. } = setting.takes else { continue };
            for good in [min, max] {
                assert!(config(&[(setting.name, &good.to_string())]).is_ok(), "{}", setting.name);
            }
            let [below, above] = [min.wrapping_sub(1), max + 1].map(|bad| bad.to_string());
            for bad in [&below, &above, "-1", "+60", "60s", " 60", "6e1", "99999999999999999999"] {
                line(setting.name, bad);
            }
        }
        assert_eq!(
            line("GAMESERVER_ACCESS_TOKEN_SECONDS", "59"),
            "GAMESERVER_ACCESS_TOKEN_SECONDS: got \"59\"; it takes a whole number of seconds from 60 to \
             86400"
        );
    }

    #[test]
    fn addresses_are_numeric_and_have_a_port() {
        for bad in ["localhost:8080", ":8080", "8080", "127.0.0.1", "::1:80", "1.2.3.4:65536"] {
            line("GAMESERVER_LISTEN", bad);
        }
    }

    #[test]
    fn a_database_url_names_a_file() {
        for (url, file) in [
            ("sqlite:a.db", "a.db"),
            ("sqlite:/var/a.db", "/var/a.db"),
            ("sqlite:///var/a.db", "/var/a.db"),
            ("sqlite://a.db", "a.db"),
        ] {
            let config = config(&[("GAMESERVER_DATABASE_URL", url)]).unwrap();
            assert_eq!(config.database, Database::Sqlite(file.into()));
        }
        let url = "postgres://me:hunter2@db/games?sslmode=verify-full";
        let config = config(&[("GAMESERVER_DATABASE_URL", url), ("GAMESERVER_MIGRATE", "never")]);
        let Database::Postgres(settings, Migrate::Check) = config.unwrap().database else {
            panic!("no PostgreSQL")
        };
        assert_eq!(settings.url, url.parse().unwrap());
        assert_eq!((settings.connections_max, settings.prepare), (16, true));
        for bad in [
            "sqlite:",
            "sqlite::memory:",
            "mysql://me:hunter2@db",
            "hunter2.db",
            "postgres://me:hunter2@db/games?sslmode=hunter2",
            "postgres://me:hunter2@db:port/games",
        ] {
            assert!(!line("GAMESERVER_DATABASE_URL", bad).contains("hunter2"));
        }
    }

    #[test]
    fn a_bad_key_says_why_and_shows_nothing_of_it() {
        let cut = &KEY[..KEY.len() - 30];
        let line = line("GAMESERVER_JWT_PRIVATE_KEY", cut);
        assert!(line.ends_with("PEM block 1 (PRIVATE KEY) has no END line"), "{line}");
        assert!(!line.contains("MC4C"), "{line}");
    }

    #[test]
    fn debug_shows_no_key() {
        let config = config(&[("GAMESERVER_JWT_PRIVATE_KEY", KEY)]).unwrap();
        let shown = format!("{config:?}");
        let secret = KEY.lines().nth(1).unwrap();
        assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn origins_are_written_as_browsers_do() {
        let config = config(&[(
            "GAMESERVER_ALLOWED_ORIGINS",
            "HTTPS://Play.Example:443, http://localhost:5173,http://[::1]:80,capacitor://localhost",
        )])
        .unwrap();
        assert_eq!(
            config.allowed_origins,
            [
                "https://play.example",
                "http://localhost:5173",
                "http://[::1]",
                "capacitor://localhost"
            ]
        );
    }

    #[test]
    fn an_empty_list_of_origins_is_a_list() {
        assert!(config(&[("GAMESERVER_ALLOWED_ORIGINS", " ")]).unwrap().allowed_origins.is_empty());
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "play.example",
            "https://",
            "https://play.example/",
            "https://play.example/path",
            "https://me@play.example",
            "https://play.example:0",
            "https://play.example:080",
            "https://play.example:65536",
            "https://play.example:",
            "https://pläy.example",
            "https://[::1",
            "https://[::g]",
            "://play.example",
            "1http://play.example",
            "https://a.example,,https://b.example",
            "https://*.example",
            "null",
        ] {
            line("GAMESERVER_ALLOWED_ORIGINS", bad);
        }
        let star = line("GAMESERVER_ALLOWED_ORIGINS", "*");
        assert!(star.ends_with("* would let any page play as whoever looks at it"), "{star}");
        line("GAMESERVER_ALLOWED_ORIGINS", &["https://a.example"; ORIGINS_MAX + 1].join(","));
    }

    #[test]
    fn built_in_games_are_those_that_are_there() {
        let chess = line("GAMESERVER_BUILTIN_GAMES", "pairs,chess");
        assert!(
            chess.ends_with("\"chess\" is none: there are tictactoe, pairs, arena, relay"),
            "{chess}"
        );
        line("GAMESERVER_BUILTIN_GAMES", "");
    }

    #[test]
    fn relay_games_are_checked() {
        for bad in [
            "golf",
            "{}",
            r#"["golf"]"#,
            r#"[{"name": "golf"}]"#,
            r#"[{"name": "Golf", "title": "Golf", "description": ""}]"#,
            r#"[{"name": "", "title": "Golf", "description": ""}]"#,
            r#"[{"name": "a/b", "title": "Golf", "description": ""}]"#,
        ] {
            line("GAMESERVER_RELAY_GAMES", bad);
        }
        let twice = r#"[{"name":"a","title":"A","description":""},{"name":"a","title":"B","description":""}]"#;
        assert!(line("GAMESERVER_RELAY_GAMES", twice).ends_with(r#"the name "a" is there twice"#));
        let built_in = r#"[{"name":"pairs","title":"Pairs","description":""}]"#;
        assert!(
            line("GAMESERVER_RELAY_GAMES", built_in)
                .ends_with(r#"the name "pairs" is a built-in game's"#)
        );
    }

    #[test]
    fn an_issuer_is_short_and_on_one_line() {
        line("GAMESERVER_JWT_ISSUER", "a\nb");
        line("GAMESERVER_JWT_ISSUER", &"x".repeat(ISSUER_BYTES_MAX + 1));
        assert!(config(&[("GAMESERVER_JWT_ISSUER", &"x".repeat(ISSUER_BYTES_MAX))]).is_ok());
    }

    #[test]
    fn levels_and_formats_are_words() {
        for bad in ["INFO", "information", "3", "off"] {
            line("GAMESERVER_LOG", bad);
        }
        line("GAMESERVER_LOG_FORMAT", "yaml");
    }

    #[test]
    fn long_values_and_those_of_many_lines_give_one_line() {
        assert!(line("GAMESERVER_LOG", &"x".repeat(10_000)).len() < 300);
        line("GAMESERVER_LISTEN", "127.0.0.1\n:8080");
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_nearest_is_offered() {
        let unknown = |name| config(&[(name, "1")]).unwrap_err().to_string();
        assert_eq!(
            unknown("GAMESERVER_LISTN"),
            "GAMESERVER_LISTN is no setting; is it GAMESERVER_LISTEN?"
        );
        assert_eq!(
            unknown("GAMESERVER_ALLOWED_ORIGIN"),
            "GAMESERVER_ALLOWED_ORIGIN is no setting; is it GAMESERVER_ALLOWED_ORIGINS?"
        );
        assert_eq!(
            unknown("GAMESERVER_FROBNICATION"),
            "GAMESERVER_FROBNICATION is no setting; `gameserver help` lists them all"
        );
        for name in ["GAMESERVER_", "GAMESERVER_listen", "GAMESERVER_GAMESERVER_LISTEN"] {
            unknown(name);
        }
    }

    #[test]
    fn names_that_kubernetes_injects_are_passed_over() {
        for name in [
            "GAMESERVER_SERVICE_HOST",
            "GAMESERVER_SERVICE_PORT",
            "GAMESERVER_SERVICE_PORT_HTTP",
            "GAMESERVER_PORT",
            "GAMESERVER_PORT_8080_TCP",
            "GAMESERVER_PORT_8080_TCP_ADDR",
            "GAMESERVER_ADMIN_SERVICE_HOST",
            "GAMESERVER_ADMIN_SERVICE_PORT_METRICS",
            "GAMESERVER_ADMIN_PORT",
            "GAMESERVER_ADMIN_PORT_9090_TCP_PROTO",
        ] {
            assert!(config(&[(name, "tcp://10.0.0.1:8080")]).is_ok(), "{name}");
        }
        for name in ["GAMESERVER_TRANSPORT", "GAMESERVER_PORTS", "GAMESERVER_SERVICE_HOSTS"] {
            assert!(config(&[(name, "1")]).is_err(), "{name}");
        }
    }

    fn with_files(vars: &[(&str, &str)]) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut vars = vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        read_secret_files(&mut vars, |path| match path.to_str() {
            Some("/run/secrets/url") => Ok("sqlite:a.db\r\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })?;
        Ok(vars)
    }

    #[test]
    fn a_secret_can_be_in_a_file() {
        let vars = with_files(&[("GAMESERVER_DATABASE_URL_FILE", "/run/secrets/url")]).unwrap();
        assert_eq!(vars["GAMESERVER_DATABASE_URL"], "sqlite:a.db");
        assert_eq!(vars.len(), 1);
        let missing = with_files(&[("GAMESERVER_JWT_PRIVATE_KEY_FILE", "/nowhere")]).unwrap_err();
        assert!(missing.to_string().starts_with(
            "GAMESERVER_JWT_PRIVATE_KEY_FILE: got \"/nowhere\", which cannot be read ("
        ));
        let twice = with_files(&[
            ("GAMESERVER_DATABASE_URL", "sqlite:b.db"),
            ("GAMESERVER_DATABASE_URL_FILE", "/run/secrets/url"),
        ]);
        assert_eq!(twice, Err(ConfigError::Twice { name: "GAMESERVER_DATABASE_URL" }));
        let no_secret = with_files(&[("GAMESERVER_LISTEN_FILE", "/run/secrets/url")]).unwrap();
        assert!(Config::from_vars(no_secret.into_iter()).is_err());
    }

    #[test]
    fn an_environment_file_is_read() {
        let file = "\u{feff}# ours\nGAMESERVER_LOG=warn\nexport OTHER='x y'\nKEY=\"a\nb\"\n";
        let vars = dotenv(file.as_bytes()).unwrap();
        let expected = [("GAMESERVER_LOG", "warn"), ("OTHER", "x y"), ("KEY", "a\nb")];
        assert_eq!(vars, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_broken_environment_file_shows_no_secret() {
        let file = "GAMESERVER_LOG=warn\nGAMESERVER_JWT_PRIVATE_KEY=-----BEGIN\nhunter2 hunter2\n";
        let line = dotenv(file.as_bytes()).unwrap_err().to_string();
        assert!(line.starts_with(".env: the line after GAMESERVER_"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
        assert!(dotenv(b"A=\xff\n").is_err());
    }

    #[test]
    fn an_unspecified_address_is_reached_on_the_loopback() {
        for (listen, reach) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), reach.parse().unwrap());
        }
    }
}
