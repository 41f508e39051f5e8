//! Nodes, and which of them plays which match, in SQL. All times are the database's own.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{CHANNEL, Notice, Param, Postgres};
use crate::ids::{MatchId, NodeId, SessionId, Timestamp, UserId};
use crate::store::{Claim, EndedSession, NodeRecord, StoreError, Ticket};

/// How far back revocations are looked for: more than any transaction takes to commit.
const REVOCATIONS_SECONDS: f64 = 15.0;
/// A renewal that is not answered is given up so early that another can be tried in time.
const TRIES_IN_LEASE: u32 = 3;

impl Postgres {
    /// When the last lease at `address` runs out that holds, as the database writes it; the nodes there
    /// are asked to renew theirs.
    pub async fn last_lease_at(&self, address: &str) -> Result<Option<String>, StoreError> {
        let sql = format!(
            "SELECT max(expires_at)::text, pg_notify('{CHANNEL}', '{}') FROM nodes
            WHERE address = $1 AND expires_at > now()",
            Notice::Nodes
        );
        let rows = self.query(&sql, &[(&address, Type::TEXT)]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Ends the leases at `address` that run out at `last` or before; false if others hold there.
    pub async fn end_leases_at(&self, address: &str, last: &str) -> Result<bool, StoreError> {
        let params: [Param; 2] = [(&address, Type::TEXT), (&last, Type::TEXT)];
        let sql = format!(
            "WITH ended AS (
                DELETE FROM nodes WHERE address = $1 AND expires_at <= $2::timestamptz RETURNING id
            )
            SELECT (SELECT count(pg_notify('{CHANNEL}', '{}')) FROM ended), NOT EXISTS (
                SELECT FROM nodes
                WHERE address = $1 AND expires_at > $2::timestamptz AND expires_at > now()
            )",
            Notice::Nodes
        );
        let rows = self.query(&sql, &params).await?;
        Ok(rows.first().is_some_and(|row| row.get(1)))
    }

    /// Adds a node with a lease.
    pub async fn add_node(&self, node: &NodeRecord, lease: Duration) -> Result<(), StoreError> {
        let certificate = node.certificate.as_ref().map(<[u8; 32]>::as_slice);
        let params: [Param; 4] = [
            (&node.id.0, Type::UUID),
            (&node.address, Type::TEXT),
            (&lease.as_secs_f64(), Type::FLOAT8),
            (&certificate, Type::BYTEA),
        ];
        let sql = format!(
            "WITH added AS (
                INSERT INTO nodes VALUES ($1, $2, now() + make_interval(secs => $3), $4)
                RETURNING id
            )
            SELECT pg_notify('{CHANNEL}', '{}') FROM added",
            Notice::Nodes
        );
        self.dedicated.query(&sql, &params, lease / TRIES_IN_LEASE).await.map(drop)
    }

