//! The pods that play, as the API server tells of them and as they report themselves.
//!
//! One watch keeps what is known of each pod in a few words. What the operator does to a pod is
//! entered at once, not when the watch brings it: nothing is decided twice.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use tokio::net::TcpStream;

use super::desired::{ADMIN_PORT, INSTANCE_LABEL, REVISION_LABEL};
use super::rollout::{Load, Pod};

/// The annotation of a pod that drains: since when.
pub const DRAINING_ANNOTATION: &str = "gameserver.com/draining-since";
/// How long a pod of a new template may take to be ready before the roll-out stops.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(120);
/// How often pods are asked what they have to do.
pub const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a pod may take to answer.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pods that are asked at the same time.
const SCRAPES_MAX: usize = 16;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest message that is taken over from a pod.
const MESSAGE_CHARS_MAX: usize = 300;
/// States of a container that waits and will not start by itself, or not soon.
const STUCK: &[&str] = &[
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

/// Namespace and name of a Gameserver.
pub type Key = (String, String);

/// What is known of all pods: of each Gameserver's by their names. (Most have a few: a tree's smallest
/// node has room for eleven.)
#[derive(Default)]
pub struct Pods(Mutex<HashMap<Key, Vec<Known>>>);

#[derive(Clone, Debug)]
struct Known {
    uid: Option<String>,
    version: u64,
    pod: Pod,
    ip: Option<IpAddr>,
    /// Why it says that it is not ready.
    unready: Option<String>,
}

/// A pod that can be asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whose it is.
    pub key: Key,
    /// Its name.
    pub name: String,
    at: SocketAddr,
    ready: bool,
}

/// What a pod answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    load: Option<Load>,
    unready: Option<String>,
}

impl Pods {
    /// Takes over what was seen of a pod, unless more is known already; whether that is news.
    pub fn observe(&self, seen: &ApiPod) -> bool {
        let Some((key, known)) = known(seen) else { return false };
        let mut all = self.lock();
        let pods = all.entry(key).or_default();
        match place(pods, &known.pod.name) {
            Ok(at) if pods[at].version >= known.version => false,
            Ok(at) => {
                let before = &mut pods[at];
                let load = before.pod.load;
                let unready = before.unready.take().filter(|_| !known.pod.ready);
                let next = Known { pod: Pod { load, ..known.pod }, unready, ..known };
                let news = before.pod != next.pod;
                *before = next;
                news
            }
            Err(at) => {
                pods.reserve_exact(1);
                pods.insert(at, known);
                true
            }
        }
    }

    /// Of a pod that is gone.
    pub fn forget(&self, gone: &ApiPod) {
        let Some((key, known)) = known(gone) else { return };
        let mut all = self.lock();
        if let Some(pods) = all.get_mut(&key) {
            // Another pod may have its name by now.
            pods.retain(|kept| kept.pod.name != known.pod.name || kept.uid != known.uid);
            if pods.is_empty() {
                all.remove(&key);
            }
        }
    }

    /// Forgets all but these, and says which: a watch has begun anew.
    pub fn retain(&self, uids: &HashSet<String>) -> Vec<ObjectMeta> {
        let (mut all, mut gone) = (self.lock(), Vec::new());
        for (key, pods) in all.iter_mut() {
            pods.retain(|known| {
                let stays = known.uid.as_ref().is_some_and(|uid| uids.contains(uid));
                if !stays {
                    gone.push(identity(key, known));
                }
                stays
            });
        }
        all.retain(|_, pods| !pods.is_empty());
        gone
    }

    /// The pods of a Gameserver. One that is not ready long after it was made is in trouble.
    pub fn of(&self, key: &Key, now: Timestamp) -> Vec<Pod> {
        let all = self.lock();
        let pods = all.get(key).into_iter().flatten();
        pods.map(|known| {
            let mut pod = known.pod.clone();
            let age = Duration::try_from(now.duration_since(pod.created)).unwrap_or_default();
            if !pod.ready && pod.trouble.is_none() && age >= PROGRESS_DEADLINE {
                let why = known.unready.as_deref().unwrap_or("it does not answer");
                pod.trouble = Some(format!("not ready after {} s: {why}", age.as_secs()));
            }
            pod
        })
        .collect()
    }

    /// What identifies a pod.
    pub fn meta(&self, key: &Key, name: &str) -> Option<ObjectMeta> {
        let all = self.lock();
        let pods = all.get(key)?;
        Some(identity(key, &pods[place(pods, name).ok()?]))
    }

    /// Why pods say that they are not ready, if all that answer say so.
    pub fn unready(&self, key: &Key) -> Option<String> {
        let all = self.lock();
        let mut pods = all.get(key)?.iter().filter(|known| known.pod.stays());
        let mut reason = None;
        for known in pods.by_ref() {
            if known.pod.ready {
                return None;
            }
            reason = known.unready.clone().or(reason);
        }
        reason
    }

