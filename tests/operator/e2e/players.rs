//! Players for the end-to-end test: they play at one address, whatever happens behind it, and hold
//! what was acknowledged against the logs.
//!
//! `PLAYERS_ADDRESS` is the address, `PLAYERS_STOP` a file at whose coming they finish.

// Helpers are `pub` for each other, not for other crates.
#![allow(unreachable_pub)]

#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../../it/client.rs"]
mod client;
#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../../it/harness.rs"]
mod harness;
#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../../support/pairs.rs"]
mod pairs;
#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../../support/postgres.rs"]
mod postgres;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use client::{Answer, Incoming, Socket, User, call, open, upgrade};

/// Cells in the order in which they are taken: nobody wins before the last.
const CELLS: [u64; 9] = [0, 1, 2, 4, 3, 5, 7, 6, 8];
const TABLES: usize = 8;
/// Between two moves.
const THINKING: Duration = Duration::from_millis(30);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(20);
/// How long a silent server is listened to.
const PATIENCE: Duration = Duration::from_secs(1);
/// Broken matches that are shown.
const SHOWN_MAX: usize = 5;
/// The longest wait of all but one match in a hundred, whatever happens to its pod.
const WAIT_P99_MAX: Duration = Duration::from_millis(500);
/// How long a move may take before the test fails.
const MOVE_MAX: Duration = Duration::from_secs(60);

/// What came of a table's matches.
#[derive(Default)]
struct Played {
    /// The longest wait from a move to its acknowledgement, for each match.
    waits: Vec<Duration>,
    moves: usize,
    broken: Vec<String>,
}

#[test]
#[ignore = "a part of the end-to-end test"]
fn players_lose_nothing() {
    let address = std::env::var("PLAYERS_ADDRESS").unwrap().parse().unwrap();
    let stop = std::env::var("PLAYERS_STOP").unwrap();
    let tables: Vec<Played> = std::thread::scope(|scope| {
        let tables: Vec<_> =
            (0..TABLES).map(|_| scope.spawn(|| play(address, Path::new(&stop)))).collect();
        tables.into_iter().map(|table| table.join().unwrap()).collect()
    });
    let mut waits: Vec<Duration> = tables.iter().flat_map(|table| table.waits.clone()).collect();
    waits.sort_unstable();
    let at = |per_mille: usize| waits[(waits.len() * per_mille / 1000).min(waits.len() - 1)];
    let moves: usize = tables.iter().map(|table| table.moves).sum();
    let broken: Vec<&String> = tables.iter().flat_map(|table| &table.broken).collect();
    println!(
        "{} matches, {moves} moves acknowledged, {} lost or doubled",
        waits.len(),
        broken.len()
    );
    println!("longest wait of a match: p50 {:?}, p99 {:?}, max {:?}", at(500), at(990), at(1000));
    assert!(broken.is_empty(), "{:#?}", &broken[..broken.len().min(SHOWN_MAX)]);
    assert!(at(990) <= WAIT_P99_MAX, "matches waited too long");
}

fn play(address: SocketAddr, stop: &Path) -> Played {
    let guest = || User::of(&post(address, None, "/v1/sessions/guest", &json!({})));
    let users = [guest(), guest()];
    let mut played = Played::default();
    while !stop.exists() {
        let made = post(address, Some(&users[0]), "/v1/matches", &json!({"game": "tictactoe"}));
        let id = made.expect(201)["id"].as_str().unwrap().to_owned();
        post(address, Some(&users[1]), &format!("/v1/matches/{id}/players"), &json!({}));
        let mut sockets = [None, None];
        let (mut longest, mut acks) = (Duration::ZERO, Vec::new());
        for (number, cell) in (1..).zip(CELLS) {
            let seat = (number - 1) % 2;
            sleep(THINKING);
            let began = Instant::now();
            let id_of_move = u64::try_from(number / 2 + number % 2).unwrap();
            while began.elapsed() < MOVE_MAX {
                let socket = &mut sockets[seat];
                if let Ok(seq) = place(address, &users[seat], &id, socket, id_of_move, cell) {
                    acks.push((seq, seat, cell));
                    break;
                }
                *socket = None;
                sleep(RETRY);
            }
            longest = longest.max(began.elapsed());
        }
        played.waits.push(longest);
        played.moves += acks.len();
        played.broken.extend(
            differs(&log(address, &users[0], &id), &acks).map(|why| format!("{id}: {why}")),
        );
    }
    played
}

/// Makes a move on the socket that is there, or a new one; gives the number of its event.
fn place(
    address: SocketAddr,
    user: &User,
    id: &str,
    socket: &mut Option<Socket>,
    id_of_move: u64,
    cell: u64,
) -> io::Result<u64> {
    if socket.is_none() {
        let stream = open(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = upgrade(address, &format!("/v1/matches/{id}/socket")).token(&user.token);
        let refused = |answer: Answer| io::Error::other(answer.text());
        *socket = Some(request.socket_on(stream)?.map_err(refused)?);
    }
    let socket = socket.as_mut().unwrap();
    let command = json!({"place": cell});
    socket.try_send(&json!({"type": "command", "id": id_of_move, "command": command}))?;
    loop {
        match socket.try_next()? {
            Incoming::Message(message) if message["id"] == id_of_move => {
                let seq = message["seq"].as_u64().filter(|_| message["type"] == "ack");
                return seq.ok_or_else(|| io::Error::other(message.to_string()));
            }
            Incoming::Close(code, reason) => {
                return Err(io::Error::other(format!("{code} {reason}")));
            }
            _ => {}
        }
    }
}

/// What of the acknowledged moves is not in the log just so, or is there twice.
fn differs(log: &[Value], acks: &[(u64, usize, u64)]) -> Option<String> {
    let placed = log.iter().filter(|event| event["event"]["placed"].is_u64());
    let placed: Vec<(u64, usize, u64)> = placed
        .map(|event| {
            let number = |value: &Value| value.as_u64().unwrap();
            let seat = usize::try_from(number(&event["seat"])).unwrap();
            (number(&event["seq"]), seat, number(&event["event"]["placed"]))
        })
        .collect();
    // The last move ends the match: its acknowledgement has the number of that event.
    let as_told = placed.len() == CELLS.len()
        && acks.len() == CELLS.len()
        && placed.iter().zip(acks).enumerate().all(|(nth, (placed, ack))| {
            let seq = placed.0 + u64::from(nth + 1 == CELLS.len());
            (seq, placed.1, placed.2) == *ack
        });
    (!as_told).then(|| format!("log {placed:?}, acks {acks:?}"))
}

fn log(address: SocketAddr, user: &User, id: &str) -> Vec<Value> {
    let answer = retry(|| {
        let request = call(address, "GET", &format!("/v1/matches/{id}/events")).token(&user.token);
        request.send_on(open(address)?)
    });
    answer.expect(200)["items"].as_array().unwrap().clone()
}

fn post(address: SocketAddr, user: Option<&User>, path: &str, body: &Value) -> Answer {
    retry(|| {
        let request = call(address, "POST", path).json(body);
        let request = match user {
            Some(user) => request.token(&user.token),
            None => request,
        };
        request.send_on(open(address)?)
    })
}

/// Asks until somebody answers who can.
fn retry(ask: impl Fn() -> io::Result<Answer>) -> Answer {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) if answer.status < 500 => return answer,
            other => assert!(began.elapsed() < MOVE_MAX, "{other:?}"),
        }
        sleep(RETRY);
    }
}
