//! The server's settings, as far as the operator has to know them.
//!
//! The operator links nothing of the server; a test holds these lists against the README's table.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long an access token lives where nothing else is set, in seconds.
pub const ACCESS_TOKEN_SECONDS: u64 = 900;
/// How long the server lets one live: with another setting it does not start.
pub const ACCESS_TOKEN_SECONDS_RANGE: RangeInclusive<u64> = 60..=86_400;

/// Settings that `spec.config` takes.
pub const CONFIGURABLE: &[&str] = &[
    "GAMESERVER_ACCESS_TOKEN_SECONDS",
    "GAMESERVER_ACCOUNTS_PER_MINUTE",
    "GAMESERVER_ALLOWED_ORIGINS",
    "GAMESERVER_COMMANDS_PER_SECOND",
    "GAMESERVER_CONNECTIONS_MAX",
    "GAMESERVER_DATABASE_CONNECTIONS_MAX",
    "GAMESERVER_DATABASE_LOCK_SECONDS",
    "GAMESERVER_DATABASE_PREPARE",
    "GAMESERVER_DATABASE_STATEMENT_SECONDS",
    "GAMESERVER_DATABASE_WAIT_SECONDS",
    "GAMESERVER_FAILED_SIGN_INS_PER_MINUTE",
    "GAMESERVER_GRACE_SECONDS",
    "GAMESERVER_HEAP_SAMPLE_BYTES",
    "GAMESERVER_JWT_ISSUER",
    "GAMESERVER_LEASE_SECONDS",
    "GAMESERVER_LOG",
    "GAMESERVER_LOG_FORMAT",
    "GAMESERVER_MATCHES_PER_MINUTE",
    "GAMESERVER_REFRESH_TOKEN_DAYS",
    "GAMESERVER_RELAY_COMMANDS_PER_SECOND",
    "GAMESERVER_REQUEST_TIMEOUT_SECONDS",
    "GAMESERVER_TICKET_SECONDS",
    "GAMESERVER_TICK_LOSS_MS",
    "GAMESERVER_TRUSTED_PROXIES",
];

/// Settings that the operator sets itself, and what to use instead.
pub const OWN: &[(&str, &str)] = &[
    ("GAMESERVER_ADMIN_LISTEN", "the operator sets it"),
    ("GAMESERVER_ADVERTISE", "it is the pod's own address"),
    ("GAMESERVER_BUILTIN_GAMES", "use spec.games"),
    ("GAMESERVER_DATABASE_URL", "use spec.database"),
    ("GAMESERVER_DATA_DIR", "pods keep nothing in files"),
    ("GAMESERVER_GAMES_DIR", "use spec.games"),
    ("GAMESERVER_JWT_PRIVATE_KEY", "use spec.auth"),
    ("GAMESERVER_LISTEN", "use spec.service"),
    ("GAMESERVER_MIGRATE", "the operator migrates before pods start"),
    ("GAMESERVER_RELAY_GAMES", "use spec.games"),
    ("GAMESERVER_SHARE_PORT", "a pod has its ports to itself"),
    ("GAMESERVER_TLS_CERT_FILE", "use spec.tlsSecretRef"),
    ("GAMESERVER_TLS_KEY_FILE", "use spec.tlsSecretRef"),
];

/// How long an access token lives; what no server takes gives none a life.
pub fn access_token_life(config: &BTreeMap<String, String>) -> Duration {
    let set = config.get("GAMESERVER_ACCESS_TOKEN_SECONDS").and_then(|set| set.parse().ok());
    let taken = set.filter(|set| ACCESS_TOKEN_SECONDS_RANGE.contains(set));
    Duration::from_secs(taken.unwrap_or(ACCESS_TOKEN_SECONDS))
}

/// Why `spec.config` can't have this name.
pub fn problem(name: &str) -> Option<String> {
    if CONFIGURABLE.contains(&name) {
        return None;
    }
    let is = |own: &str| name == own || name.strip_suffix("_FILE") == Some(own);
    let instead = OWN.iter().find(|(own, _)| is(own));
    let why = instead.map_or("this operator's server has no such setting", |(_, instead)| instead);
    Some(format!("spec.config has {name}: {why}"))
}
