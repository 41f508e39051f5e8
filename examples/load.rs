//! Loads a server that runs and says what that cost it.
//!
//! ```text
//! taskset -c 0 ./gameserver & PID=$!
//! taskset -c 1 cargo run --release --example load -- --sockets 1000 --room 2 --server-pid $PID
//! ```
//!
//! Signs guests in, seats them in `relay` rooms and connects their sockets; then each socket sends a
//! command, and the next one when its ack has come. Figures of the server come from the operating
//! system (`/proc`, so on Linux alone), those of time from this side. `--game tictactoe` plays
//! durable matches instead, over and over: two sockets each. `--game arena` rides in rooms of 2 to 8,
//! each back and forth in a part of the board: what is counted is views, and what is timed how far
//! apart they come.
//!
//! Give server and generator cores of their own (`taskset`), or they measure each other. If
//! connections fail, raise the limit of open files on both sides (`ulimit -n`), and
//! `GAMESERVER_CONNECTIONS_MAX` of the server for more than 10,000 sockets.
//!
//! Its own work is kept small, so that the server is the slower one: frames are masked with a key of
//! zeros, which the server has to undo like any other, and of messages only the start is looked at.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const USAGE: &str = "\
Usage: load [OPTION VALUE]…

  --url URL           the server (http://127.0.0.1:8080)
  --server-pid PID    the server's process, for its CPU time and memory
  --sockets N         sockets (1000)
  --room N            sockets in a room, 1 to 64 (2)
  --seconds N         how long is measured (10)
  --window N          commands that a socket has in flight (1)
  --payload BYTES     what each command carries, about (64)
  --threads N         threads of this program (1)
  --game NAME         relay, tictactoe for durable moves, or arena (relay)
  --views FORM        diff or whole, in arena (diff)
  --idle              connect and measure memory only
  --json              print figures for programs";

/// Before the measurement: caches and buffers find their size.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between the last connection and the look at the memory of idle sockets.
const SETTLE: Duration = Duration::from_secs(3);
/// Connections of one thread that are set up at the same time.
const SETUP_CONCURRENCY: usize = 16;
/// What a socket reads at once.
const READ_BYTES: usize = 64 * 1024;
/// A clock tick of `/proc`, in microseconds (`USER_HZ` is 100 on all common platforms).
const TICK_US: u64 = 10_000;
/// Cells of a game that ends in a draw: as long as it gets.
const DRAWN_GAME: [u8; 9] = [0, 2, 1, 3, 5, 4, 6, 7, 8];

#[derive(Clone, Copy, PartialEq)]
enum Game {
    Relay,
    Tictactoe,
    Arena,
}

impl Game {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Tictactoe => "tictactoe",
            Self::Arena => "arena",
        }
    }
}

#[derive(Clone)]
struct Options {
    address: SocketAddr,
    server_pid: Option<u32>,
    sockets: usize,
    room: usize,
    seconds: u64,
    window: usize,
    payload: usize,
    threads: usize,
    game: Game,
    views: &'static str,
    idle: bool,
    json: bool,
}

fn main() {
    let options = options(std::env::args().skip(1));
    let barrier = Arc::new(Barrier::new(options.threads + 1));
    let rooms = options.sockets / options.room;
    let threads: Vec<_> = (0..options.threads)
        .map(|index| {
            let (options, barrier) = (options.clone(), Arc::clone(&barrier));
            let rooms = rooms / options.threads + usize::from(index < rooms % options.threads);
            std::thread::spawn(move || generate(&options, rooms, &barrier))
        })
        .collect();
    let figures = watch(&options, &barrier);
    let mut total = Report::default();
    for thread in threads {
        let report = thread.join().unwrap_or_else(|_| fail("a thread panicked"));
        total.add(&report);
    }
    print(&options, rooms * options.room, &figures, &total);
}

fn fail(why: impl Display) -> ! {
    eprintln!("load: {why}");
    std::process::exit(1)
}

