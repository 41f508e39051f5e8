//! The messages of a match's WebSocket, their codecs and their limits.
//!
//! Inside the server a message is JSON text; `MessagePack` exists at the edge alone. A message to
//! clients is encoded once, WebSocket frame head included (RFC 6455 5.2), and the same bytes go to
//! every socket ([`Frame`]). The public contract names the messages; `docs/protocol.md` the rest.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use fastwebsockets::OpCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::games::{Outcome, Seat};
use crate::ids::{MatchId, Timestamp, UserId};
use crate::ratings::RatingChange;

/// Longest message of a client, in bytes, however many frames it takes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a `MessagePack` message, envelope included: as JSON's parser takes it.
const MESSAGE_DEPTH_MAX: usize = 128;
/// Longest chat line, in characters.
pub const CHAT_CHARS_MAX: usize = 500;
/// Largest id of a command: what a JSON number holds exactly in every language.
pub const COMMAND_ID_MAX: u64 = (1 << 53) - 1;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `gameserver.v1.json`: text frames.
    Json,
    /// `gameserver.v1.msgpack`: binary frames.
    MessagePack,
}

impl Codec {
    /// Its name as a WebSocket subprotocol.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "gameserver.v1.json",
            Self::MessagePack => "gameserver.v1.msgpack",
        }
    }

    /// The first of the offered subprotocols (a `Sec-WebSocket-Protocol` list) that there is;
    /// JSON unnamed where none is offered; `None` where none of those offered is known.
    pub fn choose(offered: Option<&str>) -> Option<(Self, Option<&'static str>)> {
        let Some(offered) = offered else { return Some((Self::Json, None)) };
        offered.split(',').map(str::trim).find_map(|name| {
            [Self::Json, Self::MessagePack]
                .into_iter()
                .find(|codec| codec.subprotocol() == name)
                .map(|codec| (codec, Some(codec.subprotocol())))
        })
    }
}

/// What a client asks for.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// A move, or whatever the game takes.
    Command {
        /// The client's counter for this seat.
        id: u64,
        /// The game's own.
        command: &'a RawValue,
    },
    /// A line for everyone in the match.
    Chat {
        /// The client's own, for the answer.
        id: Option<u64>,
        /// The line.
        text: Cow<'a, str>,
    },
    /// Asks for a pong.
    Ping {
        /// Comes back in the pong.
        id: Option<u64>,
    },
}

impl ClientMessage<'_> {
    /// The id that an answer carries.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Command { id, .. } => Some(*id),
            Self::Chat { id, .. } | Self::Ping { id } => *id,
        }
    }
}

/// A message that is none: what is wrong, and the id it carried if that could be read.
#[derive(Debug, PartialEq, Eq)]
pub struct BadMessage {
    /// The message's id.
    pub id: Option<u64>,
    /// What is wrong.
    pub detail: String,
}

/// All fields of all messages; `serde`'s tagged enums would copy the command to look for the tag.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMessage<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    id: Option<u64>,
    #[serde(borrow)]
    command: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// Reads a client's message from JSON text.
pub fn decode(json: &str) -> Result<ClientMessage<'_>, BadMessage> {
    let raw: RawMessage = serde_json::from_str(json).map_err(|error| {
        // The id is worth a second look: without it the client can't tell what was refused.
        #[derive(Deserialize)]
        struct Id {
            id: Option<u64>,
        }
        let id = serde_json::from_str::<Id>(json).ok().and_then(|message| message.id);
        BadMessage { id, detail: format!("not a message: {error}") }
    })?;
    let bad = |detail: &str| BadMessage { id: raw.id, detail: detail.into() };
    match (&*raw.kind, raw.command, raw.text) {
        ("command", Some(command), None) => match raw.id {
            Some(id @ 1..=COMMAND_ID_MAX) => Ok(ClientMessage::Command { id, command }),
            _ => Err(bad("a command needs an id, an integer from 1 to 2^53-1")),
        },
        ("command", None, _) => Err(bad("a command message needs a command")),
        ("chat", None, Some(text)) => {
            let chars = text.chars().take(CHAT_CHARS_MAX + 1).count();
            if chars == 0 || chars > CHAT_CHARS_MAX {
                return Err(bad("a chat text has 1 to 500 characters"));
            }
            if text.chars().any(|c| c.is_control() && c != '\n') {
                return Err(bad("a chat text has no control characters"));
            }
            Ok(ClientMessage::Chat { id: raw.id, text })
        }
        ("chat", None, None) => Err(bad("a chat message needs a text")),
        ("ping", None, None) => Ok(ClientMessage::Ping { id: raw.id }),
        ("command" | "chat" | "ping", ..) => Err(bad("the message has a field of another type's")),
        (other, ..) => {
            Err(bad(&format!("unknown type {other:?}: there are command, chat and ping")))
        }
    }
}

