//! `relay`: what players send is passed on and not kept; one shared state is.

use serde_json::{Value, json};

use crate::client::{Socket, User};
use crate::harness::{Server, shared};

/// A running room with all its sockets, welcomes and presences read.
fn room(server: &Server, players: usize) -> (String, Vec<User>, Vec<Socket>) {
    let users: Vec<User> = (0..players).map(|_| server.guest()).collect();
    let body = json!({"game": "relay", "options": {"players": players}});
    let id = server.seated(&body, &users.iter().collect::<Vec<_>>());
    let mut sockets: Vec<Socket> = users.iter().map(|user| server.play(user, &id)).collect();
    for socket in &mut sockets {
        socket.pending();
    }
    (id, users, sockets)
}

#[test]
fn what_one_sends_the_others_get_and_the_author_has_the_ack_alone() {
    let server = shared();
    let (id, _, mut sockets) = room(&server, 3);
    let mut watcher = server.play(&server.guest(), &id);
    let content = json!({"n": [1, 2.5, "Grüße", null, true], "deep": {"er": {}}});
    sockets[0].command(1, &json!({ "send": content }));
    let ack = sockets[0].message();
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(1)));
    let event = json!({"type": "event", "seq": ack["seq"], "seat": 0, "event": {"send": content}});
    assert_eq!(sockets[1].message(), event);
    assert_eq!(sockets[2].message(), event);
    assert_eq!(watcher.event(), event);
    assert_eq!(sockets[0].pending(), [Value::Null; 0]);
}

#[test]
fn what_is_for_some_seats_reaches_nobody_else() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 4);
    let mut watcher = server.play(&server.guest(), &id);
    let seq = sockets[0].accepted(1, &json!({"send": "psst", "to": [2, 3]}));
    for seat in [2, 3] {
        let event = sockets[seat].message();
        assert_eq!(event["seq"], seq);
        assert_eq!(event["event"]["send"], "psst");
    }
    assert_eq!(sockets[1].pending(), [Value::Null; 0]);
    assert!(watcher.pending().iter().all(|message| message["type"] != "event"));
    // Nor does it when they ask for what they missed.
    for (user, expected) in [(&users[1], 0), (&users[2], 1)] {
        let path = format!("/v1/matches/{id}/socket?after={}", seq - 1);
        let (mut socket, welcome) = server.connect(user, &path);
        assert_eq!(welcome["resumed"], true);
        let events = socket.pending().into_iter().filter(|message| message["type"] == "event");
        assert_eq!(events.count(), expected);
    }
}

#[test]
fn the_author_is_not_told_even_if_named() {
    let server = shared();
    let (_, _, mut sockets) = room(&server, 2);
    sockets[0].accepted(1, &json!({"send": 1, "to": [1]}));
    assert_eq!(sockets[1].event()["event"]["send"], 1);
    let answer = sockets[0].ask(2, &json!({"send": 2, "to": [0, 1]}));
    if answer["type"] == "ack" {
        assert_eq!(sockets[1].event()["event"]["send"], 2);
    }
    assert_eq!(sockets[0].pending(), [Value::Null; 0]);
}

#[test]
fn the_shared_state_is_given_to_late_comers_and_returners() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 2);
    for (n, state) in
        [json!({"board": [1, 2, 3]}), json!(null), json!("the last one")].iter().enumerate()
    {
        sockets[0].accepted(n as u64 + 1, &json!({ "state": state }));
        assert_eq!(sockets[1].event()["event"], json!({ "state": state }));
        for user in [&users[1], &server.guest()] {
            let (_, welcome) = server.connect(user, &format!("/v1/matches/{id}/socket"));
            assert_eq!(welcome["view"], json!({ "state": state }));
        }
        sockets[1] = server.play(&users[1], &id);
        sockets[1].pending();
    }
}

