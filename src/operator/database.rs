//! The database before the pods: its address, its keys, the restore and the migration.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod as ApiPod, PodStatus, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use super::cluster::{Cluster, ClusterError, contains};
use super::crd::Gameserver;
use super::desired::{self, BACKUP, Desired, Keyed, Names, PASSWORD_KEY, PEM_KEY, Seen, URL_KEY};
use super::keys::new_password;
use super::pods;
use super::reconcile::key_of;
use super::rotation::Kept;
use super::status::Why;

/// After which a Job that failed is made again.
const JOB_RETRY: Duration = Duration::from_secs(30);
/// After which a Job whose pod has not begun does not start: a large image takes minutes.
const JOB_START_DEADLINE: Duration = Duration::from_secs(600);

/// The database's state.
#[derive(Debug)]
pub struct Database {
    /// Whether pods of the newest revision may start.
    pub may_start: bool,
    /// Whether it can be played on.
    pub ready: Result<(), Why>,
}

impl Database {
    /// Nothing was heard of it.
    pub fn unknown() -> Self {
        Self::waiting(Why::new("Unknown", "see Degraded"))
    }

    fn waiting(why: Why) -> Self {
        Self { may_start: false, ready: Err(why) }
    }
}

enum Job {
    Running,
    Done,
    /// It does not start.
    Stuck(String),
    Failed(String),
}

/// What objects depend on.
#[derive(Debug, Default)]
pub struct Observed {
    /// Secrets and plugins.
    pub seen: Seen,
    /// The keys that the operator made, if it did.
    pub keys: Option<Kept>,
    /// What is missing, or wrong.
    pub trouble: Option<Why>,
}

/// Looks for what objects depend on; secrets are made if they are to be.
pub async fn observe(cluster: &Cluster, object: &Gameserver) -> Result<Observed, ClusterError> {
    let (namespace, name) = key_of(&object.metadata);
    let Observed { mut seen, mut keys, mut trouble } = Observed::default();
    let names = Names(&name);
    let (url_in, url_key) = match &object.spec.database.external {
        Some(external) => (external.secret_ref.name.clone(), external.secret_ref.key.clone()),
        None => (names.database(), URL_KEY.to_owned()),
    };
    let secret = secret(cluster, &namespace, &url_in).await?;
    seen.database_url = keyed(secret.as_ref(), &url_in, &url_key);
    if object.spec.database.managed.is_some() {
        let password = secret.as_ref().and_then(|secret| text(secret, PASSWORD_KEY));
        seen.database_password = Some(password.unwrap_or_else(new_password));
        let service = cluster.find(&namespace, "Service", &names.database()).await?;
        let ip = service.as_ref().and_then(|live| live.data["spec"]["clusterIP"].as_str());
        seen.database_ip = ip.map(str::to_owned);
    }
    if object.spec.auth.keys_secret_ref.is_some() {
        match given_keys(cluster, object).await? {
            Ok(given) => seen.keys = Some(given),
            Err(why) => trouble = Some(why),
        }
    } else {
        let kept = own_keys(cluster, object).await?;
        let digest = desired::digest_bytes(kept.pem.as_bytes());
        seen.keys = Some(Keyed { name: names.keys(), key: PEM_KEY.to_owned(), digest });
        keys = Some(kept);
    }
    for game in &object.spec.games {
        let Some(wasm) = &game.wasm else { continue };
        match plugin(cluster, &namespace, wasm).await? {
            Ok(Some(digest)) => {
                seen.plugins.insert(game.name.clone(), digest);
            }
            Ok(None) => {}
            Err(why) => trouble = Some(why),
        }
    }
    Ok(Observed { seen, keys, trouble })
}

/// Restores and migrates, each before what needs it. `server` is the managed database, `unready` what
/// pods say that keeps them from being ready.
pub async fn prepare(
    cluster: &Cluster,
    object: &Gameserver,
    seen: &Seen,
    server: Option<&DynamicObject>,
    unready: Option<String>,
) -> Result<Database, ClusterError> {
    let Some(url) = &seen.database_url else { return Ok(Database::waiting(no_address(object))) };
    if object.spec.database.managed.is_some() {
        let ready = server.and_then(|live| live.data["status"]["readyReplicas"].as_i64());
        if ready.unwrap_or(0) == 0 {
            let name = Names(desired::name(object)).database();
            let message = format!("StatefulSet {name} has no ready pod: see its events");
            return Ok(Database::waiting(Why::new("NotReady", message)));
        }
    }
    let rolled_out = object.status.as_ref().is_some_and(|old| old.current_revision.is_some());
    let restore = desired::restore(object, url).filter(|_| !rolled_out);
    let steps = [("Restore", restore), ("Migration", Some(desired::migration(object, url)))];
    for (what, job) in steps {
        let Some(job) = job else { continue };
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        let (failed, running) = match what {
            "Restore" => ("RestoreFailed", "Restoring"),
            _ => ("MigrationFailed", "Migrating"),
        };
        match run(cluster, object, &job).await? {
            Job::Done => {}
            Job::Running => {
                return Ok(Database::waiting(Why::new(running, format!("Job {name} runs"))));
            }
            Job::Stuck(why) => {
                let advice = "set spec.image to one that starts";
                let message = format!("Job {name} does not start: {why}; {advice}");
                return Ok(Database::waiting(Why::new(failed, message)));
            }
            Job::Failed(said) => {
                let message = format!("Job {name} failed and is run again: {said}");
                return Ok(Database::waiting(Why::new(failed, message)));
            }
        }
    }
    let ready = match unready {
        Some(said) => Err(Why::new("Unreachable", format!("no pod is ready: {said}"))),
        None => Ok(()),
    };
    Ok(Database { may_start: true, ready })
}

