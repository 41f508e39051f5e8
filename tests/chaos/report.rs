//! What a run says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check::{Broken, History, Record, Sent, Violation};
use crate::script::Fault;

/// Violations that are shown; the first ones tell most.
const SHOWN_MAX: usize = 40;

/// Says what was done, what came of it, and how long matches stood still.
pub fn print(seed: u64, faults: &[Fault], histories: &[History], violations: &[Violation]) {
    let mut by_kind: BTreeMap<_, usize> = BTreeMap::new();
    for fault in faults {
        *by_kind.entry(fault.kind).or_default() += 1;
    }
    let records = || histories.iter().flat_map(|history| &history.records);
    let of = |broken| violations.iter().filter(|violation| violation.broken == broken).count();
    let told: usize =
        records().map(|record| record.sockets.iter().map(Vec::len).sum::<usize>()).sum();
    println!("seed             {seed}");
    println!("faults           {} {by_kind:?}", faults.len());
    println!("matches          {}", histories.len());
    println!("events           {} logged, {told} seen", sum(histories, |h| h.log.len()));
    println!("sockets          {}", records().map(|record| record.sockets.len()).sum::<usize>());
    println!("acknowledgements {}", records().map(|record| record.acks.len()).sum::<usize>());
    println!("lost             {}", of(Broken::LostAck));
    println!("doubled          {}", of(Broken::Doubled));
    println!("violations       {}", violations.len());
    stood_still("all", faults.iter(), histories);
    for kind in by_kind.keys() {
        let same = faults.iter().filter(|fault| fault.kind == *kind);
        stood_still(&format!("{kind:?}"), same, histories);
    }
    for violation in violations.iter().take(SHOWN_MAX) {
        println!("{violation}");
    }
}

fn sum(histories: &[History], count: impl Fn(&History) -> usize) -> usize {
    histories.iter().map(count).sum()
}

/// How long each match of turns stood still in each fault: the longest that one of its commands
/// waited for its `ack` with the fault in between. Matches of other nodes are among them.
fn stood_still<'a>(name: &str, faults: impl Iterator<Item = &'a Fault>, histories: &[History]) {
    let turns = || histories.iter().filter(|history| !history.relay);
    let longest = |fault: &'a Fault| turns().filter_map(|history| longest_wait(history, fault));
    let mut waits: Vec<Duration> = faults.flat_map(longest).collect();
    waits.sort_unstable();
    let at = |per_cent: usize| {
        let rank = (waits.len() * per_cent).div_ceil(100).saturating_sub(1);
        waits.get(rank).map_or(0, Duration::as_millis)
    };
    println!(
        "stood still      {name:16} {:5} matches: p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
        waits.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

fn longest_wait(history: &History, fault: &Fault) -> Option<Duration> {
    let wait = |record: &Record, sent: &Sent| {
        let ack = record.acks.iter().find(|ack| ack.id == sent.id)?;
        let lay_between = fault.from <= ack.at && fault.to >= sent.at;
        lay_between.then(|| ack.at - sent.at)
    };
    let records = history.records.iter();
    records.flat_map(|record| record.sent.iter().filter_map(move |s| wait(record, s))).max()
}
