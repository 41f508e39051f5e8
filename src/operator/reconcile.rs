//! Makes the cluster as a Gameserver says: read [`Operator::settle`] from top to bottom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::autoscale::{self, History};
use super::cluster::{Applied, Cluster, ClusterError, REQUEST_TIMEOUT, answer};
use super::crd::{Gameserver, GameserverSpec, GameserverStatus};
use super::database::{self, Database, Observed};
use super::desired::{self, Desired, MANAGER, Names, Seen};
use super::keys::jitter;
use super::metrics::Metrics;
use super::pods::{DRAINING_ANNOTATION, Key, Pods};
use super::rollout::{self, Plan, Pod, Step};
use super::rotation::{self, Kept};
use super::status::{self, Report, Why};
use super::stored::{self, Stored, Unreadable};
use super::throttle::Throttle;

/// Holds a Gameserver that is deleted until its pods have drained: the database goes after them.
const FINALIZER: &str = "gameserver.com/drain";

/// After which an object is looked at again though nothing was heard of it.
const RESYNC: Duration = Duration::from_secs(300);
/// The same while something is under way that no watch tells of.
const SOON: Duration = Duration::from_secs(10);
/// How often the size is thought over.
const AUTOSCALE_INTERVAL: Duration = Duration::from_secs(15);
/// How often new figures are written into the status, at most.
const FIGURES_INTERVAL: Duration = Duration::from_secs(30);
/// The first wait after an error; each further error doubles it.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(120);

/// All that a reconcile needs.
pub struct Operator {
    /// Objects, read and written.
    pub cluster: Cluster,
    /// Pods, seen and asked.
    pub pods: Pods,
    /// Counted for `/metrics`.
    pub metrics: Metrics,
    throttle: Throttle,
    /// What is remembered of each object from one reconcile to the next; goes with the object.
    memory: Mutex<HashMap<Key, Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Reconciles that failed in a row.
    failures: u32,
    /// What an Event has said of them last.
    told: Option<&'static str>,
    history: History,
    figures_written: Option<Instant>,
}

/// What ended a reconcile.
struct Failed {
    error: ClusterError,
    /// Whether the status says so.
    told: bool,
}

impl From<ClusterError> for Failed {
    fn from(error: ClusterError) -> Self {
        Self { error, told: false }
    }
}

/// What there is beside the pods.
struct Surroundings {
    seen: Seen,
    keys: Option<Kept>,
    database: Database,
    endpoint: Option<String>,
    last_backup: Option<String>,
    /// Why the newest backup is not there.
    backup: Option<Why>,
    trouble: Option<Why>,
    /// The first thing that failed, to be tried again.
    error: Option<ClusterError>,
}

