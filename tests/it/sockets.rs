//! The WebSocket as the contract describes it, for clients that behave.

use serde_json::{Value, json};

use crate::client::{Incoming, JSON, MSGPACK, PING, Socket, call, upgrade};
use crate::harness::{Server, shared, until};

fn socket_path(id: &str) -> String {
    format!("/v1/matches/{id}/socket")
}

#[test]
fn welcome_comes_first_and_says_it_all() {
    let server = shared();
    let (user, watcher) = (server.guest(), server.guest());
    let id = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let (_player, welcome) = server.connect(&user, &socket_path(&id));
    assert_eq!(welcome["match"], id.as_str());
    assert_eq!((&welcome["game"], &welcome["mode"]), (&json!("tictactoe"), &json!("turns")));
    assert_eq!((&welcome["seat"], &welcome["state"]), (&json!(0), &json!("open")));
    assert_eq!((&welcome["seq"], &welcome["resumed"]), (&json!(1), &json!(false)));
    assert_eq!(welcome["last_id"], 0);
    assert_eq!(
        welcome["view"]["board"],
        json!([null, null, null, null, null, null, null, null, null])
    );
    assert_eq!(welcome["players"][0]["user"], user.id.as_str());
    assert_eq!(welcome["players"][0]["connected"], true);

    let (_watcher, welcome) = server.connect(&watcher, &socket_path(&id));
    assert_eq!((&welcome["seat"], &welcome["last_id"]), (&json!(null), &json!(null)));
}

#[test]
fn everyone_sees_events_in_order_and_the_author_then_has_its_ack() {
    let server = shared();
    let (id, _, mut sockets) = server.tictactoe();
    let mut watcher = server.play(&server.guest(), &id);
    for (turn, cell) in [4, 0, 8].iter().enumerate() {
        let author = &mut sockets[turn % 2];
        author.command(turn as u64 + 1, &json!({ "place": cell }));
        let seq = turn + 4;
        let event =
            json!({"type": "event", "seq": seq, "seat": turn % 2, "event": {"placed": cell}});
        assert_eq!(author.event(), event);
        assert_eq!(author.message(), json!({"type": "ack", "id": turn + 1, "seq": seq}));
        assert_eq!(sockets[1 - turn % 2].event(), event);
        assert_eq!(watcher.event(), event);
    }
}

#[test]
fn both_subprotocols_carry_the_same_messages() {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let open =
        |user, name| Socket::open(server.public, user, &socket_path(&id), Some(name)).unwrap();
    let mut binary = open(&users[0], MSGPACK);
    let mut text = open(&users[1], JSON);
    let mut welcomes = [binary.message(), text.message()];
    for welcome in &mut welcomes {
        let fields = welcome.as_object_mut().unwrap();
        fields.retain(|name, _| !["seat", "players"].contains(&&**name));
    }
    assert_eq!(welcomes[0], welcomes[1]);
    assert_eq!(binary.accepted(1, &json!({"place": 4})), 4);
    let event = text.event();
    text.command(1, &json!({"place": 0}));
    assert_eq!(text.event(), binary.event());
    assert_eq!(event["event"], json!({"placed": 4}));
    binary.send(&json!({"type": "chat", "text": "Grüße 🎲"}));
    assert_eq!(binary.expect("chat"), text.expect("chat"));
    assert_eq!(binary.refused(2, &json!({"place": 4})), "illegal-move");
}

#[test]
fn the_first_known_subprotocol_is_taken() {
    let server = shared();
    let user = server.guest();
    let path = "/v1/play/relay/socket";
    let offer = |list: &str| {
        let offered = upgrade(server.public, path).header("Sec-WebSocket-Protocol", list);
        offered.token(&user.token).socket().unwrap()
    };
    for list in [format!("chat, {MSGPACK}"), format!("{MSGPACK}, {JSON}"), format!("{JSON},x")] {
        assert!(offer(&list).is_ok(), "{list}");
    }
    let answer = offer("chat, superchat").err().expect("none of these is spoken here");
    answer.problem(400);
}

