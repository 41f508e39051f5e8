//! Holds what bots saw against the log: a pure function, tested with histories that are broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use gameserver::games::Mode;
use serde_json::Value;

use crate::replay::Stored;

/// One match: its log at the end and what everybody in it wrote down.
pub struct History {
    pub id: String,
    /// What its game promises.
    pub mode: Mode,
    /// As a node gives it.
    pub log: Vec<Item>,
    /// As the database has it.
    pub stored: Stored,
    /// Who wrote, in the order of writes, as the database saw it.
    pub writes: Vec<Write>,
    pub records: Vec<Record>,
}

/// One change of a match in the database.
#[derive(Clone, Debug)]
pub struct Write {
    /// The event's number; `None` for the match's own row.
    pub seq: Option<u64>,
    /// The match's epoch and node at that moment.
    pub epoch: u64,
    pub node: String,
    /// The process that wrote.
    pub writer: String,
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
    pub sockets: Vec<Heard>,
    /// The views of welcomes; the last is of the end.
    pub views: Vec<Seen>,
    /// What was wrong at the time.
    pub notes: Vec<String>,
}

impl Record {
    /// All events, of all sockets.
    pub fn heard(&self) -> impl Iterator<Item = &Item> {
        self.sockets.iter().flat_map(|heard| &heard.items)
    }
}

/// What came on one socket.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Events up to this one were known before.
    pub after: u64,
    pub items: Vec<Item>,
}

/// A view that a player was given.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The last event that the player had been told of before.
    pub known: u64,
    /// The number of the last event in it.
    pub seq: u64,
    /// The step, where the clock moves the game.
    pub tick: Option<u64>,
    pub view: Value,
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
    /// A view is not what the log makes of the rules, or nobody was given the end's.
    WrongView,
    /// A player came back to a match that was behind what the player had been told.
    Forgotten,
    /// Two processes, or one as two nodes, wrote a match in one epoch.
    TwoWriters,
    /// A write came in an epoch that was over.
    EpochFell,
    /// Ratings are not what the ends of matches have made of them.
    Rating,
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
    check_writers(&history.writes, &mut found);
    match history.mode {
        Mode::Relay => check_room(history, &mut found),
        Mode::Turns => check_durable(history, &mut found),
        Mode::Ticks => check_clocked(history, &mut found),
    }
    found.violations
}

