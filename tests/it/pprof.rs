//! Profiles and traces of a server under load, with the tools that people use.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::client::{Socket, call};
use crate::harness::Server;

/// Nobody is slowed down.
const FAST: (&str, &str) = ("RELAY_COMMANDS_PER_SECOND", "100000");
/// Matches that are held while memory is looked at.
const HOARDED: u32 = 100;
/// What each of them holds.
const HOARDED_BYTES: u16 = 60_000;

/// What `go tool pprof -top` says of a profile that is asked for there.
fn top(server: &Server, page: &str, options: &[&str]) -> String {
    pprof(server, page, &[&["-top", "-nodecount=1000"], options].concat())
}

fn pprof(server: &Server, page: &str, options: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{}/debug/pprof/{page}", server.admin);
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(options)
        .arg(&url)
        .env("PPROF_TMPDIR", directory.path())
        // Newer versions build the tool when it is first used; nothing is downloaded.
        .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"))
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .output()
        .expect("go (Debian: golang-go) is installed");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{url}: {stdout}{stderr}");
    stdout.into_owned()
}

/// Plays as fast as it can while `act` runs.
fn under_load<T>(server: &Server, act: impl FnOnce() -> T) -> T {
    let users = [server.guest(), server.guest()];
    let id = server.seated(&json!({"game": "relay"}), &[&users[0], &users[1]]);
    let mut socket = server.play(&users[0], &id);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut command = 0;
            while !done.load(Ordering::Relaxed) {
                command += 1;
                socket.accepted(command, &json!({"send": "x".repeat(1000)}));
            }
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn go_tool_pprof_shows_where_time_goes() {
    let server = Server::with(&[FAST]);
    let top = under_load(&server, || top(&server, "profile?seconds=3&hz=500", &[]));
    for name in ["gameserver::session::", "gameserver::matches::"] {
        assert!(top.contains(name), "no {name} in\n{top}");
    }
    assert!(top.contains("Type: cpu"), "{top}");
}

/// Matches that hold as much as is known, for as long as somebody is connected to them.
fn hoard(server: &Server) -> Vec<Socket> {
    let user = server.guest();
    let sockets = (0..HOARDED).map(|_| {
        let id = server.seated(&json!({"game": "relay"}), &[&user]);
        let mut socket = server.play(&user, &id);
        socket.accepted(1, &json!({"state": "x".repeat(HOARDED_BYTES.into())}));
        socket
    });
    sockets.collect()
}

#[test]
fn the_heap_is_who_allocated_what_is_there() {
    let server = Server::start();
    let sockets = hoard(&server);
    let heap = top(&server, "heap", &["-cum", "-unit=B"]);
    assert!(heap.contains("Type: inuse_space"), "{heap}");
    // flat, flat%, sum%, cum, cum%, name
    let rows = heap.lines().filter(|row| row.contains("gameserver::games::relay::"));
    let bytes =
        rows.filter_map(|row| row.split_whitespace().nth(3)?.trim_end_matches('B').parse().ok());
    let held = bytes.fold(0.0, f64::max);
    let truly = hoarded();
    assert!((0.3..3.0).contains(&(held / truly)), "{held} bytes of {truly} in\n{heap}");
    assert!(top(&server, "allocs", &[]).contains("Type: alloc_space"));

    let tasks = top(&server, "goroutine", &[]);
    for name in ["socket of a player", "match of relay", "connection"] {
        assert!(tasks.contains(name), "no {name} in\n{tasks}");
    }
    let text = call(server.admin, "GET", "/debug/pprof/tasks?debug=1").send().text();
    assert_eq!(text.matches(" of relay: running").count(), HOARDED as usize, "{text}");
    drop(sockets);
}

/// How many bytes [`hoard`] holds on to.
fn hoarded() -> f64 {
    f64::from(HOARDED) * f64::from(HOARDED_BYTES)
}

#[test]
fn whoever_looks_for_a_leak_is_led_to_its_line() {
    // What is shipped has lost its lines; this build has them beside its names.
    if std::env::var_os("TEST_BINARY").is_some() {
        return;
    }
    let server = Server::start();
    let _sockets = hoard(&server);
    let lines = top(&server, "heap", &["-cum", "-unit=B", "-lines", "-symbolize=force"]);
    let held = |row: &&str| {
        let bytes = row.split_whitespace().nth(3).map(|cum| cum.trim_end_matches('B').parse());
        row.contains("games/relay.rs:")
            && bytes.is_some_and(|b| b.is_ok_and(|b: f64| b > 0.3 * hoarded()))
    };
    let row = lines.lines().find(held).unwrap_or_else(|| panic!("no line in\n{lines}"));
    let (_, number) = row.split_whitespace().last().unwrap().rsplit_once(':').unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/games/relay.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let line = source.lines().nth(number.parse::<usize>().unwrap() - 1).unwrap();
    assert!(line.contains("event.to_owned()"), "{row}\n{line}");
}

#[test]
fn a_profile_names_the_build_that_it_is_of() {
    let server = Server::start();
    let raw = pprof(&server, "threads", &["-raw"]);
    // The first mapping: its addresses, its offset in the file, the file, its build.
    let line = raw.lines().skip_while(|line| *line != "Mappings").nth(1).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let program = std::path::Path::new(words[2]);
    let build = words[3];
    assert!(build.len() >= 16 && build.bytes().all(|digit| digit.is_ascii_hexdigit()), "{line}");
    let notes = Command::new("readelf").arg("--notes").arg(program).output().unwrap();
    assert!(String::from_utf8_lossy(&notes.stdout).contains(build), "{line}: {notes:?}");
}

#[test]
fn threads_say_what_they_do() {
    let server = Server::start();
    let text = call(server.admin, "GET", "/debug/pprof/threads?debug=1").send().text();
    for name in ["thread: tokio-rt-worker", "gameserver::main", "::serve::"] {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
    assert!(top(&server, "threads", &[]).contains("gameserver::main"));
}

#[test]
fn one_profile_at_a_time() {
    let server = Server::start();
    let get = |page: &str| call(server.admin, "GET", &format!("/debug/pprof/{page}")).send();
    let mut statuses = thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| get("profile?seconds=5").status));
        both.map(|asked| asked.join().unwrap())
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(get("threads").status, 200, "it can be taken again");
}

