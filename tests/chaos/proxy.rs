//! What stands between a node and the database, or a node and its peers, and can be cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What becomes of bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They pass.
    Open,
    /// Connections are closed, and new ones at once.
    Refusing,
    /// Nothing passes and nobody is told; what waits is passed on when the gate opens: late writes.
    Silent,
    /// The proxy is gone.
    Gone,
}

/// Accepts on a port of its own and passes on to a target.
pub struct Proxy {
    /// Where it accepts.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    gate: Gate,
    target: Option<SocketAddr>,
    /// Both sides of every connection that lives, under its number.
    open: Vec<(u64, TcpStream)>,
    connections: u64,
}

impl Proxy {
    /// Without a target as yet, connections are refused.
    pub fn start(target: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { gate: Gate::Open, target, open: Vec::new(), connections: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.state.lock().unwrap().gate == Gate::Gone {
                    break;
                }
                let accepting = Arc::clone(&accepting);
                // Connecting may take a while; others need not wait for it.
                thread::spawn(move || accepting.connect(client));
            }
        });
        Self { address, shared }
    }

    /// Passes on to another address from now on.
    pub fn aim(&self, target: SocketAddr) {
        self.shared.state.lock().unwrap().target = Some(target);
    }

    /// Cuts, or heals.
    pub fn set(&self, gate: Gate) {
        let mut state = self.shared.state.lock().unwrap();
        state.gate = gate;
        if matches!(gate, Gate::Refusing | Gate::Gone) {
            for (_, stream) in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Gate::Gone);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// Waits while the gate is silent; false if it is closed.
    fn passes(&self) -> bool {
        let state = self.state.lock().unwrap();
        let silent = |state: &mut State| state.gate == Gate::Silent;
        self.changed.wait_while(state, silent).unwrap().gate == Gate::Open
    }

    fn connect(self: Arc<Self>, client: TcpStream) {
        if !self.passes() {
            return;
        }
        let target = self.state.lock().unwrap().target;
        let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let clones = (client.try_clone(), server.try_clone());
        let (Ok(from_client), Ok(from_server)) = clones else { return };
        let Some(number) = self.register([&client, &server]) else { return };
        let other = Arc::clone(&self);
        thread::spawn(move || other.copy(from_server, client));
        self.copy(from_client, server);
        self.state.lock().unwrap().open.retain(|(other, _)| *other != number);
    }

    /// Under the same lock as the cut, so that no connection slips through.
    fn register(&self, sides: [&TcpStream; 2]) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        if matches!(state.gate, Gate::Refusing | Gate::Gone) {
            return None;
        }
        state.connections += 1;
        let number = state.connections;
        for side in sides {
            state.open.push((number, side.try_clone().ok()?));
        }
        Some(number)
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !self.passes() || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // An end passes no silent gate either.
        self.passes();
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
