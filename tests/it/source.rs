//! The invariants of `src/lib.rs` that can be read from the source.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::gameserver;

/// The rooms, each below those before it.
const ROOMS: &[&str] = &[
    "cli",
    "serve",
    "observability",
    "http",
    "session",
    "users",
    "matches",
    "plugins",
    "cluster",
    "config",
    "protocol",
    "store",
    "auth",
    "ratings",
    "games",
    "web",
    "tls",
    "vital",
    "telemetry",
    "platform",
    "ids",
    // Uses none of them, and none of them it.
    "operator",
];

/// Every source file: its room and its text.
fn sources() -> Vec<(PathBuf, String, String)> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    assert!(paths.len() > 40, "{}", paths.len());
    let room = |path: &Path| {
        let first = path.strip_prefix(&src).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.clone(), room(&path), text)
        })
        .collect()
}

/// Lines that are code, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

#[test]
fn target_cfg_stands_under_platform_alone() {
    const TARGETS: &[&str] = &["target_", "unix", "windows"];
    let mut under_platform = 0;
    for (path, room, text) in sources() {
        for (number, line) in code(&text) {
            let cfg = line.split_once("cfg(").or_else(|| line.split_once("cfg_attr("));
            let Some((_, condition)) = cfg.or_else(|| line.split_once("cfg!(")) else { continue };
            if TARGETS.iter().any(|target| condition.contains(target)) {
                assert_eq!(room, "platform", "{}:{number}: {line}", path.display());
                under_platform += 1;
            }
        }
    }
    assert!(under_platform > 0, "this test finds nothing any more");
}

#[test]
fn rooms_depend_downwards_alone() {
    let rank = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut seen = 0;
    for (path, room, text) in sources() {
        let Some(own) = rank(&room) else {
            assert!(["lib", "bin"].contains(&room.as_str()), "{room} is no known room");
            continue;
        };
        for (number, line) in code(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let place = format!("{}:{number}: {line}", path.display());
                let used_rank = rank(&used).unwrap_or_else(|| panic!("{used:?}? {place}"));
                assert!(used_rank >= own, "{room} must not know {used}: {place}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "this test finds nothing any more");
}

#[test]
fn nothing_is_unbounded_or_unsafe() {
    for (path, room, text) in sources() {
        for (number, line) in code(&text) {
            let place = format!("{}:{number}: {line}", path.display());
            for word in ["unbounded", "mpsc::channel()"] {
                assert!(!line.contains(word), "{place}");
            }
            assert!(room == "platform" || !line.contains("unsafe"), "{place}");
        }
    }
}

#[test]
fn pure_rooms_do_no_io() {
    const IO: &[&str] = &["tokio::", "std::net", "std::fs", "SystemTime::now", "Instant::now"];
    for (path, room, text) in sources() {
        if !["games", "protocol", "ratings", "auth"].contains(&room.as_str()) {
            continue;
        }
        for (number, line) in code(&text) {
            let io = IO.iter().find(|word| line.contains(**word));
            assert_eq!(io, None, "{}:{number}: {line}", path.display());
        }
    }
}

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let help = String::from_utf8(gameserver().arg("help").output().unwrap().stdout).unwrap();
    let mut settings = 0;
    for line in help.lines().map(str::trim).filter(|line| line.starts_with("GAMESERVER_")) {
        let (name, default) = line.split_once(" = ").unwrap_or((line, ""));
        if name.contains(' ') {
            continue;
        }
        let row = readme.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README"));
        assert!(row.contains(default), "{row} lacks {default}");
        settings += 1;
    }
    let rows = readme.lines().filter(|row| row.starts_with("| `GAMESERVER_")).count();
    assert_eq!(settings, rows, "the README has settings that there are not");
}
