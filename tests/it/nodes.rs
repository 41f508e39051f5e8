//! Several nodes over one PostgreSQL: a match outlives the node that plays it, and has one owner.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Socket, User, upgrade};
use crate::harness::{DEADLINE, Server, command_in, until};
use crate::postgres;

/// So many nodes over a database of their own.
fn nodes(count: usize) -> (postgres::Database, Vec<Server>) {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str()), ("LEASE_SECONDS", "2")];
    let nodes = (0..count).map(|_| Server::with(&settings)).collect();
    (database, nodes)
}

/// How long it takes until the sockets of who signs out on one node are closed on another.
fn signed_out_elsewhere(nodes: &[Server]) -> Duration {
    let user = nodes[0].guest();
    let id = nodes[1].seated(&json!({"game": "tictactoe"}), &[&user]);
    let mut socket = nodes[1].play(&user, &id);
    let began = Instant::now();
    assert_eq!(nodes[0].delete(&user, "/v1/sessions/current").status, 204);
    assert_eq!(socket.closed(), 1008);
    began.elapsed()
}

/// The server's processes for connections on which leases are renewed.
fn lease_connections(client: &mut ::postgres::Client) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity
        WHERE application_name = 'gameserver lease' AND datname = current_database()";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
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
    assert_eq!(second.closed(), 1012, "told by the node that passed it on");
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
fn other_nodes_are_told_at_once() {
    let (_database, nodes) = nodes(2);
    let mut took: Vec<Duration> = (0..11).map(|_| signed_out_elsewhere(&nodes)).collect();
    took.sort();
    // Who looks twice a second, and no sooner, takes a quarter of a second.
    assert!(took[5] < Duration::from_millis(100), "{took:?}");
}

#[test]
fn what_nobody_was_told_is_seen_within_a_second() {
    let (database, nodes) = nodes(2);
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    let all_listen = |client: &mut ::postgres::Client, but: &[i32]| {
        until("each node has a connection for its lease", || {
            let now = lease_connections(client);
            (now.len() == 2 && now.iter().all(|pid| !but.contains(pid))).then_some(now)
        })
    };
    let before = all_listen(&mut client, &[]);
    for pid in &before {
        client.execute("SELECT pg_terminate_backend($1)", &[pid]).unwrap();
    }
    let took = signed_out_elsewhere(&nodes);
    assert!(took < Duration::from_secs(1), "{took:?}");
    all_listen(&mut client, &before);
}

#[test]
fn nodes_behind_a_pooler_see_it_within_a_second_too() {
    let database = postgres::database();
    let pooler = postgres::Pooler::start(&database);
    let url = pooler.url(&database);
    let settings = [("DATABASE_URL", url.as_str()), ("DATABASE_PREPARE", "false")];
    let nodes = [Server::with(&settings), Server::with(&settings)];
    for _ in 0..3 {
        let took = signed_out_elsewhere(&nodes);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    assert_eq!(client.query_one(listening, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn who_is_deleted_on_one_node_is_nobody_on_all() {
    let (_database, nodes) = nodes(2);
    let [gone, stays] = [nodes[0].guest(), nodes[0].guest()];
    let played = nodes[1].seated(&json!({"game": "tictactoe"}), &[&gone, &stays]);
    let body = json!({"game": "relay", "options": {"players": 2}});
    let room = nodes[1].seated(&body, &[&gone, &stays]);
    let mut own = nodes[1].play(&gone, &played);
    let mut other = nodes[1].play(&stays, &played);
    let mut roommate = nodes[1].play(&stays, &room);
    own.accepted(1, &json!({"place": 4}));
    assert_eq!(nodes[0].delete(&gone, "/v1/users/me").status, 204);
    assert_eq!(own.closed(), 1008);
    assert_eq!(other.expect("ended")["outcome"]["winners"], json!([1]));
    assert_eq!(roommate.event()["event"]["left"]["seat"], 0);
    // Those who come later are not told of it by what is in memory.
    until("the name is forgotten", || {
        let path = format!("/v1/matches/{played}/socket?after=0");
        let (mut watcher, welcome) = nodes[1].connect(&nodes[1].guest(), &path);
        let told = format!("{welcome}{:?}", watcher.pending());
        (!told.contains(&gone.id)).then_some(())
    });
    let seen = nodes[0].get(&stays, &format!("/v1/matches/{played}")).expect(200);
    assert_eq!(seen["players"][0]["display_name"], "Deleted player");
}

#[test]
fn who_is_passed_on_to_a_node_that_is_taken_for_gone_is_told_to_come_back() {
    let (_database, nodes) = nodes(3);
    let users = [nodes[0].guest(), nodes[0].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut passed_on = nodes[1].play(&users[1], &id);
    nodes[0].freeze();
    let (mut first, _) = come_back(&nodes[2], &users[0], &id, 3);
    assert_eq!(passed_on.closed(), 1012);
    let (mut second, _) = come_back(&nodes[1], &users[1], &id, 3);
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["event"], json!({"placed": 4}));
    nodes[0].thaw();
}

#[test]
fn a_node_does_not_take_the_address_of_one_that_lives() {
    let database = postgres::database();
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("ADVERTISE", "games.example:8080"),
        ("LEASE_SECONDS", "60"),
    ];
    let mut first = Server::with(&settings);
    let user = first.guest();
    let id = first.create(&user, &json!({"game": "tictactoe"}))["id"].clone();
    let data = tempfile::tempdir().unwrap();
    let named = settings.map(|(name, value)| (format!("GAMESERVER_{name}"), value));
    let output = command_in(&data).envs(named).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(stderr.contains("GAMESERVER_ADVERTISE: another node that lives"), "{stderr}");
    assert!(stderr.contains("games.example:8080"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // The first has lost nothing by it, and comes back at once after a crash.
    let path = format!("/v1/matches/{}/socket", id.as_str().unwrap());
    first.connect(&user, &path);
    first.kill9();
    first.restart();
    first.connect(&user, &path);
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
