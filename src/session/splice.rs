//! A socket of a match that another node plays: its bytes are passed on as they are.
//!
//! Both directions go by themselves, so a client that writes before it reads is served as it would
//! be by its own node. Whatever becomes of that node, the client is told to come back.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::OpCode;
use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use super::{CLOSE_LINGER, CLOSE_WRITE_TIMEOUT, linger, read};
use crate::matches::Close;
use crate::protocol::{Codec, Frame};
use crate::tls::Stream;

/// How long one side may take nothing of what waits for it: as long as a socket may be silent.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Passes the bytes of a socket on until one side ends it, or until `stop`.
pub async fn splice(
    (client, from_client): (Stream, Bytes),
    (owner, from_owner): (Stream, Bytes),
    stop: impl Future<Output = ()>,
) {
    let (mut from_client_on, mut client) = split(client);
    let (mut from_owner_on, mut owner) = split(owner);
    let (mut up, mut down) = (Way::new(from_client), Way::new(from_owner));
    let rest = tokio::select! {
        over = up.pass_all(&mut from_client_on, &mut owner) => match over {
            // It may read on to the answer to its close.
            Over::From => owner.shutdown().await.map_or(Rest::Nothing, |()| Rest::All),
            // That node's last words may be on their way.
            Over::To => Rest::All,
        },
        over = down.pass_all(&mut from_owner_on, &mut client) => match over {
            Over::From => Rest::Nothing,
            Over::To => return,
        },
        () = stop => Rest::Frame,
    };
    let last = async {
        down.pass_rest(&mut from_owner_on, &mut client, rest).await?;
        if down.frames.is_between() && !down.frames.closed {
            let Close { code, reason } = Close::COME_BACK;
            // A control frame is the same in every codec.
            client.write_all(Frame::close(code, reason).bytes(Codec::Json)).await?;
        }
        client.shutdown().await
    };
    let last = timeout(CLOSE_WRITE_TIMEOUT, last).await;
    // That node need not wait for the client.
    drop((owner, from_owner_on));
    if let Ok(Ok(())) = last {
        let linger = linger(&mut from_client_on);
        let _: Result<io::Result<()>, _> = timeout(CLOSE_LINGER, linger).await;
    }
}

type From = ReadHalf<Stream>;
type To = WriteHalf<Stream>;

/// Which side of a [`Way`] is over.
enum Over {
    From,
    To,
}

/// What is still passed on before the end.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    /// What was read already.
    Nothing,
    /// The frame that is on its way.
    Frame,
    /// All that comes.
    All,
}

/// One direction. An idle one holds no buffer.
struct Way {
    /// What was read and not yet written.
    waiting: Bytes,
    frames: Frames,
}

impl Way {
    fn new(waiting: Bytes) -> Self {
        let mut frames = Frames::default();
        frames.advance(&waiting);
        Self { waiting, frames }
    }

    /// Passes on until one side is over. Can be given up at any time and gone on with.
    async fn pass_all(&mut self, from: &mut From, to: &mut To) -> Over {
        loop {
            if self.write(to).await.is_err() {
                return Over::To;
            }
            match self.read(from).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Over::From,
            }
        }
    }

    async fn pass_rest(&mut self, from: &mut From, to: &mut To, rest: Rest) -> io::Result<()> {
        self.write(to).await?;
        while rest == Rest::All || rest == Rest::Frame && !self.frames.is_between() {
            if !self.read(from).await? {
                break;
            }
            self.write(to).await?;
        }
        Ok(())
    }

    /// Reads what there is; false at the end.
    async fn read(&mut self, from: &mut From) -> io::Result<bool> {
        self.waiting = read(from, Bytes::copy_from_slice).await?;
        self.frames.advance(&self.waiting);
        Ok(!self.waiting.is_empty())
    }

    /// Writes what waits.
    async fn write(&mut self, to: &mut To) -> io::Result<()> {
        let write = async {
            to.write_all_buf(&mut self.waiting).await?;
            to.flush().await
        };
        timeout(STALL_MAX, write).await??;
        // What it was a part of goes, too.
        self.waiting = Bytes::new();
        Ok(())
    }
}

