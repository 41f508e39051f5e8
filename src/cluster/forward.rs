//! Passes requests on to the node that plays a match: one hop.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::platform;

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request could not be passed on.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The node does not answer; it may be gone.
    #[error("node at {address}: {error}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        error: String,
    },
}

/// Sends a request to the node at `address` and gives its answer.
pub async fn request<B>(
    address: &str,
    request: hyper::Request<B>,
) -> Result<hyper::Response<Incoming>, ForwardError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |error: &dyn std::fmt::Display| ForwardError::Unreachable {
        address: address.to_owned(),
        error: error.to_string(),
    };
    let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connect.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let _ = platform::tune(&stream);
    let handshake = http1::handshake::<_, B>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    tokio::spawn(connection.with_upgrades());
    let answer = timeout(HEAD_TIMEOUT, sender.send_request(request)).await;
    answer.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
