//! What is said of a Gameserver: a pure function of what was seen and done.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::crd::{Gameserver, GameserverStatus};
use super::desired::{GAME, selector};
use super::rollout::{Plan, Pod, is_held};

/// Longest message of a condition.
const MESSAGE_CHARS_MAX: usize = 1024;

/// One word and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One word, for machines.
    pub reason: &'static str,
    /// What is so, and what to do about it.
    pub message: String,
}

impl Why {
    /// Of these.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What was seen and done.
#[derive(Debug)]
pub struct Report<'a> {
    /// All pods.
    pub pods: &'a [Pod],
    /// What was wanted of them.
    pub plan: &'a Plan<'a>,
    /// Whether the database can be played on.
    pub database: Result<(), Why>,
    /// What went wrong otherwise.
    pub trouble: Option<Why>,
    /// What was asked for and is not done, which keeps nothing else from being done.
    pub refusal: Option<Why>,
    /// Where players connect.
    pub endpoint: Option<String>,
    /// When the last backup was done.
    pub last_backup: Option<String>,
}

/// The status to write.
pub fn status(object: &Gameserver, report: &Report<'_>, now: Timestamp) -> GameserverStatus {
    let before = object.status.clone().unwrap_or_default();
    let staying: Vec<&Pod> = report.pods.iter().filter(|pod| pod.stays()).collect();
    let count = |of: &dyn Fn(&Pod) -> bool| as_i32(staying.iter().filter(|pod| of(pod)).count());
    let updated = count(&|pod| pod.revision == report.plan.target);
    let (replicas, ready) = (as_i32(staying.len()), count(&|pod| pod.ready));
    let leaving = report.pods.iter().filter(|pod| !pod.ended && !pod.stays()).count();
    let loads = || report.pods.iter().filter_map(|pod| pod.load);
    let mut status = GameserverStatus {
        observed_generation: object.metadata.generation.unwrap_or_default(),
        desired_replicas: as_i32(report.plan.replicas),
        replicas,
        ready_replicas: ready,
        updated_replicas: updated,
        draining_replicas: as_i32(leaving),
        players: loads().map(|load| load.players).sum(),
        matches: loads().map(|load| load.matches).sum(),
        selector: Some(selector(object, GAME)),
        endpoint: report.endpoint.clone(),
        version: Some(version(&object.spec.image)),
        current_revision: report.plan.proven.map(str::to_owned),
        last_backup: report.last_backup.clone().or(before.last_backup.clone()),
        conditions: Vec::new(),
    };
    let held = is_held(&staying, report.plan);
    let conditions = [
        ("Available", available(&status)),
        ("Progressing", progressing(&status, report.plan, held)),
        ("Degraded", degraded(report, &staying, held)),
        ("DatabaseReady", database(report)),
    ];
    status.conditions = conditions
        .into_iter()
        .map(|(type_, (holds, why))| condition(&before, object, type_, holds, &why, now))
        .collect();
    status
}

/// The status of an object that can't be reconciled: what was seen last stays.
pub fn refused(object: &Gameserver, why: &Why, now: Timestamp) -> GameserverStatus {
    let before = object.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = object.metadata.generation.unwrap_or_default();
    let keep = |type_: &str| {
        let unknown = Why::new("NotReconciled", "see Degraded");
        let known = before.conditions.iter().find(|known| known.type_ == type_);
        known.cloned().unwrap_or_else(|| condition(&before, object, type_, false, &unknown, now))
    };
    status.conditions = ["Available", "Progressing", "DatabaseReady"].map(keep).into();
    status.conditions.insert(2, condition(&before, object, "Degraded", true, why, now));
    status
}

/// An image's tag, or the start of its digest.
fn version(image: &str) -> String {
    const DIGEST_CHARS: usize = 19;
    if let Some((_, digest)) = image.split_once('@') {
        return digest.chars().take(DIGEST_CHARS).collect();
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
}

type Verdict = (bool, Why);

fn available(status: &GameserverStatus) -> Verdict {
    let (ready, desired) = (status.ready_replicas, status.desired_replicas);
    let message = format!("{ready} of {desired} pods take players");
    match (ready, desired) {
        (0, 0) => (true, Why::new("ScaledToZero", "no pods are wanted")),
        (0, _) => (false, Why::new("NoPodReady", message)),
        _ => (true, Why::new("PodsReady", message)),
    }
}

fn progressing(status: &GameserverStatus, plan: &Plan<'_>, held: bool) -> Verdict {
    let (updated, desired) = (status.updated_replicas, status.desired_replicas);
    let message = format!("{updated} of {desired} pods are of the newest revision");
    if plan.proven == Some(plan.target)
        && status.replicas == desired
        && status.ready_replicas == desired
        && status.draining_replicas == 0
    {
        return (false, Why::new("Complete", message));
    }
    if !plan.may_start {
        return (false, Why::new("WaitingForDatabase", "see DatabaseReady"));
    }
    if held && plan.paused {
        return (false, Why::new("Paused", format!("spec.update.paused is set; {message}")));
    }
    if held {
        return (false, Why::new("RolloutStopped", format!("see Degraded; {message}")));
    }
    (true, Why::new("RollingOut", message))
}

fn degraded(report: &Report<'_>, staying: &[&Pod], held: bool) -> Verdict {
    if let Some(why) = &report.trouble {
        return (true, why.clone());
    }
    if let Err(why) = &report.database {
        // What is under way, or was never there yet, is no failure.
        let lost =
            report.plan.proven.is_some() && ["NotReady", "Unreachable"].contains(&why.reason);
        if lost || why.reason.ends_with("Failed") || why.reason.ends_with("Missing") {
            return (true, why.clone());
        }
    }
    let in_trouble = |newest: bool| {
        let mut pods = staying.iter().filter(|pod| (pod.revision == report.plan.target) == newest);
        pods.find_map(|pod| Some(format!("{}: {}", pod.name, pod.trouble.as_ref()?)))
    };
    if let Some(trouble) = in_trouble(true) {
        if held && report.plan.proven.is_some() {
            let advice = "the pods of before go on; set spec.image back, or to one that starts";
            return (true, Why::new("RolloutStopped", format!("{trouble}; {advice}")));
        }
        return (true, Why::new("PodsFailing", trouble));
    }
    if let Some(trouble) = in_trouble(false) {
        return (true, Why::new("PodsFailing", trouble));
    }
    match &report.refusal {
        Some(why) => (true, why.clone()),
        None => (false, Why::new("AsDesired", "nothing is wrong")),
    }
}

fn database(report: &Report<'_>) -> Verdict {
    match &report.database {
        Ok(()) => (true, Why::new("Migrated", "it answers and has the schema of this version")),
        Err(why) => (false, why.clone()),
    }
}

fn condition(
    before: &GameserverStatus,
    object: &Gameserver,
    type_: &str,
    holds: bool,
    why: &Why,
    now: Timestamp,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let same = before.conditions.iter().find(|old| old.type_ == type_ && old.status == status);
    // Written to the second.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
        message: why.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        observed_generation: object.metadata.generation,
        reason: why.reason.to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    }
}

fn as_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn an_images_version_is_its_tag() {
        assert_eq!(version("registry.example:5000/gameserver:1.2"), "1.2");
        assert_eq!(version("registry.example:5000/gameserver"), "latest");
        assert_eq!(version("gameserver@sha256:0123456789abcdef"), "sha256:0123456789ab");
    }
}
