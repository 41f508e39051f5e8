//! `arena`, a game of ticks: what its players are told and when, and what a crash may lose.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Type};

use crate::client::{Socket, User, upgrade, word};
use crate::harness::{DEADLINE, Server, shared, until};
use crate::metrics::{scrape, value};
use crate::postgres;

/// As the README says, where nothing is set.
const LOSS: Duration = Duration::from_secs(1);

/// A running match, its players and their sockets, welcomes read.
fn arena(server: &Server, options: &Value) -> (String, [User; 2], [Socket; 2]) {
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "arena", "options": options});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let sockets = [0, 1].map(|seat| server.play(&users[seat], &id));
    (id, users, sockets)
}

/// A connection for which the system takes little that nobody reads.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn turn(to: &str) -> Value {
    json!({ "turn": to })
}

fn number(message: &Value, name: &str) -> u64 {
    message[name].as_u64().unwrap_or_else(|| panic!("{name}: {message}"))
}

/// RFC 7386, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// A command that was acknowledged: when it was sent, when the ack had come, and its number.
type Acked = (Instant, Instant, u64);

/// Turns back and forth for a while, so that something is to be lost.
fn steer(socket: &mut Socket, for_at_least: Duration) -> Vec<Acked> {
    let (began, mut acks) = (Instant::now(), Vec::new());
    while began.elapsed() < for_at_least {
        let id = acks.len() as u64 + 1;
        let (to, sent) = (["down", "right", "up", "right"][acks.len() % 4], Instant::now());
        let seq = socket.accepted(id, &turn(to));
        acks.push((sent, Instant::now(), seq));
    }
    acks
}

/// A socket that comes back, and its welcome.
fn come_back(server: &Server, user: &User, id: &str, after: u64) -> (Socket, Value) {
    until("the match is there", || {
        let path = format!("/v1/matches/{id}/socket?after={after}");
        let mut socket = Socket::open(server.public, user, &path, None).ok()?;
        let welcome = socket.message();
        Some((socket, welcome))
    })
}

