//! The nodes and their database, and all that can be done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::audit;
use crate::check::Write;
use crate::harness::{Server, until};
use crate::plugins::Plugins;
use crate::postgres::Cluster;
use crate::proxy::Proxy;
use crate::ratings::{self, Ratings};
use crate::replay::{self, Stored};

/// How long a node's lease holds, in seconds.
pub const LEASE_SECONDS: u64 = 2;

/// Nodes over a PostgreSQL of their own.
pub struct Fleet {
    // Nodes end before what they stand on.
    pub nodes: Vec<Node>,
    pub cluster: Cluster,
    directory: Directory,
    plugins: Plugins,
}

/// A node and what can be cut.
pub struct Node {
    pub server: Server,
    /// Between it and the database.
    pub database: Proxy,
    /// Between its peers and it.
    pub peers: Proxy,
    /// Of the database, by way of the proxy.
    url: String,
    /// Processes that were this node so far.
    lives: usize,
}

/// What the database has of each match, by its id.
pub struct Kept {
    pub matches: BTreeMap<String, Stored>,
    pub writes: BTreeMap<String, Vec<Write>>,
    pub ratings: Ratings,
}

/// Where players find nodes: some may be gone, as an address that a client knows may be.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<Vec<SocketAddr>>>);

impl Directory {
    /// All addresses, stale ones too.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap().clone()
    }
}

impl Fleet {
    /// Starts all. The last one has no plugins of its own: it has those of matches that it takes over.
    pub fn start(count: usize) -> Self {
        let (cluster, plugins) = (Cluster::start(), Plugins::new());
        let dir = |number| (number + 1 < count).then(|| plugins.dir());
        let nodes: Vec<Node> =
            (0..count).map(|number| Node::start(number, &cluster, dir(number))).collect();
        let fleet = Self { nodes, cluster, directory: Directory::default(), plugins };
        audit::install(&mut fleet.database());
        fleet.announce();
        fleet
    }

    /// Where bots look.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Starts a node again that has ended.
    pub fn restart(&mut self, node: usize) {
        let (number, node) = (node, &mut self.nodes[node]);
        node.lives += 1;
        node.server.set("DATABASE_URL", &named(&node.url, number, node.lives));
        node.server.restart();
        node.peers.aim(node.server.public);
        self.announce();
    }

    /// Puts other builds of plugins in the place of those that are played, and waits until there are
    /// matches of these `games` that began with them.
    pub fn replace_plugins(&mut self, games: &BTreeSet<&str>) {
        let versions = self.plugins.replace();
        for node in &self.nodes[..self.nodes.len() - 1] {
            node.server.signal(Signal::HUP);
        }
        let mut client = self.database();
        let games: Vec<&str> = games.iter().copied().collect();
        let sql = "SELECT count(DISTINCT game) FROM matches
            WHERE game = ANY($1) AND game_version = ANY($2)";
        until("matches begin with the new plugins", || {
            let begun: i64 = client.query_one(sql, &[&games, &versions]).unwrap().get(0);
            (begun == i64::try_from(games.len()).unwrap()).then_some(())
        });
    }

    /// All that the database has.
    pub fn kept(&self) -> Kept {
        let mut client = self.database();
        let (matches, writes) = (replay::read(&mut client), audit::writes(&mut client));
        Kept { matches, writes, ratings: ratings::read(&mut client) }
    }

    /// The database, past all proxies.
    fn database(&self) -> postgres::Client {
        postgres::Client::connect(&self.cluster.url(), postgres::NoTls).unwrap()
    }

    /// The node that plays most matches of turns now, if any does.
    pub fn busiest(&self) -> Option<usize> {
        let sql = "SELECT nodes.address FROM matches JOIN nodes ON nodes.id = node_id
            WHERE state = 'running' AND game <> 'relay'
            GROUP BY nodes.address ORDER BY count(*) DESC LIMIT 1";
        let rows = self.database().query(sql, &[]).unwrap();
        let address: SocketAddr = rows.first()?.get::<_, &str>(0).parse().unwrap();
        self.nodes.iter().position(|node| node.peers.address == address)
    }

    fn announce(&self) {
        let addresses = self.nodes.iter().map(|node| node.server.public).collect();
        *self.directory.0.lock().unwrap() = addresses;
    }
}

impl Node {
    fn start(number: usize, cluster: &Cluster, games: Option<&Path>) -> Self {
        let url = cluster.url();
        let address = url.split('@').nth(1).unwrap().split('/').next().unwrap();
        let database = Proxy::start(Some(address.parse().unwrap()));
        let peers = Proxy::start(None);
        let url = url.replace(address, &database.address.to_string());
        let games = games.map(|dir| ("GAMES_DIR", dir.to_str().unwrap()));
        let common: [(&str, &str); 6] = [
            ("DATABASE_URL", &named(&url, number, 1)),
            ("ADVERTISE", &peers.address.to_string()),
            ("LEASE_SECONDS", &LEASE_SECONDS.to_string()),
            // Nobody signs in again in the middle of a run.
            ("ACCESS_TOKEN_SECONDS", "86400"),
            ("COMMANDS_PER_SECOND", "10000"),
            ("RELAY_COMMANDS_PER_SECOND", "10000"),
        ];
        let server = Server::with(&common.into_iter().chain(games).collect::<Vec<_>>());
        peers.aim(server.public);
        Self { server, database, peers, url, lives: 1 }
    }
}

/// The address that one process uses: the database knows each by a name of its own.
fn named(url: &str, number: usize, life: usize) -> String {
    format!("{url}&application_name=node-{number}-life-{life}")
}