/// A Gameserver's namespace and name.
pub fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Operator {
    /// Through this client, whose answers `throttle` looks at.
    pub fn new(client: Client, throttle: Throttle) -> Self {
        Self {
            throttle,
            cluster: Cluster::new(client),
            pods: Pods::default(),
            metrics: Metrics::default(),
            memory: Mutex::default(),
        }
    }

    /// One reconcile, counted.
    pub async fn reconcile(
        stored: Arc<Stored>,
        operator: Arc<Self>,
    ) -> Result<Action, ClusterError> {
        let asked = operator.throttle.left();
        if !asked.is_zero() {
            // Whatever has changed meanwhile.
            return Ok(Action::requeue(asked + RETRY_MIN.mul_f64(jitter())));
        }
        let key = key_of(stored.meta());
        let timed = operator.metrics.begin(&key);
        let done = match &stored.0 {
            Ok(object) => operator.settle(object).await,
            Err(unreadable) => operator.report_unreadable(unreadable).await.map_err(Failed::from),
        };
        timed.end(done.is_ok());
        match &done {
            Ok(_) => {
                operator.with_memory(&key, |memory| (memory.failures, memory.told) = (0, None));
            }
            Err(failed) => operator.tell_failure(&stored, failed).await,
        }
        done.map_err(|failed| failed.error)
    }

    /// What the status does not say is told by an Event, once for all failures in a row.
    async fn tell_failure(&self, stored: &Stored, Failed { error, told }: &Failed) {
        // The first passes by itself, and in the other case no Event is taken.
        if *told || error.code() == Some(409) || error.in_deleted_namespace() {
            return;
        }
        let reason = error.reason();
        let before = self.with_memory(&key_of(stored.meta()), |known| known.told.replace(reason));
        if before != Some(reason) {
            self.publish(stored, event(EventType::Warning, reason, error.advice())).await;
        }
    }

    /// When to try again: later each time, and not all at once.
    pub fn retry(&self, object: &ObjectMeta, error: &ClusterError) -> Action {
        let key = key_of(object);
        let failures = self.with_memory(&key, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures
        });
        tracing::warn!(namespace = key.0, name = key.1, failures, %error, "a reconcile failed");
        let doubled = RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let wait = doubled.min(RETRY_MAX).mul_f64(0.5 + jitter() / 2.0);
        let asked = error.retry_after().unwrap_or_default().max(self.throttle.left());
        Action::requeue(wait.max(asked))
    }

    /// Makes the cluster as the object says, and says how far that is.
    async fn settle(&self, object: &Gameserver) -> Result<Action, Failed> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(self.finish(object, None).await?);
        }
        if let Some(why) = refusal(object) {
            let refused = status::refused(object, &why, Timestamp::now());
            self.write_status(object, refused).await?;
            return Ok(Action::requeue(RESYNC));
        }
        self.hold(object).await?;
        let mut around = self.surround(object).await;
        let (now, key) = (Timestamp::now(), key_of(&object.metadata));
        let template = desired::template(object, &around.seen);
        let before = object.status.clone().unwrap_or_default();
        // Without a template nothing is known of a target: what there is stays.
        let target = template.as_ref().map(desired::digest);
        let target = target.or(before.current_revision.clone()).unwrap_or_default();
        let mut plan = Plan {
            replicas: usize::try_from(self.replicas(object, &key, now)).unwrap_or(0),
            surge: usize::try_from(object.spec.update.max_surge).unwrap_or(1),
            target: &target,
            proven: before.current_revision.as_deref(),
            may_start: around.database.may_start && template.is_some() && around.trouble.is_none(),
            paused: object.spec.update.paused,
        };
        let steps = rollout::steps(&self.pods.of(&key, now), &plan, now);
        for step in steps {
            if let Err(error) = self.step(object, step, &target, template.as_ref()).await {
                around.error.get_or_insert(error);
            }
        }
        let pods = self.pods.of(&key, now);
        if is_rolled_out(&pods, &plan) && plan.proven != Some(plan.target) {
            self.forget_revisions(object, &around, &target).await?;
            plan.proven = Some(plan.target);
        }
        let keys = around.keys.take();
        let figures_wait = self.tell(object, &pods, &plan, around, now).await?;
        let everywhere =
            template.is_some() && is_rolled_out(&pods, &plan) && pods.len() == plan.replicas;
        let mut next = next_look(object, &pods, &plan, now);
        if let Some(due) = self.rotate(object, keys, everywhere, now).await? {
            next = next.min(due);
        }
        Ok(Action::requeue(figures_wait.map_or(next, |wait| next.min(wait))))
    }

    /// Everything but the pods that play: applied whatever fails, so that one part that can't be
    /// made is no reason to lack the others.
    async fn surround(&self, object: &Gameserver) -> Surroundings {
        let mut around = Surroundings {
            seen: Seen::default(),
            keys: None,
            database: Database::unknown(),
            endpoint: None,
            last_backup: None,
            backup: None,
            trouble: None,
            error: None,
        };
        match database::observe(&self.cluster, object).await {
            Ok(Observed { seen, keys, trouble }) => {
                (around.seen, around.keys, around.trouble) = (seen, keys, trouble);
            }
            Err(error) => around.error = Some(error),
        }
        let mut server = None;
        for wanted in desired::objects(object, &around.seen) {
            match self.cluster.apply(object, &wanted).await {
                Ok(Applied::Live(live)) => around.note(&mut server, &live),
                Ok(Applied::Absent) => {}
                Ok(Applied::Unserved(news)) => self.tell_unserved(object, &wanted, news).await,
                Err(error) => {
                    around.error.get_or_insert(error);
                }
            }
        }
        let key = key_of(&object.metadata);
        let unready = self.pods.unready(&key);
        match database::prepare(&self.cluster, object, &around.seen, server.as_ref(), unready).await
        {
            Ok(database) => around.database = database,
            Err(error) => {
                around.error.get_or_insert(error);
            }
        }
        match database::failed_backup(&self.cluster, object, &around.seen).await {
            Ok(backup) => around.backup = backup,
            Err(error) => {
                around.error.get_or_insert(error);
            }
        }
        around
    }

    /// Takes the keys one step further; when to look again.
    async fn rotate(
        &self,
        object: &Gameserver,
        keys: Option<Kept>,
        everywhere: bool,
        now: Timestamp,
    ) -> Result<Option<Duration>, ClusterError> {
        let Some(keys) = keys else { return Ok(None) };
        let (kept, told) = match keys.next(object, everywhere, now) {
            rotation::Step::Rest => return Ok(None),
            rotation::Step::Wait(due) => return Ok(Some(due)),
            rotation::Step::Write(kept, told) => (kept, told),
        };
        let (namespace, name) = key_of(&object.metadata);
        let secret = desired::keys_secret(object, &kept);
        self.cluster.write(&namespace, "Secret", &Names(&name).keys(), &secret).await?;
        self.publish(object, event(EventType::Normal, told.reason, told.message)).await;
        Ok(Some(Duration::ZERO))
    }

    /// How many pods are wanted.
    fn replicas(&self, object: &Gameserver, key: &Key, now: Timestamp) -> i32 {
        let Some(scale) = &object.spec.autoscaling else { return object.spec.replicas };
        let before = object.status.as_ref().map_or(0, |status| status.desired_replicas);
        let current = if before > 0 { before } else { scale.min };
        let pods = self.pods.of(key, now);
        let ready = pods.iter().filter(|pod| pod.ready && !pod.deleting);
        let loads: Vec<_> = ready.map(|pod| pod.load).collect();
        self.with_memory(key, |memory| {
            autoscale::desired(scale, current, &loads, &mut memory.history, now)
        })
    }

    async fn step(
        &self,
        object: &Gameserver,
        step: Step,
        target: &str,
        template: Option<&Value>,
    ) -> Result<(), ClusterError> {
        let key = key_of(&object.metadata);
        let namespace = &key.0;
        match step {
            Step::Create { revision, number } => {
                let template = match template.filter(|_| revision == target) {
                    Some(template) => {
                        let kept = desired::revision(object, target, template);
                        self.cluster.apply(object, &Desired::Present(kept)).await?;
                        Some(template.clone())
                    }
                    None => self.kept_template(object, &revision).await?,
                };
                let Some(template) = template else { return Ok(()) };
                let pod = desired::pod(object, &template, &revision, number);
                let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let made = self.cluster.write(namespace, "Pod", &name, &pod).await?;
                self.observe(&made);
            }
            Step::Drain(name) => {
                let Some(meta) = self.pods.meta(&key, &name) else { return Ok(()) };
                let change = json!({ "metadata": {
                    "labels": { desired::SERVING_LABEL: "false" },
                    "annotations": { DRAINING_ANNOTATION: Timestamp::now().to_string() },
                }});
                let changed = self.cluster.change("Pod", &meta, change).await?;
                self.observe(&changed);
            }
            Step::Delete(name) => {
                let Some(meta) = self.pods.meta(&key, &name) else { return Ok(()) };
                self.cluster.delete(namespace, "Pod", &meta).await?;
            }
        }
        Ok(())
    }

    /// Takes over what a write to a pod made of it, before the watch tells.
    fn observe(&self, live: &DynamicObject) {
        if let Ok(pod) = live.clone().try_parse::<ApiPod>() {
            self.pods.observe(&pod);
        }
    }

    async fn kept_template(
        &self,
        object: &Gameserver,
        revision: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let (namespace, name) = key_of(&object.metadata);
        let kept = Names(&name).revision(revision);
        let kept = self.cluster.find(&namespace, "ControllerRevision", &kept).await?;
        Ok(kept.map(|kept| kept.data["data"].clone()))
    }

    /// What only earlier revisions needed goes once a new one is proven.
    async fn forget_revisions(
        &self,
        object: &Gameserver,
        around: &Surroundings,
        target: &str,
    ) -> Result<(), ClusterError> {
        let (namespace, name) = key_of(&object.metadata);
        let migration = around.seen.database_url.as_ref().map(|url| {
            let job = desired::migration(object, url);
            job["metadata"]["name"].as_str().unwrap_or_default().to_owned()
        });
        let kept = Names(&name).revision(target);
        let labels = |component: &str| desired::selector(object, component);
        let revisions =
            self.cluster.list(&namespace, "ControllerRevision", &labels(desired::GAME)).await?;
        for old in revisions.iter().filter(|old| old.name_any() != kept) {
            self.cluster.delete(&namespace, "ControllerRevision", &old.metadata).await?;
        }
        let jobs = self.cluster.list(&namespace, "Job", &labels("migrate")).await?;
        for old in jobs.iter().filter(|old| Some(old.name_any()) != migration) {
            self.cluster.delete(&namespace, "Job", &old.metadata).await?;
        }
        Ok(())
    }

    /// Writes the status; an error that was met is told there, and then handed on. When there are newer
    /// figures, for which it is too early: how long they wait.
    async fn tell(
        &self,
        object: &Gameserver,
        pods: &[Pod],
        plan: &Plan<'_>,
        around: Surroundings,
        now: Timestamp,
    ) -> Result<Option<Duration>, Failed> {
        let failed = around.error.as_ref().map(|error| Why::new(error.reason(), error.advice()));
        // What passes by itself is told when it does not.
        let passing = around.error.as_ref().is_some_and(|error| error.code() == Some(409));
        let report = Report {
            pods,
            plan,
            database: around.database.ready,
            trouble: around.trouble.or(failed.filter(|_| !passing)),
            refusal: around.backup.or_else(|| rotation::refusal(object)),
            endpoint: around.endpoint,
            last_backup: around.last_backup,
        };
        let key = key_of(&object.metadata);
        let mut status = status::status(object, &report, now);
        let before = object.status.as_ref().map_or((0, 0), |old| (old.players, old.matches));
        let news = before != (status.players, status.matches);
        // A new leader has asked nobody yet.
        let unknown = pods.iter().any(|pod| pod.ready) && pods.iter().all(|pod| pod.load.is_none());
        let written = self.with_memory(&key, |memory| memory.figures_written);
        let wait = written.map(|at| FIGURES_INTERVAL.saturating_sub(at.elapsed()));
        let early = wait.filter(|wait| news && !wait.is_zero());
        if early.is_some() || unknown {
            (status.players, status.matches) = before;
        }
        if around.error.as_ref().is_none_or(|error| !error.in_deleted_namespace()) {
            self.write_status(object, status).await?;
        }
        if news && early.is_none() && !unknown {
            self.with_memory(&key, |memory| memory.figures_written = Some(Instant::now()));
        }
        around.error.map_or(Ok(early), |error| Err(Failed { error, told: true }))
    }

    async fn write_status(
        &self,
        object: &Gameserver,
        status: GameserverStatus,
    ) -> Result<(), ClusterError> {
        if !self.announce(object, &status).await {
            return Ok(());
        }
        self.patch(object, Some("status"), &json!({ "status": status })).await
    }

    /// Tells what is new in a status; whether anything is.
    async fn announce(&self, object: &Gameserver, status: &GameserverStatus) -> bool {
        if object.status.as_ref() == Some(status) {
            return false;
        }
        for event in events(object, status) {
            self.publish(object, event).await;
        }
        true
    }

    /// Server-side apply to the Gameserver itself, which has to be the one that was seen.
    async fn patch(
        &self,
        object: &Gameserver,
        subresource: Option<&str>,
        change: &Value,
    ) -> Result<(), ClusterError> {
        let (namespace, name) = key_of(&object.metadata);
        let mut whole = json!({
            "apiVersion": Gameserver::api_version(&()),
            "kind": Gameserver::kind(&()),
            "metadata": { "name": name, "namespace": namespace, "uid": object.metadata.uid },
        });
        if let (Some(whole), Some(change)) = (whole.as_object_mut(), change.as_object()) {
            for (field, value) in change {
                match value.as_object().filter(|_| field == "metadata") {
                    Some(more) => {
                        let metadata = whole.entry("metadata").or_insert_with(|| json!({}));
                        more.iter().for_each(|(key, value)| metadata[key] = value.clone());
                    }
                    None => {
                        whole.insert(field.clone(), value.clone());
                    }
                }
            }
        }
        self.send(object, subresource, &Patch::Apply(whole)).await
    }

    async fn send(
        &self,
        object: &Gameserver,
        subresource: Option<&str>,
        change: &Patch<Value>,
    ) -> Result<(), ClusterError> {
        self.cluster.writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (namespace, name) = key_of(&object.metadata);
        let api = self.objects(&namespace);
        let (verb, force) = match change {
            Patch::Apply(_) => ("apply", true),
            _ => ("patch", false),
        };
        let parameters = PatchParams { force, ..PatchParams::apply(MANAGER) };
        let patched = async {
            match subresource {
                Some(_) => api.patch_status(&name, &parameters, change).await,
                None => api.patch(&name, &parameters, change).await,
            }
        };
        answer((verb, "Gameserver", &name), patched).await.map(|_| ())
    }

    async fn hold(&self, object: &Gameserver) -> Result<(), ClusterError> {
        if object.finalizers().iter().any(|known| known == FINALIZER) {
            return Ok(());
        }
        self.patch(object, None, &json!({ "metadata": { "finalizers": [FINALIZER] } })).await
    }

    /// Lets the pods drain, all at once, and then lets the object go.
    /// `least` is what the API server takes of a spec that can't be read.
    async fn finish(
        &self,
        object: &Gameserver,
        least: Option<&Value>,
    ) -> Result<Action, ClusterError> {
        if object.finalizers().iter().all(|known| known != FINALIZER) {
            return Ok(Action::await_change());
        }
        let key = key_of(&object.metadata);
        let pods = self.pods.of(&key, Timestamp::now());
        for pod in pods.iter().filter(|pod| !pod.deleting) {
            if let Some(meta) = self.pods.meta(&key, &pod.name) {
                self.cluster.delete(&key.0, "Pod", &meta).await?;
            }
        }
        if !pods.is_empty() {
            return Ok(Action::requeue(SOON));
        }
        let held = json!({ "metadata": { "finalizers": [] } });
        match least {
            // Server-side apply fails at such a field, whatever it is to write.
            Some(least) => self.let_go(object, least).await?,
            None => match self.patch(object, None, &held).await {
                Err(error) if error.code() == Some(422) => {
                    self.let_go(object, &stored::least(&json!(object.spec))).await?;
                }
                done => done?,
            },
        }
        // The next of that name may be there before its parts' ends are heard of.
        self.forget(&key);
        Ok(Action::await_change())
    }

    /// Takes the finalizer away together with whatever keeps the API server from taking that.
    async fn let_go(&self, object: &Gameserver, least: &Value) -> Result<(), ClusterError> {
        let others: Vec<&String> =
            object.finalizers().iter().filter(|known| *known != FINALIZER).collect();
        let metadata = json!({ "uid": object.metadata.uid, "finalizers": others });
        let change = Patch::Merge(json!({ "metadata": metadata, "spec": least }));
        self.send(object, None, &change).await
    }

    /// The Gameservers of a namespace, whatever is in them.
    fn objects(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = kube::api::ApiResource::erase::<Gameserver>(&());
        Api::namespaced_with(self.cluster.client.clone(), namespace, &kind)
    }

    /// Of an object that is gone.
    pub fn forget(&self, key: &Key) {
        self.metrics.forget(key);
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// An object that was stored before the schema was as it is.
    async fn report_unreadable(
        &self,
        Unreadable { metadata, status, problem, least }: &Unreadable,
    ) -> Result<Action, ClusterError> {
        let nothing = Gameserver::new("", GameserverSpec::default());
        let (metadata, status) = (metadata.clone(), status.clone());
        let object = Gameserver { metadata, status, ..nothing };
        if object.metadata.deletion_timestamp.is_some() {
            return self.finish(&object, Some(least)).await;
        }
        let explain = "`kubectl explain gameserver.spec`";
        let message = format!("{problem}; change the field ({explain}), or delete the object");
        let why = Why::new("InvalidSpec", message);
        let status = status::refused(&object, &why, Timestamp::now());
        if self.announce(&object, &status).await {
            let uid = &object.metadata.uid;
            let change = Patch::Merge(json!({ "metadata": { "uid": uid }, "status": status }));
            match self.send(&object, Some("status"), &change).await {
                // Before 1.30 not even a status is taken without the field: the Event is there.
                Err(error) if error.code() != Some(422) => return Err(error),
                _ => {}
            }
        }
        Ok(Action::requeue(RESYNC))
    }

    async fn tell_unserved(&self, object: &Gameserver, wanted: &Desired, news: bool) {
        if !news {
            return;
        }
        let kind = match wanted {
            Desired::Present(object) => object["kind"].as_str().unwrap_or_default().to_owned(),
            Desired::Absent(..) => return,
        };
        let note = format!("this cluster serves no {kind}: it goes on without");
        tracing::warn!(kind, "this cluster does not serve it: it goes on without");
        self.publish(object, event(EventType::Warning, "KindNotServed", note)).await;
    }

    /// An Event is a courtesy: conditions, annotations or the log say the same.
    async fn publish(&self, object: &impl Resource<DynamicType = ()>, event: Event) {
        let about = object.object_ref(&());
        // A new one each time: it would keep what it has published, all of it, for minutes.
        let recorder = Recorder::new(self.cluster.client.clone(), MANAGER.into());
        let published = recorder.publish(&event, &about);
        if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIMEOUT, published).await {
            tracing::debug!(%error, "an event could not be published");
        }
    }

    fn with_memory<T>(&self, key: &Key, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(key.clone()).or_default())
    }
}

