//! `kill -9` in the middle of play: what was acknowledged is there, once, and matches go on.
//!
//! Several matches of `pairs` are played at once, each by a thread that holds both sockets, while
//! the server is killed and started again, after as many acknowledgements as chance says and with
//! other commands in flight.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};

use serde_json::{Value, json};

use crate::client::{Incoming, Socket, User};
use crate::harness::{DEADLINE, Server};
use crate::pairs;
use crate::postgres::Cluster;

/// Matches that are played at once.
const MATCHES: usize = 6;
/// How often the server is killed.
const KILLS: usize = 4;
/// Pairs in each match.
const PAIRS: usize = 24;

/// What the threads that play and the one that kills tell each other.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the server is, and how often it was started.
    server: Option<(SocketAddr, usize)>,
    acks: usize,
    /// Threads that have ended, well or not.
    done: usize,
}

impl Shared {
    fn wait<T>(&self, mut ready: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(value) = ready(&state) {
                return value;
            }
            let (next, timeout) = self.changed.wait_timeout(state, DEADLINE).unwrap();
            assert!(!timeout.timed_out(), "nothing happened");
            state = next;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// A server that was started after life `after`.
    fn server(&self, after: usize) -> (SocketAddr, usize) {
        self.wait(|state| state.server.filter(|(_, life)| *life > after))
    }
}

/// Counts its thread as done even when it panics, so that nobody waits for it.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.done += 1);
    }
}

/// A command.
#[derive(Clone, Copy, Debug)]
struct Flip {
    seat: usize,
    id: u64,
    place: usize,
}

/// One match and what its two players have been told.
struct Play<'a> {
    shared: &'a Shared,
    users: [User; 2],
    id: String,
    /// Each player's next command: its id.
    next_id: [u64; 2],
    /// Every event, by its number, as each player saw it.
    seen: [BTreeMap<u64, Value>; 2],
    /// Every acknowledged command, and the number of its last event.
    acked: Vec<(Flip, u64)>,
    /// The command that was sent and not yet answered.
    in_flight: Option<Flip>,
    /// What the table shows.
    known: BTreeMap<usize, u64>,
    kept: Vec<usize>,
    up: Option<usize>,
    turn: usize,
    ended: bool,
}