fn options(mut args: impl Iterator<Item = String>) -> Options {
    let mut options = Options {
        address: SocketAddr::from(([127, 0, 0, 1], 8080)),
        server_pid: None,
        sockets: 1000,
        room: 2,
        seconds: 10,
        window: 1,
        payload: 64,
        threads: 1,
        game: Game::Relay,
        views: "diff",
        idle: false,
        json: false,
    };
    while let Some(name) = args.next() {
        match name.as_str() {
            "--idle" => options.idle = true,
            "--json" => options.json = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0)
            }
            _ => {
                let value = args.next().unwrap_or_else(|| fail(format!("{name} what?\n\n{USAGE}")));
                set(&mut options, &name, &value);
            }
        }
    }
    if options.game == Game::Tictactoe {
        options.room = 2;
    }
    if options.room == 0 || options.room > 64 || options.sockets < options.room * options.threads {
        fail("there must be a room of 1 to 64 sockets for each thread at least");
    }
    if options.game == Game::Arena && !(2..=8).contains(&options.room) {
        fail("an arena takes 2 to 8 sockets");
    }
    options
}

fn set(options: &mut Options, name: &str, value: &str) {
    match name {
        "--url" => options.address = address(value),
        "--server-pid" => options.server_pid = Some(number(name, value)),
        "--sockets" => options.sockets = number(name, value),
        "--room" => options.room = number(name, value),
        "--seconds" => options.seconds = number(name, value),
        "--window" => options.window = number(name, value),
        "--payload" => options.payload = number(name, value),
        "--threads" => options.threads = number(name, value),
        "--game" => match value {
            "relay" => options.game = Game::Relay,
            "tictactoe" => options.game = Game::Tictactoe,
            "arena" => options.game = Game::Arena,
            _ => fail("--game takes relay, tictactoe or arena"),
        },
        "--views" => match value {
            "diff" => options.views = "diff",
            "whole" => options.views = "whole",
            _ => fail("--views takes diff or whole"),
        },
        _ => fail(format!("there is no option {name}\n\n{USAGE}")),
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> T {
    value.parse().unwrap_or_else(|_| fail(format!("{name} takes a number, not {value:?}")))
}

fn address(url: &str) -> SocketAddr {
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let mut addresses =
        host.to_socket_addrs().unwrap_or_else(|error| fail(format!("{url}: {error}")));
    addresses.next().unwrap_or_else(|| fail(format!("{url} has no address")))
}

// ---- what the server costs ----

/// The server as the operating system sees it: memory in bytes, time in microseconds.
#[derive(Default)]
struct Figures {
    rss_signed_in: u64,
    rss_idle: u64,
    rss_end: u64,
    server_cpu_us: u64,
    own_cpu_us: u64,
}

/// Looks at the server while the threads go from phase to phase.
fn watch(options: &Options, barrier: &Barrier) -> Figures {
    let rss = || options.server_pid.map_or(0, rss_bytes);
    let mut figures = Figures::default();
    barrier.wait(); // All are signed in.
    std::thread::sleep(SETTLE);
    figures.rss_signed_in = rss();
    barrier.wait(); // They connect,
    barrier.wait(); // and are.
    std::thread::sleep(SETTLE);
    figures.rss_idle = rss();
    barrier.wait(); // They play.
    if options.idle {
        return figures;
    }
    std::thread::sleep(WARM_UP);
    let cpu = || [options.server_pid, Some(std::process::id())].map(|pid| pid.map_or(0, cpu_us));
    let before = cpu();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let after = cpu();
    figures.server_cpu_us = after[0] - before[0];
    figures.own_cpu_us = after[1] - before[1];
    figures.rss_end = rss();
    figures
}

fn rss_bytes(pid: u32) -> u64 {
    let status = proc(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or_else(|| fail(format!("process {pid} has no VmRSS"))) * 1024
}

/// User and system time of all threads.
fn cpu_us(pid: u32) -> u64 {
    let stat = proc(pid, "stat");
    // The second field is a name in brackets that may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * TICK_US
}

fn proc(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| fail(format!("{path}: {error}")))
}

// ---- one thread of players ----

/// What one thread counted within the time that is measured.
#[derive(Default)]
struct Report {
    acks: u64,
    deliveries: u64,
    matches: u64,
    refused: u64,
    closed: u64,
    to_ack: Histogram,
    to_delivery: Histogram,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.acks += other.acks;
        self.deliveries += other.deliveries;
        self.matches += other.matches;
        self.refused += other.refused;
        self.closed += other.closed;
        self.to_ack.add(&other.to_ack);
        self.to_delivery.add(&other.to_delivery);
    }
}

fn generate(options: &Options, rooms: usize, barrier: &Barrier) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| fail(error));
    LocalSet::new().block_on(&runtime, async {
        let tokens = in_parallel(rooms * options.room, |_| guest(options.address)).await;
        barrier.wait();
        barrier.wait();
        let tokens: Vec<&[String]> = tokens.chunks(options.room).collect();
        let report = Rc::new(RefCell::new(Report::default()));
        let began = Instant::now();
        match options.game {
            Game::Relay => {
                let owned = |index: usize| tokens[index].to_vec();
                let open = |index| open_room(options.address, owned(index));
                let sockets = in_parallel(rooms, open).await;
                barrier.wait();
                barrier.wait();
                for room in sockets {
                    play_relay(room, options, &report, began);
                }
            }
            Game::Tictactoe => {
                barrier.wait();
                barrier.wait();
                for pair in tokens {
                    let pair = [pair[0].clone(), pair[1].clone()];
                    let (address, report) = (options.address, Rc::clone(&report));
                    tokio::task::spawn_local(play_matches(address, pair, report));
                }
            }
            Game::Arena => {
                barrier.wait();
                barrier.wait();
                for room in tokens {
                    let (options, report) = (options.clone(), Rc::clone(&report));
                    tokio::task::spawn_local(ride_matches(options, room.to_vec(), report));
                }
            }
        }
        if !options.idle {
            tokio::time::sleep(WARM_UP).await;
            report.take();
            tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        }
        report.take()
    })
}