#[test]
fn what_was_missed_comes_after_a_reconnect() {
    let server = shared();
    let (id, users, mut sockets) = server.tictactoe();
    for (turn, cell) in [4, 0].iter().enumerate() {
        sockets[turn].accepted(1, &json!({ "place": cell }));
        sockets[1 - turn].event();
    }
    let [first, mut second] = sockets;
    drop(first);
    assert_eq!(
        second.expect("presence"),
        json!({"type": "presence", "seat": 0, "connected": false})
    );
    let all = server.events(&users[0], &id);
    for after in 0..=5_usize {
        let path = format!("/v1/matches/{id}/socket?after={after}");
        let (mut socket, welcome) = server.connect(&users[0], &path);
        assert_eq!(second.expect("presence")["connected"], true);
        assert_eq!((&welcome["resumed"], &welcome["seq"]), (&json!(true), &json!(5)));
        assert_eq!(welcome["view"]["board"][4], 0);
        assert_eq!(welcome["last_id"], 1);
        let missed: Vec<Value> = socket.pending();
        assert_eq!(missed.len(), 5 - after);
        for (event, logged) in missed.iter().zip(&all[after..]) {
            assert_eq!(event["type"], "event");
            for field in ["seq", "seat", "event"] {
                assert_eq!(event[field], logged[field]);
            }
        }
        drop(socket);
        assert_eq!(second.expect("presence")["connected"], false);
    }
    let (_, welcome) = server.connect(&users[0], &format!("/v1/matches/{id}/socket?after=99"));
    assert_eq!(welcome["resumed"], false);
}

#[test]
fn presence_tells_who_comes_and_goes() {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut first = server.play(&users[0], &id);
    let second = server.play(&users[1], &id);
    let presence = |connected: bool| json!({"type": "presence", "seat": 1, "connected": connected});
    assert_eq!(first.expect("presence"), presence(true));
    drop(second);
    assert_eq!(first.expect("presence"), presence(false));
}

#[test]
fn chat_goes_to_everyone_and_is_not_kept() {
    let server = shared();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    let watching = server.guest();
    let mut watcher = server.play(&watching, &id);
    second.send(&json!({"type": "chat", "id": 1, "text": "Good luck!\n🍀"}));
    for socket in [&mut first, &mut second, &mut watcher] {
        let chat = socket.expect("chat");
        assert_eq!((&chat["seat"], &chat["text"]), (&json!(1), &json!("Good luck!\n🍀")));
        assert_eq!(chat["user"], users[1].id.as_str());
        assert!(chat["at"].as_str().unwrap().ends_with('Z'));
    }
    watcher.send(&json!({"type": "chat", "text": "x".repeat(500)}));
    let chat = first.expect("chat");
    assert_eq!((&chat["seat"], &chat["user"]), (&json!(null), &json!(watching.id)));
    assert_eq!(server.events(&watching, &id).len(), 3);
}

#[test]
fn pings_are_answered() {
    let server = shared();
    let (_, _, [mut socket, _other]) = server.tictactoe();
    socket.send(&json!({"type": "ping", "id": 7}));
    assert_eq!(socket.expect("pong"), json!({"type": "pong", "id": 7}));
    socket.frame(PING, b"are you there?");
    let pong = until("the pong", || match socket.next() {
        Incoming::Pong(payload) => Some(payload),
        _ => None,
    });
    assert_eq!(pong, b"are you there?");
}

#[test]
fn a_command_is_applied_once_whatever_is_sent_again() {
    let server = shared();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    assert_eq!(first.accepted(5, &json!({"place": 4})), 4);
    assert_eq!(first.accepted(5, &json!({"place": 4})), 4);
    assert_eq!(second.accepted(1, &json!({"place": 0})), 5);
    assert_eq!(first.accepted(9, &json!({"place": 8})), 6);
    // Not even another command under an old id.
    assert_eq!(first.accepted(5, &json!({"place": 7})), 4);
    let (mut again, welcome) = server.connect(&users[0], &socket_path(&id));
    assert_eq!(welcome["last_id"], 9);
    assert_eq!(again.accepted(9, &json!({"place": 8})), 6);
    assert_eq!(again.accepted(5, &json!({"place": 4})), 4);
    assert_eq!(server.events(&users[0], &id).len(), 6);
}

