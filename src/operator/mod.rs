//! The Kubernetes operator: a game server is one object.
//!
//! It links nothing of the server, and the server nothing of it. From the inside out:
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`crd`] | the object: its fields, defaults, rules |
//! | [`stored`] | the object as it is stored, if it can be read |
//! | [`settings`] | which settings of the server it takes |
//! | [`desired`] | pure: what there has to be for an object |
//! | [`rollout`] | pure: which pods to make, drain, remove |
//! | [`rotation`] | pure: which key signs next |
//! | [`autoscale`] | pure: how many pods for so many players |
//! | [`status`] | pure: what is said of an object |
//! | [`cluster`] | reads and writes objects, where something differs |
//! | [`pods`] | what is known of pods |
//! | [`database`] | secrets, restore, migration: before the pods |
//! | [`reconcile`] | one object, from top to bottom |
//! | [`throttle`] | waits as long as the API server asks |
//! | [`leader`] | one replica works |
//! | [`metrics`] | health and figures |
//!
//! docs/operator.md says why things are as they are.

pub mod autoscale;
pub mod cluster;
pub mod crd;
pub mod database;
pub mod desired;
pub mod keys;
pub mod leader;
pub mod metrics;
pub mod pods;
pub mod reconcile;
pub mod rollout;
pub mod rotation;
pub mod settings;
pub mod status;
pub mod stored;
pub mod throttle;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, predicates};
use kube::{Resource as _, ResourceExt as _};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use cluster::KINDS;
use desired::{COMPONENT_LABEL, GAME, INSTANCE_LABEL, MANAGED_BY_LABEL, MANAGER};
use metrics::Face;
use pods::{Key, SCRAPE_INTERVAL};
use reconcile::Operator;
use stored::Stored;
use throttle::Throttle;

/// Reconciles at a time.
const RECONCILES_MAX: u16 = 16;
/// Changes of one object within this time are one.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Triggers that wait for the controller; more let the watches wait.
pub const TRIGGERS_MAX: usize = 1024;
/// Objects of a page of the first list.
const PAGE_SIZE: u32 = 50;
/// How often figures alone bring about a reconcile, at most.
const NEWS_INTERVAL: Duration = Duration::from_secs(30);

/// The whole object once more, as `kubectl apply` writes it down: it need not be in memory twice.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The only namespace that is looked after; `None`: all.
    pub namespace: Option<String>,
    /// Where health and figures are.
    pub listen: SocketAddr,
}

/// Why it does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// No way to the API server.
    #[error("there is no cluster to work in: {0}")]
    NoCluster(String),
    /// An operating system's matter.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// Another replica leads now.
    #[error("the lease was lost")]
    LeaseLost,
}

type Triggers = mpsc::Sender<ObjectRef<Stored>>;

/// Works until SIGTERM or Ctrl-C.
pub async fn run(options: Options) -> Result<(), RunError> {
    // An error: one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer().await.map_err(|error| no_cluster(&error))?;
    let home = config.default_namespace.clone();
    let throttle = Throttle::default();
    let client = throttle.client(config).map_err(|error| no_cluster(&error))?;
    let operator = Arc::new(Operator::new(client.clone(), throttle));
    let face =
        Arc::new(Face { operator: Arc::clone(&operator), store: std::sync::OnceLock::new() });
    let taken = |error| RunError::Io(format!("--listen {}", options.listen), error);
    let listener = TcpListener::bind(options.listen).await.map_err(taken)?;
    let listen = listener.local_addr().map_err(taken)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %listen, "started");
    tokio::spawn(Arc::clone(&face).serve(listener));
    let mut stop = std::pin::pin!(stopped()?);
    let candidate = leader::Candidate::new(client, &home, identity());
    let answered = || operator.metrics.ready.store(true, Ordering::Relaxed);
    tokio::select! {
        () = candidate.lead(answered) => {}
        () = &mut stop => return Ok(()),
    }
    tracing::info!("leads");
    operator.metrics.leads.store(true, Ordering::Relaxed);
    // Whatever ends first ends the others at once: nothing is done without the lease.
    let ended = tokio::select! {
        () = candidate.keep() => Err(RunError::LeaseLost),
        () = work(Arc::clone(&operator), &face, options.namespace.as_deref()) => Ok(()),
        () = stop => Ok(()),
    };
    candidate.release().await;
    ended
}

