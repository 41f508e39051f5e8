//! How many moves the durable log commits, beside what `pgbench` inserts one by one on the same server.
//!
//! ```text
//! cargo bench --bench commits
//! ```
//!
//! Moves go through the real engine in this process, without sockets: each match has one move under
//! way at a time, and the next follows the `ack`. Stores are a SQLite file and a PostgreSQL server of
//! its own with `fsync`, both in the temporary directory (`TMPDIR`: take care that it is a disk).
//! At last it says how long it takes to rebuild a match of as many events as there can be.

#[allow(dead_code, reason = "tests need more of it")]
#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gameserver::cluster::Cluster;
use gameserver::games::Catalog;
use gameserver::ids::{MatchId, SessionId, Timestamp, UserId};
use gameserver::matches::{Attachment, Caller, NewMatch, Outbox, Registry};
use gameserver::protocol::{Codec, Frame};
use gameserver::store::postgres::{Migrate, Postgres, PostgresSettings, migrate};
use gameserver::store::sqlite::Sqlite;
use gameserver::store::{Store, UserRecord};
use serde_json::value::RawValue;

/// Matches that are played at once.
const MATCHES: &[usize] = &[1, 8, 64, 256, 1000];
/// Clients of `pgbench`: one, and about as many as give its best.
const PGBENCH_CLIENTS: &[usize] = &[1, 64];
/// How long each is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// Before that.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longer than the run: nobody renews it.
const LEASE: Duration = Duration::from_secs(3600);
/// More events than a match can have.
const EVENTS: u64 = 20_000;

/// A player of a match: what is sent to it, and the id of its last command.
struct Player {
    attachment: Attachment,
    outbox: Arc<Outbox>,
    last_id: u64,
}

/// A match of `pairs` in which two cards that differ are turned up and back again, on and on.
struct Table {
    id: MatchId,
    players: [Player; 2],
    places: [u8; 2],
}

impl Player {
    /// Turns a card up; gives what was told until the `ack`, which comes when it is committed, or
    /// `None` if the match takes no more.
    async fn flip(&mut self, place: u8) -> Option<String> {
        self.last_id += 1;
        let command = RawValue::from_string(format!("{{\"flip\":{place}}}")).unwrap();
        self.attachment.command(self.last_id, &command);
        let mut told = String::new();
        loop {
            let mut frames: VecDeque<Arc<Frame>> = VecDeque::new();
            let closed = poll_fn(|cx| self.outbox.poll_take(cx, &mut frames)).await;
            assert_eq!(closed, None);
            for frame in frames {
                told.push_str(&String::from_utf8_lossy(frame.bytes(Codec::Json)));
            }
            if told.contains("\"type\":\"error\"") {
                return None;
            }
            if told.contains(&format!("\"type\":\"ack\",\"id\":{},", self.last_id)) {
                return Some(told);
            }
        }
    }
}

impl Table {
    async fn begin(registry: &Arc<Registry>, users: &[UserRecord; 2]) -> Self {
        let mut new = NewMatch { game: "pairs".into(), ..NewMatch::default() };
        new.options.insert("pairs".into(), 32.into());
        let id = registry.create(new, &users[0]).await.unwrap().id;
        registry.join(id, &users[1], None).await.unwrap();
        let player = async |user: &UserRecord| {
            let caller = Caller { user: user.id, session: SessionId::new() };
            let outbox = Outbox::new(Codec::Json, false, 0);
            let attachment = registry.attach(id, caller, &outbox, None).await.unwrap();
            Player { attachment, outbox, last_id: 0 }
        };
        let players = [player(&users[0]).await, player(&users[1]).await];
        let mut table = Self { id, players, places: [0, 1] };
        loop {
            table.players[0].flip(table.places[0]).await.unwrap();
            let told = table.players[0].flip(table.places[1]).await.unwrap();
            if told.contains("hidden") {
                table.players.swap(0, 1);
                return table;
            }
            // They were alike: the same seat goes on, with others.
            table.places = table.places.map(|place| place + 2);
        }
    }

    /// Plays until `stop`, or the match takes no more, and counts moves.
    async fn play(&mut self, stop: &AtomicBool, moves: &AtomicU64) {
        while !stop.load(Ordering::Relaxed) {
            for place in self.places {
                if self.players[0].flip(place).await.is_none() {
                    return;
                }
                moves.fetch_add(1, Ordering::Relaxed);
            }
            self.players.swap(0, 1);
        }
    }
}

/// Moves a second in so many matches.
async fn moves_per_second(
    registry: &Arc<Registry>,
    users: &[UserRecord; 2],
    matches: usize,
) -> f64 {
    let (stop, moves) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..matches {
        let mut table = Table::begin(registry, users).await;
        let (stop, moves) = (Arc::clone(&stop), Arc::clone(&moves));
        tasks.push(tokio::spawn(async move { table.play(&stop, &moves).await }));
    }
    tokio::time::sleep(WARM_UP).await;
    let (began, before) = (Instant::now(), moves.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURED).await;
    let done = moves.load(Ordering::Relaxed) - before;
    let seconds = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    f64::from(u32::try_from(done).unwrap()) / seconds
}

