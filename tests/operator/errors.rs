//! What goes wrong between the operator and the API server, and what is said of it.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::kubernetes::{World, message, reason, world};
use crate::proxy::{Fault, Proxy};

/// Requests that write a Service.
fn writes_a_service(method: &str, path: &str) -> bool {
    method == "PATCH" && path.contains("/services/")
}

impl World {
    /// Whether an Event of a Gameserver has this reason.
    fn has_event(&self, name: &str, reason: &str) -> bool {
        let of = format!("-o=jsonpath={{.items[?(@.regarding.name==\"{name}\")].reason}}");
        let reasons = self.kubectl(&["get", "events.events.k8s.io", &of], "");
        reasons.split_whitespace().any(|one| one == reason)
    }

    async fn until_well(&self, name: &str) {
        self.status(name, "is well", |status| reason(status, "Degraded") == "AsDesired").await;
    }
}

#[test]
fn a_throttled_operator_says_so_and_waits_as_long_as_it_is_asked_to() {
    world(|world: World| async move {
        let proxy = Proxy::start(world.kubernetes, |method, path| {
            writes_a_service(method, path).then_some(Fault::Throttle(4))
        });
        let _operator = world.operator_through(&proxy);
        world.create("play", json!({})).await;
        let told = |status: &_| reason(status, "Degraded") == "Throttled";
        let status = world.status("play", "is told", told).await;
        assert!(message(&status, "Degraded").ends_with("it is tried again"), "{status:?}");
        let tries = world
            .until("it is tried again", || async {
                Some(proxy.met()).filter(|tries| tries.len() >= 3)
            })
            .await;
        let waits = tries.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
        let waits: Vec<f64> = waits.collect();
        assert!(waits.iter().all(|wait| *wait >= 3.9), "{waits:?}");
        proxy.set(|_, _| None);
        world.until_well("play").await;
        assert!(world.has_event("play", "Throttled"));
    });
}

#[test]
fn a_silent_api_server_holds_nothing_up_for_ever() {
    world(|world: World| async move {
        let proxy = Proxy::start(world.kubernetes, |method, path| {
            let lost = writes_a_service(method, path) && path.contains("/services/lost");
            lost.then_some(Fault::Silence)
        });
        let _operator = world.operator_through(&proxy);
        world.create("lost", json!({})).await;
        world.create("play", json!({})).await;
        world.until_well("play").await;
        let told = |status: &_| reason(status, "Degraded") == "ApiUnavailable";
        let status = world.status("lost", "is told", told).await;
        assert!(
            message(&status, "Degraded").contains("apply Service lost: no answer within 30 s"),
            "{status:?}"
        );
        proxy.set(|_, _| None);
        world.until_well("lost").await;
        assert!(world.has_event("lost", "ApiUnavailable"));
    });
}

#[test]
fn an_api_server_that_fails_is_told_and_outlived() {
    world(|world: World| async move {
        let proxy = Proxy::start(world.kubernetes, |method, path| {
            writes_a_service(method, path).then_some(Fault::Answer(500))
        });
        let operator = world.operator_through(&proxy);
        world.create("play", json!({})).await;
        let told = |status: &_| reason(status, "Degraded") == "ApiUnavailable";
        world.status("play", "is told", told).await;
        let errors = "gameserver_operator_reconcile_errors_total";
        world
            .until("it is counted", || async { (operator.metric(errors).await? > 0).then_some(()) })
            .await;
        // Nothing at all is answered for a while, the lease neither.
        proxy.set(|_, _| Some(Fault::Answer(503)));
        let met = proxy.met().len();
        world
            .until("all has failed for a while", || async {
                (proxy.met().len() > met + 5).then_some(())
            })
            .await;
        proxy.set(|_, _| None);
        world.until_well("play").await;
        world.bring_up("play", 1).await;
        assert_eq!(operator.metric("gameserver_operator_leader").await, Some(1));
        assert!(world.has_event("play", "ApiUnavailable"));
    });
}

/// As an earlier version would have stored it: past the API server and its schema.
fn break_stored(world: &World, name: &str, field: &str, value: &Value) {
    let key = format!("/registry/gameserver.com/gameservers/{}/{name}", world.namespace);
    let mut stored = world.kubernetes.stored(&key);
    stored["spec"][field] = value.clone();
    stored["metadata"]["generation"] = json!(2);
    world.kubernetes.store(&key, &stored);
}

#[test]
fn a_stored_object_that_can_not_be_read_is_told_and_holds_up_no_other() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("broken", json!({})).await;
        world.create("play", json!({})).await;
        world.until_well("play").await;
        world.until_well("broken").await;
        break_stored(&world, "broken", "replicas", &json!("many"));
        world
            .until("it is told", || async {
                world.has_event("broken", "InvalidSpec").then_some(())
            })
            .await;
        let events =
            world.kubectl(&["get", "events.events.k8s.io", "-o=jsonpath={.items[*].note}"], "");
        let told = "spec.replicas: invalid type: string \"many\", expected i32; change the field (`kubectl explain gameserver.spec`), or delete the object";
        assert!(events.contains(told), "{events}");
        // The others go on, and so does it when it is mended.
        world.change("play", json!({"host": "play.example"})).await;
        let host = |status: &gameserver::operator::crd::GameserverStatus| {
            status.endpoint.as_deref() == Some("http://play.example")
        };
        world.status("play", "goes on", host).await;
        world.change("broken", json!({"replicas": 1, "host": "mended.example"})).await;
        let mended = |status: &gameserver::operator::crd::GameserverStatus| {
            status.endpoint.as_deref() == Some("http://mended.example")
        };
        world.status("broken", "is mended", mended).await;
        world.until_well("broken").await;
    });
}

