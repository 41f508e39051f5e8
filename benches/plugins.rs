//! What plugins cost beside built-in games of the same rules: `cargo bench --bench plugins`.
//!
//! A turn is what the engine asks for with each command: `decide`, `apply`, `outcome`, and what both
//! players see. A step is `tick` and the one view. Each pair of games takes turns in one run, so that
//! whatever else the machine does slows both.

#[path = "../tests/support/games.rs"]
mod games;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use gameserver::games::wasm::{Loaded, Plugin};
use gameserver::games::{Catalog, Game, GameType, Seat, Viewer, setup};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Of so many tries the middle one counts.
const TRIES: usize = 31;
/// Matches of turns in each try.
const MATCHES: u64 = 100;
/// Matches that are held at once.
const HELD: u64 = 1000;
/// Names the game whose matches a process of its own holds.
const HELD_GAME: &str = "BENCH_HELD_GAME";
const RIDERS: u8 = 8;
/// Steps before riders set off, and those in which each makes corners.
const COUNTDOWN: u64 = 60;
const CORNERS: u64 = 16;
/// Steps that are measured from then on: nobody has crashed by their end.
const STEPS: u64 = 16;
const HEADINGS: [&str; 4] = ["up", "right", "down", "left"];

/// A match's commands from its beginning to its end.
type Script = Vec<(Seat, Box<RawValue>)>;

fn start(rules: &dyn GameType, seed: u64, options: &Value) -> Box<dyn Game> {
    let options: Map<String, Value> = options.as_object().unwrap().clone();
    let setup = setup(rules.info(), options, seed).unwrap();
    rules.start(&setup).ok().unwrap()
}

fn see(game: &dyn Game) -> Value {
    serde_json::from_str(game.view(Viewer::Spectator).get()).unwrap()
}

fn raw(json: &Value) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap()
}

fn turn(game: &mut dyn Game, seat: Seat, command: &RawValue) {
    game.refuel(false);
    for event in game.decide(seat, command).unwrap() {
        game.apply(Some(seat), &event);
    }
    black_box(game.outcome());
    for viewer in [0, 1].map(|seat| Viewer::Seat(Seat(seat))) {
        black_box(game.view(viewer));
    }
}

/// Plays by chance: `places` is the field of a view whose empty places `command` can name.
fn play(rules: &dyn GameType, seed: u64, places: &str, command: &str) -> Script {
    let (mut game, mut script, mut chance) = (start(rules, seed, &json!({})), Vec::new(), seed);
    while let Some(seat) = see(&*game)["turn"].as_u64() {
        let view = see(&*game);
        let free = view[places].as_array().unwrap().iter().enumerate();
        let free: Vec<usize> = free.filter(|(_, what)| what.is_null()).map(|(at, _)| at).collect();
        // Knuth's multiplier: its upper bits are what is by chance.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = usize::try_from(chance >> 33).unwrap() % free.len();
        let (seat, command) =
            (Seat(u8::try_from(seat).unwrap()), raw(&json!({ command: free[at] })));
        turn(&mut *game, seat, &command);
        script.push((seat, command));
    }
    script
}

/// A match with all riders on their way, each with corners behind it.
fn ride(rules: &dyn GameType) -> Box<dyn Game> {
    let mut game = start(rules, 1, &json!({ "players": RIDERS }));
    let ahead = see(&*game)["headings"].as_array().unwrap().clone();
    for step in 1..COUNTDOWN + CORNERS {
        game.refuel(false);
        for (seat, ahead) in (0..).map(Seat).zip(&ahead) {
            if step >= COUNTDOWN && step.is_multiple_of(2) {
                let heading = HEADINGS.iter().position(|one| ahead == one).unwrap();
                let aside = usize::from(step.is_multiple_of(4));
                let command = raw(&json!({ "turn": HEADINGS[(heading + aside) % 4] }));
                for event in game.decide(seat, &command).unwrap() {
                    game.apply(Some(seat), &event);
                }
            }
        }
        game.tick();
    }
    game
}

/// The middle of some times.
fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Measures both in turns, and says how long one of so many took.
fn compare(what: &str, names: [&str; 2], mut once: impl FnMut(usize) -> (Duration, u32)) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TRIES {
        for (which, times) in times.iter_mut().enumerate() {
            let (time, count) = once(which);
            times.push(time / count);
        }
    }
    let [native, plugin] = times.map(middle);
    let ratio = plugin.as_secs_f64() / native.as_secs_f64();
    let [native_name, plugin_name] = names;
    println!("{what}: {native_name} {native:.1?}, {plugin_name} {plugin:.1?}, {ratio:.1} ×");
}