/// Runs on one thread: it mostly waits, and each thread costs memory.
pub fn block_on(options: Options) -> Result<(), RunError> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| RunError::Io("the runtime".into(), error))?.block_on(run(options))
}

fn no_cluster(error: &dyn std::fmt::Display) -> RunError {
    RunError::NoCluster(error.to_string())
}

/// Ends with SIGTERM or Ctrl-C.
fn stopped() -> Result<impl Future<Output = ()>, RunError> {
    let listen = |kind| signal(kind).map_err(|error| RunError::Io("signals".into(), error));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stops");
    })
}

/// The pod's name and something that another process of that name has not.
fn identity() -> String {
    let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    format!("{}_{}", host.unwrap_or_else(|_| MANAGER.into()), keys::new_password())
}

/// Watches and reconciles, for ever.
async fn work(operator: Arc<Operator>, face: &Face, namespace: Option<&str>) {
    let (triggers, mut triggered) = mpsc::channel(TRIGGERS_MAX);
    let client = &operator.cluster.client;
    let objects: Api<Stored> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (pods_known, first_pods) = tokio::sync::oneshot::channel();
    let mut watches: Vec<futures_util::future::BoxFuture<'_, ()>> = vec![
        Box::pin(watch_pods(&operator, namespace, triggers.clone(), pods_known)),
        Box::pin(ask_pods(&operator, triggers.clone())),
    ];
    for (kind, ..) in KINDS.iter().filter(|(kind, ..)| !["Pod", "ConfigMap"].contains(kind)) {
        watches.push(Box::pin(watch_owned(&operator, kind, namespace, triggers.clone())));
    }
    let (reader, writer) = reflector::store();
    let asking = Arc::clone(&operator);
    // An error: an earlier term of this process as leader, which there is none of.
    let _ = face.store.set(reader.clone());
    let changed = watcher(objects, watcher::Config::default().page_size(PAGE_SIZE))
        .default_backoff()
        .modify(|object| {
            object.managed_fields_mut().clear();
            object.annotations_mut().remove(LAST_APPLIED);
        })
        .reflect(writer)
        .touched_objects()
        .predicate_filter(
            // The status is written by the operator alone.
            kube::runtime::utils::Predicate::combine(
                predicates::generation,
                predicates::annotations,
            ),
            kube::runtime::PredicateConfig::default(),
        )
        .inspect(move |changed| {
            if let Ok(object) = changed {
                asking.metrics.ask(reconcile::key_of(object.meta()));
            }
        });
    let asked = futures_util::stream::poll_fn(move |context| triggered.poll_recv(context));
    let controlling = async {
        // What is not known of pods would be made twice.
        let _ = first_pods.await;
        Controller::for_stream(changed, reader)
            .with_config(
                controller::Config::default().concurrency(RECONCILES_MAX).debounce(DEBOUNCE),
            )
            .reconcile_on(asked)
            .run(
                Operator::reconcile,
                |object, error, operator| operator.retry(object.meta(), error),
                Arc::clone(&operator),
            )
            .for_each(|done| {
                // Whatever belonged to it has told of its own end, too.
                if let Err(controller::Error::ObjectNotFound(gone)) = done {
                    operator.forget(&(gone.namespace.unwrap_or_default(), gone.name));
                }
                std::future::ready(())
            })
            .await;
    };
    tokio::join!(controlling, futures_util::future::join_all(watches));
}

fn selection() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

