//! What a run says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use gameserver::games::Mode;

use crate::check::{Broken, History, Record, Sent, Violation, inputs};
use crate::fleet::LEASE_SECONDS;
use crate::script::{Fault, Kind};

/// Violations that are shown; the first ones tell most.
const SHOWN_MAX: usize = 40;
/// After a kill a match goes on within the lease and this.
const TAKEOVER_MAX: Duration = Duration::from_secs(1);
/// 99 of 100 matches stand still no longer in a drain.
const DRAIN_P99_MAX: Duration = Duration::from_millis(500);

/// Something that is promised of times, and whether it was so.
#[derive(Debug)]
pub struct Promise {
    pub text: String,
    pub kept: bool,
}

/// Says what was done, what came of it, and how long matches stood still.
pub fn print(
    seed: u64,
    faults: &[Fault],
    histories: &[History],
    violations: &[Violation],
) -> Vec<Promise> {
    let mut by_kind: BTreeMap<_, Vec<&Fault>> = BTreeMap::new();
    for fault in faults {
        by_kind.entry(fault.kind).or_default().push(fault);
    }
    println!("seed             {seed}");
    println!("faults           {}", faults.len());
    for (kind, same) in &by_kind {
        println!("                 {:3} {kind:?}", same.len());
    }
    print_counts(histories, violations);
    println!("stood still      {}", Waits::of(faults, histories));
    let mut promises = Vec::new();
    for (kind, same) in by_kind {
        let waits = Waits::of(same, histories);
        println!("                 {waits}, {kind:?}");
        promises.extend(promise(kind, &waits));
    }
    for Promise { text, kept } in &promises {
        println!("promised         {text}: {}", if *kept { "kept" } else { "NOT KEPT" });
    }
    for violation in violations.iter().take(SHOWN_MAX) {
        println!("{violation}");
    }
    promises
}

fn print_counts(histories: &[History], violations: &[Violation]) {
    let of = |broken| violations.iter().filter(|violation| violation.broken == broken).count();
    let sum = |count: fn(&Record) -> usize| {
        histories.iter().flat_map(|history| &history.records).map(count).sum::<usize>()
    };
    let all = |count: fn(&History) -> usize| histories.iter().map(count).sum::<usize>();
    println!("matches          {}", histories.len());
    println!("events           {} logged", all(|history| history.log.len()));
    println!("                 {} seen", sum(|record| record.heard().count()));
    println!("writes           {} seen by the database", all(|history| history.writes.len()));
    println!("sockets          {}", sum(|record| record.sockets.len()));
    println!("views            {} replayed", sum(|record| record.views.len()));
    println!("acknowledgements {}", sum(|record| record.acks.len()));
    println!("unheard          {} messages of rooms, as crashes may", all(unheard));
    println!("unwritten        {} commands of moving games, as crashes may", all(unwritten));
    println!("lost             {}", of(Broken::LostAck));
    println!("doubled          {}", of(Broken::Doubled));
    println!("two writers      {}", of(Broken::TwoWriters));
    println!("violations       {}", violations.len());
}

/// Says how plugins were played; gives how many matches of them the node went on with that has none.
pub fn print_plugins(histories: &[History], without: usize) -> usize {
    let of_plugins = || {
        let version = |history: &History| {
            let info = history.stored.rules.as_ref()?.info();
            info.plugin.then(|| info.version.clone())
        };
        histories.iter().filter_map(move |history| Some((history, version(history)?)))
    };
    let builds: BTreeSet<String> = of_plugins().map(|(_, version)| version).collect();
    let writer = format!("node-{without}-");
    let taken_over = |(history, _): &(&History, String)| {
        history.writes.iter().any(|write| write.writer.starts_with(&writer))
    };
    let taken_over = of_plugins().filter(taken_over).count();
    let (matches, builds) = (of_plugins().count(), builds.len());
    println!("plugins          {matches} matches of {builds} builds");
    println!("                 {taken_over} of them went on where there is no plugin");
    taken_over
}

/// How many acknowledged messages of a room nobody heard: what its node had not passed on when it
/// died, or nobody was there.
fn unheard(history: &History) -> usize {
    if history.mode != Mode::Relay {
        return 0;
    }
    let heard = history.records.iter().flat_map(Record::heard).map(|item| item.seq);
    let heard: BTreeSet<u64> = heard.collect();
    let acks = history.records.iter().flat_map(|record| &record.acks);
    acks.filter(|ack| !heard.contains(&ack.seq)).count()
}

/// How many acknowledged commands of a game that the clock moves went with the last moments of a life.
fn unwritten(history: &History) -> usize {
    if history.mode != Mode::Ticks {
        return 0;
    }
    let written: BTreeSet<_> = inputs(&history.log).map(|(seat, id, _)| (seat, id)).collect();
    let acked = history.records.iter().flat_map(|record| {
        record.acks.iter().map(|ack| (record.seat, Some(ack.id))).collect::<BTreeSet<_>>()
    });
    acked.filter(|one| !written.contains(one)).count()
}

/// What is promised of a kind of fault.
fn promise(kind: Kind, waits: &Waits) -> Option<Promise> {
    let (what, bound, was) = match kind {
        Kind::Kill => {
            let bound = Duration::from_secs(LEASE_SECONDS) + TAKEOVER_MAX;
            ("the longest after a kill", bound, waits.at(100))
        }
        Kind::Drain => ("99 % of drains", DRAIN_P99_MAX, waits.at(99)),
        _ => return None,
    };
    let text = format!("{what} {} ms, {} ms at most", was.as_millis(), bound.as_millis());
    Some(Promise { text, kept: was <= bound })
}

/// How long each match but rooms stood still in each fault: the longest that one of its commands
/// waited for its `ack` with the fault in between. Matches of other nodes are among them.
struct Waits(Vec<Duration>);

impl Waits {
    fn of<'a>(faults: impl IntoIterator<Item = &'a Fault>, histories: &[History]) -> Self {
        let judged = || histories.iter().filter(|history| history.mode != Mode::Relay);
        let longest =
            |fault: &'a Fault| judged().filter_map(|history| longest_wait(history, fault));
        let mut waits: Vec<Duration> = faults.into_iter().flat_map(longest).collect();
        waits.sort_unstable();
        Self(waits)
    }

    fn at(&self, per_cent: usize) -> Duration {
        let rank = (self.0.len() * per_cent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} matches:", self.0.len())?;
        for (name, per_cent) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
            write!(f, " {name} {} ms", self.at(per_cent).as_millis())?;
        }
        Ok(())
    }
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