#[test]
fn a_refused_id_is_not_used_up() {
    let server = shared();
    let (_, _, [mut first, mut second]) = server.tictactoe();
    assert_eq!(second.refused(1, &json!({"place": 0})), "not-your-turn");
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.refused(1, &json!({"place": 4})), "illegal-move");
    assert_eq!(second.accepted(1, &json!({"place": 0})), 5);
}

#[test]
fn a_second_socket_takes_the_seat_over() {
    let server = shared();
    let (id, users, [mut old, mut other]) = server.tictactoe();
    let mut new = server.play(&users[0], &id);
    assert_eq!(old.closed(), 4001);
    new.accepted(1, &json!({"place": 4}));
    assert_eq!(other.event()["seat"], 0);
}

#[test]
fn the_end_closes_the_sockets_after_a_while() {
    let server = shared();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    server.delete(&users[1], &format!("/v1/matches/{id}/players/me"));
    first.expect("ended");
    second.expect("ended");
    second.send(&json!({"type": "chat", "text": "well played"}));
    assert_eq!(first.expect("chat")["text"], "well played");
    assert_eq!(first.closed(), 1000);
    assert_eq!(second.closed(), 1000);

    let (mut late, welcome) = server.connect(&users[0], &socket_path(&id));
    assert_eq!(welcome["state"], "ended");
    assert_eq!(late.message()["type"], "ended");
}

#[test]
fn quick_play_brings_two_together() {
    let server = Server::start();
    let users = [server.guest(), server.guest(), server.guest()];
    let path = "/v1/play/tictactoe/socket";
    let (mut first, one) = server.connect(&users[0], path);
    let (mut second, two) = server.connect(&users[1], path);
    assert_eq!(one["match"], two["match"]);
    assert_eq!((&one["seat"], &two["seat"]), (&json!(0), &json!(1)));
    assert_eq!(two["state"], "running");
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["seat"], json!(0));
    let (_third, three) = server.connect(&users[2], path);
    assert_ne!(three["match"], one["match"]);
    let (_again, own) = server.connect(&users[2], path);
    assert_eq!(own["match"], three["match"], "one waits in one's own open match");
    upgrade(server.public, "/v1/play/chess/socket").token(&users[0].token).refused(404);
}

#[test]
fn a_ticket_lets_in_once() {
    let server = shared();
    let user = server.guest();
    let id = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let made = server.post(&user, "/v1/socket-tickets", &json!({})).expect(201);
    assert_eq!(made["expires_in"], 30);
    let ticket = made["ticket"].as_str().unwrap();
    let path = format!("/v1/matches/{id}/socket?ticket={ticket}");
    let mut socket = upgrade(server.public, &path).socket().unwrap().expect("a good ticket");
    assert_eq!(socket.message()["seat"], 0);
    upgrade(server.public, &path).refused(401);
    upgrade(server.public, &format!("/v1/matches/{id}/socket?ticket=x")).refused(401);
    call(server.public, "GET", &format!("/v1/users/me?ticket={ticket}")).send().problem(401);
}

#[test]
fn refusals_come_before_the_upgrade() {
    let server = shared();
    let user = server.guest();
    let body = json!({"game": "tictactoe", "visibility": "private"});
    let id = server.seated(&body, &[&server.guest()]);
    upgrade(server.public, &socket_path(&id)).refused(401);
    upgrade(server.public, &socket_path(&id)).token(&user.token).refused(404);
    upgrade(server.public, &socket_path("x")).token(&user.token).refused(404);
    upgrade(server.public, "/v1/nothing/socket").refused(404);

    let public = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let path = socket_path(&public);
    let plain = server.get(&user, &path);
    assert!(matches!(plain.status, 400 | 426), "{}", plain.status);
    plain.problem(plain.status);
    for after in ["x", "-1", "1.5", "99999999999999999999"] {
        let call = upgrade(server.public, &format!("{path}?after={after}")).token(&user.token);
        let answer = call.socket().unwrap().err().expect("a bad ?after=");
        assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
        answer.problem(answer.status);
    }
    let old = call(server.public, "GET", &path)
        .token(&user.token)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "8")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .send();
    assert!(matches!(old.status, 400 | 426), "{}", old.status);
    old.problem(old.status);
}

