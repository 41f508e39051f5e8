//! The object that people write: `Gameserver`, its defaults and its rules.
//!
//! `deploy/crd.yaml` is generated from these types. What the API server can check is a schema or a
//! CEL rule here; [`Gameserver::problems`] says the same in Rust, for objects that were stored before
//! a rule existed and for servers that know no CEL, and adds what CEL can't know.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use serde::{Deserialize, Serialize};

use super::settings;

/// The longest name: what is derived from it has to fit into a label (63 characters).
pub const NAME_LENGTH_MAX: usize = 40;

/// A game server: its pods, its service, its database.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "gameserver.com",
    version = "v1",
    kind = "Gameserver",
    plural = "gameservers",
    shortname = "gsv",
    namespaced,
    doc = "A multiplayer game server: its pods, its service, its database.",
    status = "GameserverStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Players", type_ = "integer", json_path = ".status.players"),
    printcolumn(name = "Matches", type_ = "integer", json_path = ".status.matches"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ).message("metadata.name: at most 40 lower-case letters, digits and '-', a letter first")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tlsSecretRef) || has(self.host)")
        .message("tlsSecretRef needs host: a certificate is for a name"),
    validation = Rule::new("has(self.database.managed) == has(oldSelf.database.managed)")
        .message("database: managed and external can't be exchanged; make a second Gameserver and copy the data"),
)]
pub struct GameserverSpec {
    /// Image of the game server.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Pods that play; with `autoscaling` it is not looked at.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Games. Those named with nothing else are built-in, and the only ones of these that are offered;
    /// if none is named, all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub games: Vec<Game>,
    /// Where matches and accounts are kept.
    #[serde(default)]
    pub database: Database,
    /// The keys of access tokens.
    #[serde(default)]
    pub auth: Auth,
    /// Where players connect, within the cluster or at its nodes.
    #[serde(default)]
    pub service: Service,
    /// The name that players know: makes an Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The Secret with the certificate of `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<LocalRef>,
    /// Grows and shrinks with players and matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How pods are replaced.
    #[serde(default)]
    pub update: Update,
    /// Settings of the server, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64), extend("maxProperties" = 64))]
    #[x_kube(
        validation = Rule::new("self.all(name, name.startsWith('GAMESERVER_'))")
            .message("config takes settings of the server: their names begin with GAMESERVER_")
    )]
    pub config: BTreeMap<String, SettingValue>,
    /// What a pod asks for and may use.
    #[serde(default = "defaults::resources")]
    pub resources: ResourceRequirements,
    /// Added to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// Backups by the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// Fills the empty database from a backup before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<RestoreFrom>,
}

/// A setting's value.
pub type SettingValue = String;

/// A game: a relay with a title, a built-in by its name alone, or a plugin.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.title) || !has(self.description)")
        .message("a relay game has a title beside its description"),
    validation = Rule::new("!has(self.wasm) || !has(self.title)")
        .message("a plugin names itself: no title beside wasm"),
)]
pub struct Game {
    /// The name in the API.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9][a-z0-9-]*$"))]
    pub name: String,
    /// A relay game's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub title: Option<String>,
    /// A relay game's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,
    /// A plugin's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<Wasm>,
}

/// Where a plugin's code is.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMapKeyRef) != has(self.file)")
        .message("wasm is either configMapKeyRef or file"),
    validation = Rule::new("!has(self.sha256) || has(self.configMapKeyRef)")
        .message("sha256 is for configMapKeyRef: pin the image of a file by its digest"),
)]
pub struct Wasm {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A file of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub file: Option<String>,
    /// What the code's SHA-256 has to be, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

impl Wasm {
    /// The directory of the image that it is in; `None`: it is in a ConfigMap.
    pub fn directory(&self) -> Option<&str> {
        let (directory, _) = self.file.as_ref()?.rsplit_once('/')?;
        Some(if directory.is_empty() { "/" } else { directory })
    }
}

/// An object of the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of an object of the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The database: `external` or `managed`; nothing: `managed` with its defaults.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("has(self.external) != has(self.managed)")
    .message("database is either external or managed"))]
pub struct Database {
    /// A PostgreSQL that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDatabase>,
    /// A single PostgreSQL of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedDatabase>,
}

impl Default for Database {
    fn default() -> Self {
        Self { external: None, managed: Some(ManagedDatabase::default()) }
    }
}