    /// Pods that can be asked.
    pub fn targets(&self) -> Vec<Target> {
        let all = self.lock();
        let pods = all.iter().flat_map(|(key, pods)| pods.iter().map(move |pod| (key, pod)));
        pods.filter(|(_, known)| !known.pod.deleting && !known.pod.ended)
            .filter_map(|(key, known)| {
                let at = SocketAddr::new(known.ip?, ADMIN_PORT);
                let (name, ready) = (known.pod.name.clone(), known.pod.ready);
                Some(Target { key: key.clone(), name, at, ready })
            })
            .collect()
    }

    /// Takes over what a pod answered; whether that is news.
    pub fn answered(&self, target: &Target, answer: Answer) -> bool {
        let mut all = self.lock();
        let Some(pods) = all.get_mut(&target.key) else { return false };
        let Ok(at) = place(pods, &target.name) else { return false };
        let known = &mut pods[at];
        let news = known.pod.load != answer.load || known.unready != answer.unready;
        (known.pod.load, known.unready) = (answer.load, answer.unready);
        news
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What identifies a pod, and its Gameserver.
fn identity(key: &Key, known: &Known) -> ObjectMeta {
    ObjectMeta {
        name: Some(known.pod.name.clone()),
        namespace: Some(key.0.clone()),
        uid: known.uid.clone(),
        labels: Some([(INSTANCE_LABEL.to_owned(), key.1.clone())].into()),
        ..ObjectMeta::default()
    }
}

/// Where a pod of this name is, or would be.
fn place(pods: &[Known], name: &str) -> Result<usize, usize> {
    pods.binary_search_by(|known| known.pod.name.as_str().cmp(name))
}

/// Asks all pods, a few at a time, and names the Gameservers of which there is news.
pub async fn scrape(pods: &Pods) -> HashSet<Key> {
    let answers = futures_util::stream::iter(pods.targets()).map(|target| async {
        let answer = ask(&target).await;
        (target, answer)
    });
    let mut answers = answers.buffer_unordered(SCRAPES_MAX);
    let mut news = HashSet::new();
    while let Some((target, answer)) = answers.next().await {
        if pods.answered(&target, answer) {
            news.insert(target.key);
        }
    }
    news
}

async fn ask(target: &Target) -> Answer {
    if target.ready {
        let text = answer(target.at, "/metrics").await.map(|(_, text)| text);
        return Answer { load: text.as_deref().and_then(load), unready: None };
    }
    let unready = match answer(target.at, "/readyz").await {
        Some((status, _)) if status == hyper::StatusCode::OK => None,
        Some((_, text)) => detail(&text),
        None => None,
    };
    Answer { load: None, unready }
}

/// Status and body that an admin listener answers, if it does in time.
async fn answer(at: SocketAddr, path: &str) -> Option<(hyper::StatusCode, String)> {
    let exchange = async {
        let stream = TcpStream::connect(at).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, at.to_string())
            .body(Empty::<Bytes>::new())
            .ok()?;
        let answering = async {
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.ok()?;
            Some((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        tokio::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            _ = connection => answering.await,
        }
    };
    tokio::time::timeout(SCRAPE_TIMEOUT, exchange).await.ok().flatten()
}

/// Figures of the server that tell its load: sockets, in whatever state, and matches. Its version
/// may give them labels; a test holds the names against the server's own list.
pub const LOAD_FIGURES: [&str; 2] = ["gameserver_sockets", "gameserver_matches_loaded"];

fn load(metrics: &str) -> Option<Load> {
    let figure = |name: &str| {
        let series = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        let own = series.filter(|(series, _)| series.split('{').next() == Some(name));
        let values = own.filter_map(|(_, value)| value.trim().parse::<i64>().ok());
        values.reduce(i64::saturating_add)
    };
    let [players, matches] = LOAD_FIGURES.map(figure);
    // Without a socket there is no state to name.
    Some(Load { players: players.unwrap_or(0), matches: matches? })
}

/// What a problem's body says.
fn detail(body: &str) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_str(body).ok()?;
    problem["detail"].as_str().map(shortened)
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(MESSAGE_CHARS_MAX).collect()
}

fn known(seen: &ApiPod) -> Option<(Key, Known)> {
    let key = (seen.namespace()?, seen.labels().get(INSTANCE_LABEL)?.clone());
    let status = seen.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let (meta, labels) = (&seen.metadata, seen.labels());
    let pod = Pod {
        name: seen.name_any(),
        revision: labels.get(REVISION_LABEL).cloned().unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0),
        ready: has_condition(status, "Ready"),
        trouble: status.and_then(trouble),
        draining_since: seen.annotations().get(DRAINING_ANNOTATION).map(|since| {
            // Unreadable: somebody has changed it; long enough ago.
            since.parse().unwrap_or(Timestamp::UNIX_EPOCH)
        }),
        deleting: meta.deletion_timestamp.is_some(),
        ended: ["Failed", "Succeeded"].contains(&phase),
        load: None,
    };
    let version = seen.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0);
    let ip = status.and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
    Some((key, Known { uid: meta.uid.clone(), version, pod, ip, unready: None }))
}

