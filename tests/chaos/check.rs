//! Holds what bots saw against the log: a pure function, tested with histories that are broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use serde_json::Value;

/// One match: its log at the end and what everybody in it wrote down.
pub struct History {
    pub id: String,
    /// Whether its messages are passed on and not kept.
    pub relay: bool,
    pub log: Vec<Item>,
    pub records: Vec<Record>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub seq: u64,
    pub seat: Option<u64>,
    pub event: Value,
}

/// What one player or spectator sent and saw.
#[derive(Clone, Default)]
pub struct Record {
    pub seat: Option<u64>,
    pub sent: Vec<Sent>,
    pub acks: Vec<Ack>,
    /// Events as they came, socket after socket.
    pub sockets: Vec<Vec<Item>>,
    /// What was wrong at the time.
    pub notes: Vec<String>,
}

/// A command, when it was first sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: u64,
    pub command: Value,
    pub at: Instant,
}

/// An acknowledgement.
#[derive(Clone, Debug)]
pub struct Ack {
    pub id: u64,
    pub seq: u64,
    pub at: Instant,
}

/// How a promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// What was acknowledged is not in the log where the `ack` says.
    LostAck,
    /// A command was applied twice, or one that nobody sent.
    Doubled,
    /// Somebody saw an event twice, or late.
    Reordered,
    /// A number is missing.
    Gap,
    /// Two views of one number differ.
    Differs,
    /// A bot complained while it played.
    Complaint,
}

/// A broken promise.
#[derive(Debug)]
pub struct Violation {
    pub broken: Broken,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.broken, self.text)
    }
}

/// All that is wrong with a history.
pub fn violations(history: &History) -> Vec<Violation> {
    let mut found = Found { id: &history.id, violations: Vec::new() };
    for record in &history.records {
        for note in &record.notes {
            found.add(Broken::Complaint, format!("seat {:?}: {note}", record.seat));
        }
    }
    if history.relay {
        check_room(history, &mut found);
    } else {
        check_log(&history.log, &mut found);
        for record in &history.records {
            check_view(&history.log, record, &mut found);
        }
        check_agreement(history, &mut found);
        check_commands(history, &mut found);
    }
    found.violations
}

struct Found<'a> {
    id: &'a str,
    violations: Vec<Violation>,
}

impl Found<'_> {
    fn add(&mut self, broken: Broken, text: impl fmt::Display) {
        self.violations.push(Violation { broken, text: format!("match {}: {text}", self.id) });
    }
}

fn check_log(log: &[Item], found: &mut Found) {
    for (item, seq) in log.iter().zip(1..) {
        if item.seq != seq {
            return found.add(Broken::Gap, format!("the log has {item:?} at {seq}"));
        }
    }
}

/// Everything once, in order, up to the end, as the log has it.
fn check_view(log: &[Item], record: &Record, found: &mut Found) {
    let who = record.seat;
    let mut last = 0;
    for item in record.sockets.iter().flatten() {
        if item.seq <= last {
            found.add(Broken::Reordered, format!("seat {who:?} saw after {last}: {item:?}"));
        } else if item.seq > last + 1 {
            found.add(Broken::Gap, format!("seat {who:?} saw after {last}: {item:?}"));
        }
        last = last.max(item.seq);
        let logged = log.iter().find(|logged| logged.seq == item.seq);
        if logged != Some(item) {
            let text = format!("seat {who:?} saw {item:?}, the log has {logged:?}");
            found.add(Broken::Differs, text);
        }
    }
    let end = log.last().map_or(0, |item| item.seq);
    if last < end {
        found.add(Broken::Gap, format!("seat {who:?} saw {last} of {end}"));
    }
}

/// All who saw a number saw the same: told apart from the log, which could be wrong itself.
fn check_agreement(history: &History, found: &mut Found) {
    let mut seen: BTreeMap<u64, &Item> = BTreeMap::new();
    for item in history.records.iter().flat_map(|record| record.sockets.iter().flatten()) {
        let first = *seen.entry(item.seq).or_insert(item);
        if first != item {
            found.add(Broken::Differs, format!("some saw {first:?}, others {item:?}"));
        }
    }
}

/// What one command did: its first event and the number of its last.
struct Applied<'a> {
    seat: Option<u64>,
    event: &'a Value,
    last: u64,
}

/// The log as commands: what follows from one is part of it.
fn applied(log: &[Item]) -> Vec<Applied<'_>> {
    let mut commands: Vec<Applied> = Vec::new();
    let mut within = false;
    for Item { seq, seat, event } in log {
        let has = |name: &str| event.get(name).is_some();
        if has("placed") || has("flipped") {
            within = true;
            commands.push(Applied { seat: *seat, event, last: *seq });
        } else if within && (has("kept") || has("hidden") || has("ended")) {
            if let Some(command) = commands.last_mut() {
                command.last = *seq;
            }
        } else {
            within = false;
        }
    }
    commands
}