impl Play<'_> {
    /// Plays to the end, through as many crashes as there are.
    fn run(&mut self) {
        let mut life = 0;
        while !self.complete() {
            let (address, current) = self.shared.server(life);
            life = current;
            // An error is the server's death: the next life is waited for.
            let _ = self.run_until_crash(address);
        }
    }

    /// Both have seen the end, and nothing waits for an answer.
    fn complete(&self) -> bool {
        self.ended && self.in_flight.is_none() && self.seen[0].len() == self.seen[1].len()
    }

    fn run_until_crash(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut sockets = [self.connect(address, 0)?, self.connect(address, 1)?];
        // What was acknowledged in an earlier life is answered as it was then.
        if let Some((flip, seq)) = self.acked.last().copied() {
            assert_eq!(self.ask(&mut sockets[flip.seat], flip)?, seq);
        }
        while !self.complete() {
            if !self.ended || self.in_flight.is_some() {
                self.flip(&mut sockets)?;
            }
            for (seat, socket) in sockets.iter_mut().enumerate() {
                let last = self.seen.iter().map(BTreeMap::len).max().unwrap_or_default();
                self.read_up_to(socket, seat, last as u64)?;
            }
        }
        Ok(())
    }

    /// Sends a command: the very one that may or may not have been applied, if there is one.
    fn flip(&mut self, sockets: &mut [Socket; 2]) -> io::Result<()> {
        let next = || Flip { seat: self.turn, id: self.next_id[self.turn], place: self.choose() };
        let flip = self.in_flight.unwrap_or_else(next);
        self.in_flight = Some(flip);
        let seq = self.ask(&mut sockets[flip.seat], flip)?;
        self.in_flight = None;
        self.next_id[flip.seat] += 1;
        self.acked.push((flip, seq));
        self.shared.change(|state| state.acks += 1);
        Ok(())
    }

    /// Comes back with `?after=`; what was missed is applied before anything is sent.
    fn connect(&mut self, address: SocketAddr, seat: usize) -> io::Result<Socket> {
        let last = self.seen[seat].keys().next_back().copied().unwrap_or(0);
        let path = format!("/v1/matches/{}/socket?after={last}", self.id);
        let mut socket = Socket::open(address, &self.users[seat], &path, None)?;
        let welcome = read(&mut socket)?;
        assert_eq!((&welcome["type"], &welcome["resumed"]), (&json!("welcome"), &json!(true)));
        let seq = welcome["seq"].as_u64().unwrap();
        assert!(seq >= last, "events {seq}.. of {last} are gone");
        self.read_up_to(&mut socket, seat, seq)?;
        let acked = self.next_id[seat] - 1;
        let last_id = welcome["last_id"].as_u64().unwrap();
        assert!(last_id == acked || self.in_flight.is_some_and(|flip| flip.id == last_id));
        Ok(socket)
    }

    fn ask(&mut self, socket: &mut Socket, flip: Flip) -> io::Result<u64> {
        let Flip { seat, id, place } = flip;
        socket.try_send(&json!({"type": "command", "id": id, "command": {"flip": place}}))?;
        loop {
            let message = read(socket)?;
            match message["type"].as_str().unwrap() {
                "ack" if message["id"] == id => return Ok(message["seq"].as_u64().unwrap()),
                "error" => panic!("{message} to {flip:?}"),
                _ => self.take(seat, &message),
            }
        }
    }

    fn read_up_to(&mut self, socket: &mut Socket, seat: usize, seq: u64) -> io::Result<()> {
        while self.seen[seat].keys().next_back().copied().unwrap_or(0) < seq {
            let message = read(socket)?;
            self.take(seat, &message);
        }
        Ok(())
    }

    fn take(&mut self, seat: usize, message: &Value) {
        if message["type"] != "event" {
            return;
        }
        let seq = message["seq"].as_u64().unwrap();
        let last = self.seen[seat].keys().next_back().copied().unwrap_or(0);
        assert_eq!(seq, last + 1, "no gap, nothing twice");
        let event = &message["event"];
        let first_to_see = !self.seen[1 - seat].contains_key(&seq);
        if !first_to_see {
            assert_eq!(&self.seen[1 - seat][&seq], event, "both see the same");
        }
        self.seen[seat].insert(seq, event.clone());
        if first_to_see {
            self.apply(event);
        }
    }

    fn apply(&mut self, event: &Value) {
        let place = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
        if event.get("flipped").is_some() {
            let flipped = place(&event["flipped"]);
            self.known.insert(flipped, event["card"].as_u64().unwrap());
            self.up = if self.up.is_none() { Some(flipped) } else { None };
        } else if let Some(pair) = event.get("kept") {
            self.kept.extend(pair.as_array().unwrap().iter().map(place));
        } else if event.get("hidden").is_some() {
            self.turn = 1 - self.turn;
        } else if event.get("ended").is_some() {
            self.ended = true;
        }
    }

    /// The place to turn up.
    fn choose(&self) -> usize {
        pairs::choose(2 * PAIRS, &self.known, &self.kept, self.up)
    }

    /// Holds the server's log against what the players were told.
    fn verify(&self, server: &Server) {
        let log = server.events(&self.users[0], &self.id);
        for (index, item) in log.iter().enumerate() {
            let seq = index as u64 + 1;
            assert_eq!(item["seq"], seq, "numbers have no gaps");
            for seen in &self.seen {
                assert_eq!(seen.get(&seq), Some(&item["event"]), "event {seq}");
            }
        }
        let flips = log.iter().filter(|item| item["event"].get("flipped").is_some());
        let applied: u64 = self.next_id.iter().map(|next| next - 1).sum();
        assert_eq!(flips.count() as u64, applied, "each command once");
        for (flip, seq) in &self.acked {
            let mut before = log[..usize::try_from(*seq).unwrap()].iter().rev();
            let logged = before.find(|item| item["event"].get("flipped").is_some()).unwrap();
            assert_eq!(logged["event"]["flipped"], flip.place, "{flip:?} at {seq}");
            assert_eq!(logged["seat"], flip.seat);
        }
    }
}