    /// Renews a lease that holds, and gives all nodes that hold one. None at all if it does not: the node
    /// is none any more, and its id is never used again. Forgets nodes that have been gone for long.
    pub async fn renew_node(
        &self,
        node: &NodeRecord,
        lease: Duration,
    ) -> Result<Vec<NodeRecord>, StoreError> {
        let certificate = node.certificate.as_ref().map(<[u8; 32]>::as_slice);
        let params: [Param; 3] = [
            (&node.id.0, Type::UUID),
            (&lease.as_secs_f64(), Type::FLOAT8),
            (&certificate, Type::BYTEA),
        ];
        let sql = "WITH renewed AS (
                UPDATE nodes SET expires_at = now() + make_interval(secs => $2), certificate = $3
                WHERE id = $1 AND expires_at > now() RETURNING id
            ), forgotten AS (
                DELETE FROM nodes WHERE expires_at < now() - interval '1 hour'
            )
            SELECT id, address, certificate FROM nodes WHERE expires_at > now() AND EXISTS (SELECT FROM renewed)";
        let rows = self.dedicated.query(sql, &params, lease / TRIES_IN_LEASE).await?;
        Ok(rows.iter().map(read_node).collect())
    }

    /// The nodes that hold a lease.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let sql = "SELECT id, address, certificate FROM nodes WHERE expires_at > now() ORDER BY id";
        let rows = self.query(sql, &[]).await?;
        Ok(rows.iter().map(read_node).collect())
    }

    /// Ends a node: others may take its matches at once.
    pub async fn remove_node(&self, id: NodeId) -> Result<(), StoreError> {
        let sql = format!(
            "WITH ended AS (DELETE FROM nodes WHERE id = $1 RETURNING id)
            SELECT pg_notify('{CHANNEL}', '{}') FROM ended",
            Notice::Nodes
        );
        self.query(&sql, &[(&id.0, Type::UUID)]).await.map(drop)
    }

    /// Takes a match for a node, unless another that holds a lease has it.
    ///
    /// An owner whose lease has run out is ended first: deleting its row waits for a renewal that is
    /// under way and looks again after it, so of the two only one happens.
    pub async fn claim(&self, id: MatchId, node: NodeId) -> Result<Claim, StoreError> {
        let params: [Param; 2] = [(&id.0, Type::UUID), (&node.0, Type::UUID)];
        let sql = format!(
            "WITH ended AS (
                DELETE FROM nodes WHERE id = (SELECT node_id FROM matches WHERE id = $1)
                    AND id <> $2 AND expires_at <= now() RETURNING id
            ), taken AS (
                UPDATE matches SET node_id = $2, epoch = epoch + 1
                WHERE id = $1 AND (node_id IS NULL OR node_id = $2
                    OR node_id IN (SELECT id FROM ended)
                    OR NOT EXISTS (SELECT FROM nodes WHERE nodes.id = matches.node_id))
                RETURNING epoch
            ), owner AS (
                SELECT nodes.id, address, certificate FROM matches JOIN nodes ON nodes.id = node_id
                WHERE matches.id = $1 AND node_id <> $2 AND expires_at > now()
            )
            SELECT owner.*, (SELECT epoch FROM taken), EXISTS (SELECT FROM matches WHERE id = $1),
                (SELECT count(pg_notify('{CHANNEL}', '{}')) FROM ended)
            FROM (VALUES (true)) AS always LEFT JOIN owner ON true",
            Notice::Nodes
        );
        let rows = self.query(&sql, &params).await?;
        let Some(row) = rows.first() else { return Ok(Claim::Unknown) };
        if let Some(epoch) = row.get::<_, Option<i64>>(3) {
            return Ok(Claim::Mine(epoch.cast_unsigned()));
        }
        if row.get::<_, Option<Uuid>>(0).is_some() {
            return Ok(Claim::Elsewhere(read_node(row)));
        }
        // Neither: another node was quicker by a moment, or there is no such match.
        let exists: bool = row.get(4);
        if exists { Err(StoreError::Busy) } else { Ok(Claim::Unknown) }
    }

    /// The other node that plays a match now, if one does.
    pub async fn owner(&self, id: MatchId, node: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        let params: [Param; 2] = [(&id.0, Type::UUID), (&node.0, Type::UUID)];
        let sql =
            "SELECT nodes.id, address, certificate FROM matches JOIN nodes ON nodes.id = node_id
            WHERE matches.id = $1 AND node_id <> $2 AND expires_at > now()";
        Ok(self.query(sql, &params).await?.first().map(read_node))
    }

    /// The sessions that ended on whatever node: a short while ago, or `all` whose access tokens are
    /// still to be refused.
    pub async fn ended_sessions(&self, all: bool) -> Result<Vec<EndedSession>, StoreError> {
        let sql = "SELECT session_id, until, deleted_user FROM revocations
            WHERE revoked_at > CASE WHEN $1 THEN '-infinity' ELSE now() - make_interval(secs => $2) END";
        let params: [Param; 2] = [(&all, Type::BOOL), (&REVOCATIONS_SECONDS, Type::FLOAT8)];
        let rows = self.query(sql, &params).await?;
        let read = |row: &Row| EndedSession {
            id: SessionId(row.get(0)),
            until: Timestamp(row.get(1)),
            deleted_user: row.get::<_, Option<Uuid>>(2).map(UserId),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Keeps a socket ticket for `seconds`; false if its session has `session_max` already.
    pub async fn put_ticket(
        &self,
        digest: [u8; 32],
        ticket: &Ticket,
        seconds: u32,
        session_max: u32,
    ) -> Result<bool, StoreError> {
        let digest = digest.to_vec();
        let params: [Param; 6] = [
            (&digest, Type::BYTEA),
            (&ticket.user.0, Type::UUID),
            (&ticket.session.0, Type::UUID),
            (&ticket.token_expires_at.0, Type::INT8),
            (&f64::from(seconds), Type::FLOAT8),
            (&i64::from(session_max), Type::INT8),
        ];
        let sql = "WITH expired AS (
                DELETE FROM socket_tickets WHERE expires_at <= now() AND session_id = $3
            )
            INSERT INTO socket_tickets
            SELECT $1, $2, $3, $4, now() + make_interval(secs => $5)
            WHERE (SELECT count(*) FROM socket_tickets
                   WHERE session_id = $3 AND expires_at > now()) < $6
            RETURNING true";
        Ok(!self.query(sql, &params).await?.is_empty())
    }

    /// Uses a socket ticket up.
    pub async fn take_ticket(&self, digest: [u8; 32]) -> Result<Option<Ticket>, StoreError> {
        let digest = digest.to_vec();
        let sql = "DELETE FROM socket_tickets WHERE digest = $1
            RETURNING user_id, session_id, token_expires_at, expires_at > now()";
        let rows = self.query(sql, &[(&digest, Type::BYTEA)]).await?;
        let good = rows.first().filter(|row| row.get(3));
        Ok(good.map(|row| Ticket {
            user: UserId(row.get(0)),
            session: SessionId(row.get(1)),
            token_expires_at: Timestamp(row.get(2)),
        }))
    }

    /// Forgets tickets that nobody used.
    pub async fn prune_tickets(&self) -> Result<(), StoreError> {
        self.query("DELETE FROM socket_tickets WHERE expires_at <= now()", &[]).await.map(drop)
    }
}

fn read_node(row: &Row) -> NodeRecord {
    let certificate: Option<&[u8]> = row.get(2);
    NodeRecord {
        id: NodeId(row.get(0)),
        address: row.get(1),
        certificate: certificate.and_then(|digest| digest.try_into().ok()),
    }
}
