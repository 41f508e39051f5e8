//! What there has to be for a Gameserver: a pure function of its spec and of what was seen.
//!
//! Objects are written as manifests are, so that they read like those in `deploy/`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::core::Resource as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::crd::{Backup, DeletionPolicy, Gameserver, GameserverSpec, ManagedDatabase};
use super::rotation::Kept;

/// Who writes objects: server-side apply's field manager, and the label `managed-by`.
pub const MANAGER: &str = "gameserver-operator";
/// The label of everything that belongs to a Gameserver.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// The label of everything that the operator makes.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The label that tells pods that play from others.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The component of pods that play.
pub const GAME: &str = "game";
/// The component of Jobs that back up by the clock.
pub const BACKUP: &str = "backup";
/// The label of a pod that names its template.
pub const REVISION_LABEL: &str = "gameserver.com/revision";
/// The label of a pod that the Service selects; taken away first of all when it drains.
pub const SERVING_LABEL: &str = "gameserver.com/serving";
/// The port of players within a pod.
pub const PORT: u16 = 8080;
/// The port of health and metrics within a pod.
pub const ADMIN_PORT: u16 = 9090;
/// The key of the managed database's address in its Secret.
pub const URL_KEY: &str = "url";
/// The key of its password there.
pub const PASSWORD_KEY: &str = "password";
/// The key of the PEM in the Secret that is made for `auth`.
pub const PEM_KEY: &str = "keys.pem";

/// The user of the server's image: it keeps no files, so any will do.
const GAME_USER: i64 = 65532;
const DATABASE_PORT: u16 = 5432;
/// The pools of two dozen pods (`GAMESERVER_DATABASE_CONNECTIONS_MAX` is 16).
const DATABASE_CONNECTIONS_MAX: u32 = 400;
/// Where plugins of ConfigMaps are mounted.
const GAMES_DIR: &str = "/games";
const BACKUP_DIR: &str = "/backup";
/// A migration or a restore that failed is begun again by the operator, which says so.
const JOB_BACKOFF_LIMIT: i32 = 0;
/// After which a backup that still runs has failed: one that hangs would keep all later ones from
/// beginning. (At 20 MB/s that is 400 GB, which is no case for this kind of backup.)
const BACKUP_DEADLINE_SECONDS: u32 = 6 * 60 * 60;
/// Digits of a digest that name a revision: 40 bits.
const REVISION_DIGITS: usize = 10;

/// A value of a Secret or ConfigMap: where it is, and its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The object's name.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Of the value.
    pub digest: String,
}

/// What the cluster was seen to have, as far as objects depend on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The database's address; `None` as long as there is none.
    pub database_url: Option<Keyed>,
    /// The keys of access tokens; `None` as long as there are none.
    pub keys: Option<Keyed>,
    /// The managed database's password.
    pub database_password: Option<String>,
    /// The cluster IP of the managed database's Service.
    pub database_ip: Option<String>,
    /// Digests of plugins in ConfigMaps, by the game's name.
    pub plugins: BTreeMap<String, String>,
}

/// One object that is to be there, or not.
#[derive(Clone, Debug, PartialEq)]
pub enum Desired {
    /// As it is to be.
    Present(Value),
    /// None of this kind and name.
    Absent(&'static str, String),
}

/// Names of what belongs to a Gameserver.
pub struct Names<'a>(pub &'a str);

impl Names<'_> {
    /// The managed database's Secret, Service, StatefulSet and PersistentVolumeClaim.
    pub fn database(&self) -> String {
        format!("{}-database", self.0)
    }
    /// The Secret with keys that were made.
    pub fn keys(&self) -> String {
        format!("{}-keys", self.0)
    }
    /// The backups' CronJob.
    pub fn backup(&self) -> String {
        format!("{}-backup", self.0)
    }
    /// The Job that restores.
    pub fn restore(&self) -> String {
        format!("{}-restore", self.0)
    }
    /// The template of a revision.
    pub fn revision(&self, revision: &str) -> String {
        format!("{}-{revision}", self.0)
    }
}

/// The object's own name.
pub fn name(object: &Gameserver) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// A short digest of a value, the same on every machine.
pub fn digest(value: &Value) -> String {
    digest_bytes(value.to_string().as_bytes())
}

/// The same of bytes.
pub fn digest_bytes(bytes: &[u8]) -> String {
    let mut digits = hex(bytes);
    digits.truncate(REVISION_DIGITS);
    digits
}