/// Does something `count` times, some at a time, and gives the results in order.
async fn in_parallel<T: 'static, F>(count: usize, make: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = io::Result<T>> + 'static,
{
    let mut running = VecDeque::new();
    let mut results = Vec::with_capacity(count);
    for index in 0..count {
        if running.len() == SETUP_CONCURRENCY {
            results.extend(finished(running.pop_front()).await);
        }
        running.push_back(tokio::task::spawn_local(make(index)));
    }
    while !running.is_empty() {
        results.extend(finished(running.pop_front()).await);
    }
    results
}

async fn finished<T>(task: Option<tokio::task::JoinHandle<io::Result<T>>>) -> Option<T> {
    match task?.await {
        Ok(Ok(result)) => Some(result),
        Ok(Err(error)) => fail(format!("setting up: {error} (is `ulimit -n` high enough?)")),
        Err(error) => fail(error),
    }
}

// ---- setting up ----

/// A new guest's access token.
async fn guest(address: SocketAddr) -> io::Result<String> {
    let mut api = Api::connect(address).await?;
    let session = api.post("/v1/sessions/guest", None, &json!({})).await?;
    text(&session["access_token"])
}

/// A room with a socket for each token.
async fn open_room(address: SocketAddr, tokens: Vec<String>) -> io::Result<Vec<Socket>> {
    let options = json!({"players": tokens.len()});
    let mut api = Api::connect(address).await?;
    let id = seated(&mut api, &json!({"game": "relay", "options": options}), &tokens).await?;
    let mut sockets = Vec::with_capacity(tokens.len());
    for token in &tokens {
        sockets.push(Socket::connect(address, &id, "whole", token).await?);
    }
    Ok(sockets)
}