impl Surroundings {
    /// Takes from objects what others have entered there.
    fn note(&mut self, database: &mut Option<DynamicObject>, live: &DynamicObject) {
        let kind = live.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
        match (kind, live.labels().get(desired::COMPONENT_LABEL).map(String::as_str)) {
            ("Service", Some(desired::GAME)) => {
                self.endpoint = endpoint(&live.data).or_else(|| self.endpoint.take());
            }
            ("Ingress", _) => {
                let host = live.data["spec"]["rules"][0]["host"].as_str();
                let scheme = if live.data["spec"]["tls"].is_array() { "https" } else { "http" };
                self.endpoint = host.map(|host| format!("{scheme}://{host}"));
            }
            ("CronJob", _) => {
                let last = live.data["status"]["lastSuccessfulTime"].as_str();
                self.last_backup = last.map(str::to_owned);
            }
            ("StatefulSet", _) => *database = Some(live.clone()),
            _ => {}
        }
    }
}

/// When to look again though nothing was heard.
fn next_look(object: &Gameserver, pods: &[Pod], plan: &Plan<'_>, now: Timestamp) -> Duration {
    let settled = is_rolled_out(pods, plan) && plan.may_start;
    let usual = match (&object.spec.autoscaling, settled) {
        (_, false) => SOON,
        (Some(_), true) => AUTOSCALE_INTERVAL,
        (None, true) => RESYNC.mul_f64(0.75 + jitter() / 2.0),
    };
    rollout::next_due(pods, now).map_or(usual, |due| due.min(usual))
}

