//! Log lines: whose they are, how many they are, and what is never in one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{Answer, Socket, User, call, upgrade};
use crate::harness::{Server, command_in, signing_key};
use crate::postgres;
use crate::tls::{Certificate, Tunnel};

/// What a server has written to stderr: all of it is JSON.
fn lines(server: &Server) -> Vec<Value> {
    let parsed = |line: &String| {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            let there =
                value[field].is_string() || (field == "message" && value["path"].is_string());
            assert!(there, "no {field} in {line}");
        }
        value
    };
    server.stderr().iter().map(parsed).collect()
}

/// The lines of a request, once it is answered.
fn lines_of(server: &Server, request: &str) -> Vec<Value> {
    server.logged(|line| line.contains(request) && line.contains("\"access\""));
    let mut lines = lines(server);
    lines.retain(|line| line["request_id"] == request);
    lines
}

#[test]
fn each_line_of_a_request_has_its_id_and_its_match() {
    let golf = r#"[{"name": "golf", "title": "Golf", "description": "Nine holes."}]"#;
    let mut server = Server::with(&[("RELAY_GAMES", golf)]);
    let user = server.guest();
    let id = server.seated(&json!({"game": "golf"}), &[&user]);
    drop(server.play(&user, &id));
    server.terminate();
    assert!(server.wait().success());
    server.set("RELAY_GAMES", "[]");
    server.set("LOG", "trace");
    server.restart();
    // Its game is gone: that is a line of its own.
    let path = format!("/v1/matches/{id}/players");
    let join = server.call("POST", &path).token(&user.token).header("X-Request-Id", "of-golf");
    join.send().problem(503);
    let lines = lines_of(&server, "of-golf");
    let of_golf = |line: &Value| line["match"].as_str() == Some(&id);
    assert!(lines.len() == 2 && lines.iter().all(of_golf), "{lines:?}");
    assert_eq!(lines[0]["message"], "a match can't be played here");
    assert_eq!((&lines[1]["target"], &lines[1]["status"]), (&json!("access"), &json!(503)));

    // A match that is made, one that is found, and the socket's own line.
    let made =
        server.call("POST", "/v1/matches").token(&user.token).json(&json!({"game": "relay"}));
    let made = made.header("X-Request-Id", "makes").send().expect(201);
    assert_eq!(lines_of(&server, "makes")[0]["match"], made["id"]);
    let play = upgrade(server.public, "/v1/play/relay/socket").token(&user.token);
    let mut socket = play.header("X-Request-Id", "plays").socket().unwrap().unwrap();
    let welcome = socket.expect("welcome");
    assert_eq!(lines_of(&server, "plays")[0]["match"], welcome["match"]);
    drop(socket);
    let ended = server.logged(|line| line.contains("a socket ended"));
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!((&ended["match"], &ended["seat"]), (&welcome["match"], &json!(0)));
    // What is about no match says none.
    server.call("GET", "/v1/games").header("X-Request-Id", "of-none").send().expect(200);
    assert!(lines_of(&server, "of-none")[0]["match"].is_null());
}

#[test]
fn a_request_keeps_its_id_on_its_way_through_nodes() {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str())];
    let nodes = [Server::with(&settings), Server::with(&settings)];
    let user = nodes[0].guest();
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&user]);
    let path = format!("/v1/matches/{id}/players");
    let answer = nodes[1].post(&user, &path, &json!({}));
    answer.expect(200);
    let request = answer.header("x-request-id").unwrap();
    for node in &nodes {
        let lines = lines_of(node, request);
        assert!(lines.len() == 1 && lines[0]["match"].as_str() == Some(&id), "{lines:?}");
    }
}

#[test]
fn people_get_text_with_the_same_ids() {
    let server = Server::with(&[("LOG_FORMAT", "json")]);
    let user = server.guest();
    let id = server.seated(&json!({"game": "relay"}), &[&user]);
    let data = tempfile::tempdir().unwrap();
    let mut text = command_in(&data)
        .env("GAMESERVER_JWT_PRIVATE_KEY", signing_key())
        .env("GAMESERVER_LOG_FORMAT", "text")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(text.stderr.take().unwrap());
    let mut line = String::new();
    let mut next = || {
        line.clear();
        std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
        line.clone()
    };
    let ready = next();
    let address = ready.split("public=").nth(1).unwrap().split(' ').next().unwrap();
    let path = format!("/v1/matches/{id}");
    call(address.parse().unwrap(), "GET", &path).header("X-Request-Id", "in-text").send();
    let line = next();
    assert!(line.contains("request{request_id=\"in-text\"}: ") && line.contains(&path), "{line}");
    text.kill().unwrap();
    text.wait().unwrap();
}