async fn watch_pods(
    operator: &Operator,
    namespace: Option<&str>,
    triggers: Triggers,
    known: tokio::sync::oneshot::Sender<()>,
) {
    let client = operator.cluster.client.clone();
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let labels = format!("{MANAGED_BY_LABEL}={MANAGER},{COMPONENT_LABEL}={GAME}");
    let mut events = std::pin::pin!(watcher(api, selection().labels(&labels)).default_backoff());
    let (mut listed, mut known) = (HashSet::new(), Some(known));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.uid());
                operator.pods.observe(&pod);
                // Nobody takes triggers before the first list is whole; all are looked at then.
                if known.is_none() {
                    trigger(operator, &triggers, &pod.metadata).await;
                }
            }
            Ok(Event::InitDone) => {
                let gone = operator.pods.retain(&std::mem::take(&mut listed));
                if let Some(known) = known.take() {
                    // An error: nobody waits any more.
                    let _ = known.send(());
                }
                // Those that went while the watch was broken.
                for gone in gone {
                    operator.cluster.forget("Pod", &gone);
                    trigger(operator, &triggers, &gone).await;
                }
            }
            Ok(Event::Apply(pod)) => {
                if operator.pods.observe(&pod) {
                    trigger(operator, &triggers, &pod.metadata).await;
                }
            }
            Ok(Event::Delete(pod)) => {
                operator.pods.forget(&pod);
                operator.cluster.forget("Pod", &pod.metadata);
                trigger(operator, &triggers, &pod.metadata).await;
            }
            Err(error) => tracing::warn!(%error, "pods can't be watched"),
        }
    }
}

/// Watches all objects of a kind that Gameservers own: nothing but their metadata.
async fn watch_owned(
    operator: &Operator,
    kind: &'static str,
    namespace: Option<&str>,
    triggers: Triggers,
) {
    let (client, resource) = (operator.cluster.client.clone(), cluster::resource(kind));
    let api: Api<PartialObjectMeta<DynamicObject>> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let selection = selection().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    let mut events = std::pin::pin!(watcher(api, selection).default_backoff());
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(seen) | Event::InitApply(seen)) => {
                if !operator.cluster.is_echo(kind, &seen.metadata) {
                    trigger(operator, &triggers, &seen.metadata).await;
                }
            }
            Ok(Event::Delete(seen)) => {
                operator.cluster.forget(kind, &seen.metadata);
                trigger(operator, &triggers, &seen.metadata).await;
            }
            Ok(Event::InitDone) => failing = false,
            // Told once: a kind that is not served would be told of for ever.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(kind, %error, "can't be watched");
            }
            // Each try begins with `Init`, also one that fails.
            Ok(Event::Init) | Err(_) => {}
        }
    }
}

/// Asks pods for their figures, and has it noted what is new.
async fn ask_pods(operator: &Operator, triggers: Triggers) {
    let mut ticks = tokio::time::interval(SCRAPE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut news: HashSet<Key> = HashSet::new();
    let mut told: HashMap<Key, Instant> = HashMap::new();
    loop {
        ticks.tick().await;
        news.extend(pods::scrape(&operator.pods).await);
        told.retain(|_, at| at.elapsed() < NEWS_INTERVAL);
        let due: Vec<Key> = news.iter().filter(|key| !told.contains_key(*key)).cloned().collect();
        for key in due {
            news.remove(&key);
            let object = ObjectRef::new(&key.1).within(&key.0);
            told.insert(key.clone(), Instant::now());
            operator.metrics.ask(key);
            // An error: the controller has ended, and so does this.
            let _ = triggers.send(object).await;
        }
    }
}

/// Has the Gameserver reconciled that an object belongs to.
async fn trigger(operator: &Operator, triggers: &Triggers, meta: &ObjectMeta) {
    let owners = meta.owner_references.iter().flatten();
    let owner = owners.filter(|owner| owner.kind == "Gameserver").map(|owner| &owner.name).next();
    let labels = meta.labels.as_ref();
    let Some(name) = owner.or_else(|| labels?.get(INSTANCE_LABEL)) else { return };
    let namespace = meta.namespace.clone().unwrap_or_default();
    let object = ObjectRef::new(name).within(&namespace);
    operator.metrics.ask((namespace, name.clone()));
    // An error: the controller has ended, and so does this.
    let _ = triggers.send(object).await;
}
