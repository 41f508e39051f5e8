//! One suite for both stores: what is true of one is true of the other.

#[path = "../support/postgres.rs"]
mod postgres;
mod ratings;
mod tickets;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use gameserver::games::{Outcome, Seat};
use gameserver::ids::{MatchId, NodeId, SessionId, Timestamp, UserId};
use gameserver::store::postgres::{Migrate, Postgres, PostgresSettings, migrate};
use gameserver::store::sqlite::Sqlite;
use gameserver::store::{
    Claim, EventRecord, MatchChange, MatchFilter, MatchRecord, MatchState, NewSession, NodeRecord,
    Pipeline, RefreshRotation, Rotation, Snapshot, Store, StoreError, UserChange, UserRecord,
    UserUpdate, Visibility,
};

/// Runs a test against an empty store of each kind: a file, PostgreSQL, and PostgreSQL behind a
/// pooler that keeps neither sessions nor statements.
fn each<F: Future<Output = ()>>(test: impl Fn(Arc<Store>) -> F) {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = Sqlite::open(&dir.path().join("store.db")).unwrap();
    runtime().block_on(test(Arc::new(Store::Sqlite(file))));
    for pooled in [false, true] {
        let database = postgres::database();
        let pooler = pooled.then(|| postgres::Pooler::start(&database));
        let url = pooler.as_ref().map_or(database.url.clone(), |pooler| pooler.url(&database));
        let settings = settings(&url, !pooled);
        assert!(migrate(&settings.url, Migrate::Apply).unwrap() > 0);
        let runtime = runtime();
        let store = runtime.block_on(async { Postgres::new(&settings).unwrap() });
        runtime.block_on(test(Arc::new(Store::Postgres(store))));
    }
}

fn settings(url: &str, prepare: bool) -> PostgresSettings {
    PostgresSettings {
        url: url.parse().unwrap(),
        connections_max: 4,
        connection_wait: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
        lock_timeout: Duration::from_secs(10),
        prepare,
    }
}

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn guest(name: &str) -> UserRecord {
    UserRecord {
        id: UserId::new(),
        username: None,
        display_name: name.into(),
        password_hash: None,
        created_at: NOW,
    }
}

fn user(username: &str) -> UserRecord {
    let (username, password_hash) = (Some(username.into()), Some("phc".into()));
    UserRecord { username, password_hash, ..guest("Somebody") }
}

async fn add(store: &Store, user: &UserRecord) {
    store.create_user(user.clone(), None).await.unwrap();
}

fn session(user: UserId, digest: u8, expires_at: Timestamp) -> NewSession {
    NewSession { id: SessionId::new(), user, refresh_digest: [digest; 32], expires_at }
}

fn rotation(digest: u8, next: u8, now: Timestamp) -> RefreshRotation {
    RefreshRotation {
        digest: [digest; 32],
        next_digest: [next; 32],
        now,
        next_expires_at: now.plus(Duration::from_secs(1000)),
        revoked_until: now.plus(Duration::from_secs(100)),
    }
}

fn event(seq: u64, seat: Option<u8>, user: Option<UserId>) -> EventRecord {
    EventRecord {
        seq,
        at: later(seq),
        seat: seat.map(Seat),
        command_id: user.is_none().then_some(seq * 10),
        user,
        display_name: None,
        structural: user.is_some(),
        event: format!("{{\"number\":{seq},\"text\":\"Grüße \\u0000\"}}"),
    }
}

fn new_match(game: &str, visibility: Visibility, creator: UserId) -> MatchChange {
    let id = MatchId::new();
    let record = MatchRecord {
        id,
        game: game.into(),
        game_version: "1".into(),
        seed: u64::MAX - 5,
        options: "{}".into(),
        seats: 2,
        state: MatchState::Open,
        visibility,
        join_code: (visibility == Visibility::Private).then(|| "CODE".into()),
        created_at: NOW,
        seq: 0,
        outcome: None,
        ratings: None,
        snapshot: None,
        players: Vec::new(),
    };
    MatchChange {
        id,
        node: None,
        epoch: 0,
        create: Some(Box::new(record)),
        events: vec![event(1, Some(0), Some(creator))],
        seats: vec![(Seat(0), Some(creator))],
        state: MatchState::Open,
        seq: 1,
        previous_seq: 0,
        outcome: None,
        rated: false,
        snapshot: None,
        log_snapshot: None,
        at: NOW,
    }
}

