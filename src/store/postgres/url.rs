//! A PostgreSQL server's address, as libpq reads it, and how its certificate is checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// How far the server is trusted (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// `disable`, `prefer` and `require`: whoever answers. `require` is safe from listeners alone.
    Anybody,
    /// `verify-full`: whose certificate names the host and leads to a root that is trusted.
    Verified,
}

/// A `postgres://` address. `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct PostgresUrl {
    config: Box<Config>,
    /// How far the server is trusted.
    pub trust: Trust,
    /// PEM file with the roots that are trusted (`sslrootcert`); `None`: those of browsers.
    pub root_certificates: Option<PathBuf>,
}

/// Why a text is no such address; never holds any of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Not a URL that tokio-postgres reads.
    #[error("it can't be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE?…")]
    Unreadable,
    /// No host: there is no default one.
    #[error("it names no host")]
    NoHost,
    /// An `sslmode` that there is not.
    #[error("its sslmode is none of disable, prefer, require and verify-full")]
    SslMode,
}

impl PostgresUrl {
    /// What tokio-postgres is told.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl PostgresUrl {
    /// This machine's address as the server sees it, if that can be told: nothing is sent.
    pub fn seen_from(&self) -> Option<IpAddr> {
        let tokio_postgres::config::Host::Tcp(name) = self.config.get_hosts().first()? else {
            return None;
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let server = (name.as_str(), port).to_socket_addrs().ok()?.next()?;
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(server).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut root_certificates, mut rest) = (SslMode::Prefer, None, String::new());
        let mut trust = Trust::Anybody;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value) {
                ("sslmode", "disable") => mode = SslMode::Disable,
                ("sslmode", "prefer") => mode = SslMode::Prefer,
                ("sslmode", "require") => mode = SslMode::Require,
                ("sslmode", "verify-full") => {
                    (mode, trust) = (SslMode::Require, Trust::Verified);
                }
                ("sslmode", _) => return Err(UrlError::SslMode),
                ("sslrootcert", path) => root_certificates = Some(decoded(path).into()),
                _ => {
                    rest.push(if rest.is_empty() { '?' } else { '&' });
                    rest.push_str(pair);
                }
            }
        }
        let mut config =
            Config::from_str(&format!("{address}{rest}")).map_err(|_| UrlError::Unreadable)?;
        if config.get_hosts().is_empty() {
            return Err(UrlError::NoHost);
        }
        config.ssl_mode(mode);
        if config.get_application_name().is_none() {
            config.application_name("gameserver");
        }
        Ok(Self { config: Box::new(config), trust, root_certificates })
    }
}

/// A value without its percent encoding.
fn decoded(value: &str) -> String {
    let pair = format!("x={}", value.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

impl fmt::Display for PostgresUrl {
    #[allow(unreachable_patterns, clippy::match_wildcard_for_single_variants)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://")?;
        for (place, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match host {
                tokio_postgres::config::Host::Tcp(name) => write!(f, "{comma}{name}")?,
                // A socket in the file system, which a Unix alone has.
                _ => write!(f, "{comma}(local)")?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.trust)
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
            && self.trust == other.trust
            && self.root_certificates == other.root_certificates
    }
}

impl Eq for PostgresUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<PostgresUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn libpqs_modes_are_known() {
        for (mode, ssl, trust) in [
            ("disable", SslMode::Disable, Trust::Anybody),
            ("prefer", SslMode::Prefer, Trust::Anybody),
            ("require", SslMode::Require, Trust::Anybody),
            ("verify-full", SslMode::Require, Trust::Verified),
        ] {
            let url = url(&format!("postgres://me@db/games?sslmode={mode}")).unwrap();
            assert_eq!((url.config().get_ssl_mode(), url.trust), (ssl, trust));
        }
        assert_eq!(url("postgres://db/games?sslmode=maybe"), Err(UrlError::SslMode));
        let url = url("postgres://db/games?sslrootcert=%2Fetc%2Froot+ca.pem&connect_timeout=3");
        assert_eq!(url.unwrap().root_certificates, Some("/etc/root+ca.pem".into()));
    }

    #[test]
    fn a_name_for_pg_stat_activity_may_be_given() {
        let name = |text| url(text).unwrap().config().get_application_name().map(String::from);
        assert_eq!(name("postgres://db/games").unwrap(), "gameserver");
        let given = name("postgres://db/games?application_name=eu-1&sslmode=disable");
        assert_eq!(given.unwrap(), "eu-1");
    }

    #[test]
    fn what_is_no_address_says_so_and_shows_nothing() {
        for bad in ["postgres://", "postgres://me:hunter2@/games", "postgres://db:x/games?a=b"] {
            let error = url(bad).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let url = url("postgres://me:hunter2@db.example:5433/games").unwrap();
        let shown = format!("{url} {url:?}");
        assert!(shown.contains("db.example/games") && !shown.contains("hunter2"), "{shown}");
    }
}