/// Where a Service is reached.
fn endpoint(service: &Value) -> Option<String> {
    let balancer = &service["status"]["loadBalancer"]["ingress"][0];
    let outside = balancer["ip"].as_str().or_else(|| balancer["hostname"].as_str());
    let host = outside.or_else(|| service["spec"]["clusterIP"].as_str())?;
    let port = service["spec"]["ports"][0]["port"].as_u64()?;
    Some(format!("http://{host}:{port}"))
}

fn refusal(object: &Gameserver) -> Option<Why> {
    let problems = object.problems();
    (!problems.is_empty()).then(|| Why::new("InvalidSpec", problems.join("; ")))
}

/// Whether all pods are of the target, and as many take players as are wanted.
fn is_rolled_out(pods: &[Pod], plan: &Plan<'_>) -> bool {
    let mut staying = pods.iter().filter(|pod| pod.stays());
    let ready = pods.iter().filter(|pod| pod.stays() && pod.ready).count();
    !plan.target.is_empty()
        && ready >= plan.replicas
        && staying.all(|pod| pod.revision == plan.target)
}

fn event(type_: EventType, reason: &str, note: String) -> Event {
    let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
    Event { type_, reason, note: Some(note), action, secondary: None }
}

/// What has changed in the conditions, for `kubectl describe`.
fn events(object: &Gameserver, status: &GameserverStatus) -> Vec<Event> {
    let before = object.status.as_ref().map(|before| before.conditions.as_slice());
    let before = before.unwrap_or_default();
    let changed = status.conditions.iter().filter(|new| {
        before.iter().all(|old| {
            old.type_ != new.type_ || (&old.status, &old.reason) != (&new.status, &new.reason)
        })
    });
    changed
        // At the start nothing is right yet, which is nothing to tell.
        .filter(|new| !before.is_empty() || new.type_ == "Degraded" && new.status == "True")
        .map(|new| {
            let bad = (new.status == "True") == (new.type_ == "Degraded");
            let bad = bad && new.type_ != "Progressing";
            let type_ = if bad { EventType::Warning } else { EventType::Normal };
            event(type_, &new.reason, format!("{}: {}", new.type_, new.message))
        })
        .collect()
}
