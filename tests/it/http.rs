//! HTTP itself: errors, limits, documents, the page.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::client::{Answer, call, open};
use crate::harness::{Server, field, shared};

#[test]
fn what_is_not_there_is_a_problem() {
    let server = shared();
    for (method, path) in [
        ("GET", "/nothing"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/users"),
        ("POST", "/v1/nothing"),
        ("GET", "/v1/users/me/more"),
        ("GET", "//v1/games"),
        ("GET", "/v1/games/"),
        ("GET", "/v1/../v1/games"),
        ("GET", "/assets/../index.html"),
        ("GET", "/assets/nothing.js"),
        ("GET", "/.env"),
        ("GET", "/index.html%00"),
    ] {
        server.call(method, path).send().problem(404);
    }
}

#[test]
fn a_method_that_is_not_taken_names_those_that_are() {
    let server = shared();
    for (method, path, allowed) in [
        ("GET", "/v1/sessions", "POST"),
        ("PUT", "/v1/users/me", "PATCH"),
        ("DELETE", "/v1/games", "GET"),
        ("POST", "/", "GET"),
        ("POST", "/openapi.json", "GET"),
        ("POST", "/v1/play/tictactoe/socket", "GET"),
        ("FROB", "/v1/matches", "POST"),
    ] {
        // 405 comes before 401: none of these has a token.
        let answer = server.call(method, path).send();
        answer.problem(405);
        let allow: Vec<&str> = answer.header("allow").unwrap().split(", ").collect();
        assert!(allow.contains(&allowed), "{path}: {allow:?}");
        assert!(!allow.contains(&method), "{path}: {allow:?}");
    }
}

#[test]
fn head_is_get_without_a_body() {
    let server = shared();
    for path in ["/", "/v1/games", "/openapi.json", "/.well-known/jwks.json"] {
        let (head, get) = (server.call("HEAD", path).send(), server.call("GET", path).send());
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path}");
        }
    }
}

#[test]
fn options_names_the_methods() {
    let server = shared();
    let answer = server.call("OPTIONS", "/v1/users/me").send();
    assert!(matches!(answer.status, 200 | 204 | 405), "{}", answer.status);
    let allow = answer.header("allow").unwrap();
    for method in ["GET", "PATCH", "DELETE"] {
        assert!(allow.contains(method), "{allow}");
    }
}

#[test]
fn request_ids_are_taken_if_sane_and_made_otherwise() {
    let server = shared();
    let id_of = |given: &str| {
        let answer = server.call("GET", "/v1/games").header("X-Request-Id", given).send();
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id_of("trace-1234.abc_DEF"), "trace-1234.abc_DEF");
    for bad in ["", "two words", "<script>", "a\tb", &"x".repeat(1000), "\"quoted\""] {
        let id = id_of(bad);
        assert!(id != bad && (8..=64).contains(&id.len()), "{bad:?} gave {id:?}");
    }
    assert_ne!(id_of(""), id_of(""));
    let health = call(server.admin, "GET", "/healthz").header("X-Request-Id", "of-a-probe").send();
    assert_eq!(health.header("x-request-id"), Some("of-a-probe"));
    server.call("GET", "/v1/games").header("X-Request-Id", "find-me-in-the-log").send();
    let line = server.logged(|line| line.contains("find-me-in-the-log"));
    assert_eq!(field(&line, "status"), Some(json!(200)), "{line}");
    assert!(line.contains("/v1/games"), "{line}");
}

#[test]
fn other_types_of_bodies_are_not_taken() {
    let server = shared();
    let post = |content_type: &str, body: &str| {
        server.call("POST", "/v1/sessions/guest").body(content_type, body).send()
    };
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""] {
        post(content_type, "{}").problem(415);
    }
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"]
    {
        post(content_type, "{}").expect(201);
    }
}

#[test]
fn a_request_has_a_deadline() {
    let server = Server::with(&[("REQUEST_TIMEOUT_SECONDS", "1")]);
    let mut stream = open(server.public).unwrap();
    let head = "POST /v1/sessions/guest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    Answer::read(&mut stream, "POST").unwrap().problem(504);
}

#[test]
fn a_connection_serves_many_requests() {
    let server = shared();
    let mut stream = open(server.public).unwrap();
    let request = "GET /v1/games/relay HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Answer::read(&mut stream, "GET").unwrap().expect(200)["name"], "relay");
    }
    // A refused request does not spoil it, either.
    stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    Answer::read(&mut stream, "GET").unwrap().problem(404);
    stream.write_all(request.repeat(2).as_bytes()).unwrap();
    for _ in 0..2 {
        Answer::read(&mut stream, "GET").unwrap().expect(200);
    }
}

#[test]
fn a_client_may_ask_before_it_sends_a_body() {
    let server = shared();
    let mut stream = open(server.public).unwrap();
    let head = "POST /v1/sessions/guest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream, "POST").unwrap().status, 100);
    stream.write_all(b"{}").unwrap();
    Answer::read(&mut stream, "POST").unwrap().expect(201);
}

#[test]
fn admin_is_not_for_players() {
    let server = shared();
    for path in ["/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline"] {
        server.call("GET", path).send().problem(404);
    }
    for path in ["/v1/games", "/openapi.json"] {
        assert_eq!(call(server.admin, "GET", path).send().status, 404, "{path}");
    }
}

