//! Figures: that they move with what happens, that Prometheus takes them, and that the dashboard and
//! the alerts use none that there are not.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::client::{Answer, call, upgrade};
use crate::harness::{Server, on_postgres, until};

/// All figures, as Prometheus reads them.
pub fn scrape(server: &Server) -> String {
    let answer = call(server.admin, "GET", "/metrics").send();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    answer.text()
}

/// The value of `series`: a name with its labels.
pub fn value<T: FromStr<Err: Debug>>(text: &str, series: &str) -> T {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn monitoring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring").join(file)
}

/// Runs `promtool`, which is part of Prometheus.
fn promtool(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian: prometheus) is installed");
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Every word of `text` that could be the name of one of our figures.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("gameserver_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn figures_move_with_what_happens() {
    let server = Server::start();
    let (id, users, [mut first, mut second]) = server.tictactoe();
    first.accepted(1, &json!({"place": 4}));
    first.accepted(1, &json!({"place": 4}));
    first.refused(2, &json!({"place": 0}));
    second.accepted(1, &json!({"place": 0}));
    first.text("nonsense");
    first.expect("error");
    server.call("GET", "/v1/matches").token("nobody's").send().problem(401);
    let wrong = json!({"username": "nobody", "password": "wrong horse"});
    server.call("POST", "/v1/sessions").json(&wrong).send().problem(401);

    let text = scrape(&server);
    for (series, expected) in [
        ("gameserver_matches{game=\"tictactoe\",state=\"running\"}", 1),
        ("gameserver_players_connected", 2),
        ("gameserver_matches_created_total", 1),
        ("gameserver_commands_total{result=\"applied\"}", 2),
        ("gameserver_commands_total{result=\"repeated\"}", 1),
        ("gameserver_commands_total{result=\"refused\"}", 1),
        ("gameserver_messages_received_total{type=\"command\"}", 4),
        ("gameserver_messages_received_total{type=\"malformed\"}", 1),
        ("gameserver_sign_ins_total{result=\"guest\"}", 2),
        ("gameserver_sign_ins_total{result=\"wrong_password\"}", 1),
        ("gameserver_tokens_refused_total", 1),
        ("gameserver_sockets_opened_total", 2),
        (
            "gameserver_http_requests_total{method=\"POST\",route=\"/v1/sessions/guest\",status=\"2xx\"}",
            2,
        ),
        ("gameserver_http_requests_total{method=\"GET\",route=\"/v1/matches\",status=\"4xx\"}", 1),
        (
            "gameserver_http_requests_total{method=\"GET\",route=\"/v1/matches/{id}/socket\",status=\"1xx\"}",
            2,
        ),
        (
            "gameserver_http_request_duration_seconds_count{method=\"POST\",route=\"/v1/matches\"}",
            1,
        ),
        ("gameserver_store_errors_total{error=\"unavailable\"}", 0),
        ("gameserver_passwords_waiting", 0),
        ("gameserver_rate_limited_total{limit=\"sign_ins\"}", 0),
        ("gameserver_nodes", 1),
    ] {
        assert_eq!(value::<u64>(&text, series), expected, "{series}\n{text}");
    }
    for series in [
        "gameserver_commit_duration_seconds_count",
        "gameserver_commit_duration_seconds_bucket{le=\"+Inf\"}",
        "gameserver_commit_changes_sum",
        "gameserver_store_call_duration_seconds_sum",
        "gameserver_socket_received_bytes_total",
        "gameserver_socket_sent_bytes_total",
        "gameserver_messages_sent_total",
        "gameserver_connections",
        "gameserver_allocator_bytes{state=\"allocated\"}",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(value::<f64>(&text, series) > 0.0, "{series}\n{text}");
    }
    assert_eq!(text.contains("gameserver_store_connections{state=\"idle\"}"), on_postgres());

    drop((first, second));
    until("the sockets are gone", || {
        let text = scrape(&server);
        let broken: u64 = value(&text, "gameserver_sockets_closed_total{code=\"broken\"}");
        (broken == 2 && !text.contains("gameserver_sockets{")).then_some(())
    });
    let left = server.delete(&users[0], &format!("/v1/matches/{id}/players/me"));
    assert_eq!(left.status, 204);
    assert_eq!(value::<u64>(&scrape(&server), "gameserver_matches_ended_total"), 1);
}

