//! Rate limits over HTTP: 429 with `Retry-After`, counted by all nodes together.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::client::{Answer, call, upgrade};
use crate::harness::Server;
use crate::postgres;

const PASSWORD: &str = "correct horse";

/// What is seen while no new minute begins: counts begin anew with each.
fn in_one_minute<T>(act: impl Fn() -> T) -> T {
    let minute = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
    loop {
        let before = minute();
        let seen = act();
        if minute() == before {
            return seen;
        }
    }
}

fn register(server: &Server, username: &str) -> Answer {
    let body = json!({"username": username, "password": PASSWORD});
    server.call("POST", "/v1/users").json(&body).send()
}

fn sign_in(server: &Server, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password});
    server.call("POST", "/v1/sessions").json(&body).send()
}

/// It is a proper refusal, and says when to come back.
fn assert_limited(answer: &Answer) {
    let problem = answer.problem(429);
    assert!(problem["type"].as_str().unwrap().ends_with("rate-limited"), "{problem}");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

#[test]
fn passwords_can_be_guessed_a_few_times_a_minute() {
    let server = Server::with(&[("FAILED_SIGN_INS_PER_MINUTE", "2")]);
    for name in ["ada", "bob"] {
        register(&server, name).expect(201);
    }
    // Right ones are not counted.
    for _ in 0..4 {
        sign_in(&server, "bob", PASSWORD).expect(201);
    }
    let seen = in_one_minute(|| {
        [
            sign_in(&server, "ada", "wrong password"),
            sign_in(&server, "ADA", "wrong password"),
            sign_in(&server, "ada", PASSWORD),
            sign_in(&server, "bob", PASSWORD),
            sign_in(&server, "nobody", PASSWORD),
        ]
    });
    assert_eq!(statuses(&seen), [401, 401, 429, 201, 401]);
    assert_limited(&seen[2]);
}

#[test]
fn nodes_count_together() {
    let database = postgres::database();
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("FAILED_SIGN_INS_PER_MINUTE", "2"),
        ("MATCHES_PER_MINUTE", "2"),
        ("ACCOUNTS_PER_MINUTE", "2"),
    ];
    let nodes = [Server::with(&settings), Server::with(&settings)];
    let turn = |number: usize| &nodes[number % 2];
    // Names of their own for each try.
    let tries = std::cell::Cell::new(0);
    let accounts = in_one_minute(|| {
        tries.set(tries.get() + 1);
        let name = |number: usize| format!("user-{}-{number}", tries.get());
        [0, 1, 2].map(|number| register(turn(number), &name(number)))
    });
    assert_eq!(statuses(&accounts), [201, 201, 429]);
    assert_limited(&accounts[2]);
    let names = [0, 1].map(|number| format!("user-{}-{number}", tries.get()));
    let guesses =
        in_one_minute(|| [0, 1, 2].map(|n| sign_in(turn(n), &names[0], "wrong password")));
    assert_eq!(statuses(&guesses), [401, 401, 429]);
    let user = crate::client::User::of(&sign_in(&nodes[0], &names[1], PASSWORD));
    let body = json!({"game": "pairs"});
    let matches = in_one_minute(|| [0, 1, 2].map(|n| turn(n).post(&user, "/v1/matches", &body)));
    assert_eq!(statuses(&matches), [201, 201, 429]);
}

#[test]
fn matches_tickets_and_quick_plays_of_a_user_are_counted_together() {
    let server = Server::with(&[("MATCHES_PER_MINUTE", "3")]);
    let (user, other) = (server.guest(), server.guest());
    let body = json!({"game": "tictactoe"});
    let seen = in_one_minute(|| {
        let path = "/v1/play/tictactoe/socket";
        drop(upgrade(server.public, path).token(&user.token).socket().unwrap());
        [
            server.post(&user, "/v1/matches", &body),
            server.post(&user, "/v1/tickets", &json!({"game": "pairs"})),
            server.post(&user, "/v1/matches", &body),
            server.post(&user, "/v1/tickets", &json!({"game": "pairs"})),
            server.post(&other, "/v1/matches", &body),
        ]
    });
    let seen_statuses = statuses(&seen);
    assert!([200, 201].contains(&seen_statuses[1]), "{seen_statuses:?}");
    assert_eq!((seen_statuses[0], &seen_statuses[2..]), (201, &[429, 429, 201][..]));
    assert_limited(&seen[2]);
    let refused = in_one_minute(|| {
        for _ in 0..3 {
            server.post(&user, "/v1/matches", &body);
        }
        upgrade(server.public, "/v1/play/tictactoe/socket").token(&user.token).send().status
    });
    assert_eq!(refused, 429, "before the upgrade");
}

#[test]
fn accounts_of_an_address_are_counted_if_that_is_wanted() {
    let server = Server::with(&[("ACCOUNTS_PER_MINUTE", "2")]);
    let tries = std::cell::Cell::new(0);
    let seen = in_one_minute(|| {
        tries.set(tries.get() + 1);
        let guest = || server.call("POST", "/v1/sessions/guest").json(&json!({})).send();
        [guest(), register(&server, &format!("user-{}", tries.get())), guest()]
    });
    assert_eq!(statuses(&seen), [201, 201, 429]);
    assert_limited(&seen[2]);
    let figures = call(server.admin, "GET", "/metrics").send().text();
    let none = "gameserver_rate_limited_total{limit=\"accounts\"} 0\n";
    assert!(figures.contains(&none[..none.len() - 2]) && !figures.contains(none), "{figures}");
}
