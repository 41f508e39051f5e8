//! Games of a directory: they come, change and go while the server runs, and nothing that they do
//! harms another match.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::client::{Socket, User, word};
use crate::harness::{Server, command_in, field, on_postgres, until};
use crate::postgres;
use crate::wat::Module;

/// A module of the test's game; the title tells versions apart. A command `"loop"` never ends, and
/// `"trap"` fails when its event is applied.
fn module(title: &str) -> Vec<u8> {
    let mut module = Module::new().info("Count", title);
    let trap = module.text(r#"{"events":["trap"]}"#);
    let is = |letter: char| {
        let letter = u32::from(letter);
        format!("(i32.eq (i32.load8_u offset=1 (local.get $at)) (i32.const {letter}))")
    };
    let (is_loop, is_trap) = (is('l'), is('t'));
    let decide = format!(
        "(if {is_loop} (then (loop $forever (br $forever))))
         (if {is_trap} (then (return {trap})))"
    );
    module
        .imports(r#"(import "gameserver" "log" (func $log (param i32 i32)))"#)
        .more(r#"(data (i32.const 512) "one more")"#)
        .first("decide", &decide)
        .first(
            "apply",
            "(if (i32.gt_u (local.get $length) (i32.const 1)) (then unreachable))
             (call $log (i32.const 512) (i32.const 8))",
        )
        .bytes()
}

fn version(code: &[u8]) -> String {
    let hex = |text: String, byte: &u8| text + &format!("{byte:02x}");
    Sha256::digest(code).iter().fold(String::new(), hex)
}

/// Puts a file there at once, as whoever cares does.
fn put(dir: &TempDir, file: &str, code: &[u8]) {
    let new = dir.path().join("new");
    fs::write(&new, code).unwrap();
    fs::rename(new, dir.path().join(file)).unwrap();
}

fn directory(path: &Path) -> [(&str, &str); 2] {
    [("GAMES_DIR", path.to_str().unwrap()), ("LOG", "debug")]
}

/// A server with the test's game, and the directory that it is in.
fn with_counter() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    put(&dir, "counter.wasm", &module("Counting"));
    let server = Server::with(&directory(dir.path()));
    (dir, server)
}

fn game(server: &Server, name: &str) -> Option<Value> {
    let answer = server.call("GET", &format!("/v1/games/{name}")).send();
    (answer.status != 404).then(|| answer.expect(200))
}

/// Waits until matches of the game begin with this module.
fn offered(server: &Server, name: &str, code: &[u8]) {
    let version = version(code);
    until("the module is offered", || game(server, name).filter(|game| game["version"] == version));
}

fn counting(server: &Server) -> (String, [User; 2], [Socket; 2]) {
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "counter"}), &[&users[0], &users[1]]);
    let sockets = [0, 1].map(|seat| server.play(&users[seat], &id));
    (id, users, sockets)
}

/// What is seen of a match: a letter for how far it has counted.
fn seen(server: &Server, user: &User, id: &str) -> Value {
    server.connect(user, &format!("/v1/matches/{id}/socket")).1["view"].clone()
}

/// Sends a command that makes the rules fail, and sees its match end for both.
fn fails(server: &Server, command: &str) -> String {
    let (id, users, [mut first, mut second]) = counting(server);
    first.accepted(1, &json!(1));
    first.send(&json!({"type": "command", "id": 2, "command": command}));
    for socket in [&mut first, &mut second] {
        let ended = socket.expect("ended");
        let failed = json!({"winners": [], "draw": false, "reason": "failed"});
        assert_eq!((&ended["outcome"], &ended["ratings"]), (&failed, &Value::Null), "{ended}");
    }
    let told = server.logged(|line| field(line, "why").is_some() && line.contains(&id));
    let answer = server.get(&users[0], &format!("/v1/matches/{id}")).expect(200);
    assert_eq!(answer["state"], "ended");
    field(&told, "why").unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_plugin_is_a_game_like_any_other() {
    let (_dir, server) = with_counter();
    let info = game(&server, "counter").unwrap();
    let expected = json!({
        "name": "counter", "title": "Counting", "description": "Count to ten.", "min_players": 1,
        "max_players": 3, "mode": "turns", "tick_hz": null, "plugin": true,
        "version": version(&module("Counting")),
    });
    assert_eq!(info, expected);
    let listed = server.call("GET", "/v1/games").send().expect(200);
    assert_eq!(listed["items"].as_array().unwrap().last(), Some(&expected));

    let (id, users, [mut first, mut second]) = counting(&server);
    first.accepted(1, &json!(1));
    assert_eq!(second.event()["event"], json!(1));
    first.send(&json!({"type": "command", "id": 2, "command": {"no": "digit"}}));
    let refused = first.expect("error");
    assert_eq!(word(&refused), "bad-command");
    assert_eq!(refused["problem"]["detail"], "it takes 1");
    second.accepted(1, &json!(1));
    assert_eq!(seen(&server, &server.guest(), &id), "c");
    server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).expect(204);
    let ended = first.expect("ended");
    assert_eq!(ended["outcome"]["winners"], json!([0]));
    assert_eq!(ended["ratings"].as_array().unwrap().len(), 2, "it is rated: {ended}");
    let log = server.events(&users[1], &id);
    let own: Vec<_> = log.iter().map(|event| &event["event"]).filter(|e| e.is_number()).collect();
    assert_eq!(own, [&json!(1), &json!(1)]);
    let said = server.logged(|line| line.contains("one more"));
    assert!(said.contains(&id), "{said}");
}

