//! Matches over REST: made, listed, joined, left, played back.

use serde_json::{Value, json};

use crate::client::User;
use crate::harness::{Server, shared};

/// An id that no match has.
const NOBODYS: &str = "00000000-0000-7000-8000-000000000000";

fn players(server: &Server, user: &User, id: &str) -> Vec<Value> {
    let seen = server.get(user, &format!("/v1/matches/{id}")).expect(200);
    seen["players"].as_array().unwrap().clone()
}

fn join(server: &Server, user: &User, id: &str, body: &Value) -> crate::client::Answer {
    server.post(user, &format!("/v1/matches/{id}/players"), body)
}

#[test]
fn the_built_in_games_are_there() {
    let server = shared();
    let list = server.call("GET", "/v1/games").send().expect(200);
    let games = list["items"].as_array().unwrap();
    for (name, mode, min, max) in
        [("tictactoe", "turns", 2, 2), ("pairs", "turns", 2, 8), ("relay", "relay", 1, 64)]
    {
        let game = server.call("GET", &format!("/v1/games/{name}")).send().expect(200);
        assert!(games.contains(&game), "{name}");
        assert_eq!((&game["name"], &game["mode"]), (&json!(name), &json!(mode)));
        assert_eq!((&game["min_players"], &game["max_players"]), (&json!(min), &json!(max)));
        assert_eq!((&game["plugin"], &game["tick_hz"]), (&json!(false), &json!(null)));
        for text in ["title", "description", "version"] {
            assert!(game[text].as_str().is_some_and(|text| !text.is_empty()), "{game}");
        }
    }
    server.call("GET", "/v1/games/chess").send().problem(404);
}

#[test]
fn relay_games_can_have_names_of_their_own() {
    let games = r#"[{"name": "jam", "title": "Jam", "description": "Play together."}]"#;
    let server = Server::with(&[("RELAY_GAMES", games)]);
    let game = server.call("GET", "/v1/games/jam").send().expect(200);
    assert_eq!((&game["title"], &game["mode"]), (&json!("Jam"), &json!("relay")));
    let user = server.guest();
    let id = server.seated(&json!({"game": "jam"}), &[&user]);
    server.play(&user, &id).accepted(1, &json!({"send": "hello"}));
}

#[test]
fn built_in_games_that_are_not_named_are_not_offered() {
    let server = Server::with(&[("BUILTIN_GAMES", "relay,tictactoe")]);
    let games = server.call("GET", "/v1/games").send().expect(200);
    let items = games["items"].as_array().unwrap();
    let names: Vec<&str> = items.iter().map(|game| game["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tictactoe", "relay"]);
    let user = server.guest();
    let refused = server.post(&user, "/v1/matches", &json!({"game": "pairs"}));
    refused.problem(422);
    server.seated(&json!({"game": "relay"}), &[&user]);
}

