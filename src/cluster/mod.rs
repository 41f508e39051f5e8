//! Who plays which match: leases, epochs, and where the owner is.
//!
//! Every node holds a lease in the store, a row that it renews. A match belongs to one node and
//! epoch; whoever takes it over raises the epoch, and each write to its log names the writer's own
//! and fails in the same statement if it is no longer that. So a node that was frozen and comes back
//! can write nothing. What is told without being written (`relay`, chat) is told only while the lease
//! holds by this node's own clock, which the store's view of it outlives.
//!
//! Without PostgreSQL a node is alone: all matches are its own.

pub mod forward;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::ids::{MatchId, NodeId, SessionId, Timestamp};
use crate::store::postgres::Postgres;
use crate::store::{Claim, NodeRecord, Store, StoreError};

/// A lease is renewed so many times before it would expire.
const RENEWALS: u32 = 4;
/// So much earlier than the store a node takes its lease for expired.
const MARGIN: Duration = Duration::from_millis(250);

/// This node among the others.
pub struct Cluster(Option<Member>);

struct Member {
    store: Arc<Store>,
    node: NodeRecord,
    lease: Duration,
    /// Zero of `valid_until`.
    start: Instant,
    /// Until when the lease holds, in milliseconds since `start`.
    valid_until: AtomicU64,
}

/// What a renewal of the lease has found.
#[derive(Debug, Default)]
pub struct Renewal {
    /// Where the lease had expired in between: the matches that are still this node's, and their
    /// epochs. Others may have been taken.
    pub still_held: Option<HashSet<(MatchId, u64)>>,
    /// Sessions that ended on other nodes.
    pub revoked: Vec<(SessionId, Timestamp)>,
}

impl Cluster {
    /// The only node there is.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self(None))
    }

    /// A node that others reach at `address`; alone if the store is not one that nodes share.
    pub async fn join(
        store: Arc<Store>,
        address: String,
        lease: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        if let Store::Sqlite(_) = *store {
            return Ok(Self::alone());
        }
        let cluster = Self(Some(Member {
            store,
            node: NodeRecord { id: NodeId::new(), address },
            lease,
            start: Instant::now(),
            valid_until: AtomicU64::new(0),
        }));
        if let Some((member, store)) = cluster.parts() {
            // After a crash it need not wait for its own old lease.
            store.remove_predecessors(&member.node).await?;
        }
        cluster.renew().await?;
        Ok(Arc::new(cluster))
    }

    /// This node; `None` if it is alone.
    pub fn node(&self) -> Option<NodeId> {
        self.0.as_ref().map(|member| member.node.id)
    }

    /// How often [`Self::renew`] is to be called; `None` if there is nothing to renew.
    pub fn renew_interval(&self) -> Option<Duration> {
        self.0.as_ref().map(|member| member.lease / RENEWALS)
    }

    /// Whether this node may tell anybody anything that is not in the store.
    pub fn holds_lease(&self) -> bool {
        self.0.as_ref().is_none_or(|member| member.now() < member.valid_until())
    }

    /// Renews the lease, and looks at what happened on other nodes.
    pub async fn renew(&self) -> Result<Renewal, StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(Renewal::default()) };
        let had_expired = !self.holds_lease() && member.valid_until() > 0;
        let began = member.now();
        store.renew_node(&member.node, member.lease).await?;
        let mut still_held = None;
        if had_expired {
            still_held = Some(store.held(member.node.id).await?.into_iter().collect());
        }
        let valid = member.lease.saturating_sub(MARGIN).as_millis();
        let until = began + u64::try_from(valid).unwrap_or(0);
        member.valid_until.store(until, Ordering::Release);
        let revoked = store.recent_revocations().await?;
        Ok(Renewal { still_held, revoked })
    }

    /// Takes a match for this node, unless another has it.
    pub async fn claim(&self, id: MatchId) -> Result<Claim, StoreError> {
        match self.parts() {
            Some((member, store)) => store.claim(id, member.node.id).await,
            None => Ok(Claim::Mine(0)),
        }
    }

    /// The other node that plays a match now, if one does.
    pub async fn owner_elsewhere(&self, id: MatchId) -> Result<Option<NodeRecord>, StoreError> {
        match self.parts() {
            Some((member, store)) => store.owner(id, member.node.id).await,
            None => Ok(None),
        }
    }

    /// The other node that brings strangers together in `game`, if it is not this one: the same for
    /// all nodes, by rendezvous hashing (Thaler and Ravishankar, 1998) over those in the store.
    pub async fn home_elsewhere(&self, game: &str) -> Result<Option<NodeRecord>, StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(None) };
        let weight = |node: &NodeRecord| {
            let mut hasher = DefaultHasher::new();
            (node.id, game).hash(&mut hasher);
            hasher.finish()
        };
        let home = store.nodes().await?.into_iter().max_by_key(weight);
        Ok(home.filter(|home| home.id != member.node.id))
    }

    /// Gives up the lease and all matches: others may take them at once.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(()) };
        member.valid_until.store(0, Ordering::Release);
        store.remove_node(member.node.id).await
    }

    fn parts(&self) -> Option<(&Member, &Postgres)> {
        let member = self.0.as_ref()?;
        match &*member.store {
            Store::Postgres(store) => Some((member, store)),
            Store::Sqlite(_) => None,
        }
    }
}

impl Member {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn valid_until(&self) -> u64 {
        self.valid_until.load(Ordering::Acquire)
    }
}
