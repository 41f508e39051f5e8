//! The sandbox of plugins, from the side of modules: what none may do, and that plugins and built-in
//! games of the same rules give the same matches.

// Helpers are `pub` for each other, not for other crates.
#![allow(unreachable_pub)]

#[path = "../support/games.rs"]
mod games;
#[path = "../support/wat.rs"]
mod wat;

mod bombs;
mod hostile;
mod interface;
mod same_rules;

use std::sync::Arc;

use gameserver::games::wasm::{Loaded, Plugin};
use gameserver::games::{Game, GameType as _, Setup};
use serde_json::value::RawValue;

/// A match of two.
fn start(plugin: &Arc<Plugin>) -> Box<dyn Game> {
    let setup = Setup { players: 2, seed: 1, options: serde_json::Map::new() };
    Loaded(Arc::clone(plugin)).start(&setup).unwrap_or_else(|why| panic!("{why:?}"))
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}
