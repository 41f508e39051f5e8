//! Accounts and sessions: registering, signing in and out, guests, refresh tokens, deletion.

use serde_json::{Value, json};

use crate::client::{Answer, User, upgrade};
use crate::harness::{Server, shared, until};

fn register(server: &Server, username: &str) -> Answer {
    let body = json!({"username": username, "password": "correct horse"});
    server.call("POST", "/v1/users").json(&body).send()
}

fn sign_in(server: &Server, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password});
    server.call("POST", "/v1/sessions").json(&body).send()
}

fn refresh(server: &Server, token: &str) -> Answer {
    let body = json!({ "refresh_token": token });
    server.call("POST", "/v1/sessions/refresh").json(&body).send()
}

#[test]
fn who_registers_can_sign_in() {
    let server = shared();
    let body = json!({"username": "Ada.L", "password": "correct horse", "display_name": "Ada"});
    let answer = server.call("POST", "/v1/users").json(&body).send();
    let user = answer.expect(201);
    let id = user["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(&*format!("/v1/users/{id}")));
    assert_eq!(user["username"], "Ada.L");
    assert_eq!(user["display_name"], "Ada");
    assert_eq!(user["guest"], false);
    assert_rfc3339_utc(&user["created_at"]);

    let answer = sign_in(&server, "Ada.L", "correct horse");
    let session = answer.expect(201);
    assert_eq!(session["token_type"], "Bearer");
    assert_eq!(session["expires_in"], 900);
    assert_eq!(session["user"], user);
    let ada = User::of(&answer);
    assert_eq!(server.get(&ada, "/v1/users/me").expect(200), user);
}

#[track_caller]
fn assert_rfc3339_utc(time: &Value) {
    let time = time.as_str().unwrap();
    assert!(time.starts_with("20") && time.contains('T') && time.ends_with('Z'), "{time}");
}

#[test]
fn names_that_differ_in_case_alone_are_one_name() {
    let server = shared();
    register(&server, "Twin").expect(201);
    for name in ["Twin", "twin", "TWIN"] {
        let problem = register(&server, name).problem(409);
        assert_eq!(problem["errors"][0]["field"], "username");
    }
}

#[test]
fn a_wrong_sign_in_says_the_same_whatever_is_wrong() {
    let server = shared();
    register(&server, "mallory").expect(201);
    let long = "x".repeat(10_000);
    let mut problems = Vec::new();
    for (name, password) in [
        ("mallory", "wrong horse"),
        ("mallory", ""),
        ("mallory", long.as_str()),
        ("mallory", "correct horse\0"),
        ("nobody-of-that-name", "correct horse"),
        ("", ""),
        (long.as_str(), "correct horse"),
        ("mal lory\0", "correct horse"),
    ] {
        let problem = sign_in(&server, name, password).problem(401);
        problems.push((problem["type"].clone(), problem["detail"].clone()));
    }
    assert!(problems.iter().all(|problem| *problem == problems[0]), "{problems:?}");
}

#[test]
fn a_guest_plays_at_once_under_a_name_of_1_to_32_characters() {
    let server = shared();
    let guest = |body: &Value| server.call("POST", "/v1/sessions/guest").json(body).send();
    let user = guest(&json!({})).expect(201)["user"].clone();
    assert_eq!(user["guest"], true);
    assert_eq!(user["username"], Value::Null);
    assert!(!user["display_name"].as_str().unwrap().is_empty());
    for name in ["é", &"ö".repeat(32)] {
        let session = guest(&json!({ "display_name": name })).expect(201);
        assert_eq!(session["user"]["display_name"], name);
    }
    for name in ["", &"x".repeat(33)] {
        let fields = guest(&json!({ "display_name": name })).invalid_fields();
        assert_eq!(fields, ["display_name"]);
    }
}

#[test]
fn a_guest_becomes_a_user_and_stays_the_same_person() {
    let server = shared();
    let guest = server.guest();
    let patch =
        |body: &Value| server.call("PATCH", "/v1/users/me").token(&guest.token).json(body).send();
    assert_eq!(patch(&json!({"display_name": "Grace"})).expect(200)["display_name"], "Grace");
    patch(&json!({"username": "grace"})).problem(422);
    let user = patch(&json!({"username": "grace", "password": "correct horse"})).expect(200);
    assert_eq!((&user["id"], &user["guest"]), (&json!(guest.id), &json!(false)));
    let signed_in = User::of(&sign_in(&server, "grace", "correct horse"));
    assert_eq!(signed_in.id, guest.id);

    let other = server.guest();
    let body = json!({"username": "GRACE", "password": "correct horse"});
    server.call("PATCH", "/v1/users/me").token(&other.token).json(&body).send().problem(409);
}

#[test]
fn others_see_a_profile_and_nothing_private() {
    let server = shared();
    register(&server, "private-person").expect(201);
    let person = User::of(&sign_in(&server, "private-person", "correct horse"));
    let path = format!("/v1/users/{}", person.id);
    let profile = server.get(&server.guest(), &path).expect(200);
    assert_eq!(profile["id"], person.id.as_str());
    assert!(!profile.to_string().contains("password"), "{profile}");
    server.call("GET", &path).send().problem(401);
    for unknown in ["/v1/users/nobody", "/v1/users/00000000-0000-7000-8000-000000000000"] {
        server.get(&person, unknown).problem(404);
    }
}

#[test]
fn a_refresh_token_works_once() {
    let server = shared();
    let first = server.guest();
    let second = User::of(&refresh(&server, &first.refresh));
    assert_eq!(second.id, first.id);
    assert_ne!(second.refresh, first.refresh);
    server.get(&second, "/v1/users/me").expect(200);
    let third = User::of(&refresh(&server, &second.refresh));

    // A second use: somebody else has it too, so the session ends for both.
    refresh(&server, &first.refresh).problem(401);
    refresh(&server, &third.refresh).problem(401);
    for user in [&first, &second, &third] {
        until("the access token is refused", || {
            (server.get(user, "/v1/users/me").status == 401).then_some(())
        });
    }
    for token in ["", "x", &third.token] {
        refresh(&server, token).problem(401);
    }
}

#[test]
fn signing_out_ends_tokens_and_sockets() {
    let server = shared();
    let user = server.guest();
    let id = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let mut socket = server.play(&user, &id);
    let other_session = server.guest();
    assert_eq!(server.delete(&user, "/v1/sessions/current").status, 204);
    assert_eq!(socket.closed(), 1008);
    server.get(&user, "/v1/users/me").problem(401);
    refresh(&server, &user.refresh).problem(401);
    upgrade(server.public, &format!("/v1/matches/{id}/socket")).token(&user.token).refused(401);
    server.get(&other_session, "/v1/users/me").expect(200);
}

#[test]
fn a_session_that_was_ended_stays_so_after_a_crash() {
    let mut server = Server::start();
    let user = server.guest();
    assert_eq!(server.delete(&user, "/v1/sessions/current").status, 204);
    server.kill9();
    server.restart();
    server.get(&user, "/v1/users/me").problem(401);
    refresh(&server, &user.refresh).problem(401);
}

#[test]
fn sessions_outlive_a_crash() {
    let mut server = Server::start();
    let user = server.guest();
    server.kill9();
    server.restart();
    assert_eq!(server.get(&user, "/v1/users/me").expect(200)["id"], user.id.as_str());
    assert_eq!(User::of(&refresh(&server, &user.refresh)).id, user.id);
}

#[test]
fn who_is_deleted_is_nobody_in_past_matches() {
    let server = shared();
    let (id, [gone, stays], [mut first, mut second]) = server.tictactoe();
    first.accepted(1, &json!({"place": 0}));
    second.event();
    assert_eq!(server.delete(&stays, &format!("/v1/matches/{id}/players/me")).status, 204);

    assert_eq!(server.delete(&gone, "/v1/users/me").status, 204);
    assert_eq!(first.closed(), 1008);
    server.get(&gone, "/v1/users/me").problem(401);
    refresh(&server, &gone.refresh).problem(401);
    server.get(&stays, &format!("/v1/users/{}", gone.id)).problem(404);

    let nobody =
        |player: &Value| player["user"].is_null() && player["display_name"] == "Deleted player";
    let seen = server.get(&stays, &format!("/v1/matches/{id}")).expect(200);
    assert!(nobody(&seen["players"][0]), "{seen}");
    let events = server.events(&stays, &id);
    assert!(nobody(&events[0]["event"]["joined"]), "{events:?}");
    assert_eq!(events[3]["event"], json!({"placed": 0}));
    assert!(!format!("{seen}{events:?}").contains(&gone.id));
}

#[test]
fn an_ill_formed_sign_in_is_a_wrong_one() {
    let server = shared();
    for body in [
        json!([]),
        json!(null),
        json!({}),
        json!({"username": "someone"}),
        json!({"username": 5, "password": "correct horse"}),
        json!({"username": "someone", "password": null}),
    ] {
        server.call("POST", "/v1/sessions").json(&body).send().problem(401);
    }
}

#[test]
fn a_sign_out_is_done_whole_or_not_at_all() {
    let server = shared();
    for _ in 0..20 {
        let user = server.guest();
        // The client hangs up, so that the server may or may not have begun.
        server.call("DELETE", "/v1/sessions/current").token(&user.token).send_and_hang_up();
        if refresh(&server, &user.refresh).status == 401 {
            until("the access token is refused too", || {
                (server.get(&user, "/v1/users/me").status == 401).then_some(())
            });
        }
    }
}

#[test]
fn who_is_deleted_takes_nothing_from_the_others() {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let body = json!({"game": "relay", "options": {"players": 2}});
    let id = server.seated(&body, &[&users[0], &users[1]]);
    let mut first = server.play(&users[0], &id);
    let seq = first.accepted(7, &json!({"send": 1}));
    assert_eq!(server.delete(&users[1], "/v1/users/me").status, 204);
    assert_eq!(first.expect("event")["event"]["left"]["seat"], 1);
    assert_eq!(first.accepted(7, &json!({"send": 1})), seq, "applied once");
    let path = format!("/v1/matches/{id}/socket?after=0");
    let (mut watcher, _) = server.connect(&server.guest(), &path);
    let told = format!("{:?}", watcher.pending());
    assert!(!told.contains(&users[1].id), "{told}");
}
