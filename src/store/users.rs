//! Accounts and their sessions, in SQL.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Rotation, Store, StoreError, UserRecord};
use crate::ids::{SessionId, Timestamp, UserId};

/// A new session and its first refresh token's SHA-256.
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub user: UserId,
    /// Of its refresh token.
    pub refresh_digest: [u8; 32],
    /// When the refresh token is no longer taken.
    pub expires_at: Timestamp,
}

/// What a user changes of the account; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// What others see.
    pub display_name: Option<String>,
    /// The new user name, and whether it is a guest's first.
    pub username: Option<String>,
    /// Argon2id in PHC form.
    pub password_hash: Option<String>,
}

/// What became of a change.
#[derive(Clone, Debug)]
pub enum UserUpdate {
    /// The account as it is now.
    Done(UserRecord),
    /// There is no such account any more.
    Gone,
    /// It was to be given a user name, and has one.
    HasName,
}

/// How names are compared: those that differ in case alone are one name.
fn folded(username: &str) -> String {
    username.to_lowercase()
}

impl Store {
    /// Adds an account, and a session with it if there is one to begin.
    ///
    /// [`StoreError::Conflict`]: the user name is taken.
    pub async fn create_user(
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

    /// An account by its id.
    pub async fn user(&self, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        self.read(move |db| Ok(select_user(db, "id = ?", id.0)?)).await
    }

    /// An account by its user name, in any case.
    pub async fn user_by_name(&self, username: &str) -> Result<Option<UserRecord>, StoreError> {
        let name = folded(username);
        self.read(move |db| Ok(select_user(db, "username_folded = ?", name)?)).await
    }

    /// Changes an account.
    ///
    /// [`StoreError::Conflict`]: the user name is taken.
    pub async fn update_user(
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

    /// Removes an account and its sessions, which are refused until `revoked_until`, and gives
    /// their ids. Its matches stay, played by nobody in particular.
    pub async fn delete_user(
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

    /// Begins a session. [`StoreError::Conflict`]: its user is gone.
    pub async fn create_session(&self, session: NewSession) -> Result<(), StoreError> {
        self.write(move |db| insert_session(db, &session)).await
    }

    /// Puts a new refresh token in the place of a good one; ends the session of a spent one.
    pub async fn rotate_refresh_token(
        &self,
        digest: [u8; 32],
        next_digest: [u8; 32],
        now: Timestamp,
        next_expires_at: Timestamp,
        revoked_until: Timestamp,
    ) -> Result<Rotation, StoreError> {
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

    /// Ends a session; its access tokens are refused until `until`.
    pub async fn revoke_session(
        &self,
        session: SessionId,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |db| revoke(db, session, until)).await
    }

    /// The sessions whose access tokens are still to be refused, and until when. Forgets those
    /// that no longer are, and sessions that have expired.
    pub async fn revocations(
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
