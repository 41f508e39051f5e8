//! Accounts and sessions: the rules.
//!
//! - this page: who may be called what, signing in and out, guests, deletion
//! - [`hashing`]: where the expensive cryptography is done, off the threads that serve sockets
//! - [`socket_tickets`]: what stands for an access token in a WebSocket's address
//!
//! A sign-in is a session: it has one refresh token at a time and short-lived access tokens. What
//! follows for sockets when a session ends is the caller's matter.

mod hashing;
mod socket_tickets;

pub use socket_tickets::{SocketTickets, TICKET_SECONDS};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use thiserror::Error;

use self::hashing::{Place, Pool};
use crate::auth::passwords;
use crate::auth::secrets::{digest, random_bytes};
use crate::auth::{Claims, Secret, TokenError, Tokens};
use crate::ids::{SessionId, Timestamp, UserId};
use crate::store::{
    EndedSession, NewSession, RefreshRotation, Rotation, Store, StoreError, UserChange, UserRecord,
    UserUpdate,
};

/// Letters of a user name.
const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
/// Characters of a password; the most is there so that hashing has a bound.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// Characters of a display name.
const DISPLAY_NAME_CHARS: std::ops::RangeInclusive<usize> = 1..=32;

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What it takes.
    pub detail: String,
}

impl FieldError {
    /// A field and what is wrong with it.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// Why an account or a session is not to be had.
#[derive(Debug, Error)]
pub enum UserError {
    /// Fields that break the rules.
    #[error("invalid: {0:?}")]
    Invalid(Vec<FieldError>),
    /// The user name belongs to somebody.
    #[error("the user name is taken")]
    Taken,
    /// User name or password are wrong; which of them is not said.
    #[error("user name or password are wrong")]
    WrongCredentials,
    /// The refresh token is nobody's, expired, or was used before.
    #[error("the refresh token is not valid (any more)")]
    BadRefreshToken,
    /// The account is gone.
    #[error("the account does not exist any more")]
    Gone,
    /// More sign-ins wait than [`hashing::WAITING_MAX`].
    #[error("too many sign-ins at this moment")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What somebody registers with, or changes.
#[derive(Clone, Default)]
pub struct Profile {
    /// How one signs in.
    pub username: Option<String>,
    /// As typed.
    pub password: Option<String>,
    /// What others see.
    pub display_name: Option<String>,
}

/// A new pair of tokens, and whose.
pub struct SignedIn {
    /// A JWT for some minutes.
    pub access_token: String,
    /// For the next pair.
    pub refresh_token: Secret,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// The account.
    pub user: UserRecord,
}

/// Sessions that have just ended by the second use of a refresh token.
type OnReuse = Box<dyn Fn(SessionId) + Send + Sync>;

/// The accounts.
pub struct Users {
    store: Arc<Store>,
    tokens: Arc<Tokens>,
    refresh_lifetime: Duration,
    pool: Pool,
    on_reuse: OnReuse,
}

impl Users {
    /// `refresh_lifetime` in whole days; `on_reuse` is told of a session that a stolen refresh
    /// token has ended.
    pub fn new(
        store: Arc<Store>,
        tokens: Arc<Tokens>,
        refresh_lifetime: Duration,
        on_reuse: impl Fn(SessionId) + Send + Sync + 'static,
    ) -> Self {
        let on_reuse = Box::new(on_reuse);
        Self { store, tokens, refresh_lifetime, pool: Pool::new(), on_reuse }
    }

    /// Takes the sessions whose access tokens are still to be refused from the store.
    pub async fn load_revocations(&self) -> Result<(), StoreError> {
        for (session, until) in self.store.revocations(Timestamp::now()).await? {
            self.tokens.revoke(session, until.into());
        }
        Ok(())
    }

    /// Lets the store forget what has expired; for once in a while.
    pub async fn forget_expired(&self) -> Result<(), StoreError> {
        self.store.revocations(Timestamp::now()).await?;
        match &*self.store {
            Store::Postgres(store) => {
                store.prune_tickets().await?;
                store.prune_rates().await
            }
            Store::Sqlite(_) => Ok(()),
        }
    }

    /// Refuses the access tokens of sessions that ended on any node, and gives those that are news.
    pub fn refuse_ended(&self, mut ended: Vec<EndedSession>) -> Vec<EndedSession> {
        ended.retain(|session| self.tokens.revoke(session.id, session.until.into()));
        ended
    }

    /// The keys and what was verified with them.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Whom an access token speaks for.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.tokens.verify(token, SystemTime::now())
    }

    /// A new account with a user name and a password; the caller signs in with them next.
    pub async fn register(&self, profile: Profile) -> Result<UserRecord, UserError> {
        let errors = check(&profile);
        let (Some(username), Some(password), true) =
            (profile.username, profile.password, errors.is_empty())
        else {
            return Err(UserError::Invalid(errors));
        };
        let user = UserRecord {
            id: UserId::new(),
            display_name: profile.display_name.unwrap_or_else(|| username.clone()),
            username: Some(username),
            password_hash: Some(self.hash(password).await?),
            created_at: Timestamp::now(),
        };
        self.store.create_user(user.clone(), None).await.map_err(taken)?;
        Ok(user)
    }