/// A PostgreSQL that is there.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDatabase {
    /// The Secret with its address, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub secret_ref: SecretRef,
}

/// A Secret, and which of its keys.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "defaults::url_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A single PostgreSQL with a volume. For more than one machine's worth use `external`.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedDatabase {
    /// An image that takes `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_DB` and `PGDATA`.
    #[serde(default = "defaults::database_image")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// The volume's size.
    #[serde(default = "defaults::database_size")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(Mi|Gi|Ti)$"))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("size: enlarge the PersistentVolumeClaim itself"))]
    pub size: String,
    /// The volume's StorageClass; nothing: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// The numeric user that the image runs as.
    #[serde(default = "defaults::database_user")]
    #[schemars(range(min = 1))]
    pub run_as_user: i64,
    /// What becomes of the volume when the Gameserver is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Default for ManagedDatabase {
    fn default() -> Self {
        Self {
            image: defaults::database_image(),
            size: defaults::database_size(),
            storage_class: None,
            run_as_user: defaults::database_user(),
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

/// What becomes of a volume.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize,
)]
pub enum DeletionPolicy {
    /// It stays; the next Gameserver of this name finds it.
    #[default]
    Retain,
    /// It goes, too.
    Delete,
}

/// The keys of access tokens.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The Secret with the keys as PEM, the first private one signs; nothing: one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_secret_ref: Option<KeysRef>,
}

/// A Secret with keys.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct KeysRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[serde(default = "defaults::pem_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The Service.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
    .message("nodePort needs type NodePort or LoadBalancer"))]
pub struct Service {
    /// How it is reached.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Its port.
    #[serde(default = "defaults::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The port on every node; nothing: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// Annotations, for load balancers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Service {
    fn default() -> Self {
        let (type_, port) = (ServiceType::default(), defaults::port());
        Self { type_, port, node_port: None, annotations: BTreeMap::new() }
    }
}

/// How a Service is reached.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize,
)]
pub enum ServiceType {
    /// Within the cluster.
    #[default]
    ClusterIP,
    /// At a port of every node.
    NodePort,
    /// Through a load balancer of the cloud.
    LoadBalancer,
}

/// Grows and shrinks with what the pods report.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min is more than max"))]
pub struct Autoscaling {
    /// Least pods.
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,
    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
    /// Players, or matches if they are more, that one pod is to have.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub players_per_replica: i32,
    /// How long fewer pods have to do before there are fewer, in seconds.
    #[serde(default = "defaults::stabilization_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub scale_down_stabilization_seconds: i32,
}

/// How pods are replaced.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Pods beyond those that are desired while pods are replaced.
    #[serde(default = "defaults::max_surge")]
    #[schemars(range(min = 1, max = 100))]
    pub max_surge: i32,
    /// How long a pod may take to drain before it is killed, in seconds.
    #[serde(default = "defaults::drain_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_timeout_seconds: i32,
    /// Goes on with the pods of the last roll-out until it is taken back.
    #[serde(default)]
    pub paused: bool,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            max_surge: defaults::max_surge(),
            drain_timeout_seconds: defaults::drain_timeout_seconds(),
            paused: false,
        }
    }
}

/// Added to the pods.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels; those of the operator win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the nodes that will do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do no harm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// In place of the spread over nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// Backups by the clock.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// When, as cron writes it.
    #[schemars(length(min = 1, max = 100))]
    pub schedule: String,
    /// How many of the newest stay.
    #[serde(default = "defaults::keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: i32,
    /// The PersistentVolumeClaim that takes them, as `NAME-TIME.backup`.
    #[schemars(length(min = 1, max = 253))]
    pub volume_claim: String,
}

/// A backup to begin with.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreFrom {
    /// The PersistentVolumeClaim that has it.
    #[schemars(length(min = 1, max = 253))]
    pub volume_claim: String,
    /// The file in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub file: String,
}

