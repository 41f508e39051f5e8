//! Puts the rooms together, and owns the order in which they start and drain.
//!
//! Start: settings, the data directory and its lock, keys, store, the rooms, and last the
//! listeners: whoever connects finds all of it. Drain: not ready, no new connections and matches,
//! sockets told to come back, all that was acknowledged written, then the end; a second signal
//! aborts.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

use crate::auth::{KeyError, Secret, SigningKeys, Tokens};
use crate::cluster::{Cluster, JoinError};
use crate::config::{Config, Database, reachable};
use crate::games::Catalog;
use crate::http::server::{Limits, Listening};
use crate::http::{Http, PerMinute, Settings};
use crate::ids::UserId;
use crate::matches::matchmaker::Matchmaker;
use crate::matches::{Registry, UPKEEP_INTERVAL};
use crate::observability::{Admin, Level, start_logs};
use crate::platform::{self, Service, Signal, Signals};
use crate::plugins::Plugins;
use crate::session::Rates;
use crate::store::postgres::{self, Notice, Postgres, PostgresSettings, Subscription};
use crate::store::sqlite::Sqlite;
use crate::store::transfer::{KEY_FILE, KEY_SECRET};
use crate::store::{Store, StoreError};
use crate::telemetry::work;
use crate::tls::{Tls, TlsError};
use crate::users::Users;
use crate::vital::Vital;

/// Whom access tokens are for (`aud`).
const AUDIENCE: &str = "gameserver";
/// The setting that says where files are.
const DATA_DIR: &str = "GAMESERVER_DATA_DIR";
/// What nodes know each other by, in such a store.
const NODE_SECRET: &str = "node-secret";
/// Locked by the server that works in the data directory.
const LOCK_FILE: &str = "gameserver.lock";
/// Connections to the admin listener.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Tasks that a worker runs before it looks into the queue that all share. With more sockets awake
/// than fit into a worker's own queue (256) the others wait there, and not for long.
const GLOBAL_QUEUE_INTERVAL: u32 = 8;
/// How often the store forgets sessions, tickets and counts that are over.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// How often the certificate's files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);
/// How often at least a node looks at what happened on others.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// So long it does not look again: many notices are one.
const NOTICE_PAUSE: Duration = Duration::from_millis(10);
/// How long all of a drain may take; whoever started the server may kill it after ten seconds.
const DRAIN_MAX: Duration = Duration::from_secs(9);
/// How long clients have to let go once they are told; then they are cut off.
const DRAIN_CLIENTS_MAX: Duration = Duration::from_secs(5);
/// How long the store has to take what is acknowledged.
const DRAIN_STORE_MAX: Duration = Duration::from_secs(3);