/// Knows where the frames of a server end (RFC 6455 5.2; they are not masked).
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    payload_left: u64,
    /// Whether the last one was a close.
    closed: bool,
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
                self.closed = self.head[0] & 0x0F == OpCode::Close as u8;
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
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    /// What a client reads that is told to come back.
    fn come_back() -> Vec<u8> {
        Frame::close(Close::COME_BACK.code, Close::COME_BACK.reason).bytes(Codec::Json).to_vec()
    }

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A client, the node that plays its match, and what passes on between them until it is stopped.
    async fn spliced() -> (TcpStream, TcpStream, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, client_side) = pair(&listener).await;
        let (owner, owner_side) = pair(&listener).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let splice = tokio::spawn(async move {
            let side = |stream| (Stream::Plain(stream), Bytes::new());
            let (client, owner) = (side(client_side), side(owner_side));
            splice(client, owner, async { drop(stopped.await) }).await;
        });
        (client, owner, stop, splice)
    }

    async fn all(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_stop_comes_after_the_frame_and_is_read_by_who_goes_on_writing() {
        let (mut client, mut owner, stop, splice) = spliced().await;
        client.write_all(b"up").await.unwrap();
        owner.read_exact(&mut [0; 2]).await.unwrap();
        owner.write_all(&[0x81, 4, b'd']).await.unwrap();
        client.read_exact(&mut [0; 3]).await.unwrap();
        stop.send(()).unwrap();
        client.write_all(&vec![7; 100_000]).await.unwrap();
        owner.write_all(b"own").await.unwrap();
        let mut last = vec![0; 3 + come_back().len()];
        client.read_exact(&mut last).await.unwrap();
        assert_eq!(last, [b"own", &come_back()[..]].concat());
        // What nobody reads any more does no harm to what was told.
        client.write_all(&vec![7; 100_000]).await.unwrap();
        assert!(all(&mut client).await.is_empty());
        drop(client);
        splice.await.unwrap();
    }

    #[tokio::test]
    async fn who_loses_the_other_node_is_told_to_come_back() {
        let (mut client, owner, _stop, _splice) = spliced().await;
        drop(owner);
        assert_eq!(all(&mut client).await, come_back());
        // Within a frame there is nothing more to say.
        let (mut client, mut owner, _stop, _splice) = spliced().await;
        owner.write_all(&[0x81, 4, b'd']).await.unwrap();
        drop(owner);
        assert_eq!(all(&mut client).await, [0x81, 4, b'd']);
    }

    #[tokio::test]
    async fn a_close_is_passed_on_both_ways_and_nothing_after_it() {
        let (mut client, mut owner, _stop, splice) = spliced().await;
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(all(&mut owner).await, b"bye");
        owner.write_all(&[0x88, 2, 3, 0xE8]).await.unwrap();
        drop(owner);
        assert_eq!(all(&mut client).await, [0x88, 2, 3, 0xE8]);
        drop(client);
        splice.await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_read_holds_nothing_for_long() {
        let (client, mut owner, stop, splice) = spliced().await;
        let flood = tokio::spawn(async move {
            let frame = [vec![0x82, 126, 0xFF, 0xFF], vec![0; 0xFFFF]].concat();
            while owner.write_all(&frame).await.is_ok() {}
        });
        // Until nothing goes any more.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.send(()).unwrap();
        timeout(CLOSE_WRITE_TIMEOUT * 2, splice).await.unwrap().unwrap();
        flood.await.unwrap();
        drop(client);
    }

    #[test]
    fn ends_of_frames_are_found_however_they_come() {
        let mut stream = vec![0x81, 0, 0x81, 3, 1, 2, 3, 0x82, 126, 1, 0];
        stream.extend([7; 256]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend(vec![9; 65_536]);
        stream.extend([0x88, 2, 3, 0xE8]);
        let ends = [2, 7, 267, stream.len() - 4, stream.len()];
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for part in stream.chunks(step) {
                frames.advance(part);
                at += part.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{at} by {step}");
            }
            assert!(frames.closed);
        }
    }
}
