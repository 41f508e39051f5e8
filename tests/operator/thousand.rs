//! A thousand Gameservers: how long they take to settle, and what the operator then weighs. A
//! benchmark: `just operator-bench`, with `TEST_OPERATOR` naming the program as it is shipped.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::kubernetes::{World, finished, reason, world};

const COUNT: usize = 1000;
/// What the project promises.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Requests of the test's own at a time.
const AT_A_TIME: usize = 16;
const RSS_BYTES_MAX: u64 = 15 * 1024 * 1024;

#[test]
#[ignore = "a benchmark"]
fn a_thousand_objects_settle_and_rest() {
    world(|world: World| async move {
        let keys = "--from-literal=keys.pem=given";
        world.kubectl(&["create", "secret", "generic", "keys", keys], "");
        for number in 0..COUNT {
            let auth = json!({"keysSecretRef": {"name": "keys"}});
            world.create(&format!("play-{number}"), json!({ "auth": auth })).await;
        }
        let operator = world.operator();
        let began = Instant::now();
        until_all(&world, "DatabaseReady", "Migrating").await;
        let (took, rss) = (began.elapsed(), operator.rss());
        let writes = operator.metric("gameserver_operator_api_writes_total").await.unwrap();
        println!(
            "{COUNT} objects settled in {took:.1?} with {writes} writes; RSS {} KiB",
            rss / 1024
        );
        // Looked at again, since their Jobs run; nothing is written.
        tokio::time::sleep(Duration::from_secs(15)).await;
        let later = operator.metric("gameserver_operator_api_writes_total").await.unwrap();
        println!("15 s later: {later} writes; RSS {} KiB", operator.rss() / 1024);
        assert_eq!(writes, later);
        let began = Instant::now();
        run(&world).await;
        println!(
            "{COUNT} pods run after {:.1?} more; RSS {} KiB",
            began.elapsed(),
            operator.rss() / 1024
        );
        let writes = operator.metric("gameserver_operator_api_writes_total").await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
        let later = operator.metric("gameserver_operator_api_writes_total").await.unwrap();
        println!("15 s later: {} more writes; RSS {} KiB", later - writes, operator.rss() / 1024);
        assert_eq!(writes, later);
        assert!(took <= SETTLED_WITHIN, "{took:?}");
        assert!(operator.rss() <= RSS_BYTES_MAX, "{} bytes", operator.rss());
    });
}

/// Waits until all say so.
async fn until_all(world: &World, condition: &str, wanted: &str) {
    let began = Instant::now();
    loop {
        let all = world.gameservers().list(&ListParams::default()).await.unwrap().items;
        let statuses = all.iter().filter_map(|object| object.status.as_ref());
        let count = statuses.filter(|status| reason(status, condition) == wanted).count();
        if count == COUNT {
            return;
        }
        assert!(began.elapsed() < SETTLED_WITHIN * 5, "{wanted}: {count}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Does what the job controller and the kubelet would do, until all are rolled out.
async fn run(world: &World) {
    let jobs = world.api("batch", "Job");
    let migrated = finished("Complete");
    let all = jobs.list(&ListParams::default()).await.unwrap().items;
    let done = futures_util::stream::iter(all).map(|job| {
        let (jobs, migrated) = (jobs.clone(), Patch::Merge(migrated.clone()));
        async move {
            let name = job.name_any();
            jobs.patch_status(&name, &PatchParams::default(), &migrated).await.unwrap();
        }
    });
    done.buffer_unordered(AT_A_TIME).count().await;
    let pods = world.pods_until("all pods", |pods| pods.len() == COUNT).await;
    let running = futures_util::stream::iter(pods).map(|pod| {
        let name = pod.name_any();
        async move { world.run_pod(&name, "127.0.0.1", true).await }
    });
    running.buffer_unordered(AT_A_TIME).count().await;
    until_all(world, "Progressing", "Complete").await;
}
