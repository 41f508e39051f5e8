//! Black-box tests: the real binary, real sockets, nothing of the server's own code.
//!
//! Written against the public contract and `docs/protocol.md`. `harness` starts servers, `client`
//! speaks HTTP and WebSocket by hand, so that it can also speak them wrongly. Tests run in parallel
//! and share one server where they need none of their own. With `TEST_STORE=postgres` all servers
//! store there. `TEST_BINARY` names another build of the server, or what runs one.

// Helpers are `pub` for each other, not for other crates.
#![allow(unreachable_pub)]

mod client;
#[path = "../support/games.rs"]
mod games;
mod harness;
#[path = "../support/pairs.rs"]
mod pairs;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/wat.rs"]
mod wat;

mod accounts;
mod arena;
mod bad_input;
mod check_game;
mod cli;
mod drain;
mod durability;
mod http;
mod logs;
mod matches;
mod metrics;
mod nodes;
mod pairs_wire;
mod platform;
mod plugins;
mod postgres_away;
mod pprof;
mod rates;
mod ratings;
mod relay;
mod sockets;
mod source;
mod tickets;
mod tls;
mod tokens;
mod transfer;
