//! Everything is carried from one store to another, whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gameserver::store::sqlite::Sqlite;
use gameserver::store::transfer::{KEY_FILE, Place, Report, TransferError, backup, copy, restore};
use gameserver::store::{MatchChange, Store, Visibility};
use rusqlite::Connection;

use super::{NOW, add, event, guest, later, new_match, session, user};
use crate::postgres;
use crate::ratings::played;

/// Matches in a store that is filled.
const MATCHES: u64 = 20;
/// Events in each.
const EVENTS: u64 = 30;

fn place(dir: &Path) -> Place {
    Place::Sqlite { file: dir.join("gameserver.db"), data_dir: Some(dir.to_owned()) }
}

fn server(database: &postgres::Database) -> Place {
    Place::Postgres(database.url.parse().unwrap())
}

/// A directory with a store that holds something of everything, and a key.
fn filled() -> (tempfile::TempDir, Place) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gameserver.db");
    let store = Store::Sqlite(Sqlite::open(&file).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let players = [guest("Zoë 🎲 \u{202e}"), user("Ärger")];
        for player in &players {
            add(&store, player).await;
        }
        for digest in 0..10 {
            let session = session(players[1].id, digest, later(1_000_000));
            store.create_session(session.clone()).await.unwrap();
            if digest > 7 {
                store.revoke_session(session.id, later(500)).await.unwrap();
            }
        }
        for number in 0..MATCHES {
            let mut change = new_match("tictactoe", Visibility::Private, players[0].id);
            change.seq = EVENTS;
            change.events = (1..=EVENTS)
                .map(|seq| {
                    event(seq, (seq % 3 > 0).then_some(1), (seq == 1).then_some(players[0].id))
                })
                .collect();
            change.snapshot = (number % 2 == 0).then(|| "{\"ß\":\"\\u0000\"}".to_owned());
            let appended = store.append(Arc::new(vec![MatchChange { at: NOW, ..change }])).await;
            assert!(appended.unwrap().refused.is_empty());
        }
        store.keep_module("a version".into(), b"\0asm\xFF".to_vec()).await.unwrap();
        let rated = played(&[players[0].id, players[1].id], &[1]);
        assert_eq!(store.append(Arc::new(rated)).await.unwrap().ratings.len(), 1);
    });
    store.close();
    let db = Connection::open(&file).unwrap();
    db.execute("UPDATE matches SET seed = -9223372036854775808 WHERE game = 'tictactoe'", [])
        .unwrap();
    db.execute("UPDATE refresh_tokens SET spent = 1 WHERE digest < x'05'", []).unwrap();
    drop(db);
    std::fs::write(dir.path().join(KEY_FILE), "a key\n").unwrap();
    let place = place(dir.path());
    (dir, place)
}

/// All rows of a file as SQLite writes them, read without the code under test.
fn dump(place: &Place) -> Vec<String> {
    let Place::Sqlite { file, .. } = place else { panic!("no file") };
    let db = Connection::open(file).unwrap();
    let mut lines = Vec::new();
    for table in [
        "users",
        "sessions",
        "refresh_tokens",
        "revocations",
        "matches",
        "match_players",
        "match_events",
        "modules",
        "ratings",
        "rating_counts",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|place| format!("{:?}", row.get_ref(place).unwrap()));
            lines.push(format!("{table} {}", values.collect::<Vec<_>>().join(" ")));
        }
    }
    assert!(lines.len() > 600, "{}", lines.len());
    lines
}

fn rows(report: &Report, table: &str) -> u64 {
    report.tables.iter().find(|(name, ..)| *name == table).unwrap().1
}

#[test]
fn everything_comes_to_postgres_and_back() {
    let (_from, from) = filled();
    let database = postgres::database();
    let back = tempfile::tempdir().unwrap();
    let there = copy(&from, &server(&database)).unwrap();
    for (table, count) in [
        ("users", 2),
        ("modules", 1),
        ("matches", MATCHES + 1),
        ("match_events", MATCHES * EVENTS + 2),
        ("ratings", 2),
    ] {
        assert_eq!(rows(&there, table), count, "{table}");
    }
    let home = copy(&server(&database), &place(back.path())).unwrap();
    assert_eq!(there.tables, home.tables);
    assert_eq!(dump(&from), dump(&place(back.path())));
    assert_eq!(std::fs::read(back.path().join(KEY_FILE)).unwrap(), b"a key\n");
    let again = copy(&place(back.path()), &server(&database)).unwrap_err();
    assert!(matches!(again, TransferError::NotEmpty("users")), "{again}");
    let again = copy(&from, &place(back.path())).unwrap_err();
    assert!(matches!(again, TransferError::NotEmpty("users")), "{again}");
}

#[test]
fn a_backup_is_restored_into_either_store() {
    let (dir, from) = filled();
    let file = dir.path().join("backup");
    let written = backup(&from, &file).unwrap();
    assert!(backup(&from, &file).is_err(), "a file that is there is never written over");
    let database = postgres::database();
    assert_eq!(restore(&file, &server(&database)).unwrap().tables, written.tables);
    let second = dir.path().join("second");
    assert_eq!(backup(&server(&database), &second).unwrap().tables, written.tables);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(restore(&second, &place(empty.path())).unwrap().tables, written.tables);
    let beside = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
    let partial = |path: &PathBuf| path.to_string_lossy().ends_with(".partial");
    assert_eq!(beside.filter(partial).count(), 0);
}

#[test]
fn a_cut_or_changed_backup_changes_nothing() {
    let (dir, from) = filled();
    let file = dir.path().join("backup");
    backup(&from, &file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let (empty, database) = (tempfile::tempdir().unwrap(), postgres::database());
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = [1, 9, whole.len() / 4].map(|less| whole[..whole.len() - less].to_vec());
    for bytes in cut.into_iter().chain([
        flipped,
        [&whole[..], b"more"].concat(),
        Vec::new(),
        b"no backup".to_vec(),
    ]) {
        std::fs::write(&file, bytes).unwrap();
        for target in [place(empty.path()), server(&database)] {
            let error = restore(&file, &target).unwrap_err();
            assert!(matches!(error, TransferError::Backup(_)), "{error}");
        }
        assert!(!empty.path().join(KEY_FILE).exists());
    }
    std::fs::write(&file, whole).unwrap();
    for target in [place(empty.path()), server(&database)] {
        restore(&file, &target).unwrap();
    }
}
