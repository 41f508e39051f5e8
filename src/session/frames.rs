//! A client's WebSocket frames, from bytes to messages (RFC 6455, section 5).
//!
//! Our own reader, since a server of many sockets needs what the library's does not give: an idle
//! socket that holds no buffer, frames that are read in place, unmasked ones refused, and a read
//! that can be given up at any time. The library does the handshake and the unmasking.

use fastwebsockets::{OpCode, unmask};

use crate::matches::Close;
use crate::protocol::{Codec, MESSAGE_BYTES_MAX};

/// Longest payload of a control frame (RFC 6455 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// The bit that ends a message, in a frame's first byte.
const FIN: u8 = 0x80;
/// The bits that no extension of ours gives a meaning.
const RESERVED: u8 = 0x70;
/// The bit that says that a mask follows, in a frame's second byte.
const MASKED: u8 = 0x80;

/// What a client sent, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// A message of the agreed kind. Not yet known to be UTF-8.
    Message(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// A sign of life.
    Pong,
    /// To be answered by a close with the same code.
    Close(u16),
}

/// What is left over between two reads: nothing, most of the time.
pub(super) struct Decoder {
    /// The opcode of the agreed kind of messages.
    kind: OpCode,
    /// The start of a frame whose end has not come.
    unfinished: Vec<u8>,
    /// The parts so far of a message whose last frame has not come.
    fragments: Option<Vec<u8>>,
}

/// A frame's head.
struct Head {
    fin: bool,
    opcode: OpCode,
    /// Where the payload begins; the mask is before it.
    payload_at: usize,
    payload_bytes: usize,
}

impl Decoder {
    pub(super) fn new(codec: Codec) -> Self {
        let kind = match codec {
            Codec::Json => OpCode::Text,
            Codec::MessagePack => OpCode::Binary,
        };
        Self { kind, unfinished: Vec::new(), fragments: None }
    }

    /// Takes what was read and gives all that is whole by now to `each`, until `each` or a frame
    /// that breaks the rules says how to close.
    pub(super) fn feed(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Incoming) -> Result<(), Close>,
    ) -> Result<(), Close> {
        if self.unfinished.is_empty() {
            let used = self.frames(bytes, each)?;
            self.unfinished.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.unfinished);
        whole.extend_from_slice(bytes);
        let used = self.frames(&mut whole, each)?;
        if used < whole.len() {
            whole.drain(..used);
            self.unfinished = whole;
        }
        Ok(())
    }

    /// Gives all whole frames and returns how many bytes they took.
    fn frames(
        &mut self,
        bytes: &mut [u8],
        each: &mut impl FnMut(Incoming) -> Result<(), Close>,
    ) -> Result<usize, Close> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..])? {
            self.check(&head)?;
            let frame = &mut bytes[used..];
            let Some(frame) = frame.get_mut(..head.payload_at + head.payload_bytes) else { break };
            used += frame.len();
            let (before, payload) = frame.split_at_mut(head.payload_at);
            let Some(mask) = before.last_chunk::<4>() else { return Err(Close::PROTOCOL) };
            unmask(payload, *mask);
            self.frame(&head, payload, each)?;
        }
        Ok(used)
    }

    /// What the head alone tells; nobody waits for the payload of a frame that is refused.
    fn check(&self, head: &Head) -> Result<(), Close> {
        let begun = self.fragments.as_ref();
        match head.opcode {
            OpCode::Continuation if begun.is_none() => Err(Close::PROTOCOL),
            OpCode::Text | OpCode::Binary if begun.is_some() => Err(Close::PROTOCOL),
            OpCode::Text | OpCode::Binary if head.opcode != self.kind => Err(Close::WRONG_KIND),
            OpCode::Continuation | OpCode::Text | OpCode::Binary => {
                let room = MESSAGE_BYTES_MAX - begun.map_or(0, Vec::len);
                if head.payload_bytes > room { Err(Close::TOO_BIG) } else { Ok(()) }
            }
            OpCode::Close | OpCode::Ping | OpCode::Pong => {
                let whole = head.fin && head.payload_bytes <= CONTROL_BYTES_MAX;
                if whole { Ok(()) } else { Err(Close::PROTOCOL) }
            }
        }
    }

    fn frame(
        &mut self,
        head: &Head,
        payload: &[u8],
        each: &mut impl FnMut(Incoming) -> Result<(), Close>,
    ) -> Result<(), Close> {
        match head.opcode {
            OpCode::Ping => each(Incoming::Ping(payload)),
            OpCode::Pong => each(Incoming::Pong),
            OpCode::Close => each(Incoming::Close(close_code(payload)?)),
            OpCode::Text | OpCode::Binary if head.fin => each(Incoming::Message(payload)),
            OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                let mut message = self.fragments.take().unwrap_or_default();
                message.extend_from_slice(payload);
                if head.fin {
                    return each(Incoming::Message(&message));
                }
                self.fragments = Some(message);
                Ok(())
            }
        }
    }
}

