//! Tickets of the matchmaker, in SQL. Whoever waits on another node for one to change is told in the
//! statement that changes it.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::matches::word;
use super::notices::CHANNEL;
use super::{Param, Postgres};
use crate::ids::{MatchId, NodeId, TicketId, Timestamp, UserId};
use crate::ratings::Rating;
use crate::store::{NewTicket, Party, StoreError, TicketRecord};

const TICKET: &str =
    "SELECT tickets.id, tickets.game, options, players, tickets.user_id, display_name,
    state, match_id, expires_at, party_code, party_size, rating, deviation, volatility
    FROM tickets JOIN users ON users.id = tickets.user_id
    LEFT JOIN ratings ON ratings.game = tickets.game AND ratings.user_id = tickets.user_id";

/// Claims groups for a node, each whole or not at all. Locks are taken in the tickets' order, so of
/// two nodes that want the same tickets one waits for the other, and then finds them claimed.
const CLAIM: &str = "WITH wanted AS (
        SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS t (id, match_id)
    ), free AS (
        SELECT id FROM tickets WHERE id IN (SELECT id FROM wanted)
            AND state = 'searching' AND tickets.match_id IS NULL ORDER BY id FOR UPDATE
    ), whole AS (
        SELECT wanted.match_id FROM wanted LEFT JOIN free ON free.id = wanted.id
        GROUP BY wanted.match_id HAVING bool_and(free.id IS NOT NULL)
    ), claimed AS (
        UPDATE tickets SET match_id = wanted.match_id, node_id = $3
        FROM wanted JOIN whole ON whole.match_id = wanted.match_id WHERE tickets.id = wanted.id
    )
    SELECT match_id FROM whole";

/// Ends the leases that have run out of nodes that have claimed tickets, the caller's own among them.
/// Their rows are what a new match needs: none is made any more.
const END_CLAIMANTS: &str = "DELETE FROM nodes WHERE expires_at <= now() AND id IN
    (SELECT node_id FROM tickets WHERE state = 'searching' AND match_id IS NOT NULL)";

/// Looks first and takes locks then, in the tickets' order. A ticket that was claimed again meanwhile
/// has another match, and is left alone.
const SETTLE: &str = "WITH seen AS MATERIALIZED (
        SELECT id, match_id, EXISTS (SELECT FROM matches WHERE matches.id = match_id) AS made
        FROM tickets WHERE state = 'searching' AND match_id IS NOT NULL AND (node_id IS NULL
            OR node_id = $1 OR NOT EXISTS (SELECT FROM nodes WHERE nodes.id = node_id))
    ), claimed AS (
        SELECT tickets.id, made FROM tickets JOIN seen ON seen.id = tickets.id
            AND seen.match_id = tickets.match_id
        WHERE state = 'searching' ORDER BY tickets.id FOR UPDATE OF tickets
    ), changed AS (
        UPDATE tickets SET state = CASE WHEN made THEN 'matched' ELSE state END,
            match_id = CASE WHEN made THEN match_id END, node_id = NULL
        FROM claimed WHERE tickets.id = claimed.id RETURNING tickets.id
    )";

const EXPIRE: &str = "WITH old AS (
        SELECT id FROM tickets WHERE state = 'searching' AND match_id IS NULL AND expires_at <= $1
        ORDER BY id FOR UPDATE
    ), changed AS (
        UPDATE tickets SET state = 'expired' FROM old WHERE tickets.id = old.id RETURNING tickets.id
    )";

