//! Bots that play, match after match, on any node, and write down all that they send and see.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gameserver::games::Mode;
use serde_json::{Value, json};

use crate::FENCED;

use crate::check::{Ack, Heard, History, Item, Record, Seen, Sent};
use crate::client::{Answer, Call, Incoming, Socket, User, call, upgrade};
use crate::fleet::{Directory, Fleet, Kept};
use crate::games::PLUGINS;
use crate::harness::until;
use crate::pairs;
use crate::random::Random;

/// How long a bot waits on a silent node before it tries another.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a watcher does: longer than any fault, to hear what a frozen node says when it thaws.
const WATCHER_PATIENCE: Duration = Duration::from_secs(8);
/// How long bots may take to finish once all is healed.
const REST_MAX: Duration = Duration::from_secs(if FENCED { 60 } else { 5 });
/// Of the commands in a room, one in so many sets the shared state.
const STATE_EVERY: u64 = 8;
/// After one in so many commands a player's connection breaks, whatever the answer would have been.
const BREAKS_EVERY: usize = 16;
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(20);
/// Pairs in each match of `pairs`.
const PAIRS: usize = 12;
/// Cells of `tictactoe`.
const CELLS: usize = 9;
/// Players in the room.
const ROOM_SEATS: usize = 3;
/// What tables for two play, in turn; one more has a room, and one rides.
const GAMES: [&str; 4] = ["pairs", "noughts", "tictactoe", "concentration"];
const HEADINGS: [&str; 4] = ["up", "right", "down", "left"];
/// How long a rider rides on before the next turn, in milliseconds: several steps.
const TURN_MS: u64 = 200;

/// What is played at a table, whatever it is called there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Lines,
    Cards,
    /// By the clock: what was told may be lost in a crash, as far as it says.
    Ride,
    Room,
}

impl Rules {
    fn of(game: &str) -> Self {
        match game {
            "tictactoe" | "noughts" => Self::Lines,
            "pairs" | "concentration" => Self::Cards,
            "cycles" => Self::Ride,
            _ => Self::Room,
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Lines | Self::Cards => Mode::Turns,
            Self::Ride => Mode::Ticks,
            Self::Room => Mode::Relay,
        }
    }
}

/// Players who meet in one match after another.
pub struct Table {
    directory: Directory,
    game: &'static str,
    rules: Rules,
    users: Vec<User>,
    /// One who only watches.
    watcher: User,
    seed: u64,
    acks: AtomicUsize,
    /// Since when no new match is begun.
    rest: OnceLock<Instant>,
    played: Mutex<Vec<(String, Vec<Record>)>>,
}

/// Brings all bots to rest when it goes.
pub struct Rest<'a>(pub &'a [Table]);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        for table in self.0 {
            let _ = table.rest.set(Instant::now());
        }
    }
}

impl Table {
    /// So many tables for two, one where they ride, and a room.
    pub fn seat_all(directory: &Directory, pairs: usize, seed: u64) -> Vec<Self> {
        let games = GAMES.into_iter().cycle().take(pairs).chain(["cycles", "relay"]);
        let tables = games.zip(1..).map(|(game, number)| {
            let rules = Rules::of(game);
            let seats = if rules == Rules::Room { ROOM_SEATS } else { 2 };
            let mut random = Random(seed);
            let mut guest = || {
                let address = directory.addresses()[random.below(directory.addresses().len())];
                User::of(&call(address, "POST", "/v1/sessions/guest").json(&json!({})).send())
            };
            Self {
                directory: directory.clone(),
                game,
                rules,
                users: (0..seats).map(|_| guest()).collect(),
                watcher: guest(),
                seed: seed.wrapping_mul(1000).wrapping_add(number),
                acks: AtomicUsize::new(0),
                rest: OnceLock::new(),
                played: Mutex::default(),
            }
        });
        tables.collect()
    }

