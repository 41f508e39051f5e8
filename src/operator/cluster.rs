//! Reads and writes objects: server-side apply under one name, and only where something differs.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams,
    Preconditions, PropagationPolicy,
};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use super::crd::Gameserver;
use super::desired::{Desired, MANAGER, digest};

/// Says what was applied, so that a field that is wanted no more is noticed.
const APPLIED: &str = "gameserver.com/applied";

/// How long the API server may take: half of what it gives itself.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a Gameserver owns, or refers to (ConfigMaps): kind, group, version, plural.
pub const KINDS: &[(&str, &str, &str, &str)] = &[
    ("ServiceAccount", "", "v1", "serviceaccounts"),
    ("ConfigMap", "", "v1", "configmaps"),
    ("Secret", "", "v1", "secrets"),
    ("Service", "", "v1", "services"),
    ("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims"),
    ("Pod", "", "v1", "pods"),
    ("StatefulSet", "apps", "v1", "statefulsets"),
    ("ControllerRevision", "apps", "v1", "controllerrevisions"),
    ("Job", "batch", "v1", "jobs"),
    ("CronJob", "batch", "v1", "cronjobs"),
    ("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
    ("Ingress", "networking.k8s.io", "v1", "ingresses"),
];

/// Why something could not be done; each says what to do about it.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The API server refused, or did not answer.
    #[error("{what}: {}", explain(error))]
    Api {
        /// What was being done.
        what: String,
        /// Why not.
        error: Box<kube::Error>,
    },
    /// The API server was silent.
    #[error("{what}: no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Silent {
        /// What was being done.
        what: String,
    },
    /// Somebody else's object has the name.
    #[error(
        "{kind} {name} is there already and belongs to somebody else: delete it, or name the Gameserver otherwise"
    )]
    NotOurs {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl ClusterError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { error, .. } => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Silent { .. } | Self::NotOurs { .. } => None,
        }
    }

    /// Whether the very object is not there.
    fn is_missing(&self) -> bool {
        self.status().is_some_and(|status| {
            let named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
            status.code == 404 && named
        })
    }

    /// The HTTP status, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// One word for a condition.
    pub fn reason(&self) -> &'static str {
        match (self, self.code()) {
            (Self::NotOurs { .. }, _) => "NameTaken",
            (_, Some(403)) => "Forbidden",
            (_, Some(409)) => "Conflict",
            (_, Some(422 | 400)) => "Refused",
            (_, Some(429)) => "Throttled",
            _ => "ApiUnavailable",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let advice = match self.reason() {
            "Forbidden" => "; give the operator the rights of deploy/operator/rbac.yaml again",
            "Refused" => "; change the field of the Gameserver that this comes from",
            "Conflict" | "Throttled" | "ApiUnavailable" => "; it is tried again",
            _ => "",
        };
        format!("{self}{advice}")
    }

    /// How long the API server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        let details = self.status()?.details.as_ref()?;
        (details.retry_after_seconds > 0)
            .then(|| Duration::from_secs(details.retry_after_seconds.into()))
    }

    /// Whether the namespace is on its way out: nothing can be made there.
    pub fn in_deleted_namespace(&self) -> bool {
        let Some(status) = self.status() else { return false };
        let gone = status.code == 404
            && status.details.as_ref().is_some_and(|details| details.kind == "namespaces");
        gone || status.code == 403 && status.message.contains("being terminated")
    }

    /// Whether the API server does not serve the kind at all.
    fn is_unserved(&self) -> bool {
        self.status().is_some_and(|status| {
            status.code == 404
                && status.details.as_ref().is_none_or(|details| details.name.is_empty())
        })
    }
}

/// The cluster, and what was written there last.
pub struct Cluster {
    /// The way to the API server.
    pub client: Client,
    /// Resource versions of own writes, by which their echoes are known: hashes of both, since there
    /// is one entry for each object that is owned. Those of deleted ones go.
    written: Mutex<HashMap<u64, u64>>,
    hasher: RandomState,
    /// Kinds that are not served.
    unserved: Mutex<BTreeSet<&'static str>>,
    /// Requests that write.
    pub writes: AtomicU64,
}

