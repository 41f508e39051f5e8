//! A multiplayer game server: players sign in, find each other and play matches over WebSocket;
//! every move of a match is in the store before anyone is told of it.
//!
//! # The rooms
//! Each depends on those below it alone.
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`cli`] | the command line |
//! | [`serve`] | puts all together; the order of start and drain |
//! | [`observability`] | log lines, the admin listener |
//! | [`http`] | the public listener: REST, upgrades, documents, the page |
//! | [`session`] | one socket: frames in, frames out, rate limit |
//! | [`users`] | accounts and sessions: the rules |
//! | [`matches`] | runs games: the match, its log, its order; which are in memory |
//! | [`plugins`] | which games a directory has: modules that come and go |
//! | [`cluster`] | who plays which match: leases, epochs, forwarding to the owner |
//! | [`config`] | environment → ready values |
//! | [`protocol`] | the messages of a socket, their codecs and limits |
//! | [`store`] | records, and the `SQLite` file that keeps them |
//! | [`auth`] | pure cryptography: passwords, tokens, keys |
//! | [`ratings`] | how strong players are: Glicko-2 |
//! | [`games`] | pure rules: the `Game` trait, the built-in games, and the sandbox of plugins |
//! | [`web`] | the embedded web client |
//! | [`tls`] | connections, in the clear or through TLS |
//! | [`vital`] | ends the process if a task that all depend on fails |
//! | [`telemetry`] | what is counted and timed: figures, traces |
//! | [`platform`] | what differs between operating systems |
//! | [`ids`] | ids and times |
//!
//! The Kubernetes operator (`operator`) is a program of its own: neither links the other.
//!
//! # The way of one message
//! accept → upgrade, token checked before 101 → [`session`] reads a frame → rate → [`protocol`]
//! decodes → the match, under its lock → the game's pure rules → events → the durable log (group
//! commit) → encoded once → the same bytes to every socket's bounded outbox → one write.
//!
//! # Invariants
//! 1. Target cfg stands under [`platform`] alone (and in Cargo.toml).
//! 2. [`games`], [`protocol`], [`ratings`] and [`auth`] do no I/O; clock and randomness are
//!    arguments. The same events always give the same state.
//! 3. Rooms depend downwards only, without circles.
//! 4. Every queue, map, frame, timeout and retry has a named bound and a policy when it is full.
//! 5. An event is in the store before anyone is told of it, where the game promises that.
//! 6. The detail of an internal error is logged with the request's id and never sent.
//!
//! `tests/it/source.rs` checks what of this can be read from the source.

#[cfg(all(feature = "unfenced", not(debug_assertions)))]
compile_error!("a server built with the feature `unfenced` loses moves: it is for a test alone");

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod cluster;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod games;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod ids;
#[cfg(feature = "server")]
pub mod matches;
#[cfg(feature = "server")]
pub mod observability;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "server")]
pub mod platform;
#[cfg(feature = "server")]
pub mod plugins;
#[cfg(feature = "server")]
pub mod protocol;
#[cfg(feature = "server")]
pub mod ratings;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod users;
#[cfg(feature = "server")]
pub mod vital;
#[cfg(feature = "server")]
pub mod web;
