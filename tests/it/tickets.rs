//! Matchmaking tickets: who agrees meets, once, whatever happens to the nodes.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, User, call, open};
use crate::harness::{DEADLINE, Server, shared, until};
use crate::postgres;

const NO_TICKET: &str = "/v1/tickets/00000000-0000-7000-8000-000000000000";

/// A server of the test's own: others' tickets would meet these.
fn own() -> Server {
    Server::with(&[])
}

fn post(server: &Server, user: &User, body: &Value) -> String {
    let answer = server.post(user, "/v1/tickets", body);
    let ticket = answer.expect(201);
    assert_eq!((&ticket["state"], &ticket["match"]), (&json!("searching"), &Value::Null));
    let id = ticket["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/tickets/{id}").as_str()));
    id
}

fn look(server: &Server, user: &User, id: &str) -> Value {
    server.get(user, &format!("/v1/tickets/{id}")).expect(200)
}

/// The ticket as it is once it no longer searches.
fn wait(server: &Server, user: &User, id: &str) -> Value {
    let ticket = server.get(user, &format!("/v1/tickets/{id}?wait=30")).expect(200);
    assert_ne!(ticket["state"], "searching", "{ticket}");
    ticket
}

fn matched(server: &Server, user: &User, id: &str) -> String {
    let ticket = wait(server, user, id);
    assert_eq!(ticket["state"], "matched");
    ticket["match"].as_str().unwrap().to_owned()
}

fn cancel(server: &Server, user: &User, id: &str) -> Answer {
    server.delete(user, &format!("/v1/tickets/{id}"))
}

#[test]
fn two_who_want_the_same_meet_in_a_match_that_runs() {
    let server = own();
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "tictactoe"});
    let first = post(&server, &users[0], &body);
    let (id, began) = thread::scope(|scope| {
        let waiting = scope.spawn(|| matched(&server, &users[0], &first));
        let began = Instant::now();
        let second = post(&server, &users[1], &body);
        assert_eq!(matched(&server, &users[1], &second), waiting.join().unwrap());
        (matched(&server, &users[0], &first), began)
    });
    assert!(began.elapsed() < DEADLINE / 3, "who waits is told: {:?}", began.elapsed());
    assert_eq!(look(&server, &users[0], &first)["game"], "tictactoe");
    let made = server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
    assert_eq!((&made["state"], &made["visibility"]), (&json!("running"), &json!("public")));
    let mut sockets = [server.play(&users[0], &id), server.play(&users[1], &id)];
    // The oldest begins.
    sockets[0].accepted(1, &json!({"place": 4}));
    assert_eq!(sockets[1].event()["event"], json!({"placed": 4}));
    sockets[1].accepted(1, &json!({"place": 0}));
    cancel(&server, &users[0], &first).problem(409);
    // What is over is no hindrance.
    post(&server, &users[0], &body);
}

#[test]
fn only_those_whose_options_agree_meet() {
    let server = own();
    let users: Vec<User> = (0..7).map(|_| server.guest()).collect();
    let bodies = [
        json!({"game": "pairs", "options": {"pairs": 4}}),
        json!({"game": "pairs", "options": {"pairs": 5}}),
        json!({"game": "pairs", "options": {"pairs": 4, "players": 3}}),
        json!({"game": "tictactoe"}),
        json!({"game": "pairs"}),
    ];
    let tickets: Vec<String> =
        users.iter().zip(&bodies).map(|(user, body)| post(&server, user, body)).collect();
    // The game's own number of players, said or not.
    let body = json!({"game": "pairs", "options": {"players": 2, "pairs": 5}});
    let late = post(&server, &users[5], &body);
    let id = matched(&server, &users[5], &late);
    assert_eq!(matched(&server, &users[1], &tickets[1]), id);
    for place in [0, 2, 3, 4] {
        assert_eq!(look(&server, &users[place], &tickets[place])["state"], "searching", "{place}");
    }
    let late = post(&server, &users[6], &bodies[0]);
    assert_eq!(matched(&server, &users[6], &late), matched(&server, &users[0], &tickets[0]));
}

#[test]
fn as_many_meet_as_the_match_has_seats() {
    let server = own();
    let users: Vec<User> = (0..5).map(|_| server.guest()).collect();
    let body = json!({"game": "pairs", "options": {"players": 3}});
    let tickets: Vec<String> = users.iter().map(|user| post(&server, user, &body)).collect();
    let id = matched(&server, &users[0], &tickets[0]);
    let made = server.get(&users[4], &format!("/v1/matches/{id}")).expect(200);
    let seated: Vec<&str> =
        made["players"].as_array().unwrap().iter().map(|p| p["user"].as_str().unwrap()).collect();
    assert_eq!(seated, users[..3].iter().map(|user| user.id.as_str()).collect::<Vec<_>>());
    assert_eq!(look(&server, &users[3], &tickets[3])["state"], "searching");
    // A room needs nobody: two meet there, and it has seats for more.
    let rooms: Vec<String> =
        users[..2].iter().map(|user| post(&server, user, &json!({"game": "relay"}))).collect();
    let room = matched(&server, &users[0], &rooms[0]);
    assert_eq!(matched(&server, &users[1], &rooms[1]), room);
    let room = server.get(&users[0], &format!("/v1/matches/{room}")).expect(200);
    assert_eq!((&room["state"], &room["seats"]), (&json!("running"), &json!(64)));
}