#[test]
fn who_comes_back_soon_misses_nothing_and_who_comes_late_is_told() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 2);
    let first = sockets[0].accepted(1, &json!({"send": 1}));
    for n in 2..=20 {
        sockets[0].accepted(n, &json!({ "send": n }));
    }
    let resume =
        |after: u64| server.connect(&users[1], &format!("/v1/matches/{id}/socket?after={after}"));
    let (mut socket, welcome) = resume(first);
    assert_eq!(welcome["resumed"], true);
    let sent: Vec<Value> = socket
        .pending()
        .iter()
        .filter(|message| message["type"] == "event")
        .map(|message| message["event"]["send"].clone())
        .collect();
    assert_eq!(sent, (2..=20).map(|n| json!(n)).collect::<Vec<_>>());

    for n in 21..=2000 {
        sockets[0].accepted(n, &json!({ "send": n }));
    }
    let (mut socket, welcome) = resume(first);
    assert_eq!(welcome["resumed"], false);
    assert!(welcome["seq"].as_u64().unwrap() >= first + 1999);
    assert!(socket.pending().iter().all(|message| message["type"] != "event"));
}

#[test]
fn messages_are_not_stored() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 2);
    sockets[0].accepted(1, &json!({"send": "a needle in a haystack"}));
    sockets[0].accepted(2, &json!({"state": "kept for late comers"}));
    let log = Value::Array(server.events(&users[0], &id)).to_string();
    assert!(log.contains("joined") && !log.contains("needle"), "{log}");
}

#[test]
fn the_state_outlives_a_drain_and_numbers_go_on() {
    let mut server = Server::start();
    let (id, users, mut sockets) = room(&server, 2);
    let seq = sockets[0].accepted(1, &json!({"state": {"level": 7}}));
    server.terminate();
    assert_eq!(sockets[1].closed(), 1012);
    assert!(server.wait().success());
    server.restart();
    let (mut socket, welcome) = server.connect(&users[0], &format!("/v1/matches/{id}/socket"));
    assert_eq!(welcome["view"], json!({"state": {"level": 7}}));
    assert!(welcome["seq"].as_u64().unwrap() >= seq);
    assert!(socket.accepted(2, &json!({"send": 1})) > seq);
}

#[test]
fn a_seat_that_was_left_can_be_taken_again() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 2);
    assert_eq!(server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    assert_eq!(sockets[0].event()["event"], json!({"left": {"seat": 1, "reason": "left"}}));
    let other = server.guest();
    let seat = server.post(&other, &format!("/v1/matches/{id}/players"), &json!({})).expect(201);
    assert_eq!(seat, json!({"seat": 1}));
    let mut socket = server.play(&other, &id);
    sockets[0].accepted(1, &json!({"send": "welcome"}));
    assert_eq!(socket.event()["event"]["send"], "welcome");
}

#[test]
fn commands_that_are_none_are_refused() {
    let server = shared();
    let (_, _, mut sockets) = room(&server, 2);
    let mut deep = json!(1);
    for _ in 0..70 {
        deep = json!([deep]);
    }
    let bad = [
        json!({}),
        json!({"shout": 1}),
        json!({"send": 1, "to": [2]}),
        json!({"send": 1, "to": [-1]}),
        json!({"send": 1, "to": 1}),
        json!({"send": 1, "state": 1}),
        json!({"send": 1, "more": 1}),
        json!({ "send": deep }),
        json!([1]),
        json!("send"),
    ];
    for command in bad {
        assert_eq!(sockets[0].refused(1, &command), "bad-command", "{command}");
    }
    sockets[0].text(r#"{"type":"command","id":1,"command":{"send":1e999}}"#);
    assert_eq!(sockets[0].error().0, "bad-command");
    assert_eq!(sockets[1].pending(), [Value::Null; 0]);
    sockets[0].accepted(1, &json!({"send": null}));
    assert_eq!(sockets[1].event()["event"], json!({"send": null}));
}

#[test]
fn what_was_for_a_seat_is_not_for_who_sits_there_next() {
    let server = shared();
    let (id, users, mut sockets) = room(&server, 2);
    sockets[0].accepted(1, &json!({"send": "secret", "to": [1]}));
    sockets[1].accepted(1, &json!({"send": "public"}));
    assert_eq!(server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    let next = server.guest();
    server.post(&next, &format!("/v1/matches/{id}/players"), &json!({})).expect(201);
    let (mut socket, welcome) = server.connect(&next, &format!("/v1/matches/{id}/socket?after=3"));
    assert_eq!((&welcome["seat"], &welcome["resumed"]), (&json!(1), &json!(true)));
    let told = Value::Array(socket.pending()).to_string();
    assert!(told.contains("public") && !told.contains("secret"), "{told}");
}
