//! What waits to be written to one socket: a bounded queue of frames that many sockets share.
//!
//! Pushing never waits. A reader that is too slow to keep the queue below its bounds is closed with
//! 4002; what it missed it can have again with `?after=`. Views of `ticks` games are no such thing:
//! of those one waits at most, the latest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::protocol::{Codec, Frame};

/// Frames that may wait for one socket.
pub const OUTBOX_FRAMES_MAX: usize = 4096;
/// Bytes that may wait for one socket. One large answer passes always: the queue may be empty.
pub const OUTBOX_BYTES_MAX: usize = 512 * 1024;
/// A queue that grew in a burst gives its memory back from here on, in frames.
const KEPT_FRAMES: usize = 16;

/// Why a socket is closed: a WebSocket close code (RFC 6455 7.4, and the project's own from 4000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// For people; 123 bytes at most.
    pub reason: &'static str,
}

impl Close {
    /// The match is over.
    pub const OVER: Self = Self { code: 1000, reason: "the match is over" };
    /// The client did not answer pings.
    pub const SILENT: Self = Self { code: 1001, reason: "no sign of life" };
    /// A frame that breaks RFC 6455.
    pub const PROTOCOL: Self = Self { code: 1002, reason: "frame breaks RFC 6455" };
    /// Binary where text was agreed, or the other way round.
    pub const WRONG_KIND: Self = Self { code: 1003, reason: "wrong kind of frame" };
    /// Text that is not UTF-8.
    pub const BAD_UTF8: Self = Self { code: 1007, reason: "text is not UTF-8" };
    /// Longer than [`crate::protocol::MESSAGE_BYTES_MAX`].
    pub const TOO_BIG: Self = Self { code: 1009, reason: "message over 64 KiB" };
    /// The session ended.
    pub const REVOKED: Self = Self { code: 1008, reason: "signed out" };
    /// Left a private match.
    pub const LEFT: Self = Self { code: 1008, reason: "left a private match" };
    /// Went on sending although it was refused.
    pub const FLOODING: Self = Self { code: 1008, reason: "flooding" };
    /// The store is away and too many answers wait for it.
    pub const TRY_LATER: Self = Self { code: 1013, reason: "try again later" };
    /// The server stops, or the match moves: come back at once with `?after=`.
    pub const COME_BACK: Self = Self { code: 1012, reason: "come back with after" };
    /// The player has a newer socket.
    pub const REPLACED: Self = Self { code: 4001, reason: "connected elsewhere" };
    /// Does not read what it is sent.
    pub const TOO_SLOW: Self = Self { code: 4002, reason: "too slow to read" };
}

/// One socket's queue; the socket's task takes from it, the matches push to it.
pub struct Outbox {
    /// What the socket speaks.
    pub codec: Codec,
    /// Whether it takes views as differences from the one before.
    pub differences: bool,
    /// When the client was last heard, in seconds of the registry's clock.
    pub heard_at: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Arc<Frame>>,
    /// Where in the queue a view waits.
    view_at: Option<usize>,
    bytes: usize,
    close: Option<Close>,
    waker: Option<Waker>,
    /// What the task waits for.
    wakes: Wakes,
}

/// What wakes a socket's task.
#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
enum Wakes {
    /// Nothing: it runs.
    #[default]
    Never,
    /// That the socket is to be closed: it can't write more just now.
    OnClose,
    /// Frames too.
    Always,
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It waits for its client, and for something to write.
    Idle,
    /// It runs, or is about to.
    Running,
    /// Its client does not read as fast as it is written to.
    Writing,
    /// It is to end.
    Closing,
}

impl Activity {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Writing => "writing",
            Self::Closing => "closing",
        }
    }
}

impl Outbox {
    /// An empty one.
    pub fn new(codec: Codec, differences: bool, now: u32) -> Arc<Self> {
        let heard_at = AtomicU32::new(now);
        Arc::new(Self { codec, differences, heard_at, inner: Mutex::default() })
    }

    /// Queues a frame; one too many closes the socket instead. After a close nothing is queued.
    pub fn push(&self, frame: &Arc<Frame>) {
        self.queue(&mut self.lock(), frame);
    }

    /// Queues a view in the place of one that waits still; `choose` is told whether one does, since
    /// the socket does not have that one then.
    pub fn push_view(&self, choose: impl FnOnce(bool) -> Arc<Frame>) {
        let mut inner = self.lock();
        let waits = inner.view_at.take();
        if let Some(frame) = waits.and_then(|place| inner.queue.remove(place)) {
            inner.bytes -= frame.bytes(self.codec).len();
        }
        let place = inner.queue.len();
        self.queue(&mut inner, &choose(waits.is_some()));
        inner.view_at = inner.close.is_none().then_some(place);
    }