fn is_of(event: &Value, command: &Value) -> bool {
    let same = |event_name: &str, command_name: &str| {
        let event = event.get(event_name);
        event.is_some() && event == command.get(command_name)
    };
    same("placed", "place") || same("flipped", "flip")
}

/// Each acknowledged command is there once, where its `ack` says, and nothing else is.
fn check_commands(history: &History, found: &mut Found) {
    let applied = applied(&history.log);
    for record in history.records.iter().filter(|record| record.seat.is_some()) {
        let mut places = BTreeMap::new();
        for ack in &record.acks {
            let who = record.seat;
            if *places.entry(ack.id).or_insert(ack.seq) != ack.seq {
                found.add(Broken::Doubled, format!("seat {who:?} got another seq in {ack:?}"));
            }
            let sent = record.sent.iter().find(|sent| sent.id == ack.id);
            let there = applied.iter().any(|command| {
                let same = sent.is_some_and(|sent| is_of(command.event, &sent.command));
                same && command.seat == who && command.last == ack.seq
            });
            if !there {
                found.add(Broken::LostAck, format!("seat {who:?}: {ack:?} of {sent:?}"));
            }
        }
        let acked: BTreeSet<u64> = places.into_values().collect();
        for command in applied.iter().filter(|command| command.seat == record.seat) {
            // Every bot ends with nothing in flight, so what was applied was acknowledged.
            if !acked.contains(&command.last) {
                let Applied { seat, event, last } = command;
                found.add(Broken::Doubled, format!("seat {seat:?}: {event} up to {last}, no ack"));
            }
        }
        let ids: BTreeSet<u64> = record.acks.iter().map(|ack| ack.id).collect();
        if acked.len() < ids.len() {
            let text =
                format!("seat {:?}: {} acks of {} places", record.seat, ids.len(), acked.len());
            found.add(Broken::LostAck, text);
        }
    }
}

/// A room may lose messages in a crash, but no number names two, and no socket gets one twice.
fn check_room(history: &History, found: &mut Found) {
    let mut named: BTreeMap<u64, Item> = BTreeMap::new();
    let mut name = |item: Item, found: &mut Found| {
        let first = named.entry(item.seq).or_insert_with(|| item.clone());
        if *first != item {
            found.add(Broken::Differs, format!("one number names {first:?} and {item:?}"));
        }
    };
    let mut last = 0;
    for item in &history.log {
        if item.seq <= last {
            found.add(Broken::Reordered, format!("the log has after {last}: {item:?}"));
        }
        last = item.seq;
        name(item.clone(), found);
    }
    for record in &history.records {
        for socket in &record.sockets {
            check_room_socket(socket, record.seat, found);
            for item in socket {
                name(item.clone(), found);
            }
        }
        for ack in &record.acks {
            match record.sent.iter().find(|sent| sent.id == ack.id) {
                Some(Sent { command, .. }) => {
                    let event = command.clone();
                    name(Item { seq: ack.seq, seat: record.seat, event }, found);
                }
                None => found.add(Broken::LostAck, format!("nobody sent what {ack:?} is of")),
            }
        }
    }
}