/// Turns a `MessagePack` message into the JSON text it stands for.
pub fn msgpack_to_json(bytes: &[u8]) -> Result<String, BadMessage> {
    let bad = |detail: String| BadMessage { id: None, detail };
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MESSAGE_DEPTH_MAX);
    let value = serde_json::Value::deserialize(&mut reader)
        .map_err(|error| bad(format!("not MessagePack with JSON's values: {error}")))?;
    if !rest.is_empty() {
        return Err(bad("more than one MessagePack value".into()));
    }
    let json = value.to_string();
    if json.len() > MESSAGE_BYTES_MAX {
        // What is passed on is bounded as JSON, whoever sent it.
        return Err(bad("over 64 KiB as JSON".into()));
    }
    Ok(json)
}

/// A player as others see it.
#[derive(Clone, Debug, Serialize)]
pub struct Player {
    /// The seat.
    pub seat: Seat,
    /// The account; null where it is gone.
    pub user: Option<UserId>,
    /// The account's display name.
    pub display_name: String,
    /// Whether a socket holds the seat now.
    pub connected: bool,
}

/// Why something was refused: RFC 9457, as in HTTP answers.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// A URI that ends in a word for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people; the same for all of a type.
    pub title: Cow<'static, str>,
    /// The HTTP status that it would have.
    pub status: u16,
    /// What happened here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The address under which problem types are named.
pub const PROBLEM_BASE: &str = "https://gameserver.com/problems/";

impl Problem {
    /// A problem of the type `word`.
    pub fn new(word: &str, title: &'static str, status: u16, detail: Option<String>) -> Self {
        Self { kind: format!("{PROBLEM_BASE}{word}"), title: title.into(), status, detail }
    }
}

/// What the server says.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// The first of a socket.
    Welcome {
        /// The match.
        r#match: MatchId,
        /// Its game.
        game: &'a str,
        /// `turns`, `ticks` or `relay`.
        mode: crate::games::Mode,
        /// The socket's seat; null for a spectator.
        seat: Option<Seat>,
        /// Where the match is in its life.
        state: crate::store::MatchState,
        /// Who plays.
        players: &'a [Player],
        /// The latest event's number.
        seq: u64,
        /// What this socket may see of the state after it.
        view: &'a RawValue,
        /// The steps so far of a `ticks` game.
        #[serde(skip_serializing_if = "Option::is_none")]
        tick: Option<u64>,
        /// Whether the events after the asked-for number follow.
        resumed: bool,
        /// The highest command id of this seat that was applied.
        last_id: Option<u64>,
    },
    /// An accepted change.
    Event {
        /// Its number.
        seq: u64,
        /// Whose.
        seat: Option<Seat>,
        /// What.
        event: &'a RawValue,
    },
    /// What a socket may see of a `ticks` game after a step: the whole, or how it differs.
    View {
        /// The latest event's number.
        seq: u64,
        /// The step.
        tick: u64,
        /// The whole view.
        #[serde(skip_serializing_if = "Option::is_none")]
        view: Option<&'a RawValue>,
        /// The step of the socket's view from which it differs.
        #[serde(skip_serializing_if = "Option::is_none")]
        base: Option<u64>,
        /// The difference: a JSON merge patch (RFC 7386).
        #[serde(skip_serializing_if = "Option::is_none")]
        patch: Option<&'a RawValue>,
    },
    /// A command was applied.
    Ack {
        /// The command's.
        id: u64,
        /// Of its last event.
        seq: u64,
    },
    /// A seat's socket came or went.
    Presence {
        /// Whose.
        seat: Seat,
        /// Whether it is there.
        connected: bool,
    },
    /// A line for everyone.
    Chat {
        /// The author's seat; null for a spectator.
        seat: Option<Seat>,
        /// The author.
        user: UserId,
        /// The line.
        text: &'a str,
        /// When it came.
        at: Timestamp,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        id: Option<u64>,
    },
    /// The match is over.
    Ended {
        /// Of the end.
        seq: u64,
        /// How.
        outcome: &'a Outcome,
        /// How ratings changed; null where nothing is rated.
        ratings: Option<&'a [RatingChange]>,
    },
    /// Something was refused; nothing changed.
    Error {
        /// What it was.
        id: Option<u64>,
        /// Why.
        problem: &'a Problem,
    },
}

