//! Accounts and their sessions, in SQL.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{CHANNEL, Notice, Param, Postgres};
use crate::ids::{SessionId, Timestamp, UserId};
use crate::store::{
    NewSession, RefreshRotation, Rotation, StoreError, UserChange, UserRecord, UserUpdate, folded,
};

const USER_COLUMNS: &str = "id, username, display_name, password_hash, created_at";

impl Postgres {
    pub(in crate::store) async fn create_user(
        &self,
        user: UserRecord,
        session: Option<NewSession>,
    ) -> Result<(), StoreError> {
        let username_folded = user.username.as_deref().map(folded);
        let session_id = session.as_ref().map(|session| session.id.0);
        let expires_at = session.as_ref().map(|session| session.expires_at.0);
        let digest = session.as_ref().map(|session| session.refresh_digest.to_vec());
        let params: [Param; 9] = [
            (&user.id.0, Type::UUID),
            (&user.username, Type::TEXT),
            (&username_folded, Type::TEXT),
            (&user.display_name, Type::TEXT),
            (&user.password_hash, Type::TEXT),
            (&user.created_at.0, Type::INT8),
            (&session_id, Type::UUID),
            (&expires_at, Type::INT8),
            (&digest, Type::BYTEA),
        ];
        let sql = "WITH new_user AS (
                INSERT INTO users (id, username, username_folded, display_name, password_hash,
                                   created_at)
                VALUES ($1, $2, $3, $4, $5, $6) RETURNING id
            ), new_session AS (
                INSERT INTO sessions (id, user_id, expires_at)
                SELECT $7, id, $8 FROM new_user WHERE $7 IS NOT NULL RETURNING id
            )
            INSERT INTO refresh_tokens (digest, session_id) SELECT $9, id FROM new_session";
        self.query(sql, &params).await.map(drop)
    }

    pub(in crate::store) async fn user(
        &self,
        id: UserId,
    ) -> Result<Option<UserRecord>, StoreError> {
        let sql = format!("SELECT {USER_COLUMNS} FROM users WHERE id = $1");
        let rows = self.query(&sql, &[(&id.0, Type::UUID)]).await?;
        Ok(rows.first().map(read_user))
    }

    pub(in crate::store) async fn user_by_name(
        &self,
        username: &str,
    ) -> Result<Option<UserRecord>, StoreError> {
        let sql = format!("SELECT {USER_COLUMNS} FROM users WHERE username_folded = $1");
        let rows = self.query(&sql, &[(&folded(username), Type::TEXT)]).await?;
        Ok(rows.first().map(read_user))
    }

    pub(in crate::store) async fn update_user(
        &self,
        id: UserId,
        change: UserChange,
    ) -> Result<UserUpdate, StoreError> {
        let username_folded = change.username.as_deref().map(folded);
        let params: [Param; 5] = [
            (&id.0, Type::UUID),
            (&change.display_name, Type::TEXT),
            (&change.username, Type::TEXT),
            (&username_folded, Type::TEXT),
            (&change.password_hash, Type::TEXT),
        ];
        let sql = format!(
            "UPDATE users SET display_name = coalesce($2, display_name),
             username = coalesce($3, username), username_folded = coalesce($4, username_folded),
             password_hash = coalesce($5, password_hash)
             WHERE id = $1 AND ($3 IS NULL OR username IS NULL) RETURNING {USER_COLUMNS}"
        );
        if let Some(row) = self.query(&sql, &params).await?.first() {
            return Ok(UserUpdate::Done(read_user(row)));
        }
        Ok(self.user(id).await?.map_or(UserUpdate::Gone, |_| UserUpdate::HasName))
    }

    pub(in crate::store) async fn delete_user(
        &self,
        id: UserId,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, StoreError> {
        let sql = format!(
            "WITH ended AS (
                DELETE FROM sessions WHERE user_id = $1 RETURNING id
            ), revoked AS (
                INSERT INTO revocations (session_id, until, deleted_user) SELECT id, $2, $1 FROM ended
                ON CONFLICT DO NOTHING
            ), gone AS (
                DELETE FROM users WHERE id = $1
            )
            SELECT id, pg_notify('{CHANNEL}', '{}') FROM ended",
            Notice::Revoked
        );
        let params: [Param; 2] = [(&id.0, Type::UUID), (&revoked_until.0, Type::INT8)];
        let rows = self.query(&sql, &params).await?;
        Ok(rows.iter().map(|row| SessionId(row.get(0))).collect())
    }

    pub(in crate::store) async fn create_session(
        &self,
        session: NewSession,
    ) -> Result<(), StoreError> {
        let digest = session.refresh_digest.to_vec();
        let params: [Param; 4] = [
            (&session.id.0, Type::UUID),
            (&session.user.0, Type::UUID),
            (&session.expires_at.0, Type::INT8),
            (&digest, Type::BYTEA),
        ];
        let sql = "WITH new AS (
                INSERT INTO sessions (id, user_id, expires_at) VALUES ($1, $2, $3) RETURNING id
            )
            INSERT INTO refresh_tokens (digest, session_id) SELECT $4, id FROM new";
        self.query(sql, &params).await.map(drop)
    }

    /// The row of the token is locked first, so two who show one token at a time are told apart.
    pub(in crate::store) async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
    ) -> Result<Rotation, StoreError> {
        let (digest, next) = (rotation.digest.to_vec(), rotation.next_digest.to_vec());
        let params: [Param; 5] = [
            (&digest, Type::BYTEA),
            (&next, Type::BYTEA),
            (&rotation.now.0, Type::INT8),
            (&rotation.next_expires_at.0, Type::INT8),
            (&rotation.revoked_until.0, Type::INT8),
        ];
        let sql = format!(
            "WITH found AS (
                SELECT session_id, spent, user_id, expires_at FROM refresh_tokens
                JOIN sessions ON sessions.id = session_id WHERE digest = $1
                FOR UPDATE OF refresh_tokens, sessions
            ), spend AS (
                UPDATE refresh_tokens SET spent = true FROM found
                WHERE digest = $1 AND NOT found.spent AND expires_at > $3
            ), renew AS (
                UPDATE sessions SET expires_at = $4 FROM found
                WHERE id = session_id AND NOT spent AND found.expires_at > $3
            ), add AS (
                INSERT INTO refresh_tokens (digest, session_id)
                SELECT $2, session_id FROM found WHERE NOT spent AND expires_at > $3
            ), revoke AS (
                INSERT INTO revocations (session_id, until)
                SELECT session_id, $5 FROM found WHERE spent
                ON CONFLICT (session_id) DO UPDATE SET until = excluded.until
            ), finish AS (
                DELETE FROM sessions USING found WHERE id = session_id AND spent
            )
            SELECT session_id, user_id, spent, expires_at,
                CASE WHEN spent THEN pg_notify('{CHANNEL}', '{}') END FROM found",
            Notice::Revoked
        );
        let rows = self.query(&sql, &params).await?;
        let Some(row) = rows.first() else { return Ok(Rotation::Unknown) };
        let session = SessionId(row.get(0));
        Ok(match (row.get::<_, bool>(2), row.get::<_, i64>(3) > rotation.now.0) {
            (true, _) => Rotation::Reused { session },
            (false, true) => Rotation::Rotated { user: UserId(row.get(1)), session },
            (false, false) => Rotation::Unknown,
        })
    }

    pub(in crate::store) async fn revoke_session(
        &self,
        session: SessionId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "WITH ended AS (
                DELETE FROM sessions WHERE id = $1
            ), revoked AS (
                INSERT INTO revocations (session_id, until) VALUES ($1, $2)
                ON CONFLICT (session_id) DO UPDATE SET until = excluded.until RETURNING session_id
            )
            SELECT pg_notify('{CHANNEL}', '{}') FROM revoked",
            Notice::Revoked
        );
        let params: [Param; 2] = [(&session.0, Type::UUID), (&until.0, Type::INT8)];
        self.query(&sql, &params).await.map(drop)
    }

    pub(in crate::store) async fn revocations(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        let now: [Param; 1] = [(&now.0, Type::INT8)];
        self.query("DELETE FROM revocations WHERE until <= $1", &now).await?;
        self.query("DELETE FROM sessions WHERE expires_at <= $1", &now).await?;
        let rows = self.query("SELECT session_id, until FROM revocations", &[]).await?;
        let read = |row: &Row| (SessionId(row.get::<_, Uuid>(0)), Timestamp(row.get(1)));
        Ok(rows.iter().map(read).collect())
    }
}

fn read_user(row: &Row) -> UserRecord {
    UserRecord {
        id: UserId(row.get(0)),
        username: row.get(1),
        display_name: row.get(2),
        password_hash: row.get(3),
        created_at: Timestamp(row.get(4)),
    }
}