fn read(socket: &mut Socket) -> io::Result<Value> {
    loop {
        match socket.try_next()? {
            Incoming::Message(message) => return Ok(message),
            Incoming::Ping(_) | Incoming::Pong(_) => {}
            Incoming::Close(code, reason) => {
                return Err(io::Error::other(format!("{code} {reason}")));
            }
        }
    }
}

fn random_below(bound: u64) -> usize {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    usize::try_from(u64::from_ne_bytes(bytes) % bound).unwrap()
}

/// Plays matches to their end while `disturb` is called with what there is to disturb, and holds the
/// logs against what was seen.
fn play(server: &mut Server, disturb: impl FnOnce(&Shared, &mut Server)) {
    let shared = Shared::default();
    let new = |_| {
        let users = [server.guest(), server.guest()];
        let body = json!({"game": "pairs", "options": {"players": 2, "pairs": PAIRS}});
        let id = server.seated(&body, &[&users[0], &users[1]]);
        Play {
            shared: &shared,
            users,
            id,
            next_id: [1; 2],
            seen: <_>::default(),
            acked: Vec::new(),
            in_flight: None,
            known: BTreeMap::new(),
            kept: Vec::new(),
            up: None,
            turn: 0,
            ended: false,
        }
    };
    let mut plays: Vec<Play> = (0..MATCHES).map(new).collect();
    std::thread::scope(|scope| {
        for play in &mut plays {
            let shared = &shared;
            scope.spawn(move || {
                let _done = Done(shared);
                play.run();
            });
        }
        disturb(&shared, server);
    });
    for play in &plays {
        assert!(play.ended);
        play.verify(server);
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_or_applied_twice() {
    play(&mut Server::start(), |shared, server| {
        for life in 1..=KILLS {
            shared.change(|state| state.server = Some((server.public, life)));
            let enough = shared.state.lock().unwrap().acks + 1 + random_below(60);
            eprintln!("kill {life} after {enough} acknowledgements");
            shared.wait(|state| (state.acks >= enough || state.done > 0).then_some(()));
            server.kill9();
            server.restart();
        }
        shared.change(|state| state.server = Some((server.public, KILLS + 1)));
    });
}

/// Whoever plays notices nothing: a socket that closed would wait for another life of the server.
#[test]
fn connections_to_the_database_that_break_under_commits_are_no_matter() {
    let cluster = Cluster::start();
    let url = cluster.url();
    let mut server = Server::with(&[("DATABASE_URL", &url), ("LEASE_SECONDS", "60")]);
    play(&mut server, |shared, server| {
        let mut client = ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap();
        shared.change(|state| state.server = Some((server.public, 1)));
        let mut broken = 0;
        while shared.state.lock().unwrap().done == 0 {
            let enough = shared.state.lock().unwrap().acks + 1 + random_below(20);
            shared.wait(|state| (state.acks >= enough || state.done > 0).then_some(()));
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND application_name = 'gameserver'";
            broken += client.query(sql, &[]).unwrap().len();
        }
        assert!(broken > 0, "there was nothing to break");
    });
}

#[test]
fn an_acknowledged_move_is_there_after_a_crash_at_once() {
    let mut server = Server::start();
    let (id, users, [mut first, second]) = server.tictactoe();
    assert_eq!(first.accepted(1, &json!({"place": 4})), 4);
    server.kill9();
    drop((first, second));
    server.restart();
    let (mut first, welcome) =
        server.connect(&users[0], &format!("/v1/matches/{id}/socket?after=3"));
    assert_eq!((&welcome["seq"], &welcome["state"]), (&json!(4), &json!("running")));
    assert_eq!((&welcome["resumed"], &welcome["last_id"]), (&json!(true), &json!(1)));
    assert_eq!(first.message()["event"], json!({"placed": 4}));
    assert_eq!(first.accepted(1, &json!({"place": 4})), 4);
    assert_eq!(first.refused(2, &json!({"place": 0})), "not-your-turn");
    let mut second = server.play(&users[1], &id);
    assert_eq!(second.accepted(1, &json!({"place": 0})), 5);
}

/// Runs SQL on the store of a server that is down.
fn on_store(server: &Server, sql: &str) -> u64 {
    if let Some(url) = server.database_url() {
        let mut client = ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap();
        return client.execute(sql, &[]).unwrap();
    }
    let db = rusqlite::Connection::open(server.data.path().join("data/gameserver.db"));
    db.unwrap().execute(sql, []).unwrap() as u64
}

/// Two cards that differ are turned up and back again, many times.
#[test]
fn a_long_match_comes_back_from_its_latest_snapshot_or_its_whole_log() {
    const TURNS: usize = 200;
    const SEATS: usize = 8;
    let mut server = Server::start();
    let users = [(); SEATS].map(|()| server.guest());
    let body = json!({"game": "pairs", "options": {"players": SEATS, "pairs": 32}});
    let id = server.seated(&body, &users.each_ref());
    let mut sockets = users.each_ref().map(|user| server.play(user, &id));
    let first_flip = server.events(&users[0], &id).len() + 1;
    let (mut places, mut last_ids, mut last) = ([0, 1], [0; SEATS], 0);
    let mut turn = 0;
    while turn < TURNS {
        let seat = turn % SEATS;
        for place in places {
            last_ids[seat] += 1;
            last = sockets[seat].accepted(last_ids[seat], &json!({"flip": place}));
        }
        if turn == 0 && server.events(&users[0], &id).last().unwrap()["event"]["hidden"].is_null() {
            // They were alike: the same seat goes on, with others.
            places = places.map(|place| place + 2);
        } else {
            turn += 1;
        }
    }
    let path = format!("/v1/matches/{id}/socket");
    let welcome = |server: &Server, seat: usize| {
        let mut welcome = server.connect(&users[seat], &path).1;
        welcome["players"].take();
        welcome
    };
    drop(sockets);
    let before = [welcome(&server, 0), welcome(&server, 7)];
    assert_eq!((&before[0]["seq"], &before[0]["last_id"]), (&json!(last), &json!(last_ids[0])));
    server.kill9();
    let spoil = format!("UPDATE match_events SET event = '?' || event WHERE seq = {first_flip}");
    assert_eq!(on_store(&server, &spoil), 1);
    server.restart();
    assert_eq!([welcome(&server, 0), welcome(&server, 7)], before, "by the snapshot alone");
    server.kill9();
    let mend = "UPDATE match_events SET event = substr(event, 2) WHERE event LIKE '?%'";
    assert_eq!(on_store(&server, mend), 1);
    assert_eq!(on_store(&server, "UPDATE match_snapshots SET state = '{}'"), 1);
    server.restart();
    assert_eq!([welcome(&server, 0), welcome(&server, 7)], before, "by the log alone");
    server.logged(|line| line.contains("a snapshot is of no use"));
    // All know what was applied, and go on.
    let (mut socket, _) = server.connect(&users[7], &path);
    assert_eq!(socket.accepted(last_ids[7], &json!({"flip": places[1]})), last);
    assert_eq!(socket.refused(last_ids[7] + 1, &json!({"flip": 0})), "not-your-turn");
    let (mut socket, _) = server.connect(&users[0], &path);
    assert_eq!(socket.accepted(last_ids[0] + 1, &json!({"flip": places[0]})), last + 1);
}

#[test]
fn open_matches_and_ended_ones_outlive_a_crash() {
    let mut server = Server::start();
    let users = [server.guest(), server.guest()];
    let open = server.seated(&json!({"game": "tictactoe", "visibility": "private"}), &[&users[0]]);
    let ended = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    server.delete(&users[0], &format!("/v1/matches/{ended}/players/me"));
    let see =
        |server: &Server, id: &str| server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
    let before = [see(&server, &open), see(&server, &ended)];
    server.kill9();
    server.restart();
    assert_eq!([see(&server, &open), see(&server, &ended)], before);
    let body = json!({"join_code": before[0]["join_code"]});
    let joined = server.post(&users[1], &format!("/v1/matches/{open}/players"), &body);
    assert_eq!(joined.expect(201), json!({"seat": 1}));
}
