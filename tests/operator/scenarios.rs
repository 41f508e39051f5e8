//! What happens to a Gameserver, on a real API server. Nothing runs there but the API: tests do what
//! the kubelet and the job controller would do.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use futures_util::StreamExt as _;
use gameserver::operator::TRIGGERS_MAX;
use gameserver::operator::desired::{self, Desired, Keyed, Seen};
use gameserver::operator::rollout::SETTLE;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::kubernetes::{World, image, message, reason, world};

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// The pods that the Service selects.
fn serving(pods: &[Pod]) -> usize {
    pods.iter().filter(|pod| pod.labels()["gameserver.com/serving"] == "true").count()
}

#[test]
fn everything_is_there_before_the_database_and_pods_come_after() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({"replicas": 2, "host": "play.example"})).await;
        world
            .status("play", "waits", |status| reason(status, "DatabaseReady") == "Migrating")
            .await;
        for (group, kind, name) in [
            ("", "Service", "play"),
            ("", "ServiceAccount", "play"),
            ("", "Secret", "play-keys"),
            ("networking.k8s.io", "Ingress", "play"),
        ] {
            let found = world.api(group, kind).get(name).await.unwrap();
            assert_eq!(found.owner_references()[0].kind, "Gameserver", "{kind}");
        }
        assert!(world.pods().list(&ListParams::default()).await.unwrap().items.is_empty());
        let job = world.finish_job("Complete").await;
        assert!(job.starts_with("play-migrate-"), "{job}");
        let pods = world.pods_until("pods", |pods| pods.len() == 2).await;
        assert_eq!(names(&pods), ["play-0", "play-1"]);
        world.run_all_pods().await;
        let status = world
            .status("play", "is ready", |status| reason(status, "Progressing") == "Complete")
            .await;
        assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (2, 2, 2));
        assert_eq!(status.endpoint.as_deref(), Some("http://play.example"));
        assert_eq!(reason(&status, "Available"), "PodsReady");
        assert_eq!(reason(&status, "Degraded"), "AsDesired");
        assert_eq!(status.version.as_deref(), Some("1"));
    });
}

#[test]
fn a_managed_database_comes_with_its_password_volume_and_address() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({"database": {"managed": {"size": "1024Mi"}}})).await;
        let url = world
            .until("the address", || async {
                let secret = world.api("", "Secret").get_opt("play-database").await.unwrap()?;
                let secret: k8s_openapi::api::core::v1::Secret = secret.try_parse().unwrap();
                String::from_utf8(secret.data?.get("url")?.0.clone()).ok()
            })
            .await;
        let service = world.api("", "Service").get("play-database").await.unwrap();
        let ip = service.data["spec"]["clusterIP"].as_str().unwrap();
        assert!(url.ends_with(&format!("@{ip}:5432/gameserver?sslmode=disable")), "{url}");
        world.status("play", "waits", |status| reason(status, "DatabaseReady") == "NotReady").await;
        let ready = json!({"status": {"replicas": 1, "readyReplicas": 1}});
        let sets = world.api("apps", "StatefulSet");
        sets.patch_status("play-database", &PatchParams::default(), &Patch::Merge(ready))
            .await
            .unwrap();
        world.bring_up("play", 1).await;
        let volume = world.api("", "PersistentVolumeClaim").get("play-database").await.unwrap();
        assert!(volume.owner_references().is_empty(), "it outlives the Gameserver");
        for (policy, owners) in [("Delete", 1), ("Retain", 0)] {
            world
                .change("play", json!({"database": {"managed": {"deletionPolicy": policy}}}))
                .await;
            for kind in ["PersistentVolumeClaim", "Secret"] {
                world
                    .until(policy, || async {
                        let kept = world.api("", kind).get("play-database").await.unwrap();
                        (kept.owner_references().len() == owners).then_some(())
                    })
                    .await;
            }
        }
    });
}

