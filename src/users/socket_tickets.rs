//! Tickets for browsers, which can't set a header on a WebSocket: one stands for an access token,
//! once, for half a minute. An address is logged in many places; a ticket in it is worth nothing
//! by then.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::secrets::digest;
use crate::auth::{Claims, Secret};

/// How long a ticket is good.
pub const TICKET_SECONDS: u64 = 30;
/// Tickets that are not used yet; more are refused.
const TICKETS_MAX: usize = 65_536;
/// The same for one session.
const SESSION_TICKETS_MAX: usize = 16;

/// The tickets of this node.
#[derive(Default)]
pub struct SocketTickets {
    open: Mutex<HashMap<[u8; 32], (Claims, Instant)>>,
}

impl SocketTickets {
    /// A new one; `None` if there are too many.
    pub fn issue(&self, claims: Claims) -> Option<Secret> {
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, until)| *until > now);
        let own = open.values().filter(|(other, _)| other.session == claims.session).count();
        if own >= SESSION_TICKETS_MAX || open.len() >= TICKETS_MAX {
            return None;
        }
        let ticket = Secret::random();
        open.insert(ticket.digest(), (claims, now + Duration::from_secs(TICKET_SECONDS)));
        Some(ticket)
    }

    /// Whom a ticket speaks for; it is used up.
    pub fn redeem(&self, ticket: &str) -> Option<Claims> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (claims, until) = open.remove(&digest(ticket))?;
        (until > Instant::now()).then_some(claims)
    }
}
