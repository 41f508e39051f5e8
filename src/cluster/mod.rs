//! Who plays which match: leases, epochs, and where the owner is.
//!
//! Every node holds a lease in the store, a row that it renews. A match belongs to one node and
//! epoch; whoever takes it over raises the epoch, and each write to its log names the writer's own
//! and fails in the same statement if it is no longer that. So a node that was frozen and comes back
//! can write nothing. A lease that has run out is never renewed: the node gives up all its matches and
//! begins anew under another id, so nobody can be an owner again without knowing of it. What is told
//! without being written (`relay`, chat) is told only while the lease holds by this node's own clock,
//! which the store's view of it outlives.
//!
//! What nodes tell each other ([`Notice`]) only makes them look sooner than they would by themselves.
//!
//! Without PostgreSQL a node is alone: all matches are its own.

pub mod forward;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::auth::secrets::digest;
use crate::ids::{MatchId, NodeId};
use crate::platform;
use crate::store::postgres::{Notice, Notices, Postgres, Subscription};
use crate::store::{Claim, EndedSession, NodeRecord, Store, StoreError};
use crate::telemetry::figures::{LEASE_RENEWALS, Renewal};
use crate::tls::Tls;

/// A lease is renewed so many times before it would expire.
const RENEWALS: u32 = 4;
/// So much earlier than the store a node takes its lease for expired.
const MARGIN: Duration = Duration::from_millis(250);
/// A node that lives is seen to renew its lease within this time: once and a half as long as any takes
/// to look after it.
const OBSERVED: Duration = Duration::from_millis(750);
/// So often it is looked at: a renewal that a node sent off before it was killed may come later, but no
/// second one.
const OBSERVATIONS: u32 = 2;
/// After so long without a look at what ended on other nodes, everything is looked at.
const ENDED_GAP: Duration = Duration::from_secs(5);

/// Why a node can't be one of the others.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Whoever is passed on there could reach either.
    #[error(
        "another node that lives is at {0}, too; each needs an address of its own, where the \
             others reach it"
    )]
    AddressTaken(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// This node among the others.
pub struct Cluster {
    /// Those of this node who wait for what is told.
    notices: Arc<Notices>,
    member: Option<Member>,
}

struct Member {
    store: Arc<Store>,
    /// This node under its present id.
    node: RwLock<NodeRecord>,
    /// What shows its certificate.
    tls: Option<Arc<Tls>>,
    lease: Duration,
    /// Until when the lease holds, in milliseconds of [`platform::wakeful_time`].
    valid_until: AtomicU64,
    /// When sessions that ended were last looked at, in milliseconds.
    looked_at: AtomicU64,
    /// All nodes that hold a lease, as of the last renewal.
    alive: watch::Sender<HashSet<NodeId>>,
}

impl Cluster {
    /// The only node there is.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self { notices: Arc::default(), member: None })
    }

    /// A node that others reach at `address`, through `tls` if there is one; alone if the store is not one that nodes share.
    pub async fn join(
        store: Arc<Store>,
        address: String,
        tls: Option<Arc<Tls>>,
        lease: Duration,
    ) -> Result<Arc<Self>, JoinError> {
        let Store::Postgres(postgres) = &*store else { return Ok(Self::alone()) };
        let notices = Arc::clone(postgres.notices());
        let member = Some(Member {
            store,
            node: RwLock::new(NodeRecord { id: NodeId::new(), address, certificate: None }),
            tls,
            lease,
            valid_until: AtomicU64::new(0),
            looked_at: AtomicU64::new(0),
            alive: watch::Sender::default(),
        });
        let cluster = Self { notices, member };
        if let Some((member, store)) = cluster.parts() {
            member.follow_predecessors(store).await?;
            member.begin(store).await?;
        }
        Ok(Arc::new(cluster))
    }

    /// This node; `None` if it is alone.
    pub fn node(&self) -> Option<NodeId> {
        self.member.as_ref().map(|member| member.node().id)
    }

    /// How often [`Self::renew`] is to be called; `None` if there is nothing to renew.
    pub fn renew_interval(&self) -> Option<Duration> {
        self.member.as_ref().map(|member| member.lease / RENEWALS)
    }

    /// Whether this node may tell anybody anything that is not in the store.
    pub fn holds_lease(&self) -> bool {
        cfg!(feature = "unfenced")
            || self.member.as_ref().is_none_or(|member| now() < member.valid_until())
    }

    /// Renews the lease. If it had run out, `give_up` is called to give up all matches, and the node
    /// begins anew.
    pub async fn renew(&self, give_up: impl FnOnce()) -> Result<(), StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(()) };
        let (node, began) = (member.node(), now());
        let failed = |_: &StoreError| LEASE_RENEWALS.of(Renewal::Failed).increment();
        let alive = store.renew_node(&node, member.lease).await.inspect_err(failed)?;
        if !alive.is_empty() {
            member.hold_from(began);
            member.know(&node, &alive);
            LEASE_RENEWALS.of(Renewal::Renewed).increment();
            return Ok(());
        }
        LEASE_RENEWALS.of(Renewal::Lost).increment();
        member.valid_until.store(0, Ordering::Release);
        if !cfg!(feature = "unfenced") {
            give_up();
        }
        member.node.write().unwrap_or_else(PoisonError::into_inner).id = NodeId::new();
        member.begin(store).await
    }

    /// Waits for what any node tells, from now on. Notices can be lost: whoever waits also looks by
    /// itself every now and then. They come too when some may have been lost.
    pub fn subscribe(&self, notice: Notice) -> Subscription {
        self.notices.subscribe(notice)
    }

    /// Tells this node alone. Others are told by the statement that changes the store.
    pub fn tell(&self, notice: &Notice) {
        self.notices.tell(notice);
    }

    /// The sessions that ended on any node since this was last asked, and more.
    pub async fn ended_sessions(&self) -> Result<Vec<EndedSession>, StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(Vec::new()) };
        let now = now();
        let gap = Duration::from_millis(now - member.looked_at.load(Ordering::Acquire));
        let ended = store.ended_sessions(gap > ENDED_GAP).await?;
        member.looked_at.store(now, Ordering::Release);
        Ok(ended)
    }

    /// Nodes that hold a lease, as of the last look; 1 if this one is alone.
    pub fn nodes_alive(&self) -> usize {
        self.member.as_ref().map_or(1, |member| member.alive.borrow().len())
    }

    /// Comes when a node is seen to be gone.
    pub async fn gone(&self, node: NodeId) {
        let Some(member) = &self.member else { return };
        // It may have come after the last look: first it has to be seen.
        let mut alive = member.alive.subscribe();
        let seen = alive.wait_for(|alive| alive.contains(&node)).await.is_ok();
        if seen {
            drop(alive.wait_for(|alive| !alive.contains(&node)).await);
        }
    }

    /// Takes a match for this node, unless another has it.
    pub async fn claim(&self, id: MatchId) -> Result<Claim, StoreError> {
        match self.parts() {
            Some((member, store)) => store.claim(id, member.node().id).await,
            None => Ok(Claim::Mine(0)),
        }
    }

    /// The other node that plays a match now, if one does.
    pub async fn owner_elsewhere(&self, id: MatchId) -> Result<Option<NodeRecord>, StoreError> {
        match self.parts() {
            Some((member, store)) => store.owner(id, member.node().id).await,
            None => Ok(None),
        }
    }

    /// The other node that brings strangers together in `game`, if it is not this one: the same for
    /// all nodes, by rendezvous hashing (Thaler and Ravishankar, 1998) over those in the store.
    pub async fn home_elsewhere(&self, game: &str) -> Result<Option<NodeRecord>, StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(None) };
        // A hash that all versions of the server agree on.
        let weight = |node: &NodeRecord| digest(&format!("{} {game}", node.id));
        let home = store.nodes().await?.into_iter().max_by_key(weight);
        Ok(home.filter(|home| home.id != member.node().id))
    }

    /// Gives up the lease and all matches: others may take them at once.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let Some((member, store)) = self.parts() else { return Ok(()) };
        member.valid_until.store(0, Ordering::Release);
        store.remove_node(member.node().id).await
    }

    fn parts(&self) -> Option<(&Member, &Postgres)> {
        let member = self.member.as_ref()?;
        match &*member.store {
            Store::Postgres(store) => Some((member, store)),
            Store::Sqlite(_) => None,
        }
    }
}