#[test]
fn what_is_changed_or_deleted_by_hand_is_put_right() {
    world(|world: World| async move {
        let operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        let services = world.api("", "Service");
        let drift = Patch::Merge(json!({"spec": {"ports": [{"port": 81, "targetPort": 1}]}}));
        services.patch("play", &PatchParams::default(), &drift).await.unwrap();
        world
            .until("the port is right again", || async {
                let service = services.get("play").await.unwrap();
                (service.data["spec"]["ports"][0]["targetPort"] == "http").then_some(())
            })
            .await;
        services.delete("play", &DeleteParams::default()).await.unwrap();
        world.until("a Service", || async { services.get_opt("play").await.unwrap() }).await;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.pods().delete("play-0", &now).await.unwrap();
        world.pods_until("a pod", |pods| pods.len() == 1).await;
        world.run_all_pods().await;
        world.status("play", "is ready", |status| status.ready_replicas == 1).await;
        assert!(operator.metric("gameserver_operator_reconciles_total").await.unwrap() > 1);
    });
}

#[test]
fn a_reconcile_without_a_change_writes_nothing_also_after_a_restart() {
    world(|world: World| async move {
        let operator = world.operator();
        let (small, backup) = (
            json!({"requests": {"cpu": "0.5", "memory": "1024Mi"}}),
            json!({"schedule": "@daily", "volumeClaim": "b"}),
        );
        world.create("play", json!({"resources": small, "backup": backup})).await;
        world.bring_up("play", 1).await;
        operator.stop();
        let operator = world.operator();
        world
            .until("it has looked", || async {
                let done = operator.metric("gameserver_operator_reconciles_total").await?;
                (done >= 1).then_some(())
            })
            .await;
        let before = world.gameservers().get("play").await.unwrap();
        // Another label triggers no reconcile, an annotation does.
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
        world.gameservers().patch("play", &PatchParams::default(), &touch).await.unwrap();
        let looked = operator.metric("gameserver_operator_reconciles_total").await.unwrap();
        world
            .until("it has looked again", || async {
                let done = operator.metric("gameserver_operator_reconciles_total").await?;
                (done > looked).then_some(())
            })
            .await;
        assert_eq!(
            operator.metric("gameserver_operator_api_writes_total").await,
            Some(0),
            "{}",
            world.log()
        );
        let after = world.gameservers().get("play").await.unwrap();
        assert_eq!(before.status, after.status);
    });
}

#[test]
fn a_pod_drains_before_it_goes_and_the_one_with_fewest_matches_is_chosen() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({"replicas": 2})).await;
        world.bring_up("play", 2).await;
        report(&world, "play-0", "127.1.0.1", 7, 3).await;
        report(&world, "play-1", "127.1.0.2", 9, 1).await;
        world
            .status("play", "knows the figures", |status| {
                (status.players, status.matches) == (16, 4)
            })
            .await;
        world.kubectl(&["scale", "gsv/play", "--replicas=1"], "");
        let pods = world.pods_until("one drains", |pods| serving(pods) == 1).await;
        let leaving = pods.iter().find(|pod| pod.labels()["gameserver.com/serving"] == "false");
        assert_eq!(leaving.unwrap().name_any(), "play-1");
        assert_eq!(leaving.unwrap().metadata.deletion_timestamp, None);
        let began = std::time::Instant::now();
        world.status("play", "says so", |status| status.draining_replicas == 1).await;
        world
            .pods_until("it is told to end", |pods| {
                pods.iter().all(|pod| {
                    pod.name_any() != "play-1" || pod.metadata.deletion_timestamp.is_some()
                })
            })
            .await;
        assert!(began.elapsed() > SETTLE / 2, "{:?}", began.elapsed());
        world.remove_deleted_pods().await;
        world.status("play", "is done", |status| reason(status, "Progressing") == "Complete").await;
        let scale = world.gameservers().get_scale("play").await.unwrap().status.unwrap();
        assert_eq!(scale.replicas, 1);
        let selector = scale.selector.unwrap();
        assert!(selector.starts_with("app.kubernetes.io/instance=play,"), "{selector}");
    });
}