#[test]
fn a_trace_is_what_happened_meanwhile() {
    let server = Server::with(&[FAST]);
    let page = "/debug/pprof/trace?seconds=2";
    let answer = under_load(&server, || call(server.admin, "GET", page).send());
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    let trace: Value = serde_json::from_str(&answer.text()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let mut polls = 0;
    for event in events {
        assert!(event["name"].is_string() && event["pid"].is_u64(), "{event}");
        match event["ph"].as_str().unwrap() {
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            "X" => {
                assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}");
                assert!((0.0..3e6).contains(&event["dur"].as_f64().unwrap()), "{event}");
                polls += usize::from(event["name"] == "socket");
            }
            "b" | "e" => assert!(event["id"].is_u64() && event["ts"].is_f64(), "{event}"),
            other => panic!("{other}: {event}"),
        }
    }
    assert!(polls > 10, "{polls} polls of sockets");
    assert!(events.iter().any(|event| event["name"] == "upkeep"), "there is one each second");
}

#[test]
fn go_asks_for_names_as_it_does_of_its_own() {
    let server = Server::start();
    let text = call(server.admin, "GET", "/debug/pprof/threads?debug=1").send().text();
    let line = text.lines().find(|line| line.contains("gameserver::main")).unwrap();
    let address = line.trim().split(' ').next().unwrap();
    let name = format!("{address} gameserver::main");
    let path = "/debug/pprof/symbol";
    let posted =
        call(server.admin, "POST", path).body("text/plain", address.as_bytes()).send().text();
    assert!(posted.lines().any(|line| line == name), "{posted}");
    let asked = call(server.admin, "GET", &format!("{path}?{address}+0x1")).send().text();
    assert!(asked.starts_with("num_symbols: 1\n") && asked.contains(&name), "{asked}");
}

#[test]
fn what_there_is_not_is_said() {
    let server = Server::with(&[("HEAP_SAMPLE_BYTES", "0")]);
    let get = |page: &str| call(server.admin, "GET", &format!("/debug/pprof/{page}")).send();
    for page in ["block", "mutex", "threadcreate"] {
        assert_eq!(get(page).status, 501, "{page}");
    }
    let detail = &get("heap").problem(501)["detail"];
    assert!(detail.as_str().unwrap().contains("GAMESERVER_HEAP_SAMPLE_BYTES"), "{detail}");
    assert_eq!(get("nothing").status, 404);
    for page in ["profile?seconds=0", "profile?seconds=301", "profile?hz=x", "trace?seconds=61"] {
        assert_eq!(get(page).status, 422, "{page}");
    }
    assert_eq!(call(server.admin, "POST", "/debug/pprof/heap").send().status, 405);
    let index = get("").text();
    for page in ["profile", "heap", "allocs", "threads", "tasks", "goroutine", "trace", "cmdline"] {
        assert!(index.contains(&format!("href=\"{page}")), "{page}");
    }
    assert!(get("cmdline").text().contains("gameserver"));
}
