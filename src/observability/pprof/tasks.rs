//! What sockets, requests, matches and background tasks are doing now: Go's `goroutine`.
//!
//! It is read from what they are: nobody keeps a record of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::profile::{Profile, SampleType};
use crate::matches::{MatchSurvey, Registry};
use crate::telemetry::figures::{CONNECTIONS, REQUESTS_ACTIVE, SOCKETS_FORWARDED};
use crate::telemetry::work::{self, State};

const TASKS: SampleType = ("tasks", "count");
/// Matches that the list shows.
const MATCHES_MAX: usize = 1000;

/// For pprof: how many do what, by kind.
pub(super) fn profile(registry: &Registry) -> Profile {
    let mut counts: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    let mut count = |names: &[&str], more: u64| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        *counts.entry(names).or_default() += more;
    };
    let mut sockets = 0;
    registry.survey(|survey| {
        let game = format!("match of {}", survey.game);
        count(&[state(survey), &game], 1);
        for socket in &survey.sockets {
            sockets += 1;
            let whose =
                if socket.seat.is_some() { "socket of a player" } else { "socket of a spectator" };
            count(&[socket.activity.as_str(), whose, &game], 1);
        }
    });
    let (requests, forwarded) = (REQUESTS_ACTIVE.now(), SOCKETS_FORWARDED.now());
    count(&["is answered", "request"], requests);
    count(&["passes bytes on", "socket to another node"], forwarded);
    let idle = CONNECTIONS.now().saturating_sub(sockets + requests + forwarded);
    count(&["waits for a request", "connection"], idle);
    for task in work::ALL {
        count(&[doing(task), task.name], 1);
    }
    let mut profile = Profile::new(&[TASKS], TASKS, &[]);
    for (names, count) in counts.iter().filter(|(_, count)| **count > 0) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        profile.add_named(&names, vec![*count]);
    }
    profile
}

/// For people: a line for each.
pub(super) fn list(registry: &Registry) -> String {
    let mut text = String::new();
    for task in work::ALL {
        let _ = writeln!(text, "{}: {}", task.name, doing(task));
    }
    let (requests, connections) = (REQUESTS_ACTIVE.now(), CONNECTIONS.now());
    let _ = writeln!(text, "connections: {connections}, requests under way: {requests}");
    let _ = writeln!(text, "sockets passed on to other nodes: {}", SOCKETS_FORWARDED.now());
    let mut matches = 0;
    registry.survey(|survey| {
        matches += 1;
        if matches > MATCHES_MAX {
            return;
        }
        let MatchSurvey { id, game, seq, waiting, .. } = survey;
        let _ = writeln!(text, "\nmatch {id} of {game}: {}, event {seq}", state(survey));
        if *waiting > 0 {
            let _ = writeln!(text, "    {waiting} answers wait for the store");
        }
        for socket in &survey.sockets {
            let who = socket.seat.map_or("spectator".into(), |seat| format!("seat {}", seat.0));
            let (does, queued) = (socket.activity.as_str(), socket.queued);
            let _ = writeln!(text, "    socket of {who}: {does}, {queued} messages queued");
        }
    });
    if matches > MATCHES_MAX {
        let _ = writeln!(text, "\nand {} more matches", matches - MATCHES_MAX);
    }
    text
}

fn state(survey: &MatchSurvey) -> &'static str {
    if survey.waiting > 0 { "waits for a commit" } else { survey.state.as_str() }
}

fn doing(task: &work::Background) -> &'static str {
    match task.state() {
        State::Absent => "is not there",
        State::Waits => "waits",
        State::Works => task.work,
    }
}