#[test]
fn a_roll_out_makes_new_pods_first_and_survives_the_operator() {
    world(|world: World| async move {
        let operator = world.operator();
        world.create("play", json!({"replicas": 2})).await;
        world.bring_up("play", 2).await;
        world.change("play", json!({"image": "gameserver:2"})).await;
        world.finish_job("Complete").await;
        let newer = |pods: &[Pod]| pods.iter().filter(|pod| image(pod) == "gameserver:2").count();
        let pods = world.pods_until("a new pod", |pods| newer(pods) == 1).await;
        assert_eq!((pods.len(), serving(&pods)), (3, 3));
        // Killed in the middle: the next one goes on.
        drop(operator);
        let _operator = world.operator();
        world
            .until("the new pods alone", || async {
                world.run_all_pods().await;
                world.remove_deleted_pods().await;
                let pods = world.pods().list(&ListParams::default()).await.unwrap().items;
                assert!((2..=4).contains(&pods.len()), "{:?}", names(&pods));
                (newer(&pods) == 2 && pods.len() == 2).then_some(())
            })
            .await;
        let status = world
            .status("play", "is done", |status| reason(status, "Progressing") == "Complete")
            .await;
        assert_eq!(status.version.as_deref(), Some("2"));
        let revisions = world.api("apps", "ControllerRevision");
        let kept = revisions.list(&ListParams::default()).await.unwrap().items;
        assert_eq!(kept.len(), 1, "{kept:?}");
    });
}

#[test]
fn a_bad_image_stops_the_roll_out_and_going_back_mends_it() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({"replicas": 2})).await;
        world.bring_up("play", 2).await;
        world.change("play", json!({"image": "gameserver:bad"})).await;
        world.finish_job("Complete").await;
        let bad = |pod: &&Pod| image(pod) == "gameserver:bad";
        let pods = world.pods_until("a new pod", |pods| pods.iter().any(|pod| bad(&pod))).await;
        let name = pods.iter().find(bad).unwrap().name_any();
        world.wait_for_image(&name).await;
        let status = world
            .status("play", "stops", |status| reason(status, "Degraded") == "RolloutStopped")
            .await;
        let told = message(&status, "Degraded");
        assert!(
            told.contains("ImagePullBackOff: no such image")
                && told.contains("set spec.image back"),
            "{told}"
        );
        assert_eq!(
            (status.ready_replicas, reason(&status, "Available").as_str()),
            (2, "PodsReady")
        );
        // One of those that play is lost meanwhile: it comes back as it was.
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        world.pods().delete("play-0", &now).await.unwrap();
        let pods = world.pods_until("it is back", |pods| pods.len() == 3).await;
        assert_eq!(pods.iter().filter(bad).count(), 1);
        let old = pods.iter().find(|pod| pod.name_any() == "play-0").unwrap();
        assert_eq!(image(old), "gameserver:1");
        world.run_pod("play-0", "127.0.0.1", true).await;
        world.change("play", json!({"image": "gameserver:1"})).await;
        world
            .until("the bad pod is gone", || async {
                world.remove_deleted_pods().await;
                let pods = world.pods().list(&ListParams::default()).await.unwrap().items;
                (!pods.iter().any(|pod| bad(&pod))).then_some(())
            })
            .await;
        world.status("play", "is well", |status| reason(status, "Degraded") == "AsDesired").await;
        let events = world
            .kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"], "");
        assert!(events.contains("RolloutStopped"), "{events}");
    });
}

#[test]
fn a_paused_roll_out_waits() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        world.change("play", json!({"image": "gameserver:2", "update": {"paused": true}})).await;
        world.finish_job("Complete").await;
        world.status("play", "is paused", |status| reason(status, "Progressing") == "Paused").await;
        assert_eq!(
            names(&world.pods().list(&ListParams::default()).await.unwrap().items),
            ["play-0"]
        );
        world.change("play", json!({"update": {"paused": false}})).await;
        world.pods_until("it goes on", |pods| pods.len() == 2).await;
    });
}

