//! Brings players together who wait with tickets: on any node, and none is needed for it.
//!
//! A ticket is a row of the store. Each node looks at those that search as soon as one is put there by
//! way of it, and once in a while; [`groups`] says who is to meet. So that each ticket has one match
//! and each match all its players, that takes three steps:
//!
//! 1. Groups are claimed for matches whose ids are chosen now, each whole or not at all. Of two nodes
//!    that want the same ticket one gets it.
//! 2. The matches are made through the durable log as all others, every player seated in one change.
//! 3. Claims are settled: tickets whose match is there are matched, the others search on.
//!
//! For a node that is gone any other does the third step. It ends that node's lease first, without
//! which no match is made, so a match that is not there by then never will be. A node does all three
//! in one task, one round after the other: what it finds claimed by itself at the begin of a round was
//! left over.

mod groups;

pub use groups::form;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::{MatchError, NewMatch, Registry, start};
use crate::cluster::Cluster;
use crate::games::{Mode, PLAYERS};
use crate::ids::{MatchId, NodeId, TicketId, Timestamp, UserId};
use crate::ratings::Rating;
use crate::store::postgres::Notice;
use crate::store::{NewTicket, Party, Store, StoreError, TicketRecord, TicketState, Visibility};
use crate::telemetry::figures::{MATCHMAKING_WAIT, TICKETS_SEARCHING};
use crate::telemetry::work;
use crate::vital::Vital;

