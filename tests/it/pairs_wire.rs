//! `pairs` on the wire: nothing that anybody is ever sent tells of a card that is face down.
//!
//! Whole games are played; every frame of every socket and every REST body is searched, and only
//! cards that have been turned up before are allowed in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::client::{MSGPACK, Socket, User};
use crate::harness::{Server, shared};

/// Every name that a message or a REST body about such a match may hold. A new one fails the test,
/// so that somebody looks at what it gives away.
const NAMES: &[&str] = &[
    "at",
    "before",
    "after",
    "card",
    "cards",
    "connected",
    "created_at",
    "detail",
    "display_name",
    "draw",
    "ended",
    "event",
    "flipped",
    "game",
    "hidden",
    "id",
    "items",
    "join_code",
    "joined",
    "kept",
    "last_id",
    "match",
    "mode",
    "next_cursor",
    "outcome",
    "owner",
    "players",
    "problem",
    "reason",
    "resumed",
    "scores",
    "seat",
    "seats",
    "seq",
    "started",
    "state",
    "status",
    "title",
    "turn",
    "type",
    "user",
    "view",
    "visibility",
    "winners",
    "ratings",
    "left",
    "options",
];

/// What the table shows, as one who has watched from the start knows it.
#[derive(Default)]
struct Table {
    /// Cards that have ever been turned up: their place and picture.
    known: BTreeMap<usize, u64>,
    /// Places whose card lies open: turned up in this turn, or kept.
    open: BTreeSet<usize>,
}

impl Table {
    /// Takes an event of the game.
    fn apply(&mut self, event: &Value) {
        let pair = |name: &str| {
            let places = event[name].as_array().map(Vec::as_slice).unwrap_or_default();
            places.iter().map(place).collect::<Vec<_>>()
        };
        if !event["flipped"].is_null() {
            let (place, card) = (place(&event["flipped"]), event["card"].as_u64().unwrap());
            let before = self.known.insert(place, card);
            assert!(before.is_none_or(|before| before == card), "a card never changes");
            self.open.insert(place);
        }
        self.open.extend(pair("kept"));
        for place in pair("hidden") {
            self.open.remove(&place);
        }
    }

    /// Searches anything that somebody was sent.
    #[track_caller]
    fn check(&self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.check(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    assert!(NAMES.contains(&name.as_str()), "{name:?} is new in {value}");
                    self.check(field);
                }
                if let Some(card) = fields.get("card") {
                    let known = self.known.get(&place(&fields["flipped"])).copied();
                    assert_eq!(card.as_u64(), known, "{value}");
                }
                if let Some(cards) = fields.get("cards") {
                    self.check_view(cards.as_array().unwrap());
                }
            }
            _ => {}
        }
    }

    #[track_caller]
    fn check_view(&self, cards: &[Value]) {
        for (place, card) in cards.iter().enumerate() {
            let shown = self.open.contains(&place).then(|| self.known[&place]);
            assert_eq!(card.as_u64(), shown, "place {place} of {cards:?}");
        }
    }
}

fn place(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// A game in play and everyone who looks on.
struct Game<'a> {
    server: &'a Server,
    id: String,
    players: Vec<User>,
    spectator: User,
    /// The players' sockets, then the spectators'.
    sockets: Vec<Socket>,
    ids: Vec<u64>,
    seq: u64,
    table: Table,
}

impl<'a> Game<'a> {
    fn new(server: &'a Server, seats: usize, pairs: usize) -> Self {
        let players: Vec<User> = (0..seats).map(|_| server.guest()).collect();
        let spectator = server.guest();
        let body = json!({"game": "pairs", "options": {"players": seats, "pairs": pairs}});
        let id = server.seated(&body, &players.iter().collect::<Vec<_>>());
        let path = format!("/v1/matches/{id}/socket");
        let table = Table::default();
        let mut sockets = Vec::new();
        for user in players.iter().chain([&spectator]) {
            let (socket, welcome) = server.connect(user, &path);
            table.check(&welcome);
            assert_eq!(welcome["view"]["cards"].as_array().unwrap().len(), 2 * pairs);
            sockets.push(socket);
        }
        let mut binary = Socket::open(server.public, &spectator, &path, Some(MSGPACK)).unwrap();
        table.check(&binary.message());
        sockets.push(binary);
        let seq = seats as u64 + 1;
        Self { server, id, ids: vec![0; seats], players, spectator, sockets, seq, table }
    }

