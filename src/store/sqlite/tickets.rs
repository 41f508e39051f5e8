//! Tickets of the matchmaker, in SQL. Nodes share no file, so all claims are this process's.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use super::matches::word;
use crate::ids::{MatchId, NodeId, TicketId, Timestamp, UserId};
use crate::ratings::Rating;
use crate::store::{NewTicket, Party, StoreError, TicketRecord};

impl Sqlite {
    pub(in crate::store) async fn add_ticket(
        &self,
        ticket: TicketRecord,
        most: u32,
    ) -> Result<NewTicket, StoreError> {
        self.write(move |db| {
            let (user, game) = (ticket.user.0, &ticket.game);
            let condition = "tickets.user_id = ? AND tickets.game = ? AND state = 'searching'";
            if let Some(searching) = select(db, condition, params![user, game])? {
                return Ok(NewTicket::Searching(searching));
            }
            let sql = "INSERT INTO tickets (id, game, options, players, party_code, party_size,
                 user_id, state, expires_at) SELECT ?, ?, ?, ?, ?, ?, ?, 'searching', ?
                 WHERE (SELECT count(*) FROM tickets WHERE state = 'searching') < ?";
            let added = db.prepare_cached(sql)?.execute(params![
                ticket.id.0,
                game,
                ticket.options,
                ticket.players,
                ticket.party.as_ref().map(|party| &party.code),
                ticket.party.as_ref().map(|party| party.size),
                user,
                ticket.expires_at.0,
                most
            ])?;
            Ok(if added == 1 { NewTicket::Added } else { NewTicket::Full })
        })
        .await
    }

    pub(in crate::store) async fn ticket(
        &self,
        id: TicketId,
    ) -> Result<Option<TicketRecord>, StoreError> {
        self.read(move |db| select(db, "tickets.id = ?", [id.0])).await
    }

    pub(in crate::store) async fn cancel_ticket(
        &self,
        id: TicketId,
        user: UserId,
    ) -> Result<bool, StoreError> {
        self.write(move |db| {
            let sql = "UPDATE tickets SET state = 'cancelled' WHERE id = ? AND user_id = ?
                 AND state = 'searching' AND match_id IS NULL";
            Ok(db.prepare_cached(sql)?.execute([id.0, user.0])? == 1)
        })
        .await
    }

    pub(in crate::store) async fn searching_tickets(
        &self,
        limit: u32,
    ) -> Result<Vec<TicketRecord>, StoreError> {
        self.read(move |db| {
            let sql = select_sql("state = 'searching' ORDER BY tickets.id LIMIT ?");
            let mut statement = db.prepare_cached(&sql)?;
            let tickets = statement.query_map([limit], read_ticket)?;
            Ok(tickets.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub(in crate::store) async fn claim_tickets(
        &self,
        groups: Vec<(MatchId, Vec<TicketId>)>,
        _: Option<NodeId>,
    ) -> Result<Vec<MatchId>, StoreError> {
        self.write(move |db| {
            let free = "SELECT 1 FROM tickets
                 WHERE id = ? AND state = 'searching' AND match_id IS NULL";
            let (mut free, mut claimed) = (db.prepare_cached(free)?, Vec::new());
            let mut claim = db.prepare_cached("UPDATE tickets SET match_id = ? WHERE id = ?")?;
            'groups: for (id, tickets) in groups {
                for ticket in &tickets {
                    if !free.exists([ticket.0])? {
                        continue 'groups;
                    }
                }
                for ticket in tickets {
                    claim.execute([id.0, ticket.0])?;
                }
                claimed.push(id);
            }
            Ok(claimed)
        })
        .await
    }

    pub(in crate::store) async fn settle_tickets(
        &self,
        _: Option<NodeId>,
    ) -> Result<Vec<TicketId>, StoreError> {
        self.write(|db| {
            let made = "UPDATE tickets SET state = 'matched' WHERE state = 'searching'
                 AND match_id IN (SELECT id FROM matches) RETURNING id";
            let not_made = "UPDATE tickets SET match_id = NULL WHERE state = 'searching'
                 AND match_id IS NOT NULL RETURNING id";
            let mut settled = ids(db, made, [])?;
            settled.append(&mut ids(db, not_made, [])?);
            Ok(settled)
        })
        .await
    }

    pub(in crate::store) async fn expire_tickets(
        &self,
        now: Timestamp,
    ) -> Result<Vec<TicketId>, StoreError> {
        self.write(move |db| {
            let sql = "UPDATE tickets SET state = 'expired' WHERE state = 'searching'
                 AND match_id IS NULL AND expires_at <= ? RETURNING id";
            ids(db, sql, [now.0])
        })
        .await
    }

    pub(in crate::store) async fn forget_tickets(
        &self,
        before: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |db| {
            let sql = "DELETE FROM tickets WHERE expires_at < ? AND state <> 'searching'";
            db.prepare_cached(sql)?.execute([before.0])?;
            Ok(())
        })
        .await
    }
}

fn select_sql(condition: &str) -> String {
    format!(
        "SELECT tickets.id, tickets.game, options, players, tickets.user_id, display_name, state,
         match_id, expires_at, party_code, party_size, rating, deviation, volatility
         FROM tickets JOIN users ON users.id = tickets.user_id
         LEFT JOIN ratings ON ratings.game = tickets.game AND ratings.user_id = tickets.user_id
         WHERE {condition}"
    )
}

fn select(
    db: &Connection,
    condition: &str,
    arguments: impl rusqlite::Params,
) -> Result<Option<TicketRecord>, StoreError> {
    let mut statement = db.prepare_cached(&select_sql(condition))?;
    Ok(statement.query_row(arguments, read_ticket).optional()?)
}

/// Runs a change, and gives the tickets that it returns.
fn ids(
    db: &Connection,
    sql: &str,
    arguments: impl rusqlite::Params,
) -> Result<Vec<TicketId>, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let ids = statement.query_map(arguments, |row| row.get(0).map(TicketId))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

fn read_ticket(row: &Row) -> rusqlite::Result<TicketRecord> {
    let party: Option<String> = row.get(9)?;
    let points: Option<f64> = row.get(11)?;
    let rating = points.map(|points| {
        let (deviation, volatility) = (row.get(12)?, row.get(13)?);
        Ok::<_, rusqlite::Error>(Rating { points, deviation, volatility })
    });
    let rating = rating.transpose()?;
    Ok(TicketRecord {
        id: TicketId(row.get(0)?),
        game: row.get(1)?,
        options: row.get(2)?,
        players: row.get(3)?,
        party: party
            .map(|code| Ok::<_, rusqlite::Error>(Party { code, size: row.get(10)? }))
            .transpose()?,
        user: UserId(row.get(4)?),
        display_name: row.get(5)?,
        rating: rating.unwrap_or_default(),
        state: word(row, 6)?,
        r#match: row.get::<_, Option<_>>(7)?.map(MatchId),
        expires_at: Timestamp(row.get(8)?),
    })
}