#[test]
fn the_level_is_read_again_on_a_signal() {
    let server = Server::start();
    let settings = server.data.path().join(".env");
    // A page's files are logged at `debug`, all other requests at `info`.
    let ask = |request: &str, path: &str| {
        call(server.public, "GET", path).header("X-Request-Id", request).send();
    };
    let mut reloads = 0;
    let mut set = |level: &str| {
        std::fs::write(&settings, format!("GAMESERVER_LOG={level}\n")).unwrap();
        server.signal(Signal::HUP);
        reloads += 1;
        crate::harness::until("settings are read again", || {
            let read =
                |line: &&Value| line["message"].as_str().unwrap_or("").contains("read again");
            (lines(&server).iter().filter(read).count() == reloads).then_some(())
        });
    };
    ask("before", "/assets/none");
    set("debug");
    ask("meanwhile", "/assets/none");
    set("info");
    ask("afterwards", "/assets/none");
    ask("the-last", "/v1/games");
    lines_of(&server, "the-last");
    let seen: BTreeSet<String> = lines(&server)
        .iter()
        .filter_map(|line| Some(line["request_id"].as_str()?.to_owned()))
        .collect();
    assert_eq!(seen, ["meanwhile", "the-last"].map(str::to_owned).into());

    std::fs::write(&settings, "GAMESERVER_LOG=loud\n").unwrap();
    server.signal(Signal::HUP);
    server.logged(|line| line.contains("settings stay as they are") && line.contains("loud"));
}

/// What must never be told, and all that was said.
#[derive(Default)]
struct Watch {
    secrets: Mutex<BTreeSet<String>>,
    said: Mutex<Vec<String>>,
}

impl Watch {
    fn secret(&self, secret: &str) -> String {
        assert!(secret.len() >= 6, "{secret:?} may be found by accident");
        self.secrets.lock().unwrap().insert(secret.to_owned());
        secret.to_owned()
    }

    /// Of each line: a part of a key is as bad as all of it.
    fn pem(&self, pem: &str) {
        pem.lines().filter(|line| !line.contains("-----")).for_each(|line| drop(self.secret(line)));
    }

    fn signed_in(&self, answer: &Answer) -> User {
        let user = User::of(answer);
        self.secret(&user.token);
        self.secret(user.token.rsplit('.').next().unwrap());
        self.secret(&user.refresh);
        user
    }

    fn said(&self, text: impl Into<String>) {
        self.said.lock().unwrap().push(text.into());
    }

    /// A refusal: its body is looked at, too.
    #[track_caller]
    fn refused(&self, answer: &Answer, status: u16) {
        answer.problem(status);
        self.said(answer.text());
        self.said(format!("{:?}", answer.headers));
    }

    #[track_caller]
    fn check(&self, log: &[String]) {
        let said = self.said.lock().unwrap();
        for secret in self.secrets.lock().unwrap().iter() {
            for text in said.iter().chain(log) {
                assert!(!text.contains(secret.as_str()), "{secret} is told: {text}");
            }
        }
    }
}

