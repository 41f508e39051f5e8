//! Which pods to make, to drain and to remove: a pure function of those that are there.
//!
//! New pods come first and old ones go after, so that as many are ready as are desired. A pod that
//! is to go is drained in two steps: the Service stops to send players to it, and a moment later,
//! when every node knows, it is deleted: SIGTERM makes the server hand over its matches at once.
//! Its clients then come back to one that stays.

use std::cmp::Reverse;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// How long nodes have to learn that a pod takes no more players: kube-proxy writes its rules once a
/// second.
pub const SETTLE: Duration = Duration::from_secs(3);

/// A pod as far as its fate depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its template.
    pub revision: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it takes players.
    pub ready: bool,
    /// Why it can't start, or runs no more.
    pub trouble: Option<String>,
    /// Since when the Service sends nobody to it.
    pub draining_since: Option<Timestamp>,
    /// Told to end.
    pub deleting: bool,
    /// All its containers have ended, for good.
    pub ended: bool,
    /// What it reported last.
    pub load: Option<Load>,
}

/// What a pod has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sockets that are open.
    pub players: i64,
    /// Matches in memory.
    pub matches: i64,
}

impl Pod {
    /// Neither ended nor about to.
    pub fn stays(&self) -> bool {
        !self.deleting && !self.ended && self.draining_since.is_none()
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// How many pods.
    pub replicas: usize,
    /// How many more while they are replaced; also how many may drain at a time.
    pub surge: usize,
    /// Of which template.
    pub target: &'a str,
    /// The template that was rolled out last.
    pub proven: Option<&'a str>,
    /// Whether the database answers and has the schema of the target.
    pub may_start: bool,
    /// Whether replacing is to wait.
    pub paused: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a pod.
    Create {
        /// Of this template.
        revision: String,
        /// With this number, which no other has.
        number: u32,
    },
    /// Send no more players to a pod.
    Drain(String),
    /// Tell a pod to end.
    Delete(String),
}

/// The next steps; none: all is as it is to be, or has to be waited for.
pub fn steps(pods: &[Pod], plan: &Plan<'_>, now: Timestamp) -> Vec<Step> {
    let mut steps: Vec<Step> = pods
        .iter()
        .filter(|pod| !pod.deleting && (pod.ended || settled(pod, now)))
        .map(|pod| Step::Delete(pod.name.clone()))
        .collect();
    let staying: Vec<&Pod> = pods.iter().filter(|pod| pod.stays()).collect();
    steps.extend(creations(pods, &staying, plan));
    let draining = pods.iter().filter(|pod| !pod.ended && !pod.stays()).count();
    let victims = victims(&staying, plan).into_iter();
    let at_a_time = plan.surge.saturating_sub(draining);
    steps.extend(victims.take(at_a_time).map(|pod| Step::Drain(pod.name.clone())));
    steps
}

/// When the next step is due by the clock alone.
pub fn next_due(pods: &[Pod], now: Timestamp) -> Option<Duration> {
    let waiting = pods.iter().filter(|pod| !pod.deleting).filter_map(|pod| pod.draining_since);
    waiting.map(|since| SETTLE.saturating_sub(age(since, now))).min()
}

/// Whether the target may not be gone on with: its pods don't start, or are not to.
pub fn is_held(staying: &[&Pod], plan: &Plan<'_>) -> bool {
    let unproven = plan.proven != Some(plan.target);
    let trouble = staying.iter().any(|pod| pod.revision == plan.target && pod.trouble.is_some());
    !plan.may_start || unproven && (trouble || plan.paused && plan.proven.is_some())
}

fn settled(pod: &Pod, now: Timestamp) -> bool {
    pod.draining_since.is_some_and(|since| age(since, now) >= SETTLE)
}

/// Nothing for a time that is yet to come.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

fn creations(pods: &[Pod], staying: &[&Pod], plan: &Plan<'_>) -> Vec<Step> {
    let newest = staying.iter().filter(|pod| pod.revision == plan.target);
    let (newest, newest_ready) = (newest.clone().count(), newest.filter(|pod| pod.ready).count());
    let older = staying.len() - newest;
    let (revision, count) = if is_held(staying, plan) {
        // What is proven is kept up meanwhile.
        let Some(proven) = plan.proven.filter(|proven| *proven != plan.target) else {
            return Vec::new();
        };
        (proven, plan.replicas.saturating_sub(newest_ready + older))
    } else {
        let surge = if older > 0 { plan.surge } else { 0 };
        let room = (plan.replicas + surge).saturating_sub(staying.len());
        (plan.target, plan.replicas.saturating_sub(newest).min(room))
    };
    let taken = |number: &u32| {
        let suffix = format!("-{number}");
        pods.iter().any(|pod| pod.name.ends_with(&suffix))
    };
    let free = (0..).filter(|number| !taken(number)).take(count);
    free.map(|number| Step::Create { revision: revision.to_owned(), number }).collect()
}

/// Pods that may go now, those first whose going is felt least.
fn victims<'a>(staying: &[&'a Pod], plan: &Plan<'_>) -> Vec<&'a Pod> {
    let (mut newest, mut older): (Vec<&Pod>, Vec<&Pod>) =
        staying.iter().partition(|pod| pod.revision == plan.target);
    for pods in [&mut newest, &mut older] {
        pods.sort_by_key(|pod| {
            let load = pod.load.unwrap_or_default();
            (pod.ready, load.matches, load.players, Reverse(pod.created))
        });
    }
    let too_many = newest.len().saturating_sub(plan.replicas);
    let ready = staying.iter().filter(|pod| pod.ready).count();
    let mut spare = ready.saturating_sub(plan.replicas);
    let held = is_held(staying, plan);
    let older = older.into_iter().filter(|pod| {
        if pod.ready && spare > 0 {
            spare -= 1;
            return true;
        }
        // One that serves nobody is missed by nobody, unless nothing comes in its place.
        !pod.ready && !held
    });
    older.chain(newest.into_iter().take(too_many)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn pod(name: &str, revision: &str, ready: bool) -> Pod {
        Pod {
            name: name.into(),
            revision: revision.into(),
            created: at(0),
            ready,
            trouble: None,
            draining_since: None,
            deleting: false,
            ended: false,
            load: Some(Load::default()),
        }
    }

    fn plan(replicas: usize) -> Plan<'static> {
        let (target, proven) = ("b", Some("a"));
        Plan { replicas, surge: 1, target, proven, may_start: true, paused: false }
    }

    fn create(revision: &str, number: u32) -> Step {
        Step::Create { revision: revision.into(), number }
    }

    fn drain(name: &str) -> Step {
        Step::Drain(name.into())
    }

    #[test]
    fn pods_are_made_once_the_database_is_there() {
        let first = Plan { proven: None, may_start: false, ..plan(2) };
        assert_eq!(steps(&[], &first, at(0)), []);
        let started = Plan { may_start: true, ..first };
        assert_eq!(steps(&[], &started, at(0)), [create("b", 0), create("b", 1)]);
        // Paused or not: there is nothing yet that could go on.
        assert_eq!(steps(&[], &Plan { paused: true, ..started }, at(0)).len(), 2);
    }

    #[test]
    fn a_pod_that_is_gone_is_replaced_under_another_number() {
        let gone = Pod { deleting: true, ..pod("g-1", "b", true) };
        let pods = [pod("g-0", "b", true), gone];
        let plan = Plan { proven: Some("b"), ..plan(2) };
        assert_eq!(steps(&pods, &plan, at(0)), [create("b", 2)]);
        let ended = Pod { ended: true, ..pod("g-1", "b", false) };
        let both = steps(&[pod("g-0", "b", true), ended], &plan, at(0));
        assert_eq!(both, [Step::Delete("g-1".into()), create("b", 2)]);
    }

    #[test]
    fn new_pods_come_first_and_old_ones_go_after() {
        let mut pods = vec![pod("g-0", "a", true), pod("g-1", "a", true)];
        assert_eq!(steps(&pods, &plan(2), at(0)), [create("b", 2)]);
        pods.push(pod("g-2", "b", false));
        assert_eq!(steps(&pods, &plan(2), at(0)), []);
        pods[2].ready = true;
        pods[0].load = Some(Load { players: 2, matches: 1 });
        assert_eq!(steps(&pods, &plan(2), at(0)), [drain("g-1")]);
        pods[1].draining_since = Some(at(0));
        assert_eq!(steps(&pods, &plan(2), at(1)), [create("b", 3)]);
        pods.push(pod("g-3", "b", true));
        // One at a time: the second has to wait until the first is gone.
        assert_eq!(steps(&pods, &plan(2), at(3)), [Step::Delete("g-1".into())]);
        pods[1].deleting = true;
        assert_eq!(steps(&pods, &plan(2), at(9)), []);
        pods.remove(1);
        assert_eq!(steps(&pods, &plan(2), at(9)), [drain("g-0")]);
    }

    #[test]
    fn a_target_that_does_not_start_stops_the_roll_out_and_the_proven_one_heals() {
        let bad = Pod { trouble: Some("ErrImagePull".into()), ..pod("g-2", "b", false) };
        let mut pods = vec![pod("g-0", "a", true), pod("g-1", "a", true), bad];
        assert_eq!(steps(&pods, &plan(2), at(0)), []);
        pods.remove(0);
        assert_eq!(steps(&pods, &plan(2), at(0)), [create("a", 0)]);
        // Going back is another change: the bad one goes, and nothing else.
        pods.push(pod("g-0", "a", true));
        let back = Plan { target: "a", ..plan(2) };
        assert_eq!(steps(&pods, &back, at(0)), [drain("g-2")]);
    }

    #[test]
    fn paused_is_neither_on_nor_back() {
        let pods = [pod("g-0", "a", true), pod("g-1", "b", true)];
        let paused = Plan { paused: true, ..plan(2) };
        assert_eq!(steps(&pods, &paused, at(0)), []);
        assert_eq!(steps(&pods[1..], &paused, at(0)), [create("a", 0)]);
    }

    #[test]
    fn those_with_fewest_matches_go_when_there_are_too_many() {
        let loaded = |name: &str, matches, age: i64| Pod {
            load: Some(Load { players: 0, matches }),
            created: at(-age),
            ..pod(name, "b", true)
        };
        let pods = [loaded("g-0", 3, 9), loaded("g-1", 1, 5), loaded("g-2", 1, 1)];
        let two = Plan { proven: Some("b"), surge: 2, ..plan(1) };
        assert_eq!(steps(&pods, &two, at(0)), [drain("g-2"), drain("g-1")]);
        assert_eq!(steps(&pods, &Plan { surge: 1, ..two }, at(0)), [drain("g-2")]);
    }

    #[test]
    fn a_lost_database_removes_nobody() {
        let pods = [pod("g-0", "a", false), pod("g-1", "a", false)];
        assert_eq!(steps(&pods, &Plan { may_start: false, ..plan(2) }, at(0)), []);
    }

    #[test]
    fn what_the_clock_brings_is_known() {
        let draining = Pod { draining_since: Some(at(0)), ..pod("g-0", "a", true) };
        assert_eq!(next_due(std::slice::from_ref(&draining), at(1)), Some(Duration::from_secs(2)));
        assert_eq!(next_due(&[pod("g-0", "a", true)], at(1)), None);
        // A clock that was set back.
        assert_eq!(next_due(&[draining], at(-100)), Some(SETTLE));
    }
}