fn compare_turns(rules: [&dyn GameType; 2], [places, command]: [&str; 2]) {
    let scripts = rules.map(|rules| {
        let scripts = (0..MATCHES).map(|seed| play(rules, seed, places, command));
        scripts.collect::<Vec<Script>>()
    });
    let names = rules.map(|rules| rules.info().name.as_str());
    compare("a turn", names, |which| {
        let (mut time, mut turns) = (Duration::ZERO, 0);
        for (seed, script) in (0..).zip(&scripts[which]) {
            let mut game = start(rules[which], seed, &json!({}));
            let began = Instant::now();
            for (seat, command) in script {
                turn(&mut *game, *seat, command);
            }
            time += began.elapsed();
            turns += u32::try_from(script.len()).unwrap();
        }
        (time, turns)
    });
}

fn compare_steps(rules: [&dyn GameType; 2]) {
    let names = rules.map(|rules| rules.info().name.as_str());
    compare("a step", names, |which| {
        let mut game = ride(rules[which]);
        let began = Instant::now();
        for _ in 0..STEPS {
            game.refuel(false);
            game.tick();
            black_box(game.view(Viewer::Spectator));
        }
        let time = began.elapsed();
        let riding = see(&*game)["riding"].as_array().unwrap().clone();
        assert!(riding.iter().all(|rides| *rides == true), "somebody has crashed: {riding:?}");
        (time, u32::try_from(STEPS).unwrap())
    });
}

/// Bytes of this process that are in memory, where the system tells.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// A match that is held: of turns, half played; or all riders on their way.
fn begin(rules: &dyn GameType) -> impl Fn() -> Box<dyn Game> {
    let script =
        fields(&rules.info().name).map(|[places, command]| play(rules, 0, places, command));
    move || {
        let Some(script) = &script else { return ride(rules) };
        let mut game = start(rules, 0, &json!({}));
        for (seat, command) in &script[..script.len() / 2] {
            turn(&mut *game, *seat, command);
        }
        game
    }
}

/// What this process, which has done nothing else, grows by while so many matches are held.
fn say_bytes(rules: &dyn GameType) {
    let begin = begin(rules);
    let first = begin();
    let before = resident();
    let held: Vec<Box<dyn Game>> = (0..HELD).map(|_| begin()).collect();
    let grown = before.zip(resident()).map(|(before, after)| after.saturating_sub(before) / HELD);
    let name = &rules.info().name;
    match grown {
        Some(bytes) => println!("a match held: {name} {bytes} bytes"),
        None => println!("a match held: {name}, this system does not tell"),
    }
    drop(black_box((first, held)));
}

/// In a game of turns: the field of its views that has places, and of its commands that names one.
fn fields(game: &str) -> Option<[&'static str; 2]> {
    match game {
        "tictactoe" | "noughts" => Some(["board", "place"]),
        "pairs" | "concentration" => Some(["cards", "flip"]),
        _ => None,
    }
}

fn load(name: &str, code: &[u8]) -> Arc<dyn GameType> {
    Arc::new(Loaded(Arc::new(Plugin::load(name, code).unwrap())))
}

fn say_compiled(name: &str, code: &[u8]) {
    let times = (0..TRIES).map(|_| {
        let began = Instant::now();
        black_box(load(name, code));
        began.elapsed()
    });
    let time = middle(times.collect());
    println!("a module compiled: {name}, {} bytes, {time:.1?}", code.len());
}

fn main() {
    let catalog = Catalog::new(None, Vec::new());
    let folder = games::folder();
    let code = |name: &str| fs::read(games::file(folder, name)).unwrap();
    if let Ok(name) = env::var(HELD_GAME) {
        let rules = catalog.find(&name).unwrap_or_else(|| load(&name, &code(&name)));
        return say_bytes(&*rules);
    }
    for (name, _) in games::PLUGINS {
        say_compiled(name, &code(name));
    }
    for (name, built_in) in games::PLUGINS {
        let (built_in, plugin) = (catalog.find(built_in).unwrap(), load(name, &code(name)));
        match fields(name) {
            Some(fields) => compare_turns([&*built_in, &*plugin], fields),
            None => compare_steps([&*built_in, &*plugin]),
        }
    }
    for game in games::PLUGINS.iter().flat_map(|(name, built_in)| [built_in, name]) {
        let mut alone = Command::new(env::current_exe().unwrap());
        assert!(alone.env(HELD_GAME, game).status().unwrap().success());
    }
}