#[test]
fn players_bring_pods_and_their_going_takes_them_away() {
    world(|world: World| async move {
        let _operator = world.operator();
        let scale = json!({"min": 1, "max": 3, "playersPerReplica": 10, "scaleDownStabilizationSeconds": 0});
        world.create("play", json!({"autoscaling": scale})).await;
        world.bring_up("play", 1).await;
        let figures = report(&world, "play-0", "127.1.1.1", 25, 2).await;
        world.pods_until("three pods", |pods| pods.len() == 3).await;
        report(&world, "play-1", "127.1.1.2", 0, 0).await;
        report(&world, "play-2", "127.1.1.3", 0, 0).await;
        let grown = world.status("play", "has grown", |status| status.ready_replicas == 3).await;
        assert_eq!(grown.desired_replicas, 3);
        figures.send((5, 2)).unwrap();
        let one = world.pods_until("one pod serves", |pods| serving(pods) == 1);
        let removing = async {
            loop {
                world.remove_deleted_pods().await;
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            pods = one => assert_eq!(pods.iter().find(|pod| pod.labels()["gameserver.com/serving"] == "true").unwrap().name_any(), "play-0"),
            () = removing => {}
        }
    });
}

#[test]
fn a_migration_that_fails_is_told_and_tried_again() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.finish_job("Failed").await;
        let status = world
            .status("play", "is told", |status| reason(status, "Degraded") == "MigrationFailed")
            .await;
        assert!(message(&status, "DatabaseReady").contains("kubectl logs job/play-migrate-"));
        world.bring_up("play", 1).await;
    });
}

#[test]
fn an_image_that_can_not_be_had_is_told_by_its_migration() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        world.change("play", json!({"image": "gameserver:none"})).await;
        let migrating = |status: &_| reason(status, "DatabaseReady") == "Migrating";
        let status = world.status("play", "migrates", migrating).await;
        assert_eq!(reason(&status, "Degraded"), "AsDesired");
        let jobs = world.api("batch", "Job").list(&ListParams::default()).await.unwrap().items;
        let job = jobs.iter().find(|job| job.data["status"]["conditions"].is_null()).unwrap();
        hang(&world, job).await;
        let status = world
            .status("play", "is told", |status| reason(status, "Degraded") == "MigrationFailed")
            .await;
        let told = message(&status, "Degraded");
        assert!(told.contains("ImagePullBackOff: no such image; set spec.image"), "{told}");
        assert_eq!(status.ready_replicas, 1);
    });
}

