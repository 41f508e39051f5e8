//! A player by hand: HTTP/1.1 and WebSocket over a plain `TcpStream`, also to be spoken wrongly.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Server};

/// The subprotocol with text frames.
pub const JSON: &str = "gameserver.v1.json";
/// The subprotocol with binary frames.
pub const MSGPACK: &str = "gameserver.v1.msgpack";

/// Frame heads: FIN and an opcode (RFC 6455 5.2).
pub const TEXT: u8 = 0x81;
/// See [`TEXT`].
pub const BINARY: u8 = 0x82;
/// See [`TEXT`].
pub const CLOSE: u8 = 0x88;
/// See [`TEXT`].
pub const PING: u8 = 0x89;

/// An HTTP request that is being written.
pub struct Call {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct User {
    /// The account.
    pub id: String,
    /// The access token.
    pub token: String,
    /// The refresh token.
    pub refresh: String,
}

impl User {
    /// From the answer to a sign-in.
    pub fn of(answer: &Answer) -> Self {
        let session = answer.expect(201);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            id: text(&session["user"]["id"]),
            token: text(&session["access_token"]),
            refresh: text(&session["refresh_token"]),
        }
    }
}

impl Server {
    /// A request to the public listener.
    pub fn call(&self, method: &str, path: &str) -> Call {
        call(self.public, method, path)
    }

    /// A new guest.
    pub fn guest(&self) -> User {
        User::of(&self.call("POST", "/v1/sessions/guest").json(&json!({})).send())
    }

    /// A GET as `user`.
    pub fn get(&self, user: &User, path: &str) -> Answer {
        self.call("GET", path).token(&user.token).send()
    }

    /// A POST as `user`.
    pub fn post(&self, user: &User, path: &str, body: &Value) -> Answer {
        self.call("POST", path).token(&user.token).json(body).send()
    }

    /// A DELETE as `user`.
    pub fn delete(&self, user: &User, path: &str) -> Answer {
        self.call("DELETE", path).token(&user.token).send()
    }

    /// A new match of `user`'s; gives it as the server does.
    pub fn create(&self, user: &User, body: &Value) -> Value {
        self.post(user, "/v1/matches", body).expect(201)
    }

    /// A new match with all `users` seated in their order; gives its id.
    pub fn seated(&self, body: &Value, users: &[&User]) -> String {
        let made = self.create(users[0], body);
        let id = made["id"].as_str().unwrap().to_owned();
        for (seat, user) in users.iter().enumerate().skip(1) {
            let code = json!({"join_code": made["join_code"]});
            let body = if made["join_code"].is_null() { json!({}) } else { code };
            let joined = self.post(user, &format!("/v1/matches/{id}/players"), &body).expect(201);
            assert_eq!(joined, json!({ "seat": seat }));
        }
        id
    }

    /// A running match of tic-tac-toe, its players and their sockets, welcomes read.
    pub fn tictactoe(&self) -> (String, [User; 2], [Socket; 2]) {
        let users = [self.guest(), self.guest()];
        let id = self.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
        let sockets = [0, 1].map(|seat| self.play(&users[seat], &id));
        (id, users, sockets)
    }

    /// A socket to a match, its welcome read.
    pub fn play(&self, user: &User, id: &str) -> Socket {
        self.connect(user, &format!("/v1/matches/{id}/socket")).0
    }

    /// A socket and its welcome.
    pub fn connect(&self, user: &User, path: &str) -> (Socket, Value) {
        let mut socket = Socket::open(self.public, user, path, None).unwrap();
        let welcome = socket.message();
        assert_eq!(welcome["type"], "welcome");
        (socket, welcome)
    }

    /// Every event of a match, as `user` may see it.
    pub fn events(&self, user: &User, id: &str) -> Vec<Value> {
        self.items(user, &format!("/v1/matches/{id}/events?limit=200"))
    }

