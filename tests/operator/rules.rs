//! The rules of the definition, on the newest API server for custom resources that is there.

use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, CustomResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::kubernetes::{DEADLINE, kubernetes};
use gameserver::operator::crd::Gameserver;
use gameserver::operator::stored;

/// What is refused, and a part of what is said then.
fn refused() -> Vec<(Value, &'static str)> {
    let spec = |field: &str, value: Value| json!({ "image": "a", field: value });
    let games = |game: Value| spec("games", json!([game]));
    let digest = "0".repeat(64);
    vec![
        (json!({}), "spec.image: Required"),
        (spec("replicas", json!(-1)), "spec.replicas"),
        (spec("database", json!({})), "either external or managed"),
        (
            spec("database", json!({"external": {"secretRef": {"name": "x"}}, "managed": {}})),
            "either external or managed",
        ),
        (spec("database", json!({"managed": {"size": "much"}})), "spec.database.managed.size"),
        (spec("tlsSecretRef", json!({"name": "x"})), "tlsSecretRef needs host"),
        (spec("service", json!({"nodePort": 30000})), "nodePort needs type"),
        (
            spec("autoscaling", json!({"min": 3, "max": 2, "playersPerReplica": 1})),
            "min is more than max",
        ),
        (spec("config", json!({"COLOUR": "red"})), "names begin with GAMESERVER_"),
        (games(json!({"name": "a", "wasm": {}})), "either configMapKeyRef or file"),
        (games(json!({"name": "a", "wasm": {"file": "/a", "sha256": digest}})), "sha256 is for"),
        (games(json!({"name": "a", "description": "b"})), "a title beside its description"),
        (games(json!({"name": "a", "title": "b", "wasm": {"file": "/a"}})), "no title beside wasm"),
        (games(json!({"name": "A"})), "spec.games[0].name"),
        (spec("games", json!([{"name": "a"}, {"name": "a"}])), "Duplicate value"),
        (
            spec("backup", json!({"schedule": "@daily", "volumeClaim": "v", "keep": 0})),
            "spec.backup.keep",
        ),
        (spec("restoreFrom", json!({"volumeClaim": "v", "file": "../x"})), "spec.restoreFrom.file"),
    ]
}

fn object(name: &str, spec: &Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "gameserver.com/v1", "kind": "Gameserver",
        "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

async fn gameservers(client: &Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("test").force();
    let name = "gameservers.gameserver.com";
    let definition = Patch::Apply(Gameserver::crd());
    let began = Instant::now();
    // It answers before it takes anything.
    while let Err(error) = definitions.patch(name, &apply, &definition).await {
        assert!(began.elapsed() < DEADLINE, "the definition is not taken: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    let kind = GroupVersionKind::gvk("gameserver.com", "v1", "Gameserver");
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&kind));
    while let Err(error) = api.list(&ListParams::default()).await {
        assert!(began.elapsed() < DEADLINE, "the definition is not established: {error}");
        sleep(Duration::from_millis(100)).await;
    }
    api
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let Some(kubernetes) = kubernetes() else { return };
    let api = gameservers(&kubernetes.newest().await).await;
    let mut said = String::new();
    for (spec, reason) in refused() {
        let error = api.create(&PostParams::default(), &object("bad", &spec)).await;
        let error = error.expect_err(&format!("{spec} was taken")).to_string();
        assert!(error.contains(reason), "{spec}: {error}");
        said += &error;
    }
    for name in ["a.b", "1a", &"a".repeat(41)] {
        let error = api.create(&PostParams::default(), &object(name, &json!({"image": "a"}))).await;
        said += &error.expect_err(&format!("{name} was taken")).to_string();
    }
    let mut rules = Vec::new();
    find_rules(&serde_json::to_value(Gameserver::crd()).unwrap(), &mut rules);
    // Those of changes have a test of their own.
    rules.retain(|(rule, _)| !rule.contains("oldSelf"));
    assert!(rules.len() >= 10, "{rules:?}");
    for (rule, message) in rules {
        assert!(said.contains(&message), "nothing breaks the rule {rule}");
    }
}

/// All CEL rules with what they say.
fn find_rules(schema: &Value, found: &mut Vec<(String, String)>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.push((text(&rule["rule"]), text(&rule["message"])));
    }
    match schema {
        Value::Object(parts) => parts.values().for_each(|part| find_rules(part, found)),
        Value::Array(parts) => parts.iter().for_each(|part| find_rules(part, found)),
        _ => {}
    }
}

#[tokio::test]
async fn defaults_are_written_and_what_may_not_change_does_not() {
    let Some(kubernetes) = kubernetes() else { return };
    let api = gameservers(&kubernetes.newest().await).await;
    let made =
        api.create(&PostParams::default(), &object("good", &json!({"image": "a"}))).await.unwrap();
    let spec = &made.data["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["database"]["managed"]["size"], "1Gi");
    assert_eq!(spec["database"]["managed"]["deletionPolicy"], "Retain");
    assert_eq!(spec["service"], json!({"type": "ClusterIP", "port": 80}));
    let backup = json!({"schedule": "@daily", "volumeClaim": "v"});
    let kept = object("kept", &json!({"image": "a", "backup": backup}));
    let kept = api.create(&PostParams::default(), &kept).await.unwrap();
    assert_eq!(kept.data["spec"]["backup"]["keep"], 7);
    let update = json!({"maxSurge": 1, "drainTimeoutSeconds": 30, "paused": false});
    assert_eq!(spec["update"], update);
    for (change, reason) in [
        (json!({"database": {"managed": {"size": "2Gi"}}}), "enlarge the PersistentVolumeClaim"),
        (
            json!({"database": {"managed": null, "external": {"secretRef": {"name": "x"}}}}),
            "can't be exchanged",
        ),
    ] {
        let patch = Patch::Merge(json!({ "spec": change }));
        let error = api.patch("good", &PatchParams::default(), &patch).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{change}: {error}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_broken_spec_is_taken() {
    let Some(kubernetes) = kubernetes() else { return };
    let api = gameservers(&kubernetes.newest().await).await;
    let external = json!({"secretRef": {"name": "db"}});
    let of = |database: Value| json!({"image": "a", "database": database});
    let (managed, given) = (of(json!({"managed": {}})), of(json!({"external": external})));
    for (name, good, field, value) in [
        ("many", &managed, "replicas", json!("many")),
        ("both", &managed, "database", json!({"managed": {"size": "1Gi"}, "external": external})),
        ("root", &managed, "database", json!({"managed": {"size": "1Gi", "runAsUser": 0}})),
        ("much", &managed, "database", json!({"managed": {"size": "much"}})),
        ("neither", &given, "database", json!({})),
        ("nameless", &given, "database", json!({"external": {"secretRef": {"name": ""}}})),
    ] {
        let mut object = object(name, good);
        object.metadata.finalizers = Some(vec!["gameserver.com/drain".into()]);
        api.create(&PostParams::default(), &object).await.unwrap();
        let key = kubernetes.newest_key(&format!("gameserver.com/gameservers/default/{name}"));
        let mut stored = kubernetes.stored(&key);
        stored["spec"][field] = value;
        kubernetes.store(&key, &stored);
        let status = json!({"status": {"observedGeneration": 1}});
        let told = api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        told.expect(name);
        let metadata = json!({"finalizers": []});
        let left = json!({"metadata": metadata, "spec": stored::least(&stored["spec"])});
        let left = api.patch(name, &PatchParams::default(), &Patch::Merge(left)).await.expect(name);
        assert_eq!(left.data["spec"]["image"], "none");
    }
}