    /// Its game, if that is a plugin whose matches are short.
    pub fn plugin_of_turns(&self) -> Option<&'static str> {
        let is_plugin = PLUGINS.iter().any(|(name, _)| *name == self.game);
        (is_plugin && self.rules.mode() == Mode::Turns).then_some(self.game)
    }

    /// How many acknowledgements its players have got.
    pub fn acks(&self) -> usize {
        self.acks.load(Ordering::Relaxed)
    }

    /// Plays until it is to rest.
    pub fn run(&self) {
        let mut random = Random(self.seed);
        while self.rest.get().is_none() {
            let Some(id) = self.new_match(&mut random) else { return };
            let mut bots: Vec<Bot> = (0..self.users.len())
                .map(|seat| Bot::new(self, &id, Some(seat), random.below(usize::MAX)))
                .collect();
            bots.push(Bot::new(self, &id, None, random.below(usize::MAX)));
            std::thread::scope(|scope| {
                for bot in &mut bots {
                    scope.spawn(|| bot.run());
                }
            });
            let records = bots.into_iter().map(|bot| bot.record).collect();
            self.played.lock().unwrap().push((id, records));
        }
    }

    /// What was played, beside what the nodes and the database say of it now.
    pub fn histories(&self, fleet: &Fleet, kept: &mut Kept) -> Vec<History> {
        let played = std::mem::take(&mut *self.played.lock().unwrap());
        let history = |(nth, (id, mut records)): (usize, (String, Vec<Record>))| {
            let node = &fleet.nodes[nth % fleet.nodes.len()].server;
            let path = format!("/v1/matches/{id}/events?limit=1");
            // A node that has just come back may say that it is not ready yet.
            let ready = || Some(node.get(&self.users[0], &path)).filter(|one| one.status != 503);
            let answer = until("the log can be read", ready);
            let mut log = Vec::new();
            if answer.status == 200 {
                log.extend(node.events(&self.users[0], &id).iter().map(item));
            } else {
                records[0].notes.push(format!("no log: {} {}", answer.status, answer.text()));
            }
            let stored = kept.matches.remove(&id).unwrap_or_default();
            let writes = kept.writes.remove(&id).unwrap_or_default();
            History { id, mode: self.rules.mode(), log, stored, writes, records }
        };
        played.into_iter().enumerate().map(history).collect()
    }

    fn new_match(&self, random: &mut Random) -> Option<String> {
        let options = match self.rules {
            Rules::Lines => json!({}),
            Rules::Cards => json!({"players": 2, "pairs": PAIRS}),
            Rules::Ride => json!({"rounds": 1}),
            Rules::Room => json!({"players": ROOM_SEATS}),
        };
        let body = json!({"game": self.game, "options": options});
        // Some node has plugins.
        let made = loop {
            let made = self.ask(random, &self.users[0], "/v1/matches", &body)?;
            // 422: the node has no plugins, and begins no matches of them.
            if made.status != 422 || !PLUGINS.iter().any(|(name, _)| *name == self.game) {
                break made.expect(201);
            }
        };
        let id = made["id"].as_str().unwrap();
        for (seat, user) in self.users.iter().enumerate().skip(1) {
            let path = format!("/v1/matches/{id}/players");
            let joined = self.ask(random, user, &path, &json!({}))?;
            // 200: it was done when the answer was lost.
            let status = if joined.status == 200 { 200 } else { 201 };
            assert_eq!(joined.expect(status), json!({ "seat": seat }));
        }
        Some(id.to_owned())
    }

    /// A POST to one node after another until one answers; `None` if time is up.
    fn ask(&self, random: &mut Random, user: &User, path: &str, body: &Value) -> Option<Answer> {
        while !self.is_overdue() {
            let address = self.any_node(random);
            let request = call(address, "POST", path).token(&user.token).json(body);
            match open(address).and_then(|stream| request.send_on(stream)) {
                Ok(answer) if answer.status < 500 => return Some(answer),
                _ => sleep(RETRY),
            }
        }
        None
    }

    fn any_node(&self, random: &mut Random) -> SocketAddr {
        let addresses = self.directory.addresses();
        addresses[random.below(addresses.len())]
    }

    fn is_overdue(&self) -> bool {
        self.rest.get().is_some_and(|since| since.elapsed() > REST_MAX)
    }
}

/// One player in one match, or somebody who watches.
struct Bot<'a> {
    table: &'a Table,
    user: &'a User,
    match_id: &'a str,
    seat: Option<usize>,
    random: Random,
    record: Record,
    /// The last event that was seen.
    last: u64,
    next_id: u64,
    /// The command that was sent and not yet answered.
    in_flight: Option<(u64, Value)>,
    board: Board,
}

impl<'a> Bot<'a> {
    fn new(table: &'a Table, match_id: &'a str, seat: Option<usize>, seed: usize) -> Self {
        Self {
            table,
            user: seat.map_or(&table.watcher, |seat| &table.users[seat]),
            match_id,
            seat,
            random: Random(seed as u64),
            record: Record { seat: seat.map(|seat| seat as u64), ..Record::default() },
            last: 0,
            next_id: 1,
            in_flight: None,
            board: Board::default(),
        }
    }