/// A new match in which all are seated.
async fn seated(api: &mut Api, body: &Value, tokens: &[String]) -> io::Result<String> {
    let made = api.post("/v1/matches", Some(&tokens[0]), body).await?;
    let id = text(&made["id"])?;
    for token in &tokens[1..] {
        api.post(&format!("/v1/matches/{id}/players"), Some(token), &json!({})).await?;
    }
    Ok(id)
}

fn text(value: &Value) -> io::Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| io::Error::other("an answer lacks a field"))
}

/// A connection for REST calls, one after the other.
struct Api {
    address: SocketAddr,
    stream: TcpStream,
}

impl Api {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream })
    }

    /// What a POST is answered; an answer other than 2xx is an error.
    async fn post(&mut self, path: &str, token: Option<&str>, body: &Value) -> io::Result<Value> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default(),
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await?;
        let (head, mut body) = read_head(&mut self.stream).await?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let already = body.len();
        body.resize(length.unwrap_or(0), 0);
        if already < body.len() {
            self.stream.read_exact(&mut body[already..]).await?;
        }
        if !head.starts_with("HTTP/1.1 2") {
            return Err(io::Error::other(format!("{path}: {}", String::from_utf8_lossy(&body))));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }
}

/// The head of an answer, and what came with it of what follows.
async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
    }
}

// ---- sockets ----

/// A player's WebSocket. It keeps no buffer but for what came of an unfinished frame.
struct Socket {
    stream: TcpStream,
    unfinished: Vec<u8>,
}

impl Socket {
    async fn connect(address: SocketAddr, id: &str, views: &str, token: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /v1/matches/{id}/socket?views={views} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n",
        );
        stream.write_all(request.as_bytes()).await?;
        let (head, unfinished) = read_head(&mut stream).await?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(io::Error::other(format!("no upgrade: {head}")));
        }
        Ok(Self { stream, unfinished })
    }

    /// Waits for bytes and gives every whole frame among them: its first byte and its payload.
    /// False once the connection has ended.
    async fn read(&mut self, mut each: impl FnMut(u8, &[u8])) -> bool {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
        }
        if self.stream.readable().await.is_err() {
            return false;
        }
        BUFFER.with_borrow_mut(|buffer| match self.stream.try_read(buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.take(&buffer[..count], &mut each);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        })
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) {
        if self.unfinished.is_empty() {
            let used = frames(bytes, each);
            self.unfinished.extend_from_slice(&bytes[used..]);
        } else {
            self.unfinished.extend_from_slice(bytes);
            let whole = std::mem::take(&mut self.unfinished);
            let used = frames(&whole, each);
            self.unfinished.extend_from_slice(&whole[used..]);
        }
    }
}

/// Gives every whole frame and returns how many bytes they took (RFC 6455 5.2; a server masks
/// nothing).
fn frames(bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) -> usize {
    let mut used = 0;
    while let Some((head, length)) = frame_size(&bytes[used..]) {
        let Some(payload) = bytes.get(used + head..used + head + length) else { break };
        each(bytes[used], payload);
        used += head + length;
    }
    used
}

/// The sizes of a frame's head and payload, if the head is there.
fn frame_size(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            Some((10, usize::try_from(length).ok()?))
        }
        length => Some((2, usize::from(length))),
    }
}

/// Appends a client's frame whose mask is zero, so that it changes nothing.
fn push_frame(frames: &mut Vec<u8>, first_byte: u8, payload: &[u8]) {
    frames.push(first_byte);
    match u16::try_from(payload.len()).unwrap_or_else(|_| fail("a payload over 64 KiB")) {
        length @ 0..=125 => frames.push(0x80 | length.to_be_bytes()[1]),
        length => {
            frames.push(0x80 | 0x7E);
            frames.extend_from_slice(&length.to_be_bytes());
        }
    }
    frames.extend_from_slice(&[0; 4]);
    frames.extend_from_slice(payload);
}

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

// ---- relay ----

/// What the players of a room know of each other: when the last message of each seat was sent, so
/// that only its first delivery is timed.
type LastSeen = Rc<Vec<Cell<u64>>>;

