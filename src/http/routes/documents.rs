//! The web client with the documents, and the public keys.

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY,
};

use crate::http::server::{Request, Response};
use crate::http::{Http, empty};
use crate::web::{self, Asset};

pub(super) fn jwks(http: &Http) -> Response {
    let mut response = Response::new(Full::from(http.users.tokens().keys().jwks()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    response
}

/// A file of the web client or a document, if the browser has not got it.
pub(in crate::http) fn asset(asset: &'static Asset, request: &Request) -> Response {
    let gzip = takes_gzip(request.headers());
    let mut response = if is_known(request.headers(), asset.etag) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let body =
            if gzip { Bytes::from_static(asset.gzip) } else { Bytes::from(asset.identity()) };
        Response::new(Full::new(body))
    };
    let caching = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let fields: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, asset.content_type),
        (CACHE_CONTROL, caching),
        (ETAG, asset.etag),
        (VARY, "accept-encoding"),
        (CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let headers = response.headers_mut();
    headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether the client takes gzip (RFC 9110 12.5.3): named, and not with a weight of zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.parse::<f32>().ok());
        coding.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

/// Whether the client has this version (RFC 9110 13.1.2: weak comparison).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
