//! A thousand Gameservers: how long they take to settle, and what the operator then weighs. A
//! benchmark: `just operator-bench`, with `TEST_OPERATOR` naming the program as it is shipped.

use std::time::{Duration, Instant};

use kube::api::ListParams;
use serde_json::json;

use crate::kubernetes::{World, reason, world};

const COUNT: usize = 1000;
/// What the project promises.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
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
        let settled = || async {
            let all = world.gameservers().list(&ListParams::default()).await.unwrap().items;
            let migrating = |object: &&gameserver::operator::crd::Gameserver| {
                object
                    .status
                    .as_ref()
                    .is_some_and(|status| reason(status, "DatabaseReady") == "Migrating")
            };
            all.iter().filter(migrating).count()
        };
        loop {
            let count = settled().await;
            if count == COUNT {
                break;
            }
            assert!(began.elapsed() < SETTLED_WITHIN * 3, "{count} have settled");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
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
        assert!(took <= SETTLED_WITHIN, "{took:?}");
        assert!(operator.rss() <= RSS_BYTES_MAX, "{} bytes", operator.rss());
    });
}