/// Everything with an account that can be done and done wrongly.
fn accounts(server: &Server, watch: &Watch) -> User {
    let (password, wrong) = (watch.secret("correct-horse-battery"), watch.secret("wrong-donkey"));
    let credentials = |password: &str| json!({"username": "watched", "password": password});
    server.call("POST", "/v1/users").json(&credentials(&password)).send().expect(201);
    watch.refused(&server.call("POST", "/v1/users").json(&credentials(&password)).send(), 409);
    watch.refused(&server.call("POST", "/v1/sessions").json(&credentials(&wrong)).send(), 401);
    let short = watch.secret("sh0rt!");
    let odd = [
        (422, json!({"username": "watched2", "password": short})),
        (422, json!({"username": "a b", "password": password, "again": password})),
        (422, json!({"username": {"password": password}, "password": [password]})),
    ];
    for (status, body) in odd {
        watch.refused(&server.call("POST", "/v1/users").json(&body).send(), status);
    }
    let broken = format!("{{\"username\": \"watched\", \"password\": \"{password}\" oops");
    let body =
        |text: &str| server.call("POST", "/v1/sessions").body("application/json", text).send();
    watch.refused(&body(&broken), 400);
    watch.refused(&body(&format!("\"{password}\"")), 401);
    let plain = server.call("POST", "/v1/sessions").body("text/plain", password.as_bytes()).send();
    watch.refused(&plain, 415);

    let session = server.call("POST", "/v1/sessions").json(&credentials(&password)).send();
    let first = watch.signed_in(&session);
    let refresh = |token: &str| {
        let body = json!({ "refresh_token": token });
        server.call("POST", "/v1/sessions/refresh").json(&body).send()
    };
    let second = watch.signed_in(&refresh(&first.refresh));
    watch.refused(&refresh(&watch.secret("no-refresh-token-at-all")), 401);
    watch.refused(&refresh(&first.refresh), 401);
    watch.refused(&server.get(&second, "/v1/users/me"), 401);

    let user =
        watch.signed_in(&server.call("POST", "/v1/sessions").json(&credentials(&password)).send());
    let new = json!({"username": "watched3", "password": watch.secret("another-good-one")});
    let change =
        |user: &User| server.call("PATCH", "/v1/users/me").token(&user.token).json(&new).send();
    watch.refused(&change(&user), 422);
    let guest = server.call("POST", "/v1/sessions/guest").json(&json!({})).send();
    change(&watch.signed_in(&guest)).expect(200);
    let forged = watch.secret(&format!("{}x", user.token));
    for header in [
        format!("Bearer {forged}"),
        format!("Bearer {}", watch.secret("no.token.at-all")),
        format!("Basic {}", watch.secret("d2F0Y2hlZDpjb3JyZWN0LWhvcnNl")),
        watch.secret("neither-scheme-nor-token"),
    ] {
        let answer = server.call("GET", "/v1/users/me").header("Authorization", &header).send();
        watch.refused(&answer, 401);
    }
    let query = format!("/v1/users/me?access_token={}", user.token);
    watch.refused(&server.call("GET", &query).send(), 401);
    user
}

/// Matches and sockets, by way of a node that does not play them.
fn matches(owner: &Server, other: &Server, user: &User, watch: &Watch) {
    let made = owner.create(user, &json!({"game": "tictactoe", "visibility": "private"}));
    let (id, code) = (made["id"].as_str().unwrap(), made["join_code"].as_str().unwrap());
    watch.secret(code);
    let players = format!("/v1/matches/{id}/players");
    let guest = watch.signed_in(&other.call("POST", "/v1/sessions/guest").json(&json!({})).send());
    let wrong = json!({"join_code": watch.secret("WRONGCODE9")});
    watch.refused(&other.post(&guest, &players, &wrong), 404);
    other.post(&guest, &players, &json!({"join_code": code})).expect(201);
    let path = format!("/v1/matches/{id}/socket");
    let ticket = other.post(&guest, "/v1/socket-tickets", &json!({})).expect(201);
    let ticket = watch.secret(ticket["ticket"].as_str().unwrap());
    let by_ticket = format!("{path}?ticket={ticket}");
    let mut second = upgrade(other.public, &by_ticket).socket().unwrap().unwrap();
    assert_eq!(second.expect("welcome")["seat"], 1);
    for used_up in [&by_ticket, &format!("{path}?after=0&ticket={}", watch.secret("no-ticket"))] {
        watch.said(upgrade(other.public, used_up).refused(401).to_string());
    }
    let mut first = Socket::open(owner.public, user, &path, None).unwrap();
    first.accepted(1, &json!({"place": 4}));
    second.accepted(1, &json!({"place": 0}));
    for text in [
        json!({"type": "auth", "token": guest.token}).to_string(),
        json!({"type": "command", "id": 2, "command": {"password": guest.refresh}}).to_string(),
        format!("{{\"token\": \"{}\"", guest.token),
    ] {
        second.text(&text);
        watch.said(second.expect("error").to_string());
    }
    // Signed out: its sockets are closed, and its tokens refused.
    assert_eq!(other.delete(&guest, "/v1/sessions/current").status, 204);
    assert_eq!(second.closed(), 1008);
    watch.refused(&other.get(&guest, &format!("/v1/matches/{id}")), 401);
}