/// A change that adds `events` to what a match has up to `previous_seq`.
fn change(id: MatchId, previous_seq: u64, events: Vec<EventRecord>) -> MatchChange {
    MatchChange {
        id,
        node: None,
        epoch: 0,
        create: None,
        seq: events.last().map_or(previous_seq, |event| event.seq),
        events,
        seats: Vec::new(),
        state: MatchState::Running,
        previous_seq,
        outcome: None,
        rated: false,
        snapshot: None,
        log_snapshot: None,
        at: later(60),
    }
}

async fn append(store: &Store, changes: Vec<MatchChange>) -> Vec<MatchId> {
    store.append(Arc::new(changes)).await.unwrap().refused
}

async fn seqs(store: &Store, id: MatchId) -> Vec<u64> {
    store.events(id, 0, 1000).await.unwrap().iter().map(|event| event.seq).collect()
}

#[test]
fn accounts_are_kept_and_names_are_one_whatever_their_case() {
    each(|store| async move {
        store.ping().await.unwrap();
        let ada = user("Ada");
        add(&store, &ada).await;
        for name in ["Ada", "ada", "ADA"] {
            assert_eq!(store.user_by_name(name).await.unwrap().unwrap().id, ada.id);
            let taken = store.create_user(user(name), None).await;
            assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        }
        assert!(store.user_by_name("bob").await.unwrap().is_none());
        let found = store.user(ada.id).await.unwrap().unwrap();
        assert_eq!((found.username, found.created_at), (Some("Ada".into()), NOW));
        assert!(store.user(UserId::new()).await.unwrap().is_none());
    });
}

#[test]
fn a_guest_is_given_a_name_once() {
    each(|store| async move {
        let someone = guest("Someone");
        add(&store, &someone).await;
        add(&store, &user("taken")).await;
        let named = |name: &str| UserChange {
            username: Some(name.into()),
            password_hash: Some("phc".into()),
            ..UserChange::default()
        };
        let taken = store.update_user(someone.id, named("TAKEN")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
        let done = store.update_user(someone.id, named("grace")).await.unwrap();
        assert!(matches!(done, UserUpdate::Done(user) if user.username == Some("grace".into())));
        let again = store.update_user(someone.id, named("other")).await.unwrap();
        assert!(matches!(again, UserUpdate::HasName));
        let shown = UserChange { display_name: Some("Grace".into()), ..UserChange::default() };
        let done = store.update_user(someone.id, shown.clone()).await.unwrap();
        assert!(matches!(done, UserUpdate::Done(user) if user.display_name == "Grace"));
        let gone = store.update_user(UserId::new(), shown).await.unwrap();
        assert!(matches!(gone, UserUpdate::Gone));
    });
}

#[test]
fn a_refresh_token_works_once_and_its_second_use_ends_the_session() {
    each(|store| async move {
        let someone = guest("Someone");
        let first = session(someone.id, 1, later(500));
        let id = first.id;
        store.create_user(someone.clone(), Some(first)).await.unwrap();
        let rotated = Rotation::Rotated { user: someone.id, session: id };
        assert_eq!(store.rotate_refresh_token(rotation(1, 2, NOW)).await.unwrap(), rotated);
        assert_eq!(store.rotate_refresh_token(rotation(2, 3, later(900))).await.unwrap(), rotated);
        assert_eq!(
            store.rotate_refresh_token(rotation(1, 4, later(901))).await.unwrap(),
            Rotation::Reused { session: id }
        );
        for digest in [1, 2, 3, 9] {
            let unknown =
                store.rotate_refresh_token(rotation(digest, 8, later(902))).await.unwrap();
            assert_eq!(unknown, Rotation::Unknown, "{digest}");
        }
        assert_eq!(store.revocations(later(1000)).await.unwrap(), [(id, later(1001))]);
        assert_eq!(store.revocations(later(1001)).await.unwrap(), []);
    });
}

#[test]
fn of_two_who_show_one_token_at_a_time_one_is_let_in() {
    each(|store| async move {
        let someone = guest("Someone");
        let first = session(someone.id, 1, later(500));
        store.create_user(someone, Some(first)).await.unwrap();
        let both = [2, 3].map(|next| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.rotate_refresh_token(rotation(1, next, NOW)).await })
        });
        let mut rotated = 0;
        let mut reused = 0;
        for one in both {
            match one.await.unwrap().unwrap() {
                Rotation::Rotated { .. } => rotated += 1,
                Rotation::Reused { .. } => reused += 1,
                Rotation::Unknown => {}
            }
        }
        assert_eq!((rotated, reused), (1, 1));
    });
}

