//! Refusals as HTTP answers: RFC 9457, `application/problem+json`.
//!
//! Inner rooms know no HTTP; here their errors get a status and words that may be sent. The detail
//! of an internal error is logged and never sent.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use serde::Serialize;

use super::server::Response;
use crate::auth::TokenError;
use crate::matches::matchmaker::TicketError;
use crate::matches::{MatchError, NotIn};
use crate::protocol;
use crate::store::StoreError;
use crate::telemetry::figures::{SIGN_INS, SignIn, TOKENS_REFUSED};
use crate::users::{FieldError, UserError};

/// What is said where something is full or away for a moment, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request is not answered as it wished.
#[derive(Debug)]
pub struct Refusal(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    problem: protocol::Problem,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

impl Refusal {
    fn new(
        status: StatusCode,
        word: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let (detail, errors, header) = (detail.into(), Vec::new(), None);
        Self(Box::new(Content { status, word, title, detail, errors, header }))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// 400: it could not be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request can't be read", detail)
    }

    /// 401.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "You are not signed in", detail)
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not yours to do", detail)
    }

    /// 404.
    pub fn not_found(what: &str) -> Self {
        let detail = format!("there is no such {what}");
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// 405.
    pub fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("this address takes {allow}");
        let title = "The method is not taken here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, detail)
            .with(ALLOW, HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("GET")))
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "It contradicts what is there", detail)
    }

    /// 413.
    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("a body has {bytes_max} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
    }

    /// 415.
    pub fn unsupported_media_type() -> Self {
        let title = "The body's type is not taken";
        let detail = "a body is application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail)
    }

    /// 422.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map(|error| format!("{}: {}", error.field, error.detail));
        let detail = first.unwrap_or_else(|| "a field is wrong".into());
        let title = "The request is understood, but invalid";
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title, detail);
        refusal.0.errors = errors;
        refusal
    }

    /// 501.
    pub fn not_implemented(detail: impl Into<String>) -> Self {
        let title = "This can't be had here";
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-implemented", title, detail)
    }

    /// Why.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Whether it is a 422.
    pub fn is_invalid(&self) -> bool {
        self.0.status == StatusCode::UNPROCESSABLE_ENTITY
    }

    /// 422 for one field.
    pub fn invalid_field(field: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, detail)])
    }

    /// 426.
    pub fn upgrade_required() -> Self {
        let detail = "connect with a WebSocket of version 13 (RFC 6455)";
        let title = "This address is for WebSockets";
        Self::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", title, detail)
            .with(UPGRADE, HeaderValue::from_static("websocket"))
    }

    /// 429, with `Retry-After`: `most` a minute are enough, and the minute has so many seconds left.
    pub fn rate_limited(most: u32, seconds_left: u32) -> Self {
        let detail = format!("{most} a minute are enough: try again in {seconds_left} seconds");
        let title = "Too many requests";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", title, detail)
            .with(RETRY_AFTER, seconds_left.into())
    }

    /// 503, with `Retry-After`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let title = "The server can't do this just now";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
            .with(RETRY_AFTER, RETRY_AFTER_SECONDS.into())
    }

    /// 504.
    pub fn timeout(seconds: u64) -> Self {
        let detail = format!("the request was not done within {seconds} seconds");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "The request took too long", detail)
    }

    /// 500; what happened is in the log.
    pub fn internal() -> Self {
        let detail = "the request id leads to the reason in the server's log";
        let title = "The server has failed";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, detail)
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        let Content { status, word, title, detail, errors, header } = *self.0;
        let body = Body {
            problem: protocol::Problem::new(word, title, status.as_u16(), Some(detail)),
            errors,
        };
        let json = serde_json::to_vec(&body).expect("a problem is JSON");
        let mut response = Response::new(Full::new(Bytes::from(json)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(header);
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) | StoreError::Busy => {
                tracing::warn!(%error, "the store did not answer");
                Self::unavailable("the store is away or busy: try again")
            }
            StoreError::Conflict(_) | StoreError::Corrupt(_) => {
                tracing::error!(%error, "the store refused");
                Self::internal()
            }
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        TOKENS_REFUSED.increment();
        Self::unauthorized(error.to_string())
    }
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Invalid(errors) => Self::invalid(errors),
            UserError::Taken => {
                let mut refusal = Self::conflict("the user name is taken");
                refusal.0.errors = vec![FieldError::new("username", "the user name is taken")];
                refusal
            }
            UserError::WrongCredentials => {
                SIGN_INS.of(SignIn::WrongPassword).increment();
                Self::unauthorized(error.to_string())
            }
            UserError::BadRefreshToken => {
                SIGN_INS.of(SignIn::BadRefresh).increment();
                Self::unauthorized(error.to_string())
            }
            UserError::Gone => Self::unauthorized(error.to_string()),
            UserError::Busy => Self::unavailable(error.to_string()),
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<TicketError> for Refusal {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::Unknown => Self::not_found("ticket"),
            TicketError::Match(error) => error.into(),
            TicketError::PartyTooLarge(players) => {
                let detail = format!("takes a size up to {players}: so many are on such a match");
                Self::invalid_field("party", detail)
            }
            TicketError::Searching(_) | TicketError::Matched => Self::conflict(error.to_string()),
            TicketError::Busy => Self::unavailable(error.to_string()),
            TicketError::UserGone => Self::unauthorized(error.to_string()),
            TicketError::Store(error) => error.into(),
        }
    }
}

impl From<MatchError> for Refusal {
    fn from(error: MatchError) -> Self {
        match error {
            MatchError::Unknown | MatchError::NotIn(NotIn::Hidden) => Self::not_found("match"),
            MatchError::UnknownGame(_) => Self::not_found("game"),
            MatchError::BadOption(bad) => {
                Self::invalid_field(&format!("options.{}", bad.field), bad.detail)
            }
            MatchError::NotIn(NotIn::Full) => Self::conflict("all seats are taken"),
            MatchError::NotIn(NotIn::Ended) => Self::conflict("the match is over"),
            MatchError::NotIn(NotIn::NotSeated) => {
                Self::not_found("player: you have no seat in this match")
            }
            MatchError::NotIn(NotIn::Overloaded | NotIn::Retired) | MatchError::Unavailable => {
                Self::unavailable("the server is busy or about to stop: try again")
            }
            MatchError::Elsewhere(_) => Self::unavailable("the match moves: try again"),
            MatchError::GameGone(_) => {
                tracing::warn!(%error, "a match can't be played here");
                Self::unavailable("the match's game is not installed on this server")
            }
            MatchError::GameFailed(..) => {
                tracing::error!(%error, "no match of it can begin like this");
                Self::unavailable("the game's own rules have failed: its author has to mend them")
            }
            MatchError::Store(error) => error.into(),
        }
    }
}