    /// Turns a card up and lets everyone see what follows; gives those events.
    fn flip(&mut self, seat: usize, place: usize) -> Vec<Value> {
        self.ids[seat] += 1;
        self.sockets[seat].command(self.ids[seat], &json!({ "flip": place }));
        let mut events: Vec<Value> = Vec::new();
        let last = loop {
            let message = self.sockets[seat].message();
            match message["type"].as_str().unwrap() {
                "event" => {
                    let ends = !message["event"]["ended"].is_null();
                    assert_eq!(message["seat"], if ends { Value::Null } else { json!(seat) });
                    self.table.apply(&message["event"]);
                    events.push(message["event"].clone());
                }
                "ack" => break message["seq"].as_u64().unwrap(),
                "error" => panic!("{message}"),
                _ => {}
            }
            // At once: between the flip and the hiding the card lies open.
            self.table.check(&message);
        };
        assert_eq!(last, self.seq + events.len() as u64);
        for (index, socket) in self.sockets.iter_mut().enumerate().filter(|(i, _)| *i != seat) {
            for (number, event) in events.iter().enumerate() {
                let message = socket.event();
                assert_eq!(&message["event"], event, "socket {index}");
                assert_eq!(message["seq"], self.seq + number as u64 + 1);
                self.table.check(&message);
            }
        }
        self.seq = last;
        events
    }

    /// What late comers, returners and REST are given now.
    fn check_everything(&self) {
        let newcomer = self.server.guest();
        for user in [&self.spectator, &newcomer] {
            for after in ["", "?after=0", "?after=3"] {
                let path = format!("/v1/matches/{}/socket{after}", self.id);
                let (mut socket, welcome) = self.server.connect(user, &path);
                self.table.check(&welcome);
                socket.pending().iter().for_each(|message| self.table.check(message));
            }
        }
        let path = format!("/v1/matches/{}", self.id);
        for path in [&path, &format!("{path}/events"), "/v1/matches?game=pairs&mine=true"] {
            for user in [&self.players[0], &newcomer] {
                self.table.check(&self.server.get(user, path).expect(200));
            }
        }
    }

    /// Nobody was sent anything else, in any field, up to now.
    fn check_all_frames(&self) {
        for bytes in self.sockets.iter().flat_map(|socket| &socket.received) {
            let message: Value =
                serde_json::from_slice(bytes).or_else(|_| rmp_serde::from_slice(bytes)).unwrap();
            if message["type"] != "welcome" {
                self.table.check(&message);
            }
        }
    }
}

/// Plays to the end: each turns up the first unknown card, then its twin if that is known, else
/// the next unknown one.
fn play(seats: usize, pairs: usize) {
    let server = shared();
    let mut game = Game::new(&server, seats, pairs);
    let mut turn = 0;
    let mut scores = vec![0; seats];
    while scores.iter().sum::<usize>() < pairs {
        let closed = |game: &Game, not: Option<usize>| {
            let closed = |place: &usize| !game.table.open.contains(place) && Some(*place) != not;
            let mut places: Vec<usize> = (0..2 * pairs).filter(closed).collect();
            places.sort_by_key(|place| game.table.known.contains_key(place));
            places
        };
        let first = closed(&game, None)[0];
        assert_eq!(game.flip(turn, first).len(), 1);
        game.check_everything();
        let card = game.table.known[&first];
        let rest = closed(&game, Some(first));
        let twin = rest.iter().copied().find(|place| game.table.known.get(place) == Some(&card));
        let second = twin.unwrap_or(rest[0]);
        let events = game.flip(turn, second);
        let pair = [first.min(second), first.max(second)];
        let matched = game.table.known[&second] == card;
        let named = &events[1][if matched { "kept" } else { "hidden" }];
        let mut named: Vec<usize> = named.as_array().unwrap().iter().map(place).collect();
        named.sort_unstable();
        assert_eq!(named, pair);
        if matched {
            scores[turn] += 1;
        } else {
            turn = (turn + 1) % seats;
        }
        game.check_everything();
    }
    let best = scores.iter().max().unwrap();
    let winners: Vec<usize> = (0..seats).filter(|seat| scores[*seat] == *best).collect();
    for socket in &mut game.sockets {
        let outcome = socket.expect("ended")["outcome"].clone();
        assert_eq!(outcome["draw"], winners.len() > 1);
        if winners.len() == 1 {
            assert_eq!(outcome["winners"], json!(winners));
        }
    }
    game.check_everything();
    game.check_all_frames();
}

#[test]
fn two_players_never_see_a_card_that_is_face_down() {
    play(2, 5);
}

#[test]
fn four_players_never_see_a_card_that_is_face_down() {
    play(4, 4);
}

#[test]
fn a_refused_flip_tells_nothing() {
    let server = shared();
    let mut game = Game::new(&server, 2, 8);
    game.flip(0, 3);
    for (seat, place, word) in [
        (0, json!(3), "illegal-move"),
        (1, json!(4), "not-your-turn"),
        (0, json!(16), "illegal-move"),
        (0, json!(-1), "bad-command"),
        (0, json!("4"), "bad-command"),
    ] {
        let id = game.ids[seat] + 1;
        let error = game.sockets[seat].ask(id, &json!({ "flip": place }));
        let got = crate::client::word(&error);
        // A place that is no number of a card may be seen either way.
        assert!(
            got == word || place.as_i64().is_none_or(|n| n != 3 && got == "bad-command"),
            "{error}"
        );
        assert!(!error.to_string().contains("card\""), "{error}");
    }
    game.check_everything();
    game.check_all_frames();
}