#[test]
fn the_clock_moves_the_riders_and_commands_are_taken_between_two_steps() {
    let server = shared();
    let (id, users, [mut first, mut second]) = arena(&server, &json!({}));
    let watcher = server.guest();
    let (mut watcher, welcome) = server.connect(&watcher, &format!("/v1/matches/{id}/socket"));
    assert_eq!((&welcome["mode"], &welcome["seat"]), (&json!("ticks"), &Value::Null));
    assert!(welcome["tick"].is_u64(), "{welcome}");
    assert_eq!((&welcome["view"]["size"], &welcome["view"]["rounds"]), (&json!(80), &json!(3)));

    // One way for the event, the ack and what all see of it.
    second.command(1, &turn("up"));
    let event = second.event();
    assert_eq!(event["seat"], Value::Null);
    let inputs = json!([{"seat": 1, "id": 1, "input": {"turn": "up"}}]);
    assert_eq!(event["event"]["inputs"], inputs);
    assert_eq!(second.message(), json!({"type": "ack", "id": 1, "seq": event["seq"]}));
    let view = second.expect("view");
    assert_eq!((&view["seq"], &view["tick"]), (&event["seq"], &event["event"]["tick"]));
    assert_eq!(view["view"]["headings"], json!(["right", "up"]));
    for socket in [&mut first, &mut watcher] {
        assert_eq!(socket.event(), event);
        assert_eq!(socket.expect("view"), view);
    }

    // All ride on, a cell in each step, and all see the same.
    let views: Vec<Value> = (0..3).map(|_| first.expect("view")).collect();
    for pair in views.windows(2) {
        assert_eq!(number(&pair[1], "tick"), number(&pair[0], "tick") + 1);
        let x = |view: &Value| view["view"]["heads"][0][0].as_u64().unwrap();
        assert_eq!(x(&pair[1]), x(&pair[0]) + 1, "{views:?}");
    }
    assert_eq!(second.expect("view"), views[0]);

    // A command is applied once, whatever is sent again: in the same step, and later.
    first.command(1, &turn("down"));
    first.command(1, &turn("down"));
    let event = first.event();
    assert_eq!(event["event"]["inputs"].as_array().unwrap().len(), 1);
    let ack = json!({"type": "ack", "id": 1, "seq": event["seq"]});
    assert_eq!([first.expect("ack"), first.expect("ack")], [ack.clone(), ack.clone()]);
    assert_eq!(first.ask(1, &turn("left")), ack);
    assert_eq!(first.refused(2, &turn("back")), "bad-command");
    assert_eq!(first.refused(2, &json!({"place": 1})), "bad-command");
    assert_eq!(watcher.ask(1, &turn("up"))["problem"]["status"], 403);

    // Who comes back misses no event.
    let path = format!("/v1/matches/{id}/socket?after=3");
    let (mut again, welcome) = server.connect(&users[1], &path);
    assert_eq!((&welcome["resumed"], &welcome["last_id"]), (&json!(true), &json!(1)));
    assert_eq!(again.event()["event"]["inputs"], inputs);
    assert_eq!(again.event(), event);
    assert_eq!(second.closed(), 4001);

    assert_eq!(server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    let left = first.event();
    assert_eq!(left["event"]["left"]["reason"], "resigned");
    assert!(left["event"]["left"]["tick"].is_u64(), "{left}");
    let last = first.expect("view");
    assert_eq!(last["view"]["riding"], json!([true, false]));
    assert_eq!(first.event()["event"]["ended"]["winners"], json!([0]));
    assert_eq!(first.expect("ended")["outcome"]["reason"], "resigned");
    assert_eq!(first.refused(2, &turn("up")), "match-not-running");
    let events = server.events(&users[0], &id);
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_object().unwrap().keys().next().unwrap().as_str())
        .collect();
    assert_eq!(kinds, ["joined", "joined", "started", "inputs", "inputs", "left", "ended"]);
}

#[test]
fn riders_who_do_not_turn_meet_a_wall_and_a_match_ends_by_itself() {
    let server = shared();
    let (id, users, [mut first, mut second]) = arena(&server, &json!({"rounds": 1, "size": 40}));
    second.command(1, &turn("up"));
    // Seat 1 is at the wall first, which is nearer above than across the board.
    let ended = first.expect("ended");
    assert_eq!(ended["outcome"], json!({"winners": [0], "draw": false, "reason": "completed"}));
    assert_eq!(second.expect("ended"), ended);
    let seen = server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
    assert_eq!((&seen["state"], &seen["outcome"]["winners"]), (&json!("ended"), &json!([0])));
    let (_, welcome) = server.connect(&users[0], &format!("/v1/matches/{id}/socket"));
    assert_eq!(welcome["view"]["scores"], json!([1, 0]));
}

#[test]
fn whoever_wants_differences_comes_to_the_same_views() {
    let server = shared();
    let (id, users, [mut whole, _other]) = arena(&server, &json!({}));
    let mut tried = upgrade(server.public, &format!("/v1/matches/{id}/socket?views=some"));
    tried = tried.token(&users[1].token);
    assert_eq!(tried.refused(422)["errors"][0]["field"], "views");
    let (mut socket, welcome) =
        server.connect(&users[1], &format!("/v1/matches/{id}/socket?views=diff"));
    let mut view = welcome["view"].clone();
    let (mut at, mut patches, mut seen) = (None, 0, Vec::new());
    for id in 1..=4 {
        socket.command(id, &turn(if id % 2 == 0 { "left" } else { "up" }));
        for _ in 0..5 {
            let message = socket.expect("view");
            if message["view"].is_null() {
                assert_eq!(message["base"].as_u64(), at, "{message}");
                merge(&mut view, &message["patch"]);
                patches += 1;
            } else {
                view = message["view"].clone();
            }
            at = message["tick"].as_u64();
            seen.push((at, view.clone()));
        }
    }
    assert!(patches > 10, "{seen:?}");
    let mut told = whole.expect("view");
    for (tick, view) in seen {
        while told["tick"].as_u64() < tick {
            told = whole.expect("view");
        }
        assert_eq!((told["tick"].as_u64(), &told["view"]), (tick, &view));
    }
}

