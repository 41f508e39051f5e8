//! One socket: what comes in is decoded and handed to its match, what waits in its outbox goes out.
//!
//! A socket is one task that never waits for anything but its connection and its outbox. Reading
//! uses a buffer of the thread's, and writing the very bytes that all sockets share, so an idle
//! socket holds none. All that waits for it goes out in one write.

mod frames;
mod rate;
mod splice;

pub use splice::splice;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::OpCode;
use tokio::io::{AsyncRead, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use self::frames::{Decoder, Incoming};
use self::rate::Bucket;
use crate::games::Mode;
use crate::matches::{Attachment, Clock, Close, Outbox, problem};
use crate::platform;
use crate::protocol::{
    self, BadMessage, ClientMessage, Codec, Frame, Problem, ServerMessage, msgpack_to_json,
};
use crate::telemetry::figures::{
    BYTES_RECEIVED, BYTES_SENT, COMMANDS, CommandResult, Ended, MESSAGES_RECEIVED, MESSAGES_SENT,
    Received, SOCKETS_CLOSED, SOCKETS_OPENED,
};
use crate::telemetry::trace;
use crate::tls::Stream;

/// What is read at once: the largest message and its head fit.
const READ_BYTES: usize = 72 * 1024;
/// Frames that go out in one write at most; Linux takes 1024 (`IOV_MAX`).
const WRITE_FRAMES_MAX: usize = 64;
/// Bytes that are read in a row; then others get their turn, to write what follows from them too.
const READ_TURN_BYTES: usize = 64 * 1024;
/// A long message counts as several: one more for so many bytes.
const BYTES_PER_TOKEN: usize = 1024;
/// Lines of chat that a socket may send in a second.
const CHATS_PER_SECOND: u32 = 5;
/// How long the other side may take to read what was queued before a close.
const CLOSE_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the other side may take to close after us. Closing earlier, with bytes of its unread,
/// would reset the connection and could take our close frame with it.
const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away meanwhile, at most.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many messages a socket may send in a second, by what is played.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// In games that are played in turns.
    pub turns_per_second: u32,
    /// In relay games.
    pub relay_per_second: u32,
}

/// One connected socket.
struct Session {
    stream: Stream,
    outbox: Arc<Outbox>,
    attachment: Attachment,
    clock: Arc<Clock>,
    decoder: Decoder,
    messages: Bucket,
    chats: Bucket,
    /// What is being written; `written` bytes of its first frame have gone.
    writing: VecDeque<Arc<Frame>>,
    written: usize,
}

/// Serves a socket until either side ends it. `early` is what came right after the handshake.
pub async fn run(
    stream: Stream,
    early: Bytes,
    attachment: Attachment,
    outbox: Arc<Outbox>,
    clock: Arc<Clock>,
    rates: Rates,
) {
    let mode = attachment.info().mode;
    let per_second = match mode {
        Mode::Relay => rates.relay_per_second,
        Mode::Turns | Mode::Ticks => rates.turns_per_second,
    };
    if mode == Mode::Ticks {
        // An error: views that wait in the system are older than they could be.
        let _ = platform::keep_fresh(stream.tcp());
    }
    let mut session = Session {
        stream,
        decoder: Decoder::new(outbox.codec),
        outbox,
        attachment,
        messages: Bucket::new(per_second, clock.now()),
        chats: Bucket::new(CHATS_PER_SECOND, clock.now()),
        clock,
        writing: VecDeque::new(),
        written: 0,
    };
    if let Err(close) = session.receive(&mut Vec::from(early)) {
        session.outbox.close(close);
    }
    SOCKETS_OPENED.increment();
    let ended = poll_fn(|cx| session.poll(cx)).await;
    let code = ended.as_ref().ok().map(|close| close.code);
    SOCKETS_CLOSED.of(Ended::by(code)).increment();
    let Session { stream, outbox, attachment, mut writing, written, .. } = session;
    let seat = attachment.seat().map(|seat| seat.0);
    tracing::debug!(r#match = %attachment.match_id(), seat, code, "a socket ended");
    // Others are told at once that it is gone, not after what is left of the conversation.
    drop(attachment);
    writing.extend(outbox.take_rest());
    if let Ok(close) = ended {
        // Boxed, so that no socket has to hold room for it from the start.
        Box::pin(farewell(stream, outbox.codec, (writing, written), close)).await;
    }
}

/// Writes what was queued before the close, and the close frame.
async fn farewell(
    mut stream: Stream,
    codec: Codec,
    (writing, written): (VecDeque<Arc<Frame>>, usize),
    close: Close,
) {
    let write = async {
        let mut skip = written;
        for frame in writing.iter().chain([&Frame::close(close.code, close.reason)]) {
            stream.write_all(&frame.bytes(codec)[skip..]).await?;
            skip = 0;
        }
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(CLOSE_WRITE_TIMEOUT, write).await {
        let _: Result<io::Result<()>, _> = timeout(CLOSE_LINGER, linger(&mut stream)).await;
    }
}

/// Lets the other side read our close frame and close first.
async fn linger(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut thrown_away = 0;
    while thrown_away < LINGER_BYTES_MAX {
        match read(stream, <[u8]>::len).await? {
            0 => break,
            count => thrown_away += count,
        }
    }
    Ok(())
}

/// Reads once and looks at it where it is; nothing is held while there is nothing to read.
async fn read<T>(
    stream: &mut (impl AsyncRead + Unpin),
    mut look: impl FnMut(&[u8]) -> T,
) -> io::Result<T> {
    poll_fn(|cx| {
        with_buffer(|buffer| {
            let mut unread = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread))?;
            Poll::Ready(Ok(look(unread.filled())))
        })
    })
    .await
}

