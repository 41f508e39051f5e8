//! TLS on the public listener, as OpenSSL's client sees it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Socket, call};
use crate::harness::{Server, command_in, field, until};
use crate::postgres;

/// A certificate that signs itself, and its key.
pub struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// A new one for this name.
    pub fn new(name: &str) -> Self {
        let certificate = Self { dir: tempfile::tempdir().unwrap() };
        certificate.renew(name);
        certificate
    }

    /// Puts another in its place.
    fn renew(&self, name: &str) {
        let fresh = tempfile::tempdir().unwrap();
        let (key, certificate) = (fresh.path().join("key.pem"), fresh.path().join("cert.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &format!("/CN={name}")])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        std::fs::copy(&key, self.key()).unwrap();
        std::fs::copy(&certificate, self.certificate()).unwrap();
    }

    /// Its key, in PEM.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// A server that shows it.
    pub fn server(&self, settings: &[(&str, &str)]) -> Server {
        let (certificate, key) = (self.certificate(), self.key());
        let files = [
            ("TLS_CERT_FILE", certificate.to_str().unwrap()),
            ("TLS_KEY_FILE", key.to_str().unwrap()),
        ];
        Server::with(&[&files, settings].concat())
    }
}

/// OpenSSL's client, not started yet.
fn client(server: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.to_string()]).args(args);
    command
}

/// What it says of a handshake and of the certificate.
fn handshake(server: SocketAddr, args: &[&str]) -> Output {
    client(server, args).stdin(Stdio::null()).output().unwrap()
}

fn subject(server: SocketAddr) -> String {
    let output = String::from_utf8(handshake(server, &[]).stdout).unwrap();
    output.lines().find(|line| line.starts_with("subject=")).unwrap_or_default().to_owned()
}

/// A port that is in the clear, with OpenSSL's client between it and the server.
pub struct Tunnel {
    /// The port.
    pub address: SocketAddr,
    children: Arc<Mutex<Vec<Child>>>,
}

impl Tunnel {
    /// Starts one, with these arguments for the client.
    pub fn to(server: SocketAddr, args: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let children: Arc<Mutex<Vec<Child>>> = Arc::default();
        let kept = Arc::clone(&children);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                kept.lock().unwrap().push(carry(stream, client(server, args)));
            }
        });
        Self { address, children }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in self.children.lock().unwrap().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lets a client carry one connection.