    fn queue(&self, inner: &mut Inner, frame: &Arc<Frame>) {
        if inner.close.is_some() {
            return;
        }
        let bytes = frame.bytes(self.codec).len();
        if inner.queue.len() >= OUTBOX_FRAMES_MAX
            || (inner.bytes > 0 && inner.bytes + bytes > OUTBOX_BYTES_MAX)
        {
            // It would not read them either.
            inner.queue = VecDeque::new();
            inner.close = Some(Close::TOO_SLOW);
            inner.wake(Wakes::OnClose);
        } else {
            inner.bytes += bytes;
            inner.queue.push_back(Arc::clone(frame));
            inner.wake(Wakes::Always);
        }
    }

    /// Queues the first frames of a socket, however many: it has had nothing to read before.
    pub fn push_all(&self, frames: Vec<Arc<Frame>>) {
        let mut inner = self.lock();
        if inner.close.is_none() {
            inner.queue.extend(frames);
            inner.wake(Wakes::Always);
        }
    }

    /// What is still queued when the socket ends.
    pub fn take_rest(&self) -> VecDeque<Arc<Frame>> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Closes the socket after what is queued. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut inner = self.lock();
        inner.close.get_or_insert(close);
        inner.wake(Wakes::OnClose);
    }

    /// The socket's task runs: it need not be woken until it asks for it.
    pub fn disarm(&self) {
        self.lock().wakes = Wakes::Never;
    }

    /// Swaps all that waits for the empty `frames`; ready if there was anything, or a close.
    pub fn poll_take(
        &self,
        cx: &mut Context<'_>,
        frames: &mut VecDeque<Arc<Frame>>,
    ) -> Poll<Option<Close>> {
        let mut inner = self.lock();
        if inner.queue.is_empty() && inner.close.is_none() {
            inner.arm(Wakes::Always, cx);
            return Poll::Pending;
        }
        debug_assert!(frames.is_empty(), "what was taken is written before more is taken");
        (inner.bytes, inner.view_at) = (0, None);
        std::mem::swap(frames, &mut inner.queue);
        if inner.queue.capacity() > KEPT_FRAMES {
            inner.queue = VecDeque::new();
        }
        Poll::Ready(inner.close)
    }

    /// Ready once the socket is to be closed, whatever waits.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut inner = self.lock();
        if let Some(close) = inner.close {
            return Poll::Ready(close);
        }
        inner.arm(Wakes::OnClose, cx);
        Poll::Pending
    }

    /// What the socket is doing, and how many frames wait for it.
    pub fn activity(&self) -> (Activity, usize) {
        let inner = self.lock();
        let activity = match inner.wakes {
            _ if inner.close.is_some() => Activity::Closing,
            Wakes::Never => Activity::Running,
            Wakes::OnClose => Activity::Writing,
            Wakes::Always => Activity::Idle,
        };
        (activity, inner.queue.len())
    }

    /// The registry's clock at the last sign of life.
    pub fn heard(&self) -> u32 {
        self.heard_at.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn arm(&mut self, wakes: Wakes, cx: &Context<'_>) {
        match &mut self.waker {
            Some(known) => known.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.wakes = wakes;
    }

    /// `what` has happened.
    fn wake(&mut self, what: Wakes) {
        if self.wakes >= what
            && let Some(waker) = &self.waker
        {
            self.wakes = Wakes::Never;
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Arc<Frame> {
        Frame::control(fastwebsockets::OpCode::Text, text.as_bytes())
    }

    /// What the socket gets when it takes what waits.
    fn taken(outbox: &Outbox) -> Vec<String> {
        let mut frames = VecDeque::new();
        let taken = outbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut frames);
        assert_eq!(taken, Poll::Ready(None));
        let text = |frame: &Arc<Frame>| String::from_utf8(frame.bytes(Codec::Json)[2..].to_vec());
        frames.iter().map(|frame| text(frame).unwrap()).collect()
    }

    #[test]
    fn of_views_the_latest_waits_alone_and_in_its_place() {
        let outbox = Outbox::new(Codec::Json, true, 0);
        let show = |whole: &str, difference: &str| {
            outbox.push_view(|waits| frame(if waits { whole } else { difference }));
        };
        outbox.push(&frame("event 1"));
        show("whole 1", "difference 1");
        outbox.push(&frame("event 2"));
        show("whole 2", "difference 2");
        outbox.push(&frame("event 3"));
        assert_eq!(taken(&outbox), ["event 1", "event 2", "whole 2", "event 3"]);
        show("whole 3", "difference 3");
        assert_eq!(taken(&outbox), ["difference 3"]);
        // However long nobody reads, views are no reason to close.
        let long = "x".repeat(OUTBOX_BYTES_MAX / 2);
        for _ in 0..2 * OUTBOX_FRAMES_MAX {
            show(&long, &long);
        }
        outbox.push(&frame("event 4"));
        assert_eq!(taken(&outbox).len(), 2);
        outbox.close(Close::OVER);
        show("whole 4", "difference 4");
        assert!(outbox.take_rest().is_empty());
    }
}
