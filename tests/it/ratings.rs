//! Ratings: what the end of a match makes of them, and where they are looked at.

use serde_json::{Value, json};

use crate::client::{Socket, User};
use crate::harness::{Server, shared, until};

/// Seat 0 wins.
const MOVES: [u8; 5] = [0, 3, 1, 4, 2];

/// Plays a match to its end, which seat 0 wins; gives its id and what each socket was told.
fn won_by_first(server: &Server, users: [&User; 2], visibility: &str) -> (String, [Value; 2]) {
    let body = json!({"game": "tictactoe", "visibility": visibility});
    let id = server.seated(&body, &users);
    let mut sockets = users.map(|user| server.play(user, &id));
    for (turn, cell) in MOVES.iter().enumerate() {
        sockets[turn % 2].accepted(turn as u64 + 1, &json!({ "place": cell }));
    }
    let ended = sockets.each_mut().map(|socket| socket.expect("ended"));
    (id, ended)
}

/// What a socket is told that comes later.
fn told_later(server: &Server, user: &User, id: &str) -> Value {
    let mut socket = server.play(user, id);
    let ended = socket.message();
    assert_eq!(ended["type"], "ended");
    ended["ratings"].clone()
}

fn resigned(server: &Server, users: [&User; 2], body: &Value) -> Value {
    let id = server.seated(body, &users);
    let mut socket = server.play(users[0], &id);
    assert_eq!(server.delete(users[1], &format!("/v1/matches/{id}/players/me")).status, 204);
    socket.expect("ended")["ratings"].clone()
}

fn leaders(server: &Server, game: &str, query: &str) -> Value {
    server.call("GET", &format!("/v1/leaderboards/{game}?{query}")).send().expect(200)
}

fn ranks(page: &Value) -> Vec<(u64, &str)> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| (item["rank"].as_u64().unwrap(), item["user"].as_str().unwrap()))
        .collect()
}

#[test]
fn the_end_of_a_public_match_moves_ratings_and_all_are_told_the_same() {
    let mut server = Server::start();
    let users = [server.guest(), server.guest()];
    let (id, ended) = won_by_first(&server, [&users[0], &users[1]], "public");
    let ratings = json!([
        {"seat": 0, "before": 1500.0, "after": 1662.31},
        {"seat": 1, "before": 1500.0, "after": 1337.69},
    ]);
    let look = |server: &Server| {
        assert_eq!(told_later(server, &users[1], &id), ratings);
        assert_eq!(told_later(server, &server.guest(), &id), ratings);
        let found = server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
        assert_eq!(found["ratings"], ratings);
        let page = leaders(server, "tictactoe", "");
        assert_eq!(ranks(&page), [(1, users[0].id.as_str()), (2, users[1].id.as_str())]);
        let first = &page["items"][0];
        assert_eq!((&first["rating"], &first["wins"]), (&json!(1662.31), &json!(1)));
        assert!(first["deviation"].as_f64().is_some_and(|deviation| deviation < 300.0), "{first}");
        assert!(first["display_name"].is_string(), "{first}");
        let second = &page["items"][1];
        assert_eq!((&second["losses"], &second["draws"]), (&json!(1), &json!(0)));
    };
    for told in ended {
        assert_eq!(told["ratings"], ratings);
    }
    look(&server);
    // By then it has left memory.
    server.kill9();
    server.restart();
    look(&server);
    assert_eq!(leaders(&server, "pairs", "")["items"], json!([]), "each game has its own");
    // The next match begins where this one ended.
    let (_, [told, _]) = won_by_first(&server, [&users[1], &users[0]], "public");
    assert_eq!(told["ratings"][0]["before"], 1337.69);
    let counts = |item: &Value| (item["wins"].clone(), item["losses"].clone());
    let page = leaders(&server, "tictactoe", "");
    assert!((0..2).all(|place| counts(&page["items"][place]) == (json!(1), json!(1))), "{page}");
}

#[test]
fn private_matches_and_rooms_are_not_rated() {
    let server = Server::start();
    let users = [server.guest(), server.guest()];
    let (id, ended) = won_by_first(&server, [&users[0], &users[1]], "private");
    assert!(ended.iter().all(|told| told["ratings"].is_null()), "{ended:?}");
    assert_eq!(told_later(&server, &users[0], &id), Value::Null);
    let room = server.seated(&json!({"game": "relay"}), &[&users[0], &users[1]]);
    for user in &users {
        assert_eq!(server.delete(user, &format!("/v1/matches/{room}/players/me")).status, 204);
    }
    let found = server.get(&users[0], &format!("/v1/matches/{room}")).expect(200);
    assert_eq!((&found["state"], &found["ratings"]), (&json!("ended"), &Value::Null));
    // One that nobody has come to.
    let open = server.create(&users[0], &json!({"game": "pairs"}));
    let id = open["id"].as_str().unwrap();
    assert_eq!(server.delete(&users[0], &format!("/v1/matches/{id}/players/me")).status, 204);
    for game in ["tictactoe", "relay", "pairs"] {
        assert_eq!(leaders(&server, game, "")["items"], json!([]), "{game}");
    }
}