    /// Plays to the end, through as many sockets as that takes.
    fn run(&mut self) {
        while !self.is_done() {
            if self.table.is_overdue() {
                let state =
                    format!("stuck after event {}, waits for {:?}", self.last, self.in_flight);
                self.record.notes.push(state);
                return;
            }
            if self.sit().is_err() {
                sleep(RETRY);
            }
        }
        // Once more, for the view of the end.
        while self.connect().is_err() && !self.table.is_overdue() {
            sleep(RETRY);
        }
    }

    fn is_room(&self) -> bool {
        self.table.rules == Rules::Room
    }

    fn is_done(&self) -> bool {
        let resting = self.is_room() && self.table.rest.get().is_some();
        self.in_flight.is_none() && (self.board.ended || resting)
    }

    /// Plays on one socket; an error is its end.
    fn sit(&mut self) -> io::Result<()> {
        let mut socket = self.connect()?;
        if let Some((id, command)) = self.in_flight.clone() {
            send(&mut socket, id, &command)?;
        }
        while !self.is_done() {
            if self.in_flight.is_none() && self.may_move() {
                // Nobody thinks for no time at all; the machine is to be loaded, not choked.
                let least = if self.table.rules == Rules::Ride { TURN_MS } else { 5 };
                sleep(Duration::from_millis(least + self.random.below(20) as u64));
                self.act(&mut socket)?;
                if self.random.below(BREAKS_EVERY) == 0 {
                    return Ok(());
                }
            }
            let message = read(&mut socket)?;
            self.take(&message)?;
        }
        Ok(())
    }

    fn connect(&mut self) -> io::Result<Socket> {
        let address = self.table.any_node(&mut self.random);
        let path = format!("/v1/matches/{}/socket?after={}", self.match_id, self.last);
        let request: Call = upgrade(address, &path).token(&self.user.token);
        let answer = request.socket_on(self.open(address)?)?;
        let mut socket = answer.map_err(|answer| self.refused(&answer))?;
        let welcome = read(&mut socket)?;
        // A room keeps what was said only while its node lives, and riders lose a moment with it.
        let may_fall = self.table.rules.mode() != Mode::Turns;
        if welcome["resumed"] != true && !may_fall {
            self.record.notes.push(format!("not resumed after {}: {welcome}", self.last));
        }
        if welcome["seat"].as_u64() != self.record.seat {
            self.record.notes.push(format!("another seat: {welcome}"));
        }
        let seq = welcome["seq"].as_u64().unwrap();
        let (tick, view) = (welcome["tick"].as_u64(), welcome["view"].clone());
        self.record.views.push(Seen { known: self.last, seq, tick, view });
        if may_fall && welcome["resumed"] != true {
            self.last = seq;
        }
        self.record.sockets.push(Heard { after: self.last, items: Vec::new() });
        Ok(socket)
    }

    fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = open(address)?;
        if self.seat.is_none() {
            stream.set_read_timeout(Some(WATCHER_PATIENCE))?;
        }
        Ok(stream)
    }

    fn refused(&mut self, answer: &Answer) -> io::Error {
        let text = format!("{}: {}", answer.status, answer.text());
        if answer.status < 500 && answer.status != 429 {
            self.record.notes.push(format!("not let in: {text}"));
        }
        io::Error::other(text)
    }

    fn may_move(&self) -> bool {
        let Board { running, turn, ref taken, .. } = self.board;
        let turn = match self.table.rules {
            Rules::Room => true,
            Rules::Ride => running,
            Rules::Lines | Rules::Cards => running && Some(turn) == self.seat,
        };
        let full = self.table.rules == Rules::Lines && taken.len() == CELLS;
        self.seat.is_some() && turn && !full && !self.board.ended && !self.is_done()
    }

    fn act(&mut self, socket: &mut Socket) -> io::Result<()> {
        let id = self.next_id;
        let command = match self.table.rules {
            Rules::Lines => json!({"place": self.board.free_cell(&mut self.random)}),
            Rules::Cards => json!({"flip": self.board.card()}),
            Rules::Ride => json!({"turn": HEADINGS[self.random.below(HEADINGS.len())]}),
            Rules::Room if id.is_multiple_of(STATE_EVERY) => {
                json!({"state": {"by": self.seat, "n": id}})
            }
            Rules::Room => json!({"send": {"by": self.seat, "n": id}}),
        };
        self.next_id += 1;
        self.in_flight = Some((id, command.clone()));
        self.record.sent.push(Sent { id, command: command.clone(), at: Instant::now() });
        send(socket, id, &command)
    }

    fn take(&mut self, message: &Value) -> io::Result<()> {
        match message["type"].as_str().unwrap() {
            "event" => self.see(item(message)),
            "ack" => self.acknowledged(message),
            "error" if self.is_too_late(message) => self.in_flight = None,
            "error" => return Err(self.complain(message)),
            _ => {}
        }
        Ok(())
    }

    fn see(&mut self, item: Item) {
        if item.seq > self.last {
            self.last = item.seq;
            self.board.apply(&item.event);
        }
        self.record.sockets.last_mut().unwrap().items.push(item);
    }

    fn acknowledged(&mut self, message: &Value) {
        let number = |name: &str| message[name].as_u64().unwrap();
        self.record.acks.push(Ack { id: number("id"), seq: number("seq"), at: Instant::now() });
        self.in_flight = self.in_flight.take().filter(|(id, _)| *id != number("id"));
        self.table.acks.fetch_add(1, Ordering::Relaxed);
    }

    /// A bot that does not see the other's line, or crash, moves on before the end has come. Were this
    /// command applied all the same, the checker would miss its `ack`.
    fn is_too_late(&self, message: &Value) -> bool {
        let kind = message["problem"]["type"].as_str().unwrap_or_default();
        let late = kind.ends_with("/match-not-running");
        match self.table.rules {
            Rules::Lines => late,
            Rules::Ride => late || kind.ends_with("/illegal-move"),
            Rules::Cards | Rules::Room => false,
        }
    }

    /// A refusal for now is the end of the socket; any other should not be.
    fn complain(&mut self, message: &Value) -> io::Error {
        let kind = message["problem"]["type"].as_str().unwrap_or_default();
        if !kind.ends_with("/overloaded") && !kind.ends_with("/rate-limited") {
            let note = format!("{message} to {:?} at {}", self.in_flight, self.last);
            // At once as well: what repeats may keep the run from its end.
            eprintln!("match {} seat {:?}: {note}", self.match_id, self.seat);
            self.record.notes.push(note);
        }
        io::Error::other(message.to_string())
    }
}

/// What a player knows of a match of turns.
#[derive(Default)]
struct Board {
    running: bool,
    ended: bool,
    turn: usize,
    /// Cells that are taken, or cards that are kept.
    taken: Vec<usize>,
    known: BTreeMap<usize, u64>,
    up: Option<usize>,
}

impl Board {
    fn apply(&mut self, event: &Value) {
        let place = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        if event.get("started").is_some() {
            self.running = true;
        } else if event.get("ended").is_some() {
            self.ended = true;
        } else if let Some(cell) = event.get("placed") {
            self.taken.push(place(cell));
            self.turn = 1 - self.turn;
        } else if let Some(index) = event.get("flipped").map(place) {
            self.known.insert(index, event["card"].as_u64().unwrap());
            self.up = if self.up.is_none() { Some(index) } else { None };
        } else if let Some(pair) = event.get("kept") {
            self.taken.extend(pair.as_array().unwrap().iter().map(place));
        } else if event.get("hidden").is_some() {
            self.turn = 1 - self.turn;
        }
    }

    fn free_cell(&self, random: &mut Random) -> usize {
        let free: Vec<usize> = (0..CELLS).filter(|cell| !self.taken.contains(cell)).collect();
        free[random.below(free.len())]
    }

    fn card(&self) -> usize {
        pairs::choose(2 * PAIRS, &self.known, &self.taken, self.up)
    }
}

fn item(message: &Value) -> Item {
    let seq = message["seq"].as_u64().unwrap();
    Item { seq, seat: message["seat"].as_u64(), event: message["event"].clone() }
}

/// A connection that gives a node no longer than a player would.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn send(socket: &mut Socket, id: u64, command: &Value) -> io::Result<()> {
    socket.try_send(&json!({"type": "command", "id": id, "command": command}))
}

/// The next message. Whoever is asked whether they are still there begins anew: a watcher of a match
/// that stands still for ever would wait with it otherwise.
fn read(socket: &mut Socket) -> io::Result<Value> {
    match socket.try_next()? {
        Incoming::Message(message) => Ok(message),
        Incoming::Ping(_) | Incoming::Pong(_) => Err(io::ErrorKind::TimedOut.into()),
        Incoming::Close(code, reason) => Err(io::Error::other(format!("{code} {reason}"))),
    }
}