/// Does what the job controller and the kubelet would do where there is no such image.
async fn hang(world: &World, job: &DynamicObject) {
    let pod = json!({
        "metadata": {"name": "hangs", "labels": {"job-name": job.name_any()}},
        "spec": job.data["spec"]["template"]["spec"],
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    world.pods().create(&PostParams::default(), &pod).await.unwrap();
    world.wait_for_image("hangs").await;
}

#[test]
fn a_restore_that_does_not_start_is_made_anew_with_another_image() {
    world(|world: World| async move {
        let _operator = world.operator();
        let from = json!({"volumeClaim": "backups", "file": "play-1.backup"});
        world.create("play", json!({"restoreFrom": from, "image": "gameserver:none"})).await;
        let jobs = world.api("batch", "Job");
        let job = world.until("a Job", || async { jobs.get_opt("play-restore").await.unwrap() });
        hang(&world, &job.await).await;
        let told = |status: &_| reason(status, "Degraded") == "RestoreFailed";
        world.status("play", "is told", told).await;
        world.change("play", json!({"image": "gameserver:1"})).await;
        world
            .until("it is made anew", || async {
                let job = jobs.get_opt("play-restore").await.unwrap()?;
                let image = &job.data["spec"]["template"]["spec"]["containers"][0]["image"];
                (image == "gameserver:1").then_some(())
            })
            .await;
        world.pods().delete("hangs", &DeleteParams::default()).await.unwrap();
        assert_eq!(world.finish_job("Complete").await, "play-restore");
        world.bring_up("play", 1).await;
    });
}

#[test]
fn a_backup_that_does_not_start_goes_when_it_would_be_made_otherwise() {
    world(|world: World| async move {
        let _operator = world.operator();
        let backup = json!({"schedule": "0 3 * * *", "volumeClaim": "backups"});
        world.create("play", json!({"backup": backup})).await;
        world.bring_up("play", 1).await;
        begin_backup(&world, "play-backup-1").await;
        let jobs = world.api("batch", "Job");
        let job = jobs.get("play-backup-1").await.unwrap();
        assert_eq!(job.data["spec"]["activeDeadlineSeconds"], 6 * 60 * 60);
        hang(&world, &job).await;
        world.change("play", json!({"service": {"port": 81}})).await;
        let failed = |status: &_| reason(status, "Degraded") == "BackupFailed";
        let status = world.status("play", "is told", failed).await;
        let told = message(&status, "Degraded");
        assert!(told.starts_with("Job play-backup-1 does not start: ImagePullBackOff"), "{told}");
        assert!(jobs.get_opt("play-backup-1").await.unwrap().is_some());
        world.change("play", json!({"backup": {"volumeClaim": "others"}})).await;
        let well = |status: &_| reason(status, "Degraded") == "AsDesired";
        world.status("play", "has none that fails", well).await;
        assert!(jobs.get_opt("play-backup-1").await.unwrap().is_none());
    });
}

#[test]
fn a_restore_comes_before_the_migration_and_once() {
    world(|world: World| async move {
        let _operator = world.operator();
        let from = json!({"volumeClaim": "backups", "file": "play-1.backup"});
        world.create("play", json!({"restoreFrom": from})).await;
        assert_eq!(world.finish_job("Complete").await, "play-restore");
        world.bring_up("play", 1).await;
        let job = world.api("batch", "Job").get("play-restore").await.unwrap();
        let container = &job.data["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["args"], json!(["restore", "/backup/play-1.backup"]));
    });
}

#[test]
fn a_backup_that_fails_is_told_until_a_later_one_is_good() {
    world(|world: World| async move {
        let _operator = world.operator();
        let backup = json!({"schedule": "0 3 * * *", "volumeClaim": "backups"});
        world.create("play", json!({"backup": backup})).await;
        world.bring_up("play", 1).await;
        back_up(&world, "play-backup-1", "Failed").await;
        let failed = |status: &_| reason(status, "Degraded") == "BackupFailed";
        let status = world.status("play", "is told", failed).await;
        let told = message(&status, "Degraded");
        assert!(told.starts_with("Job play-backup-1 failed: see `kubectl logs job/"), "{told}");
        assert!(told.contains("is PersistentVolumeClaim backups there"), "{told}");
        assert_eq!(
            (status.ready_replicas, reason(&status, "Available").as_str()),
            (1, "PodsReady")
        );
        // One that runs is not good yet.
        begin_backup(&world, "play-backup-2").await;
        world.change("play", json!({"host": "play.example"})).await;
        let seen = |status: &gameserver::operator::crd::GameserverStatus| {
            status.endpoint.as_deref() == Some("http://play.example")
        };
        assert!(failed(&world.status("play", "is looked at", seen).await));
        world.finish_job("Complete").await;
        let good = |status: &_| reason(status, "Degraded") == "AsDesired";
        world.status("play", "is well again", good).await;
        back_up(&world, "play-backup-3", "Failed").await;
        world.status("play", "is told again", failed).await;
        // Nobody wants backups any more.
        world.change("play", json!({"backup": null})).await;
        world.status("play", "has none to complain of", good).await;
    });
}

/// Does what the CronJob controller would do (old clusters have none), and its Job's.
async fn back_up(world: &World, name: &str, end: &str) {
    begin_backup(world, name).await;
    assert_eq!(world.finish_job(end).await, name);
}

async fn begin_backup(world: &World, name: &str) {
    let object = world.gameservers().get("play").await.unwrap();
    let url = Keyed { name: "db".into(), key: "url".into(), digest: String::new() };
    let seen = Seen { database_url: Some(url), ..Seen::default() };
    let made = desired::objects(&object, &seen).into_iter().find_map(|one| match one {
        Desired::Present(object) if object["kind"] == "CronJob" => Some(object),
        _ => None,
    });
    let mut job = made.unwrap()["spec"]["jobTemplate"].take();
    job["metadata"]["name"] = json!(name);
    job["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "play-backup", "uid": "1"}]);
    let job: DynamicObject = serde_json::from_value(job).unwrap();
    world.api("batch", "Job").create(&PostParams::default(), &job).await.unwrap();
}

#[test]
fn missing_secrets_and_unknown_settings_are_told_with_what_to_do() {
    world(|world: World| async move {
        let _operator = world.operator();
        let elsewhere = json!({"external": {"secretRef": {"name": "nowhere"}}});
        world.create("lost", json!({"database": elsewhere})).await;
        let status = world
            .status("lost", "is told", |status| reason(status, "Degraded") == "SecretMissing")
            .await;
        assert_eq!(
            message(&status, "DatabaseReady"),
            "make Secret nowhere with key url: postgres://…"
        );
        assert_eq!(reason(&status, "Available"), "NoPodReady");
        world.create("wrong", json!({"config": {"GAMESERVER_COLOUR": "red"}})).await;
        let status = world
            .status("wrong", "is told", |status| reason(status, "Degraded") == "InvalidSpec")
            .await;
        assert!(message(&status, "Degraded").contains("GAMESERVER_COLOUR"));
        world.create("keyless", json!({"auth": {"keysSecretRef": {"name": "nowhere"}}})).await;
        let told = |status: &_| reason(status, "Degraded") == "KeysMissing";
        world.status("keyless", "is told", told).await;
    });
}

#[test]
fn somebody_elses_object_is_left_alone() {
    world(|world: World| async move {
        world.kubectl(&["create", "service", "clusterip", "play", "--tcp=1:1"], "");
        let _operator = world.operator();
        world.create("play", json!({})).await;
        let status = world
            .status("play", "is told", |status| reason(status, "Degraded") == "NameTaken")
            .await;
        assert!(message(&status, "Degraded").starts_with("Service play is there already"));
        let service = world.api("", "Service").get("play").await.unwrap();
        assert_eq!(service.data["spec"]["ports"][0]["port"], 1);
    });
}

#[test]
fn pods_drain_before_a_deleted_object_goes() {
    world(|world: World| async move {
        let operator = world.operator();
        world.create("play", json!({"replicas": 2})).await;
        world.bring_up("play", 2).await;
        world.gameservers().delete("play", &DeleteParams::default()).await.unwrap();
        world
            .pods_until("pods are told to end", |pods| {
                pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some())
            })
            .await;
        assert!(world.gameservers().get_opt("play").await.unwrap().is_some());
        world.remove_deleted_pods().await;
        world
            .until("the object is gone", || async {
                world.gameservers().get_opt("play").await.unwrap().is_none().then_some(())
            })
            .await;
        // What belonged to it goes later, and asks for a reconcile that never comes.
        let triggers = "gameserver_operator_triggers_total";
        let before = operator.metric(triggers).await;
        world.api("", "Service").delete("play", &DeleteParams::default()).await.unwrap();
        world
            .until("its end is heard", || async {
                (operator.metric(triggers).await > before).then_some(())
            })
            .await;
        world
            .until("nothing waits", || async {
                (operator.metric("gameserver_operator_queue_length").await? == 0).then_some(())
            })
            .await;
    });
}

#[test]
fn a_deleted_namespace_lets_everything_go() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        world.kubectl(&["delete", "namespace", &world.namespace, "--wait=false"], "");
        // Nothing can be made there any more: that is no reason to try for ever, or to complain.
        world.api("", "Service").delete("play", &DeleteParams::default()).await.unwrap();
        world.gameservers().delete("play", &DeleteParams::default()).await.unwrap();
        world
            .until("the object is gone", || async {
                world.remove_deleted_pods().await;
                world.gameservers().get_opt("play").await.unwrap().is_none().then_some(())
            })
            .await;
    });
}

