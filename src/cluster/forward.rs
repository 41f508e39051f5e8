//! Passes requests and sockets on to the node that plays a match: one hop, and a socket's bytes are
//! left as they are.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::platform;

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to begin its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// What is passed on at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long the rest of a frame may take when a socket is to be closed after it.
const FRAME_TIMEOUT: Duration = Duration::from_secs(1);

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

/// Passes the bytes of a socket on in both directions until one side ends it, or until `stop`: then the
/// client is told `farewell`, a whole frame, after the frame that is on its way.
pub async fn splice(
    client: (TcpStream, Bytes),
    owner: (TcpStream, Bytes),
    stop: impl Future<Output = ()>,
    farewell: &[u8],
) -> io::Result<()> {
    let ((mut client, from_client), (mut owner, from_owner)) = (client, owner);
    let mut frames = Frames::default();
    owner.write_all(&from_client).await?;
    frames.advance(&from_owner);
    client.write_all(&from_owner).await?;
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            ready = client.readable() => {
                ready?;
                if !pass_on(&client, &mut owner, |_| ()).await? {
                    return Ok(());
                }
            }
            ready = owner.readable() => {
                ready?;
                if !pass_on(&owner, &mut client, |bytes| frames.advance(bytes)).await? {
                    return client.shutdown().await;
                }
            }
            () = stop.as_mut() => break,
        }
    }
    let rest = async {
        while !frames.is_between() {
            owner.readable().await?;
            if !pass_on(&owner, &mut client, |bytes| frames.advance(bytes)).await? {
                break;
            }
        }
        client.write_all(farewell).await?;
        client.shutdown().await
    };
    timeout(FRAME_TIMEOUT, rest).await?
}

/// Passes on what there is to read; false at the end. An idle socket holds no buffer.
async fn pass_on(
    from: &TcpStream,
    to: &mut TcpStream,
    mut look: impl FnMut(&[u8]),
) -> io::Result<bool> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
    }
    let rest = BUFFER.with_borrow_mut(|buffer| {
        let count = match from.try_read(buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let read = &buffer[..count];
        look(read);
        let written = match to.try_write(read) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        Ok(Some(read[written..].to_vec()))
    })?;
    let Some(rest) = rest else { return Ok(false) };
    to.write_all(&rest).await?;
    Ok(true)
}

/// Knows where the frames of a server end (RFC 6455 5.2; they are not masked).
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    payload_left: u64,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.head.is_empty() && self.payload_left == 0
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let part =
                    usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= part as u64;
                bytes = &bytes[part..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = payload_bytes(&self.head) {
                self.payload_left = length;
                self.head.clear();
            }
        }
    }
}

/// The length that a whole head tells.
fn payload_bytes(head: &[u8]) -> Option<u64> {
    match *head.get(1)? {
        126 => {
            head.get(2..4).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes).map(u64::from)
        }
        127 => head.get(2..10).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes),
        length => Some(u64::from(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn ends_of_frames_are_found_however_they_come() {
        let mut stream = vec![0x81, 0, 0x81, 3, 1, 2, 3, 0x82, 126, 1, 0];
        stream.extend([7; 256]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend(vec![9; 65_536]);
        let ends = [2, 7, 267, stream.len()];
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for part in stream.chunks(step) {
                frames.advance(part);
                at += part.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{at} by {step}");
            }
        }
    }
}
