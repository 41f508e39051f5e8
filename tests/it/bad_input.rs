//! Bad input of every kind: a clear error, nothing lost, and the server serves on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{
    Answer, BINARY, CLOSE, Incoming, JSON, MSGPACK, PING, Socket, TEXT, User, head, masked, open,
};
use crate::harness::{DEADLINE, Server, shared};

const BODY_BYTES_MAX: usize = 64 * 1024;

/// A socket in a match that runs, and its opponent's.
fn sockets(server: &Server) -> [Socket; 2] {
    server.tictactoe().2
}

/// The socket is still good: a command on it is accepted.
#[track_caller]
fn assert_lives(socket: &mut Socket) {
    socket.accepted(1000, &json!({"place": 8}));
}

// ---- REST ----

#[test]
fn bodies_that_are_not_json_are_malformed() {
    let server = shared();
    for body in ["{", "", "nonsense", r#"{"username": }"#, "\u{0}", r#"{"a": 1} x"#, "[", "NaN"] {
        let call = server.call("POST", "/v1/users").body("application/json", body);
        call.send().problem(400);
    }
    let latin = b"{\"username\": \"\xE9\"}".to_vec();
    server.call("POST", "/v1/users").body("application/json", latin).send().problem(400);
    let deep = "[".repeat(60_000);
    server.call("POST", "/v1/users").body("application/json", deep).send().problem(400);
}

#[test]
fn unknown_and_missing_fields_and_wrong_types_are_named() {
    let server = shared();
    let user = server.guest();
    for (path, body, field) in [
        ("/v1/users", json!({"username": "someone"}), "password"),
        ("/v1/users", json!({"password": "correct horse"}), "username"),
        (
            "/v1/users",
            json!({"username": "someone", "password": "correct horse", "admin": true}),
            "admin",
        ),
        ("/v1/users", json!({"username": 5, "password": "correct horse"}), "username"),
        ("/v1/users", json!({"username": null, "password": "correct horse"}), "username"),
        ("/v1/sessions/guest", json!({"display_name": ["x"]}), "display_name"),
        ("/v1/sessions/guest", json!({"name": "x"}), "name"),
        ("/v1/matches", json!({}), "game"),
        ("/v1/matches", json!({"game": "tictactoe", "option": {}}), "option"),
        ("/v1/matches", json!({"game": "tictactoe", "options": []}), "options"),
        ("/v1/matches", json!({"game": ["tictactoe"]}), "game"),
    ] {
        let answer = server.post(&user, path, &body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text());
        let problem = answer.problem(answer.status);
        assert!(problem.to_string().contains(field), "{body}: {problem}");
    }
    for body in [json!([]), json!("x"), json!(1), json!(null)] {
        let answer = server.post(&user, "/v1/matches", &body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text());
        answer.problem(answer.status);
    }
}

#[test]
fn names_and_passwords_have_bounds() {
    let server = shared();
    let good = || json!({"username": "bounded", "password": "correct horse", "display_name": "B"});
    let long = "x".repeat(2000);
    for (field, value) in [
        ("username", ""),
        ("username", &long),
        ("username", "nul\0nul"),
        ("username", "bell\u{7}"),
        ("username", "two words"),
        ("username", "new\nline"),
        ("username", "right\u{202E}left"),
        ("username", " padded "),
        ("password", ""),
        ("password", "short"),
        ("password", &long),
        ("display_name", ""),
        ("display_name", "123456789012345678901234567890123"),
        ("display_name", "nul\0"),
        ("display_name", "line\nbreak"),
        ("display_name", "escape\u{1b}[2J"),
        ("display_name", "right\u{202E}left"),
        ("display_name", "   "),
    ] {
        let mut body = good();
        body[field] = json!(value);
        let answer = server.call("POST", "/v1/users").json(&body).send();
        assert_eq!(answer.status, 422, "{field} {value:?}: {}", answer.text());
        assert_eq!(answer.invalid_fields(), [field], "{value:?}");
    }
    server.call("POST", "/v1/users").json(&good()).send().expect(201);
}

#[test]
fn usernames_that_look_alike_by_case_are_taken() {
    let server = shared();
    let register = |name: &str| {
        let body = json!({"username": name, "password": "correct horse"});
        server.call("POST", "/v1/users").json(&body).send()
    };
    register("LookAlike").expect(201);
    for name in ["lookalike", "LOOKALIKE", "lOOKaLIKE"] {
        register(name).problem(409);
    }
    // Letters of other alphabets that look like these are not let in at all.
    for name in ["\u{41b}ookAlike", "Look\u{410}like", "LookAl\u{131}ke", "\u{ff2c}ookalike"] {
        register(name).invalid_fields();
    }
}