/// What became of an object.
#[derive(Debug)]
pub enum Applied {
    /// It is there.
    Live(Box<DynamicObject>),
    /// It is not, as it should be.
    Absent,
    /// Its kind is not served; `true`: that was not known before.
    Unserved(bool),
}

impl Cluster {
    /// Through this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            written: Mutex::default(),
            hasher: RandomState::new(),
            unserved: Mutex::default(),
            writes: AtomicU64::new(0),
        }
    }

    /// Makes an object as it is to be, or sees to it that it is not there.
    pub async fn apply(
        &self,
        owner: &Gameserver,
        desired: &Desired,
    ) -> Result<Applied, ClusterError> {
        let namespace = owner.namespace().unwrap_or_default();
        let (kind, done) = match desired {
            Desired::Present(object) => {
                let kind = kind_of(object);
                (kind, self.present(owner, &namespace, kind, object).await)
            }
            Desired::Absent(kind, name) => {
                (*kind, self.absent(owner, &namespace, kind, name).await)
            }
        };
        let mut unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Err(error) if error.is_unserved() => Ok(Applied::Unserved(unserved.insert(kind))),
            Ok(applied) => {
                unserved.remove(kind);
                Ok(applied)
            }
            Err(error) => Err(error),
        }
    }

    async fn present(
        &self,
        owner: &Gameserver,
        namespace: &str,
        kind: &'static str,
        object: &Value,
    ) -> Result<Applied, ClusterError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut object = object.clone();
        let applied = digest(&object);
        object["metadata"]["annotations"][APPLIED] = json!(applied);
        if let Some(live) = self.find(namespace, kind, name).await? {
            if !may_change(owner, &live) {
                return Err(ClusterError::NotOurs { kind, name: name.to_owned() });
            }
            if contains(&json!(live), &object) {
                return Ok(Applied::Live(Box::new(live)));
            }
        }
        self.impose(namespace, kind, name, object).await
    }

    /// Server-side apply leaves alone what others have added to a list. Where such an item makes the
    /// object another than it is to be, or invalid, the whole list is written.
    async fn impose(
        &self,
        namespace: &str,
        kind: &'static str,
        name: &str,
        object: Value,
    ) -> Result<Applied, ClusterError> {
        let seen = match self.write(namespace, kind, name, &object).await {
            Ok(live) if contains(&json!(live), &object) => {
                return Ok(Applied::Live(Box::new(live)));
            }
            Ok(live) => live.metadata,
            Err(error) if error.code() == Some(422) => {
                match self.find(namespace, kind, name).await? {
                    Some(live) => live.metadata,
                    None => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        Ok(Applied::Live(Box::new(self.change(kind, &seen, object).await?)))
    }

    async fn absent(
        &self,
        owner: &Gameserver,
        namespace: &str,
        kind: &'static str,
        name: &str,
    ) -> Result<Applied, ClusterError> {
        match self.find(namespace, kind, name).await? {
            Some(live) if is_owned(owner, &live) => {
                self.delete(namespace, kind, &live.metadata).await?;
            }
            _ => {}
        }
        Ok(Applied::Absent)
    }

    /// Writes an object whatever is there.
    pub async fn write(
        &self,
        namespace: &str,
        kind: &'static str,
        name: &str,
        object: &Value,
    ) -> Result<DynamicObject, ClusterError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let parameters = PatchParams::apply(MANAGER).force();
        let api = self.api(namespace, kind);
        let patch = Patch::Apply(object);
        let live = answer(("apply", kind, name), api.patch(name, &parameters, &patch)).await?;
        self.remember(kind, &live.metadata);
        Ok(live)
    }

    /// Changes a few fields of an object that is still the one that was seen.
    pub async fn change(
        &self,
        kind: &'static str,
        of: &ObjectMeta,
        change: Value,
    ) -> Result<DynamicObject, ClusterError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let (namespace, name) = place(of);
        let mut change = change;
        change["metadata"]["uid"] = json!(of.uid);
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        let api = self.api(namespace, kind);
        let patch = Patch::Merge(&change);
        let live = answer(("patch", kind, name), api.patch(name, &parameters, &patch)).await?;
        self.remember(kind, &live.metadata);
        Ok(live)
    }

    /// The object of this name, if there is one.
    pub async fn find(
        &self,
        namespace: &str,
        kind: &'static str,
        name: &str,
    ) -> Result<Option<DynamicObject>, ClusterError> {
        match answer(("get", kind, name), self.api(namespace, kind).get(name)).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Objects with these labels.
    pub async fn list(
        &self,
        namespace: &str,
        kind: &'static str,
        labels: &str,
    ) -> Result<Vec<DynamicObject>, ClusterError> {
        let (api, labelled) = (self.api(namespace, kind), ListParams::default().labels(labels));
        Ok(answer(("list", kind, labels), api.list(&labelled)).await?.items)
    }

    /// Deletes the very object that was seen; one that is gone already is no error.
    pub async fn delete(
        &self,
        namespace: &str,
        kind: &'static str,
        seen: &ObjectMeta,
    ) -> Result<(), ClusterError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let name = seen.name.as_deref().unwrap_or_default();
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: seen.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let api = self.api(namespace, kind);
        match answer(("delete", kind, name), api.delete(name, &parameters)).await {
            Err(error) if error.code() != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether this state of an object is one's own writing, of which one knows.
    pub fn is_echo(&self, kind: &'static str, seen: &ObjectMeta) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let version = seen.resource_version.as_ref().map(|version| self.hasher.hash_one(version));
        version.is_some() && written.get(&self.key(kind, seen)).copied() == version
    }

    /// Of an object that is gone.
    pub fn forget(&self, kind: &'static str, seen: &ObjectMeta) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key(kind, seen));
    }

    fn remember(&self, kind: &'static str, live: &ObjectMeta) {
        let Some(version) = &live.resource_version else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(self.key(kind, live), self.hasher.hash_one(version));
    }

    fn key(&self, kind: &'static str, of: &ObjectMeta) -> u64 {
        self.hasher.hash_one((kind, place(of)))
    }

    fn api(&self, namespace: &str, kind: &'static str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }
}

/// What the API server answers, if it does in time. The first are the verb, the kind and the name.
pub async fn answer<T>(
    what: (&str, &str, &str),
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    let what = || format!("{} {} {}", what.0, what.1, what.2);
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => {
            answer.map_err(|error| ClusterError::Api { what: what(), error: error.into() })
        }
        Err(_) => Err(ClusterError::Silent { what: what() }),
    }
}

fn place(of: &ObjectMeta) -> (&str, &str) {
    (of.namespace.as_deref().unwrap_or_default(), of.name.as_deref().unwrap_or_default())
}

/// How the API addresses a kind of [`KINDS`].
pub fn resource(kind: &str) -> ApiResource {
    let known = KINDS.iter().find(|(known, ..)| *known == kind);
    let (kind, group, version, plural) = known.expect("only kinds of the list are used");
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn kind_of(object: &Value) -> &'static str {
    let kind = object["kind"].as_str().unwrap_or_default();
    let known = KINDS.iter().find(|(known, ..)| *known == kind);
    known.expect("only kinds of the list are made").0
}

fn is_owned(owner: &Gameserver, live: &DynamicObject) -> bool {
    let uid = owner.uid().unwrap_or_default();
    live.owner_references().iter().any(|reference| reference.uid == uid)
}

/// What has no owner and was made by the operator outlived a Gameserver of this name.
fn may_change(owner: &Gameserver, live: &DynamicObject) -> bool {
    let ours = live.labels().get(super::desired::MANAGED_BY_LABEL).is_some_and(|by| by == MANAGER);
    is_owned(owner, live) || ours && live.owner_references().is_empty()
}

/// Whether `live` is as `desired` says. What others, or defaults, have added does no harm.
pub fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired
            .iter()
            .all(|(key, desired)| contains(live.get(key).unwrap_or(&Value::Null), desired)),
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len()
                && live.iter().zip(desired).all(|(live, desired)| contains(live, desired))
        }
        (Value::Null, Value::Object(desired)) => desired.is_empty(),
        (Value::Null, Value::Array(desired)) => desired.is_empty(),
        (live, desired) => {
            live == desired || quantity(live).is_some_and(|live| Some(live) == quantity(desired))
        }
    }
}

