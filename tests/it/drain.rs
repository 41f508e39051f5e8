//! The drain, and one server to a data directory.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Socket, call, open};
use crate::harness::{DEADLINE, Server, command_in, on_postgres, until};

/// What the contract gives a drain.
const DRAIN: Duration = Duration::from_secs(10);

/// A socket whose client answers nothing, and a request whose body never comes.
fn hold(server: &Server) -> (Socket, TcpStream) {
    let user = server.guest();
    let id = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let socket = server.play(&user, &id);
    let mut request = open(server.public).unwrap();
    let head = "POST /v1/sessions/guest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    request.write_all(head.as_bytes()).unwrap();
    (socket, request)
}

#[test]
fn it_ends_in_time_though_a_client_never_answers() {
    let mut server = Server::start();
    let mut held = hold(&server);
    let (id, users, [mut first, mut second]) = server.tictactoe();
    first.accepted(1, &json!({"place": 4}));
    let (admin, began) = (server.admin, Instant::now());
    server.terminate();
    until("not ready any more", || {
        (call(admin, "GET", "/readyz").send().status == 503).then_some(())
    });
    for socket in [&mut first, &mut second, &mut held.0] {
        assert_eq!(socket.closed(), 1012);
    }
    let status = server.wait();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < DRAIN, "{:?}", began.elapsed());
    drop(held);

    server.restart();
    let (mut first, welcome) =
        server.connect(&users[0], &format!("/v1/matches/{id}/socket?after=3"));
    assert_eq!((&welcome["resumed"], &welcome["seq"]), (&json!(true), &json!(4)));
    assert_eq!(first.event()["event"], json!({"placed": 4}));
}

#[test]
fn it_ends_at_once_if_nobody_is_there() {
    let mut server = Server::start();
    let began = Instant::now();
    server.signal(rustix::process::Signal::INT);
    assert!(server.wait().success());
    assert!(began.elapsed() < DRAIN / 2, "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_aborts() {
    let mut server = Server::start();
    let held = hold(&server);
    let admin = server.admin;
    server.terminate();
    until("the drain", || (call(admin, "GET", "/readyz").send().status == 503).then_some(()));
    let began = Instant::now();
    server.terminate();
    let status = server.wait();
    assert!(!status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(held);
}

#[test]
fn every_acknowledged_move_survives_a_drain_in_the_middle_of_play() {
    let mut server = Server::start();
    let user = server.guest();
    let id = server.seated(&json!({"game": "pairs"}), &[&user, &server.guest()]);
    let mut socket = server.play(&user, &id);
    let mut acked = socket.accepted(1, &json!({"flip": 0}));
    server.terminate();
    // Goes on until it is told to go: whatever it had an ack for must be there.
    if let Ok(()) = socket.try_send(&json!({"type": "command", "id": 2, "command": {"flip": 1}})) {
        let began = Instant::now();
        while let Ok(incoming) = socket.try_next() {
            if let crate::client::Incoming::Message(message) = incoming
                && message["type"] == "ack"
            {
                acked = message["seq"].as_u64().unwrap();
            }
            assert!(began.elapsed() < DEADLINE);
        }
    }
    assert!(server.wait().success());
    server.restart();
    assert!(server.events(&user, &id).len() as u64 >= acked);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    if on_postgres() {
        return; // There a second server is another node.
    }
    let mut server = Server::start();
    let second = || {
        command_in(&server.data)
            .env("GAMESERVER_JWT_PRIVATE_KEY", crate::harness::signing_key())
            .output()
            .unwrap()
    };
    let output = second();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let directory = server.data.path().join("data");
    assert!(stderr.contains(directory.to_str().unwrap()), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // It did no harm, and a lock does not outlive its owner.
    server.guest();
    server.kill9();
    server.restart();
    server.guest();
}

#[test]
fn a_clean_end_leaves_one_file_that_is_the_owners_alone() {
    if on_postgres() {
        return; // There are no files.
    }
    let mut server = Server::start();
    server.guest();
    server.terminate();
    assert!(server.wait().success());
    let data = server.data.path().join("data");
    for beside in ["gameserver.db-wal", "gameserver.db-shm"] {
        assert!(!data.join(beside).exists(), "{beside} is left: who copies the file loses it");
    }
    let mode = std::fs::metadata(data.join("gameserver.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}: it holds password hashes");
}