    /// All items of a list, page after page.
    pub fn items(&self, user: &User, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(user, &format!("{path}{cursor}")).expect(200);
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

/// A request to any address.
pub fn call(address: SocketAddr, method: &str, path: &str) -> Call {
    let (method, path) = (method.into(), path.into());
    Call { address, method, path, headers: Vec::new(), body: Vec::new() }
}

impl Call {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds an access token.
    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Adds a body of any type.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    /// Adds a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sends it on a connection of its own.
    pub fn send(self) -> Answer {
        let stream = open(self.address).unwrap();
        self.send_on(stream).unwrap()
    }

    /// Sends it on a connection, if that lives.
    pub fn send_on(self, mut stream: TcpStream) -> io::Result<Answer> {
        // A server that has answered already need not read the rest.
        let _ = stream.write_all(&self.bytes());
        Answer::read(&mut stream, &self.method)
    }

    /// Sends it and does not wait for the answer.
    pub fn send_and_hang_up(self) {
        open(self.address).unwrap().write_all(&self.bytes()).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { address, method, path, headers, body } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
        if !headers.iter().any(|(name, _)| name == "Connection") {
            head += "Connection: close\r\n";
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !body.is_empty() {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", body].concat()
    }
}

/// A connection that fails a test rather than hang it.
pub fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Answer {
    /// Reads an answer up to its end, and no further.
    pub fn read(stream: &mut TcpStream, method: &str) -> io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(byte(stream)?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let mut answer =
            Self { status, headers: lines.filter_map(header).collect(), body: Vec::new() };
        let empty = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if !empty {
            answer.read_body(stream)?;
        }
        Ok(answer)
    }

    fn read_body(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if let Some(length) = self.header("content-length") {
            self.body = vec![0; length.parse().unwrap()];
            return stream.read_exact(&mut self.body);
        }
        if self.header("transfer-encoding") != Some("chunked") {
            return stream.read_to_end(&mut self.body).map(drop);
        }
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(byte(stream)?);
            }
            let length = std::str::from_utf8(&line).unwrap().trim();
            let length = usize::from_str_radix(length, 16).unwrap();
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk)?;
            self.body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body of an answer that has to have this status; null if it is empty.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem document (RFC 9457) of an answer that has to have this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "{self:?}");
        match status {
            401 => assert!(self.header("www-authenticate").unwrap().starts_with("Bearer")),
            405 => assert!(self.header("allow").is_some()),
            429 | 503 => assert!(self.header("retry-after").unwrap().parse::<u32>().is_ok()),
            _ => {}
        }
        problem
    }

    /// The fields that a 422 complains of.
    #[track_caller]
    pub fn invalid_fields(&self) -> Vec<String> {
        let problem = self.problem(422);
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}"));
        assert!(!errors.is_empty(), "{problem}");
        let field = |error: &Value| {
            assert!(error["detail"].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
            error["field"].as_str().unwrap().to_owned()
        };
        errors.iter().map(field).collect()
    }
}

fn byte(stream: &mut TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A player's WebSocket.
pub struct Socket {
    stream: TcpStream,
    /// Whether it speaks `MessagePack`.
    msgpack: bool,
    /// Every data frame's payload as it came, for tests that look for leaks.
    pub received: Vec<Vec<u8>>,
}

/// What comes on a socket.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// A message.
    Message(Value),
    /// A ping's payload.
    Ping(Vec<u8>),
    /// A pong's payload.
    Pong(Vec<u8>),
    /// A close frame's code and reason.
    Close(u16, String),
}

/// A request for an upgrade without a token.
pub fn upgrade(address: SocketAddr, path: &str) -> Call {
    call(address, "GET", path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

impl Call {
    /// Upgrades to a WebSocket; an answer other than 101 is given back.
    pub fn socket(self) -> io::Result<Result<Socket, Answer>> {
        let stream = open(self.address)?;
        self.socket_on(stream)
    }

    /// The same on a connection that is there.
    pub fn socket_on(self, mut stream: TcpStream) -> io::Result<Result<Socket, Answer>> {
        stream.write_all(&self.bytes())?;
        let answer = Answer::read(&mut stream, "GET")?;
        if answer.status != 101 {
            return Ok(Err(answer));
        }
        // The sample of RFC 6455 1.3.
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let asked = self.headers.iter().find(|(name, _)| name == "Sec-WebSocket-Protocol");
        let chosen = answer.header("sec-websocket-protocol");
        match (asked, chosen) {
            (None, None) => {}
            (Some((_, asked)), Some(chosen)) => assert!(asked.contains(chosen), "{chosen}"),
            pair => panic!("subprotocols asked for and chosen: {pair:?}"),
        }
        Ok(Ok(Socket { stream, msgpack: chosen == Some(MSGPACK), received: Vec::new() }))
    }

    /// The answer to an upgrade that has to be refused.
    #[track_caller]
    pub fn refused(self, status: u16) -> Value {
        match self.socket().unwrap() {
            Ok(_) => panic!("the upgrade was not refused"),
            Err(answer) => answer.problem(status),
        }
    }
}

impl Socket {
    /// Connects `user`; an error is a connection that failed, or an answer other than 101.
    pub fn open(
        address: SocketAddr,
        user: &User,
        path: &str,
        subprotocol: Option<&str>,
    ) -> io::Result<Self> {
        let mut call = upgrade(address, path).token(&user.token);
        if let Some(name) = subprotocol {
            call = call.header("Sec-WebSocket-Protocol", name);
        }
        let refused = |answer: Answer| io::Error::other(format!("{}: {}", path, answer.text()));
        call.socket()?.map_err(refused)
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.try_send(message).unwrap();
    }

    /// Sends a message, if the connection lives.
    pub fn try_send(&mut self, message: &Value) -> io::Result<()> {
        let bytes = if self.msgpack {
            masked(BINARY, &rmp_serde::to_vec_named(message).unwrap())
        } else {
            masked(TEXT, message.to_string().as_bytes())
        };
        self.stream.write_all(&bytes)
    }

    /// Sends a command.
    pub fn command(&mut self, id: u64, command: &Value) {
        self.send(&json!({"type": "command", "id": id, "command": command}));
    }

    /// Sends a command and gives what it was answered: an `ack` or an `error`. Events that come
    /// before it are in `received`.
    pub fn ask(&mut self, id: u64, command: &Value) -> Value {
        self.command(id, command);
        loop {
            let message = self.message();
            let kind = message["type"].as_str().unwrap();
            if ["ack", "error"].contains(&kind) && message["id"] == id {
                return message;
            }
        }
    }

    /// Sends a command that has to be accepted; gives the `seq` of its ack.
    #[track_caller]
    pub fn accepted(&mut self, id: u64, command: &Value) -> u64 {
        let answer = self.ask(id, command);
        assert_eq!(answer["type"], "ack", "{answer}");
        answer["seq"].as_u64().unwrap()
    }

    /// Sends a command that has to be refused; gives the last word of the problem's type.
    #[track_caller]
    pub fn refused(&mut self, id: u64, command: &Value) -> String {
        word(&self.ask(id, command))
    }

    /// Sends a frame with a mask, and any head and payload.
    pub fn frame(&mut self, first_byte: u8, payload: &[u8]) {
        self.raw(&masked(first_byte, payload));
    }

    /// Sends text, whether it is a message or not.
    pub fn text(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes());
    }

    /// Sends bytes as they are. The server may have closed already.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The connection again, for a thread that writes while this one reads.
    pub fn split(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// The next thing that comes.
    pub fn next(&mut self) -> Incoming {
        self.try_next().unwrap()
    }

    /// The next thing that comes, if the connection lives.
    pub fn try_next(&mut self) -> io::Result<Incoming> {
        let (first, payload) = read_frame(&mut self.stream)?;
        assert_eq!(first & 0xF0, 0x80, "the server neither fragments nor uses reserved bits");
        Ok(match first {
            TEXT if !self.msgpack => self.keep(payload, |bytes| serde_json::from_slice(bytes).ok()),
            BINARY if self.msgpack => self.keep(payload, |bytes| rmp_serde::from_slice(bytes).ok()),
            CLOSE if payload.len() >= 2 => Incoming::Close(
                u16::from_be_bytes([payload[0], payload[1]]),
                String::from_utf8(payload[2..].to_vec()).unwrap(),
            ),
            PING => Incoming::Ping(payload),
            0x8A => Incoming::Pong(payload),
            other => panic!("a frame of the wrong kind: {other:#x}"),
        })
    }

    fn keep(&mut self, payload: Vec<u8>, read: impl Fn(&[u8]) -> Option<Value>) -> Incoming {
        let message = read(&payload).expect("a message of the subprotocol");
        self.received.push(payload);
        Incoming::Message(message)
    }

    /// The next message; pings are passed over, a close fails the test.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        loop {
            match self.next() {
                Incoming::Message(message) => return message,
                Incoming::Ping(_) | Incoming::Pong(_) => {}
                Incoming::Close(code, reason) => panic!("closed: {code} {reason}"),
            }
        }
    }

    /// The next message of a type; others before it are passed over.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Value {
        let began = Instant::now();
        loop {
            let message = self.message();
            if message["type"] == kind {
                return message;
            }
            assert!(began.elapsed() < DEADLINE, "no {kind} came");
        }
    }

