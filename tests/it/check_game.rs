//! `gameserver check-game`: what it says of modules that are as they should be, and of those that aren't.

use std::fs;
use std::path::Path;

use crate::games::{PLUGINS, file, folder};
use crate::harness::gameserver;
use crate::wat::{COUNT, Module};

/// Exit code, stdout and stderr for a file.
fn check(file: &Path) -> (Option<i32>, String, String) {
    let output = gameserver().arg("check-game").arg(file).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The same for a module.
fn check_module(module: &Module) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("count.wasm");
    fs::write(&file, module.bytes()).unwrap();
    check(&file)
}

/// What is said of a good module.
#[track_caller]
fn report(module: &Module) -> String {
    let (code, report, errors) = check_module(module);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{report}");
    report
}

/// What is wrong with a module.
#[track_caller]
fn wrong(module: &Module, expected: &str) {
    let (code, report, errors) = check_module(module);
    assert_eq!((code, report.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.starts_with("gameserver: ") && errors.contains(expected), "{errors}");
}

/// The same, found in a match.
#[track_caller]
fn caught(module: &Module, expected: &str) {
    wrong(module, expected);
    wrong(module, "in a match of ");
    wrong(module, "with the seed ");
}

fn in_ticks(module: Module) -> Module {
    let module = module.info("\"mode\":\"turns\"", "\"mode\":\"ticks\",\"tick_hz\":20");
    module.with("tick", "")
}

#[test]
fn a_good_game_is_described_and_measured() {
    let module = Module::new();
    let report = report(&module);
    assert!(report.starts_with("count: Count\n"), "{report}");
    let bytes = format!("{} bytes", module.bytes().len());
    for part in [
        "mode      turns",
        "players   1 to 3",
        &bytes,
        "matches   200, of which 200 came",
        "memory    131072 bytes",
        "views     3 bytes",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let version = report.lines().find_map(|line| line.strip_prefix("version   ")).unwrap();
    assert!(version.len() == 64 && version.bytes().all(|byte| byte.is_ascii_hexdigit()));
    for function in ["start", "decide", "apply", "leave", "view", "outcome", "snapshot", "restore"]
    {
        let row = report.lines().find(|line| line.starts_with(&format!("{function} ")));
        let row: Vec<_> =
            row.unwrap_or_else(|| panic!("{function}: {report}")).split(' ').collect();
        assert!(row.ends_with(&["%"]), "{row:?}");
    }
    assert!(!report.contains("warning"), "{report}");
}

#[test]
fn what_a_game_lacks_is_said_and_no_error() {
    let dull = report(&Module::new().without("commands"));
    assert!(dull.contains("warning: it exports no commands"), "{dull}");
    let ticks = in_ticks(Module::new()).info("\"one_view\":true", "\"one_view\":false");
    let ticks = report(&ticks);
    assert!(ticks.contains("mode      ticks, 20 a second"), "{ticks}");
    assert!(ticks.contains("warning: ") && ticks.contains("one_view"), "{ticks}");
    let stubborn = Module::new().gives("decide", r#"{"refused":"not_your_turn"}"#);
    assert!(report(&stubborn).contains("warning: each command was refused"));
}

#[test]
fn the_example_games_are_good() {
    for (name, _) in PLUGINS {
        let (code, report, errors) = check(&file(folder(), name));
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{name}: {report}");
        assert!(!report.contains("warning"), "{report}");
    }
}

#[test]
fn what_is_no_game_is_refused_as_the_server_would() {
    let dir = tempfile::tempdir().unwrap();
    let good = Module::new().bytes();
    for (name, code, expected) in [
        ("count.txt", &good[..], "called NAME.wasm"),
        ("Count.wasm", &good, "a game's name, and so the file's, is 1 to 32 of a-z, 0-9 and -"),
        ("tictactoe.wasm", &good, "the server has a game tictactoe of its own"),
        ("text.wasm", b"(module)", "magic"),
        ("short.wasm", &good[..good.len() - 1], "unexpected end"),
        ("large.wasm", &vec![0; 4 * 1024 * 1024 + 1], "4194304 at most"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, code).unwrap();
        let (code, report, errors) = check(&file);
        assert_eq!((code, report.as_str(), errors.lines().count()), (Some(1), "", 1), "{errors}");
        assert!(errors.contains(name) && errors.contains(expected), "{errors}");
    }
    let (code, _, errors) = check(&dir.path().join("missing.wasm"));
    assert!(code == Some(1) && errors.contains("missing.wasm: No such file"), "{errors}");
    let none = gameserver().arg("check-game").output().unwrap();
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

#[test]
fn a_match_that_fails_is_told_with_its_seed_and_command() {
    let trap = Module::new()
        .first("apply", "(if (i32.eq (global.get $count) (i32.const 3)) (then unreachable))");
    caught(&trap, "apply: it gives up (unreachable)");
    wrong(&trap, "the event 1 of seat ");
    let endless = Module::new().first("decide", "(if (global.get $count) (then (loop (br 0))))");
    caught(&endless, "decide: it takes more than 20000000 units of fuel");
    wrong(&endless, "sends ");
    let picky = Module::new().with(
        "start",
        "(drop (i32.div_u (i32.const 1)
        (i32.eq (local.get $length) (i32.const 26)))) (i64.const 0)",
    );
    caught(&picky, "start: ");
}

#[test]
fn what_the_sandbox_stops_is_told() {
    let random = || {
        let drawn = "(import \"gameserver\" \"random\" (func $random (result i64)))";
        Module::new().imports(drawn)
    };
    let add = "(global.set $count (i32.add (global.get $count)
        (i32.wrap_i64 (i64.rem_u (call $random) (i64.const 3)))))";
    // What comes from the match's seed comes again.
    report(&random().first("apply", add).first("start", "(drop (call $random))"));
    let peeks = random().first("decide", "(drop (call $random))");
    caught(&peeks, "decide: random is for start, apply, tick and leave alone");
    caught(&Module::new().gives_later("view", "[1"), "view: not what is expected: EOF");
    let large = Module::new().memory("(memory (export \"memory\") 257)");
    wrong(&large, "it can't be started: ");
}