#[test]
fn one_operator_works_and_the_next_takes_over() {
    world(|world: World| async move {
        let first = world.operator();
        let leads = "gameserver_operator_leader";
        world
            .until("one leads", || async { (first.metric(leads).await? == 1).then_some(()) })
            .await;
        let second = world.operator();
        world.until("the other answers", || async { second.metric(leads).await }).await;
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        assert_eq!(second.metric(leads).await, Some(0));
        assert_eq!(second.metric("gameserver_operator_reconciles_total").await, Some(0));
        first.stop();
        world
            .until("the other leads", || async { (second.metric(leads).await? == 1).then_some(()) })
            .await;
        world.change("play", json!({"replicas": 2})).await;
        world.pods_until("it works", |pods| pods.len() == 2).await;
        assert!(second.get("/readyz").await.unwrap().contains(" 200 "));
        assert!(second.get("/healthz").await.unwrap().contains(" 200 "));
    });
}

#[test]
fn a_new_operator_starts_however_much_there_is_already() {
    world(|world: World| async move {
        let pods = world.pods();
        let made = futures_util::stream::iter(0..=TRIGGERS_MAX).map(|number| {
            let pod = json!({
                "metadata": {"name": format!("other-{number}"), "labels": {
                    "app.kubernetes.io/managed-by": "gameserver-operator",
                    "app.kubernetes.io/component": "game",
                    "app.kubernetes.io/instance": "other",
                }},
                "spec": {"containers": [{"name": "other", "image": "other"}]},
            });
            let (pods, pod) = (pods.clone(), serde_json::from_value(pod).unwrap());
            async move { pods.create(&PostParams::default(), &pod).await.unwrap() }
        });
        made.buffer_unordered(16).count().await;
        let _operator = world.operator();
        world.create("play", json!({})).await;
        assert!(world.finish_job("Complete").await.starts_with("play-migrate-"));
    });
}