fn no_address(object: &Gameserver) -> Why {
    match &object.spec.database.external {
        Some(external) => {
            let (name, key) = (&external.secret_ref.name, &external.secret_ref.key);
            let message = format!("make Secret {name} with key {key}: postgres://…");
            Why::new("SecretMissing", message)
        }
        None => Why::new("Creating", "its Service has no address yet"),
    }
}

/// Sees to it that a Job runs once to its end; one that failed is made anew after a while.
async fn run(cluster: &Cluster, object: &Gameserver, job: &Value) -> Result<Job, ClusterError> {
    let (namespace, _) = key_of(&object.metadata);
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    let Some(live) = cluster.find(&namespace, "Job", name).await? else {
        cluster.apply(object, &Desired::Present(job.clone())).await?;
        return Ok(Job::Running);
    };
    let state = state(cluster, &live).await?;
    let over = match state {
        Job::Failed(_) => {
            let failed = ended(&live, "Failed");
            let since = failed.and_then(|ended| ended["lastTransitionTime"].as_str());
            since.and_then(|at| at.parse().ok()).is_none_or(|since| age(since) >= JOB_RETRY)
        }
        Job::Stuck(_) => is_outdated(&live, &job["spec"]),
        Job::Running | Job::Done => false,
    };
    if over {
        cluster.delete(&namespace, "Job", &live.metadata).await?;
    }
    Ok(state)
}

fn age(since: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}

/// Whether a Job is made otherwise by now: its own template can't change.
fn is_outdated(live: &DynamicObject, wanted: &Value) -> bool {
    !contains(&live.data["spec"]["template"], &wanted["template"])
}

/// Why the last backup that was begun is not there, if so: told until a later one is. One that does
/// not start and would be made otherwise by now goes: it keeps later ones from beginning.
pub async fn failed_backup(
    cluster: &Cluster,
    object: &Gameserver,
    seen: &Seen,
) -> Result<Option<Why>, ClusterError> {
    let Some(backup) = &object.spec.backup else { return Ok(None) };
    let wanted = seen.database_url.as_ref().map(|url| desired::backup_job(object, backup, url));
    let (namespace, _) = key_of(&object.metadata);
    let labels = desired::selector(object, BACKUP);
    let mut jobs = cluster.list(&namespace, "Job", &labels).await?;
    jobs.sort_by_key(|job| (job.metadata.creation_timestamp.clone(), job.name_any()));
    for job in jobs.iter().rev() {
        let name = job.name_any();
        let why = match state(cluster, job).await? {
            Job::Done => return Ok(None),
            // The one before it counts.
            Job::Running => continue,
            Job::Stuck(why) => {
                if wanted.as_ref().is_some_and(|wanted| is_outdated(job, wanted)) {
                    cluster.delete(&namespace, "Job", &job.metadata).await?;
                }
                format!("Job {name} does not start: {why}")
            }
            Job::Failed(said) => format!("Job {name} failed: {said}"),
        };
        let advice = format!(
            "mend that (is PersistentVolumeClaim {} there, and has it room?): the next good one ends this",
            backup.volume_claim
        );
        return Ok(Some(Why::new("BackupFailed", format!("{why}; {advice}"))));
    }
    Ok(None)
}

/// How far a Job is.
async fn state(cluster: &Cluster, live: &DynamicObject) -> Result<Job, ClusterError> {
    if ended(live, "Complete").is_some() {
        return Ok(Job::Done);
    }
    let (namespace, name) = key_of(&live.metadata);
    let pods = pods_of(cluster, &namespace, &name).await?;
    if let Some(failed) = ended(live, "Failed") {
        // Its pod goes with a Job that has taken too long, and so does what it said.
        let late = failed["message"].as_str().filter(|_| failed["reason"] == "DeadlineExceeded");
        let said = last_words(pods).or_else(|| late.map(str::to_owned));
        return Ok(Job::Failed(said.unwrap_or_else(|| format!("see `kubectl logs job/{name}`"))));
    }
    let made = live.metadata.creation_timestamp.as_ref().map(|made| age(made.0));
    let trouble = trouble(&name, &pods, made.unwrap_or_default());
    Ok(trouble.map_or(Job::Running, Job::Stuck))
}

