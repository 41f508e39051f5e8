//! Which address takes which methods, and what each leads to.

use hyper::Method;

use crate::web::{self, Asset};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Jwks,
    Register,
    SignIn,
    SignInAsGuest,
    Refresh,
    SignOut,
    Me,
    UpdateMe,
    DeleteMe,
    User,
    Games,
    Game,
    Leaderboard,
    CreateMatch,
    Matches,
    Match,
    Join,
    Leave,
    Events,
    Socket,
    Play,
    SocketTicket,
    CreateTicket,
    Ticket,
    CancelTicket,
}

use Endpoint as E;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Every address but the web client's own files and the documents.
pub(super) const ROUTES: &[(&str, &[(Method, Endpoint)])] = &[
    ("/.well-known/jwks.json", &[(GET, E::Jwks)]),
    ("/v1/users", &[(POST, E::Register)]),
    ("/v1/users/me", &[(GET, E::Me), (PATCH, E::UpdateMe), (DELETE, E::DeleteMe)]),
    ("/v1/users/{id}", &[(GET, E::User)]),
    ("/v1/sessions", &[(POST, E::SignIn)]),
    ("/v1/sessions/guest", &[(POST, E::SignInAsGuest)]),
    ("/v1/sessions/refresh", &[(POST, E::Refresh)]),
    ("/v1/sessions/current", &[(DELETE, E::SignOut)]),
    ("/v1/games", &[(GET, E::Games)]),
    ("/v1/games/{game}", &[(GET, E::Game)]),
    ("/v1/leaderboards/{game}", &[(GET, E::Leaderboard)]),
    ("/v1/matches", &[(GET, E::Matches), (POST, E::CreateMatch)]),
    ("/v1/matches/{id}", &[(GET, E::Match)]),
    ("/v1/matches/{id}/players", &[(POST, E::Join)]),
    ("/v1/matches/{id}/players/me", &[(DELETE, E::Leave)]),
    ("/v1/matches/{id}/events", &[(GET, E::Events)]),
    ("/v1/matches/{id}/socket", &[(GET, E::Socket)]),
    ("/v1/play/{game}/socket", &[(GET, E::Play)]),
    ("/v1/socket-tickets", &[(POST, E::SocketTicket)]),
    ("/v1/tickets", &[(POST, E::CreateTicket)]),
    ("/v1/tickets/{id}", &[(GET, E::Ticket), (DELETE, E::CancelTicket)]),
];

/// The methods of files.
const ASSET_METHODS: &str = "GET, HEAD, OPTIONS";

/// What was found at an address.
pub(super) enum Found {
    /// Something that takes the method; the address's parameter, or nothing.
    Endpoint(Endpoint, String),
    /// A file of the web client, or a document.
    Asset(&'static Asset),
    /// Something that takes other methods: an `Allow` list.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

/// The addresses, ready for look-ups.
pub(super) struct Router(matchit::Router<&'static [(Method, Endpoint)]>);

impl Router {
    pub(super) fn new() -> Self {
        let mut router = matchit::Router::new();
        for (path, methods) in ROUTES {
            router.insert(*path, *methods).expect("the addresses differ");
        }
        Self(router)
    }

    pub(super) fn find(&self, path: &str, method: &Method) -> Found {
        if let Some(asset) = web::find(path) {
            return if *method == GET {
                Found::Asset(asset)
            } else {
                Found::OtherMethods(ASSET_METHODS.into())
            };
        }
        let Ok(found) = self.0.at(path) else { return Found::Nothing };
        match found.value.iter().find(|(taken, _)| taken == method) {
            Some((_, endpoint)) => {
                let parameter = found.params.iter().next().map(|(_, value)| value.to_owned());
                Found::Endpoint(*endpoint, parameter.unwrap_or_default())
            }
            None => Found::OtherMethods(allow(found.value)),
        }
    }
}

fn allow(methods: &[(Method, Endpoint)]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_says_what_the_router_does() {
        let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let mut documented = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().filter(|key| *key != "parameters")
            {
                documented.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let mut routed: BTreeSet<String> = ROUTES
            .iter()
            .flat_map(|(path, methods)| {
                methods.iter().map(move |(method, _)| format!("{method} {path}"))
            })
            .collect();
        routed.extend(["/", "/openapi.json", "/asyncapi.json"].map(|path| format!("GET {path}")));
        assert_eq!(documented, routed);
    }

    #[test]
    fn own_addresses_come_before_those_with_a_parameter() {
        let router = Router::new();
        let endpoint = |path: &str| match router.find(path, &GET) {
            Found::Endpoint(endpoint, parameter) => Some((endpoint, parameter)),
            _ => None,
        };
        assert_eq!(endpoint("/v1/users/me"), Some((E::Me, String::new())));
        assert_eq!(endpoint("/v1/users/x"), Some((E::User, "x".into())));
        assert!(endpoint("/v1/users/").is_none() && endpoint("/v1/users/x/").is_none());
    }
}
