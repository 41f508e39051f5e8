//! What a server owes to the machine it runs on: its service manager, its port, its figures.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{call, open};
use crate::harness::{DEADLINE, Server, command_in, shared, signing_key};

#[test]
fn the_service_manager_is_told_of_start_reload_and_end() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let mut server = command_in(&data)
        .env("GAMESERVER_JWT_PRIVATE_KEY", signing_key())
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(told(), "READY=1");
    kill_process(Pid::from_child(&server), Signal::HUP).unwrap();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1");
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert_eq!(told(), "STOPPING=1");
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_new_server_takes_a_shared_port_over() {
    let mut old = Server::with(&[("SHARE_PORT", "true")]);
    let address = old.public.to_string();
    let new = Server::with(&[("SHARE_PORT", "true"), ("LISTEN", &address)]);
    assert_eq!(new.public, old.public);
    old.terminate();
    assert!(old.wait().success());
    open(new.public).unwrap();
    new.guest();
}

#[test]
fn the_figures_of_the_process_are_told() {
    let text = call(shared().admin, "GET", "/metrics").send().text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    };
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_open_fds") > 2.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    let allocator =
        |state: &str| value(&format!("gameserver_allocator_bytes{{state=\"{state}\"}}"));
    let (allocated, resident) = (allocator("allocated"), value("process_resident_memory_bytes"));
    assert!(allocated > 0.0 && allocated < resident, "{allocated} of {resident}");
    assert!(allocator("resident") >= allocated);
}