/// Why a Job of this age does not start.
fn trouble(job: &str, pods: &[PodStatus], age: Duration) -> Option<String> {
    // An image that can't be had shows here first: nothing of it has run yet.
    pods.iter().find_map(pods::trouble).or_else(|| {
        let waits = pods.iter().any(|pod| pod.phase.as_deref() == Some("Pending"));
        let late = waits && age >= JOB_START_DEADLINE;
        late.then(|| format!("see `kubectl describe pod --selector job-name={job}`"))
    })
}

/// The condition that says that a Job has ended so.
fn ended<'a>(live: &'a DynamicObject, type_: &str) -> Option<&'a Value> {
    let mut conditions = live.data["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == type_ && condition["status"] == "True")
}

async fn pods_of(
    cluster: &Cluster,
    namespace: &str,
    job: &str,
) -> Result<Vec<PodStatus>, ClusterError> {
    let pods = cluster.list(namespace, "Pod", &format!("job-name={job}")).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.try_parse::<ApiPod>().ok()?.status).collect())
}

/// What the pod of a Job said before it ended.
fn last_words(pods: Vec<PodStatus>) -> Option<String> {
    let containers = pods.into_iter().flat_map(|pod| pod.container_statuses.unwrap_or_default());
    let said = containers.into_iter().find_map(|one| one.state?.terminated?.message)?;
    said.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}

async fn given_keys(
    cluster: &Cluster,
    object: &Gameserver,
) -> Result<Result<Keyed, Why>, ClusterError> {
    let given = object.spec.auth.keys_secret_ref.clone().unwrap_or_default();
    let secret = secret(cluster, &key_of(&object.metadata).0, &given.name).await?;
    Ok(keyed(secret.as_ref(), &given.name, &given.key).ok_or_else(|| {
        let (name, key) = (&given.name, &given.key);
        Why::new("KeysMissing", format!("make Secret {name} with key {key}: keys as PEM"))
    }))
}

/// The keys that the operator made, now or earlier. A longer life of their tokens is noted before
/// there is a pod that gives it.
async fn own_keys(cluster: &Cluster, object: &Gameserver) -> Result<Kept, ClusterError> {
    let (namespace, name) = key_of(&object.metadata);
    let own_name = Names(&name).keys();
    let kept = secret(cluster, &namespace, &own_name).await?;
    if let Some(kept) = kept.as_ref().and_then(Kept::of) {
        let Some(mut noted) = kept.noted(object) else { return Ok(kept) };
        let secret = desired::keys_secret(object, &noted);
        let live = cluster.write(&namespace, "Secret", &own_name, &secret).await?;
        noted.resource_version = live.resource_version();
        return Ok(noted);
    }
    let first = Kept::first(object);
    cluster.apply(object, &Desired::Present(desired::keys_secret(object, &first))).await?;
    Ok(first)
}

async fn plugin(
    cluster: &Cluster,
    namespace: &str,
    wasm: &super::crd::Wasm,
) -> Result<Result<Option<String>, Why>, ClusterError> {
    let Some(at) = &wasm.config_map_key_ref else { return Ok(Ok(None)) };
    let missing = || {
        let (name, key) = (&at.name, &at.key);
        Why::new("PluginMissing", format!("make ConfigMap {name} with binaryData {key}"))
    };
    let Some(live) = cluster.find(namespace, "ConfigMap", &at.name).await? else {
        return Ok(Err(missing()));
    };
    // kubectl puts a file that happens to be UTF-8 among the texts.
    let text = live.data["data"][&at.key].as_str().map(|text| text.as_bytes().to_vec());
    let bytes = || serde_json::from_value(live.data["binaryData"][&at.key].clone());
    let code = text.or_else(|| bytes().ok().map(|ByteString(bytes)| bytes));
    let Some(code) = code else { return Ok(Err(missing())) };
    let digest = desired::hex(&code);
    if wasm.sha256.as_ref().is_some_and(|wanted| *wanted != digest) {
        let message = format!("ConfigMap {} key {}: SHA-256 is {digest}", at.name, at.key);
        return Ok(Err(Why::new("PluginDiffers", message)));
    }
    Ok(Ok(Some(digest)))
}

async fn secret(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<Option<Secret>, ClusterError> {
    let live = cluster.find(namespace, "Secret", name).await?;
    Ok(live.and_then(|live| live.try_parse().ok()))
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

fn keyed(secret: Option<&Secret>, name: &str, key: &str) -> Option<Keyed> {
    let digest = desired::digest_bytes(text(secret?, key)?.as_bytes());
    Some(Keyed { name: name.to_owned(), key: key.to_owned(), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_whose_pod_waits_for_long_does_not_start() {
        let pod = |phase: &str| PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
        let early = JOB_START_DEADLINE.saturating_sub(Duration::from_secs(1));
        assert_eq!(trouble("backup", &[pod("Pending")], early), None);
        assert_eq!(trouble("backup", &[pod("Running")], JOB_START_DEADLINE), None);
        let why = trouble("backup", &[pod("Pending")], JOB_START_DEADLINE);
        let told = "see `kubectl describe pod --selector job-name=backup`";
        assert_eq!(why.as_deref(), Some(told));
    }
}
