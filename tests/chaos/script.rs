//! What is broken, when, and for how long.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::FENCED;
use crate::bots::Table;
use crate::fleet::{Fleet, LEASE_SECONDS};
use crate::harness::until;
use crate::proxy::Gate;
use crate::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    Freeze,
    Drain,
    CutFromDatabase,
    CutFromPeers,
    RestartPostgres,
    ReplacePlugins,
}

const KINDS: [Kind; 7] = [
    Kind::Kill,
    Kind::Freeze,
    Kind::Drain,
    Kind::CutFromDatabase,
    Kind::CutFromPeers,
    Kind::RestartPostgres,
    Kind::ReplacePlugins,
];

/// Without a fence: what makes an owner write when it is none any more.
const UNFENCED_KINDS: [Kind; 3] = [Kind::Freeze, Kind::CutFromDatabase, Kind::Freeze];

/// A fault that was.
pub struct Fault {
    pub kind: Kind,
    pub from: Instant,
    pub to: Instant,
}

/// One fault at a time, each kind once in every round.
pub struct Script {
    random: Random,
    length: Duration,
}

impl Script {
    /// Goes on for `length`, and to the end of its first round at least.
    pub fn new(seed: u64, length: Duration) -> Self {
        Self { random: Random(seed), length }
    }

    /// Breaks and heals until its time is over; gives back with all healed.
    pub fn run(mut self, fleet: &mut Fleet, tables: &[Table]) -> Vec<Fault> {
        if !FENCED {
            return self.run_unfenced(fleet, tables);
        }
        let began = Instant::now();
        let mut faults = Vec::new();
        while faults.is_empty() || began.elapsed() < self.length {
            let mut round = KINDS;
            self.random.shuffle(&mut round);
            for kind in round {
                if faults.len() >= KINDS.len() && began.elapsed() >= self.length {
                    break;
                }
                all_go_on(tables);
                sleep(self.pause(100, 400));
                let node = self.random.below(fleet.nodes.len());
                faults.push(self.fault(kind, node, fleet, tables));
            }
        }
        all_go_on(tables);
        faults
    }

    /// Strikes where most is played, once each, and waits for nobody: tables may not go on.
    fn run_unfenced(mut self, fleet: &mut Fleet, tables: &[Table]) -> Vec<Fault> {
        let strike = |kind| {
            sleep(self.pause(500, 1000));
            let node = fleet.busiest().unwrap_or(0);
            self.fault(kind, node, fleet, tables)
        };
        UNFENCED_KINDS.into_iter().map(strike).collect()
    }

    fn fault(&mut self, kind: Kind, node: usize, fleet: &mut Fleet, tables: &[Table]) -> Fault {
        let from = Instant::now();
        match kind {
            Kind::RestartPostgres | Kind::ReplacePlugins => eprintln!("{kind:?}"),
            _ => eprintln!("{kind:?}, node {node}"),
        }
        match kind {
            Kind::Kill => {
                fleet.nodes[node].server.kill9();
                // Sometimes it is back before its lease is over, sometimes not.
                sleep(self.pause(0, LEASE_SECONDS * 1500));
                fleet.restart(node);
            }
            Kind::Freeze => {
                fleet.nodes[node].server.freeze();
                sleep(self.longer_than_lease());
                fleet.nodes[node].server.thaw();
            }
            Kind::Drain => {
                fleet.nodes[node].server.terminate();
                let status = fleet.nodes[node].server.wait();
                assert!(status.success(), "a drain ends well: {status}");
                fleet.restart(node);
            }
            Kind::CutFromDatabase => {
                let gate = self.cut();
                fleet.nodes[node].database.set(gate);
                sleep(self.longer_than_lease());
                fleet.nodes[node].database.set(Gate::Open);
            }
            Kind::CutFromPeers => {
                let gate = self.cut();
                fleet.nodes[node].peers.set(gate);
                sleep(self.pause(500, 2000));
                fleet.nodes[node].peers.set(Gate::Open);
            }
            Kind::RestartPostgres => {
                fleet.cluster.halt();
                sleep(self.pause(0, 1000));
                fleet.cluster.resume();
            }
            Kind::ReplacePlugins => {
                fleet.replace_plugins(&tables.iter().filter_map(Table::plugin_of_turns).collect());
            }
        }
        Fault { kind, from, to: Instant::now() }
    }

    fn cut(&mut self) -> Gate {
        [Gate::Refusing, Gate::Silent][self.random.below(2)]
    }

    fn longer_than_lease(&mut self) -> Duration {
        Duration::from_secs(LEASE_SECONDS) + self.pause(200, 1000)
    }

    fn pause(&mut self, least: u64, most: u64) -> Duration {
        let span = usize::try_from(most - least).unwrap();
        Duration::from_millis(least + self.random.below(span + 1) as u64)
    }
}

/// Waits until every table has got an answer since now: what was healed works.
fn all_go_on(tables: &[Table]) {
    let before: Vec<usize> = tables.iter().map(Table::acks).collect();
    until("all tables play on", || {
        let mut pairs = tables.iter().zip(&before);
        pairs.all(|(table, before)| table.acks() > *before).then_some(())
    });
}