#[test]
fn nobody_meets_himself_and_each_searches_once_in_a_game() {
    let server = own();
    let user = server.guest();
    let body = json!({"game": "pairs", "options": {"pairs": 4}});
    let id = post(&server, &user, &body);
    let again = server.post(&user, "/v1/tickets", &body).expect(200);
    assert_eq!((&again["id"], &again["state"]), (&json!(id), &json!("searching")));
    server.post(&user, "/v1/tickets", &json!({"game": "pairs"})).problem(409);
    post(&server, &user, &json!({"game": "tictactoe"}));
    assert_eq!(cancel(&server, &user, &id).status, 204);
    let other = post(&server, &user, &json!({"game": "pairs"}));
    assert_ne!(other, id);
}

#[test]
fn a_party_is_on_one_match_with_others_who_are_needed() {
    let server = own();
    let users: Vec<User> = (0..6).map(|_| server.guest()).collect();
    let alone = json!({"game": "pairs", "options": {"players": 4}});
    let with = |size: u8| {
        let mut body = alone.clone();
        body["party"] = json!({"code": "us", "size": size});
        body
    };
    // The first of it waits for the others, whoever else is there.
    let mut tickets = vec![post(&server, &users[0], &with(3))];
    for user in &users[1..4] {
        tickets.push(post(&server, user, &alone));
    }
    tickets.push(post(&server, &users[4], &with(3)));
    server.post(&users[0], "/v1/tickets", &alone).problem(409);
    server.post(&users[0], "/v1/tickets", &with(2)).problem(409);
    server.post(&users[0], "/v1/tickets", &with(3)).expect(200);
    for (user, ticket) in users.iter().zip(&tickets) {
        assert_eq!(look(&server, user, ticket)["state"], "searching");
    }
    tickets.push(post(&server, &users[5], &with(3)));
    let id = matched(&server, &users[0], &tickets[0]);
    for place in [1, 4, 5] {
        assert_eq!(matched(&server, &users[place], &tickets[place]), id);
    }
    for place in [2, 3] {
        assert_eq!(look(&server, &users[place], &tickets[place])["state"], "searching");
    }
}

/// How far apart two are who have just played says whether they meet at once.
#[test]
fn those_who_are_near_meet_before_those_who_are_not() {
    let server = own();
    let users: Vec<User> = (0..4).map(|_| server.guest()).collect();
    // One who is known to win, and one who is known to lose.
    for _ in 0..12 {
        for (winner, loser) in [(0, 1), (0, 2), (3, 1)] {
            let players = [&users[winner], &users[loser]];
            let id = server.seated(&json!({"game": "tictactoe"}), &players);
            let path = format!("/v1/matches/{id}/players/me");
            assert_eq!(server.delete(&users[loser], &path).status, 204);
        }
    }
    let body = json!({"game": "tictactoe"});
    let tickets: Vec<String> =
        [0, 1].map(|place| post(&server, &users[place], &body)).into_iter().collect();
    // They are far apart; others come who are nearer.
    assert_eq!(look(&server, &users[1], &tickets[1])["state"], "searching");
    let late = [3, 2].map(|place| post(&server, &users[place], &body));
    assert_eq!(matched(&server, &users[0], &tickets[0]), matched(&server, &users[3], &late[0]));
    assert_eq!(matched(&server, &users[1], &tickets[1]), matched(&server, &users[2], &late[1]));
}

#[test]
fn a_cancelled_ticket_meets_nobody_and_who_waits_for_it_is_told() {
    let server = own();
    let users = [server.guest(), server.guest(), server.guest()];
    let body = json!({"game": "tictactoe"});
    let id = post(&server, &users[0], &body);
    cancel(&server, &users[1], &id).problem(404);
    server.get(&users[1], &format!("/v1/tickets/{id}")).problem(404);
    thread::scope(|scope| {
        let began = Instant::now();
        let waiting = scope.spawn(|| wait(&server, &users[0], &id));
        assert_eq!(cancel(&server, &users[0], &id).status, 204);
        assert_eq!(waiting.join().unwrap()["state"], "cancelled");
        assert!(began.elapsed() < DEADLINE / 3, "{:?}", began.elapsed());
    });
    assert_eq!(cancel(&server, &users[0], &id).status, 204, "it is so already");
    let tickets = [1, 2].map(|place| post(&server, &users[place], &body));
    matched(&server, &users[1], &tickets[0]);
    assert_eq!(look(&server, &users[0], &id)["state"], "cancelled");
}