#[test]
fn expired_tokens_and_ended_sessions_are_nobodys() {
    each(|store| async move {
        let someone = guest("Someone");
        add(&store, &someone).await;
        let [short, ended] =
            [session(someone.id, 1, later(10)), session(someone.id, 2, later(500))];
        let id = ended.id;
        store.create_session(short).await.unwrap();
        store.create_session(ended).await.unwrap();
        store.revoke_session(id, later(100)).await.unwrap();
        for digest in [1, 2] {
            let unknown = store.rotate_refresh_token(rotation(digest, 9, later(10))).await.unwrap();
            assert_eq!(unknown, Rotation::Unknown);
        }
        assert_eq!(store.revocations(later(50)).await.unwrap(), [(id, later(100))]);
        let nobodys = store.create_session(session(UserId::new(), 5, later(1))).await;
        assert!(matches!(nobodys, Err(StoreError::Conflict(_))), "{nobodys:?}");
    });
}

#[test]
fn a_match_and_its_log_are_read_as_they_were_written() {
    each(|store| async move {
        let [creator, other] = [user("creator"), guest("Other")];
        add(&store, &creator).await;
        add(&store, &other).await;
        let new = new_match("pairs", Visibility::Private, creator.id);
        let id = new.id;
        let mut joined =
            change(id, 1, vec![event(2, Some(1), Some(other.id)), event(3, None, None)]);
        joined.seats = vec![(Seat(1), Some(other.id))];
        joined.snapshot = Some("{\"state\":1}".into());
        // Changes of one match in one batch, as the log gathers them.
        let mut ended = change(id, 3, vec![event(4, Some(1), None)]);
        ended.state = MatchState::Ended;
        let outcome = Outcome { winners: vec![Seat(1)], draw: false, reason: "completed".into() };
        ended.outcome = Some(outcome.clone());
        assert_eq!(append(&store, vec![new, joined, ended]).await, []);

        let record = store.match_record(id).await.unwrap().unwrap();
        assert_eq!((record.seed, record.seats, record.seq), (u64::MAX - 5, 2, 4));
        assert_eq!((record.state, record.outcome), (MatchState::Ended, Some(outcome)));
        assert_eq!(record.snapshot.as_deref(), Some("{\"state\":1}"));
        assert_eq!(record.join_code.as_deref(), Some("CODE"));
        let names: Vec<_> =
            record.players.iter().map(|p| (p.seat, p.display_name.clone())).collect();
        assert_eq!(names, [(Seat(0), Some("Somebody".into())), (Seat(1), Some("Other".into()))]);
        let events = store.events(id, 1, 2).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
        let (joined, third) = (&events[0], &events[1]);
        assert_eq!((joined.user, joined.display_name.as_deref()), (Some(other.id), Some("Other")));
        assert_eq!((third.seat, third.command_id, third.structural), (None, Some(30), false));
        assert_eq!((third.at, &third.event), (later(3), &event(3, None, None).event));
        assert!(store.match_record(MatchId::new()).await.unwrap().is_none());
    });
}

#[test]
fn a_plugin_is_kept_by_its_version() {
    each(|store| async move {
        let code: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        assert_eq!(store.module("1".into()).await.unwrap(), None);
        for given in [&code[..], b"other bytes: the first stay"] {
            store.keep_module("1".into(), given.to_vec()).await.unwrap();
            assert_eq!(store.module("1".into()).await.unwrap().as_ref(), Some(&code));
        }
    });
}

#[test]
fn the_latest_snapshot_of_a_log_is_kept_with_the_change_that_it_includes() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let new = new_match("pairs", Visibility::Public, creator.id);
        let id = new.id;
        let with = |seq, change| MatchChange {
            log_snapshot: Some(Snapshot {
                seq,
                state: format!("{{\"at\":{seq},\"ß\":\"\\u0000\"}}"),
            }),
            ..change
        };
        append(&store, vec![new]).await;
        assert_eq!(store.log_snapshot(id).await.unwrap(), None);
        let [second, third, fourth, fifth] =
            [2, 3, 4, 5].map(|seq| change(id, seq - 1, vec![event(seq, None, None)]));
        let seq = async || store.log_snapshot(id).await.unwrap().map(|snapshot| snapshot.seq);
        let batch = vec![with(2, second), with(3, third), fourth.clone()];
        assert_eq!(append(&store, batch.clone()).await, []);
        assert_eq!(seq().await, Some(3));
        append(&store, vec![with(5, fifth)]).await;
        let snapshot = store.log_snapshot(id).await.unwrap().unwrap();
        assert_eq!(snapshot.state, "{\"at\":5,\"ß\":\"\\u0000\"}");
        // Neither what came before nor what is refused puts another in its place.
        assert_eq!(append(&store, batch).await, []);
        assert_eq!(
            append(&store, vec![with(9, change(id, 8, vec![event(9, None, None)]))]).await,
            [id]
        );
        assert_eq!(seq().await, Some(5));
        assert_eq!(store.log_snapshot(MatchId::new()).await.unwrap(), None);
    });
}