impl Postgres {
    pub(in crate::store) async fn add_ticket(
        &self,
        ticket: TicketRecord,
        most: u32,
    ) -> Result<NewTicket, StoreError> {
        let party = ticket.party.as_ref().map(|Party { code, size }| (code, i16::from(*size)));
        let (code, size) = party.unzip();
        let params: [Param; 9] = [
            (&ticket.id.0, Type::UUID),
            (&ticket.game, Type::TEXT),
            (&ticket.options, Type::TEXT),
            (&i16::from(ticket.players), Type::INT2),
            (&ticket.user.0, Type::UUID),
            (&ticket.expires_at.0, Type::INT8),
            (&i64::from(most), Type::INT8),
            (&code, Type::TEXT),
            (&size, Type::INT2),
        ];
        let sql = "INSERT INTO tickets (id, game, options, players, user_id, state, expires_at,
                party_code, party_size) SELECT $1, $2, $3, $4, $5, 'searching', $6, $8, $9
            WHERE (SELECT count(*) FROM tickets WHERE state = 'searching') < $7
            ON CONFLICT (user_id, game) WHERE state = 'searching' DO NOTHING RETURNING true";
        if !self.query(sql, &params).await?.is_empty() {
            return Ok(NewTicket::Added);
        }
        let params: [Param; 2] = [(&ticket.user.0, Type::UUID), (&ticket.game, Type::TEXT)];
        let sql = format!(
            "{TICKET} WHERE tickets.user_id = $1 AND tickets.game = $2 AND state = 'searching'"
        );
        let searching = self.query(&sql, &params).await?.first().map(read_ticket).transpose()?;
        Ok(searching.map_or(NewTicket::Full, NewTicket::Searching))
    }

    pub(in crate::store) async fn ticket(
        &self,
        id: TicketId,
    ) -> Result<Option<TicketRecord>, StoreError> {
        let sql = format!("{TICKET} WHERE tickets.id = $1");
        let rows = self.query(&sql, &[(&id.0, Type::UUID)]).await?;
        rows.first().map(read_ticket).transpose()
    }

    pub(in crate::store) async fn cancel_ticket(
        &self,
        id: TicketId,
        user: UserId,
    ) -> Result<bool, StoreError> {
        let params: [Param; 2] = [(&id.0, Type::UUID), (&user.0, Type::UUID)];
        let sql = "WITH changed AS (
                UPDATE tickets SET state = 'cancelled' WHERE id = $1 AND user_id = $2
                    AND state = 'searching' AND match_id IS NULL RETURNING id
            )";
        Ok(!self.change_tickets(sql, &params).await?.is_empty())
    }

    pub(in crate::store) async fn searching_tickets(
        &self,
        limit: u32,
    ) -> Result<Vec<TicketRecord>, StoreError> {
        let sql = format!("{TICKET} WHERE state = 'searching' ORDER BY tickets.id LIMIT $1");
        let rows = self.query(&sql, &[(&i64::from(limit), Type::INT8)]).await?;
        rows.iter().map(read_ticket).collect()
    }

    pub(in crate::store) async fn claim_tickets(
        &self,
        groups: Vec<(MatchId, Vec<TicketId>)>,
        node: Option<NodeId>,
    ) -> Result<Vec<MatchId>, StoreError> {
        let (mut tickets, mut matches) = (Vec::new(), Vec::new());
        for (id, group) in groups {
            matches.extend(group.iter().map(|_| id.0));
            tickets.extend(group.iter().map(|ticket| ticket.0));
        }
        let node = node.map(|node| node.0);
        let params: [Param; 3] =
            [(&tickets, Type::UUID_ARRAY), (&matches, Type::UUID_ARRAY), (&node, Type::UUID)];
        let rows = self.query(CLAIM, &params).await?;
        Ok(rows.iter().map(|row| MatchId(row.get(0))).collect())
    }

    pub(in crate::store) async fn settle_tickets(
        &self,
        node: Option<NodeId>,
    ) -> Result<Vec<TicketId>, StoreError> {
        let node = node.map_or(Uuid::nil(), |node| node.0);
        // A statement of its own, committed before the next one looks for matches: whatever such a
        // node was about to make is there by then, or never will be.
        self.query(END_CLAIMANTS, &[]).await?;
        self.change_tickets(SETTLE, &[(&node, Type::UUID)]).await
    }

    pub(in crate::store) async fn expire_tickets(
        &self,
        now: Timestamp,
    ) -> Result<Vec<TicketId>, StoreError> {
        self.change_tickets(EXPIRE, &[(&now.0, Type::INT8)]).await
    }

    pub(in crate::store) async fn forget_tickets(
        &self,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = "DELETE FROM tickets WHERE expires_at < $1 AND state <> 'searching'";
        self.query(sql, &[(&before.0, Type::INT8)]).await.map(drop)
    }

    /// Gives the tickets that `with` has in `changed`, and tells all nodes of them.
    async fn change_tickets(
        &self,
        with: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<TicketId>, StoreError> {
        let sql = format!("{with} SELECT id, pg_notify('{CHANNEL}', 'ticket ' || id) FROM changed");
        let rows = self.query(&sql, params).await?;
        Ok(rows.iter().map(|row| TicketId(row.get(0))).collect())
    }
}

fn read_ticket(row: &Row) -> Result<TicketRecord, StoreError> {
    let number = |number: i16| {
        let wrong = |_| StoreError::Corrupt(format!("{number} is no number of players"));
        u8::try_from(number).map_err(wrong)
    };
    let party = row
        .get::<_, Option<String>>(9)
        .map(|code| Ok::<_, StoreError>(Party { code, size: number(row.get(10))? }));
    let rating = row.get::<_, Option<f64>>(11).map(|points| {
        let (deviation, volatility) = (row.get(12), row.get(13));
        Rating { points, deviation, volatility }
    });
    Ok(TicketRecord {
        id: TicketId(row.get(0)),
        game: row.get(1),
        options: row.get(2),
        players: number(row.get(3))?,
        party: party.transpose()?,
        user: UserId(row.get(4)),
        display_name: row.get(5),
        rating: rating.unwrap_or_default(),
        state: word(row.get(6))?,
        r#match: row.get::<_, Option<_>>(7).map(MatchId),
        expires_at: Timestamp(row.get(8)),
    })
}
