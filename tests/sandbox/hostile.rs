//! Modules that are broken, or mean harm: each is refused, or ends its own match, with a clear text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gameserver::games::wasm::Plugin;
use gameserver::games::wasm::interface::{
    COMMAND_BYTES_MAX, EVENT_BYTES_MAX, EXPORTS, EXPORTS_MAX, LINE_BYTES_MAX, LINES_MAX,
    MODULE_BYTES_MAX, TEXT_DEPTH_MAX,
};
use gameserver::games::{Audience, Game, Leaving, Refusal, Seat, SeatSet, Viewer};
use proptest::prelude::*;

use crate::wat::{COUNT, Module};
use crate::{raw, start};

/// How long anything may take that is bounded by fuel: far more than it does.
const PATIENCE: Duration = Duration::from_secs(20);

fn load(module: &Module) -> Result<Arc<Plugin>, String> {
    Plugin::load("count", &module.bytes()).map(Arc::new)
}

/// Why a module is refused.
#[track_caller]
fn refused(module: &Module, expected: &str) {
    let began = Instant::now();
    let why = load(module).err().unwrap_or_else(|| panic!("it is taken: {}", module.wat()));
    assert!(why.contains(expected), "{why}");
    assert!(!why.contains(char::is_control) && why.len() < 2000, "{why:?}");
    assert!(began.elapsed() < PATIENCE, "{why}: {:?}", began.elapsed());
}

