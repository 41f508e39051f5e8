//! A chaos run: bots play on several nodes while these are killed, frozen, drained and cut off, and
//! what the bots saw is held against the log.
//!
//! `script` breaks and heals, `fleet` holds the nodes, `proxy` is what can be cut, `bots` play and
//! keep records, `check` judges them. `CHAOS_SEED`, `CHAOS_NODES`, `CHAOS_BOTS` and `CHAOS_SECONDS`
//! change the run; the seed gives the order of faults, not how threads interleave.

// Helpers are `pub` for each other, not for other crates.
#![allow(unreachable_pub)]

#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../it/client.rs"]
mod client;
#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code, reason = "not every test binary needs all of it")]
#[path = "../support/pairs.rs"]
mod pairs;
#[path = "../support/postgres.rs"]
mod postgres;

mod bots;
mod check;
mod fleet;
mod proxy;
mod random;
mod report;
mod script;

use std::time::Duration;

use bots::Table;
use fleet::Fleet;
use script::Script;

/// Where the run's size comes from; without anything set it is short.
fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {text:?}"))
    })
}

#[test]
fn chaos_loses_and_doubles_nothing() {
    let seed = setting("CHAOS_SEED", 1);
    let nodes = usize::try_from(setting("CHAOS_NODES", 3)).unwrap();
    let bots = usize::try_from(setting("CHAOS_BOTS", 8)).unwrap();
    let length = Duration::from_secs(setting("CHAOS_SECONDS", 15));
    assert!(nodes >= 2, "with fewer than two nodes nobody is left");
    let mut fleet = Fleet::start(nodes);
    let tables = Table::seat_all(&fleet.directory(), bots.div_ceil(2), seed);
    let faults = std::thread::scope(|scope| {
        // Bots end even when the script panics, so that the test does.
        let rest = bots::Rest(&tables);
        for table in &tables {
            scope.spawn(|| table.run());
        }
        let faults = Script::new(seed, length).run(&mut fleet, &tables);
        drop(rest);
        faults
    });
    let histories: Vec<_> = tables.iter().flat_map(|table| table.histories(&fleet)).collect();
    let violations: Vec<_> = histories.iter().flat_map(check::violations).collect();
    report::print(seed, &faults, &histories, &violations);
    assert!(violations.is_empty(), "{} violations with seed {seed}", violations.len());
}