fn has_condition(status: Option<&PodStatus>, name: &str) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == name && condition.status == "True")
}

/// Why a pod doesn't start.
pub fn trouble(status: &PodStatus) -> Option<String> {
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(shortened(&format!("Unschedulable: {message}")));
    }
    status.container_statuses.iter().flatten().find_map(stuck)
}

fn stuck(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| STUCK.contains(reason))?;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let said = last.and_then(|ended| ended.message.as_deref()).and_then(|text| {
        // What the server said last.
        text.lines().rfind(|line| !line.trim().is_empty())
    });
    let why = said.or(waiting.message.as_deref()).unwrap_or_default();
    Some(shortened(&format!("{reason}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(version: u32, uid: &str, status: &Value) -> ApiPod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "g-0", "namespace": "play", "uid": uid, "resourceVersion": version.to_string(),
                "labels": { INSTANCE_LABEL: "g", REVISION_LABEL: "a" },
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": status,
        }))
        .unwrap()
    }

    fn key() -> Key {
        ("play".into(), "g".into())
    }

    fn ready() -> Value {
        json!({"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]})
    }

    fn seconds_later(seconds: i64) -> Timestamp {
        let made: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        made + k8s_openapi::jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_does_not_count() {
        let pods = Pods::default();
        pods.observe(&pod(7, "u", &ready()));
        pods.observe(&pod(6, "u", &json!({})));
        assert!(pods.of(&key(), seconds_later(0))[0].ready);
        pods.forget(&pod(8, "another", &json!({})));
        assert_eq!(pods.of(&key(), seconds_later(0)).len(), 1);
        pods.forget(&pod(8, "u", &json!({})));
        assert!(pods.of(&key(), seconds_later(0)).is_empty());
    }

    #[test]
    fn a_pod_that_went_while_nobody_watched_is_named() {
        let pods = Pods::default();
        pods.observe(&pod(7, "u", &ready()));
        assert_eq!(pods.retain(&HashSet::from(["u".to_owned()])), Vec::new());
        let gone = pods.retain(&HashSet::from(["another".to_owned()]));
        assert_eq!((gone.len(), gone[0].name.as_deref()), (1, Some("g-0")));
        assert_eq!(gone[0].labels.as_ref().unwrap()[INSTANCE_LABEL], "g");
        assert!(pods.of(&key(), seconds_later(0)).is_empty());
    }

    #[test]
    fn a_pod_that_is_not_ready_in_time_is_in_trouble() {
        let pods = Pods::default();
        pods.observe(&pod(1, "u", &json!({"podIP": "10.0.0.1"})));
        assert_eq!(pods.of(&key(), seconds_later(119))[0].trouble, None);
        let target = &pods.targets()[0];
        let unready = Some("the store does not answer".into());
        assert!(pods.answered(target, Answer { load: None, unready }));
        let trouble = pods.of(&key(), seconds_later(120))[0].trouble.clone().unwrap();
        assert_eq!(trouble, "not ready after 120 s: the store does not answer");
        assert_eq!(pods.unready(&key()).as_deref(), Some("the store does not answer"));
        pods.observe(&pod(2, "u", &ready()));
        assert_eq!(pods.unready(&key()), None);
    }

    #[test]
    fn a_containers_own_words_say_why_it_does_not_start() {
        let status = json!({"containerStatuses": [{
            "name": "gameserver", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 2, "message": "gameserver: GAMESERVER_X is no setting\n"}},
        }]});
        let pods = Pods::default();
        pods.observe(&pod(1, "u", &status));
        let trouble = pods.of(&key(), seconds_later(0))[0].trouble.clone().unwrap();
        assert_eq!(trouble, "CrashLoopBackOff: gameserver: GAMESERVER_X is no setting");
    }

    #[test]
    fn figures_are_found_in_a_pods_metrics() {
        let text =
            "# HELP gameserver_sockets x\ngameserver_sockets 12\ngameserver_matches_loaded 3\n";
        assert_eq!(load(text), Some(Load { players: 12, matches: 3 }));
        let labelled = text.replace(
            "gameserver_sockets 12",
            "gameserver_sockets{state=\"idle\"} 10\ngameserver_sockets{state=\"running\"} 2\n\
             gameserver_sockets_opened_total 99",
        );
        assert_eq!(load(&labelled), Some(Load { players: 12, matches: 3 }));
        let nobody = Load { players: 0, matches: 3 };
        assert_eq!(load("gameserver_matches_loaded 3\n"), Some(nobody));
        assert_eq!(load("gameserver_sockets 12\n"), None);
    }
}