#[test]
fn who_reads_slowly_gets_the_latest_view_and_no_backlog() {
    if !cfg!(target_os = "linux") {
        return; // Elsewhere the system holds as much as it likes.
    }
    let server = shared();
    let users: Vec<User> = (0..8).map(|_| server.guest()).collect();
    let body = json!({"game": "arena", "options": {"players": 8, "size": 160}});
    let id = server.seated(&body, &users.iter().collect::<Vec<_>>());
    let path = format!("/v1/matches/{id}/socket");
    let mut slow = upgrade(server.public, &path)
        .token(&users[0].token)
        .socket_on(narrow(server.public))
        .unwrap()
        .unwrap();
    let mut quick = server.play(&users[1], &id);
    assert_eq!(slow.message()["type"], "welcome");
    let start = number(&slow.expect("view"), "tick");
    // Long enough for more than any buffer takes.
    let last = loop {
        let tick = number(&quick.expect("view"), "tick");
        if tick >= start + 100 {
            break tick;
        }
    };
    let (mut read, mut tick) = (0, start);
    while tick < last {
        let view = slow.expect("view");
        (tick, read) = (number(&view, "tick"), read + 1);
    }
    assert!(read < 50, "{read} views up to {tick}");
}

#[test]
fn the_clock_stands_still_while_nobody_plays() {
    let server = shared();
    let (id, users, sockets) = arena(&server, &json!({}));
    let (_, _, [mut clock, _other]) = arena(&server, &json!({}));
    drop(sockets);
    let path = format!("/v1/matches/{id}");
    let connected = |seat: usize| {
        server.get(&users[0], &path).expect(200)["players"][seat]["connected"] == true
    };
    until("both are gone", || (!connected(0) && !connected(1)).then_some(()));
    let (watching, welcome) = server.connect(&server.guest(), &format!("{path}/socket"));
    let stood_at = number(&welcome, "tick");
    // Another match shows how time passes.
    while number(&clock.expect("view"), "tick") < 80 {}
    let (mut back, welcome) = server.connect(&users[0], &format!("{path}/socket"));
    assert!(number(&welcome, "tick") <= stood_at + 1, "{welcome}");
    assert!(number(&back.expect("view"), "tick") > stood_at);
    drop(watching);
}

#[test]
fn a_crash_loses_no_more_than_it_may_and_the_match_goes_on() {
    let mut server = Server::start();
    let (id, users, [mut first, _second]) = arena(&server, &json!({"size": 160}));
    let acks = steer(&mut first, LOSS * 2);
    server.kill9();
    server.restart();
    let (sent, _, last) = *acks.last().unwrap();
    let (mut first, welcome) = come_back(&server, &users[0], &id, last);
    let seq = number(&welcome, "seq");
    // The last step took what was sent before it.
    let safe = acks.iter().rfind(|(_, acked, _)| sent.saturating_duration_since(*acked) > LOSS);
    assert!(seq >= safe.unwrap().2, "{seq} of {last}");
    assert_eq!(welcome["resumed"], seq == last, "what was lost can't be gone on from");
    let last_id = number(&welcome, "last_id");
    assert_eq!(acks[usize::try_from(last_id).unwrap() - 1].2, seq);
    assert_eq!(first.accepted(last_id, &turn("up")), seq, "it was applied");
    assert_eq!(first.accepted(last_id + 1, &turn("down")), seq + 1);
    assert!(number(&first.expect("view"), "tick") > number(&welcome, "tick"));
}