#[test]
fn no_secret_is_ever_told() {
    let watch = Watch::default();
    let database = postgres::database();
    let url = database.url.replacen('@', &format!(":{}@", watch.secret("pg-hunter2")), 1);
    watch.pem(signing_key());
    let certificates = [Certificate::new("one"), Certificate::new("other")];
    let settings = [("DATABASE_URL", url.as_str()), ("LOG", "trace"), ("LEASE_SECONDS", "2")];
    let mut nodes = certificates.each_ref().map(|certificate| {
        watch.pem(&std::fs::read_to_string(certificate.key()).unwrap());
        certificate.server(&settings)
    });
    let tunnels = nodes.each_ref().map(|node| Tunnel::to(node.public, &["-tls1_3"]));
    for (node, tunnel) in nodes.iter_mut().zip(&tunnels) {
        node.public = tunnel.address;
    }
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    for row in client.query("SELECT value FROM secrets", &[]).unwrap() {
        // With it nodes sign what they say to each other.
        watch.secret(row.get(0));
    }
    let user = accounts(&nodes[1], &watch);
    matches(&nodes[0], &nodes[1], &user, &watch);

    // A store that fails is what says most of itself.
    client.batch_execute("ALTER TABLE users RENAME TO lost").unwrap();
    let sign_in = json!({"username": "watched3", "password": "another-good-one"});
    let answer = nodes[1].call("POST", "/v1/sessions").json(&sign_in).send();
    assert!(answer.status >= 500, "{}", answer.text());
    watch.said(answer.text());
    client.batch_execute("ALTER TABLE lost RENAME TO users").unwrap();
    std::fs::write(certificates[0].key(), watch.secret("no key, but secret")).unwrap();
    nodes[0].signal(Signal::HUP);
    nodes[0].logged(|line| line.contains("the certificate stays as it is"));
    for page in ["/", "/metrics", "/debug/pprof/tasks?debug=1", "/debug/pprof/cmdline"] {
        watch.said(call(nodes[0].admin, "GET", page).send().text());
    }
    for node in &mut nodes {
        node.terminate();
        assert!(node.wait().success());
        node.logged(|line| line.contains("\"drained\""));
        assert!(lines(node).len() > 3, "this test finds nothing any more");
        watch.check(&node.stderr());
    }
    let asked = lines(&nodes[1]).iter().filter(|line| line["path"].is_string()).count();
    assert!(asked > 20, "{asked} lines of requests");
}

#[test]
fn a_start_that_fails_tells_no_secret() {
    let nowhere = "127.0.0.1:1";
    for (name, value) in [
        ("DATABASE_URL", format!("postgres://u:hunter2@{nowhere}/db")),
        ("DATABASE_URL", format!("postgres://u:hunter2@{nowhere}/db?sslmode=hunter2")),
        ("DATABASE_URL", format!("postgres://u:hunter2@{nowhere}/db?connect_timeout=hunter2")),
        ("DATABASE_URL", "postgres://u:hunter2@/db".into()),
        ("DATABASE_URL", "postgres://u:hunter2@host:port/db".into()),
        ("DATABASE_URL", "postgres://u:hunter2@[::1/db".into()),
        ("DATABASE_URL", "mysql://u:hunter2@host/db".into()),
        ("DATABASE_URL", "host=db password=hunter2".into()),
        ("JWT_PRIVATE_KEY", "hunter2".into()),
        (
            "JWT_PRIVATE_KEY",
            "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----".into(),
        ),
        ("JWT_KEY", "hunter2".into()),
        ("PASSWORD", "hunter2".into()),
    ] {
        for by_file in [false, true] {
            let data = tempfile::tempdir().unwrap();
            let mut command = command_in(&data);
            let name = format!("GAMESERVER_{name}");
            if by_file {
                let file = data.path().join("secret");
                std::fs::write(&file, &value).unwrap();
                command.env(format!("{name}_FILE"), file);
            } else {
                command.env(&name, &value);
            }
            command.env("GAMESERVER_LOG", "trace").env("GAMESERVER_DATABASE_WAIT_SECONDS", "1");
            tells_nothing(&command.output().unwrap(), &value);
        }
    }
    // Addresses that are given to commands.
    let file = format!("sqlite:{}", Path::new("nowhere").join("x.db").display());
    let bad = format!("postgres://u:hunter2@{nowhere}/db");
    for arguments in
        [["copy", "--from", &bad, "--to", &file], ["copy", "--from", &file, "--to", &bad]]
    {
        let data = tempfile::tempdir().unwrap();
        tells_nothing(&command_in(&data).args(arguments).output().unwrap(), &bad);
    }
}

fn tells_nothing(output: &std::process::Output, given: &str) {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success() && !said.is_empty(), "{given}: {said}");
    assert!(!said.contains("hunter2"), "{given}: {said}");
}