#[test]
fn a_change_that_does_not_follow_is_refused_and_others_are_not() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let [one, two] = [(); 2].map(|()| new_match("pairs", Visibility::Public, creator.id));
        let ids = [one.id, two.id];
        assert_eq!(append(&store, vec![one.clone(), two]).await, []);
        let batch = vec![
            change(ids[0], 7, vec![event(8, None, None)]),
            change(ids[1], 1, vec![event(2, None, None)]),
        ];
        assert_eq!(append(&store, batch).await, [ids[0]]);
        assert_eq!((seqs(&store, ids[0]).await, seqs(&store, ids[1]).await), (vec![1], vec![1, 2]));
        // A number that is there already, of another event, and a match that is.
        let other = EventRecord { at: later(99), ..event(2, None, None) };
        let batch =
            vec![change(ids[1], 2, vec![other]), change(ids[0], 1, vec![event(2, None, None)])];
        assert_eq!(append(&store, batch).await, [ids[1]]);
        let mut again = one;
        again.events[0].at = later(99);
        assert_eq!(append(&store, vec![again]).await, [ids[0]]);
        assert_eq!(
            (seqs(&store, ids[0]).await, seqs(&store, ids[1]).await),
            (vec![1, 2], vec![1, 2])
        );
    });
}

#[test]
fn a_batch_whose_answer_was_lost_is_written_once() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let new = new_match("pairs", Visibility::Public, creator.id);
        let id = new.id;
        let first = vec![new, change(id, 1, vec![event(2, None, None)])];
        let second = vec![change(id, 2, vec![event(3, None, None), event(4, None, None)])];
        // Also once a later batch is there, since several are on their way at a time.
        for batch in [&first, &first, &second, &first, &second] {
            assert_eq!(append(&store, batch.clone()).await, []);
        }
        assert_eq!(seqs(&store, id).await, [1, 2, 3, 4]);
        assert_eq!(store.match_record(id).await.unwrap().unwrap().seq, 4);
    });
}

#[test]
fn batches_follow_each_other_before_they_are_answered() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let new = new_match("pairs", Visibility::Public, creator.id);
        let id = new.id;
        append(&store, vec![new]).await;
        let next = |seq| Arc::new(vec![change(id, seq - 1, vec![event(seq, None, None)])]);
        let mut pipeline = Pipeline::new(Arc::clone(&store));
        let (mut sent, mut answered) = (1, 1);
        while answered < 20 {
            while pipeline.has_room() {
                sent += 1;
                pipeline.send(next(sent)).await;
            }
            assert_eq!(pipeline.answer().await.unwrap().refused, []);
            answered += 1;
        }
        while answered < sent {
            assert_eq!(pipeline.answer().await.unwrap().refused, []);
            answered += 1;
        }
        assert!(seqs(&store, id).await.into_iter().eq(1..=sent));
        // One that fails takes those behind it along; all of them are sent again, in order.
        let gone = EventRecord { at: later(99), ..event(sent, None, None) };
        pipeline.send(Arc::new(vec![change(id, sent, vec![gone])])).await;
        if pipeline.has_room() {
            pipeline.send(next(sent + 1)).await;
        }
        match pipeline.answer().await {
            Err(StoreError::Conflict(_)) => {}
            // A file tells at once whose it is.
            appended => assert_eq!(appended.unwrap().refused, [id]),
        }
        pipeline.send(next(sent + 1)).await;
        assert_eq!(pipeline.answer().await.unwrap().refused, []);
        assert!(seqs(&store, id).await.into_iter().eq(1..=sent + 1));
    });
}

