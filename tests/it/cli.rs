//! The command line and the settings.

use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use crate::client::call;
use crate::harness::{Server, command_in, gameserver, shared, signing_key};

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// What a start says that must fail: one line.
#[track_caller]
fn refused_start(settings: &[(&str, &str)]) -> String {
    let data = tempfile::tempdir().unwrap();
    let (output, stdout, stderr) = run(command_in(&data).envs(settings.iter().copied()));
    assert!(!output.status.success() && stdout.is_empty(), "{settings:?}: {output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn help_lists_commands_and_settings() {
    let (output, help, stderr) = run(gameserver().arg("help"));
    assert!(output.status.success() && stderr.is_empty());
    for command in ["serve", "check-game", "keygen", "healthcheck", "version", "help"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    for (setting, default) in [
        ("GAMESERVER_LISTEN", "127.0.0.1:8080"),
        ("GAMESERVER_ADMIN_LISTEN", "127.0.0.1:9090"),
        ("GAMESERVER_DATA_DIR", ""),
        ("GAMESERVER_DATABASE_URL", ""),
        ("GAMESERVER_JWT_PRIVATE_KEY", ""),
        ("GAMESERVER_JWT_PRIVATE_KEY_FILE", ""),
        ("GAMESERVER_ALLOWED_ORIGINS", ""),
        ("GAMESERVER_RELAY_GAMES", "[]"),
    ] {
        let line = help.lines().find(|line| line.split_whitespace().next() == Some(setting));
        let line = line.unwrap_or_else(|| panic!("{setting} is not in the help"));
        assert!(line.contains(default), "{line}");
    }
    assert_eq!(run(gameserver().arg("--help")).1, help);
}

#[test]
fn version_is_the_packages() {
    let (output, version, _) = run(gameserver().arg("version"));
    assert!(output.status.success());
    assert_eq!(version, format!("gameserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_match_is_replayed_and_verified_while_a_server_runs_and_after() {
    let mut server = Server::start();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    for (turn, cell) in [0, 3, 1, 4, 2].iter().enumerate() {
        let socket = [&mut first, &mut second].into_iter().nth(turn % 2).unwrap();
        socket.accepted(turn as u64 / 2 + 1, &json!({ "place": cell }));
    }
    let riders = [server.guest(), server.guest()];
    let arena = server.seated(&json!({"game": "arena"}), &[&riders[0], &riders[1]]);
    let mut rider = server.play(&riders[0], &arena);
    rider.accepted(1, &json!({"turn": "up"}));
    drop(rider);
    let url = server.database_url();
    let replay = |data: &TempDir, arguments: &[&str]| {
        let mut command = command_in(data);
        command.envs(url.as_ref().map(|url| ("GAMESERVER_DATABASE_URL", url)));
        run(command.arg("replay").args(arguments))
    };
    let (output, text, stderr) = replay(&server.data, &[&id]);
    assert!(output.status.success(), "{stderr}");
    assert!(text.contains("tictactoe (rules 1), ended"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(r#"{"placed":"#)).count(), 5, "{text}");
    let (output, text, stderr) = replay(&server.data, &[&id, "--verify"]);
    assert!(output.status.success(), "{stderr}");
    assert!(text.contains(r#"{"board":[0,0,0,1,1,null,null,null,null],"turn":null}"#), "{text}");

    // Where the log was told behind, all of it is there once the server has ended.
    assert_eq!(server.delete(&users[0], "/v1/sessions/current").status, 204);
    server.terminate();
    assert!(server.wait().success());
    let (output, text, stderr) = replay(&server.data, &["--verify", &arena]);
    assert!(output.status.success(), "{stderr}");
    assert!(text.contains(r#""input":{"turn":"up"}"#) && text.contains(r#""heads":["#), "{text}");

    if url.is_none() {
        // One of another version is left as it is.
        let file = server.data.path().join("data/gameserver.db");
        let db = rusqlite::Connection::open(file).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        let (output, _, stderr) = replay(&server.data, &[&id]);
        assert!(!output.status.success() && stderr.contains("schema has version 1"), "{stderr}");
        let now: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(now, 1);
    }
    let unknown = "00000000-0000-7000-8000-000000000000";
    for (arguments, code) in [(&[unknown][..], 1), (&["x"], 2), (&[], 2), (&[unknown, "x"], 2)] {
        let (output, stdout, stderr) = replay(&server.data, arguments);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(code), ""), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn keygen_prints_a_new_key_that_a_server_takes() {
    let (output, key, _) = run(gameserver().arg("keygen"));
    assert!(output.status.success());
    assert!(key.starts_with("-----BEGIN") && key.contains("PRIVATE KEY-----"), "{key}");
    assert_ne!(key, signing_key());
    // That a server takes such a key, every other test shows.
}

#[test]
fn what_is_no_command_is_said_in_a_line() {
    for args in [&["dance"][..], &["help", "me"], &["--port=80"], &["serve", "now"]] {
        let (output, stdout, stderr) = run(gameserver().args(args));
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{args:?}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn healthcheck_tells_a_ready_server_from_none() {
    let mut server = Server::start();
    let admin = server.admin.to_string();
    let check = || {
        run(gameserver()
            .arg("healthcheck")
            .env("GAMESERVER_ADMIN_LISTEN", &admin)
            .env("HOME", "/nowhere"))
    };
    assert_eq!(check().0.status.code(), Some(0));
    server.kill9();
    let (output, _, stderr) = check();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains(&admin), "{stderr}");
}

#[test]
fn health_is_told_by_the_admin_listener() {
    let server = shared();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(call(server.admin, "GET", path).send().status, 200, "{path}");
    }
}

#[test]
fn an_unknown_setting_stops_the_start() {
    for name in ["GAMESERVER_LISTENS", "GAMESERVER_FOO", "GAMESERVER_", "GAMESERVER_LISTEN_FILE"] {
        let line = refused_start(&[(name, "127.0.0.1:0")]);
        assert!(line.contains(&format!("{name} ")) || line.contains(&format!("{name}:")), "{line}");
    }
    assert!(refused_start(&[("GAMESERVER_LISTENS", "")]).contains("GAMESERVER_LISTEN?"));
}

#[test]
fn a_bad_value_stops_the_start_and_says_what_would_do() {
    for (name, value) in [
        ("GAMESERVER_LISTEN", "8080"),
        ("GAMESERVER_LISTEN", ""),
        ("GAMESERVER_ADMIN_LISTEN", "localhost:99999"),
        ("GAMESERVER_ACCESS_TOKEN_SECONDS", "15m"),
        ("GAMESERVER_ACCESS_TOKEN_SECONDS", "-1"),
        ("GAMESERVER_COMMANDS_PER_SECOND", "0"),
        ("GAMESERVER_ALLOWED_ORIGINS", "*"),
        ("GAMESERVER_ALLOWED_ORIGINS", "example.com"),
        ("GAMESERVER_RELAY_GAMES", "{}"),
        ("GAMESERVER_RELAY_GAMES", r#"[{"name": "UPPER", "title": "", "description": ""}]"#),
        ("GAMESERVER_LOG", "loud"),
    ] {
        let line = refused_start(&[(name, value)]);
        assert!(line.contains(name) && line.contains("takes"), "{line}");
        assert!(line.contains(value) || line.contains(&format!("{value:?}")), "{line}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    for (name, value) in [
        ("GAMESERVER_JWT_PRIVATE_KEY", "hunter2"),
        ("GAMESERVER_DATABASE_URL", "mysql://root:hunter2@localhost/db"),
    ] {
        let line = refused_start(&[(name, value)]);
        assert!(line.contains(name) && !line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_secret_can_be_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signing_key()).unwrap();
    let path = file.path().to_str().unwrap();
    let server = Server::with_only(&[("JWT_PRIVATE_KEY_FILE", path)]);
    let kid = |server: &Server| {
        let keys = server.call("GET", "/.well-known/jwks.json").send().expect(200);
        keys["keys"][0]["kid"].clone()
    };
    assert_eq!(kid(&server), kid(&shared()));
    let both =
        [("GAMESERVER_JWT_PRIVATE_KEY", signing_key()), ("GAMESERVER_JWT_PRIVATE_KEY_FILE", path)];
    assert!(refused_start(&both).contains("GAMESERVER_JWT_PRIVATE_KEY"));
    let missing = refused_start(&[("GAMESERVER_JWT_PRIVATE_KEY_FILE", "/nowhere/key.pem")]);
    assert!(missing.contains("GAMESERVER_JWT_PRIVATE_KEY_FILE"), "{missing}");
}

#[test]
fn names_that_kubernetes_injects_are_passed_over() {
    let server = Server::with(&[
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("SERVICE_PORT_HTTP", "8080"),
        ("PORT", "tcp://10.0.0.1:8080"),
        ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("ADMIN_PORT_9090_TCP_PROTO", "tcp"),
    ]);
    server.guest();
}

#[test]
fn the_environment_file_is_read_and_never_overrides() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join(".env"), "GAMESERVER_LOG=loud\n").unwrap();
    let (output, _, stderr) = run(&mut command_in(&data));
    assert!(!output.status.success() && stderr.contains("GAMESERVER_LOG"), "{stderr}");
    let (_, _, stderr) = run(command_in(&data).env("GAMESERVER_LOG", "louder"));
    assert!(stderr.contains("louder"), "{stderr}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = shared();
    let address = server.public.to_string();
    let data = tempfile::tempdir().unwrap();
    let mut command = command_in(&data);
    command.env("GAMESERVER_LISTEN", &address).env("GAMESERVER_JWT_PRIVATE_KEY", signing_key());
    let (output, _, stderr) = run(&mut command);
    assert!(!output.status.success() && stderr.contains(&address), "{stderr}");
}

#[test]
fn the_start_says_where_to_open() {
    let server = Server::start();
    let line = server.logged(|line| line.contains("http://"));
    assert!(line.contains(&server.public.to_string()), "{line}");
}