/// SHA-256 in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Everything but pods and Jobs: it is there whatever the database's state.
pub fn objects(object: &Gameserver, seen: &Seen) -> Vec<Desired> {
    let names = Names(name(object));
    let spec = &object.spec;
    let mut all = vec![
        Desired::Present(service_account(object)),
        Desired::Present(service(object)),
        Desired::Present(disruption_budget(object)),
        match &spec.host {
            Some(host) => Desired::Present(ingress(object, host)),
            None => Desired::Absent("Ingress", names.0.to_owned()),
        },
    ];
    match (&spec.backup, &seen.database_url) {
        (Some(backup), Some(url)) => all.push(Desired::Present(backups(object, backup, url))),
        (Some(_), None) => {}
        (None, _) => all.push(Desired::Absent("CronJob", names.backup())),
    }
    if let Some(managed) = &spec.database.managed {
        let parts = [
            Some(database_service(object)),
            Some(database_volume(object, managed)),
            database_secret(object, managed, seen),
            Some(database(object, managed)),
        ];
        all.extend(parts.into_iter().flatten().map(Desired::Present));
    }
    all
}

/// The pods' template; `None` as long as they would miss something.
pub fn template(object: &Gameserver, seen: &Seen) -> Option<Value> {
    let (spec, over) = (&object.spec, &object.spec.pod_template);
    let (url, keys) = (seen.database_url.as_ref()?, seen.keys.as_ref()?);
    let mut labels = json!(over.labels);
    merge(&mut labels, game_labels(object));
    merge(&mut labels, json!({ SERVING_LABEL: "true" }));
    let mut annotations = json!(over.annotations);
    let mut digests = json!({
        "gameserver.com/database-url-digest": url.digest,
        "gameserver.com/keys-digest": keys.digest,
    });
    for (game, digest) in &seen.plugins {
        digests[format!("gameserver.com/plugin-{game}-digest")] = json!(digest);
    }
    merge(&mut annotations, digests);
    let mut pod = pod_spec(object, vec![game_container(spec, url, keys)]);
    let spread = if over.topology_spread_constraints.is_empty() {
        json!([{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": game_labels(object) },
        }])
    } else {
        json!(over.topology_spread_constraints)
    };
    merge(
        &mut pod,
        json!({
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": spec.update.drain_timeout_seconds,
            "topologySpreadConstraints": spread,
        }),
    );
    if let Some(volume) = plugin_volume(spec) {
        pod["volumes"] = json!([volume]);
    }
    Some(json!({
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": pod,
    }))
}

/// Keeps a template for pods that are to be replaced while a newer one is not proven.
pub fn revision(object: &Gameserver, revision: &str, template: &Value) -> Value {
    let metadata = metadata(object, &Names(name(object)).revision(revision), GAME);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": 1,
        "data": template,
    })
}

/// The pod of this number.
pub fn pod(object: &Gameserver, template: &Value, revision: &str, number: u32) -> Value {
    let mut pod = template.clone();
    let own = metadata(object, &format!("{}-{number}", name(object)), GAME);
    merge(&mut pod["metadata"], own);
    pod["metadata"]["labels"][REVISION_LABEL] = json!(revision);
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod
}

/// The Job that brings the schema up to what the image needs; another image or database, another
/// name.
pub fn migration(object: &Gameserver, url: &Keyed) -> Value {
    let spec = &object.spec;
    let version = digest(&json!([spec.image, url.digest]));
    let container = json!({ "name": "migrate", "args": ["migrate"], "env": [database_env(url)] });
    job(object, &format!("{}-migrate-{version}", name(object)), "migrate", container, None)
}

/// The Job that fills the database before the first start.
pub fn restore(object: &Gameserver, url: &Keyed) -> Option<Value> {
    let from = object.spec.restore_from.as_ref()?;
    let container = json!({
        "name": "restore",
        "args": ["restore", format!("{BACKUP_DIR}/{}", from.file)],
        "env": [database_env(url)],
        "volumeMounts": [{ "name": "backup", "mountPath": BACKUP_DIR, "readOnly": true }],
    });
    let restore = Names(name(object)).restore();
    Some(job(object, &restore, "restore", container, Some(&from.volume_claim)))
}

/// The label selector of what the operator made for a component.
pub fn selector(object: &Gameserver, component: &str) -> String {
    let instance = name(object);
    format!(
        "{INSTANCE_LABEL}={instance},{COMPONENT_LABEL}={component},{MANAGED_BY_LABEL}={MANAGER}"
    )
}