#[test]
fn rules_that_fail_end_their_own_match_and_no_other() {
    let (_dir, server) = with_counter();
    let (id, users, [mut first, mut second]) = counting(&server);
    first.accepted(1, &json!(1));
    let why = fails(&server, "loop");
    assert!(why.starts_with("decide: it takes more than"), "{why}");
    let why = fails(&server, "trap");
    assert!(why.starts_with("apply: it gives up"), "{why}");
    second.accepted(1, &json!(1));
    assert_eq!(seen(&server, &users[0], &id), "c");
}

#[test]
fn a_match_keeps_the_module_that_it_began_with() {
    let (dir, mut server) = with_counter();
    let (id, users, [mut first, _second]) = counting(&server);
    first.accepted(1, &json!(1));

    let newer = module("Counting again");
    put(&dir, "counter.wasm", &newer);
    offered(&server, "counter", &newer);
    assert_eq!(first.accepted(2, &json!(1)), 5);
    let (newer_id, ..) = counting(&server);

    // From memory, from the store, and with no file at all.
    for gone in [false, true] {
        if gone {
            fs::remove_file(dir.path().join("counter.wasm")).unwrap();
            until("the game is gone", || game(&server, "counter").is_none().then_some(()));
            server.post(&users[0], "/v1/matches", &json!({"game": "counter"})).problem(422);
        }
        server.kill9();
        server.restart();
        assert_eq!(seen(&server, &users[0], &id), "c");
        assert_eq!(seen(&server, &users[0], &newer_id), "a");
    }
    let mut first = server.play(&users[0], &id);
    assert_eq!(first.accepted(3, &json!(1)), 6);
    server.delete(&users[1], &format!("/v1/matches/{id}/players/me")).expect(204);
    assert_eq!(first.expect("ended")["outcome"]["reason"], "completed");

    let mut replay = command_in(&server.data);
    let url = server.database_url();
    replay.envs(url.map(|url| ("GAMESERVER_DATABASE_URL", url)));
    let output = replay.args(["replay", &id, "--verify"]).output().unwrap();
    let (text, error) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    assert!(String::from_utf8(text).unwrap().ends_with("\n\"n\"\n"));
}

#[test]
fn what_is_no_game_is_refused_and_the_old_one_stays() {
    let (dir, server) = with_counter();
    let good = module("Counting");
    let why = |file: &str| {
        server.signal(Signal::HUP);
        let line = server.logged(|line| line.contains("is no game") && line.contains(file));
        field(&line, "why").unwrap().as_str().unwrap().to_owned()
    };
    put(&dir, "counter.wasm", b"\0asm, or not");
    assert!(!why("counter.wasm").is_empty());
    put(&dir, "pairs.wasm", &good);
    assert_eq!(why("pairs.wasm"), "the server has a game pairs of its own: rename the file");
    put(&dir, "My Game.wasm", &good);
    assert!(why("My Game.wasm").contains("1 to 32 of a-z, 0-9 and -"));
    let foreign = r#"(module (import "wasi_snapshot_preview1" "fd_write"
        (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1))"#;
    put(&dir, "foreign.wasm", &::wat::parse_str(foreign).unwrap());
    assert!(why("foreign.wasm").starts_with("it imports wasi_snapshot_preview1.fd_write"));
    put(&dir, "empty.wasm", &::wat::parse_str(r#"(module (memory (export "memory") 1))"#).unwrap());
    assert_eq!(why("empty.wasm"), "it doesn't export interface_version() -> i32");
    assert_eq!(game(&server, "counter").unwrap()["version"], version(&good));
    let (_, _, [mut first, _second]) = counting(&server);
    first.accepted(1, &json!(1));
    // Two versions of one game, and what was refused.
    let better = module("Better");
    put(&dir, "counter.wasm", &better);
    offered(&server, "counter", &better);
}

#[test]
fn a_directory_that_is_not_there_stops_the_start() {
    let data = tempfile::tempdir().unwrap();
    let url = on_postgres().then(postgres::database);
    let mut command = command_in(&data);
    command.envs(url.as_ref().map(|database| ("GAMESERVER_DATABASE_URL", &database.url)));
    let output = command.env("GAMESERVER_GAMES_DIR", "/nowhere/games").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let line = stderr.lines().last().unwrap();
    assert!(line.contains("GAMESERVER_GAMES_DIR: /nowhere/games: "), "{stderr}");
}

#[test]
fn a_node_without_the_file_goes_on_with_a_match() {
    let database = postgres::database();
    let dir = tempfile::tempdir().unwrap();
    put(&dir, "counter.wasm", &module("Counting"));
    let url = database.url.as_str();
    let common = [("DATABASE_URL", url), ("LEASE_SECONDS", "2")];
    let mut first = Server::with(&[&common[..], &directory(dir.path())].concat());
    let second = Server::with(&common);
    let (id, users, [mut socket, _]) = counting(&first);
    socket.accepted(1, &json!(1));
    first.kill9();
    let mut socket = until("the match goes on", || {
        let path = format!("/v1/matches/{id}/socket?after=4");
        let mut socket = Socket::open(second.public, &users[0], &path, None).ok()?;
        assert_eq!(socket.message()["view"], "b");
        Some(socket)
    });
    assert_eq!(socket.accepted(2, &json!(1)), 5);
    assert!(game(&second, "counter").is_none(), "none begins there");
}