impl Head {
    /// The head that `bytes` begin with; `None` if it is not all there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Close> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = OpCode::try_from(first & 0x0F).map_err(|_| Close::PROTOCOL)?;
        if first & RESERVED != 0 || second & MASKED == 0 {
            return Err(Close::PROTOCOL);
        }
        let (length, length_bytes) = match second & !MASKED {
            126 => (rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))), 2),
            127 => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), 8),
            length => (Some(u64::from(length)), 0),
        };
        let Some(length) = length else { return Ok(None) };
        let payload_bytes = usize::try_from(length).map_err(|_| Close::TOO_BIG)?;
        let fin = first & FIN != 0;
        Ok(Some(Self { fin, opcode, payload_at: 2 + length_bytes + 4, payload_bytes }))
    }
}

/// The code of a close frame (RFC 6455 5.5.1 and 7.4); 1000 where there is none.
fn close_code(payload: &[u8]) -> Result<u16, Close> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(1000) } else { Err(Close::PROTOCOL) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Close::PROTOCOL);
    }
    std::str::from_utf8(reason).map_err(|_| Close::BAD_UTF8)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client's frame.
    fn frame(first_byte: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![first_byte];
        match payload.len() {
            length @ 0..=125 => frame.push(MASKED | u8::try_from(length).unwrap()),
            length @ 126..=0xFFFF => {
                frame.push(MASKED | 0x7E);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(MASKED | 0x7F);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// What a decoder makes of these reads, and how it ended.
    fn decode<'a>(reads: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Result<(), Close>) {
        let mut decoder = Decoder::new(Codec::Json);
        let mut messages = Vec::new();
        for read in reads {
            let fed = decoder.feed(&mut read.to_vec(), &mut |incoming| {
                match incoming {
                    Incoming::Message(message) => messages.push(message.to_vec()),
                    Incoming::Ping(_) | Incoming::Pong => {}
                    Incoming::Close(code) => return Err(Close { code, reason: "" }),
                }
                Ok(())
            });
            if let Err(close) = fed {
                return (messages, Err(close));
            }
        }
        assert!(decoder.unfinished.is_empty() && decoder.unfinished.capacity() == 0);
        (messages, Ok(()))
    }

    proptest! {
        /// However a stream is cut into reads and messages into frames, the messages are the same.
        #[test]
        fn cuts_change_nothing(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..5),
            parts in 1_usize..4,
            mask in any::<[u8; 4]>(),
            read_bytes in 1_usize..900,
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                let size = message.len() / parts + 1;
                let chunks: Vec<&[u8]> = if message.is_empty() {
                    vec![&[][..]]
                } else {
                    message.chunks(size).collect()
                };
                for (index, chunk) in chunks.iter().enumerate() {
                    let opcode = u8::from(index == 0);
                    let fin = if index + 1 == chunks.len() { FIN } else { 0 };
                    stream.extend(frame(fin | opcode, chunk, mask));
                    stream.extend(frame(0x8A, b"between", mask));
                }
            }
            let (decoded, end) = decode(stream.chunks(read_bytes));
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(decoded, messages);
        }

        /// No bytes make it panic, or hold more than a message and a frame of it.
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::new(Codec::Json);
            for read in bytes.chunks(97) {
                if decoder.feed(&mut read.to_vec(), &mut |_| Ok(())).is_err() {
                    break;
                }
                prop_assert!(decoder.unfinished.len() <= MESSAGE_BYTES_MAX + 14);
            }
        }
    }

    #[test]
    fn codes_that_must_not_be_sent_are_refused() {
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert_eq!(close_code(&code.to_be_bytes()), Err(Close::PROTOCOL), "{code}");
        }
        assert_eq!(close_code(b"\x03\xe9bye"), Ok(1001));
        assert_eq!(close_code(b"\x03\xe9\xff"), Err(Close::BAD_UTF8));
        assert_eq!(close_code(b""), Ok(1000));
        assert_eq!(close_code(b"\x03"), Err(Close::PROTOCOL));
    }
}
