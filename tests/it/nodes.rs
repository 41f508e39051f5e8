//! Several nodes over one PostgreSQL: a match outlives the node that plays it, and has one owner.

use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Answer, Socket, User, upgrade};
use crate::harness::{DEADLINE, Server, until};
use crate::postgres;

/// So many nodes over a database of their own.
fn nodes(count: usize) -> (postgres::Database, Vec<Server>) {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str()), ("LEASE_SECONDS", "2")];
    let nodes = (0..count).map(|_| Server::with(&settings)).collect();
    (database, nodes)
}

/// A socket to a match by way of a node, as soon as that is possible.
fn come_back(node: &Server, user: &User, id: &str, after: u64) -> (Socket, Value) {
    until("the match goes on", || {
        let path = format!("/v1/matches/{id}/socket?after={after}");
        let mut socket = Socket::open(node.public, user, &path, None).ok()?;
        let welcome = socket.message();
        assert_eq!((&welcome["type"], &welcome["resumed"]), (&json!("welcome"), &json!(true)));
        Some((socket, welcome))
    })
}

/// A call that a node answers as soon as it can.
fn answered(what: &str, call: impl Fn() -> Answer) -> Answer {
    until(what, || Some(call()).filter(|answer| answer.status != 503))
}

#[test]
fn players_on_different_nodes_play_one_match() {
    let (_database, nodes) = nodes(2);
    let [one, two] = [&nodes[0], &nodes[1]];
    let users = [one.guest(), two.guest()];
    // Sessions and keys are everybody's.
    one.get(&users[1], "/v1/users/me").expect(200);
    let made = one.create(&users[0], &json!({"game": "tictactoe"}));
    let id = made["id"].as_str().unwrap();
    let joined = two.post(&users[1], &format!("/v1/matches/{id}/players"), &json!({}));
    assert_eq!(joined.expect(201), json!({"seat": 1}));
    let mut first = one.play(&users[0], id);
    let mut second = two.play(&users[1], id);
    let seen = two.get(&users[1], &format!("/v1/matches/{id}")).expect(200);
    assert_eq!(seen["players"][0]["connected"], true, "the owner knows: {seen}");
    for (turn, cell) in [4, 0, 8].iter().enumerate() {
        let sockets = [&mut first, &mut second];
        sockets[turn % 2].accepted(turn as u64 / 2 + 1, &json!({ "place": cell }));
        let other = [&mut first, &mut second].into_iter().nth(1 - turn % 2).unwrap();
        assert_eq!(other.event()["event"], json!({ "placed": cell }));
    }
    second.send(&json!({"type": "chat", "text": "across nodes"}));
    assert_eq!(first.expect("chat")["text"], "across nodes");
    assert_eq!(two.events(&users[1], id), one.events(&users[0], id));
    assert_eq!(two.delete(&users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    assert_eq!(first.expect("ended")["outcome"]["winners"], json!([0]));
    // What is refused is refused over there, too.
    let stranger = two.guest();
    upgrade(two.public, "/v1/matches/00000000-0000-7000-8000-000000000000/socket")
        .token(&stranger.token)
        .refused(404);
}

#[test]
fn a_match_outlives_the_node_that_is_killed() {
    let (_database, mut nodes) = nodes(2);
    let users = [nodes[0].guest(), nodes[0].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut first = nodes[0].play(&users[0], &id);
    let mut second = nodes[1].play(&users[1], &id);
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.accepted(1, &json!({"place": 0})), 5);
    nodes[0].kill9();
    let began = Instant::now();
    let (mut first, welcome) = come_back(&nodes[1], &users[0], &id, 4);
    // The lease, a second, and what a busy machine takes.
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    assert_eq!((&welcome["seq"], &welcome["last_id"]), (&json!(5), &json!(1)));
    assert_eq!(first.event()["event"], json!({"placed": 0}));
    assert_eq!(first.accepted(1, &json!({"place": 4})), 4, "applied once");
    assert_eq!(first.accepted(2, &json!({"place": 8})), 6);
    let (mut second, _) = come_back(&nodes[1], &users[1], &id, 6);
    second.accepted(2, &json!({"place": 1}));
    assert_eq!(nodes[1].events(&users[0], &id).len(), 7);
}

#[test]
fn a_drained_node_hands_its_matches_over_at_once() {
    let (_database, mut nodes) = nodes(2);
    let users = [nodes[0].guest(), nodes[0].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut own = nodes[0].play(&users[0], &id);
    let mut passed_on = nodes[1].play(&users[1], &id);
    own.accepted(1, &json!({"place": 4}));
    passed_on.event();
    nodes[0].terminate();
    assert_eq!(own.closed(), 1012);
    assert_eq!(passed_on.closed(), 1012, "told across nodes");
    let (mut second, welcome) = come_back(&nodes[1], &users[1], &id, 4);
    assert_eq!(welcome["seq"], 4);
    assert_eq!(second.accepted(1, &json!({"place": 0})), 5);
    assert!(nodes[0].wait().success());
}

#[test]
fn sockets_that_are_passed_on_are_told_when_their_node_drains() {
    let (_database, mut nodes) = nodes(2);
    let users = [nodes[0].guest(), nodes[0].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut passed_on = nodes[1].play(&users[1], &id);
    nodes[1].terminate();
    assert_eq!(passed_on.closed(), 1012);
    assert!(nodes[1].wait().success());
    let mut second = nodes[0].play(&users[1], &id);
    nodes[0].play(&users[0], &id).accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["event"], json!({"placed": 4}));
}

#[test]
fn a_node_that_was_frozen_can_neither_write_nor_tell() {
    let (_database, nodes) = nodes(2);
    let users = [nodes[0].guest(), nodes[0].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let room = nodes[0]
        .seated(&json!({"game": "relay", "options": {"players": 2}}), &[&users[0], &users[1]]);
    let mut old = nodes[0].play(&users[0], &id);
    let mut old_room = [nodes[0].play(&users[0], &room), nodes[0].play(&users[1], &room)];
    old_room[0].accepted(1, &json!({"send": "before"}));
    old_room[1].event();
    nodes[0].freeze();
    // These wait in its socket buffers, and are read when it thaws.
    old.command(1, &json!({"place": 4}));
    old_room[0].command(2, &json!({"send": "from the grave"}));
    let (mut new, _) = come_back(&nodes[1], &users[0], &id, 3);
    assert_eq!(new.accepted(1, &json!({"place": 0})), 4);
    let _new_room = answered("the room goes on", || {
        nodes[1].get(&users[0], &format!("/v1/matches/{room}/events"))
    });
    nodes[0].thaw();
    // The old one says nothing but that one should come back.
    loop {
        match old.try_next() {
            Ok(crate::client::Incoming::Message(message)) => {
                assert!(message["type"] != "ack" && message["type"] != "event", "{message}");
            }
            Ok(crate::client::Incoming::Close(code, _)) => {
                assert!([1012, 1013].contains(&code), "{code}");
                break;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    while let Ok(crate::client::Incoming::Message(message)) = old_room[1].try_next() {
        assert!(message["event"]["send"] != "from the grave", "{message}");
    }
    let log = nodes[1].events(&users[0], &id);
    assert_eq!(log.len(), 4);
    assert_eq!(log[3]["event"], json!({"placed": 0}));
    // It is a node like any other again, and passes on.
    let (mut second, _) = come_back(&nodes[0], &users[1], &id, 4);
    assert_eq!(second.accepted(1, &json!({"place": 4})), 5);
}

#[test]
fn who_signs_out_on_one_node_is_out_on_all() {
    let (_database, nodes) = nodes(2);
    let user = nodes[0].guest();
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&user]);
    // On the other node, and by way of it.
    let mut socket = nodes[1].play(&user, &id);
    let own = nodes[1].seated(&json!({"game": "tictactoe"}), &[&user]);
    let mut other = nodes[1].play(&user, &own);
    assert_eq!(nodes[0].delete(&user, "/v1/sessions/current").status, 204);
    assert_eq!((socket.closed(), other.closed()), (1008, 1008));
    until("the access token is refused", || {
        (nodes[1].get(&user, "/v1/users/me").status == 401).then_some(())
    });
}

#[test]
fn tickets_and_quick_play_hold_on_all_nodes() {
    let (_database, nodes) = nodes(3);
    let users: Vec<User> = nodes.iter().map(Server::guest).collect();
    let ticket = nodes[0].post(&users[0], "/v1/socket-tickets", &json!({})).expect(201);
    let ticket = ticket["ticket"].as_str().unwrap();
    let path = format!("/v1/play/tictactoe/socket?ticket={ticket}");
    let mut first =
        until("all nodes are known", || upgrade(nodes[1].public, &path).socket().unwrap().ok());
    let welcome = first.message();
    upgrade(nodes[2].public, &path).refused(401);
    let (mut second, met) = nodes[2].connect(&users[2], "/v1/play/tictactoe/socket");
    assert_eq!((&met["match"], &met["seat"]), (&welcome["match"], &json!(1)));
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["event"], json!({"placed": 4}));
}