#[test]
fn a_stored_object_that_breaks_a_rule_or_can_not_be_read_can_be_deleted() {
    world(|world: World| async move {
        let _operator = world.operator();
        let gameservers = world.api("gameserver.com", "Gameserver");
        let nameless = json!({"external": {"secretRef": {"name": "", "key": "url"}}});
        for (name, field, value) in [
            ("unreadable", "replicas", json!("many")),
            ("refused", "replicas", json!(5000)),
            ("nameless", "database", nameless),
        ] {
            world.create(name, json!({})).await;
            world.bring_up(name, 1).await;
            break_stored(&world, name, field, &value);
            gameservers.delete(name, &DeleteParams::default()).await.unwrap();
            world
                .until("the object is gone", || async {
                    world.remove_deleted_pods().await;
                    gameservers.get_opt(name).await.unwrap().is_none().then_some(())
                })
                .await;
            assert!(world.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
        }
    });
}

#[test]
fn what_keeps_a_deleted_object_is_told() {
    world(|world: World| async move {
        let proxy = Proxy::start(world.kubernetes, |_, _| None);
        let _operator = world.operator_through(&proxy);
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        proxy.set(|method, path| {
            (method == "DELETE" && path.contains("/pods/")).then_some(Fault::Answer(403))
        });
        let gameservers = world.gameservers();
        gameservers.delete("play", &DeleteParams::default()).await.unwrap();
        world
            .until("it is told", || async { world.has_event("play", "Forbidden").then_some(()) })
            .await;
        proxy.set(|_, _| None);
        world
            .until("the object is gone", || async {
                world.remove_deleted_pods().await;
                gameservers.get_opt("play").await.unwrap().is_none().then_some(())
            })
            .await;
    });
}

#[test]
fn a_spec_that_was_stored_before_a_rule_existed_is_told_with_its_field() {
    world(|world: World| async move {
        let _operator = world.operator();
        // This API server knows no CEL: it takes what the rules forbid.
        world.create("play", json!({"tlsSecretRef": {"name": "x"}})).await;
        let told = |status: &_| reason(status, "Degraded") == "InvalidSpec";
        let status = world.status("play", "is told", told).await;
        assert_eq!(message(&status, "Degraded"), "spec.tlsSecretRef needs spec.host");
        assert!(world.has_event("play", "InvalidSpec"));
        world.change("play", json!({"tlsSecretRef": null})).await;
        world.until_well("play").await;
    });
}

#[test]
fn a_kind_that_is_not_served_is_told_once_and_done_without() {
    world(|world: World| async move {
        let _operator = world.operator();
        let (served, _) = world.kubernetes.kubectl(&["get", "--raw", "/apis/policy/v1"], "");
        if served {
            eprintln!("skipped: this API server has all kinds");
            return;
        }
        for name in ["first", "second"] {
            world.create(name, json!({})).await;
            world.finish_job("Complete").await;
            let name_of_pod = format!("{name}-0");
            world
                .until("a pod", || async { world.pods().get_opt(&name_of_pod).await.unwrap() })
                .await;
            world.run_pod(&name_of_pod, "127.0.0.1", true).await;
            let complete = |status: &_| reason(status, "Progressing") == "Complete";
            let status = world.status(name, "is rolled out", complete).await;
            assert_eq!(reason(&status, "Degraded"), "AsDesired");
        }
        let told = world.log().matches("does not serve it: it goes on without").count();
        assert_eq!(told, 1, "{}", world.log());
        for kind in ["PodDisruptionBudget", "CronJob"] {
            let log = world.log();
            let lines = log.lines().filter(|line| line.contains("can't be watched"));
            assert!(lines.filter(|line| line.contains(kind)).count() <= 1, "{log}");
        }
        assert!(world.has_event("first", "KindNotServed"));
        assert!(!world.has_event("second", "KindNotServed"));
    });
}

#[test]
fn an_object_that_is_changed_meanwhile_is_no_reason_to_complain() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        // Somebody else writes to all that there is, again and again.
        let services = world.api("", "Service");
        for number in 0..20 {
            let touch = json!({"metadata": {"annotations": {"touched": number.to_string()}}});
            services.patch("play", &PatchParams::default(), &Patch::Merge(touch)).await.unwrap();
            world
                .change("play", json!({"service": {"annotations": {"number": number.to_string()}}}))
                .await;
        }
        world
            .until("the last word is there", || async {
                let service = services.get("play").await.unwrap();
                (service.metadata.annotations?.get("number")? == "19").then_some(())
            })
            .await;
        world.until_well("play").await;
        assert!(!world.has_event("play", "Conflict"));
        assert_eq!(world.pods().list(&ListParams::default()).await.unwrap().items.len(), 1);
    });
}
