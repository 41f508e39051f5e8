//! Tickets for browsers, which can't set a header on a WebSocket: one stands for an access token,
//! once, for half a minute. An address is logged in many places; a ticket in it is worth nothing
//! by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::secrets::digest;
use crate::auth::{Claims, Secret};
use crate::store::{Store, StoreError, Ticket};

/// How long a ticket is good.
pub const TICKET_SECONDS: u32 = 30;
/// Tickets that are not used yet; more are refused.
const TICKETS_MAX: usize = 65_536;
/// The same for one session.
const SESSION_TICKETS_MAX: u32 = 16;

/// The tickets of this node; where nodes share a store, all nodes'.
pub struct SocketTickets {
    store: Arc<Store>,
    open: Mutex<HashMap<[u8; 32], (Claims, Instant)>>,
}

impl SocketTickets {
    /// None yet.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, open: Mutex::default() }
    }

    /// A new one; `None` if there are too many.
    pub async fn issue(&self, claims: Claims) -> Result<Option<Secret>, StoreError> {
        let Store::Postgres(store) = &*self.store else { return Ok(self.issue_here(claims)) };
        let ticket = Secret::random();
        let stands_for = Ticket {
            user: claims.user,
            session: claims.session,
            token_expires_at: claims.expires_at.into(),
        };
        let (seconds, most) = (TICKET_SECONDS, SESSION_TICKETS_MAX);
        let kept = store.put_ticket(ticket.digest(), &stands_for, seconds, most).await?;
        Ok(kept.then_some(ticket))
    }

    /// Whom a ticket speaks for; it is used up.
    pub async fn redeem(&self, ticket: &str) -> Result<Option<Claims>, StoreError> {
        let Store::Postgres(store) = &*self.store else { return Ok(self.redeem_here(ticket)) };
        let found = store.take_ticket(digest(ticket)).await?;
        Ok(found.map(|ticket| Claims {
            user: ticket.user,
            session: ticket.session,
            expires_at: ticket.token_expires_at.into(),
        }))
    }

    fn issue_here(&self, claims: Claims) -> Option<Secret> {
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, until)| *until > now);
        let own = open.values().filter(|(other, _)| other.session == claims.session).count();
        if own as u64 >= u64::from(SESSION_TICKETS_MAX) || open.len() >= TICKETS_MAX {
            return None;
        }
        let ticket = Secret::random();
        open.insert(ticket.digest(), (claims, now + Duration::from_secs(TICKET_SECONDS.into())));
        Some(ticket)
    }

    fn redeem_here(&self, ticket: &str) -> Option<Claims> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (claims, until) = open.remove(&digest(ticket))?;
        (until > Instant::now()).then_some(claims)
    }
}