#[test]
fn bodies_over_the_limit_are_too_large() {
    let server = shared();
    let body = |bytes: usize| format!("{{\"display_name\": \"{}\"}}", "x".repeat(bytes));
    let post = |body: String| {
        server.call("POST", "/v1/sessions/guest").body("application/json", body).send()
    };
    post(body(BODY_BYTES_MAX)).problem(413);
    post(body(10 * BODY_BYTES_MAX)).problem(413);
    // Just below it the body is read, and what is wrong with it is said.
    post(body(BODY_BYTES_MAX - 100)).invalid_fields();

    // Without a length it is counted as it comes.
    let mut stream = open(server.public).unwrap();
    let head = "POST /v1/sessions/guest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..20 {
        // It may have answered and closed by now.
        if stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).is_err() {
            break;
        }
    }
    Answer::read(&mut stream, "POST").unwrap().problem(413);
}

#[test]
fn slow_and_endless_headers_are_given_up() {
    let server = Server::with(&[("REQUEST_TIMEOUT_SECONDS", "1")]);
    for start in ["", "GET", "GET /v1/games HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = open(server.public).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        assert_ends(&mut stream, "a head that never ends");
    }
    let mut stream = open(server.public).unwrap();
    let line = format!("X-Large: {}\r\n", "x".repeat(1000));
    let _ = stream.write_all(b"GET /v1/games HTTP/1.1\r\nHost: x\r\n");
    for _ in 0..1000 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    assert_ends(&mut stream, "a head of a megabyte");
    server.call("GET", "/v1/games").send().expect(200);
}

/// The server ends the connection; a last answer may come, and is an error.
#[track_caller]
fn assert_ends(stream: &mut TcpStream, what: &str) {
    let began = Instant::now();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(began.elapsed() < DEADLINE, "{what} was not given up");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
}

#[test]
fn what_is_not_http_harms_nobody() {
    let server = shared();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = open(server.public).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_ends(&mut stream, &String::from_utf8_lossy(bytes));
    }
    server.call("GET", "/v1/games").send().expect(200);
}

// ---- messages ----