#[test]
fn a_lost_lease_ends_the_work() {
    world(|world: World| async move {
        let first = world.operator();
        let leads = "gameserver_operator_leader";
        world
            .until("one leads", || async { (first.metric(leads).await? == 1).then_some(()) })
            .await;
        let taken = json!({"spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600}});
        let leases = world.api("coordination.k8s.io", "Lease");
        leases
            .patch("gameserver-operator", &PatchParams::default(), &Patch::Merge(taken))
            .await
            .unwrap();
        world
            .until("it ends", || async { first.metric(leads).await.is_none().then_some(()) })
            .await;
        assert!(world.log().contains("another replica leads"), "{}", world.log());
    });
}

#[test]
fn keys_are_rotated_so_that_every_pod_knows_a_key_before_one_signs_with_it() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({"replicas": 2})).await;
        world.bring_up("play", 2).await;
        let first = keys(&world).await;
        world.kubectl(&["annotate", "gsv/play", "gameserver.com/rotate-keys=1"], "");
        let (mut seen, secrets) = (vec![first.clone()], world.api("", "Secret"));
        let leaves = "gameserver.com/old-keys-until";
        world
            .until("all pods sign with the new key", || async {
                world.run_all_pods().await;
                world.remove_deleted_pods().await;
                let secret = secrets.get("play-keys").await.unwrap();
                secret.metadata.annotations?.contains_key(leaves).then_some(())
            })
            .await;
        seen.push(keys(&world).await);
        let both = seen.last().unwrap();
        assert_eq!(
            (both.len(), &both[1]),
            (2, &first[0]),
            "the new key signs, the old one verifies"
        );
        // Nobody waits for the tokens here.
        let over = json!({"metadata": {"annotations": {leaves: "2020-01-01T00:00:00Z"}}});
        secrets.patch("play-keys", &PatchParams::default(), &Patch::Merge(over)).await.unwrap();
        world
            .until("the old key is gone", || async {
                world.run_all_pods().await;
                world.remove_deleted_pods().await;
                let secret = secrets.get("play-keys").await.unwrap();
                let annotations = secret.metadata.annotations.unwrap_or_default();
                (!annotations.contains_key("gameserver.com/rotation")).then_some(())
            })
            .await;
        assert_eq!(keys(&world).await, [both[0].clone()]);
        let events = world
            .kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"], "");
        for told in ["KeyAdded", "KeySigns", "OldKeysExpire", "KeysRotated"] {
            assert!(events.contains(told), "{told}: {events}");
        }
    });
}