    /// Signs in by user name and password. Whatever is wrong with them costs the same time.
    pub async fn sign_in(&self, username: &str, password: String) -> Result<SignedIn, UserError> {
        let place = self.pool.place()?;
        let plausible = is_username(username) && is_password(&password);
        let user = if plausible { self.store.user_by_name(username).await? } else { None };
        let hash = user.as_ref().and_then(|user| user.password_hash.clone());
        let right = place
            .run(move || {
                let phc = hash.as_deref().unwrap_or(passwords::decoy());
                // A password of any length would be hashed as long as it is.
                let password = if plausible { password.as_str() } else { "" };
                passwords::verify(password, phc)
            })
            .await?;
        let user = user.filter(|_| right).ok_or(UserError::WrongCredentials)?;
        let (session, refresh_token) = self.new_session(user.id);
        let id = session.id;
        self.store.create_session(session).await.map_err(|error| match error {
            StoreError::Conflict(_) => UserError::WrongCredentials,
            other => other.into(),
        })?;
        self.signed_in(&place, user, id, refresh_token).await
    }

    /// Whether a password can be looked at now; [`UserError::Busy`] costs nothing then.
    pub fn check_room(&self) -> Result<(), UserError> {
        self.pool.place().map(drop)
    }

    /// Signs a new guest in.
    pub async fn guest(&self, display_name: Option<String>) -> Result<SignedIn, UserError> {
        let profile = Profile { display_name, ..Profile::default() };
        let errors = check(&profile);
        if !errors.is_empty() {
            return Err(UserError::Invalid(errors));
        }
        let place = self.pool.place()?;
        let user = UserRecord {
            id: UserId::new(),
            username: None,
            display_name: profile.display_name.unwrap_or_else(guest_name),
            password_hash: None,
            created_at: Timestamp::now(),
        };
        let (session, refresh_token) = self.new_session(user.id);
        let id = session.id;
        self.store.create_user(user.clone(), Some(session)).await?;
        self.signed_in(&place, user, id, refresh_token).await
    }

    /// Gives a new pair for a refresh token. A second use of one ends its session.
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn, UserError> {
        let place = self.pool.place()?;
        let (now, next) = (Timestamp::now(), Secret::random());
        let rotation = self.store.rotate_refresh_token(RefreshRotation {
            digest: digest(refresh_token),
            next_digest: next.digest(),
            now,
            next_expires_at: now.plus(self.refresh_lifetime),
            revoked_until: self.revoked_until(),
        });
        match rotation.await? {
            Rotation::Rotated { user, session } => {
                let user = self.store.user(user).await?.ok_or(UserError::BadRefreshToken)?;
                self.signed_in(&place, user, session, next).await
            }
            Rotation::Reused { session } => {
                self.tokens.revoke(session, self.revoked_until().into());
                (self.on_reuse)(session);
                Err(UserError::BadRefreshToken)
            }
            Rotation::Unknown => Err(UserError::BadRefreshToken),
        }
    }

    /// Ends a session: its refresh token is dead and its access tokens are refused from now on.
    pub async fn sign_out(&self, session: SessionId) -> Result<(), UserError> {
        let until = self.revoked_until();
        self.store.revoke_session(session, until).await?;
        self.tokens.revoke(session, until.into());
        Ok(())
    }

    /// An account.
    pub async fn find(&self, id: UserId) -> Result<UserRecord, UserError> {
        self.store.user(id).await?.ok_or(UserError::Gone)
    }

    /// Changes an account: its display name, or a guest's first user name and password.
    pub async fn update(&self, id: UserId, profile: Profile) -> Result<UserRecord, UserError> {
        let mut errors = check(&profile);
        let user = self.find(id).await?;
        let credentials = [("username", &profile.username), ("password", &profile.password)];
        for (field, value) in credentials {
            if value.is_some() && user.username.is_some() {
                errors.push(FieldError::new(field, "this account has one; it can't be changed"));
            }
        }
        if profile.username.is_some() != profile.password.is_some() {
            let missing = if profile.username.is_none() { "username" } else { "password" };
            errors.push(FieldError::new(missing, "a guest becomes a user with both"));
        }
        if !errors.is_empty() {
            return Err(UserError::Invalid(errors));
        }
        let password_hash = match profile.password {
            Some(password) => Some(self.hash(password).await?),
            None => None,
        };
        let Profile { username, display_name, .. } = profile;
        let change = UserChange { display_name, username, password_hash };
        match self.store.update_user(id, change).await.map_err(taken)? {
            UserUpdate::Done(user) => Ok(user),
            UserUpdate::Gone => Err(UserError::Gone),
            UserUpdate::HasName => Err(UserError::Taken),
        }
    }

