//! A database that goes away and comes back: matches stand still, and nothing is lost.

use serde_json::json;

use crate::client::call;
use crate::harness::{Server, until};
use crate::postgres::Cluster;

#[test]
fn matches_wait_for_a_database_that_is_away_and_go_on_by_themselves() {
    let cluster = Cluster::start();
    let url = cluster.url();
    // The lease outlives the outage.
    let settings =
        [("DATABASE_URL", url.as_str()), ("DATABASE_WAIT_SECONDS", "1"), ("LEASE_SECONDS", "60")];
    let server = Server::with(&settings);
    let (id, users, [mut first, mut second]) = server.tictactoe();
    first.accepted(1, &json!({"place": 4}));
    second.event();
    cluster.halt();

    second.command(1, &json!({"place": 0}));
    until("not ready", || {
        (call(server.admin, "GET", "/readyz").send().status == 503).then_some(())
    });
    assert_eq!(call(server.admin, "GET", "/healthz").send().status, 200);
    server.call("POST", "/v1/sessions/guest").json(&json!({})).send().problem(503);
    server.get(&users[0], "/v1/users/me").problem(503);
    let before = second.pending();
    assert!(before.iter().all(|message| message["type"] != "ack"), "{before:?}");

    cluster.resume();
    assert_eq!(second.expect("ack"), json!({"type": "ack", "id": 1, "seq": 5}));
    assert_eq!(first.event()["event"], json!({"placed": 0}));
    until("ready", || (call(server.admin, "GET", "/readyz").send().status == 200).then_some(()));
    assert_eq!(server.events(&users[0], &id).len(), 5);
    server.guest();
}