/// The thread's read buffer, which no task holds across a wait.
fn with_buffer<T>(act: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| act(buffer))
}

impl Session {
    /// Ready with how to close, or an error once the connection is gone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Close>> {
        let mut span = trace::span("socket");
        // What it pushes into its own outbox while it reads need not wake it.
        self.outbox.disarm();
        let mut read = 0;
        while let Poll::Ready(count) = self.poll_read(cx)? {
            read += count;
            span.amount(read);
            if read >= READ_TURN_BYTES {
                cx.waker().wake_by_ref();
                break;
            }
        }
        loop {
            if self.poll_write(cx)?.is_pending() {
                return self.outbox.poll_close(cx).map(Ok);
            }
            if let Some(close) = ready!(self.outbox.poll_take(cx, &mut self.writing)) {
                return Poll::Ready(Ok(close));
            }
        }
    }

    /// Reads once. Ready with how much it was: there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        with_buffer(|buffer| {
            let mut unread = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unread))?;
            let filled = unread.filled_mut();
            if filled.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.outbox.heard_at.store(self.clock.now(), Ordering::Relaxed);
            BYTES_RECEIVED.add(filled.len() as u64);
            match self.receive(filled) {
                Ok(()) => Poll::Ready(Ok(filled.len())),
                Err(close) => {
                    self.outbox.close(close);
                    Poll::Pending
                }
            }
        })
    }

    /// Writes all that was taken, if anything was.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let codec = self.outbox.codec;
            let first = self.writing.front().map(|frame| &frame.bytes(codec)[self.written..]);
            let written = if self.writing.len() == 1 {
                ready!(stream.poll_write(cx, first.unwrap_or_default()))?
            } else {
                let rest = self.writing.iter().skip(1).map(|frame| frame.bytes(codec));
                let mut slices = [IoSlice::new(&[]); WRITE_FRAMES_MAX];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(first.into_iter().chain(rest)) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            };
            self.advance(written);
        }
        // What TLS holds back; in the clear there is nothing.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Lets go of what was written.
    fn advance(&mut self, bytes: usize) {
        BYTES_SENT.add(bytes as u64);
        let waiting = self.writing.len();
        self.written += bytes;
        while let Some(frame) = self.writing.front() {
            let length = frame.bytes(self.outbox.codec).len();
            if self.written < length {
                break;
            }
            self.written -= length;
            self.writing.pop_front();
        }
        MESSAGES_SENT.add((waiting - self.writing.len()) as u64);
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<(), Close> {
        let Self { decoder, attachment, outbox, messages, chats, clock, .. } = self;
        let now = clock.now();
        decoder.feed(bytes, &mut |incoming| {
            let bytes = match incoming {
                Incoming::Message(bytes) => bytes.len(),
                Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_) => 0,
            };
            let within = messages.take(1 + bytes / BYTES_PER_TOKEN, now);
            if messages.is_flood() {
                return Err(Close::FLOODING);
            }
            match incoming {
                Incoming::Message(bytes) => {
                    message(attachment, outbox.codec, bytes, within, || chats.take(1, now))?;
                }
                Incoming::Ping(payload) => outbox.push(&Frame::control(OpCode::Pong, payload)),
                Incoming::Pong => {}
                Incoming::Close(code) => return Err(Close { code, reason: "" }),
            }
            Ok(())
        })
    }
}

/// Does what a message asks for, if it is `within` the rate.
fn message(
    attachment: &Attachment,
    codec: Codec,
    bytes: &[u8],
    within: bool,
    may_chat: impl FnOnce() -> bool,
) -> Result<(), Close> {
    let json;
    let decoded = match codec {
        Codec::Json => protocol::decode(std::str::from_utf8(bytes).map_err(|_| Close::BAD_UTF8)?),
        Codec::MessagePack => match msgpack_to_json(bytes) {
            Ok(text) => {
                json = text;
                protocol::decode(&json)
            }
            Err(bad) => Err(bad),
        },
    };
    let refuse = |id: Option<u64>, problem: &Problem| {
        attachment.reply(&ServerMessage::Error { id, problem });
    };
    let limited = |what: &str| problem("rate-limited", what);
    MESSAGES_RECEIVED.of(kind(decoded.as_ref().ok())).increment();
    match decoded {
        Err(BadMessage { id, detail }) if within => refuse(id, &problem("bad-command", &detail)),
        Err(BadMessage { id, .. }) => refuse(id, &limited(TOO_MANY_MESSAGES)),
        Ok(message) if !within => {
            if let ClientMessage::Command { .. } = message {
                COMMANDS.of(CommandResult::RateLimited).increment();
            }
            refuse(message.id(), &limited(TOO_MANY_MESSAGES));
        }
        Ok(ClientMessage::Command { id, command }) => attachment.command(id, command),
        Ok(ClientMessage::Ping { id }) => attachment.reply(&ServerMessage::Pong { id }),
        Ok(ClientMessage::Chat { text, .. }) if may_chat() => attachment.chat(&text),
        Ok(ClientMessage::Chat { id, .. }) => refuse(id, &limited("too many lines of chat")),
    }
    Ok(())
}

fn kind(message: Option<&ClientMessage<'_>>) -> Received {
    match message {
        Some(ClientMessage::Command { .. }) => Received::Command,
        Some(ClientMessage::Chat { .. }) => Received::Chat,
        Some(ClientMessage::Ping { .. }) => Received::Ping,
        None => Received::Malformed,
    }
}

const TOO_MANY_MESSAGES: &str = "more messages than this game takes: send it again in a second";