/// A whole WebSocket frame to clients, encoded once and shared by all sockets it goes to.
pub struct Frame {
    json: Box<[u8]>,
    /// Made when the first `MessagePack` socket takes it; a control frame has none of its own.
    msgpack: Option<OnceLock<Box<[u8]>>>,
}

impl Frame {
    /// Encodes a message.
    pub fn message(message: &ServerMessage<'_>) -> Arc<Self> {
        let json = encoded(OpCode::Text, |payload| {
            // All keys are strings and all numbers finite: this can't fail.
            serde_json::to_writer(payload, message).expect("a message is JSON");
        });
        Arc::new(Self { json, msgpack: Some(OnceLock::new()) })
    }

    /// A control frame (RFC 6455 5.5), the same in every codec.
    pub fn control(opcode: OpCode, payload: &[u8]) -> Arc<Self> {
        let json = encoded(opcode, |bytes| bytes.extend_from_slice(payload));
        Arc::new(Self { json, msgpack: None })
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Arc<Self> {
        Self::control(OpCode::Close, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// The bytes for a socket that speaks `codec`.
    pub fn bytes(&self, codec: Codec) -> &[u8] {
        match (codec, &self.msgpack) {
            (Codec::MessagePack, Some(msgpack)) => msgpack.get_or_init(|| self.to_msgpack()),
            _ => &self.json,
        }
    }

    /// Whether `text` stands anywhere in it.
    pub fn mentions(&self, text: &str) -> bool {
        self.json.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn to_msgpack(&self) -> Box<[u8]> {
        // What goes out was checked when it came in, so it can be read back.
        let head = head_bytes(self.json[1]);
        let value: serde_json::Value =
            serde_json::from_slice(&self.json[head..]).unwrap_or_default();
        encoded(OpCode::Binary, |payload| {
            rmp_serde::encode::write_named(payload, &value)
                .expect("memory takes all that is written");
        })
    }
}

/// The longest head of a server's frame: 2 bytes and 8 for the length (RFC 6455 5.2).
const HEAD_BYTES_MAX: usize = 10;
/// What a thread keeps of the buffer that it encodes in.
const KEPT_BYTES: usize = 64 * 1024;

/// The size of an unmasked frame's head, from its second byte.
fn head_bytes(length: u8) -> usize {
    match length {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// An unmasked frame whose payload `write` appends to a buffer of the thread's, so that the frame
/// itself, which may be kept for long, is allocated once and at its size.
fn encoded(opcode: OpCode, write: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
    thread_local! {
        static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    PAYLOAD.with_borrow_mut(|payload| {
        payload.clear();
        write(payload);
        let (head, head_bytes) = head(opcode, payload.len() as u64);
        let frame = [&head[..head_bytes], payload].concat().into_boxed_slice();
        payload.shrink_to(KEPT_BYTES);
        frame
    })
}

/// The head of an unmasked frame, and how long it is.
fn head(opcode: OpCode, length: u64) -> ([u8; HEAD_BYTES_MAX], usize) {
    let mut head = [0; HEAD_BYTES_MAX];
    head[0] = 0x80 | opcode as u8;
    let size = match length {
        0..=125 => {
            head[1] = length.to_le_bytes()[0];
            2
        }
        126..=0xFFFF => {
            head[1] = 126;
            head[2..4].copy_from_slice(&length.to_be_bytes()[6..]);
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&length.to_be_bytes());
            10
        }
    };
    (head, size)
}