/// A quantity's value: the API server writes `1Gi` for `1024Mi`.
fn quantity(value: &Value) -> Option<f64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| (number * factor * 1e3).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_added_is_no_difference_and_what_is_missing_is() {
        let live = json!({"a": 1, "b": {"c": [1, {"d": 2, "e": 3}]}, "status": {}});
        assert!(contains(&live, &json!({"b": {"c": [1, {"d": 2}]}, "none": {}})));
        assert!(!contains(&live, &json!({"b": {"c": [1]}})));
        assert!(!contains(&live, &json!({"a": 2})));
        assert!(!contains(&live, &json!({"f": 1})));
    }

    fn error(code: u16, message: &str, details: &Value) -> ClusterError {
        let status = json!({ "code": code, "message": message, "details": details });
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        let (what, error) = ("apply Service play".into(), kube::Error::Api(Box::new(status)));
        ClusterError::Api { what, error: Box::new(error) }
    }

    #[test]
    fn an_error_says_what_to_do_and_how_long_to_wait() {
        let throttled = error(429, "too many requests", &json!({ "retryAfterSeconds": 7 }));
        assert_eq!(
            (throttled.reason(), throttled.retry_after()),
            ("Throttled", Some(Duration::from_secs(7)))
        );
        let forbidden = error(403, "may not", &Value::Null);
        assert_eq!(
            forbidden.advice(),
            "apply Service play: may not; give the operator the rights of deploy/operator/rbac.yaml again"
        );
        assert_eq!(error(409, "another was quicker", &Value::Null).reason(), "Conflict");
        assert_eq!(error(422, "no such type", &Value::Null).reason(), "Refused");
        assert_eq!(error(504, "timeout", &Value::Null).reason(), "ApiUnavailable");
        let silent = ClusterError::Silent { what: "apply Service play".into() };
        let advice = "apply Service play: no answer within 30 s; it is tried again";
        assert_eq!((silent.reason(), silent.advice().as_str()), ("ApiUnavailable", advice));
    }

    #[test]
    fn what_is_gone_is_told_apart() {
        let terminating = "namespace games is being terminated";
        assert!(error(403, terminating, &Value::Null).in_deleted_namespace());
        assert!(
            error(404, "gone", &json!({"kind": "namespaces", "name": "games"}))
                .in_deleted_namespace()
        );
        assert!(!error(403, "may not", &Value::Null).in_deleted_namespace());
        // A kind that is not served has no details, an object that is not there has its name.
        assert!(error(404, "404 page not found", &Value::Null).is_unserved());
        assert!(!error(404, "gone", &json!({"kind": "services", "name": "play"})).is_unserved());
    }

    #[test]
    fn quantities_are_compared_by_their_value() {
        let same = [("1024Mi", "1Gi"), ("0.5", "500m"), ("1000m", "1"), ("2G", "2000M")];
        for (left, right) in same {
            assert!(contains(&json!({"cpu": left}), &json!({"cpu": right})), "{left} {right}");
        }
        assert!(contains(&json!(1), &json!("1")));
        assert!(!contains(&json!("1Gi"), &json!("1G")));
        assert!(!contains(&json!("postgres:17"), &json!("postgres:18")));
    }
}