/// Tickets that may search at a time, on all nodes; more are refused.
const SEARCHING_MAX: u32 = 20_000;
/// How often a node looks at the tickets that others were given; also how late a ticket may expire.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The least pause after a round, which is as long as the round took: tickets that come meanwhile share
/// the next one, and where many wait the store is asked half of the time at most.
const PAUSE: Duration = Duration::from_millis(10);
/// How often tickets are forgotten that are over.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// How long a ticket can be asked for after its time.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// How often somebody who waits for a ticket looks by himself: a notice may have been lost.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long somebody who cancels a claimed ticket waits for what comes of it.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// Why a ticket is not to be had.
#[derive(Debug, Error)]
pub enum TicketError {
    /// There is none, or it is another's.
    #[error("there is no such ticket")]
    Unknown,
    /// There is no such game, or it does not take an option.
    #[error(transparent)]
    Match(#[from] MatchError),
    /// The user searches in that game already, for something else.
    #[error("ticket {0} searches in this game already, with other options or another party")]
    Searching(TicketId),
    /// More players want to be on one match than it has seats.
    #[error("the match has {0} players")]
    PartyTooLarge(u8),
    /// It is too late to cancel it.
    #[error("the ticket is matched")]
    Matched,
    /// Its match is being made, or too many tickets search.
    #[error("too many search now, or the ticket is being matched")]
    Busy,
    /// The account is gone.
    #[error("the account does not exist any more")]
    UserGone,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where tickets are put, and what becomes of them.
pub struct Matchmaker {
    store: Arc<Store>,
    registry: Arc<Registry>,
    cluster: Arc<Cluster>,
    lifetime: Duration,
    /// A ticket was put here, or a round left something to do.
    awake: Notify,
}

/// What a node knows from one round to the next.
struct Rounds {
    /// The tickets that searched in the last one.
    searching: HashSet<TicketId>,
    tidied: Instant,
    forgot: Instant,
}

impl Matchmaker {
    /// For tickets that search for `lifetime` at most; [`Self::run`] does the work.
    pub fn new(
        store: Arc<Store>,
        registry: Arc<Registry>,
        cluster: Arc<Cluster>,
        lifetime: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { store, registry, cluster, lifetime, awake: Notify::new() })
    }

    /// Puts a ticket of `user`, or gives the one that searches for the same already; whether it is
    /// new comes with it.
    pub async fn post(
        &self,
        user: UserId,
        game: &str,
        options: Map<String, Value>,
        party: Option<Party>,
    ) -> Result<(TicketRecord, bool), TicketError> {
        let (options, players) = self.agree(game, options)?;
        if party.as_ref().is_some_and(|party| party.size > players) {
            return Err(TicketError::PartyTooLarge(players));
        }
        let ticket = TicketRecord {
            id: TicketId::new(),
            game: game.to_owned(),
            options,
            players,
            party,
            user,
            display_name: String::new(),
            rating: Rating::default(),
            state: TicketState::Searching,
            r#match: None,
            expires_at: Timestamp::now().plus(self.lifetime),
        };
        match self.store.add_ticket(ticket.clone(), SEARCHING_MAX).await {
            Ok(NewTicket::Added) => {
                self.awake.notify_one();
                Ok((ticket, true))
            }
            Ok(NewTicket::Searching(old)) => {
                let wish = |ticket: &TicketRecord| {
                    (ticket.options.clone(), ticket.players, ticket.party.clone())
                };
                let same = wish(&old) == wish(&ticket);
                if same { Ok((old, false)) } else { Err(TicketError::Searching(old.id)) }
            }
            Ok(NewTicket::Full) => Err(TicketError::Busy),
            Err(StoreError::Conflict(_)) => Err(TicketError::UserGone),
            Err(error) => Err(error.into()),
        }
    }

    /// The one form of options that agree, and how many players they bring together: `players` is left
    /// out where it is what the game has anyway. A `relay` match needs nobody and has many seats:
    /// whoever does not say how many is brought together with one other.
    fn agree(
        &self,
        game: &str,
        mut options: Map<String, Value>,
    ) -> Result<(String, u8), MatchError> {
        let game_type = self.registry.game_type(game)?;
        let info = game_type.info();
        let named = options.contains_key(PLAYERS);
        let (setup, _) = start(&game_type, options.clone(), 0)?;
        if setup.players == info.default_players {
            options.remove(PLAYERS);
        }
        let any = info.mode == Mode::Relay && !named;
        let players = if any { info.min_players.max(2) } else { setup.players };
        Ok((Value::Object(options).to_string(), players))
    }

    /// A ticket of `user`.
    pub async fn find(&self, id: TicketId, user: UserId) -> Result<TicketRecord, TicketError> {
        let ticket = self.store.ticket(id).await?;
        ticket.filter(|ticket| ticket.user == user).ok_or(TicketError::Unknown)
    }

    /// The same once it no longer searches, or after `patience`.
    pub async fn wait(
        &self,
        id: TicketId,
        user: UserId,
        patience: Duration,
    ) -> Result<TicketRecord, TicketError> {
        let until = Instant::now() + patience;
        let mut told = self.cluster.subscribe(Notice::Ticket(id.0));
        loop {
            let ticket = self.find(id, user).await?;
            let left = until.saturating_duration_since(Instant::now());
            if ticket.state != TicketState::Searching || left.is_zero() {
                return Ok(ticket);
            }
            let _ = timeout(left.min(LOOK_AGAIN), told.changed()).await;
        }
    }

    /// Takes a ticket of `user` back; one that is over stays as it is.
    pub async fn cancel(&self, id: TicketId, user: UserId) -> Result<(), TicketError> {
        let until = Instant::now() + CLAIM_PATIENCE;
        let mut told = self.cluster.subscribe(Notice::Ticket(id.0));
        loop {
            if self.store.cancel_ticket(id, user).await? {
                self.tell(&[id]);
                return Ok(());
            }
            match self.find(id, user).await?.state {
                TicketState::Matched => return Err(TicketError::Matched),
                TicketState::Cancelled | TicketState::Expired => return Ok(()),
                TicketState::Searching if Instant::now() > until => return Err(TicketError::Busy),
                TicketState::Searching => drop(timeout(LOOK_AGAIN, told.changed()).await),
            }
        }
    }

    /// Matches for as long as the server runs.
    pub async fn run(self: Arc<Self>) {
        let _vital = Vital("the matchmaker");
        let now = Instant::now();
        let mut rounds = Rounds { searching: HashSet::new(), tidied: now, forgot: now };
        loop {
            let _ = timeout(LOOK_INTERVAL, self.awake.notified()).await;
            let began = Instant::now();
            let working = work::MATCHMAKER.works();
            if let Err(error) = self.round(&mut rounds).await {
                tracing::warn!(%error, "tickets can't be matched");
            }
            drop(working);
            tokio::time::sleep(began.elapsed().clamp(PAUSE, LOOK_INTERVAL)).await;
        }
    }

    async fn round(&self, rounds: &mut Rounds) -> Result<(), StoreError> {
        // In this order: see `Cluster::renew`. A node that begins anew has another id by then.
        if !self.cluster.holds_lease() || self.registry.draining.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (node, now) = (self.cluster.node(), Timestamp::now());
        let mut searching = self.store.searching_tickets(SEARCHING_MAX).await?;
        TICKETS_SEARCHING.set_count(searching.len());
        // Whoever waits here for one of those that search no more may not have been told.
        let ids = searching.iter().map(|ticket| ticket.id).collect();
        let before = std::mem::replace(&mut rounds.searching, ids);
        self.tell(&before.difference(&rounds.searching).copied().collect::<Vec<_>>());
        if rounds.tidied.elapsed() >= LOOK_INTERVAL {
            rounds.tidied = Instant::now();
            self.tidy(&searching, node, now, rounds).await?;
        }
        // What another version of the server plays is that one's to match.
        searching.retain(|ticket| self.registry.game_type(&ticket.game).is_ok());
        let groups = form(&searching, now);
        let groups: Vec<_> = groups.into_iter().map(|group| (MatchId::new(), group)).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let ids = |group: &[&TicketRecord]| group.iter().map(|ticket| ticket.id).collect();
        let claims = groups.iter().map(|(id, group)| (*id, ids(group))).collect();
        let claimed: HashSet<_> =
            self.store.claim_tickets(claims, node).await?.into_iter().collect();
        if claimed.len() < groups.len() {
            // Another node was quicker. Who is left of its groups may meet others.
            self.awake.notify_one();
        }
        let mut mine = groups;
        mine.retain(|(id, _)| claimed.contains(id));
        self.make_all(&mine, node).await;
        if self.registry.draining.load(Ordering::Relaxed) {
            // What was given up may yet be written: others see to it, or the next start.
            return Ok(());
        }
        self.settle(node).await
    }

    /// Makes the matches of claimed groups; gives back once each is committed, or never will be by
    /// this node.
    async fn make_all(&self, groups: &[(MatchId, Vec<&TicketRecord>)], node: Option<NodeId>) {
        let mut under_way = Vec::new();
        for (id, group) in groups {
            match self.make(*id, group, node) {
                Ok(committed) => under_way.push((committed, group)),
                Err(error) => {
                    tracing::warn!(r#match = %id, %error, "a match of tickets could not be made");
                }
            }
        }
        for (committed, group) in under_way {
            // An error: it was given up. Whether it is there, the store knows.
            if committed.await.is_ok() {
                for ticket in group {
                    MATCHMAKING_WAIT.took(Timestamp::now().since(ticket.id.made_at()));
                }
            }
        }
    }

    fn make(
        &self,
        id: MatchId,
        group: &[&TicketRecord],
        node: Option<NodeId>,
    ) -> Result<oneshot::Receiver<()>, MatchError> {
        let Some(first) = group.first() else { return Err(MatchError::Unknown) };
        if self.cluster.node() != node || !self.cluster.holds_lease() {
            return Err(MatchError::Unavailable);
        }
        let options = serde_json::from_str(&first.options)
            .map_err(|error| StoreError::Corrupt(format!("ticket {}: {error}", first.id)))?;
        let new = NewMatch { game: first.game.clone(), visibility: Visibility::Public, options };
        let players: Vec<_> =
            group.iter().map(|ticket| (ticket.user, ticket.display_name.as_str())).collect();
        let (_, committed) =
            self.registry.begin_as(id, node, new, |live| live.seat_all(&players))?;
        Ok(committed)
    }

    /// Sees to tickets that nobody else sees to any more.
    async fn tidy(
        &self,
        searching: &[TicketRecord],
        node: Option<NodeId>,
        now: Timestamp,
        rounds: &mut Rounds,
    ) -> Result<(), StoreError> {
        if searching.iter().any(|ticket| ticket.r#match.is_some()) {
            self.settle(node).await?;
            // Those that search on may meet others.
            self.awake.notify_one();
        }
        if searching.iter().any(|ticket| ticket.expires_at <= now) {
            self.tell(&self.store.expire_tickets(now).await?);
        }
        if rounds.forgot.elapsed() >= FORGET_INTERVAL {
            rounds.forgot = Instant::now();
            self.store.forget_tickets(now.minus(REMEMBERED)).await?;
        }
        Ok(())
    }

    async fn settle(&self, node: Option<NodeId>) -> Result<(), StoreError> {
        self.tell(&self.store.settle_tickets(node).await?);
        Ok(())
    }

    fn tell(&self, tickets: &[TicketId]) {
        for ticket in tickets {
            self.cluster.tell(&Notice::Ticket(ticket.0));
        }
    }
}