fn carry(stream: TcpStream, mut client: Command) -> Child {
    let client = client.arg("-quiet");
    let piped = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (from, to) = (stream.try_clone().unwrap(), stream);
    std::thread::spawn(move || pump(from, stdin));
    std::thread::spawn(move || {
        pump(stdout, &to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    child
}

/// `std::io::copy` lets the kernel do it, which waits for more than there is.
fn pump(mut from: impl io::Read, mut to: impl io::Write) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn a_match_is_played_over_tls_of_either_version() {
    let certificate = Certificate::new("play");
    for version in [&["-tls1_2"], &["-tls1_3"]] as [&'static [&'static str]; 2] {
        let mut server = certificate.server(&[]);
        let tunnel = Tunnel::to(server.public, version);
        server.public = tunnel.address;
        let (_, _, mut sockets) = server.tictactoe();
        for (id, cell) in [0, 3, 1, 4, 2].into_iter().enumerate() {
            let id = id as u64;
            sockets[usize::from(id % 2 == 1)].accepted(id + 1, &json!({ "place": cell }));
        }
        for socket in &mut sockets {
            assert_eq!(socket.expect("ended")["outcome"]["winners"], json!([0]));
            assert_eq!(socket.closed(), 1000);
        }
    }
}

#[test]
fn http_1_is_what_is_spoken_and_old_versions_are_not() {
    let certificate = Certificate::new("versions");
    let server = certificate.server(&[]);
    let agreed = handshake(server.public, &["-alpn", "h2,http/1.1"]);
    let text = String::from_utf8_lossy(&agreed.stdout).into_owned();
    assert!(text.contains("ALPN protocol: http/1.1"), "{text}");
    assert!(text.contains("TLSv1.3"), "{text}");
    assert!(!handshake(server.public, &["-alpn", "h2"]).status.success());
    let old = handshake(server.public, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!old.status.success(), "{old:?}");
}

#[test]
fn who_does_not_speak_tls_is_told_and_who_says_nothing_is_let_go() {
    let certificate = Certificate::new("mistaken");
    let server = certificate.server(&[]);
    let mut silent = TcpStream::connect(server.public).unwrap();
    let answer = call(server.public, "GET", "/v1/games").send();
    let problem = answer.expect(400);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(problem["detail"].as_str().unwrap().contains("https://"), "{problem}");
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn who_shakes_hands_and_comes_to_no_end_has_a_place_for_a_while_and_no_longer() {
    let certificate = Certificate::new("slow");
    let server = certificate.server(&[("CONNECTIONS_MAX", "2")]);
    // The head of a handshake's record, whose rest does not come.
    let half = || {
        let mut stream = TcpStream::connect(server.public).unwrap();
        stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        stream
    };
    let (began, mut slow) = (Instant::now(), [half(), half()]);
    // Both places are taken: the next one waits until they are given up.
    assert!(subject(server.public).contains("slow"));
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    for stream in &mut slow {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it is let go");
    }
}

#[test]
fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let certificate = Certificate::new("first");
    let mut server = certificate.server(&[]);
    let direct = server.public;
    assert!(subject(direct).contains("first"));
    let tunnel = Tunnel::to(direct, &["-tls1_3"]);
    server.public = tunnel.address;
    let (_, _, [mut mover, _other]) = server.tictactoe();
    certificate.renew("second");
    server.signal(Signal::HUP);
    until("the second certificate", || subject(direct).contains("second").then_some(()));
    // What is open stays open.
    mover.accepted(1, &json!({ "place": 4 }));
    std::fs::write(certificate.key(), "no key").unwrap();
    server.signal(Signal::HUP);
    server.logged(|line| line.contains("the certificate stays as it is"));
    assert!(subject(direct).contains("second"));
    // No signal is needed.
    certificate.renew("third");
    until("the third certificate", || subject(direct).contains("third").then_some(()));
}

#[test]
fn a_certificate_that_can_not_be_used_stops_the_start_with_a_line() {
    let (one, other) = (Certificate::new("one"), Certificate::new("other"));
    let nowhere = Path::new("/nowhere/cert.pem").to_path_buf();
    for (certificate, key, said) in [
        (Some(one.certificate()), None, "GAMESERVER_TLS_KEY_FILE: got nothing"),
        (None, Some(one.key()), "GAMESERVER_TLS_CERT_FILE: got nothing"),
        (Some(nowhere), Some(one.key()), "/nowhere/cert.pem: No such file"),
        (Some(one.key()), Some(one.key()), "it holds no certificate"),
        (Some(one.certificate()), Some(one.certificate()), "cert.pem: "),
        (Some(one.certificate()), Some(other.key()), "GAMESERVER_TLS_CERT_FILE, "),
    ] {
        let data = tempfile::tempdir().unwrap();
        let mut command = command_in(&data);
        if let Some(certificate) = certificate {
            command.env("GAMESERVER_TLS_CERT_FILE", certificate);
        }
        if let Some(key) = key {
            command.env("GAMESERVER_TLS_KEY_FILE", key);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(said), "{said}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn nodes_reach_each_other_over_tls_and_by_the_certificate_of_now() {
    let database = postgres::database();
    let settings = [("DATABASE_URL", database.url.as_str()), ("LEASE_SECONDS", "2")];
    let (one, other) = (Certificate::new("one"), Certificate::new("other"));
    let mut nodes = [one.server(&settings), other.server(&settings)];
    let direct = nodes[0].public;
    let tunnels = [0, 1].map(|node| Tunnel::to(nodes[node].public, &["-tls1_3"]));
    for (node, tunnel) in nodes.iter_mut().zip(&tunnels) {
        node.public = tunnel.address;
    }
    let users = [nodes[0].guest(), nodes[1].guest()];
    let id = nodes[0].seated(&json!({"game": "tictactoe"}), &[&users[0], &users[1]]);
    let mut first = nodes[0].play(&users[0], &id);
    let mut second = nodes[1].play(&users[1], &id);
    first.accepted(1, &json!({"place": 4}));
    assert_eq!(second.event()["event"], json!({"placed": 4}));
    one.renew("renewed");
    nodes[0].signal(Signal::HUP);
    until("the new certificate", || subject(direct).contains("renewed").then_some(()));
    // The other node learns of it when the lease is next renewed.
    until("a socket by way of the other node", || {
        let path = format!("/v1/matches/{id}/socket");
        Socket::open(nodes[1].public, &users[1], &path, None).ok()
    });
}

#[test]
fn where_a_request_comes_from_is_told_by_trusted_proxies_alone() {
    for (proxies, expected) in [("127.0.0.0/8", "203.0.113.7"), ("10.0.0.0/8", "127.0.0.1")] {
        let server = Server::with(&[("TRUSTED_PROXIES", proxies)]);
        call(server.public, "GET", "/v1/games").header("x-forwarded-for", "203.0.113.7").send();
        let line = server.logged(|line| line.contains("/v1/games"));
        assert_eq!(field(&line, "client").unwrap(), expected, "{line}");
    }
    let data = tempfile::tempdir().unwrap();
    let output = command_in(&data).env("GAMESERVER_TRUSTED_PROXIES", "10.0.0.0/33").output();
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(stderr.contains("GAMESERVER_TRUSTED_PROXIES: got") && stderr.contains("10.0.0.0/33"));
}