#[test]
fn messages_that_are_none_are_refused_and_the_socket_stays_open() {
    let server = shared();
    let [mut socket, mut other] = sockets(&server);
    for (text, id) in [
        ("", None),
        ("{", None),
        ("nonsense", None),
        ("[]", None),
        ("null", None),
        ("{}", None),
        (r#"{"type":"dance","id":1}"#, Some(1)),
        (r#"{"type":5,"id":1}"#, Some(1)),
        (r#"{"type":"command","id":1}"#, Some(1)),
        (r#"{"type":"command","command":{"place":0}}"#, None),
        (r#"{"type":"command","id":"1","command":{"place":0}}"#, None),
        (r#"{"type":"command","id":0,"command":{"place":0}}"#, None),
        (r#"{"type":"command","id":-1,"command":{"place":0}}"#, None),
        (r#"{"type":"command","id":1.5,"command":{"place":0}}"#, None),
        (r#"{"type":"command","id":9007199254740992,"command":{"place":0}}"#, None),
        (r#"{"type":"command","id":1,"command":{"place":0},"seat":1}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{"place":0},"text":"x"}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{}}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{"place":"0"}}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{"place":0.5}}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{"place":0,"also":1}}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":{"flip":0}}"#, Some(1)),
        (r#"{"type":"command","id":1,"command":null}"#, Some(1)),
        (r#"{"type":"chat","id":1}"#, Some(1)),
        (r#"{"type":"chat","id":1,"text":""}"#, Some(1)),
        (r#"{"type":"chat","id":1,"text":5}"#, None),
        (r#"{"type":"chat","id":1,"text":"nul\u0000"}"#, Some(1)),
        (r#"{"type":"chat","id":1,"text":"\ud800"}"#, None),
        (r#"{"type":"ping","id":"x"}"#, None),
        (r#"{"type":"ping","id":1} trailing"#, None),
    ] {
        socket.text(text);
        let (word, named) = socket.error();
        assert_eq!(word, "bad-command", "{text}");
        if let Some(id) = id {
            assert_eq!(named, id, "{text}");
        }
    }
    let deep = format!(r#"{{"type":"command","id":1,"command":{}}}"#, "[".repeat(30_000));
    socket.text(&deep);
    assert_eq!(socket.error().0, "bad-command");
    let long = json!({"type": "chat", "text": "x".repeat(501)});
    socket.send(&long);
    assert_eq!(socket.error().0, "bad-command");

    let chats = other.pending().into_iter().filter(|message| message["type"] != "presence");
    assert_eq!(chats.count(), 0, "nobody else was told of anything");
    assert_lives(&mut socket);
}

#[test]
fn messagepack_that_json_has_no_word_for_is_refused() {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let path = format!("/v1/matches/{id}/socket");
    let mut socket = Socket::open(server.public, &users[0], &path, Some(MSGPACK)).unwrap();
    socket.message();
    for bytes in [
        &b""[..],
        b"\xc1",
        b"\xc4\x01x",
        b"\xd4\x01x",
        b"\x81\xa4type",
        b"\x81\xa4type\xc4\x04ping",
        b"\x81\x01\xa4ping",
        b"\x81\xa4type\xa4ping trailing",
        b"\xdf\xff\xff\xff\xff",
        b"{\"type\":\"ping\",\"id\":1}",
    ] {
        socket.frame(BINARY, bytes);
        assert_eq!(socket.error().0, "bad-command", "{bytes:x?}");
    }
    socket.frame(BINARY, &[b"\x91".repeat(60_000), b"\xc0".to_vec()].concat());
    assert_eq!(socket.error().0, "bad-command");
    assert_lives(&mut socket);
}

#[test]
fn moves_that_break_the_rules_change_nothing() {
    let server = shared();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    assert_eq!(second.refused(1, &json!({"place": 0})), "not-your-turn");
    for place in [json!(9), json!(-1), json!(1_000_000)] {
        let word = first.refused(1, &json!({ "place": place }));
        assert!(["illegal-move", "bad-command"].contains(&&*word), "{place}: {word}");
    }
    first.accepted(1, &json!({"place": 0}));
    assert_eq!(second.refused(1, &json!({"place": 0})), "illegal-move");
    assert_eq!(first.refused(2, &json!({"place": 1})), "not-your-turn");
    assert_eq!(server.events(&users[0], &id).len(), 4);
}

#[test]
fn a_match_that_does_not_run_takes_no_commands() {
    let server = shared();
    let user = server.guest();
    let open = server.seated(&json!({"game": "tictactoe"}), &[&user]);
    let mut socket = server.play(&user, &open);
    assert_eq!(socket.refused(1, &json!({"place": 0})), "match-not-running");

    let (id, users, [mut first, _second]) = server.tictactoe();
    server.delete(&users[1], &format!("/v1/matches/{id}/players/me"));
    first.expect("ended");
    assert_eq!(first.refused(1, &json!({"place": 0})), "match-not-running");
    let mut late = server.play(&users[0], &id);
    assert_eq!(late.refused(1, &json!({"place": 0})), "match-not-running");
}

#[test]
fn who_has_no_seat_commands_nothing() {
    let server = shared();
    let (id, _, [mut first, _second]) = server.tictactoe();
    let mut watcher = server.play(&server.guest(), &id);
    assert_eq!(watcher.refused(1, &json!({"place": 0})), "not-seated");
    // There is no way to name another's seat.
    watcher.text(r#"{"type":"command","id":1,"seat":0,"command":{"place":0}}"#);
    assert_eq!(watcher.error().0, "bad-command");
    assert_eq!(first.accepted(1, &json!({"place": 0})), 4);
}

#[test]
fn ids_that_go_back_are_refused() {
    let server = shared();
    let (_, _, [mut first, mut second]) = server.tictactoe();
    let seq = first.accepted(10, &json!({"place": 0}));
    second.accepted(1, &json!({"place": 1}));
    assert_eq!(first.refused(9, &json!({"place": 2})), "bad-command");
    assert_eq!(first.accepted(10, &json!({"place": 2})), seq, "a repeated id is not a move");
    assert_eq!(first.accepted(11, &json!({"place": 2})), seq + 2);
}

// ---- frames ----

/// What is sent ends the socket with this code, and the match goes on without it.
#[track_caller]
fn assert_closes(code: u16, subprotocol: &str, send: impl FnOnce(&mut Socket)) {
    let server = shared();
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let path = format!("/v1/matches/{id}/socket");
    let mut socket = Socket::open(server.public, &users[0], &path, Some(subprotocol)).unwrap();
    let mut other = server.play(&users[1], &id);
    socket.message();
    send(&mut socket);
    assert_eq!(socket.closed(), code);
    assert!(socket.try_next().is_err(), "nothing comes after a close");
    let gone = |message: &Value| message["connected"] == false;
    while !gone(&other.expect("presence")) {}
    server.play(&users[0], &id).accepted(1, &json!({"place": 0}));
    assert_eq!(other.event()["event"], json!({"placed": 0}));
}

const PING_MESSAGE: &[u8] = br#"{"type":"ping","id":1}"#;

#[test]
fn unmasked_frames_close_with_1002() {
    assert_closes(1002, JSON, |socket| {
        socket.raw(&[head(TEXT, PING_MESSAGE.len(), 0), PING_MESSAGE.to_vec()].concat());
    });
}

#[test]
fn reserved_bits_close_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        assert_closes(1002, JSON, |socket| socket.frame(TEXT | bit, PING_MESSAGE));
    }
}

#[test]
fn unknown_opcodes_close_with_1002() {
    for opcode in [0x3, 0x7, 0xB, 0xF] {
        assert_closes(1002, JSON, |socket| socket.frame(0x80 | opcode, b"x"));
    }
}

#[test]
fn broken_fragments_close_with_1002() {
    assert_closes(1002, JSON, |socket| socket.frame(0x80, b"a continuation of nothing"));
    assert_closes(1002, JSON, |socket| {
        socket.frame(0x01, b"{");
        socket.frame(TEXT, b"}");
    });
    assert_closes(1002, JSON, |socket| socket.frame(0x09, b"a ping in parts"));
    assert_closes(1002, JSON, |socket| socket.frame(PING, &[b'x'; 126]));
}

#[test]
fn a_binary_frame_on_the_json_protocol_closes_with_1003() {
    assert_closes(1003, JSON, |socket| socket.frame(BINARY, PING_MESSAGE));
}

#[test]
fn a_text_frame_on_the_messagepack_protocol_closes_with_1003() {
    assert_closes(1003, MSGPACK, |socket| socket.frame(TEXT, PING_MESSAGE));
}

#[test]
fn text_that_is_not_utf8_closes_with_1007() {
    for bytes in [&b"\xff"[..], b"{\"type\":\"\xc3\x28\"}", b"\xed\xa0\x80", b"\xf0\x9f"] {
        assert_closes(1007, JSON, |socket| socket.frame(TEXT, bytes));
    }
}

#[test]
fn messages_over_the_limit_close_with_1009() {
    assert_closes(1009, JSON, |socket| {
        socket.raw(&masked(TEXT, &vec![b'x'; BODY_BYTES_MAX + 1]));
    });
    // Its head alone is enough: nobody waits for the rest.
    assert_closes(1009, JSON, |socket| socket.raw(&head(TEXT, 1 << 40, 0x80)));
    assert_closes(1009, JSON, |socket| {
        socket.frame(0x01, &vec![b'x'; BODY_BYTES_MAX / 2]);
        socket.frame(0x00, &vec![b'x'; BODY_BYTES_MAX / 2]);
        socket.frame(0x80, b"x");
    });
    assert_closes(1009, MSGPACK, |socket| {
        socket.raw(&masked(BINARY, &vec![b'x'; BODY_BYTES_MAX + 1]));
    });
}

#[test]
fn a_message_may_come_in_fragments_with_pings_between() {
    let server = shared();
    let [mut socket, _other] = sockets(&server);
    let message = r#"{"type":"chat","text":"Grüße"}"#.as_bytes();
    // In the middle of a letter, too: only the whole has to be UTF-8.
    let letter = message.iter().position(|byte| !byte.is_ascii()).unwrap() + 1;
    socket.frame(0x01, &message[..5]);
    socket.frame(PING, b"hello");
    socket.frame(0x00, &message[5..letter]);
    socket.frame(0x00, b"");
    socket.frame(0x80, &message[letter..]);
    let mut came = Vec::new();
    while came.len() < 2 {
        match socket.next() {
            Incoming::Pong(payload) => came.push(String::from_utf8(payload).unwrap()),
            Incoming::Message(message) if message["type"] == "chat" => {
                came.push(message["text"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(came, ["hello", "Grüße"]);
}

#[test]
fn a_message_may_come_byte_by_byte_and_many_at_once() {
    let server = shared();
    let [mut socket, _other] = sockets(&server);
    for byte in masked(TEXT, PING_MESSAGE) {
        socket.raw(&[byte]);
    }
    assert_eq!(socket.expect("pong")["id"], 1);
    let many: Vec<u8> = (1..=20_u8)
        .flat_map(|id| masked(TEXT, json!({"type": "ping", "id": id}).to_string().as_bytes()))
        .collect();
    socket.raw(&many);
    for id in 1..=20 {
        assert_eq!(socket.expect("pong")["id"], id);
    }
}

#[test]
fn a_message_of_the_largest_size_is_taken() {
    let server = shared();
    let user = server.guest();
    let id = server.seated(&json!({"game": "relay"}), &[&user]);
    let mut socket = server.play(&user, &id);
    let frame = |pad: usize| {
        let pad = "x".repeat(pad);
        json!({"type": "command", "id": 1, "command": {"state": pad}}).to_string()
    };
    let text = frame(BODY_BYTES_MAX - frame(0).len());
    assert_eq!(text.len(), BODY_BYTES_MAX);
    socket.text(&text);
    assert_eq!(socket.expect("ack")["id"], 1);
}

#[test]
fn a_close_is_answered() {
    let server = shared();
    let [mut socket, _other] = sockets(&server);
    socket.frame(CLOSE, &1000_u16.to_be_bytes());
    assert_eq!(socket.closed(), 1000);
    for payload in [&[0x03][..], &999_u16.to_be_bytes(), &1005_u16.to_be_bytes()] {
        assert_closes(1002, JSON, |socket| socket.frame(CLOSE, payload));
    }
}

#[test]
fn a_connection_that_breaks_off_in_a_frame_is_a_player_who_is_away() {
    let server = shared();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    first.raw(&masked(TEXT, PING_MESSAGE)[..9]);
    drop(first);
    assert_eq!(
        second.expect("presence"),
        json!({"type": "presence", "seat": 0, "connected": false})
    );
    server.play(&users[0], &id).accepted(1, &json!({"place": 0}));
}

// ---- too much ----

#[test]
fn a_flood_of_commands_is_refused_and_then_closed() {
    let server = Server::with(&[("COMMANDS_PER_SECOND", "5")]);
    let (id, users, [mut flooder, mut other]) = server.tictactoe();
    flooder.accepted(1, &json!({"place": 0}));
    for id in 2..30 {
        flooder.command(id, &json!({"place": 0}));
    }
    let limited = (2..30).filter(|_| flooder.error().0 == "rate-limited").count();
    assert!(limited > 10, "{limited} of 28 were refused for their number");
    // The others play on.
    other.accepted(1, &json!({"place": 1}));

    // Who goes on all the same is closed.
    let (began, mut stream) = (Instant::now(), flooder.split());
    let frame = masked(TEXT, br#"{"type":"command","id":99,"command":{"place":2}}"#);
    let writer =
        std::thread::spawn(
            move || {
                while began.elapsed() < DEADLINE && stream.write_all(&frame).is_ok() {}
            },
        );
    assert_eq!(flooder.closed(), 1008);
    drop(flooder);
    writer.join().unwrap();
    let (_, welcome) = server.connect(&users[0], &format!("/v1/matches/{id}/socket"));
    assert_eq!(welcome["state"], "running");
}

#[test]
fn a_client_that_never_reads_is_closed_and_holds_nobody_up() {
    let server = shared();
    let users: Vec<User> = (0..3).map(|_| server.guest()).collect();
    let body = json!({"game": "relay", "options": {"players": 3}});
    let id = server.seated(&body, &users.iter().collect::<Vec<_>>());
    let mut sender = server.play(&users[0], &id);
    let mut reader = server.play(&users[1], &id);
    let mut silent = server.play(&users[2], &id);
    let pad = "x".repeat(32 * 1024);
    let began = Instant::now();
    let mut sent = 0;
    let gone = loop {
        sent += 1;
        sender.command(sent, &json!({ "send": pad }));
        let message = loop {
            let message = sender.message();
            if message["type"] == "ack" || message["connected"] == false {
                break message;
            }
        };
        assert_eq!(reader.event()["event"]["send"].as_str().map(str::len), Some(pad.len()));
        if message["type"] == "presence" {
            break message["seat"].clone();
        }
        assert!(began.elapsed() < DEADLINE, "it was not closed after {sent} messages");
    };
    assert_eq!(gone, 2);
    assert_eq!(silent.closed(), 4002);
    let (_, welcome) = server.connect(&users[2], &format!("/v1/matches/{id}/socket"));
    assert!(welcome["seq"].as_u64().unwrap() >= sent);
}
