//! Accounts and sessions.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use serde::Serialize;
use tracing::Instrument as _;

use super::id;
use crate::http::input::Fields;
use crate::http::problem::Refusal;
use crate::http::server::{Connection, Request, Response};
use crate::http::{Client, Http, empty, json};
use crate::ids::{Timestamp, UserId};
use crate::store::UserRecord;
use crate::telemetry::figures::{SIGN_INS, SIGN_UPS, SignIn};
use crate::users::{Profile, SignedIn, UserError};

/// An account as all may see it.
#[derive(Serialize)]
struct User<'a> {
    id: UserId,
    username: Option<&'a str>,
    display_name: &'a str,
    guest: bool,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct Session<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: &'a str,
    user: User<'a>,
}

impl<'a> From<&'a UserRecord> for User<'a> {
    fn from(record: &'a UserRecord) -> Self {
        Self {
            id: record.id,
            username: record.username.as_deref(),
            display_name: &record.display_name,
            guest: record.username.is_none(),
            created_at: record.created_at,
        }
    }
}

fn session(by: SignIn, signed_in: &SignedIn) -> Response {
    SIGN_INS.of(by).increment();
    let body = Session {
        access_token: &signed_in.access_token,
        token_type: "Bearer",
        expires_in: signed_in.expires_in.as_secs(),
        refresh_token: signed_in.refresh_token.as_str(),
        user: (&signed_in.user).into(),
    };
    json(StatusCode::CREATED, &body)
}

pub(super) async fn register(
    http: &Http,
    request: Request,
    connection: &Connection,
) -> Result<Response, Refusal> {
    let client = Client::of(&request, connection);
    let mut fields = Fields::read(request).await?;
    let profile = Profile {
        username: Some(fields.required_text("username")),
        password: Some(fields.required_text("password")),
        display_name: fields.text("display_name"),
    };
    fields.end()?;
    http.limits.accounts(client).await?;
    let user = http.users.register(profile).await?;
    SIGN_UPS.increment();
    let mut response = json(StatusCode::CREATED, &User::from(&user));
    let location = HeaderValue::try_from(format!("/v1/users/{}", user.id));
    response.headers_mut().extend(location.ok().map(|location| (LOCATION, location)));
    Ok(response)
}

pub(super) async fn sign_in(http: &Http, request: Request) -> Result<Response, Refusal> {
    // Ill-formed or wrong: there is nothing to be learnt from the difference.
    let wrong = |refusal: Refusal| {
        if refusal.is_invalid() { UserError::WrongCredentials.into() } else { refusal }
    };
    let mut fields = Fields::read(request).await.map_err(wrong)?;
    let username = fields.required_text("username");
    let password = fields.required_text("password");
    fields.end().map_err(wrong)?;
    // Who floods is not counted faster than passwords are looked at.
    http.users.check_room()?;
    let attempt = http.limits.sign_in(&username).await?;
    let signed_in = http.users.sign_in(&username, password).await;
    if !matches!(signed_in, Err(UserError::WrongCredentials)) {
        http.limits.forgive(attempt).await;
    }
    Ok(session(SignIn::Password, &signed_in?))
}

pub(super) async fn sign_in_as_guest(
    http: &Http,
    request: Request,
    connection: &Connection,
) -> Result<Response, Refusal> {
    let client = Client::of(&request, connection);
    let mut fields = Fields::read_optional(request).await?;
    let display_name = fields.text("display_name");
    fields.end()?;
    http.limits.accounts(client).await?;
    Ok(session(SignIn::Guest, &http.users.guest(display_name).await?))
}

pub(super) async fn refresh(http: &Http, request: Request) -> Result<Response, Refusal> {
    let mut fields = Fields::read(request).await?;
    let refresh_token = fields.required_text("refresh_token");
    fields.end()?;
    let users = Arc::clone(&http.users);
    let refreshed = to_the_end(async move { users.refresh(&refresh_token).await }).await?;
    Ok(session(SignIn::Refresh, &refreshed?))
}

pub(super) async fn sign_out(http: &Http, request: &Request) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    let (users, registry) = (Arc::clone(&http.users), Arc::clone(&http.registry));
    to_the_end(async move {
        users.sign_out(claims.session).await?;
        registry.close_sessions(&[claims.session]);
        Ok::<_, Refusal>(())
    })
    .await??;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn me(http: &Http, request: &Request) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    Ok(json(StatusCode::OK, &User::from(&http.account(claims.user).await?)))
}

pub(super) async fn update_me(http: &Http, request: Request) -> Result<Response, Refusal> {
    let claims = http.claims(&request)?;
    let mut fields = Fields::read(request).await?;
    let profile = Profile {
        username: fields.text("username"),
        password: fields.text("password"),
        display_name: fields.text("display_name"),
    };
    fields.end()?;
    let user = http.users.update(claims.user, profile).await?;
    Ok(json(StatusCode::OK, &User::from(&user)))
}

/// Does what must not stop half-way when the client goes away or the deadline passes.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work.in_current_span()).await.map_err(|_| Refusal::internal())
}

/// The user leaves the matches that are played here before the account goes, so that nobody waits.
pub(super) async fn delete_me(http: &Http, request: &Request) -> Result<Response, Refusal> {
    let claims = http.claims(request)?;
    let (users, registry) = (Arc::clone(&http.users), Arc::clone(&http.registry));
    to_the_end(async move {
        registry.leave_all(claims.user).await?;
        let sessions = users.delete(claims.user).await?;
        registry.close_sessions(&sessions);
        registry.forget_user(claims.user);
        Ok::<_, Refusal>(())
    })
    .await??;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn user(
    http: &Http,
    request: &Request,
    parameter: &str,
) -> Result<Response, Refusal> {
    http.claims(request)?;
    let user = http.users.find(id(parameter, "user")?).await.map_err(|error| match error {
        UserError::Gone => Refusal::not_found("user"),
        other => other.into(),
    })?;
    Ok(json(StatusCode::OK, &User::from(&user)))
}