#[test]
fn a_ticket_expires_and_the_user_may_search_again() {
    let server = Server::with(&[("TICKET_SECONDS", "1")]);
    let user = server.guest();
    let body = json!({"game": "tictactoe"});
    let id = post(&server, &user, &body);
    assert_eq!(wait(&server, &user, &id)["state"], "expired");
    assert_eq!(cancel(&server, &user, &id).status, 204);
    assert_eq!(look(&server, &user, &id)["state"], "expired");
    assert_ne!(post(&server, &user, &body), id);
}

#[test]
fn an_answer_is_held_for_longer_than_requests_may_take_but_not_through_a_drain() {
    let mut server = Server::with(&[("REQUEST_TIMEOUT_SECONDS", "1")]);
    let user = server.guest();
    let id = post(&server, &user, &json!({"game": "tictactoe"}));
    let began = Instant::now();
    let held = server.get(&user, &format!("/v1/tickets/{id}?wait=2")).expect(200);
    assert_eq!(held["state"], "searching");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    let mut stream = open(server.public).unwrap();
    let line = format!("GET /v1/tickets/{id}?wait=30 HTTP/1.1\r\nHost: x\r\n");
    let request = format!("{line}Authorization: Bearer {}\r\n\r\n", user.token);
    stream.write_all(request.as_bytes()).unwrap();
    // Requests that came later are answered: that one is under way.
    for _ in 0..3 {
        look(&server, &user, &id);
    }
    server.terminate();
    let held = Answer::read(&mut stream, "GET").unwrap().expect(200);
    assert_eq!(held["state"], "searching");
    assert!(server.wait().success());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let server = shared();
    let user = server.guest();
    let refused = |body: Value| server.post(&user, "/v1/tickets", &body).invalid_fields();
    assert_eq!(refused(json!({})), ["game"]);
    assert_eq!(refused(json!({"game": "chess-on-mars"})), ["game"]);
    assert_eq!(refused(json!({"game": "pairs", "options": {"pairs": 99}})), ["options.pairs"]);
    assert_eq!(refused(json!({"game": "pairs", "options": {"players": 9}})), ["options.players"]);
    assert_eq!(refused(json!({"game": "pairs", "options": []})), ["options"]);
    assert_eq!(refused(json!({"game": "pairs", "visibility": "private"})), ["visibility"]);
    for party in [
        json!("code"),
        json!({"code": "us"}),
        json!({"code": "", "size": 2}),
        json!({"code": "x".repeat(33), "size": 2}),
        json!({"code": "\n", "size": 2}),
        json!({"code": "us", "size": 1}),
        json!({"code": "us", "size": 3}),
        json!({"code": "us", "size": 65}),
        json!({"code": "us", "size": 2, "users": []}),
    ] {
        assert_eq!(refused(json!({"game": "pairs", "party": party})), ["party"], "{party}");
    }
    for wait in ["31", "-1", "1.5", "x", ""] {
        let answer = server.get(&user, &format!("{NO_TICKET}?wait={wait}"));
        assert_eq!(answer.invalid_fields(), ["wait"], "{wait}");
    }
    for path in [NO_TICKET, "/v1/tickets/1"] {
        server.get(&user, path).problem(404);
        server.delete(&user, path).problem(404);
        server.call("GET", path).send().problem(401);
    }
    server.call("POST", "/v1/tickets").json(&json!({"game": "pairs"})).send().problem(401);
    assert_eq!(server.call("PUT", NO_TICKET).send().problem(405)["status"], 405);
}

#[test]
fn tickets_outlive_a_crash() {
    let mut server = own();
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "tictactoe"});
    let first = post(&server, &users[0], &body);
    server.kill9();
    server.restart();
    let second = until("the second is put", || {
        let answer = server.post(&users[1], "/v1/tickets", &body);
        (answer.status == 201).then(|| answer.expect(201)["id"].as_str().unwrap().to_owned())
    });
    assert_eq!(matched(&server, &users[0], &first), matched(&server, &users[1], &second));
}

/// So many nodes over a database of their own.
fn nodes(count: usize) -> (postgres::Database, Vec<Server>) {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str()), ("LEASE_SECONDS", "1")];
    let nodes = (0..count).map(|_| Server::with(&settings)).collect();
    (database, nodes)
}

/// A ticket on its way through the nodes.
struct Player {
    user: User,
    ticket: Option<String>,
}