    /// The next event.
    #[track_caller]
    pub fn event(&mut self) -> Value {
        self.expect("event")
    }

    /// The word of the next error's problem type, and the id that it names.
    #[track_caller]
    pub fn error(&mut self) -> (String, Value) {
        let error = self.expect("error");
        (word(&error), error["id"].clone())
    }

    /// Reads up to the close frame and gives its code.
    #[track_caller]
    pub fn closed(&mut self) -> u16 {
        let began = Instant::now();
        loop {
            if let Incoming::Close(code, _) = self.next() {
                return code;
            }
            assert!(began.elapsed() < DEADLINE, "no close came");
        }
    }

    /// The messages that have come before the answer to a ping: proves that others have not.
    pub fn pending(&mut self) -> Vec<Value> {
        let id = 4_000_000_000_u64;
        self.send(&json!({"type": "ping", "id": id}));
        let mut messages = Vec::new();
        loop {
            let message = self.message();
            if message["type"] == "pong" && message["id"] == id {
                return messages;
            }
            messages.push(message);
        }
    }
}

/// The last word of the type of an `error` message's problem.
#[track_caller]
pub fn word(error: &Value) -> String {
    assert_eq!(error["type"], "error", "{error}");
    let problem = &error["problem"];
    assert!(problem["status"].is_u64() && problem["title"].is_string(), "{error}");
    problem["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// A client's frame.
pub fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = head(first_byte, payload.len(), 0x80);
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame's first bytes: opcode, length, and whether a mask follows.
pub fn head(first_byte: u8, length: usize, mask_bit: u8) -> Vec<u8> {
    let mut head = vec![first_byte];
    match length {
        0..=125 => head.push(mask_bit | u8::try_from(length).unwrap()),
        126..=0xFFFF => {
            head.push(mask_bit | 0x7E);
            head.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            head.push(mask_bit | 0x7F);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    head
}

/// A server's frame: its first byte and payload.
fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let first = byte(stream)?;
    let length = match byte(stream)? {
        126 => {
            let mut bytes = [0; 2];
            stream.read_exact(&mut bytes)?;
            u64::from(u16::from_be_bytes(bytes))
        }
        127 => {
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes)?;
            u64::from_be_bytes(bytes)
        }
        length => {
            assert!(length < 126, "a server masks nothing");
            u64::from(length)
        }
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload)?;
    Ok((first, payload))
}