#[test]
fn a_new_match_is_as_the_contract_says() {
    let server = shared();
    let user = server.guest();
    let body = json!({"game": "tictactoe"});
    let answer = server.post(&user, "/v1/matches", &body);
    let made = answer.expect(201);
    let id = made["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(&*format!("/v1/matches/{id}")));
    assert_eq!(made["game"], "tictactoe");
    assert_eq!(made["state"], "open");
    assert_eq!(made["visibility"], "public");
    assert_eq!(made["seq"], 1);
    assert!(made["join_code"].is_null() && made["outcome"].is_null(), "{made}");
    let player = &made["players"][0];
    assert_eq!(player["seat"], 0);
    assert_eq!(player["user"], user.id.as_str());
    assert_eq!(player["connected"], false);
    assert_eq!(server.get(&user, &format!("/v1/matches/{id}")).expect(200), made);

    let _socket = server.play(&user, id);
    assert_eq!(players(&server, &user, id)[0]["connected"], true);
}

#[test]
fn a_match_that_cannot_be_is_refused() {
    let server = shared();
    let user = server.guest();
    for body in [
        json!({"game": "chess"}),
        json!({"game": ""}),
        json!({"game": "tictactoe", "visibility": "secret"}),
        json!({"game": "tictactoe", "options": {"players": 3}}),
        json!({"game": "pairs", "options": {"players": 1}}),
        json!({"game": "pairs", "options": {"players": 9}}),
        json!({"game": "pairs", "options": {"players": "2"}}),
        json!({"game": "pairs", "options": {"pairs": 1}}),
        json!({"game": "pairs", "options": {"pairs": 33}}),
        json!({"game": "pairs", "options": {"pairs": 2.5}}),
        json!({"game": "pairs", "options": {"cards": 3}}),
        json!({"game": "relay", "options": {"players": 0}}),
        json!({"game": "relay", "options": {"players": 65}}),
    ] {
        let answer = server.post(&user, "/v1/matches", &body);
        assert_eq!(answer.status, 422, "{body}: {}", answer.text());
        answer.invalid_fields();
    }
}

#[test]
fn it_runs_once_all_seats_are_taken() {
    let server = shared();
    let users = [(); 4].map(|()| server.guest());
    let body = json!({"game": "pairs", "options": {"players": 3}});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let state = || server.get(&users[3], &format!("/v1/matches/{id}")).expect(200)["state"].clone();
    assert_eq!(state(), "open");
    assert_eq!(join(&server, &users[1], &id, &json!({})).expect(200), json!({"seat": 1}));
    assert_eq!(join(&server, &users[2], &id, &json!({})).expect(201), json!({"seat": 2}));
    assert_eq!(state(), "running");
    join(&server, &users[3], &id, &json!({})).problem(409);
    assert_eq!(join(&server, &users[0], &id, &json!({})).expect(200), json!({"seat": 0}));
}

#[test]
fn a_relay_runs_from_the_first_seat_on() {
    let server = shared();
    let made = server.create(&server.guest(), &json!({"game": "relay"}));
    assert_eq!(made["state"], "running");
}

#[test]
fn an_open_match_is_left_and_the_seat_is_free_again() {
    let server = shared();
    let users = [(); 3].map(|()| server.guest());
    let body = json!({"game": "pairs", "options": {"players": 3}});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let me = format!("/v1/matches/{id}/players/me");
    assert_eq!(server.delete(&users[0], &me).status, 204);
    let seats: Vec<_> =
        players(&server, &users[1], &id).iter().map(|p| p["seat"].clone()).collect();
    assert_eq!(seats, [1]);
    assert_eq!(join(&server, &users[2], &id, &json!({})).expect(201), json!({"seat": 0}));
    assert_eq!(server.delete(&users[1], &me).status, 204);
    assert_eq!(server.delete(&users[2], &me).status, 204);
    let left = server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
    assert_eq!(left["state"], "ended", "nobody is in it any more");
}

#[test]
fn a_running_match_is_resigned() {
    let server = shared();
    let (id, [first, second], [_, mut socket]) = server.tictactoe();
    assert_eq!(server.delete(&first, &format!("/v1/matches/{id}/players/me")).status, 204);
    let ended = socket.expect("ended");
    let outcome = json!({"winners": [1], "draw": false, "reason": "resigned"});
    assert_eq!(ended["outcome"], outcome);
    let seen = server.get(&second, &format!("/v1/matches/{id}")).expect(200);
    assert_eq!((&seen["state"], &seen["outcome"]), (&json!("ended"), &outcome));
    let events: Vec<_> =
        server.events(&first, &id).into_iter().map(|item| item["event"].clone()).collect();
    assert_eq!(events[3], json!({"left": {"seat": 0, "reason": "resigned"}}));
    assert_eq!(events[4], json!({ "ended": outcome }));
    join(&server, &server.guest(), &id, &json!({})).problem(409);
}

#[test]
fn a_whole_match_can_be_played_back() {
    let server = shared();
    let (id, [user, _], mut sockets) = server.tictactoe();
    let cells = [4, 0, 2, 6, 3, 5, 1, 7, 8];
    for (turn, cell) in cells.iter().enumerate() {
        let place = json!({ "place": cell });
        sockets[turn % 2].accepted(turn as u64 + 1, &place);
        sockets[1 - turn % 2].event();
    }
    let ended = sockets[0].expect("ended");
    assert_eq!(ended["outcome"], json!({"winners": [], "draw": true, "reason": "completed"}));
    let watcher = server.guest();
    let events = server.events(&watcher, &id);
    let seqs: Vec<_> = events.iter().map(|item| item["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=13).collect::<Vec<_>>());
    let (joined, started) = (&events[0]["event"]["joined"], &events[2]);
    assert_eq!((&joined["seat"], &joined["user"]), (&json!(0), &json!(user.id)));
    assert_eq!(
        (&started["event"], &started["seat"]),
        (&json!({"started": {"players": 2}}), &json!(null))
    );
    for (turn, cell) in cells.iter().enumerate() {
        let item = &events[turn + 3];
        assert_eq!((&item["event"], &item["seat"]), (&json!({ "placed": cell }), &json!(turn % 2)));
    }
    assert_eq!(events[12]["event"], json!({ "ended": ended["outcome"] }));

    let part =
        server.get(&watcher, &format!("/v1/matches/{id}/events?after=3&limit=2")).expect(200);
    assert_eq!(part["items"].as_array().unwrap(), &events[3..5]);
    assert!(part["next_cursor"].is_string());
    let pages = server.items(&watcher, &format!("/v1/matches/{id}/events?limit=3"));
    assert_eq!(pages, events);
}

#[test]
fn a_win_is_three_in_a_row() {
    let server = shared();
    let (_, _, mut sockets) = server.tictactoe();
    for (turn, cell) in [0, 3, 1, 4, 2].iter().enumerate() {
        sockets[turn % 2].accepted(turn as u64 + 1, &json!({ "place": cell }));
    }
    let won = json!({"winners": [0], "draw": false, "reason": "completed"});
    for socket in &mut sockets {
        let ended = socket.expect("ended");
        assert_eq!((&ended["outcome"], &ended["seq"]), (&won, &json!(9)));
        assert!(ended["ratings"].is_null() || ended["ratings"].is_array());
    }
}

#[test]
fn a_private_match_is_nobodys_business() {
    let server = shared();
    let (owner, friend, stranger) = (server.guest(), server.guest(), server.guest());
    let body = json!({"game": "pairs", "visibility": "private", "options": {"players": 3}});
    let made = server.create(&owner, &body);
    let id = made["id"].as_str().unwrap();
    let code = made["join_code"].as_str().unwrap();
    for path in ["", "/events", "/socket"] {
        server.get(&stranger, &format!("/v1/matches/{id}{path}")).problem(404);
    }
    for wrong in [json!({}), json!({"join_code": ""}), json!({"join_code": "WRONG"})] {
        join(&server, &stranger, id, &wrong).problem(404);
    }
    let listed = |user: &User| {
        server.items(user, "/v1/matches?limit=200").iter().any(|item| item["id"] == id)
    };
    assert!(listed(&owner) && !listed(&stranger));
    join(&server, &friend, id, &json!({ "join_code": code })).expect(201);
    assert!(listed(&friend));
    assert_eq!(
        server.get(&friend, &format!("/v1/matches/{id}")).expect(200)["players"][1]["seat"],
        1
    );
    server.delete(&stranger, &format!("/v1/matches/{id}/players/me")).problem(404);
}

#[test]
fn who_leaves_a_private_match_hears_no_more_of_it() {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "relay", "visibility": "private", "options": {"players": 2}});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let mut gone = server.play(&users[1], &id);
    assert_eq!(server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    assert_eq!(gone.closed(), 1008);
    let path = format!("/v1/matches/{id}");
    server.get(&users[1], &path).problem(404);
    let unknown = server.delete(&users[1], &format!("/v1/matches/{NOBODYS}/players/me"));
    let left = server.delete(&users[1], &format!("{path}/players/me"));
    assert_eq!(left.problem(404)["detail"], unknown.problem(404)["detail"]);
}

#[test]
fn lists_are_paged_and_filtered() {
    let server = shared();
    let (user, other) = (server.guest(), server.guest());
    let mut made: Vec<String> = Vec::new();
    for game in ["tictactoe", "pairs", "tictactoe", "pairs", "tictactoe"] {
        made.push(server.seated(&json!({ "game": game }), &[&user]));
    }
    join(&server, &other, &made[0], &json!({})).expect(201);
    let ids = |path: &str| -> Vec<String> {
        let items = server.items(&user, path);
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    for path in ["/v1/matches?mine=true", "/v1/matches?mine=true&limit=2"] {
        assert_eq!(sorted(ids(path)), sorted(made.clone()), "{path}");
    }
    assert_eq!(ids("/v1/matches?mine=true&state=running"), [made[0].clone()]);
    assert_eq!(
        sorted(ids("/v1/matches?mine=true&game=pairs&limit=1")),
        sorted(vec![made[1].clone(), made[3].clone()])
    );
    assert_eq!(ids("/v1/matches?mine=true&state=ended"), [""; 0]);
    for bad in ["limit=0", "limit=201", "limit=x", "state=asleep", "mine=perhaps", "cursor=%00"] {
        let answer = server.get(&user, &format!("/v1/matches?{bad}"));
        assert!(matches!(answer.status, 400 | 422), "{bad}: {}", answer.status);
        answer.problem(answer.status);
    }
}

#[test]
fn matches_that_do_not_exist_are_not_found() {
    let server = shared();
    let user = server.guest();
    for id in [NOBODYS, "x", "%00", "..%2f..", "0"] {
        for path in ["", "/events", "/socket"] {
            server.get(&user, &format!("/v1/matches/{id}{path}")).problem(404);
        }
        join(&server, &user, id, &json!({})).problem(404);
        server.delete(&user, &format!("/v1/matches/{id}/players/me")).problem(404);
    }
}

#[test]
fn who_has_no_seat_cannot_leave() {
    let server = shared();
    let id = server.seated(&json!({"game": "tictactoe"}), &[&server.guest()]);
    let answer = server.delete(&server.guest(), &format!("/v1/matches/{id}/players/me"));
    assert!(matches!(answer.status, 403 | 404 | 409), "{}", answer.status);
    answer.problem(answer.status);
}
