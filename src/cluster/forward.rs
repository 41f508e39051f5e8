//! Passes requests on to the node that plays a match: one hop.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::platform;
use crate::store::NodeRecord;
use crate::tls::{self, Stream};

/// How long a node may take to accept a connection, with the handshake of TLS.
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

/// Sends a request to a node and gives its answer.
pub async fn request<B>(
    node: &NodeRecord,
    request: hyper::Request<B>,
) -> Result<hyper::Response<Incoming>, ForwardError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |error: &dyn std::fmt::Display| ForwardError::Unreachable {
        address: node.address.clone(),
        error: error.to_string(),
    };
    let connect = timeout(CONNECT_TIMEOUT, connect(node)).await;
    let stream = connect.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let handshake = http1::handshake::<_, B>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    tokio::spawn(connection.with_upgrades());
    let answer = timeout(HEAD_TIMEOUT, sender.send_request(request)).await;
    answer.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

async fn connect(node: &NodeRecord) -> io::Result<Stream> {
    let stream = TcpStream::connect(&node.address).await?;
    let _ = platform::tune(&stream);
    match node.certificate {
        Some(certificate) => tls::connect(stream, certificate).await,
        None => Ok(Stream::Plain(stream)),
    }
}