fn play_relay(room: Vec<Socket>, options: &Options, report: &Rc<RefCell<Report>>, began: Instant) {
    let seen: LastSeen = Rc::new(vec![Cell::new(0); room.len()]);
    for socket in room {
        let player = Player {
            socket,
            began,
            seen: Rc::clone(&seen),
            report: Rc::clone(report),
            pad: "x".repeat(options.payload),
            next_id: 0,
            sent_at: VecDeque::with_capacity(options.window),
            out: Vec::with_capacity(options.window * (options.payload + 128)),
        };
        tokio::task::spawn_local(player.run(options.window));
    }
}

/// One socket in a closed loop. Times are nanoseconds since `began`.
struct Player {
    socket: Socket,
    began: Instant,
    seen: LastSeen,
    report: Rc<RefCell<Report>>,
    pad: String,
    next_id: u64,
    /// When the commands in flight were sent: acks come in their order.
    sent_at: VecDeque<u64>,
    out: Vec<u8>,
}

impl Player {
    async fn run(mut self, window: usize) {
        for _ in 0..window {
            self.push_command();
        }
        while self.flush().await && self.read().await {}
        self.report.borrow_mut().closed += 1;
    }

    async fn flush(&mut self) -> bool {
        let written = self.socket.stream.write_all(&self.out).await.is_ok();
        self.out.clear();
        written
    }

    fn push_command(&mut self) {
        self.next_id += 1;
        let (id, now) = (self.next_id, nanos(self.began));
        let command = format!(
            r#"{{"type":"command","id":{id},"command":{{"send":{{"n":{now},"pad":"{}"}}}}}}"#,
            self.pad
        );
        self.sent_at.push_back(now);
        push_frame(&mut self.out, TEXT, command.as_bytes());
    }

    async fn read(&mut self) -> bool {
        let Self { socket, began, seen, report, sent_at, out, .. } = self;
        let mut answered = 0;
        let open = socket
            .read(|first_byte, payload| {
                if first_byte != TEXT {
                    if first_byte == PING {
                        push_frame(out, PONG, payload);
                    }
                    return;
                }
                let now = nanos(*began);
                let mut report = report.borrow_mut();
                if payload.starts_with(br#"{"type":"event""#) {
                    report.deliver(payload, seen, now);
                } else if payload.starts_with(br#"{"type":"ack""#) {
                    answered += 1;
                    report.acks += 1;
                    report.to_ack.record(now - sent_at.pop_front().unwrap_or(now));
                } else if payload.starts_with(br#"{"type":"error""#) {
                    answered += 1;
                    report.refused += 1;
                    sent_at.pop_front();
                }
            })
            .await;
        for _ in 0..answered {
            self.push_command();
        }
        open
    }
}