/// Labels that select the pods that play.
pub fn game_labels(object: &Gameserver) -> Value {
    labels(object, GAME)
}

fn labels(object: &Gameserver, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "gameserver",
        INSTANCE_LABEL: name(object),
        COMPONENT_LABEL: component,
        MANAGED_BY_LABEL: MANAGER,
    })
}

/// Of an object that goes with the Gameserver.
fn metadata(object: &Gameserver, own_name: &str, component: &str) -> Value {
    let mut metadata = lasting_metadata(object, own_name, component);
    metadata["ownerReferences"] = json!([object.controller_owner_ref(&())]);
    metadata
}

/// Of an object that outlives the Gameserver.
fn lasting_metadata(object: &Gameserver, own_name: &str, component: &str) -> Value {
    json!({
        "name": own_name,
        "namespace": object.metadata.namespace,
        "labels": labels(object, component),
    })
}

fn service_account(object: &Gameserver) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(object, name(object), GAME),
        "automountServiceAccountToken": false,
    })
}

fn service(object: &Gameserver) -> Value {
    let wanted = &object.spec.service;
    let mut metadata = metadata(object, name(object), GAME);
    if !wanted.annotations.is_empty() {
        metadata["annotations"] = json!(wanted.annotations);
    }
    let mut selector = game_labels(object);
    merge(&mut selector, json!({ SERVING_LABEL: "true" }));
    let mut port = json!({
        "name": "http", "port": wanted.port, "targetPort": "http", "protocol": "TCP",
    });
    if let Some(node_port) = wanted.node_port {
        port["nodePort"] = json!(node_port);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": { "type": wanted.type_, "selector": selector, "ports": [port] },
    })
}

/// A drain of a node takes one pod at a time. That a pod's owner is a Gameserver does no harm: its
/// `scale` tells how many there are to be.
fn disruption_budget(object: &Gameserver) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(object, name(object), GAME),
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": game_labels(object) } },
    })
}

fn ingress(object: &Gameserver, host: &str) -> Value {
    let backend = json!({ "service": { "name": name(object), "port": { "name": "http" } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    let mut spec = json!({ "rules": [{ "host": host, "http": { "paths": [path] } }] });
    if let Some(secret) = &object.spec.tls_secret_ref {
        spec["tls"] = json!([{ "hosts": [host], "secretName": secret.name }]);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(object, name(object), GAME),
        "spec": spec,
    })
}

fn game_container(spec: &GameserverSpec, url: &Keyed, keys: &Keyed) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "admin", "scheme": "HTTP" },
            "periodSeconds": period,
            "timeoutSeconds": 3,
            "failureThreshold": failures,
        })
    };
    let mut container = json!({
        "name": "gameserver",
        "args": ["serve"],
        "env": game_env(spec, url, keys),
        "ports": [
            { "name": "http", "containerPort": PORT, "protocol": "TCP" },
            { "name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP" },
        ],
        "startupProbe": probe("/healthz", 1, 60),
        "readinessProbe": probe("/readyz", 2, 2),
        "livenessProbe": probe("/healthz", 10, 3),
    });
    if plugin_volume(spec).is_some() {
        container["volumeMounts"] =
            json!([{ "name": "games", "mountPath": GAMES_DIR, "readOnly": true }]);
    }
    container
}

fn game_env(spec: &GameserverSpec, url: &Keyed, keys: &Keyed) -> Vec<Value> {
    let plain = |name: &str, value: &str| json!({ "name": name, "value": value });
    let mut env = vec![
        // First of all: what follows refers to it.
        json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "status.podIP" } } }),
        plain("GAMESERVER_ADVERTISE", &format!("$(POD_IP):{PORT}")),
        plain("GAMESERVER_LISTEN", &format!("0.0.0.0:{PORT}")),
        plain("GAMESERVER_ADMIN_LISTEN", &format!("0.0.0.0:{ADMIN_PORT}")),
        plain("GAMESERVER_MIGRATE", "never"),
        database_env(url),
        from_secret("GAMESERVER_JWT_PRIVATE_KEY", keys),
    ];
    let relays: Vec<Value> = spec
        .games
        .iter()
        .filter_map(|game| {
            let title = game.title.as_ref()?;
            let description = game.description.as_deref().unwrap_or_default();
            Some(json!({ "name": game.name, "title": title, "description": description }))
        })
        .collect();
    let built_in = spec.games.iter().filter(|game| game.title.is_none() && game.wasm.is_none());
    let built_in: Vec<&str> = built_in.map(|game| game.name.as_str()).collect();
    if !built_in.is_empty() {
        env.push(plain("GAMESERVER_BUILTIN_GAMES", &built_in.join(",")));
    }
    if !relays.is_empty() {
        env.push(plain("GAMESERVER_RELAY_GAMES", &escaped(&json!(relays).to_string())));
    }
    if let Some(dir) = games_dir(spec) {
        env.push(plain("GAMESERVER_GAMES_DIR", dir));
    }
    env.extend(spec.config.iter().map(|(name, value)| plain(name, &escaped(value))));
    env
}

