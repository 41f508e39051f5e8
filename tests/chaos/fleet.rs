//! The nodes and their database, and all that can be done to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::harness::Server;
use crate::postgres::Cluster;
use crate::proxy::Proxy;

/// How long a node's lease holds, in seconds.
pub const LEASE_SECONDS: u64 = 2;

/// Nodes over a PostgreSQL of their own.
pub struct Fleet {
    // Nodes end before what they stand on.
    pub nodes: Vec<Node>,
    pub cluster: Cluster,
    directory: Directory,
}

/// A node and what can be cut.
pub struct Node {
    pub server: Server,
    /// Between it and the database.
    pub database: Proxy,
    /// Between its peers and it.
    pub peers: Proxy,
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
    /// Starts all.
    pub fn start(count: usize) -> Self {
        let cluster = Cluster::start();
        let nodes: Vec<Node> = (0..count).map(|_| Node::start(&cluster)).collect();
        let fleet = Self { nodes, cluster, directory: Directory::default() };
        fleet.announce();
        fleet
    }

    /// Where bots look.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Starts a node again that has ended.
    pub fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.server.restart();
        node.peers.aim(node.server.public);
        self.announce();
    }

    fn announce(&self) {
        let addresses = self.nodes.iter().map(|node| node.server.public).collect();
        *self.directory.0.lock().unwrap() = addresses;
    }
}

impl Node {
    fn start(cluster: &Cluster) -> Self {
        let url = cluster.url();
        let address = url.split('@').nth(1).unwrap().split('/').next().unwrap();
        let database = Proxy::start(Some(address.parse().unwrap()));
        let peers = Proxy::start(None);
        let server = Server::with(&[
            ("DATABASE_URL", &url.replace(address, &database.address.to_string())),
            ("ADVERTISE", &peers.address.to_string()),
            ("LEASE_SECONDS", &LEASE_SECONDS.to_string()),
            // Nobody signs in again in the middle of a run.
            ("ACCESS_TOKEN_SECONDS", "86400"),
            ("COMMANDS_PER_SECOND", "10000"),
            ("RELAY_COMMANDS_PER_SECOND", "10000"),
        ]);
        peers.aim(server.public);
        Self { server, database, peers }
    }
}