#[test]
fn numbers_that_a_relay_sets_apart_and_gives_back_are_written_once() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let new = new_match("relay", Visibility::Public, creator.id);
        let id = new.id;
        let save = |previous_seq, seq, snapshot: &str| MatchChange {
            seq,
            snapshot: Some(snapshot.into()),
            ..change(id, previous_seq, Vec::new())
        };
        let left = MatchChange { seq: 1000, ..change(id, 1000, vec![event(7, None, None)]) };
        let set_apart = vec![save(1, 1000, "1")];
        let batches = [vec![new], set_apart, vec![left], vec![save(1000, 8, "2")]];
        for _ in 0..2 {
            for batch in &batches {
                assert_eq!(append(&store, batch.clone()).await, []);
                assert_eq!(append(&store, batch.clone()).await, []);
            }
            let record = store.match_record(id).await.unwrap().unwrap();
            assert_eq!((record.seq, record.snapshot.as_deref()), (8, Some("2")));
        }
        assert_eq!(seqs(&store, id).await, [1, 7]);
    });
}

#[test]
fn what_another_epoch_has_written_is_no_answer_that_was_lost() {
    let database = postgres::database();
    let settings = settings(&database.url, true);
    migrate(&settings.url, Migrate::Apply).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let postgres = Postgres::new(&settings).unwrap();
        let [first, second] = [(); 2].map(|()| NodeId::new());
        let creator = guest("Creator");
        let node = NodeRecord { id: first, address: "127.0.0.1:1".into(), certificate: None };
        postgres.add_node(&node, Duration::from_secs(60)).await.unwrap();
        let store = Store::Postgres(postgres);
        let Store::Postgres(postgres) = &store else { unreachable!() };
        add(&store, &creator).await;
        let new = new_match("pairs", Visibility::Public, creator.id);
        let new = MatchChange { node: Some(first), epoch: 1, ..new };
        let batch = vec![new.clone()];
        assert_eq!(append(&store, batch.clone()).await, []);
        assert_eq!(append(&store, batch.clone()).await, []);
        postgres.remove_node(first).await.unwrap();
        assert_eq!(postgres.claim(new.id, second).await.unwrap(), Claim::Mine(2));
        assert_eq!(append(&store, batch).await, [new.id]);
        assert_eq!(seqs(&store, new.id).await, [1]);
    });
}

#[test]
fn who_is_deleted_leaves_matches_that_nobody_in_particular_played() {
    each(|store| async move {
        let [gone, stays] = [user("gone"), guest("Stays")];
        let session = session(gone.id, 1, later(500));
        let session_id = session.id;
        store.create_user(gone.clone(), Some(session)).await.unwrap();
        add(&store, &stays).await;
        let mut new = new_match("pairs", Visibility::Public, gone.id);
        new.seats.push((Seat(1), Some(stays.id)));
        let id = new.id;
        append(&store, vec![new]).await;
        assert_eq!(store.delete_user(gone.id, later(100)).await.unwrap(), [session_id]);
        assert_eq!(store.delete_user(gone.id, later(100)).await.unwrap(), []);
        let record = store.match_record(id).await.unwrap().unwrap();
        assert_eq!((record.players[0].user, &record.players[0].display_name), (None, &None));
        assert_eq!(record.players[1].user, Some(stays.id));
        assert_eq!(store.events(id, 0, 10).await.unwrap()[0].user, None);
        assert_eq!(store.revocations(NOW).await.unwrap(), [(session_id, later(100))]);
        // One who goes while a move is on its way.
        let mut joined = change(id, 1, vec![event(2, Some(0), Some(gone.id))]);
        joined.seats = vec![(Seat(0), Some(gone.id)), (Seat(1), None)];
        assert_eq!(append(&store, vec![joined]).await, []);
        let record = store.match_record(id).await.unwrap().unwrap();
        assert_eq!(record.players.len(), 1);
        assert_eq!((record.players[0].seat, record.players[0].user), (Seat(0), None));
    });
}