/// Kubernetes would replace `$(NAME)`.
fn escaped(value: &str) -> String {
    value.replace("$(", "$$(")
}

fn database_env(url: &Keyed) -> Value {
    from_secret("GAMESERVER_DATABASE_URL", url)
}

fn from_secret(name: &str, secret: &Keyed) -> Value {
    json!({
        "name": name,
        "valueFrom": { "secretKeyRef": { "name": secret.name, "key": secret.key } },
    })
}

/// The directory that the server finds plugins in: that of the image's files, or of ConfigMaps.
fn games_dir(spec: &GameserverSpec) -> Option<&str> {
    let first = spec.games.iter().find_map(|game| game.wasm.as_ref())?;
    Some(first.directory().unwrap_or(GAMES_DIR))
}

fn plugin_volume(spec: &GameserverSpec) -> Option<Value> {
    let sources: Vec<Value> = spec
        .games
        .iter()
        .filter_map(|game| {
            let at = game.wasm.as_ref()?.config_map_key_ref.as_ref()?;
            let item = json!({ "key": at.key, "path": format!("{}.wasm", game.name) });
            Some(json!({ "configMap": { "name": at.name, "items": [item] } }))
        })
        .collect();
    let volume =
        json!({ "name": "games", "projected": { "defaultMode": 0o444, "sources": sources } });
    (!sources.is_empty()).then_some(volume)
}

/// What all pods of the server's image have in common.
fn pod_spec(object: &Gameserver, mut containers: Vec<Value>) -> Value {
    let (spec, over) = (&object.spec, &object.spec.pod_template);
    for container in &mut containers {
        merge(
            container,
            json!({
                "image": spec.image,
                "resources": spec.resources,
                "securityContext": locked_down(true),
                // What the server said last is then in the pod's status, and so in the object's.
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }),
        );
    }
    let mut pod = json!({
        "serviceAccountName": name(object),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": user(GAME_USER),
        "containers": containers,
    });
    if !over.node_selector.is_empty() {
        pod["nodeSelector"] = json!(over.node_selector);
    }
    if !over.tolerations.is_empty() {
        pod["tolerations"] = json!(over.tolerations);
    }
    pod
}

fn user(id: i64) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": id,
        "runAsGroup": id,
        "fsGroup": id,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn locked_down(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// A Job of the server's image that runs once.
fn job(
    object: &Gameserver,
    own_name: &str,
    component: &str,
    container: Value,
    claim: Option<&str>,
) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(object, own_name, component),
        "spec": job_spec(object, component, container, claim),
    })
}

fn job_spec(object: &Gameserver, component: &str, container: Value, claim: Option<&str>) -> Value {
    let mut pod = pod_spec(object, vec![container]);
    pod["restartPolicy"] = json!("Never");
    if let Some(claim) = claim {
        pod["volumes"] =
            json!([{ "name": "backup", "persistentVolumeClaim": { "claimName": claim } }]);
    }
    let template = json!({ "metadata": { "labels": labels(object, component) }, "spec": pod });
    json!({ "backoffLimit": JOB_BACKOFF_LIMIT, "template": template })
}

/// The server names files for the time, and removes old ones: there is no shell to do it.
fn backups(object: &Gameserver, backup: &Backup, url: &Keyed) -> Value {
    let own_name = Names(name(object)).backup();
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(object, &own_name, BACKUP),
        "spec": {
            "schedule": backup.schedule,
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {
                "metadata": { "labels": labels(object, BACKUP) },
                "spec": backup_job(object, backup, url),
            },
        },
    })
}