    /// Removes an account, and gives its sessions, which have ended.
    pub async fn delete(&self, id: UserId) -> Result<Vec<SessionId>, UserError> {
        let until = self.revoked_until();
        let sessions = self.store.delete_user(id, until).await?;
        for session in &sessions {
            self.tokens.revoke(*session, until.into());
        }
        Ok(sessions)
    }

    async fn hash(&self, password: String) -> Result<String, UserError> {
        self.pool.place()?.run(move || passwords::hash(&password, random_bytes())).await
    }

    fn new_session(&self, user: UserId) -> (NewSession, Secret) {
        let secret = Secret::random();
        let expires_at = Timestamp::now().plus(self.refresh_lifetime);
        let refresh_digest = secret.digest();
        (NewSession { id: SessionId::new(), user, refresh_digest, expires_at }, secret)
    }

    async fn signed_in(
        &self,
        place: &Place<'_>,
        user: UserRecord,
        session: SessionId,
        refresh_token: Secret,
    ) -> Result<SignedIn, UserError> {
        let (tokens, id) = (Arc::clone(&self.tokens), user.id);
        let access_token = place.run(move || tokens.issue(id, session, SystemTime::now())).await?;
        let expires_in = self.tokens.access_lifetime();
        Ok(SignedIn { access_token, refresh_token, expires_in, user })
    }

    /// When the last access token that was issued up to now expires.
    fn revoked_until(&self) -> Timestamp {
        Timestamp::now().plus(self.tokens.access_lifetime() + Duration::from_secs(1))
    }
}

fn taken(error: StoreError) -> UserError {
    match error {
        StoreError::Conflict(_) => UserError::Taken,
        other => other.into(),
    }
}

/// What is wrong with the fields that are there.
fn check(profile: &Profile) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut rule = |field, value: &Option<String>, holds: fn(&str) -> bool, takes: &str| {
        if value.as_deref().is_some_and(|value| !holds(value)) {
            errors.push(FieldError::new(field, takes));
        }
    };
    let username = "takes 3 to 32 of A-Z, a-z, 0-9, _, - and .";
    rule("username", &profile.username, is_username, username);
    let password = "takes 8 to 256 characters, none of them a control character";
    rule("password", &profile.password, is_password, password);
    let display_name = "takes 1 to 32 characters that can be seen";
    rule("display_name", &profile.display_name, is_display_name, display_name);
    errors
}

/// ASCII alone, so that no name looks like another but in case, which is folded.
fn is_username(name: &str) -> bool {
    USERNAME_CHARS.contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn is_password(password: &str) -> bool {
    has_chars(password, PASSWORD_CHARS) && !password.contains(char::is_control)
}

fn is_display_name(name: &str) -> bool {
    has_chars(name, DISPLAY_NAME_CHARS)
        && !name.contains(|c: char| c.is_control() || is_invisible(c))
        && name.contains(|c: char| !c.is_whitespace())
}

fn has_chars(text: &str, range: std::ops::RangeInclusive<usize>) -> bool {
    range.contains(&text.chars().take(range.end() + 1).count())
}

/// Characters that are not seen and change how others are: marks of direction (UAX 9), of width
/// zero, and separators of lines. The joiner of emoji is none of them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{061C}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
}

/// A name for a guest who gave none.
fn guest_name() -> String {
    let [first, second] = random_bytes::<2>();
    let pick = |words: [&'static str; 16], byte: u8| words[usize::from(byte % 16)];
    format!("{} {}", pick(GUEST_MANNERS, first), pick(GUEST_ANIMALS, second))
}

const GUEST_MANNERS: [&str; 16] = [
    "Brave", "Bright", "Calm", "Clever", "Eager", "Gentle", "Happy", "Jolly", "Keen", "Lucky",
    "Merry", "Nimble", "Quick", "Quiet", "Sunny", "Witty",
];
const GUEST_ANIMALS: [&str; 16] = [
    "Badger", "Beaver", "Dolphin", "Falcon", "Fox", "Hare", "Heron", "Lynx", "Magpie", "Marten",
    "Otter", "Owl", "Puffin", "Raven", "Seal", "Wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_rules() {
        for good in ["abc", "Ada.L", "x-1_2", &"x".repeat(32)] {
            assert!(is_username(good), "{good}");
        }
        for bad in ["", "ab", "a b", "ab\0", "\u{430}bc", "abç", &"x".repeat(33), "a@b"] {
            assert!(!is_username(bad), "{bad:?}");
        }
        for good in ["é", "Grace Hopper", "👩‍🚀", &"ö".repeat(32)] {
            assert!(is_display_name(good), "{good}");
        }
        for bad in ["", " ", "\u{3000}", "a\u{202E}b", "a\u{200B}", "\u{FEFF}", "a\tb"] {
            assert!(!is_display_name(bad), "{bad:?}");
        }
        assert!(is_password("12345678") && is_password(&"€".repeat(256)));
        assert!(!is_password("1234567") && !is_password("1234567\n"));
        assert!(is_display_name(&guest_name()));
    }
}