async fn registry(store: &Arc<Store>) -> Arc<Registry> {
    let cluster = Cluster::join(Arc::clone(store), "bench:1".into(), None, LEASE).await.unwrap();
    Registry::start(
        Arc::clone(store),
        Arc::new(Catalog::new(None, Vec::new())),
        cluster,
        None,
        Duration::from_secs(1),
    )
}

async fn users(store: &Store) -> [UserRecord; 2] {
    let users = ["One", "Two"].map(|name| UserRecord {
        id: UserId::new(),
        username: None,
        display_name: name.into(),
        password_hash: None,
        created_at: Timestamp::now(),
    });
    for user in &users {
        store.create_user(user.clone(), None).await.unwrap();
    }
    users
}

/// Prints a line for each number of matches, beside the best of `pgbench` if there is one.
async fn measure(name: &str, store: Store, pgbench: &[f64]) {
    let store = Arc::new(store);
    let (registry, users) = (registry(&store).await, users(&store).await);
    for matches in MATCHES {
        let rate = moves_per_second(&registry, &users, *matches).await;
        // A turn of two moves makes three events.
        let events = rate * 1.5;
        print!("{name:10} {matches:5} matches {rate:9.0} moves/s {events:9.0} events/s");
        let ratios = PGBENCH_CLIENTS.iter().zip(pgbench);
        for (clients, inserts) in ratios {
            print!("  {:5.1} x pgbench -c {clients}", events / inserts);
        }
        println!();
    }
}

/// Transactions a second, each with one `INSERT` into a table like the log's.
fn pgbench(cluster: &postgres::Cluster, dir: &Path, clients: usize) -> f64 {
    let script = dir.join("insert.sql");
    let insert = "\\set number random(1, 256)\n\
        INSERT INTO pgbench_events (match_id, seq, at, seat, command_id, structural, event)\n\
        VALUES (lpad(to_hex(:number::int), 32, '0')::uuid, nextval('pgbench_seq'), 1800000000000, 0,\n\
        7, false, '{\"flipped\":12,\"card\":7}');\n";
    std::fs::write(&script, insert).unwrap();
    let seconds = MEASURED.as_secs().to_string();
    let output = Command::new("pgbench")
        .args(["-n", "-M", "prepared", "-T", &seconds, "-j", "2", "-c", &clients.to_string(), "-f"])
        .arg(&script)
        .arg(cluster.url())
        .output()
        .expect("pgbench is not installed (Debian: apt-get install postgresql)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = "));
    tps.and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}

/// How long a match takes that has as many events as it can have: from its latest snapshot, and from
/// its whole log.
async fn rebuild(file: &Path) {
    let store = Arc::new(Store::Sqlite(Sqlite::open(file).unwrap()));
    let first = registry(&store).await;
    let mut table = Table::begin(&first, &users(&store).await).await;
    table.play(&AtomicBool::new(false), &AtomicU64::new(0)).await;
    let id = table.id;
    drop((table, first));
    let load = async || {
        let registry = registry(&store).await;
        let began = Instant::now();
        let (_, seq) = registry.load(id).await.unwrap().state();
        assert!(seq >= EVENTS, "{seq}");
        began.elapsed()
    };
    let with = load().await;
    let db = rusqlite::Connection::open(file).unwrap();
    assert_eq!(db.execute("DELETE FROM match_snapshots", []).unwrap(), 1);
    let without = load().await;
    println!("rebuild of {EVENTS} events: {with:.1?} with a snapshot, {without:.1?} without");
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = postgres::Cluster::start_durable();
    let mut client = ::postgres::Client::connect(&cluster.url(), ::postgres::NoTls).unwrap();
    let settings = PostgresSettings {
        url: cluster.url().parse().unwrap(),
        connections_max: 16,
        connection_wait: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
        lock_timeout: Duration::from_secs(10),
        prepare: true,
    };
    migrate(&settings.url, Migrate::Apply).unwrap();
    let like = "CREATE SEQUENCE pgbench_seq;
        CREATE TABLE pgbench_events (LIKE match_events INCLUDING ALL)";
    client.batch_execute(like).unwrap();
    let inserts: Vec<f64> =
        PGBENCH_CLIENTS.iter().map(|clients| pgbench(&cluster, dir.path(), *clients)).collect();
    for (clients, inserts) in PGBENCH_CLIENTS.iter().zip(&inserts) {
        println!("pgbench    {clients:5} clients {inserts:9.0} transactions/s of one INSERT");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::Postgres(Postgres::new(&settings).unwrap());
        measure("postgres", store, &inserts).await;
        measure("sqlite", Store::Sqlite(Sqlite::open(&dir.path().join("a.db")).unwrap()), &[])
            .await;
        rebuild(&dir.path().join("b.db")).await;
    });
}