/// What each Job that backs up is made of.
pub fn backup_job(object: &Gameserver, backup: &Backup, url: &Keyed) -> Value {
    let container = json!({
        "name": "backup",
        "args": ["backup", format!("{BACKUP_DIR}/{}", name(object)), "--keep", backup.keep.to_string()],
        "env": [database_env(url)],
        "volumeMounts": [{ "name": "backup", "mountPath": BACKUP_DIR }],
    });
    let mut spec = job_spec(object, BACKUP, container, Some(&backup.volume_claim));
    spec["activeDeadlineSeconds"] = json!(BACKUP_DEADLINE_SECONDS);
    spec
}

fn database_service(object: &Gameserver) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(object, &Names(name(object)).database(), "database"),
        "spec": {
            "selector": labels(object, "database"),
            "ports": [{ "name": "postgres", "port": DATABASE_PORT, "targetPort": "postgres", "protocol": "TCP" }],
        },
    })
}

/// Metadata of what holds the data, or its password: without an owner it stays.
fn kept_metadata(object: &Gameserver, managed: &ManagedDatabase) -> Value {
    let own_name = Names(name(object)).database();
    match managed.deletion_policy {
        DeletionPolicy::Retain => lasting_metadata(object, &own_name, "database"),
        DeletionPolicy::Delete => metadata(object, &own_name, "database"),
    }
}

fn database_volume(object: &Gameserver, managed: &ManagedDatabase) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": managed.size } },
    });
    if let Some(class) = &managed.storage_class {
        spec["storageClassName"] = json!(class);
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": kept_metadata(object, managed),
        "spec": spec,
    })
}

/// The password, and the address as soon as the Service has one: by IP, since DNS may be missing.
fn database_secret(object: &Gameserver, managed: &ManagedDatabase, seen: &Seen) -> Option<Value> {
    let password = seen.database_password.as_ref()?;
    let mut data = json!({ PASSWORD_KEY: ByteString(password.clone().into_bytes()) });
    if let Some(ip) = &seen.database_ip {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
        let url = format!(
            "postgres://gameserver:{password}@{host}:{DATABASE_PORT}/gameserver?sslmode=disable"
        );
        data[URL_KEY] = json!(ByteString(url.into_bytes()));
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": kept_metadata(object, managed),
        "type": "Opaque",
        "data": data,
    }))
}

fn database(object: &Gameserver, managed: &ManagedDatabase) -> Value {
    let own_name = Names(name(object)).database();
    let password =
        Keyed { name: own_name.clone(), key: PASSWORD_KEY.into(), digest: String::new() };
    let container = json!({
        "name": "postgres",
        "image": managed.image,
        "args": ["-c", format!("max_connections={DATABASE_CONNECTIONS_MAX}")],
        "env": [
            { "name": "POSTGRES_USER", "value": "gameserver" },
            { "name": "POSTGRES_DB", "value": "gameserver" },
            { "name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata" },
            from_secret("POSTGRES_PASSWORD", &password),
        ],
        "ports": [{ "name": "postgres", "containerPort": DATABASE_PORT, "protocol": "TCP" }],
        // Over TCP: while it is set up for the first time, it answers on its own socket alone.
        "readinessProbe": {
            "exec": { "command": ["pg_isready", "-h", "127.0.0.1", "-U", "gameserver"] },
            "periodSeconds": 2,
            "timeoutSeconds": 3,
        },
        "resources": { "requests": { "cpu": "100m", "memory": "256Mi" } },
        "securityContext": locked_down(true),
        "volumeMounts": [
            { "name": "data", "mountPath": "/var/lib/postgresql/data" },
            { "name": "run", "mountPath": "/var/run/postgresql" },
            { "name": "tmp", "mountPath": "/tmp" },
        ],
    });
    let pod = json!({
        "serviceAccountName": name(object),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": user(managed.run_as_user),
        "containers": [container],
        "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": own_name } },
            { "name": "run", "emptyDir": {} },
            { "name": "tmp", "emptyDir": {} },
        ],
    });
    let labels = labels(object, "database");
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(object, &own_name, "database"),
        "spec": {
            "replicas": 1,
            "serviceName": own_name,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    })
}

/// The Secret with keys of the operator's making.
pub fn keys_secret(object: &Gameserver, kept: &Kept) -> Value {
    let mut metadata = metadata(object, &Names(name(object)).keys(), GAME);
    metadata["annotations"] = json!(kept.annotations());
    if let Some(version) = &kept.resource_version {
        metadata["resourceVersion"] = json!(version);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": { PEM_KEY: ByteString(kept.pem.clone().into_bytes()) },
    })
}

/// Puts the members of `over` into `under`; objects within are merged likewise.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}