/// The keys that the operator keeps, each as PEM.
async fn keys(world: &World) -> Vec<String> {
    let secret = world.api("", "Secret").get("play-keys").await.unwrap();
    let secret: k8s_openapi::api::core::v1::Secret = secret.try_parse().unwrap();
    let pem = String::from_utf8(secret.data.unwrap()["keys.pem"].0.clone()).unwrap();
    pem.split_inclusive("-----END PRIVATE KEY-----")
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty())
        .collect()
}

#[test]
fn a_new_key_does_not_sign_while_a_pod_is_there_that_does_not_know_it() {
    world(|world: World| async move {
        let _operator = world.operator();
        world.create("play", json!({})).await;
        world.bring_up("play", 1).await;
        // A pod of a node ends when the node says so.
        let path = format!("/api/v1/namespaces/{}/pods/play-0/binding", world.namespace);
        let to = json!({"apiVersion": "v1", "kind": "Node", "name": "node"});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "play-0"}, "target": to});
        world.kubectl(&["create", "--raw", &path, "-f", "-"], &binding.to_string());
        let before = keys(&world).await;
        world.kubectl(&["annotate", "gsv/play", "gameserver.com/rotate-keys=1"], "");
        // The new pod serves, the old one drains, and is not gone.
        world.pods_until("a second pod", |pods| pods.len() == 2).await;
        world.run_all_pods().await;
        world
            .pods_until("the old one ends", |pods| {
                pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some())
            })
            .await;
        world.status("play", "knows", |status| status.updated_replicas == 1).await;
        let now = keys(&world).await;
        assert_eq!((now.len(), &now[0]), (2, &before[0]), "the old key still signs");
        world
            .until("the new key signs", || async {
                world.remove_deleted_pods().await;
                (keys(&world).await[1] == before[0]).then_some(())
            })
            .await;
    });
}

#[test]
fn a_longer_life_of_tokens_is_noted_whatever_fails() {
    world(|world: World| async move {
        world.kubectl(&["create", "service", "clusterip", "play", "--tcp=1:1"], "");
        let _operator = world.operator();
        world.create("play", json!({})).await;
        let taken = |status: &_| reason(status, "Degraded") == "NameTaken";
        world.status("play", "is told", taken).await;
        let longer = json!({"GAMESERVER_ACCESS_TOKEN_SECONDS": "7200"});
        world.change("play", json!({"config": longer})).await;
        let secrets = world.api("", "Secret");
        world
            .until("it is noted", || async {
                let noted = secrets.get("play-keys").await.unwrap().metadata.annotations?;
                (noted.get("gameserver.com/token-seconds")? == "7200").then_some(())
            })
            .await;
    });
}

#[test]
fn keys_of_ones_own_are_not_rotated_and_that_is_told() {
    world(|world: World| async move {
        world.kubectl(&["create", "secret", "generic", "own", "--from-literal=keys.pem=mine"], "");
        let _operator = world.operator();
        world.create("play", json!({"auth": {"keysSecretRef": {"name": "own"}}})).await;
        world.bring_up("play", 1).await;
        world.kubectl(&["annotate", "gsv/play", "gameserver.com/rotate-keys=1"], "");
        let status = world
            .status("play", "is told", |status| reason(status, "Degraded") == "RotationRefused")
            .await;
        let told = message(&status, "Degraded");
        assert!(
            told.contains("Secret own are your own") && told.contains("rotate-keys away"),
            "{told}"
        );
        // It goes on otherwise.
        world.change("play", json!({"replicas": 2})).await;
        world.pods_until("another pod", |pods| pods.len() == 2).await;
    });
}

/// A pod's admin listener at an address of its own; what it reports can be changed.
async fn report(
    world: &World,
    pod: &str,
    ip: &str,
    players: u32,
    matches: u32,
) -> tokio::sync::watch::Sender<(u32, u32)> {
    let (figures, reported) = tokio::sync::watch::channel((players, matches));
    let listener = TcpListener::bind((ip, 9090)).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (players, matches) = *reported.borrow();
            let body =
                format!("gameserver_sockets {players}\ngameserver_matches_loaded {matches}\n");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    world.run_pod(pod, ip, true).await;
    figures
}