/// What was seen last.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GameserverStatus {
    /// The generation of the object that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Pods that are wanted.
    #[serde(default)]
    pub desired_replicas: i32,
    /// Pods that are neither draining nor ended.
    #[serde(default)]
    pub replicas: i32,
    /// Those of them that take players.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Those of them that are of the newest revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that hand over their matches.
    #[serde(default)]
    pub draining_replicas: i32,
    /// Sockets that are open, half a minute old at most.
    #[serde(default)]
    pub players: i64,
    /// Matches in memory, half a minute old at most.
    #[serde(default)]
    pub matches: i64,
    /// Selects the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where players connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The image's version, by its tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The revision that was rolled out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// When the last backup was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// Available, Progressing, Degraded, DatabaseReady.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

mod defaults {
    use super::{BTreeMap, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    pub fn replicas() -> i32 {
        1
    }
    pub fn url_key() -> String {
        "url".into()
    }
    pub fn pem_key() -> String {
        "keys.pem".into()
    }
    pub fn database_image() -> String {
        "postgres:17".into()
    }
    pub fn database_size() -> String {
        "1Gi".into()
    }
    /// The user `postgres` of Debian's image.
    pub fn database_user() -> i64 {
        999
    }
    pub fn port() -> i32 {
        80
    }
    /// As long as Kubernetes' own autoscaler waits.
    pub fn stabilization_seconds() -> i32 {
        300
    }
    /// A week of daily ones.
    pub fn keep() -> i32 {
        7
    }
    pub fn max_surge() -> i32 {
        1
    }
    /// The server drains within 10 s; the rest is for a node that is slow.
    pub fn drain_timeout_seconds() -> i32 {
        30
    }
    pub fn resources() -> ResourceRequirements {
        let of = |cpu: Option<&str>, memory: &str| {
            let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.into())));
            let memory = ("memory".to_owned(), Quantity(memory.into()));
            Some(cpu.into_iter().chain([memory]).collect::<BTreeMap<_, _>>())
        };
        ResourceRequirements {
            requests: of(Some("100m"), "64Mi"),
            limits: of(None, "512Mi"),
            ..Default::default()
        }
    }
}

impl Gameserver {
    /// What keeps this object from being reconciled, each with its field.
    pub fn problems(&self) -> Vec<String> {
        let (spec, mut found) = (&self.spec, Vec::new());
        let mut must = |holds: bool, problem: &str| {
            if !holds {
                found.push(problem.to_owned());
            }
        };
        let name = self.metadata.name.as_deref().unwrap_or_default();
        must(name.len() <= NAME_LENGTH_MAX, "metadata.name is longer than 40 characters");
        must(
            name.starts_with(|first: char| first.is_ascii_lowercase()) && !name.contains('.'),
            "metadata.name has to begin with a letter and to have no dots",
        );
        must(
            spec.database.external.is_some() != spec.database.managed.is_some(),
            "spec.database is either external or managed",
        );
        must(
            spec.tls_secret_ref.is_none() || spec.host.is_some(),
            "spec.tlsSecretRef needs spec.host",
        );
        must(
            spec.service.node_port.is_none() || spec.service.type_ != ServiceType::ClusterIP,
            "spec.service.nodePort needs type NodePort or LoadBalancer",
        );
        let autoscaling = spec.autoscaling.as_ref();
        must(
            autoscaling.is_none_or(|scale| scale.min <= scale.max),
            "spec.autoscaling.min is more than max",
        );
        must(
            autoscaling.is_none_or(|scale| scale.players_per_replica > 0),
            "spec.autoscaling.playersPerReplica is not more than 0",
        );
        let plugins: Vec<&Wasm> = spec.games.iter().filter_map(|game| game.wasm.as_ref()).collect();
        for plugin in &plugins {
            must(
                plugin.config_map_key_ref.is_some() != plugin.file.is_some(),
                "spec.games[].wasm is either configMapKeyRef or file",
            );
            must(
                plugin.sha256.is_none() || plugin.config_map_key_ref.is_some(),
                "spec.games[].wasm.sha256 is for configMapKeyRef: pin the image of a file by its digest",
            );
        }
        must(
            plugins.windows(2).all(|pair| pair[0].directory() == pair[1].directory()),
            "spec.games[].wasm: plugins are all of ConfigMaps, or all files of one directory",
        );
        found.extend(spec.config.keys().filter_map(|name| settings::problem(name)));
        found
    }
}

/// `deploy/crd.yaml`.
pub fn crd_yaml() -> String {
    let text = serde_saphyr::to_string(&Gameserver::crd()).expect("the definition is plain data");
    format!("# Generated by `gameserver-operator crd`.\n{text}")
}