#[test]
fn pages_of_other_origins_are_refused() {
    let server = Server::with(&[("ALLOWED_ORIGINS", "https://friend.example")]);
    let user = server.guest();
    let connect = |origin: &str| {
        let call = upgrade(server.public, "/v1/play/relay/socket").header("Origin", origin);
        call.token(&user.token).socket().unwrap()
    };
    let own = format!("http://{}", server.public);
    for origin in [own.as_str(), "https://friend.example"] {
        assert!(connect(origin).is_ok(), "{origin}");
    }
    for origin in [
        "https://evil.example",
        "https://friend.example.evil.example",
        "http://friend.example",
        "https://friend.example:444",
        "null",
        "http://127.0.0.1:1",
    ] {
        connect(origin).err().unwrap_or_else(|| panic!("{origin} was let in")).problem(403);
    }
}

#[test]
fn who_does_not_come_back_in_time_gives_up_the_seat() {
    let server = Server::with(&[("GRACE_SECONDS", "1")]);
    let (id, users, [first, mut second]) = server.tictactoe();
    drop(first);
    let ended = second.expect("ended");
    assert_eq!(ended["outcome"], json!({"winners": [1], "draw": false, "reason": "timeout"}));
    let events = server.events(&users[0], &id);
    assert_eq!(events[3]["event"], json!({"left": {"seat": 0, "reason": "timeout"}}));
}

#[test]
fn who_comes_back_in_time_plays_on() {
    let server = shared();
    let (id, users, [first, mut second]) = server.tictactoe();
    drop(first);
    assert_eq!(second.expect("presence")["connected"], false);
    let mut first = server.play(&users[0], &id);
    assert_eq!(second.expect("presence")["connected"], true);
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["event"], json!({"placed": 4}));
}

#[test]
fn only_get_is_upgraded() {
    let server = shared();
    let user = server.guest();
    let head = call(server.public, "HEAD", "/v1/play/relay/socket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .token(&user.token)
        .send();
    assert_eq!(head.status, 426);
}

#[test]
fn requests_that_were_given_up_leave_nothing_in_memory() {
    let server = Server::start();
    let user = server.guest();
    for n in 0..200 {
        let path = format!("/v1/matches/00000000-0000-7000-8000-{n:012}/socket");
        upgrade(server.public, &path).token(&user.token).send_and_hang_up();
    }
    until("no match is in memory", || {
        let metrics = call(server.admin, "GET", "/metrics").send().text();
        metrics.contains("\ngameserver_matches_loaded 0\n").then_some(())
    });
}

#[test]
fn who_missed_thousands_of_events_is_told_all_of_them() {
    let server = Server::with(&[("COMMANDS_PER_SECOND", "100000")]);
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "pairs", "options": {"pairs": 32}});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let mut sockets = [server.play(&users[0], &id), server.play(&users[1], &id)];
    // Two cards that are no pair are turned up and hidden again, over and over.
    let mut seq = 0;
    let (mut turn, mut ids) = (0, [0, 0]);
    let [first, second] = no_pair(&mut sockets[0], &mut ids[0]);
    while seq < 4500 {
        turn = 1 - turn;
        for place in [first, second] {
            ids[turn] += 1;
            seq = sockets[turn].accepted(ids[turn], &json!({ "flip": place }));
        }
    }
    let path = format!("/v1/matches/{id}/socket?after=0");
    let (mut late, welcome) = server.connect(&server.guest(), &path);
    assert_eq!((&welcome["resumed"], &welcome["seq"]), (&json!(true), &json!(seq)));
    for expected in 1..=seq {
        assert_eq!(late.event()["seq"], expected);
    }
}

/// Turns cards up, two and two, until two are no pair; gives their places.
fn no_pair(socket: &mut Socket, last_id: &mut u64) -> [u64; 2] {
    for first in (0..64).step_by(2) {
        let mut cards = Vec::new();
        for place in [first, first + 1] {
            *last_id += 1;
            socket.command(*last_id, &json!({ "flip": place }));
            cards.push(socket.event()["event"]["card"].clone());
            socket.expect("ack");
        }
        if cards[0] != cards[1] {
            return [first, first + 1];
        }
    }
    unreachable!("not all neighbours are pairs")
}
