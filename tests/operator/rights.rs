//! The rights in `deploy/operator/rbac.yaml` are those that are used: none is lacking, none is too many.

use std::collections::BTreeSet;
use std::path::Path;

use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::kubernetes::{World, reason, world};

/// Group, resource and verb.
type Right = (String, String, String);

fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.into(), resource.into(), verb.into())
}

/// The rules of the operator's role.
fn granted() -> BTreeSet<Right> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/operator/rbac.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let role = text.split("---\n").find(|part| part.contains("kind: ClusterRole\n")).unwrap();
    let role: Value = serde_saphyr::from_str(role).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    rights
}

fn used(audit: &[Value]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for request in audit {
        let of = &request["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&of["resource"]);
        if let Some(sub) = of["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        let group = text(&of["apiGroup"]);
        if group == "coordination.k8s.io" {
            continue;
        }
        rights.insert((group.clone(), resource.clone(), text(&request["verb"])));
        // Server-side apply of what was not there makes it.
        if request["verb"] == "patch" && request["responseStatus"]["code"] == 201 {
            rights.insert((group, resource, "create".into()));
        }
    }
    rights
}

#[test]
fn nothing_is_forbidden_and_nothing_is_unused() {
    world(|world: World| async move {
        let operator = world.operator_as("rights");
        let backup = json!({"schedule": "@daily", "volumeClaim": "b"});
        let plugin =
            json!([{"name": "chess", "wasm": {"configMapKeyRef": {"name": "none", "key": "x"}}}]);
        let managed = json!({"managed": {}});
        world.create("all", json!({"host": "a.example", "backup": backup, "games": plugin, "database": managed})).await;
        world
            .status("all", "is told", |status| reason(status, "Degraded") == "PluginMissing")
            .await;
        world.create("play", json!({"host": "play.example"})).await;
        world.bring_up("play", 1).await;
        world.change("play", json!({"image": "gameserver:2", "host": null})).await;
        world.finish_job("Complete").await;
        world
            .until("it is rolled out", || async {
                world.run_all_pods().await;
                world.remove_deleted_pods().await;
                let status = world.gameservers().get("play").await.unwrap().status?;
                let done = reason(&status, "Progressing") == "Complete";
                (done && status.version.as_deref() == Some("2")).then_some(())
            })
            .await;
        world.gameservers().delete("play", &DeleteParams::default()).await.unwrap();
        world
            .until("it is gone", || async {
                world.remove_deleted_pods().await;
                world.gameservers().get_opt("play").await.unwrap().is_none().then_some(())
            })
            .await;
        assert!(world.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
        // A watch is in the log once it has ended.
        operator.stop();
        let granted = granted();
        let used = world
            .until("all watches have ended", || async {
                let used = used(&world.kubernetes.audit());
                used.contains(&right("", "services", "watch")).then_some(used)
            })
            .await;
        let audit = world.kubernetes.audit();
        let forbidden: Vec<&Value> =
            audit.iter().filter(|request| request["responseStatus"]["code"] == 403).collect();
        assert!(forbidden.is_empty(), "{forbidden:#?}");
        let mut unused: Vec<&Right> = granted.difference(&used).collect();
        // What this API server does not serve answers 404 to whatever is asked.
        unused.retain(|(_, resource, _)| {
            !["poddisruptionbudgets", "cronjobs"].contains(&resource.as_str())
        });
        assert!(unused.is_empty(), "unused: {unused:?}");
        assert!(used.is_subset(&granted), "{:?}", used.difference(&granted));
    });
}

#[test]
fn what_is_forbidden_is_told_with_what_to_do() {
    world(|world: World| async move {
        // Rights for its lease and the objects themselves, not for services.
        let rules = "--resource=gameservers.gameserver.com,gameservers.gameserver.com/status,pods,secrets,jobs.batch,serviceaccounts,events.events.k8s.io";
        world.kubectl(
            &["create", "role", "few", "--verb=get,list,watch,create,patch,update", rules],
            "",
        );
        world.kubectl(&["create", "rolebinding", "few", "--role=few", "--user=few"], "");
        world.kubectl(
            &["create", "role", "lease", "--verb=get,create,update", "--resource=leases"],
            "",
        );
        world.kubectl(&["create", "rolebinding", "lease", "--role=lease", "--user=few"], "");
        let _operator = world.operator_as("few");
        world.create("play", json!({})).await;
        let status = world
            .status("play", "is told", |status| reason(status, "Degraded") == "Forbidden")
            .await;
        let told = crate::kubernetes::message(&status, "Degraded");
        assert!(
            told.contains("Service play") && told.contains("deploy/operator/rbac.yaml"),
            "{told}"
        );
    });
}