/// A sandbox has neither clock nor chance, so what is asked and what was kept are all that is left.
#[test]
fn what_depends_on_more_than_the_log_is_caught() {
    const COUNT_UP: &str = "(global.set $count (i32.add (global.get $count) (i32.const 1)))";
    const HIDDEN: &str = "(global $hidden (mut i32) (i32.const 0))";
    const HIDE: &str = "(global.set $hidden (i32.add (global.get $hidden) (i32.const 1)))";
    const SHOW: &str = "(global.set $count (i32.add (global.get $count)
        (i32.rem_u (global.get $hidden) (i32.const 2))))";
    let hidden = || Module::new().more(HIDDEN);

    caught(&Module::new().first("view", COUNT_UP), "view, outcome or snapshot changes something");
    caught(&Module::new().first("decide", COUNT_UP), "decide changes something: after it");
    caught(&Module::new().first("commands", COUNT_UP), "commands changes something: after it");
    caught(&Module::new().first("outcome", COUNT_UP), "changes something: after it, the view of");
    caught(&Module::new().first("snapshot", COUNT_UP), "changes something: after it, the view of");
    let audience = Module::new().with("audience", format!("{COUNT_UP} (i64.const 0)"));
    caught(&audience, "audience changes something: after it");

    // It shows only once there is an event.
    let decides = hidden().first("decide", HIDE).first("apply", HIDE).first(
        "apply",
        "(if (i32.gt_u
        (global.get $hidden) (i32.const 3)) (then (global.set $count (i32.const 7))))",
    );
    caught(
        &decides,
        "decide, commands or audience changes something: in a match that was not asked",
    );
    let views = hidden().first("view", HIDE).first("leave", SHOW).first("apply", SHOW);
    caught(&views, "the view of seat 0 is");

    // What a snapshot leaves out is missed at once, or when it matters.
    caught(
        &Module::new().with("restore", "(i32.const 1)"),
        "snapshot or restore leaves something out: restored, the view of seat 0 is",
    );
    let forgets = hidden().first("apply", HIDE).first("leave", SHOW);
    caught(
        &forgets,
        "snapshot does not keep everything: in a match restored from one, the view of",
    );
    caught(
        &Module::new().with("restore", "(i32.const 0)"),
        "restore does not take what snapshot gave",
    );

    let mut fickle = hidden();
    let refused = fickle.text(r#"{"refused":"illegal_move","detail":"no"}"#);
    let now_and_then =
        format!("(if (i32.and (global.get $hidden) (i32.const 1)) (then (return {refused})))");
    let fickle = fickle.first("decide", &now_and_then).first("decide", HIDE);
    caught(&fickle, "decide changes something: asked again, it gives");
}

#[test]
fn what_contradicts_itself_is_caught() {
    // Over at three, and not at four.
    let mut flickers = Module::new();
    let over = flickers.text(r#"{"winners":[],"draw":true,"reason":"completed"}"#);
    let flickers = flickers.gives("decide", r#"{"events":[1,1]}"#).first(
        "outcome",
        &format!("(if (i32.eq (global.get $count) (i32.const 3)) (then (return {over})))"),
    );
    caught(&flickers, "an outcome that was given must stay: now it is\n  0\nand not\n  Outcome");

    let seats = COUNT.replace("(global.get $count)", "(local.get $seat)");
    caught(&Module::new().with("view", &seats), "one_view is true, and the view of a spectator is");

    let mut moody = Module::new();
    let told = moody.text(r#"{"except":0}"#);
    let moody = moody.with(
        "audience",
        format!("(if (result i64) (global.get $count) (then {told}) (else (i64.const 0)))"),
    );
    caught(&moody, "audience depends on more than the event");

    let apart = Module::new().info("\"one_view\":true", "\"one_view\":false").with("view", seats);
    assert!(report(&apart).contains("warning: views differ, and it exports no audience"));
}