impl Report {
    /// Counts an event if a player sent it.
    fn deliver(&mut self, event: &[u8], seen: &LastSeen, now: u64) {
        let Some(sent_at) = number_after(event, br#""send":{"n":"#) else { return };
        self.deliveries += 1;
        let seat = number_after(event, br#""seat":"#).and_then(|seat| usize::try_from(seat).ok());
        let Some(last) = seat.and_then(|seat| seen.get(seat)) else { return };
        if sent_at > last.replace(sent_at.max(last.get())) {
            self.to_delivery.record(now.saturating_sub(sent_at));
        }
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The number that stands behind `name` in a message.
fn number_after(message: &[u8], name: &[u8]) -> Option<u64> {
    let start = message.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = message[start..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.map(|digit| u64::from(digit - b'0')).reduce(|number, digit| number * 10 + digit)
}

// ---- durable matches ----

/// Two players who play match after match.
async fn play_matches(address: SocketAddr, tokens: [String; 2], report: Rc<RefCell<Report>>) {
    loop {
        if let Err(error) = play_match(address, &tokens, &report).await {
            fail(format!("a match broke off: {error}"));
        }
        report.borrow_mut().matches += 1;
    }
}

async fn play_match(
    address: SocketAddr,
    tokens: &[String; 2],
    report: &RefCell<Report>,
) -> io::Result<()> {
    let mut api = Api::connect(address).await?;
    let id = seated(&mut api, &json!({"game": "tictactoe"}), tokens).await?;
    let mut sockets = [
        Socket::connect(address, &id, "whole", &tokens[0]).await?,
        Socket::connect(address, &id, "whole", &tokens[1]).await?,
    ];
    let mut frame = Vec::new();
    for (turn, cell) in DRAWN_GAME.iter().enumerate() {
        let socket = &mut sockets[turn % 2];
        let command =
            format!(r#"{{"type":"command","id":{},"command":{{"place":{cell}}}}}"#, turn + 1);
        frame.clear();
        push_frame(&mut frame, TEXT, command.as_bytes());
        let sent = Instant::now();
        socket.stream.write_all(&frame).await?;
        let mut acked = false;
        while !acked {
            let mut refused = None;
            let open = socket.read(|_, message| {
                acked |= message.starts_with(br#"{"type":"ack""#);
                if message.starts_with(br#"{"type":"error""#) {
                    refused = Some(String::from_utf8_lossy(message).into_owned());
                }
            });
            if !open.await {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(refused) = refused {
                return Err(io::Error::other(refused));
            }
        }
        let mut report = report.borrow_mut();
        report.acks += 1;
        report.to_ack.record(nanos(sent));
    }
    Ok(())
}

// ---- the arena ----

/// As many rounds on as large a board as there are: the longer a match, the less is measured of how
/// it begins.
const ARENA: (u8, u8) = (9, 160);
/// Steps that a rider goes to and fro, and to the side between them.
const LEGS: [u64; 2] = [25, 2];
const HEADINGS: [&str; 4] = ["up", "right", "down", "left"];

/// A room whose players ride match after match.
async fn ride_matches(options: Options, tokens: Vec<String>, report: Rc<RefCell<Report>>) {
    loop {
        if let Err(error) = ride_match(&options, &tokens, &report).await {
            fail(format!("a match broke off: {error}"));
        }
        report.borrow_mut().matches += 1;
    }
}

async fn ride_match(
    options: &Options,
    tokens: &[String],
    report: &Rc<RefCell<Report>>,
) -> io::Result<()> {
    let mut api = Api::connect(options.address).await?;
    let (rounds, size) = ARENA;
    let wanted = json!({"players": tokens.len(), "rounds": rounds, "size": size});
    let id = seated(&mut api, &json!({"game": "arena", "options": wanted}), tokens).await?;
    let mut riders = Vec::with_capacity(tokens.len());
    for (seat, token) in tokens.iter().enumerate() {
        let socket = Socket::connect(options.address, &id, options.views, token).await?;
        let rider = Rider { seat, report: Rc::clone(report), ..Rider::default() };
        riders.push(tokio::task::spawn_local(rider.run(socket)));
    }
    for rider in riders {
        rider.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// One player of an arena.
#[derive(Default)]
struct Rider {
    seat: usize,
    report: Rc<RefCell<Report>>,
    next_id: u64,
    /// Into [`HEADINGS`].
    heading: usize,
    turns: u64,
    /// The step of the next turn.
    turns_at: u64,
    /// The view before: its step, and when it came.
    seen: Option<(u64, Instant)>,
    out: Vec<u8>,
    over: bool,
}

impl Rider {
    async fn run(mut self, mut socket: Socket) -> io::Result<()> {
        while !self.over {
            if !socket.read(|first_byte, payload| self.hear(first_byte, payload)).await {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !self.out.is_empty() {
                socket.stream.write_all(&self.out).await?;
                self.out.clear();
            }
        }
        Ok(())
    }

    fn hear(&mut self, first_byte: u8, payload: &[u8]) {
        if first_byte == PING {
            push_frame(&mut self.out, PONG, payload);
        } else if payload.starts_with(br#"{"type":"view""#) {
            self.look(payload);
        } else if payload.starts_with(br#"{"type":"ack""#) {
            self.report.borrow_mut().acks += 1;
        } else if payload.starts_with(br#"{"type":"error""#) {
            self.report.borrow_mut().refused += 1;
        } else if payload.starts_with(br#"{"type":"ended""#) {
            self.over = true;
        }
    }

    fn look(&mut self, view: &[u8]) {
        let Some(tick) = number_after(view, br#""tick":"#) else { return };
        let (now, mut report) = (Instant::now(), self.report.borrow_mut());
        report.deliveries += 1;
        if let Some((_, before)) = self.seen.filter(|(seen, _)| seen + 1 == tick) {
            report.to_delivery.record(u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX));
        }
        drop(report);
        self.seen = Some((tick, now));
        // The first view of a round is whole, whatever is asked for.
        let starts_at = number_after(view, br#""starts_at":"#).filter(|start| *start >= tick);
        if let Some(starts_at) = starts_at {
            let text = String::from_utf8_lossy(view);
            let headings = text.split("\"headings\":[").nth(1).unwrap_or_default();
            let own = headings.split(',').nth(self.seat).unwrap_or_default();
            let heading = HEADINGS.iter().position(|heading| own.contains(heading));
            (self.heading, self.turns) = (heading.unwrap_or(0), 0);
            self.turns_at = starts_at + LEGS[0];
        } else if tick >= self.turns_at && self.turns_at > 0 {
            self.turn();
        }
    }

    /// Right, right, left, left: never across its own wall.
    fn turn(&mut self) {
        let step = if self.turns % 4 < 2 { 1 } else { 3 };
        self.heading = (self.heading + step) % HEADINGS.len();
        self.turns += 1;
        self.turns_at += LEGS[usize::from(self.turns % 2 == 1)];
        self.next_id += 1;
        let (id, to) = (self.next_id, HEADINGS[self.heading]);
        let command = format!(r#"{{"type":"command","id":{id},"command":{{"turn":"{to}"}}}}"#);
        push_frame(&mut self.out, TEXT, command.as_bytes());
    }
}

// ---- figures ----

/// Counts of times, in buckets 1/32 wide relative to their value. Times are in nanoseconds.
struct Histogram {
    buckets: Vec<u64>,
    max: u64,
}

/// Buckets for each power of two, as a power of two.
const BUCKET_BITS: u32 = 5;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 64 << BUCKET_BITS], max: 0 }
    }
}

impl Histogram {
    fn record(&mut self, value: u64) {
        let shift = value.max(1).ilog2().saturating_sub(BUCKET_BITS);
        let index = (u64::from(shift) << BUCKET_BITS) + (value >> shift);
        self.buckets[usize::try_from(index).unwrap_or(0)] += 1;
        self.max = self.max.max(value);
    }

    fn add(&mut self, other: &Self) {
        for (bucket, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += count;
        }
        self.max = self.max.max(other.max);
    }

    /// The time that this share of all stayed below, in microseconds.
    fn quantile_us(&self, share: f64) -> f64 {
        let all: u64 = self.buckets.iter().sum();
        let mut left = share * float(all);
        for (index, count) in self.buckets.iter().enumerate() {
            left -= float(*count);
            if *count > 0 && left <= 0.0 {
                let shift = (index >> BUCKET_BITS).saturating_sub(1);
                let value = (index - (shift << BUCKET_BITS)) as u64;
                return float((value + 1) << shift).min(float(self.max)) / 1000.0;
            }
        }
        0.0
    }

    fn json(&self) -> Value {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| self.quantile_us(share));
        json!({"p50": p50, "p90": p90, "p99": p99, "max": float(self.max) / 1000.0})
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(number: u64) -> f64 {
    number as f64
}

fn print(options: &Options, sockets: usize, figures: &Figures, report: &Report) {
    let seconds = float(options.seconds);
    let per = |cpu_us: u64, count: u64| if count == 0 { 0.0 } else { float(cpu_us) / float(count) };
    let per_socket = figures.rss_idle.saturating_sub(figures.rss_signed_in) / sockets as u64;
    let busy = |cpu_us: u64| float(cpu_us) / seconds / 10_000.0;
    let json = json!({
        "game": options.game.name(),
        "sockets": sockets,
        "room": options.room,
        "window": options.window,
        "payload_bytes": options.payload,
        "seconds": options.seconds,
        "acks_per_second": float(report.acks) / seconds,
        "deliveries_per_second": float(report.deliveries) / seconds,
        "matches_per_second": float(report.matches) / seconds,
        "refused": report.refused,
        "closed": report.closed,
        "ack_us": report.to_ack.json(),
        "delivery_us": report.to_delivery.json(),
        "server_cpu_percent": busy(figures.server_cpu_us),
        "own_cpu_percent": busy(figures.own_cpu_us),
        "server_cpu_us_per_delivery": per(figures.server_cpu_us, report.deliveries),
        "server_cpu_us_per_ack": per(figures.server_cpu_us, report.acks),
        "server_cpu_us_per_write": per(figures.server_cpu_us, report.deliveries + report.acks),
        "rss_signed_in_bytes": figures.rss_signed_in,
        "rss_idle_bytes": figures.rss_idle,
        "rss_end_bytes": figures.rss_end,
        "rss_per_socket_bytes": per_socket,
    });
    if options.json {
        println!("{json}");
    } else {
        print_table(options, &json);
    }
}

fn print_table(options: &Options, figures: &Value) {
    let number = |name: &str| figures[name].as_f64().unwrap_or_default();
    let row = |name: &str, value: String| println!("{name:<34}{value:>24}");
    let times = |name: &str| {
        let time = |share: &str| figures[name][share].as_f64().unwrap_or_default();
        format!("{:.0} / {:.0} / {:.0} / {:.0}", time("p50"), time("p90"), time("p99"), time("max"))
    };
    let mebibytes = |name: &str| format!("{:.1} MiB", number(name) / 1024.0 / 1024.0);
    row("sockets × room size", format!("{} × {}", number("sockets"), options.room));
    if !options.idle {
        row("acks /s", format!("{:.0}", number("acks_per_second")));
        row("ack µs, p50 / p90 / p99 / max", times("ack_us"));
        if options.game == Game::Relay {
            row("deliveries /s", format!("{:.0}", number("deliveries_per_second")));
            row("delivery µs, p50 / p90 / p99 / max", times("delivery_us"));
        } else if options.game == Game::Arena {
            row("views /s", format!("{:.0}", number("deliveries_per_second")));
            row("µs between, p50 / p90 / p99 / max", times("delivery_us"));
        } else {
            row("matches /s", format!("{:.0}", number("matches_per_second")));
        }
        row("refused, closed", format!("{}, {}", number("refused"), number("closed")));
        row("generator's CPU", format!("{:.0} %", number("own_cpu_percent")));
    }
    if options.server_pid.is_none() {
        return println!("(the server's cost: with --server-pid)");
    }
    if !options.idle {
        row("server's CPU", format!("{:.0} %", number("server_cpu_percent")));
        row("CPU µs per ack", format!("{:.2}", number("server_cpu_us_per_ack")));
        if options.game == Game::Arena {
            row("CPU µs per view", format!("{:.2}", number("server_cpu_us_per_delivery")));
        } else if options.game == Game::Relay {
            row("CPU µs per delivery", format!("{:.2}", number("server_cpu_us_per_delivery")));
            row("CPU µs per write (both)", format!("{:.2}", number("server_cpu_us_per_write")));
        }
        row("RSS at the end", mebibytes("rss_end_bytes"));
    }
    row("RSS with all signed in", mebibytes("rss_signed_in_bytes"));
    if options.game == Game::Relay {
        row("RSS with all connected, idle", mebibytes("rss_idle_bytes"));
        row("RSS per idle socket", format!("{:.0} bytes", number("rss_per_socket_bytes")));
    }
}