impl Member {
    fn node(&self) -> NodeRecord {
        let known = self.node.read().unwrap_or_else(PoisonError::into_inner).clone();
        // It may be another than at the last look.
        NodeRecord { certificate: self.tls.as_ref().map(|tls| tls.fingerprint()), ..known }
    }

    /// Ends the leases of those who were at this address before, so that after a crash nobody waits for
    /// them. One that is still renewed is not theirs.
    async fn follow_predecessors(&self, store: &Postgres) -> Result<(), JoinError> {
        let address = self.node().address;
        for _ in 0..OBSERVATIONS {
            let Some(last) = store.last_lease_at(&address).await? else { return Ok(()) };
            sleep(OBSERVED).await;
            if store.end_leases_at(&address, &last).await? {
                return Ok(());
            }
        }
        Err(JoinError::AddressTaken(address))
    }

    /// These hold a lease now, this `node` among them.
    fn know(&self, node: &NodeRecord, alive: &[NodeRecord]) {
        let ids = alive.iter().map(|node| node.id).collect();
        let changed = self.alive.send_if_modified(|known| {
            let changed = *known != ids;
            *known = ids;
            changed
        });
        // Such may have started at the same moment.
        let twin = alive.iter().find(|one| one.address == node.address && one.id != node.id);
        if let (true, Some(twin)) = (changed, twin) {
            let error = JoinError::AddressTaken(twin.address.clone());
            tracing::error!(%error, "set GAMESERVER_ADVERTISE");
        }
    }

    async fn begin(&self, store: &Postgres) -> Result<(), StoreError> {
        let began = now();
        let node = self.node();
        store.add_node(&node, self.lease).await?;
        // The others are known with the first renewal.
        self.alive.send_modify(|alive| {
            alive.insert(node.id);
        });
        self.hold_from(began);
        Ok(())
    }

    /// The lease holds from a moment before the store was asked for it.
    fn hold_from(&self, began: u64) {
        let valid = self.lease.saturating_sub(MARGIN).as_millis();
        let until = began + u64::try_from(valid).unwrap_or(0);
        self.valid_until.store(until, Ordering::Release);
    }

    fn valid_until(&self) -> u64 {
        self.valid_until.load(Ordering::Acquire)
    }
}

/// Milliseconds of the clock that leases are held by.
fn now() -> u64 {
    u64::try_from(platform::wakeful_time().as_millis()).unwrap_or(u64::MAX)
}
