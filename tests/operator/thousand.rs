//! A thousand Gameservers: how long they take to settle, and what the operator then weighs. A
//! benchmark: `just operator-bench`, with `TEST_OPERATOR` naming the program as it is shipped.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::kubernetes::{Operator, World, finished, reason, world};

const COUNT: usize = 1000;
/// What the project promises.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const RSS_BYTES_MAX: u64 = 15 * 1024 * 1024;
/// Long enough for each to be looked at again, since something is under way.
const REST: Duration = Duration::from_secs(15);
/// Requests of the test's own at a time.
const AT_A_TIME: usize = 16;

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
        let took = began.elapsed();
        say(&operator, &format!("{COUNT} objects settled in {took:.1?}"));
        rests(&operator).await;
        let began = Instant::now();
        run(&world).await;
        say(&operator, &format!("{COUNT} pods run after {:.1?} more", began.elapsed()));
        rests(&operator).await;
        // The next one has it all to read at once.
        operator.stop();
        let next = world.operator();
        world
            .until("all were looked at", || async {
                let reconciles = next.metric("gameserver_operator_reconciles_total").await?;
                (reconciles >= COUNT as u64).then_some(())
            })
            .await;
        say(&next, "another operator goes on from there");
        rests(&next).await;
        assert!(took <= SETTLED_WITHIN, "{took:?}");
    });
}

fn say(operator: &Operator, what: &str) {
    let [rss, most] = operator.memory().map(|bytes| bytes / 1024);
    println!("{what}: RSS {rss} KiB, most {most} KiB");
}

/// Nothing is written any more, and that is all it weighs.
async fn rests(operator: &Operator) {
    let writes = "gameserver_operator_api_writes_total";
    let before = operator.metric(writes).await;
    tokio::time::sleep(REST).await;
    say(operator, &format!("{REST:?} later, with {} writes", before.unwrap()));
    assert_eq!(operator.metric(writes).await, before);
    let [rss, _] = operator.memory();
    assert!(rss <= RSS_BYTES_MAX, "{rss} bytes");
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
