//! `/metrics`: all figures, as Prometheus reads them.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::admin::Admin;
use crate::http;
use crate::matches::MatchSurvey;
use crate::platform;
use crate::telemetry::figures as f;
use crate::telemetry::metrics::Metric;

/// All families, in the order in which they are shown.
pub(super) fn families() -> impl Iterator<Item = &'static dyn Metric> {
    f::ALL.iter().chain(http::FIGURES).copied()
}

/// All figures as they are now.
pub(super) fn text(admin: &Admin) -> String {
    look(admin);
    let mut text = String::new();
    families().for_each(|family| family.write(&mut text));
    text
}

/// Takes down what is known only by looking.
pub(super) fn look(admin: &Admin) {
    f::BUILD.set_all([(&[env!("CARGO_PKG_VERSION")] as &[&str], 1.0)]);
    let started = admin.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    f::STARTED.set(started.as_secs_f64());
    f::NODES.set(number(admin.cluster.nodes_alive()));
    look_at_matches(admin);
    look_at_store(admin);
    look_at_runtime();
    look_at_process();
}

fn look_at_matches(admin: &Admin) {
    let mut matches: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut sockets: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut players, mut queued, mut largest) = (0, 0, 0);
    admin.registry.survey(|survey| {
        let MatchSurvey { game, state, sockets: of_match, .. } = survey;
        *matches.entry((game.clone(), state.as_str())).or_default() += 1;
        for socket in of_match {
            *sockets.entry(socket.activity.as_str()).or_default() += 1;
            players += usize::from(socket.seat.is_some());
            queued += socket.queued;
            largest = largest.max(socket.queued);
        }
    });
    let words: Vec<_> =
        matches.iter().map(|((game, state), n)| ([game.as_str(), state], number(*n))).collect();
    f::MATCHES.set_all(words.iter().map(|(words, n)| (&words[..], *n)));
    let words: Vec<_> = sockets.iter().map(|(state, n)| ([*state], number(*n))).collect();
    f::SOCKETS.set_all(words.iter().map(|(words, n)| (&words[..], *n)));
    f::PLAYERS.set(number(players));
    f::OUTBOX_MESSAGES.set(number(queued));
    f::OUTBOX_LARGEST.set(number(largest));
    f::MATCHES_LOADED.set(number(admin.registry.matches_loaded()));
    f::LOG_WAITING.set(number(admin.registry.changes_waiting()));
}

fn look_at_store(admin: &Admin) {
    let Some(pool) = admin.store.connections() else { return };
    let states = [(["idle"], number(pool.idle)), (["used"], number(pool.used))];
    f::STORE_CONNECTIONS.set_all(states.iter().map(|(words, n)| (&words[..], *n)));
    f::STORE_WAITING.set(number(pool.waiting));
}

fn look_at_runtime() {
    let runtime = tokio::runtime::Handle::current().metrics();
    f::TASKS.set(number(runtime.num_alive_tasks()));
    f::TASKS_WAITING.set(number(runtime.global_queue_depth()));
    let busy = (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker));
    f::BUSY_SECONDS.set(busy.sum::<std::time::Duration>().as_secs_f64());
}

fn look_at_process() {
    let usage = platform::usage();
    if let Some(cpu) = usage.cpu {
        f::CPU_SECONDS.set(cpu.as_secs_f64());
    }
    for (figure, value) in [
        (&f::RESIDENT, usage.resident_bytes),
        (&f::MEMORY_LIMIT, platform::memory_limit()),
        (&f::OPEN_FILES, usage.descriptors),
        (&f::MAX_FILES, Some(platform::raise_descriptor_limit())),
    ] {
        if let Some(value) = value {
            figure.set(count(value));
        }
    }
    let states = [(["allocated"], usage.allocated_bytes), (["resident"], usage.allocator_bytes)];
    let known = states.iter().filter_map(|(words, bytes)| Some((&words[..], count((*bytes)?))));
    f::ALLOCATOR.set_all(known);
}

fn number(n: usize) -> f64 {
    count(n as u64)
}

#[expect(clippy::cast_precision_loss, reason = "that precise it is up to 2^53")]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Kind;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    /// `docs/metrics.md`, as the families say.
    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             `/metrics` on the admin listener, for Prometheus. This page is made of the families \
             themselves; a test holds it to them, and writes it anew with `UPDATE_DOCS=1 cargo test \
             docs_metrics`.\n\n\
             | name | kind | labels | what |\n| --- | --- | --- | --- |\n",
        );
        for family in families() {
            let (name, kind, help) = (family.name(), family.kind().as_str(), family.help());
            let labels = family.labels().iter().map(|label| format!("`{label}`"));
            let labels = labels.collect::<Vec<_>>().join(", ");
            let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
        }
        page + "\nA histogram `…` has `…_bucket`, `…_sum` and `…_count`. Figures of the process are \
                there as far as the platform tells; `gameserver_store_connections` and \
                `gameserver_store_calls_waiting` over PostgreSQL.\n"
    }

    #[test]
    fn docs_metrics_is_what_there_is() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page());
    }

    #[test]
    fn names_keep_the_conventions() {
        let mut names = BTreeSet::new();
        for family in families() {
            let name = family.name();
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("gameserver_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind() == Kind::Counter, "{name}");
            assert!(family.help().ends_with(['.', ')']), "{name}: {}", family.help());
            assert!(!family.help().contains('\n') && !family.help().contains('|'), "{name}");
        }
    }
}