/// Posts by way of a node that may go at any moment: then nobody knows whether there is a ticket.
fn try_post(node: SocketAddr, user: User, body: &Value) -> Player {
    let call = call(node, "POST", "/v1/tickets").token(&user.token).json(body);
    let answer = open(node).and_then(|stream| call.send_on(stream));
    let ticket = answer.ok().filter(|answer| answer.status < 300).map(|answer| {
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["id"].as_str().unwrap().to_owned()
    });
    Player { user, ticket }
}

/// Each match of the players has exactly its two, and each player one match at most; gives how
/// many have one.
fn assert_each_plays_once(node: &Server, players: &[Player]) -> usize {
    let mut seated: HashMap<String, Vec<String>> = HashMap::new();
    for Player { user, .. } in players {
        let mine = node.items(user, "/v1/matches?mine=true&limit=200");
        assert!(mine.len() <= 1, "{mine:?}");
        for one in mine {
            assert_eq!(one["state"], "running", "{one}");
            assert_eq!(one["players"].as_array().unwrap().len(), 2, "{one}");
            seated.entry(one["id"].as_str().unwrap().into()).or_default().push(user.id.clone());
        }
    }
    assert!(seated.values().all(|users| users.len() == 2), "{seated:?}");
    seated.len() * 2
}

#[test]
fn tickets_that_are_put_on_many_nodes_at_a_time_are_matched_once() {
    let (_database, nodes) = nodes(3);
    let body = json!({"game": "tictactoe"});
    let users: Vec<User> = (0..48).map(|number| nodes[number % 3].guest()).collect();
    let players: Vec<Player> = thread::scope(|scope| {
        let play = |(number, user): (usize, User)| {
            let (nodes, body) = (&nodes, &body);
            scope.spawn(move || {
                // Put here, waited for there.
                let ticket = post(&nodes[number % 3], &user, body);
                let id = matched(&nodes[(number / 3) % 3], &user, &ticket);
                // And played anywhere.
                let node = &nodes[(number / 9) % 3];
                assert_eq!(node.connect(&user, &format!("/v1/matches/{id}/socket")).1["match"], id);
                Player { user, ticket: Some(ticket) }
            })
        };
        let playing: Vec<_> = users.into_iter().enumerate().map(play).collect();
        playing.into_iter().map(|player| player.join().unwrap()).collect()
    });
    assert_eq!(assert_each_plays_once(&nodes[0], &players), players.len());
}

/// Tickets are put on three nodes, and one of them `breaks` in the midst of it.
fn survive(breaks: impl Fn(&mut Server), mends: impl Fn(&mut Server)) {
    let (database, mut nodes) = nodes(3);
    let body = json!({"game": "tictactoe"});
    let users: Vec<User> = (0..60).map(|number| nodes[number % 3].guest()).collect();
    let (mut victim, rest) = (nodes.remove(0), nodes);
    let half = AtomicBool::new(false);
    let target = victim.public;
    let mut players: Vec<Player> = thread::scope(|scope| {
        let post = |(number, user): (usize, User)| {
            let (rest, body, half) = (&rest, &body, &half);
            scope.spawn(move || {
                let node = if number % 3 == 0 { target } else { rest[number % 3 - 1].public };
                if number == 20 {
                    half.store(true, Ordering::Release);
                }
                try_post(node, user, body)
            })
        };
        let posting: Vec<_> = users.into_iter().enumerate().map(post).collect();
        until("half of them are put", || half.load(Ordering::Acquire).then_some(()));
        breaks(&mut victim);
        let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
        until("its lease has run out", || {
            let alive = "SELECT count(*) FROM nodes WHERE expires_at > now()";
            (client.query_one(alive, &[]).unwrap().get::<_, i64>(0) == 2).then_some(())
        });
        mends(&mut victim);
        posting.into_iter().map(|player| player.join().unwrap()).collect()
    });
    let searching = |player: &&Player| {
        let Some(ticket) = &player.ticket else { return false };
        let path = format!("/v1/tickets/{ticket}?wait=10");
        rest[0].get(&player.user, &path).expect(200)["state"] == "searching"
    };
    let left = players.iter().filter(searching).count();
    assert!(left <= 1, "{left} are left over");
    if left == 1 {
        let user = rest[1].guest();
        players.push(try_post(rest[1].public, user, &body));
    }
    for Player { user, ticket } in &players {
        if let Some(ticket) = ticket {
            matched(&rest[0], user, ticket);
        }
    }
    let playing = assert_each_plays_once(&rest[1], &players);
    let known = players.iter().filter(|player| player.ticket.is_some()).count();
    assert!(playing >= known, "{playing} of {known}");
}

#[test]
fn each_ticket_is_matched_once_though_a_node_is_killed() {
    survive(Server::kill9, |_| {});
}

#[test]
fn each_ticket_is_matched_once_though_a_node_is_frozen_and_comes_back() {
    survive(|node| node.freeze(), |node| node.thaw());
}