#[test]
fn who_resigns_loses_and_who_never_came_does_not() {
    let server = Server::with(&[("GRACE_SECONDS", "1")]);
    let [a, b, c] = [(); 3].map(|()| server.guest());
    let ratings = resigned(&server, [&a, &b], &json!({"game": "tictactoe"}));
    assert_eq!((&ratings[0]["after"], &ratings[1]["after"]), (&json!(1662.31), &json!(1337.69)));
    // Of several, who is left goes on; all others have drawn with each other.
    let body = json!({"game": "pairs", "options": {"players": 3}});
    let id = server.seated(&body, &[&a, &b, &c]);
    let mut socket = server.play(&c, &id);
    for user in [&a, &b] {
        assert_eq!(server.delete(user, &format!("/v1/matches/{id}/players/me")).status, 204);
    }
    let ratings = &socket.expect("ended")["ratings"];
    assert_eq!(ratings.as_array().unwrap().len(), 3);
    assert_eq!(ratings[0]["after"], ratings[1]["after"]);
    assert!(ratings[2]["after"].as_f64() > Some(1662.31), "{ratings}");
    // One who has moved and does not come back loses; one who never moved was not there.
    for moves in [2u8, 1] {
        let id = server.seated(&json!({"game": "tictactoe"}), &[&a, &c]);
        let mut sockets = [server.play(&a, &id), server.play(&c, &id)];
        for turn in 0..moves {
            sockets[usize::from(turn)].accepted(1, &json!({ "place": turn }));
        }
        let [mut stays, goes]: [Socket; 2] = sockets;
        drop(goes);
        let ended = stays.expect("ended");
        assert_eq!(ended["outcome"]["reason"], "timeout");
        assert_eq!(ended["ratings"].is_array(), moves == 2, "{ended}");
    }
}

#[test]
fn a_leaderboard_is_read_by_page_and_around_a_player() {
    let server = Server::start();
    let users: Vec<User> = (0..7).map(|_| server.guest()).collect();
    // The later ones have won more: each beats all before.
    for (place, winner) in users.iter().enumerate() {
        for loser in &users[..place] {
            resigned(&server, [winner, loser], &json!({"game": "tictactoe"}));
        }
    }
    let all = leaders(&server, "tictactoe", "");
    let order = ranks(&all);
    assert_eq!(order.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((order[0].1, all["next_cursor"].is_null()), (users[6].id.as_str(), true));
    // Page after page.
    let first = leaders(&server, "tictactoe", "limit=3");
    assert_eq!(ranks(&first), order[..3]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = leaders(&server, "tictactoe", &format!("limit=3&cursor={cursor}"));
    assert_eq!(ranks(&second), order[3..6]);
    let cursor = second["next_cursor"].as_str().unwrap();
    let third = leaders(&server, "tictactoe", &format!("limit=3&cursor={cursor}"));
    assert_eq!((ranks(&third).as_slice(), third["next_cursor"].is_null()), (&order[6..], true));
    // Around a player, who is in the middle where there are enough.
    let around = leaders(&server, "tictactoe", &format!("around={}&limit=3", order[3].1));
    assert_eq!(ranks(&around), order[2..5]);
    let cursor = around["next_cursor"].as_str().unwrap();
    let below = leaders(&server, "tictactoe", &format!("cursor={cursor}"));
    assert_eq!(ranks(&below), order[5..]);
    let top = leaders(&server, "tictactoe", &format!("around={}&limit=5", order[0].1));
    assert_eq!(ranks(&top), order[..5]);
    let last = users.iter().find(|user| user.id == order[6].1).unwrap();
    let own = server.get(last, "/v1/leaderboards/tictactoe?around=me&limit=5").expect(200);
    assert_eq!((ranks(&own).as_slice(), own["next_cursor"].is_null()), (&order[4..], true));
    // Who deletes the account is there no more, and the others move up.
    assert_eq!(server.delete(last, "/v1/users/me").status, 204);
    assert_eq!(ranks(&leaders(&server, "tictactoe", "")), order[..6]);
}

#[test]
fn who_asks_for_no_leaderboard_is_told_so() {
    let server = shared();
    let user = server.guest();
    let ask = |path: &str| server.call("GET", &format!("/v1/leaderboards/{path}")).send();
    ask("chess-on-mars").problem(404);
    ask("tictactoe?around=me").problem(401);
    for unrated in [user.id.as_str(), "00000000-0000-7000-8000-000000000000"] {
        ask(&format!("tictactoe?around={unrated}")).problem(404);
    }
    server.get(&user, "/v1/leaderboards/tictactoe?around=me").problem(404);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=", "cursor"),
        ("cursor=1.x.y", "cursor"),
        ("around=you", "around"),
    ] {
        assert_eq!(ask(&format!("tictactoe?{query}")).invalid_fields(), [field], "{query}");
    }
    let cursor = format!("1.3ff0000000000000.{}", user.id);
    let both = ask(&format!("tictactoe?cursor={cursor}&around={}", user.id));
    assert_eq!(both.invalid_fields(), ["around"]);
    assert_eq!(
        server.call("POST", "/v1/leaderboards/tictactoe").send().problem(405)["status"],
        405
    );
}

/// The answer to the end was lost with the node, or was not: ratings have moved once.
#[test]
fn a_crash_at_the_end_of_a_match_moves_ratings_once_or_not_yet() {
    let mut server = Server::start();
    for _ in 0..5 {
        let users = [server.guest(), server.guest()];
        let id = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
        let mut sockets = [0, 1].map(|seat| server.play(&users[seat], &id));
        for (turn, cell) in MOVES[..4].iter().enumerate() {
            sockets[turn % 2].accepted(turn as u64 + 1, &json!({ "place": cell }));
        }
        sockets[0].command(5, &json!({ "place": MOVES[4] }));
        server.kill9();
        server.restart();
        let mut socket = until("the match is there", || {
            Socket::open(server.public, &users[0], &format!("/v1/matches/{id}/socket"), None).ok()
        });
        assert_eq!(socket.message()["type"], "welcome");
        assert_eq!(socket.accepted(5, &json!({ "place": MOVES[4] })), 9);
        let around = leaders(&server, "tictactoe", &format!("around={}&limit=1", users[0].id));
        assert_eq!(around["items"][0]["wins"], 1, "{around}");
        assert_eq!(told_later(&server, &users[1], &id)[1]["after"], 1337.69);
    }
}