fn check_durable(history: &History, found: &mut Found) {
    if history.log.is_empty() {
        // All else would be missed as well.
        return found.add(Broken::Gap, "there is no log");
    }
    check_log(&history.log, found);
    for record in &history.records {
        check_events(&history.log, record, found);
        check_views(history, record, found);
    }
    check_agreement(history, found);
    check_commands(history, found);
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

/// Every epoch is one process's, as one node; epochs rise in time, and along the log.
fn check_writers(writes: &[Write], found: &mut Found) {
    let mut owners: BTreeMap<u64, &Write> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    let mut latest = 0;
    for write in writes {
        let owner = owners.entry(write.epoch).or_insert(write);
        let same = (&owner.writer, &owner.node) == (&write.writer, &write.node);
        if !same && shared.insert(write.epoch) {
            found.add(Broken::TwoWriters, format!("{owner:?} and {write:?}"));
        }
        if write.epoch < latest {
            found.add(Broken::EpochFell, format!("{write:?} after epoch {latest}"));
        }
        latest = latest.max(write.epoch);
    }
    let mut events: Vec<_> = writes.iter().filter(|write| write.seq.is_some()).collect();
    events.sort_by_key(|write| write.seq);
    for pair in events.windows(2).filter(|pair| pair[1].epoch < pair[0].epoch) {
        found.add(Broken::EpochFell, format!("the log has {:?} after {:?}", pair[1], pair[0]));
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
fn check_events(log: &[Item], record: &Record, found: &mut Found) {
    let who = record.seat;
    let mut last = 0;
    for item in record.heard() {
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

/// Every view is what the log up to its number makes of the rules; one is of the end.
fn check_views(history: &History, record: &Record, found: &mut Found) {
    for seen in &record.views {
        if seen.seq < seen.known {
            found.add(Broken::Forgotten, format!("seat {:?} saw {seen:?}", record.seat));
        }
        check_view(seen, history, record, found);
    }
    check_last_view(history, record, found);
}

fn check_view(seen: &Seen, history: &History, record: &Record, found: &mut Found) {
    let replayed = history.stored.view(record.seat, seen.seq, seen.tick);
    if replayed != seen.view {
        let text = format!("seat {:?} saw {seen:?}, replayed {replayed}", record.seat);
        found.add(Broken::WrongView, text);
    }
}

fn check_last_view(history: &History, record: &Record, found: &mut Found) {
    let end = history.stored.events.last().map(|event| event.seq);
    if record.views.last().map(|seen| seen.seq) != end {
        let text = format!("seat {:?} was not given the view of the end, {end:?}", record.seat);
        found.add(Broken::WrongView, text);
    }
}

/// All who saw a number saw the same: told apart from the log, which could be wrong itself.
fn check_agreement(history: &History, found: &mut Found) {
    let mut seen: BTreeMap<u64, &Item> = BTreeMap::new();
    for item in history.records.iter().flat_map(Record::heard) {
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

/// A crash may lose the last moments of it, so only what was told since counts, and how it ended.
fn check_clocked(history: &History, found: &mut Found) {
    let Some(end) = history.log.last() else {
        return found.add(Broken::Gap, "there is no log");
    };
    check_log(&history.log, found);
    check_inputs(history, found);
    for record in &history.records {
        let who = record.seat;
        // Who saw the end was told of all of this life of the match before it.
        if let Some(heard) = record.sockets.iter().rfind(|heard| !heard.items.is_empty()) {
            let told = history.log.iter().filter(|item| item.seq > heard.after);
            if !heard.items.iter().eq(told) {
                found.add(Broken::Differs, format!("seat {who:?} saw another end: {heard:?}"));
            }
        }
        check_last_view(history, record, found);
        let Some(seen) = record.views.last() else { continue };
        check_view(seen, history, record, found);
        let outcome = history.stored.outcome(seen.seq, seen.tick);
        if serde_json::to_value(&outcome).ok().as_ref() != end.event.get("ended") {
            let text = format!("by the rules it ends with {outcome:?} and not with {end:?}");
            found.add(Broken::WrongView, text);
        }
    }
}

/// What commands the log's steps have, as seat, id and number.
pub fn inputs(log: &[Item]) -> impl Iterator<Item = (Option<u64>, Option<u64>, u64)> {
    log.iter().flat_map(|item| {
        let inputs = item.event["inputs"].as_array().into_iter().flatten();
        inputs.map(|input| (input["seat"].as_u64(), input["id"].as_u64(), item.seq))
    })
}

/// A command is applied once, where its `ack` says.
fn check_inputs(history: &History, found: &mut Found) {
    let mut applied = BTreeSet::new();
    for input @ (seat, id, seq) in inputs(&history.log) {
        let mut players = history.records.iter().filter(|record| record.seat == seat);
        let is_acked = |ack: &Ack| Some(ack.id) == id && ack.seq == seq;
        if !applied.insert((seat, id)) || !players.any(|one| one.acks.iter().any(is_acked)) {
            found.add(Broken::Doubled, format!("seat, id and number are {input:?}"));
        }
    }
}

/// A room may lose messages when its node dies, but no number names two, no socket gets one twice,
/// and none misses one while its node lives.
fn check_room(history: &History, found: &mut Found) {
    let named = check_names(history, found);
    for record in &history.records {
        for heard in &record.sockets {
            check_room_socket(heard, record.seat, found);
            check_room_gaps(heard, record.seat, &named, found);
        }
        for seen in &record.views {
            check_room_view(seen, history, found);
        }
    }
}

/// What each number names, for whoever heard or sent it.
fn check_names(history: &History, found: &mut Found) -> BTreeMap<u64, Item> {
    let mut named: BTreeMap<u64, Item> = BTreeMap::new();
    let mut name = |item: &Item, found: &mut Found| {
        let first = named.entry(item.seq).or_insert_with(|| item.clone());
        if first != item {
            found.add(Broken::Differs, format!("one number names {first:?} and {item:?}"));
        }
    };
    let mut last = 0;
    for item in &history.log {
        if item.seq <= last {
            found.add(Broken::Reordered, format!("the log has after {last}: {item:?}"));
        }
        last = item.seq;
        name(item, found);
    }
    for record in &history.records {
        record.heard().for_each(|item| name(item, found));
        for ack in &record.acks {
            match record.sent.iter().find(|sent| sent.id == ack.id) {
                Some(Sent { command, .. }) => {
                    let event = command.clone();
                    name(&Item { seq: ack.seq, seat: record.seat, event }, found);
                }
                None => found.add(Broken::LostAck, format!("nobody sent what {ack:?} is of")),
            }
        }
    }
    named
}

/// Whether somebody said it, and not the server.
pub fn is_message(event: &Value) -> bool {
    event.get("send").is_some() || event.get("state").is_some()
}

fn check_room_socket(heard: &Heard, seat: Option<u64>, found: &mut Found) {
    let mut last = heard.after;
    let mut messages = BTreeSet::new();
    for item in &heard.items {
        if item.seq <= last {
            found.add(Broken::Reordered, format!("seat {seat:?} saw after {last}: {item:?}"));
        }
        last = item.seq;
        if is_message(&item.event) && !messages.insert(item.event.to_string()) {
            found.add(Broken::Doubled, format!("seat {seat:?} got on one socket again: {item:?}"));
        }
    }
}

/// One socket is one life of the match: its numbers have no gaps, but that nobody is told what they
/// said themselves.
fn check_room_gaps(
    heard: &Heard,
    seat: Option<u64>,
    named: &BTreeMap<u64, Item>,
    found: &mut Found,
) {
    let mut last = heard.after;
    for item in &heard.items {
        for missing in last + 1..item.seq {
            let own = match named.get(&missing) {
                Some(named) => named.seat == seat && is_message(&named.event),
                // Nobody heard it and its `ack` was lost: it may be this seat's own.
                None => true,
            };
            if seat.is_none() || !own {
                let text = format!("seat {seat:?} saw {item:?} and not {missing}");
                return found.add(Broken::Gap, text);
            }
        }
        last = item.seq;
    }
}

/// The shared state is one that somebody has set.
fn check_room_view(seen: &Seen, history: &History, found: &mut Found) {
    let mut sent = history.records.iter().flat_map(|record| &record.sent);
    let state = &seen.view["state"];
    if !state.is_null() && !sent.any(|sent| sent.command.get("state") == Some(state)) {
        found.add(Broken::WrongView, format!("nobody set what was seen: {seen:?}"));
    }
}

#[cfg(test)]
mod tests {
    use gameserver::games::Catalog;
    use serde_json::json;

    use super::*;
    use crate::replay::StoredEvent;

    fn item(seq: u64, seat: Option<u64>, event: Value) -> Item {
        Item { seq, seat, event }
    }

    fn sent(id: u64, command: Value) -> Sent {
        Sent { id, command, at: Instant::now() }
    }

    fn ack(id: u64, seq: u64) -> Ack {
        Ack { id, seq, at: Instant::now() }
    }

    fn heard(after: u64, items: &[Item]) -> Heard {
        Heard { after, items: items.to_vec() }
    }

    fn write(seq: Option<u64>, epoch: u64, writer: &str) -> Write {
        Write { seq, epoch, node: format!("node of {writer}"), writer: writer.into() }
    }

    /// A log of a game as the database would have it.
    fn stored(game: &str, log: &[Item]) -> Stored {
        let is_structural = |event: &Value| {
            ["started", "left", "ended"].iter().any(|name| event.get(name).is_some())
        };
        let event = |item: &Item| StoredEvent {
            seq: item.seq,
            seat: item.seat.map(|seat| u8::try_from(seat).unwrap()),
            structural: is_structural(&item.event),
            event: item.event.to_string(),
        };
        let events = log.iter().map(event).collect();
        let rules = Catalog::new(None, Vec::new()).find(game);
        Stored { rules, seed: 7, options: "{}".into(), events }
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
        let sockets = vec![heard(0, &log[..2]), heard(2, &log[2..])];
        let stored = stored("pairs", &log);
        let seen =
            |seat, seq| Seen { known: 2, seq, tick: None, view: stored.view(seat, seq, None) };
        let views = |seat| [2, 6].map(|seq| seen(seat, seq)).to_vec();
        let first = Record {
            seat: Some(0),
            sent: vec![sent(1, json!({"flip": 3})), sent(2, json!({"flip": 5}))],
            acks: vec![ack(1, 2), ack(2, 4), ack(2, 4)],
            sockets: sockets.clone(),
            views: views(Some(0)),
            notes: Vec::new(),
        };
        let second = Record {
            seat: Some(1),
            sent: vec![sent(1, json!({"flip": 3}))],
            acks: vec![ack(1, 6)],
            sockets: sockets.clone(),
            views: views(Some(1)),
            notes: Vec::new(),
        };
        let watcher = Record { sockets, views: views(None), ..Record::default() };
        let records = vec![first, second, watcher];
        // The match moved after its third event.
        let mut writes: Vec<Write> = (1..=3).map(|seq| write(Some(seq), 1, "a")).collect();
        writes.push(write(None, 2, "b"));
        writes.extend((4..=6).map(|seq| write(Some(seq), 2, "b")));
        History { id: "m".into(), mode: Mode::Turns, log, stored, writes, records }
    }

    /// A match that the clock moves: a crash took what the first player had heard of another life.
    fn clocked() -> History {
        let step = |tick: u64, seat, id| json!({"tick": tick, "inputs": [{"seat": seat, "id": id, "input": {"turn": "up"}}]});
        let outcome = json!({"winners": [0], "draw": false, "reason": "resigned"});
        let log = vec![
            item(1, None, json!({"started": {"players": 2}})),
            item(2, None, step(7, 1, 1)),
            item(3, Some(1), json!({"left": {"seat": 1, "reason": "resigned", "tick": 9}})),
            item(4, None, json!({"ended": outcome})),
        ];
        let stored = stored("arena", &log);
        let views = |seat| {
            vec![Seen { known: 0, seq: 4, tick: Some(9), view: stored.view(seat, 4, Some(9)) }]
        };
        let lost = item(2, None, step(8, 0, 1));
        let first = Record {
            seat: Some(0),
            sent: vec![sent(1, json!({"turn": "up"}))],
            acks: vec![ack(1, 2)],
            sockets: vec![heard(0, &[log[0].clone(), lost]), heard(1, &log[1..])],
            views: views(Some(0)),
            notes: Vec::new(),
        };
        let second = Record {
            seat: Some(1),
            sent: vec![sent(1, json!({"turn": "up"}))],
            acks: vec![ack(1, 2)],
            sockets: vec![heard(0, &log), heard(4, &[])],
            views: views(Some(1)),
            notes: Vec::new(),
        };
        let records = vec![first, second];
        let writes = Vec::new();
        History { id: "c".into(), mode: Mode::Ticks, log, stored, writes, records }
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
            sockets: vec![heard(1, &[message(2)]), heard(8, &[message(9)])],
            ..Record::default()
        };
        let watcher = Record {
            sockets: vec![heard(1, &[message(2), message(3), message(4)])],
            views: vec![Seen { known: 0, seq: 1, tick: None, view: json!({"state": null}) }],
            ..Record::default()
        };
        let log = vec![item(1, Some(0), json!({"joined": {"seat": 0}}))];
        let (stored, writes) = (Stored::default(), Vec::new());
        let records = vec![author, other, watcher];
        History { id: "r".into(), mode: Mode::Relay, log, stored, writes, records }
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
        assert!(broken(clocked(), |_| ()).is_empty());
    }

    #[test]
    fn a_moving_game_whose_end_is_not_the_logs_is_caught() {
        caught(clocked(), Broken::Gap, |history| history.log.clear());
        caught(clocked(), Broken::Gap, |history| drop(history.log.remove(1)));
        caught(clocked(), Broken::Differs, |history| {
            drop(history.records[0].sockets[1].items.remove(0));
        });
        caught(clocked(), Broken::Differs, |history| {
            history.records[1].sockets[0].items[1].event["tick"] = json!(8);
        });
        caught(clocked(), Broken::WrongView, |history| {
            history.records[0].views[0].view["round"] = json!(2);
        });
        caught(clocked(), Broken::WrongView, |history| {
            history.log[3].event["ended"]["winners"] = json!([1]);
        });
        caught(clocked(), Broken::WrongView, |history| drop(history.records[1].views.pop()));
    }

    #[test]
    fn a_command_that_a_moving_game_takes_twice_is_caught() {
        caught(clocked(), Broken::Doubled, |history| {
            let inputs = history.log[1].event["inputs"].as_array_mut().unwrap();
            inputs.push(inputs[0].clone());
        });
        caught(clocked(), Broken::Doubled, |history| history.records[1].acks[0].seq = 3);
    }

    #[test]
    fn an_acknowledged_command_that_is_lost_is_caught() {
        // It was never committed, though everybody but the author agrees.
        caught(sound(), Broken::LostAck, |history| {
            history.log.truncate(4);
            for record in &mut history.records {
                record.sockets[1].items.truncate(2);
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
                record.sockets[1].items.push(again.clone());
            }
        });
        caught(sound(), Broken::Doubled, |history| history.records[0].acks[2].seq = 2);
    }

    #[test]
    fn a_gap_is_caught() {
        caught(sound(), Broken::Gap, |history| history.log.clear());
        caught(sound(), Broken::Gap, |history| drop(history.log.remove(2)));
        caught(sound(), Broken::Gap, |history| drop(history.records[1].sockets[1].items.remove(0)));
        caught(sound(), Broken::Gap, |history| drop(history.records[2].sockets[1].items.pop()));
    }

    #[test]
    fn what_comes_twice_or_out_of_order_is_caught() {
        caught(sound(), Broken::Reordered, |history| {
            history.records[1].sockets[1].items.swap(0, 1);
        });
        caught(sound(), Broken::Reordered, |history| {
            let again = history.records[2].sockets[0].items[1].clone();
            history.records[2].sockets[1].items.insert(0, again);
        });
    }

    #[test]
    fn views_that_differ_are_caught() {
        let other = json!({"flipped": 7, "card": 7});
        caught(sound(), Broken::Differs, |history| {
            history.records[1].sockets[0].items[1].event = other.clone();
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
            let again = history.records[1].sockets[0].items[0].clone();
            history.records[1].sockets[0].items.push(again);
        });
        caught(room(), Broken::Doubled, |history| {
            let mut again = history.records[1].sockets[0].items[0].clone();
            again.seq = 30;
            history.records[1].sockets[0].items.push(again);
        });
        caught(room(), Broken::Differs, |history| history.records[0].acks[1].seq = 2);
        caught(room(), Broken::Differs, |history| history.log[0].seq = 2);
    }

    #[test]
    fn a_message_that_a_room_skips_while_its_node_lives_is_caught() {
        caught(room(), Broken::Gap, |history| {
            drop(history.records[2].sockets[0].items.remove(1));
        });
        // The first after the welcome, too.
        caught(room(), Broken::Gap, |history| {
            drop(history.records[2].sockets[0].items.remove(0));
        });
        caught(room(), Broken::Gap, |history| {
            let last = history.records[2].sockets[0].items[2].clone();
            history.records[1].sockets[0].items.push(last);
        });
        // What it said itself nobody is told.
        assert!(
            broken(room(), |history| history.records[0] = Record {
                sockets: vec![heard(8, &[item(10, Some(1), json!({"send": 1}))])],
                ..history.records[0].clone()
            })
            .is_empty()
        );
    }

    #[test]
    fn a_state_of_a_room_that_nobody_set_is_caught() {
        caught(room(), Broken::WrongView, |history| {
            history.records[2].views[0].view = json!({"state": 5});
        });
    }

    #[test]
    fn a_view_that_the_log_does_not_give_is_caught() {
        caught(sound(), Broken::WrongView, |history| {
            history.records[1].views[0].view["turn"] = json!(1);
        });
        // An event of the log that the players were not told.
        caught(sound(), Broken::WrongView, |history| {
            history.stored.events[1].event = json!({"flipped": 4, "card": 1}).to_string();
        });
        caught(sound(), Broken::WrongView, |history| drop(history.records[2].views.pop()));
    }

    #[test]
    fn a_match_that_fell_behind_its_players_is_caught() {
        caught(sound(), Broken::Forgotten, |history| history.records[0].views[0].known = 3);
    }

    #[test]
    fn two_writers_in_one_epoch_are_caught() {
        caught(sound(), Broken::TwoWriters, |history| {
            history.writes.push(write(Some(7), 2, "a"));
        });
        // A change of the match's row alone is one.
        caught(sound(), Broken::TwoWriters, |history| history.writes.push(write(None, 2, "a")));
        caught(sound(), Broken::TwoWriters, |history| history.writes[1].node = "another".into());
        caught(room(), Broken::TwoWriters, |history| {
            history.writes = vec![write(None, 1, "a"), write(None, 1, "b")];
        });
    }

    #[test]
    fn a_write_in_an_epoch_that_is_over_is_caught() {
        caught(sound(), Broken::EpochFell, |history| history.writes.push(write(None, 1, "a")));
        // Even if it slipped in before what follows it in the log.
        caught(sound(), Broken::EpochFell, |history| history.writes[2].seq = Some(7));
    }
}