/// Calls one of a match's functions.
fn call(game: &mut dyn Game, function: &str) {
    let seat = Seat(0);
    match function {
        "decide" => drop(game.decide(seat, &raw("1"))),
        "apply" => game.apply(Some(seat), &raw("1")),
        "leave" => game.leave(seat, Leaving::Resigned),
        "tick" => game.tick(),
        "view" => drop(game.view(Viewer::Spectator)),
        "outcome" => drop(game.outcome()),
        "audience" => drop(game.audience(Some(seat), &raw("1"))),
        "snapshot" => drop(game.snapshot()),
        "restore" => drop(game.restore(&raw(r#"{"random":1,"state":"b"}"#))),
        other => panic!("{other}"),
    }
}

const CALLED: [&str; 9] =
    ["decide", "apply", "leave", "tick", "view", "outcome", "audience", "snapshot", "restore"];
const GIVING: [&str; 5] = ["decide", "view", "outcome", "audience", "snapshot"];

/// Why a match fails when `function` is called after an event; another match of it goes on.
#[track_caller]
fn fails(module: &Module, function: &str, expected: &str) {
    let plugin = load(module).unwrap_or_else(|why| panic!("{why}: {}", module.wat()));
    let (mut game, mut other) = (start(&plugin), start(&plugin));
    game.apply(Some(Seat(0)), &raw("1"));
    assert_eq!(game.failure(), None, "{}", module.wat());
    let began = Instant::now();
    call(&mut *game, function);
    assert!(began.elapsed() < PATIENCE, "{function}: {expected}: {:?}", began.elapsed());
    let why = game.failure().unwrap_or_else(|| panic!("{function} goes on: {}", module.wat()));
    assert!(why.contains(expected), "{function}: {why}");
    assert!(why.starts_with(function) || expected.contains("alloc"), "{function}: {why}");
    assert!(!why.contains(char::is_control) && why.len() < 2000, "{why:?}");

    assert!(game.outcome().is_some_and(|outcome| outcome.reason == "failed"));
    assert_eq!(game.decide(Seat(0), &raw("1")).unwrap_err(), Refusal::Failed);
    for function in CALLED {
        call(&mut *game, function);
    }
    assert_eq!((game.view(Viewer::Spectator).get(), game.failure()), ("null", Some(why)));
    assert_eq!(other.view(Viewer::Spectator).get(), "\"a\"");
    assert_eq!(other.decide(Seat(1), &raw("1")).unwrap().len(), 1);
    other.apply(Some(Seat(1)), &raw("1"));
    assert_eq!(other.failure(), None);
}

/// The game with everything that it can import and export.
fn whole() -> Module {
    Module::new()
        .imports("(import \"gameserver\" \"random\" (func $random (result i64)))")
        .imports("(import \"gameserver\" \"log\" (func $log (param i32 i32)))")
        .more("(func $deep (call $deep))")
        .with("tick", "")
        .with("audience", "(i64.const 0)")
        .with("_initialize", "")
}

/// It does this in a function, once there was an event.
fn later(function: &'static str, body: &str) -> Module {
    whole().first(function, &format!("(if (global.get $count) (then {body}))"))
}

#[test]
fn what_stops_a_function_ends_its_match_alone() {
    for function in CALLED {
        for (body, expected) in [
            ("(loop (br 0))", "it takes more than 20000000 units of fuel"),
            ("unreachable", "it gives up (unreachable)"),
            ("(call $deep)", "stack"),
            ("(drop (i32.load (i32.const -4)))", "out of bounds"),
            ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
            ("(call $log (i32.const -8) (i32.const 16))", "log: there is no such memory"),
            ("(call $log (i32.const 8) (i32.const -1))", "log: there is no such memory"),
        ] {
            fails(&later(function, body), function, expected);
        }
        if !["apply", "leave", "tick"].contains(&function) {
            let drawn = later(function, "(drop (call $random))");
            fails(&drawn, function, "random is for start, apply, tick and leave alone");
        }
    }
}

#[test]
fn what_stops_a_module_from_beginning_is_told() {
    const LOOP: (&str, &str) = ("(loop (br 0))", "units of fuel");
    const TRAP: (&str, &str) = ("unreachable", "it gives up (unreachable)");
    for (body, expected) in [LOOP, TRAP, ("(call $deep)", "stack")] {
        for function in
            ["_initialize", "interface_version", "info", "start", "alloc", "view", "outcome"]
        {
            refused(&whole().first(function, body), expected);
        }
        let begins = format!("(func $begins {body}) (start $begins)");
        refused(&whole().more(&begins), expected);
        refused(&whole().more(&begins), "it can't be started");
    }
    for function in ["_initialize", "interface_version", "info", "view"] {
        refused(&whole().first(function, "(drop (call $random))"), "random is for start");
    }
}

#[test]
fn texts_that_are_none_are_not_believed() {
    for function in GIVING {
        for (answer, expected) in [
            ("0x7fffffff_00000010", "it has no 16 bytes at 2147483647"),
            ("0xffffffff_00000010", "it has no 16 bytes at 4294967295"),
            ("0x0001fffd_00000004", "it has no 4 bytes at 131069"),
            ("-1", "it gives 4294967295 bytes; 262144 at most"),
            ("0x00000000_00040001", "it gives 262145 bytes; 262144 at most"),
            ("0x00000008_00000000", "not what is expected: EOF"),
        ] {
            let answer = format!("(return (i64.const {answer}))");
            fails(&later(function, &answer), function, expected);
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        for (text, expected) in [
            (&b"\"\xff\xfe\""[..], "no UTF-8"),
            (b"\"\x1b[2J\"", "not what is expected: control character"),
            (b"{\"only\":[1", "not what is expected"),
            (b"[1],", "not what is expected"),
            (deep.as_bytes(), "JSON of more than 64 levels"),
        ] {
            fails(&whole().gives_later(function, text), function, expected);
        }
    }
    let deepest = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let plugin = load(&Module::new().gives_later("view", &deepest)).unwrap();
    let mut game = start(&plugin);
    game.apply(None, &raw("1"));
    assert_eq!(game.view(Viewer::Spectator).get(), deepest);
}

#[test]
fn answers_of_another_form_are_not_believed() {
    let events = |count: usize| format!(r#"{{"events":[{}]}}"#, vec!["1"; count].join(","));
    let long = format!(r#"{{"\u001b\n{}":1}}"#, "x".repeat(10_000));
    for (function, answer, expected) in [
        ("decide", &*events(0), "it gives 0 events; 1 to 64 may follow"),
        ("decide", &events(65), "it gives 65 events; 1 to 64 may follow"),
        ("decide", "{}", "either events or refused"),
        ("decide", r#"{"events":[1],"refused":"bad_command"}"#, "either events or refused"),
        ("decide", r#"{"refused":"because"}"#, "unknown variant `because`"),
        ("decide", r#"{"events":[1],"seed":1}"#, "unknown field `seed`"),
        ("decide", r#"{"events":{}}"#, "invalid type"),
        ("decide", "7", "invalid type"),
        ("decide", &long, "unknown field `"),
        ("outcome", r#"{"winners":[1,0],"draw":false,"reason":"x"}"#, "in rising order"),
        ("outcome", r#"{"winners":[0,0],"draw":false,"reason":"x"}"#, "in rising order"),
        ("outcome", r#"{"winners":[2],"draw":false,"reason":"x"}"#, "seats of the match"),
        ("outcome", r#"{"winners":[-1],"draw":false,"reason":"x"}"#, "not what is expected"),
        ("outcome", r#"{"winners":[256],"draw":false,"reason":"x"}"#, "not what is expected"),
        ("outcome", r#"{"winners":[0],"draw":true,"reason":"x"}"#, "nobody wins a draw"),
        ("outcome", r#"{"winners":[],"draw":true,"reason":""}"#, "a word of 1 to 32"),
        ("outcome", r#"{"winners":[],"draw":true,"reason":"no way"}"#, "a word of 1 to 32"),
        ("outcome", r#"{"winners":[],"draw":true}"#, "missing field `reason`"),
        ("outcome", "null", "not what is expected"),
        ("audience", r#"{"except":256}"#, "not what is expected"),
        ("audience", r#"{"only":1}"#, "not what is expected"),
        ("audience", r#"{"except":1,"only":[0]}"#, "not what is expected"),
        ("audience", "{}", "not what is expected"),
    ] {
        fails(&whole().gives_later(function, answer), function, expected);
    }
}

#[test]
fn seats_that_there_are_not_hear_nothing() {
    let heard = |text: &str| {
        let plugin = load(&whole().gives("audience", text)).unwrap();
        start(&plugin).audience(None, &raw("1"))
    };
    let first = SeatSet::default().with(Seat(0));
    assert_eq!(heard(r#"{"only":[0,64,255]}"#), Audience::Only(first));
    assert_eq!(heard(r#"{"only":[]}"#), Audience::Only(SeatSet::default()));
    assert!(heard(r#"{"except":255}"#).includes(Viewer::Seat(Seat(63))));
}

#[test]
fn rooms_for_texts_are_looked_at() {
    for (address, expected) in [
        ("-1", "alloc has no 1 bytes at -1"),
        ("-2147483648", "alloc has no 1 bytes at -2147483648"),
        ("131072", "alloc has no 1 bytes at 131072"),
    ] {
        let alloc = format!("(return (i32.const {address}))");
        for function in ["decide", "apply", "audience"] {
            fails(&later("alloc", &alloc), function, expected);
        }
        refused(&whole().first("alloc", &alloc), "alloc has no");
    }
    fails(&later("alloc", "(loop (br 0))"), "decide", "units of fuel");
    // Address 0 is as good as any.
    let mut game = start(&load(&later("alloc", "(return (i32.const 0))")).unwrap());
    game.apply(None, &raw("1"));
    assert!(game.decide(Seat(0), &raw("1")).is_ok());
}

#[test]
fn memory_and_tables_end_at_their_bounds() {
    // The letter tells how much there is: 256 pages, and 9 steps of 1,000 after the first element.
    let grows = |kind: &str, by: u32, shown: u32| {
        format!(
            "(loop (br_if 0 (i32.ne (i32.const -1) ({kind}.grow {} (i32.const {by})))))
             (global.set $count (i32.div_u ({kind}.size) (i32.const {shown})))",
            if kind == "table" { "(ref.null func)" } else { "" }
        )
    };
    for (body, letter) in [(grows("memory", 1, 16), "\"q\""), (grows("table", 1000, 1000), "\"j\"")]
    {
        let module = Module::new().more("(table 1 funcref)").with("apply", body);
        let mut game = start(&load(&module).unwrap());
        game.apply(None, &raw("1"));
        assert_eq!((game.failure(), game.view(Viewer::Spectator).get()), (None, letter));
    }
    let memory = |memory: &str| Module::new().memory(memory);
    refused(&memory("(memory (export \"memory\") 257)"), "it can't be started");
    refused(&memory("(memory (export \"memory\") 65536)"), "it can't be started");
    refused(&Module::new().more("(table 10001 funcref)"), "it can't be started");
    refused(&Module::new().more(&"(table 1 funcref)".repeat(5)), "it can't be started");
    refused(&Module::new().more("(data (i32.const 131072) \"x\")"), "it can't be started");
}

#[test]
fn what_takes_long_takes_fuel() {
    let locals = "(local i64 i64 i64 i64 i64 i64 i64 i64)".repeat(125);
    let more = format!("(func {locals} (local (ref null func)) (local i32))");
    refused(&Module::new().more(&more), "a function has 1002 locals; 1000 at most");
    for (more, body) in [
        ("", "(memory.fill (i32.const 0) (i32.const 0) (i32.const 131072))"),
        ("", "(memory.copy (i32.const 0) (i32.const 1) (i32.const 131071))"),
        ("", "(call $log (i32.const 0) (i32.const 131072))"),
        ("", "(drop (call $random))"),
        ("", "(drop (memory.grow (i32.const 0)))"),
        ("(table 10000 funcref)", "(table.fill (i32.const 0) (ref.null func) (i32.const 10000))"),
        ("(func $f)", "(call $f)"),
        (&format!("(func $f {locals})"), "(call $f)"),
    ] {
        let module = later("apply", &format!("(loop {body} (br 0))")).more(more);
        fails(&module, "apply", "units of fuel");
    }
}

#[test]
fn logs_are_cut() {
    let flood = "(local $n i32) (loop (call $log (i32.const 0) (i32.const 4000))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if 0 (i32.lt_u (local.get $n) (i32.const 1000))))";
    let mut game = start(&load(&whole().with("apply", flood)).unwrap());
    game.apply(None, &raw("1"));
    let lines = game.take_lines();
    assert_eq!((lines.len(), game.failure()), (LINES_MAX, None));
    for line in lines {
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains(char::is_control), "{line:?}");
        assert!(line.contains("\"a\""));
    }
    assert!(game.take_lines().is_empty());
}

#[test]
fn junk_is_not_restored() {
    let picky = whole().first(
        "restore",
        "(if (i32.ne (local.get $length) (i32.const 3)) (then (return (i32.const 2))))",
    );
    let mut game = start(&load(&picky).unwrap());
    for junk in [
        "null",
        "[]",
        r#"{"state":"b"}"#,
        r#"{"random":-1,"state":"b"}"#,
        r#"{"random":1,"state":"b","more":1}"#,
        r#"{"random":1,"state":"long"}"#,
    ] {
        assert!(game.restore(&raw(junk)).is_err(), "{junk}");
        assert_eq!((game.failure(), game.view(Viewer::Spectator).get()), (None, "\"a\""), "{junk}");
    }
    game.restore(&raw(r#"{"random":1,"state":"b"}"#)).unwrap();
    assert_eq!(game.view(Viewer::Spectator).get(), "\"b\"");
}

#[test]
fn exports_and_imports_are_those_of_the_interface() {
    for function in EXPORTS {
        if function.required {
            let missing = format!("it doesn't export {}(", function.name);
            refused(&Module::new().without(function.name), &missing);
        }
        let name = function.name;
        let without = Module::new().without(name);
        let wrong = format!("(func (export {name:?}) (param f32) (result f64) (f64.const 0))");
        let expected = format!("export {name}: it is (f32) -> f64, and should be {name}(");
        refused(&without.more(&wrong), &expected);
        let global = format!("(global (export {name:?}) i32 (i32.const 0))");
        refused(&Module::new().without(name).more(&global), "it is no function");
    }
    refused(&Module::new().memory("(memory 2)"), "it exports no memory called \"memory\"");
    let no_memory = Module::new().memory("(memory 2) (func (export \"memory\"))");
    refused(&no_memory, "it exports no memory called \"memory\"");
    for function in ["snapshot", "restore"] {
        refused(&Module::new().without(function), "one of snapshot and restore");
    }
    for import in [
        "(import \"wasi_snapshot_preview1\" \"clock_time_get\"
            (func (param i32 i64 i32) (result i32)))",
        "(import \"env\" \"abort\" (func (param i32 i32 i32 i32)))",
        "(import \"gameserver\" \"time\" (func (result i64)))",
        "(import \"env\" \"random\" (func (result i64)))",
    ] {
        refused(
            &Module::new().imports(import),
            "a game may import gameserver.random and gameserver.log, and nothing else",
        );
    }
    let memory = "(import \"env\" \"memory\" (memory 1)) (export \"memory\" (memory 0))";
    refused(&Module::new().memory("").imports(memory), "it imports env.memory");
    let random = "(import \"gameserver\" \"random\" (func (result i32)))";
    refused(&Module::new().imports(random), "import gameserver.random: it is () -> i32");
    let random = "(import \"gameserver\" \"random\" (global i32))";
    refused(&Module::new().imports(random), "import gameserver.random: it is no function");
    let rude = format!("(import \"\\1b[2J\\n{}\" \"x\" (func))", "x".repeat(10_000));
    refused(&Module::new().imports(&rude), "it imports [2J xxx");
}

#[test]
fn what_info_says_is_looked_at() {
    let title = |title: &str| Module::new().info("\"Count\"", &format!("{title:?}"));
    let text = |text: &str| Module::new().info("\"Count to ten.\"", &format!("{text:?}"));
    let players = |min: i32, max: i32, default: i32| {
        Module::new().info(
            "\"min_players\":1,\"max_players\":3,\"default_players\":2",
            &format!("\"min_players\":{min},\"max_players\":{max},\"default_players\":{default}"),
        )
    };
    let mode = |mode: &str| Module::new().with("tick", "").info("\"mode\":\"turns\"", mode);
    let bounds = "min_players, max_players: take 1 to 64, in this order";
    let default = "default_players: takes a number from min_players to max_players";
    let hz = "tick_hz: takes 1 to 60 if the mode is ticks, and else nothing";
    let grace = "grace_seconds: takes 1 to 3600";
    for (module, expected) in [
        (title(""), "title: takes 1 to 64 characters"),
        (title(&"ä".repeat(65)), "title: takes 1 to 64 characters"),
        (text(""), "description: takes 1 to 500 characters"),
        (text(&"ä".repeat(501)), "description: takes 1 to 500 characters"),
        (players(0, 3, 2), bounds),
        (players(3, 2, 2), bounds),
        (players(1, 65, 2), bounds),
        (players(1, 256, 2), "info: not what is expected: invalid value: integer `256`"),
        (players(-1, 3, 2), "info: not what is expected: invalid value: integer `-1`"),
        (players(2, 3, 1), default),
        (players(2, 3, 4), default),
        (mode("\"mode\":\"relay\""), "mode: takes turns or ticks"),
        (mode("\"mode\":\"chess\""), "unknown variant `chess`"),
        (mode("\"mode\":\"turns\",\"tick_hz\":20"), hz),
        (mode("\"mode\":\"ticks\""), hz),
        (mode("\"mode\":\"ticks\",\"tick_hz\":0"), hz),
        (mode("\"mode\":\"ticks\",\"tick_hz\":61"), hz),
        (mode("\"mode\":\"turns\",\"grace_seconds\":0"), grace),
        (mode("\"mode\":\"turns\",\"grace_seconds\":3601"), grace),
        (mode("\"mode\":\"turns\",\"colour\":\"red\""), "unknown field `colour`"),
        (
            mode("\"mode\":\"ticks\",\"tick_hz\":20").without("tick"),
            "its mode is ticks, and it exports no tick",
        ),
        (Module::new().gives("info", "{}"), "info: not what is expected: missing field"),
        (Module::new().gives("info", "\"Count\""), "info: not what is expected"),
        (Module::new().with("info", "(i64.const -1)"), "info: it gives 4294967295 bytes"),
        (
            Module::new().with("interface_version", "(i32.const 2)"),
            "its interface is version 2; this server knows version 1",
        ),
        (
            Module::new().gives("start", r#"{"option":"size","detail":"no"}"#),
            "start refuses option size where there is none",
        ),
        (Module::new().gives("start", "[]x"), "start: not what is expected"),
        (
            Module::new().gives("outcome", r#"{"winners":[],"draw":true,"reason":"x"}"#),
            "outcome: a match is over before it begins",
        ),
        (Module::new().gives("view", "nothing"), "view: not what is expected"),
    ] {
        refused(&module, expected);
    }
    assert!(load(&title(&"ä".repeat(64))).is_ok() && load(&text(&"ä".repeat(500))).is_ok());
    assert!(load(&players(1, 64, 64)).is_ok());
}

#[test]
fn what_is_no_webassembly_2_is_refused() {
    let large = vec![0; MODULE_BYTES_MAX + 1];
    assert!(Plugin::load("x", &large).err().unwrap().contains("4194304 at most"));
    assert!(Plugin::load("x", b"").is_err());
    let more = |more: &str| Module::new().more(more);
    for module in [
        more("(func (result v128) (v128.const i32x4 0 0 0 0))"),
        more("(func (return_call 0))"),
        more("(tag)"),
        more("(type (struct))"),
        more("(memory 1)"),
        more("(func (result i32 i32) (i32.const 1) (i32.const 2))"),
        Module::new().memory("(memory (export \"memory\") 1 2 shared)"),
        Module::new().memory("(memory (export \"memory\") i64 1)"),
    ] {
        refused(&module, "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever bytes a file has: it is refused, or played within its bounds.
    #[test]
    fn no_bytes_do_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut code = whole().bytes();
        for (place, byte) in &changes {
            *place.get_mut(&mut code) = *byte;
        }
        if let Some(cut) = cut {
            code.truncate(cut.index(code.len()));
        }
        let began = Instant::now();
        if let Ok(plugin) = Plugin::load("count", &code) {
            let plugin = Arc::new(plugin);
            let setup = gameserver::games::Setup {
                players: plugin.info().max_players,
                seed: 1,
                options: serde_json::Map::new(),
            };
            let game_type = gameserver::games::wasm::Loaded(plugin);
            if let Ok(mut game) = gameserver::games::GameType::start(&game_type, &setup) {
                for function in CALLED {
                    call(&mut *game, function);
                }
            }
        }
        prop_assert!(began.elapsed() < PATIENCE);
    }
}

#[test]
fn the_game_that_all_of_them_vary_is_good() {
    let mut game = start(&load(&whole()).unwrap());
    for letter in 'a'..='j' {
        assert_eq!(game.view(Viewer::Spectator).get(), format!("{letter:?}").replace('\'', "\""));
        assert_eq!(game.outcome(), None);
        let refused = game.decide(Seat(0), &raw("2")).unwrap_err();
        assert_eq!(refused, Refusal::BadCommand("it takes 1".into()));
        let events = game.decide(Seat(0), &raw("1")).unwrap();
        game.apply(Some(Seat(0)), &events[0]);
    }
    assert_eq!(game.outcome().unwrap().winners, [Seat(0)]);
    assert!(COUNT.contains("global.get $count"));
}

#[test]
fn what_follows_from_one_thing_has_one_bound() {
    let burning = "(global.set $burn (i32.const 1000000))
        (loop $on
            (global.set $burn (i32.sub (global.get $burn) (i32.const 1)))
            (br_if $on (global.get $burn)))";
    let module =
        Module::new().more("(global $burn (mut i32) (i32.const 0))").first("apply", burning);
    let plugin = load(&module).unwrap();
    let (mut at_once, mut one_by_one) = (start(&plugin), start(&plugin));
    for _ in 0..100 {
        at_once.apply(Some(Seat(0)), &raw("1"));
        one_by_one.refuel(false);
        one_by_one.apply(Some(Seat(0)), &raw("1"));
    }
    let why = at_once.failure().unwrap();
    assert!(why.starts_with("apply: all that follows from one thing takes more than"), "{why}");
    assert_eq!(one_by_one.failure(), None);
}

#[test]
fn events_are_small_and_not_the_engines() {
    let long = format!(r#"{{"events":[1,"{}"]}}"#, "x".repeat(EVENT_BYTES_MAX));
    for (answer, expected) in [
        (long.as_str(), "an event has 4098 bytes; 4096 at most"),
        (r#"{"events":[{"a":1},{"a":1,"ended":null}]}"#, "a field ended"),
        (r#"{"events":[{"\u006aoined":{}}]}"#, "a field joined"),
    ] {
        fails(&Module::new().gives_later("decide", answer), "decide", expected);
    }
    let outcome = r#"{"winners":[0],"draw":false,"reason":"failed"}"#;
    fails(&Module::new().gives_later("outcome", outcome), "outcome", "not `failed`");
}

#[test]
fn what_players_send_is_cut_before_a_module_sees_it() {
    let game = start(&load(&Module::new()).unwrap());
    let long = format!("\"{}\"", "x".repeat(COMMAND_BYTES_MAX));
    let deep = format!("{}{}", "[".repeat(TEXT_DEPTH_MAX + 1), "]".repeat(TEXT_DEPTH_MAX + 1));
    for command in [long, deep] {
        let refusal = game.decide(Seat(0), &raw(&command)).unwrap_err();
        let Refusal::BadCommand(why) = refusal else { panic!("{refusal:?}") };
        assert_eq!(why, "a command has 16384 bytes and 64 levels at most");
    }
    assert_eq!(game.failure(), None);
}

#[test]
fn exports_are_few() {
    let more = |module: Module, number| module.more(&format!("(export \"e{number}\" (memory 0))"));
    refused(&(0..EXPORTS_MAX).fold(Module::new(), more), "exports; 1000 at most");
}

#[test]
fn who_fails_leaves_last_words_and_secrets_kept() {
    let module = Module::new()
        .imports(r#"(import "gameserver" "log" (func $log (param i32 i32)))"#)
        .more(r#"(data (i32.const 512) "the dog ate it")"#)
        .first("apply", "(call $log (i32.const 512) (i32.const 14)) unreachable")
        .gives("audience", r#"{"only":[1]}"#);
    let mut game = start(&load(&module).unwrap());
    let told = Audience::Only(SeatSet::default().with(Seat(1)));
    assert_eq!(game.audience(Some(Seat(0)), &raw("1")), told);
    game.apply(Some(Seat(0)), &raw("1"));
    let why = game.failure().unwrap();
    assert!(why.ends_with("assertion: the dog ate it"), "{why}");
    assert_eq!(game.audience(Some(Seat(0)), &raw("1")), told, "the log is as it was");
}