#[test]
fn a_drain_loses_nothing() {
    let mut server = Server::start();
    let (id, users, [mut first, mut second]) = arena(&server, &json!({"size": 160}));
    let acks = steer(&mut first, LOSS / 4);
    second.command(1, &turn("up"));
    let seq = number(&second.expect("ack"), "seq");
    server.terminate();
    assert_eq!((first.closed(), second.closed()), (1012, 1012));
    assert!(server.wait().success());
    server.restart();
    let (mut second, welcome) = come_back(&server, &users[1], &id, seq);
    assert_eq!((&welcome["seq"], &welcome["resumed"]), (&json!(seq), &json!(true)));
    assert_eq!(second.accepted(1, &turn("left")), seq, "it was applied");
    let (_, welcome) = come_back(&server, &users[0], &id, acks.last().unwrap().2);
    assert_eq!(welcome["last_id"], acks.len());
}

#[test]
fn a_match_moves_to_another_node() {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str()), ("LEASE_SECONDS", "2")];
    let mut nodes = [Server::with(&settings), Server::with(&settings)];
    let (id, users, [mut first, second]) = arena(&nodes[0], &json!({"size": 160}));
    drop(second);
    let mut second = nodes[1].play(&users[1], &id);
    let acks = steer(&mut first, LOSS / 2);
    let last = second.expect("view");
    nodes[0].terminate();
    assert_eq!((first.closed(), second.closed()), (1012, 1012));
    let seq = acks.last().unwrap().2;
    let (mut first, welcome) = come_back(&nodes[1], &users[0], &id, seq);
    assert_eq!((&welcome["seq"], &welcome["resumed"]), (&json!(seq), &json!(true)));
    assert!(number(&welcome, "tick") >= number(&last, "tick"), "{welcome} after {last}");
    assert_eq!(first.accepted(acks.len() as u64 + 1, &turn("up")), seq + 1);
    assert!(nodes[0].wait().success());

    // After a crash the other node goes on from what was committed.
    let mut node = Server::with(&settings);
    let (mut second, _) = come_back(&node, &users[1], &id, seq);
    nodes[1].kill9();
    assert_eq!(second.closed(), 1012);
    let (mut second, welcome) = come_back(&node, &users[1], &id, seq);
    assert!(number(&welcome, "tick") > number(&last, "tick"), "{welcome}");
    assert!(number(&second.expect("view"), "tick") > number(&welcome, "tick"));
    node.terminate();
    assert!(node.wait().success());
}

#[test]
fn a_match_stands_still_while_the_store_is_away() {
    let cluster = postgres::Cluster::start();
    let url = cluster.url();
    let settings = [("DATABASE_URL", url.as_str()), ("LEASE_SECONDS", "60")];
    let server = Server::with(&settings);
    let (_, _, [mut first, mut second]) = arena(&server, &json!({"size": 160}));
    first.expect("view");
    cluster.halt();
    // It goes on for as long as a crash may lose, and no longer: then its steps are late.
    let late = || value::<u64>(&scrape(&server), "gameserver_ticks_late_total");
    let mut last = 0;
    until("the clock stands", || {
        let before = late();
        until("steps are late", || (late() > before + 5).then_some(()));
        let mut views = first.pending().into_iter().filter(|message| message["type"] == "view");
        let tick = views.next_back().map(|view| number(&view, "tick"));
        last = tick.unwrap_or(last);
        tick.is_none().then_some(())
    });
    second.command(1, &turn("up"));
    assert!(second.pending().iter().all(|message| message["type"] != "ack"));
    cluster.resume();
    second.expect("ack");
    assert!(number(&first.expect("view"), "tick") > last);
    // More than a step can take is refused, and can be sent again.
    for id in 2..40 {
        second.command(id, &turn("up"));
    }
    let refused = second.expect("error");
    assert_eq!(word(&refused), "rate-limited");
}
