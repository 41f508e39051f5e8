//! Accounts and their sessions, in SQL.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Sqlite;
use crate::ids::{SessionId, Timestamp, UserId};
use crate::store::{
    NewSession, RefreshRotation, Rotation, StoreError, UserChange, UserRecord, UserUpdate, folded,
};

impl Sqlite {
    pub(in crate::store) async fn create_user(
        &self,
        user: UserRecord,
        session: Option<NewSession>,
    ) -> Result<(), StoreError> {
        self.write(move |db| {
            db.prepare_cached(
                "INSERT INTO users (id, username, username_folded, display_name, password_hash,
                 created_at) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                user.id.0,
                user.username,
                user.username.as_deref().map(folded),
                user.display_name,
                user.password_hash,
                user.created_at.0
            ])?;
            session.map_or(Ok(()), |session| insert_session(db, &session))
        })
        .await
    }

    pub(in crate::store) async fn user(
        &self,
        id: UserId,
    ) -> Result<Option<UserRecord>, StoreError> {
        self.read(move |db| Ok(select_user(db, "id = ?", id.0)?)).await
    }

    pub(in crate::store) async fn user_by_name(
        &self,
        username: &str,
    ) -> Result<Option<UserRecord>, StoreError> {
        let name = folded(username);
        self.read(move |db| Ok(select_user(db, "username_folded = ?", name)?)).await
    }

    pub(in crate::store) async fn update_user(
        &self,
        id: UserId,
        change: UserChange,
    ) -> Result<UserUpdate, StoreError> {
        self.write(move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE users SET display_name = coalesce(?2, display_name),
                     username = coalesce(?3, username),
                     username_folded = coalesce(?4, username_folded),
                     password_hash = coalesce(?5, password_hash)
                     WHERE id = ?1 AND (?3 IS NULL OR username IS NULL)",
                )?
                .execute(params![
                    id.0,
                    change.display_name,
                    change.username,
                    change.username.as_deref().map(folded),
                    change.password_hash
                ])?;
            Ok(match select_user(db, "id = ?", id.0)? {
                Some(user) if changed == 1 => UserUpdate::Done(user),
                Some(_) => UserUpdate::HasName,
                None => UserUpdate::Gone,
            })
        })
        .await
    }

    pub(in crate::store) async fn delete_user(
        &self,
        id: UserId,
        revoked_until: Timestamp,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.write(move |db| {
            let sessions = db
                .prepare_cached("SELECT id FROM sessions WHERE user_id = ?")?
                .query_map([id.0], |row| row.get(0).map(SessionId))?
                .collect::<Result<Vec<_>, _>>()?;
            for session in &sessions {
                revoke(db, *session, revoked_until)?;
            }
            db.prepare_cached("DELETE FROM users WHERE id = ?")?.execute([id.0])?;
            Ok(sessions)
        })
        .await
    }

    pub(in crate::store) async fn create_session(
        &self,
        session: NewSession,
    ) -> Result<(), StoreError> {
        self.write(move |db| insert_session(db, &session)).await
    }

    pub(in crate::store) async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
    ) -> Result<Rotation, StoreError> {
        let RefreshRotation { digest, next_digest, now, next_expires_at, revoked_until } = rotation;
        self.write(move |db| {
            let found = db
                .prepare_cached(
                    "SELECT session_id, spent, user_id, expires_at FROM refresh_tokens
                     JOIN sessions ON sessions.id = session_id WHERE digest = ?",
                )?
                .query_row([digest], |row| {
                    let spent: bool = row.get(1)?;
                    let expires_at: i64 = row.get(3)?;
                    Ok((SessionId(row.get(0)?), spent, UserId(row.get(2)?), expires_at))
                })
                .optional()?;
            let Some((session, spent, user, expires_at)) = found else {
                return Ok(Rotation::Unknown);
            };
            if spent {
                revoke(db, session, revoked_until)?;
                return Ok(Rotation::Reused { session });
            }
            if expires_at <= now.0 {
                return Ok(Rotation::Unknown);
            }
            db.prepare_cached("UPDATE refresh_tokens SET spent = 1 WHERE digest = ?")?
                .execute([digest])?;
            insert_refresh_token(db, session, &next_digest)?;
            db.prepare_cached("UPDATE sessions SET expires_at = ? WHERE id = ?")?
                .execute(params![next_expires_at.0, session.0])?;
            Ok(Rotation::Rotated { user, session })
        })
        .await
    }

    pub(in crate::store) async fn revoke_session(
        &self,
        session: SessionId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |db| revoke(db, session, until)).await
    }

    pub(in crate::store) async fn revocations(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
        self.write(move |db| {
            db.execute("DELETE FROM revocations WHERE until <= ?", [now.0])?;
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", [now.0])?;
            let rows = db
                .prepare("SELECT session_id, until FROM revocations")?
                .query_map([], |row| Ok((SessionId(row.get(0)?), Timestamp(row.get(1)?))))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
        .await
    }
}

fn insert_session(db: &Connection, session: &NewSession) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO sessions (id, user_id, expires_at) VALUES (?, ?, ?)")?
        .execute(params![session.id.0, session.user.0, session.expires_at.0])?;
    insert_refresh_token(db, session.id, &session.refresh_digest)
}

fn insert_refresh_token(
    db: &Connection,
    session: SessionId,
    digest: &[u8; 32],
) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO refresh_tokens (digest, session_id) VALUES (?, ?)")?
        .execute(params![digest, session.0])?;
    Ok(())
}

fn revoke(db: &Connection, session: SessionId, until: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM sessions WHERE id = ?")?.execute([session.0])?;
    db.prepare_cached("INSERT OR REPLACE INTO revocations (session_id, until) VALUES (?, ?)")?
        .execute(params![session.0, until.0])?;
    Ok(())
}

fn select_user(
    db: &Connection,
    condition: &str,
    key: impl rusqlite::ToSql,
) -> rusqlite::Result<Option<UserRecord>> {
    db.prepare_cached(&format!(
        "SELECT id, username, display_name, password_hash, created_at FROM users WHERE {condition}"
    ))?
    .query_row([key], read_user)
    .optional()
}

fn read_user(row: &Row) -> rusqlite::Result<UserRecord> {
    Ok(UserRecord {
        id: UserId(row.get(0)?),
        username: row.get(1)?,
        display_name: row.get(2)?,
        password_hash: row.get(3)?,
        created_at: Timestamp(row.get(4)?),
    })
}