#[test]
fn lists_are_filtered_and_paged() {
    each(|store| async move {
        let [me, other] = [user("me"), user("other")];
        add(&store, &me).await;
        add(&store, &other).await;
        let mut ids = Vec::new();
        for (game, visibility, creator) in [
            ("pairs", Visibility::Public, me.id),
            ("relay", Visibility::Public, other.id),
            ("pairs", Visibility::Private, other.id),
            ("pairs", Visibility::Private, me.id),
        ] {
            let new = new_match(game, visibility, creator);
            ids.insert(0, new.id);
            append(&store, vec![new]).await;
        }
        append(&store, vec![change(ids[0], 1, vec![event(2, None, None)])]).await;
        let list = async |filter: MatchFilter| {
            let records = store.matches(me.id, filter).await.unwrap();
            records.iter().map(|record| record.id).collect::<Vec<_>>()
        };
        let all = MatchFilter { limit: 10, ..MatchFilter::default() };
        assert_eq!(list(all.clone()).await, [ids[0], ids[2], ids[3]], "newest first, none hidden");
        assert_eq!(list(MatchFilter { mine: true, ..all.clone() }).await, [ids[0], ids[3]]);
        let game = Some("relay".into());
        assert_eq!(list(MatchFilter { game, ..all.clone() }).await, [ids[2]]);
        let state = Some(MatchState::Running);
        assert_eq!(list(MatchFilter { state, ..all.clone() }).await, [ids[0]]);
        assert_eq!(list(MatchFilter { limit: 1, ..all.clone() }).await, [ids[0]]);
        let before = Some(ids[0]);
        assert_eq!(list(MatchFilter { before, limit: 1, ..all }).await, [ids[2]]);
    });
}

#[test]
fn matches_in_which_nothing_happens_are_found_page_by_page() {
    each(|store| async move {
        let creator = guest("Creator");
        add(&store, &creator).await;
        let mut ids = Vec::new();
        for visibility in [Visibility::Public, Visibility::Public, Visibility::Private] {
            let new = new_match("pairs", visibility, creator.id);
            ids.push(new.id);
            append(&store, vec![new]).await;
        }
        let mut ended = change(ids[0], 1, vec![event(2, None, None)]);
        ended.state = MatchState::Ended;
        append(&store, vec![ended]).await;
        let (open, other) = (later(1), later(0));
        let stale = async |after| store.stale_matches(after, open, other, 10).await.unwrap();
        assert_eq!(stale(None).await, [ids[1]]);
        assert_eq!(store.stale_matches(None, open, open, 1).await.unwrap(), [ids[1]]);
        assert_eq!(store.stale_matches(Some(ids[1]), open, open, 9).await.unwrap(), [ids[2]]);
    });
}

#[test]
fn a_schema_is_brought_up_to_date_once_however_many_begin_at_a_time() {
    let database = postgres::database();
    let url = settings(&database.url, true).url;
    let missing = migrate(&url, Migrate::Check).unwrap_err().to_string();
    assert!(missing.contains("gameserver migrate"), "{missing}");
    let applied: usize = std::thread::scope(|scope| {
        let nodes = [(); 4].map(|()| scope.spawn(|| migrate(&url, Migrate::Apply).unwrap()));
        nodes.into_iter().map(|node| node.join().unwrap()).sum()
    });
    assert!(applied > 0);
    assert_eq!(migrate(&url, Migrate::Apply).unwrap(), 0);
    assert_eq!(migrate(&url, Migrate::Check).unwrap(), 0);
    let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
    let rows = client.query("SELECT version FROM schema_migrations", &[]).unwrap();
    assert_eq!(rows.len(), applied, "each once");
    client.execute("INSERT INTO schema_migrations VALUES (9999)", &[]).unwrap();
    for way in [Migrate::Apply, Migrate::Check] {
        let newer = migrate(&url, way).unwrap_err().to_string();
        assert!(newer.contains("newer server"), "{newer}");
    }
}

#[test]
fn tls_to_the_database_is_as_strict_as_asked() {
    let cluster = postgres::Cluster::start();
    let (address, certificate) = cluster.tls();
    let certificate = certificate.display();
    let encrypted = |query: &str| -> Result<bool, StoreError> {
        let settings = settings(&format!("{address}?{query}"), true);
        migrate(&settings.url, Migrate::Apply)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Store::Postgres(Postgres::new(&settings)?).ping().await })?;
        let mut client = ::postgres::Client::connect(&cluster.url(), ::postgres::NoTls).unwrap();
        let row = client.query_one(
            "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'gameserver'",
            &[],
        );
        Ok(row.unwrap().get::<_, Option<bool>>(0).unwrap_or(false))
    };
    assert!(!encrypted("sslmode=disable").unwrap());
    assert!(encrypted("sslmode=require").unwrap());
    assert!(encrypted(&format!("sslmode=verify-full&sslrootcert={certificate}")).unwrap());
    // Another's certificate, and one that leads to no root that browsers trust.
    let other = postgres::Cluster::start();
    let others = other.tls().1;
    let wrong = format!("sslmode=verify-full&sslrootcert={}", others.display());
    for query in [wrong.as_str(), "sslmode=verify-full", "sslmode=verify-full&sslrootcert=/none"] {
        assert!(encrypted(query).is_err(), "{query}");
    }
}