#[test]
fn each_commit_is_a_call_of_the_store() {
    let server = Server::start();
    let (_, _, mut sockets) = server.tictactoe();
    let counts = || {
        let text = scrape(&server);
        let count = |name: &str| value::<u64>(&text, &format!("gameserver_{name}_seconds_count"));
        (count("commit_duration"), count("store_call_duration"))
    };
    let before = counts();
    for (turn, cell) in [4, 0, 8, 1, 2].into_iter().enumerate() {
        sockets[turn % 2].accepted(turn as u64 + 1, &json!({ "place": cell }));
    }
    let after = counts();
    assert_eq!(after.0 - before.0, 5, "{before:?}, {after:?}");
    assert!(after.1 - before.1 >= 5, "{before:?}, {after:?}");
}

#[test]
fn prometheus_takes_the_figures() {
    let server = Server::start();
    let (_, _, mut sockets) = server.tictactoe();
    sockets[0].accepted(1, &json!({"place": 4}));
    let checked = promtool(&["check", "metrics"], &scrape(&server));
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}

/// Whether panels are such as Grafana draws: each of a known type, in its own place on a grid of 24
/// columns, with targets that have names of their own.
fn panels_fit(panels: &[Value]) {
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()), "{panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        let [x, y, width, height] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(x + width <= 24, "{panel}");
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{panel} lies upon another");
        }
        let names = panel["targets"].as_array().unwrap().iter().map(|target| &target["refId"]);
        let names: Vec<_> = names.map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{panel}");
    }
}

#[test]
fn dashboard_and_alerts_use_figures_that_there_are() {
    let server = Server::start();
    let text = scrape(&server);
    let mut known = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        known.insert(name.to_owned());
        if kind == "histogram" {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    for file in ["alerts.yaml", "dashboard.json"] {
        let used = names(&fs::read_to_string(monitoring(file)).unwrap());
        assert!(used.len() > 10, "{file}: this test finds nothing any more");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    let checked = promtool(&["check", "rules", monitoring("alerts.yaml").to_str().unwrap()], "");
    assert!(checked.status.success(), "{checked:?}");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(monitoring("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    panels_fit(panels);
    let expressions = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let rules = expressions.enumerate().fold(
        String::from("groups:\n- name: x\n  rules:\n"),
        |all, (n, target)| {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            format!("{all}  - record: x:{n}\n    expr: '{expression}'\n")
        },
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(rules.as_bytes()).unwrap();
    let checked = promtool(&["check", "rules", file.path().to_str().unwrap()], "");
    assert!(checked.status.success(), "{rules}{checked:?}");
}

#[test]
fn a_page_shows_how_it_is() {
    let server = Server::start();
    let (_, _, _sockets) = server.tictactoe();
    // The store is asked whether it is ready, and may be busy with another test's.
    let ready = |page: &Answer| page.text().contains("<span class=\"well\">ready</span>");
    let page = until("it is ready", || Some(call(server.admin, "GET", "/").send()).filter(ready));
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let text = page.text();
    for part in ["<span class=\"well\">ready</span>", "nodes: 1", "<svg", "http-equiv=\"refresh\""]
    {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(text.contains("<h2>Players</h2><p><b>2</b>"), "{text}");
    assert!(!text.contains("<script") && !text.contains("{{"), "{text}");
    // It is not for players.
    assert!(!server.call("GET", "/").send().text().contains("class=\"well\""));
}

#[test]
fn a_socket_that_was_refused_was_none() {
    let server = Server::start();
    upgrade(server.public, "/v1/play/tictactoe/socket").refused(401);
    let text = scrape(&server);
    assert_eq!(value::<u64>(&text, "gameserver_sockets_opened_total"), 0);
    let series = "gameserver_http_requests_total{method=\"GET\",route=\"/v1/play/{game}/socket\",status=\"4xx\"}";
    assert_eq!(value::<u64>(&text, series), 1);
}

#[test]
fn the_wait_for_others_is_timed() {
    let server = Server::start();
    let wish = json!({"game": "tictactoe"});
    let users = [server.guest(), server.guest()];
    let tickets = users.each_ref().map(|user| server.post(user, "/v1/tickets", &wish).expect(201));
    let path = format!("/v1/tickets/{}?wait=20", tickets[0]["id"].as_str().unwrap());
    assert_eq!(server.get(&users[0], &path).expect(200)["state"], "matched");
    until("both are counted", || {
        let text = scrape(&server);
        let waited: u64 = value(&text, "gameserver_matchmaking_wait_seconds_count");
        (waited == 2).then_some(())
    });
    let seconds: f64 = value(&scrape(&server), "gameserver_matchmaking_wait_seconds_sum");
    assert!((0.0..60.0).contains(&seconds), "{seconds}");
}
