//! What another node has to answer: requests and sockets of a match that is played there.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, FORWARDED, HeaderValue, TRANSFER_ENCODING};
use hyper::{StatusCode, Uri};

use super::sockets::{below, is_websocket};
use crate::auth::Claims;
use crate::cluster::forward;
use crate::http::problem::Refusal;
use crate::http::proxies::X_FORWARDED_FOR;
use crate::http::server::{Connection, Request, Response, begun};
use crate::http::{Client, Http, PassedOn, X_NODE, X_REQUEST_ID};
use crate::session::splice;
use crate::store::NodeRecord;
use crate::telemetry::figures::{FORWARDS, Forwarded, SOCKETS_FORWARDED};

/// Longest answer that is passed on: a page of the largest events.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether another node has passed this request on: it is not passed on again.
pub(super) fn is_passed_on(request: &Request) -> bool {
    request.extensions().get::<PassedOn>().is_some()
}

/// Lets `node` answer, for whom `claims` speak.
pub(super) async fn pass_on(
    http: &Arc<Http>,
    mut request: Request,
    claims: &Claims,
    node: &NodeRecord,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    if is_passed_on(&request) {
        return Err(Refusal::unavailable("the match moves: try again"));
    }
    let uri = without_ticket(request.uri());
    *request.uri_mut() = uri.ok_or_else(|| Refusal::malformed("the address can't be read"))?;
    let token = HeaderValue::try_from(http.nodes.issue(claims, SystemTime::now()));
    let client = Client::of(&request, connection).to_string();
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    headers.remove(FORWARDED);
    if let Ok(client) = HeaderValue::try_from(client) {
        headers.insert(X_FORWARDED_FOR, client);
    }
    headers.insert(X_NODE, token.map_err(|_| Refusal::internal())?);
    if is_websocket(&request) {
        return pass_on_socket(http, request, node, connection).await;
    }
    request.headers_mut().remove(CONNECTION);
    let answer = forward::request(node, request).await.map_err(|error| away(&error))?;
    FORWARDS.of(Forwarded::Request).increment();
    collected(answer).await
}

/// A node's whole answer, without what belongs to the connection that it came by.
async fn collected(answer: hyper::Response<Incoming>) -> Result<Response, Refusal> {
    let (mut parts, body) = answer.into_parts();
    let broken = |_| Refusal::unavailable("the node that plays the match broke off: try again");
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(broken)?.to_bytes();
    for name in [CONNECTION, TRANSFER_ENCODING, X_REQUEST_ID] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}

async fn pass_on_socket(
    http: &Arc<Http>,
    mut request: Request,
    node: &NodeRecord,
    connection: &Arc<Connection>,
) -> Result<Response, Refusal> {
    let client = hyper::upgrade::on(&mut request);
    let request = request.map(|_| Empty::<Bytes>::new());
    let mut answer = forward::request(node, request).await.map_err(|error| away(&error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return collected(answer).await;
    }
    FORWARDS.of(Forwarded::Socket).increment();
    let owner = hyper::upgrade::on(&mut answer);
    let (connection, mut draining) = (Arc::clone(connection), http.draining.subscribe());
    let (cluster, owner_id) = (Arc::clone(&http.cluster), node.id);
    tokio::spawn(async move {
        let _forwarded = SOCKETS_FORWARDED.hold();
        if let (Ok(client), Ok(owner)) = (client.await, owner.await)
            && let (Some(client), Some(owner)) = (below(client), below(owner))
        {
            let stop = async {
                tokio::select! {
                    () = begun(&mut draining) => {}
                    () = cluster.gone(owner_id) => {}
                }
            };
            splice(client, owner, stop).await;
        }
        drop(connection);
    });
    Ok(answer.map(|_| Full::new(Bytes::new())))
}

/// The same address without a ticket, which is used up.
fn without_ticket(uri: &Uri) -> Option<Uri> {
    let query = uri.query().unwrap_or_default();
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("ticket=")).collect();
    let query = kept.join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}{mark}{query}", uri.path()).parse().ok()
}

fn away(error: &forward::ForwardError) -> Refusal {
    FORWARDS.of(Forwarded::Failed).increment();
    tracing::warn!(%error, "a request could not be passed on");
    Refusal::unavailable("the node that plays the match does not answer: try again")
}
