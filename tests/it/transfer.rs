//! A server outgrows its file: what was in it goes on in PostgreSQL.

use serde_json::json;

use crate::client::Socket;
use crate::harness::{Server, command_in, on_postgres};
use crate::postgres;

#[test]
fn a_match_goes_on_in_another_store() {
    if on_postgres() {
        return; // It begins in a file.
    }
    let mut old = Server::with_only(&[]);
    let (id, users, [mut first, _second]) = old.tictactoe();
    first.accepted(1, &json!({"place": 4}));
    old.terminate();
    assert!(old.wait().success());
    let database = postgres::database();
    let file = format!("sqlite:{}", old.data.path().join("data/gameserver.db").display());
    let copy = || {
        let mut command = command_in(&old.data);
        command.args(["copy", "--from", &file, "--to", &database.url]).output().unwrap()
    };
    let output = copy();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(stdout.contains("match_events") && stdout.contains("they stay good"), "{stdout}");
    let again = copy();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"), "{again:?}");

    let new = Server::with_only(&[("DATABASE_URL", &database.url)]);
    new.get(&users[0], "/v1/users/me").expect(200);
    let path = format!("/v1/matches/{id}/socket?after=3");
    let mut second = Socket::open(new.public, &users[1], &path, None).unwrap();
    assert_eq!(second.message()["resumed"], true);
    assert_eq!(second.event()["event"], json!({"placed": 4}));
    second.accepted(1, &json!({"place": 0}));
}

#[test]
fn a_backup_is_taken_while_a_server_runs_and_restored_when_none_does() {
    if on_postgres() {
        return; // There is no file to be locked.
    }
    let server = Server::start();
    let user = server.guest();
    let run = |command: &str, dir: &tempfile::TempDir| {
        let file = server.data.path().join("backup");
        command_in(dir).arg(command).arg(file).output().unwrap()
    };
    let written = run("backup", &server.data);
    assert!(written.status.success(), "{written:?}");
    let name = server.data.path().join("play");
    let old = server.data.path().join("play-20200101T000000Z.backup");
    std::fs::write(&old, "").unwrap();
    let args = ["backup", name.to_str().unwrap(), "--keep", "1"];
    let kept = command_in(&server.data).args(args).output().unwrap();
    assert!(kept.status.success(), "{kept:?}");
    let stdout = String::from_utf8_lossy(&kept.stdout);
    let file = stdout.lines().last().unwrap();
    assert!(file.ends_with("Z.backup") && std::path::Path::new(file).exists(), "{stdout}");
    assert!(!old.exists(), "it was one too many");
    let locked = run("restore", &server.data);
    assert_eq!(locked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&locked.stderr).contains("a server works there"));
    let fresh = tempfile::tempdir().unwrap();
    let restored = run("restore", &fresh);
    assert!(restored.status.success(), "{restored:?}");
    let again = run("restore", &fresh);
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"), "{again:?}");
    server.get(&user, "/v1/users/me").expect(200);
}

#[test]
fn misuse_is_said_in_a_line_without_secrets() {
    let data = tempfile::tempdir().unwrap();
    for args in [
        &["copy"][..],
        &["copy", "--from", "sqlite:a"],
        &["copy", "--from", "mysql://me:hunter2@db/games", "--to", "sqlite:a"],
        &["backup"],
        &["backup", "a", "--keep", "0"],
        &["backup", "a", "--keep"],
        &["restore", "a", "b"],
    ] {
        let output = command_in(&data).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr.lines().count() == 1 && !stderr.contains("hunter2"), "{stderr}");
    }
}