/// Why the server can't start; one line each.
#[derive(Debug, Error)]
enum StartError {
    #[error("{setting}: {}: {error}", .path.display())]
    File { setting: &'static str, path: PathBuf, error: io::Error },
    #[error("{}: another server works there (it is locked); stop it, or set another {setting}", .path.display())]
    Locked { path: PathBuf, setting: &'static str },
    #[error("{}: {error}; put it right, or move it away to have a new one made", .path.display())]
    Key { path: PathBuf, error: KeyError },
    #[error("GAMESERVER_DATA_DIR is not set, and this account has no home")]
    NoDataDir,
    #[error("GAMESERVER_DATABASE_URL: {place}: {error}")]
    Open { place: String, error: StoreError },
    #[error("GAMESERVER_TLS_CERT_FILE, GAMESERVER_TLS_KEY_FILE: {0}")]
    Tls(#[from] TlsError),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error("GAMESERVER_GAMES_DIR: {}: {error}", .path.display())]
    GamesDir { path: PathBuf, error: io::Error },
    #[error("GAMESERVER_ADVERTISE: {0}")]
    Advertise(JoinError),
    #[error("{name}: can't listen on {address}: {error}; set another address")]
    Listen { name: &'static str, address: SocketAddr, error: io::Error },
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Serves until a signal, or until it can't.
pub fn main(config: Config) -> ExitCode {
    match run(config) {
        Ok(code) => code,
        Err(error) => {
            // A single line for people, whatever the format of logs: nothing has begun.
            eprintln!("gameserver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut config: Config) -> Result<ExitCode, StartError> {
    platform::raise_descriptor_limit();
    platform::keep_new_files_private();
    platform::profiling::sample_heap(config.heap_sample_bytes);
    let place = Place::take(&config)?;
    let tls = config.tls.take().map(Tls::load).transpose()?.map(Arc::new);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .enable_all()
        .build()?;
    let mut closing = None;
    let drained = runtime.block_on(async {
        let signals = Signals::listen()?;
        // Before the store: an address that is taken is no reason to touch it.
        let admin = listen("GAMESERVER_ADMIN_LISTEN", config.admin_listen, false)?;
        let public = listen("GAMESERVER_LISTEN", config.listen, config.share_port)?;
        let kept = place.open(config.signing_keys.take()).await?;
        closing = Some(Arc::clone(&kept.store));
        Server::start(config, kept, (public, tls), admin).await?.until_signal(signals).await
    })?;
    // What still runs was cut off: nobody waits for it.
    runtime.shutdown_background();
    if let Some(store) = closing {
        store.close();
    }
    Ok(drained)
}

/// Where the server keeps what it must not lose, taken for this process as far as that is needed.
enum Place {
    /// A file, and the directory where the keys are; the locks go with the process.
    Files { database: PathBuf, keys: PathBuf, _locks: [File; 2] },
    /// A server that other nodes use too.
    Postgres(PostgresSettings),
}

impl Place {
    /// Takes it, and brings the schema of a PostgreSQL server up to date: not within a runtime.
    fn take(config: &Config) -> Result<Self, StartError> {
        match (&config.database, &config.data_dir) {
            (Database::Postgres(settings, migrate), _) => {
                let failed = |error| StartError::Open { place: config.database.to_string(), error };
                postgres::migrate(&settings.url, *migrate).map_err(failed)?;
                Ok(Self::Postgres(settings.clone()))
            }
            (Database::Sqlite(file), Some(dir)) => Ok(Self::Files {
                database: file.clone(),
                keys: dir.join(KEY_FILE),
                _locks: [lock_data_dir(dir)?, lock_database(file)?],
            }),
            (Database::Sqlite(_), None) => Err(StartError::NoDataDir),
        }
    }

    async fn open(&self, given_keys: Option<SigningKeys>) -> Result<Kept, StartError> {
        match self {
            Self::Files { database, keys, .. } => {
                let keys = given_keys.map_or_else(|| stored_keys(keys), Ok)?;
                let failed = |error| StartError::Open {
                    place: Database::Sqlite(database.clone()).to_string(),
                    error,
                };
                let store = Arc::new(Store::Sqlite(Sqlite::open(database).map_err(failed)?));
                // There are no others to share it with.
                let node_secret = Secret::random().as_str().to_owned();
                Ok(Kept { store, keys, node_secret })
            }
            Self::Postgres(settings) => {
                let store = Postgres::new(settings)?;
                let keys = match given_keys {
                    Some(keys) => keys,
                    None => shared_keys(&store).await?,
                };
                let node_secret =
                    shared_secret(&store, NODE_SECRET, || Secret::random().as_str().into()).await?;
                Ok(Kept { store: Arc::new(Store::Postgres(store)), keys, node_secret })
            }
        }
    }
}

/// What was there before this start, or was made by it.
struct Kept {
    store: Arc<Store>,
    keys: SigningKeys,
    /// What nodes know each other by.
    node_secret: String,
}

/// The keys that all nodes share.
async fn shared_keys(store: &Postgres) -> Result<SigningKeys, StartError> {
    let pem = shared_secret(store, KEY_SECRET, SigningKeys::generate_rsa_pem).await?;
    let unusable = |error: KeyError| StoreError::Corrupt(format!("its key: {error}"));
    Ok(SigningKeys::from_pem(&pem).map_err(unusable)?)
}

/// A secret that all nodes share, made by the first.
async fn shared_secret(
    store: &Postgres,
    name: &str,
    make: impl FnOnce() -> String,
) -> Result<String, StartError> {
    if let Some(secret) = store.secret(name).await? {
        return Ok(secret);
    }
    store.offer_secret(name, &make()).await?;
    let gone = || StoreError::Corrupt(format!("its secret {name} is gone"));
    Ok(store.secret(name).await?.ok_or_else(gone)?)
}

/// Creates the data directory where there is none, and takes it for this process.
fn lock_data_dir(path: &Path) -> Result<File, StartError> {
    platform::private_dir(path).map_err(|error| StartError::File {
        setting: DATA_DIR,
        path: path.to_owned(),
        error,
    })?;
    lock(&path.join(LOCK_FILE), path, DATA_DIR)
}

/// Takes the store's file, which may be elsewhere, for this process.
fn lock_database(file: &Path) -> Result<File, StartError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    lock(Path::new(&name), file, "GAMESERVER_DATABASE_URL")
}

/// The lock goes with the process, however that ends.
fn lock(path: &Path, what: &Path, setting: &'static str) -> Result<File, StartError> {
    let failed = |error| StartError::File { setting, path: what.to_owned(), error };
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(StartError::Locked { path: what.to_owned(), setting })
        }
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The keys in a file, made and put there if there are none.
fn stored_keys(path: &Path) -> Result<SigningKeys, StartError> {
    let failed = |error| StartError::File { setting: DATA_DIR, path: path.to_owned(), error };
    let pem = match fs::read_to_string(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pem = SigningKeys::generate_rsa_pem();
            platform::write_private_file(path, pem.as_bytes()).map_err(failed)?;
            pem
        }
        Err(error) => return Err(failed(error)),
    };
    SigningKeys::from_pem(&pem).map_err(|error| StartError::Key { path: path.to_owned(), error })
}

fn listen(
    name: &'static str,
    address: SocketAddr,
    shared: bool,
) -> Result<TcpListener, StartError> {
    platform::listen(address, shared).map_err(|error| StartError::Listen { name, address, error })
}

/// Tells whoever looks after the process as a service.
fn notify(service: Service) {
    if let Err(error) = platform::notify(service) {
        tracing::warn!(%error, ?service, "the service manager (NOTIFY_SOCKET) could not be told");
    }
}

/// All rooms of a server that runs.
struct Server {
    http: Arc<Http>,
    registry: Arc<Registry>,
    users: Arc<Users>,
    cluster: Arc<Cluster>,
    matchmaker: Arc<Matchmaker>,
    /// The task that renews the lease.
    renewing: Option<JoinHandle<()>>,
    admin: Arc<Admin>,
    tls: Option<Arc<Tls>>,
    public_listener: Listening,
    /// Those of the plugins' directory, until they are followed, and what has it looked at.
    plugins: Option<(Plugins, Arc<Notify>)>,
    /// Kept to the end: whoever asks whether the server is ready is answered through the drain.
    _admin_listener: Listening,
    log_level: Level,
}

impl Server {
    async fn start(
        config: Config,
        kept: Kept,
        (public, tls): (TcpListener, Option<Arc<Tls>>),
        admin: TcpListener,
    ) -> Result<Self, StartError> {
        let Kept { store, keys, node_secret } = kept;
        let (public_at, admin_at) = (public.local_addr()?, admin.local_addr()?);
        let log_level = start_logs(config.log, config.log_format);
        let address = advertised(&config, public_at);
        let joined = Cluster::join(Arc::clone(&store), address, tls.clone(), config.lease).await;
        let cluster = joined.map_err(|error| match error {
            JoinError::Store(error) => error.into(),
            taken @ JoinError::AddressTaken(_) => StartError::Advertise(taken),
        })?;
        if cfg!(feature = "unfenced") {
            tracing::error!(
                "built with the feature `unfenced`: THIS SERVER LOSES MOVES, it is for a test alone"
            );
        }
        let catalog = Arc::new(Catalog::new(config.built_in_games.as_deref(), config.relay_games));
        let plugins = match config.games_dir {
            Some(dir) => Some(offer_plugins(dir, &catalog, &store).await?),
            None => None,
        };
        let grace = config.grace.map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX));
        let (kept, nodes, loss) = (Arc::clone(&store), Arc::clone(&cluster), config.tick_loss);
        let registry = Registry::start(kept, catalog, nodes, grace, loss);
        let lifetime = config.access_token_lifetime;
        let tokens = Arc::new(Tokens::new(keys, config.jwt_issuer, AUDIENCE, lifetime));
        let matches = Arc::clone(&registry);
        let on_reuse = move |session| matches.close_sessions(&[session]);
        let refresh_lifetime = config.refresh_token_lifetime;
        let users = Arc::new(Users::new(Arc::clone(&store), tokens, refresh_lifetime, on_reuse));
        users.load_revocations().await?;
        let settings = Settings {
            request_timeout: config.request_timeout,
            allowed_origins: config.allowed_origins,
            trusted_proxies: config.trusted_proxies,
            rates: Rates {
                turns_per_second: config.commands_per_second,
                relay_per_second: config.relay_commands_per_second,
            },
            per_minute: PerMinute {
                failed_sign_ins: config.failed_sign_ins_per_minute,
                matches: config.matches_per_minute,
                accounts: config.accounts_per_minute,
            },
            node_secret,
        };
        let matchmaker = Matchmaker::new(
            Arc::clone(&store),
            Arc::clone(&registry),
            Arc::clone(&cluster),
            config.ticket_lifetime,
        );
        let http = Http::new(
            Arc::clone(&store),
            Arc::clone(&users),
            Arc::clone(&registry),
            Arc::clone(&cluster),
            Arc::clone(&matchmaker),
            settings,
        );
        let rooms = Admin::start(store, Arc::clone(&registry), Arc::clone(&cluster));
        let limits =
            |connections_max| Limits { connections_max, head_timeout: config.request_timeout };
        let server = Self {
            plugins,
            public_listener: Listening::start(
                public,
                tls.clone(),
                limits(config.connections_max),
                Arc::clone(&http),
            ),
            _admin_listener: Listening::start(
                admin,
                None,
                limits(ADMIN_CONNECTIONS_MAX),
                Arc::clone(&rooms),
            ),
            admin: rooms,
            tls,
            http,
            registry,
            users,
            cluster,
            matchmaker,
            renewing: None,
            log_level,
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            public = %public_at,
            admin = %admin_at,
            store = %config.database,
            "ready: open {}://{} to play",
            if server.tls.is_some() { "https" } else { "http" },
            reachable(public_at)
        );
        Ok(server)
    }

    /// Looks after the matches until it is told to end.
    async fn until_signal(mut self, mut signals: Signals) -> Result<ExitCode, StartError> {
        let mut tick = interval(UPKEEP_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let registry = Arc::clone(&self.registry);
        let users = Arc::clone(&self.users);
        let upkeep = tokio::spawn(async move {
            let _vital = Vital("the upkeep of matches");
            let mut pruned = Instant::now();
            loop {
                tick.tick().await;
                let _working = work::UPKEEP.works();
                registry.upkeep();
                platform::release_unused_memory();
                if pruned.elapsed() >= PRUNE_INTERVAL {
                    pruned = Instant::now();
                    tokio::spawn(forget_expired(Arc::clone(&users)));
                }
            }
        });
        let matching = tokio::spawn(Arc::clone(&self.matchmaker).run());
        let (cluster, registry) = (Arc::clone(&self.cluster), Arc::clone(&self.registry));
        self.renewing = Some(tokio::spawn(renew(cluster, registry)));
        let (cluster, registry) = (Arc::clone(&self.cluster), Arc::clone(&self.registry));
        tokio::spawn(follow_sessions(cluster, registry, Arc::clone(&self.users)));
        let look_at_plugins = self.plugins.take().map(|(plugins, look_now)| {
            tokio::spawn(plugins.follow());
            look_now
        });
        let certificates = self
            .tls
            .clone()
            .map(|tls| tokio::spawn(watch_certificate(tls, Arc::clone(&self.cluster))));
        notify(Service::Ready);
        while signals.next().await == Signal::Reload {
            notify(Service::Reloading);
            self.reload();
            if let Some(look_now) = &look_at_plugins {
                look_now.notify_one();
            }
            notify(Service::Ready);
        }
        notify(Service::Stopping);
        tracing::info!("draining: a second signal aborts");
        let drained = tokio::select! {
            () = self.drain() => ExitCode::SUCCESS,
            () = async { while signals.next().await == Signal::Reload {} } => {
                tracing::warn!("aborted");
                ExitCode::FAILURE
            }
        };
        upkeep.abort();
        matching.abort();
        if let Some(certificates) = certificates {
            certificates.abort();
        }
        Ok(drained)
    }

    async fn drain(&mut self) {
        let end = tokio::time::Instant::now() + DRAIN_MAX;
        self.admin.start_drain();
        self.http.refuse_sockets();
        if timeout(DRAIN_STORE_MAX, self.registry.drain()).await.is_err() {
            tracing::error!(
                "the store did not take everything in time: what nobody was told is lost"
            );
        }
        // The lease is renewed no more, or it would come back.
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
            let _ = renewing.await;
        }
        // First the matches are given up, then clients come back: to whoever has them then.
        match timeout(DRAIN_STORE_MAX, self.cluster.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the lease runs out by itself"),
            Err(_) => tracing::error!("the lease runs out by itself: the store does not answer"),
        }
        self.registry.give_up();
        let patience = end.min(tokio::time::Instant::now() + DRAIN_CLIENTS_MAX);
        if timeout_at(patience, self.public_listener.drain()).await.is_err() {
            let left = self.public_listener.connections();
            tracing::warn!(left, "clients that did not let go were cut off");
        }
        tracing::info!("drained");
    }

    /// Reads again what can change while the server runs.
    fn reload(&self) {
        if let Some(tls) = &self.tls {
            reload_certificate(tls, &self.cluster);
        }
        match Config::from_env() {
            Ok(config) => {
                self.log_level.set(config.log);
                self.http.set_allowed_origins(config.allowed_origins);
                tracing::info!("settings were read again: log level, allowed origins");
            }
            Err(error) => tracing::error!(%error, "settings stay as they are"),
        }
    }
}

/// Offers the plugins of a directory as they are now.
async fn offer_plugins(
    dir: PathBuf,
    catalog: &Arc<Catalog>,
    store: &Arc<Store>,
) -> Result<(Plugins, Arc<Notify>), StartError> {
    let plugins = Plugins::start(dir.clone(), Arc::clone(catalog), Arc::clone(store)).await;
    plugins.map_err(|error| StartError::GamesDir { path: dir, error })
}

/// Takes a new certificate soon after it is there, without a signal.
async fn watch_certificate(tls: Arc<Tls>, cluster: Arc<Cluster>) {
    let mut tick = interval(CERTIFICATE_INTERVAL);
    loop {
        tick.tick().await;
        let (tls, cluster) = (Arc::clone(&tls), Arc::clone(&cluster));
        let _ = tokio::task::spawn_blocking(move || reload_certificate(&tls, &cluster)).await;
    }
}

fn reload_certificate(tls: &Tls, cluster: &Cluster) {
    match tls.reload() {
        Ok(true) => {
            tracing::info!("there is a new certificate");
            // The lease is renewed now, and tells the others which one it is.
            cluster.tell(&Notice::Nodes);
        }
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the certificate stays as it is"),
    }
}

async fn forget_expired(users: Arc<Users>) {
    if let Err(error) = users.forget_expired().await {
        tracing::warn!(%error, "what has expired could not be forgotten");
    }
}

/// Renews this node's lease for as long as it lives, and sooner when nodes come and go.
async fn renew(cluster: Arc<Cluster>, registry: Arc<Registry>) {
    let Some(interval) = cluster.renew_interval() else { return };
    let _vital = Vital("the renewal of the lease");
    let mut nodes = cluster.subscribe(Notice::Nodes);
    loop {
        let lose = || {
            tracing::warn!("the lease has run out: all matches are given up");
            registry.lose_all();
        };
        let working = work::LEASE.works();
        if let Err(error) = cluster.renew(lose).await {
            tracing::warn!(%error, "the lease could not be renewed");
        }
        drop(working);
        told(&mut nodes, interval.min(LOOK_INTERVAL)).await;
    }
}

/// Does what follows from sessions that end on other nodes.
async fn follow_sessions(cluster: Arc<Cluster>, registry: Arc<Registry>, users: Arc<Users>) {
    if cluster.node().is_none() {
        return;
    }
    let _vital = Vital("the look at sessions that ended");
    let mut revoked = cluster.subscribe(Notice::Revoked);
    loop {
        match cluster.ended_sessions().await {
            Ok(ended) => {
                let ended = users.refuse_ended(ended);
                let ids: Vec<_> = ended.iter().map(|session| session.id).collect();
                registry.close_sessions(&ids);
                let gone: HashSet<_> = ended.iter().filter_map(|one| one.deleted_user).collect();
                if !gone.is_empty() {
                    tokio::spawn(forget_users(Arc::clone(&registry), gone));
                }
            }
            Err(error) => tracing::warn!(%error, "sessions that ended elsewhere are not known"),
        }
        told(&mut revoked, LOOK_INTERVAL).await;
    }
}

/// Gives up the seats here of users whose accounts are gone, and forgets their names.
async fn forget_users(registry: Arc<Registry>, users: HashSet<UserId>) {
    for user in users {
        if let Err(error) = registry.leave_all(user).await {
            tracing::warn!(%error, "a deleted user's seats are given up by the grace period");
        }
        registry.forget_user(user);
    }
}

/// Waits for a notice, `at_most` so long: it may be lost.
async fn told(subscription: &mut Subscription, at_most: Duration) {
    tokio::time::sleep(NOTICE_PAUSE).await;
    // Late: it is time to look anyway.
    let _ = timeout(at_most, subscription.changed()).await;
}

/// Where other nodes reach this one. Warns where that is a place that they can't.
fn advertised(config: &Config, public_at: SocketAddr) -> String {
    let Database::Postgres(settings, _) = &config.database else { return public_at.to_string() };
    let seen = settings.url.seen_from();
    let address = config.advertise.clone().unwrap_or_else(|| {
        let everywhere = public_at.ip().is_unspecified();
        let ip = seen.filter(|_| everywhere).unwrap_or(public_at.ip());
        SocketAddr::new(ip, public_at.port()).to_string()
    });
    let here = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if here && !seen.is_some_and(|ip| ip.is_loopback()) {
        tracing::warn!(
            address,
            "other nodes can't reach this one there: set GAMESERVER_LISTEN or GAMESERVER_ADVERTISE"
        );
    }
    address
}