#[test]
fn every_documented_call_is_there() {
    let server = shared();
    let document = server.call("GET", "/openapi.json").send().expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut calls = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let address = path
            .replace("{game}", "tictactoe")
            .replace("{id}", "00000000-0000-7000-8000-000000000000");
        assert!(!address.contains('{'), "{path}");
        for method in operations.as_object().unwrap().keys() {
            if !["get", "post", "patch", "put", "delete"].contains(&method.as_str()) {
                continue;
            }
            let answer = server.call(&method.to_uppercase(), &address).send();
            assert!(
                ![404, 405, 501].contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
            assert!(answer.status < 500, "{method} {path}: {}", answer.status);
            calls += 1;
        }
    }
    assert!(calls >= 20, "{calls}");
}

#[test]
fn the_calls_of_the_contract_are_documented() {
    let server = shared();
    let document = server.call("GET", "/openapi.json").send().expect(200);
    for call in [
        "post /v1/users",
        "post /v1/sessions",
        "post /v1/sessions/guest",
        "post /v1/sessions/refresh",
        "delete /v1/sessions/current",
        "get /v1/users/me",
        "patch /v1/users/me",
        "delete /v1/users/me",
        "get /v1/users/{id}",
        "get /v1/games",
        "get /v1/games/{game}",
        "post /v1/matches",
        "get /v1/matches",
        "get /v1/matches/{id}",
        "post /v1/matches/{id}/players",
        "delete /v1/matches/{id}/players/me",
        "get /v1/matches/{id}/events",
        "get /v1/matches/{id}/socket",
        "get /v1/play/{game}/socket",
        "post /v1/socket-tickets",
        "post /v1/tickets",
        "get /v1/tickets/{id}",
        "delete /v1/tickets/{id}",
        "get /.well-known/jwks.json",
    ] {
        let (method, path) = call.split_once(' ').unwrap();
        assert!(document["paths"][path][method].is_object(), "{call}");
    }
}

#[test]
fn the_messages_are_documented() {
    let server = shared();
    let document = server.call("GET", "/asyncapi.json").send().expect(200);
    assert!(document["asyncapi"].as_str().unwrap().starts_with("3."));
    let text = document.to_string();
    for name in [
        "command",
        "chat",
        "ping",
        "welcome",
        "event",
        "ack",
        "presence",
        "pong",
        "ended",
        "error",
        "gameserver.v1.json",
        "gameserver.v1.msgpack",
    ] {
        assert!(text.contains(&format!("\"{name}\"")), "{name}");
    }
}

/// The addresses of its own that a page or a module refers to.
fn references(text: &str) -> Vec<String> {
    let quoted = text.split('"');
    let path = |quoted: &str| match quoted.strip_prefix("./") {
        Some(module) => Some(format!("/assets/{module}")),
        None => quoted.starts_with("/assets/").then(|| quoted.to_owned()),
    };
    quoted.filter_map(path).filter(|path| !path.contains(char::is_whitespace)).collect()
}

#[test]
fn the_page_and_all_it_needs_are_there() {
    let server = shared();
    let page = server.call("GET", "/").send();
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));

    let mut paths = references(&page.text());
    assert!(!paths.is_empty(), "the page refers to nothing");
    let mut index = 0;
    while index < paths.len() {
        let asset = server.call("GET", &paths[index]).send();
        assert_eq!(asset.status, 200, "{}", paths[index]);
        let caching = asset.header("cache-control").unwrap();
        assert!(caching.contains("immutable") && caching.contains("max-age=31536000"), "{caching}");
        assert!(hash_of(&paths[index]).is_some(), "{}", paths[index]);
        for found in references(&asset.text()) {
            if !paths.contains(&found) {
                paths.push(found);
            }
        }
        index += 1;
    }
    assert!(index >= 4, "{paths:?}");
}

/// The content's hash in an asset's name, `app.0123456789abcdef.js`.
fn hash_of(path: &str) -> Option<&str> {
    let hash = path.rsplit('/').next()?.split('.').nth(1)?;
    (hash.len() >= 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hash)
}

#[test]
fn the_page_comes_compressed_and_only_when_it_changed() {
    let server = shared();
    let get = |name: &str, value: &str| server.call("GET", "/").header(name, value).send();
    let plain = server.call("GET", "/").send();
    assert_eq!(plain.header("content-encoding"), None);
    for accepted in ["gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1", "deflate, GZIP"] {
        let packed = get("Accept-Encoding", accepted);
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{accepted}");
        assert!(packed.header("vary").unwrap().to_lowercase().contains("accept-encoding"));
        assert!(packed.body.starts_with(&[0x1F, 0x8B]) && packed.body.len() < plain.body.len());
    }
    for refused in ["identity", "gzip;q=0", "br", ""] {
        let answer = get("Accept-Encoding", refused);
        assert_eq!(answer.header("content-encoding"), None, "{refused}");
        assert_eq!(answer.body, plain.body);
    }
    let tag = plain.header("etag").unwrap();
    let list = format!("\"other\", {tag}");
    for known in [tag, tag.trim_start_matches("W/"), "*", &list] {
        let answer = get("If-None-Match", known);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), Some(tag));
    }
    assert_eq!(get("If-None-Match", "\"other\"").status, 200);
}

#[test]
fn lists_and_errors_are_not_cached() {
    let server = shared();
    let user = server.guest();
    let answer = server.get(&user, "/v1/users/me");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
}

#[test]
fn metrics_are_prometheus_text() {
    let server = shared();
    let answer = call(server.admin, "GET", "/metrics").send();
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    assert!(answer.text().contains("# TYPE "), "{}", answer.text());
}

#[test]
fn work_for_a_client_that_went_away_harms_nobody() {
    let server = shared();
    for _ in 0..20 {
        let mut stream = open(server.public).unwrap();
        let body = json!({"username": "nobody", "password": "correct horse"}).to_string();
        let head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        drop(stream);
    }
    let mut stream = open(server.public).unwrap();
    stream.write_all(b"GET /v1/games HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let _: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
}