fn check_room_socket(socket: &[Item], seat: Option<u64>, found: &mut Found) {
    let mut last = 0;
    let mut messages = BTreeSet::new();
    for item in socket {
        if item.seq <= last {
            found.add(Broken::Reordered, format!("seat {seat:?} saw after {last}: {item:?}"));
        }
        last = item.seq;
        if item.event.get("send").is_some() && !messages.insert(item.event.to_string()) {
            found.add(Broken::Doubled, format!("seat {seat:?} got on one socket again: {item:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(seq: u64, seat: Option<u64>, event: Value) -> Item {
        Item { seq, seat, event }
    }

    fn sent(id: u64, command: Value) -> Sent {
        Sent { id, command, at: Instant::now() }
    }

    fn ack(id: u64, seq: u64) -> Ack {
        Ack { id, seq, at: Instant::now() }
    }

    /// A match in which all is well: one command of one event, one of two, one that ends it.
    fn sound() -> History {
        let log = vec![
            item(1, None, json!({"started": {"players": 2}})),
            item(2, Some(0), json!({"flipped": 3, "card": 1})),
            item(3, Some(0), json!({"flipped": 5, "card": 2})),
            item(4, Some(0), json!({"hidden": [3, 5]})),
            item(5, Some(1), json!({"flipped": 3, "card": 1})),
            item(6, None, json!({"ended": {"reason": "completed"}})),
        ];
        let sockets = vec![log[..2].to_vec(), log[2..].to_vec()];
        let first = Record {
            seat: Some(0),
            sent: vec![sent(1, json!({"flip": 3})), sent(2, json!({"flip": 5}))],
            acks: vec![ack(1, 2), ack(2, 4), ack(2, 4)],
            sockets: sockets.clone(),
            notes: Vec::new(),
        };
        let second = Record {
            seat: Some(1),
            sent: vec![sent(1, json!({"flip": 3}))],
            acks: vec![ack(1, 6)],
            sockets: sockets.clone(),
            notes: Vec::new(),
        };
        let watcher = Record { sockets, ..Record::default() };
        History { id: "m".into(), relay: false, log, records: vec![first, second, watcher] }
    }

    fn room() -> History {
        let message = |seq| item(seq, Some(0), json!({"send": {"n": seq}}));
        let author = Record {
            seat: Some(0),
            sent: vec![sent(1, json!({"send": {"n": 2}})), sent(2, json!({"send": {"n": 9}}))],
            acks: vec![ack(1, 2), ack(2, 9)],
            ..Record::default()
        };
        let other = Record {
            seat: Some(1),
            // A crash lay between: numbers went on above.
            sockets: vec![vec![message(2)], vec![message(9)]],
            ..Record::default()
        };
        let log = vec![item(1, Some(0), json!({"joined": {"seat": 0}}))];
        History { id: "r".into(), relay: true, log, records: vec![author, other] }
    }

    fn broken(mut history: History, breaks: impl FnOnce(&mut History)) -> BTreeSet<Broken> {
        breaks(&mut history);
        violations(&history).iter().map(|violation| violation.broken).collect()
    }

    #[track_caller]
    fn caught(history: History, expected: Broken, breaks: impl FnOnce(&mut History)) {
        let found = broken(history, breaks);
        assert!(found.contains(&expected), "{expected:?} is not among {found:?}");
    }

    #[test]
    fn what_is_sound_passes() {
        assert!(broken(sound(), |_| ()).is_empty());
        assert!(broken(room(), |_| ()).is_empty());
    }

    #[test]
    fn an_acknowledged_command_that_is_lost_is_caught() {
        // It was never committed, though everybody but the author agrees.
        caught(sound(), Broken::LostAck, |history| {
            history.log.truncate(4);
            for record in &mut history.records {
                record.sockets[1].truncate(2);
            }
        });
        caught(sound(), Broken::LostAck, |history| history.records[0].acks[0].seq = 3);
        caught(sound(), Broken::LostAck, |history| {
            history.records[0].sent[0].command = json!({"flip": 4});
        });
    }

    #[test]
    fn an_ack_of_an_earlier_event_of_the_command_is_caught() {
        caught(sound(), Broken::LostAck, |history| history.records[1].acks[0].seq = 5);
    }

    #[test]
    fn a_command_that_is_applied_twice_is_caught() {
        caught(sound(), Broken::Doubled, |history| {
            let again = item(7, Some(1), json!({"flipped": 3, "card": 1}));
            history.log.push(again.clone());
            for record in &mut history.records {
                record.sockets[1].push(again.clone());
            }
        });
        caught(sound(), Broken::Doubled, |history| history.records[0].acks[2].seq = 2);
    }

    #[test]
    fn a_gap_is_caught() {
        caught(sound(), Broken::Gap, |history| drop(history.log.remove(2)));
        caught(sound(), Broken::Gap, |history| drop(history.records[1].sockets[1].remove(0)));
        caught(sound(), Broken::Gap, |history| drop(history.records[2].sockets[1].pop()));
    }

    #[test]
    fn what_comes_twice_or_out_of_order_is_caught() {
        caught(sound(), Broken::Reordered, |history| history.records[1].sockets[1].swap(0, 1));
        caught(sound(), Broken::Reordered, |history| {
            let again = history.records[2].sockets[0][1].clone();
            history.records[2].sockets[1].insert(0, again);
        });
    }

    #[test]
    fn views_that_differ_are_caught() {
        let other = json!({"flipped": 7, "card": 7});
        caught(sound(), Broken::Differs, |history| {
            history.records[1].sockets[0][1].event = other.clone();
        });
        // Even where the log is of a third opinion.
        caught(sound(), Broken::Differs, |history| history.log[1].event = other.clone());
    }

    #[test]
    fn what_a_bot_complains_of_is_told() {
        caught(sound(), Broken::Complaint, |history| history.records[0].notes.push("?".into()));
    }

    #[test]
    fn a_room_that_tells_twice_or_names_two_is_caught() {
        caught(room(), Broken::Reordered, |history| {
            let again = history.records[1].sockets[0][0].clone();
            history.records[1].sockets[0].push(again);
        });
        caught(room(), Broken::Doubled, |history| {
            let mut again = history.records[1].sockets[0][0].clone();
            again.seq = 3;
            history.records[1].sockets[0].push(again);
        });
        caught(room(), Broken::Differs, |history| history.records[0].acks[1].seq = 2);
        caught(room(), Broken::Differs, |history| history.log[0].seq = 2);
    }
}
