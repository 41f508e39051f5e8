//! Plugins: games that are loaded at run time as WebAssembly modules. What they must be like is
//! written in `docs/plugins.md`, for machines in `docs/plugin-interface.json`.
//!
//! - [`interface`]: the functions and texts that go over the border, and their bounds
//! - [`instance`]: one match's memory, and calls into it
//! - [`locals`]: how many a module's functions have
//! - [`check`]: matches by chance, for authors
//!
//! wasmi interprets them: it adds little to the server, works on every target alike, and
//! counts the same fuel on each (`docs/plugin-engines.md`). Code is compiled when a module is
//! loaded: lazily, the fuel of the first call would tell one instance from the next.

pub mod check;
mod instance;
pub mod interface;
mod locals;

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use wasmi::{CompilationMode, Config, EnforcedLimits, Engine, Linker, Module};

use self::instance::{Failure, Host, Instance};
use self::interface::{DETAIL_CHARS_MAX, LOCALS_MAX, MODULE_BYTES_MAX};
use super::{
    Audience, Game, GameInfo, GameType, Leaving, Mode, NoStart, Outcome, Refusal, SEATS_MAX, Seat,
    SeatSet, Setup, TICK_HZ_MAX, Viewer,
};

/// What [`Outcome::reason`] is when a match's rules have failed.
pub const FAILED: &str = "failed";
/// Seconds of grace where a module does not say.
const GRACE_SECONDS_DEFAULT: u32 = 120;
const GRACE_SECONDS_MAX: u32 = 3600;
const TITLE_CHARS_MAX: usize = 64;
const DESCRIPTION_CHARS_MAX: usize = 500;

/// A module that is a game: its code, which all its matches share.
pub struct Plugin {
    info: GameInfo,
    one_view: bool,
    engine: Engine,
    linker: Linker<Host>,
    module: Module,
}

/// See `docs/plugins.md`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    title: String,
    description: String,
    min_players: u8,
    max_players: u8,
    default_players: Option<u8>,
    mode: Mode,
    tick_hz: Option<u16>,
    grace_seconds: Option<u32>,
    #[serde(default)]
    one_view: bool,
}

/// The version of the rules in a module: the SHA-256 of its bytes, in hexadecimal digits.
pub fn version_of(code: &[u8]) -> String {
    Sha256::digest(code).iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

impl Plugin {
    /// What there is to know of it; its version is that of [`version_of`].
    pub fn info(&self) -> &GameInfo {
        &self.info
    }

    /// Makes a game called `name` of a module. An error says why it is none.
    pub fn load(name: &str, code: &[u8]) -> Result<Self, String> {
        Self::made(name, code).map_err(|why| one_line(&why))
    }

    fn made(name: &str, code: &[u8]) -> Result<Self, String> {
        if code.len() > MODULE_BYTES_MAX {
            return Err(format!("it has {} bytes; {MODULE_BYTES_MAX} at most", code.len()));
        }
        if let Some(locals) = locals::most(code).filter(|locals| *locals > LOCALS_MAX) {
            return Err(format!("a function has {locals} locals; {LOCALS_MAX} at most"));
        }
        let engine = Engine::new(&config());
        let module = Module::new(&engine, code).map_err(|error| error.to_string())?;
        interface::check(&module)?;
        let linker = instance::linker(&engine);
        let version = version_of(code);
        // Its name is all that `info` does not tell.
        let unknown = GameInfo {
            name: name.into(),
            title: String::new(),
            description: String::new(),
            min_players: 1,
            max_players: 1,
            mode: Mode::Turns,
            tick_hz: None,
            plugin: true,
            version,
            default_players: 1,
            grace_seconds: 0,
        };
        let mut plugin = Self { info: unknown, one_view: false, engine, linker, module };
        plugin.ask().map_err(String::from)?;
        Ok(plugin)
    }

    fn exports(&self, name: &str) -> bool {
        self.module.get_export(name).is_some()
    }

    /// Asks what the game is, and begins a match to see that it can.
    fn ask(&mut self) -> Result<(), Failure> {
        let mut instance = Instance::new(self, 0)?;
        instance.check_version()?;
        let info: Info = instance.info()?;
        let info = self.named(info).map_err(|what| Failure(format!("info: {what}")))?;
        if info.mode == Mode::Ticks && !self.exports("tick") {
            return Err(Failure("its mode is ticks, and it exports no tick".into()));
        }
        if info.mode == Mode::Ticks && !self.exports("snapshot") {
            let what = "its mode is ticks, and it exports no snapshot and restore: a match of some \
                        hours would have to be rebuilt step by step";
            return Err(Failure(what.into()));
        }
        self.info = info;
        let players = self.info.default_players;
        let setup = Setup { players, seed: 0, options: serde_json::Map::new() };
        let mut match_of_none = Instance::new(self, setup.seed)?;
        if let Some(bad) = match_of_none.start(&setup)? {
            let what = format!("start refuses option {} where there is none", bad.field);
            return Err(Failure(what));
        }
        match_of_none.view(Viewer::Spectator)?;
        match match_of_none.outcome(players)? {
            None => Ok(()),
            Some(_) => Err(Failure("outcome: a match is over before it begins".into())),
        }
    }

    fn named(&mut self, info: Info) -> Result<GameInfo, String> {
        let chars = |text: &str, max| {
            (1..=max).contains(&text.chars().count()) && !text.contains(char::is_control)
        };
        let default_players = info.default_players.unwrap_or(info.min_players);
        let grace_seconds = info.grace_seconds.unwrap_or(GRACE_SECONDS_DEFAULT);
        let hz = info.tick_hz.unwrap_or(1);
        let wrong = if !chars(&info.title, TITLE_CHARS_MAX) {
            Some(format!("title: takes 1 to {TITLE_CHARS_MAX} characters"))
        } else if !chars(&info.description, DESCRIPTION_CHARS_MAX) {
            Some(format!("description: takes 1 to {DESCRIPTION_CHARS_MAX} characters"))
        } else if info.min_players == 0
            || info.min_players > info.max_players
            || info.max_players > SEATS_MAX
        {
            Some(format!("min_players, max_players: take 1 to {SEATS_MAX}, in this order"))
        } else if !(info.min_players..=info.max_players).contains(&default_players) {
            Some("default_players: takes a number from min_players to max_players".into())
        } else if info.mode == Mode::Relay {
            Some("mode: takes turns or ticks".into())
        } else if (info.mode == Mode::Ticks) != info.tick_hz.is_some()
            || !(1..=TICK_HZ_MAX).contains(&hz)
        {
            Some(format!(
                "tick_hz: takes 1 to {TICK_HZ_MAX} if the mode is ticks, and else nothing"
            ))
        } else if !(1..=GRACE_SECONDS_MAX).contains(&grace_seconds) {
            Some(format!("grace_seconds: takes 1 to {GRACE_SECONDS_MAX}"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        self.one_view = info.one_view;
        let Info { title, description, min_players, max_players, mode, tick_hz, .. } = info;
        let GameInfo { name, version, plugin, .. } = self.info.clone();
        Ok(GameInfo {
            name,
            title,
            description,
            min_players,
            max_players,
            mode,
            tick_hz,
            plugin,
            version,
            default_players,
            grace_seconds,
        })
    }
}

impl From<Failure> for String {
    fn from(Failure(why): Failure) -> Self {
        one_line(&why)
    }
}

/// For a log or a terminal: a module may have put anything into what it is wrong with.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(DETAIL_CHARS_MAX).collect()
}

/// The same on all machines: what may differ between them is off. So is what makes a module large
/// that is small as a file.
fn config() -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .compilation_mode(CompilationMode::Eager)
        .ignore_custom_sections(true)
        .enforced_limits(EnforcedLimits::strict())
        .set_max_recursion_depth(interface::CALLS_DEPTH_MAX)
        .set_max_stack_height(interface::STACK_BYTES_MAX)
        .wasm_multi_memory(false)
        .wasm_multi_value(false)
        .wasm_tail_call(false)
        .wasm_extended_const(false);
    config
}

/// A plugin whose matches can be started: each of them holds its code.
pub struct Loaded(pub Arc<Plugin>);

impl GameType for Loaded {
    fn info(&self) -> &GameInfo {
        &self.0.info
    }

    fn start(&self, setup: &Setup) -> Result<Box<dyn Game>, NoStart> {
        let failed = |failure: Failure| NoStart::Failed(failure.into());
        let mut instance = Instance::new(&self.0, setup.seed).map_err(failed)?;
        match instance.start(setup).map_err(failed)? {
            Some(bad) => Err(NoStart::BadOption(bad)),
            None => Ok(Box::new(WasmGame {
                plugin: Arc::clone(&self.0),
                players: setup.players,
                state: RefCell::new(State { instance, failure: None, outcome: OnceCell::new() }),
            })),
        }
    }
}

/// One match of a plugin.
struct WasmGame {
    plugin: Arc<Plugin>,
    players: u8,
    // A call needs all of the instance, even one that changes nothing which matters.
    state: RefCell<State>,
}

struct State {
    instance: Instance,
    /// Why it is of no use any more: nothing is called after that.
    failure: Option<String>,
    /// What the game said of its end since the last change; it is asked again and again.
    outcome: OnceCell<Option<Outcome>>,
}

impl WasmGame {
    /// Calls into the module; `None` if that fails, or has failed before.
    fn ask<T>(&self, call: impl FnOnce(&mut Instance) -> Result<T, Failure>) -> Option<T> {
        let State { instance, failure, .. } = &mut *self.state.borrow_mut();
        if failure.is_some() {
            return None;
        }
        match call(instance) {
            Ok(answer) => Some(answer),
            Err(why) => {
                *failure = Some(why.into());
                // Who may be told of an event follows from that alone: another one can say.
                if let Ok(blank) = Instance::new(&self.plugin, 0) {
                    *instance = blank;
                }
                None
            }
        }
    }

    /// The same, where the state changes.
    fn change(&self, call: impl FnOnce(&mut Instance) -> Result<(), Failure>) {
        self.state.borrow_mut().outcome.take();
        self.ask(call);
    }
}

impl Game for WasmGame {
    fn decide(&self, seat: Seat, command: &RawValue) -> Result<Vec<Box<RawValue>>, Refusal> {
        self.ask(|instance| instance.decide(seat, command)).unwrap_or(Err(Refusal::Failed))
    }

    fn apply(&mut self, seat: Option<Seat>, event: &RawValue) {
        self.change(|instance| instance.apply(seat, event));
    }

    fn tick(&mut self) {
        self.change(Instance::tick);
    }

    fn leave(&mut self, seat: Seat, why: Leaving) {
        self.change(|instance| instance.leave(seat, why));
    }

    fn audience(&self, seat: Option<Seat>, event: &RawValue) -> Audience {
        let ask = |instance: &mut Instance| instance.audience(seat, event);
        let told = self.ask(ask).or_else(|| ask(&mut self.state.borrow_mut().instance).ok());
        // Whoever can't say tells nobody.
        told.unwrap_or(Audience::Only(SeatSet::default()))
    }

    fn view(&self, viewer: Viewer) -> Box<RawValue> {
        self.ask(|instance| instance.view(viewer)).unwrap_or_else(|| RawValue::NULL.to_owned())
    }

    fn has_one_view(&self) -> bool {
        self.plugin.one_view
    }

    fn outcome(&self) -> Option<Outcome> {
        let known = self.state.borrow().outcome.get().cloned();
        let outcome = known.or_else(|| self.ask(|instance| instance.outcome(self.players)));
        if let Some(outcome) = &outcome {
            // It may be there already.
            let _ = self.state.borrow().outcome.set(outcome.clone());
        }
        if self.state.borrow().failure.is_some() {
            return Some(Outcome { winners: Vec::new(), draw: false, reason: FAILED.into() });
        }
        outcome.flatten()
    }

    fn snapshot(&self) -> Option<Box<RawValue>> {
        self.ask(Instance::snapshot).flatten()
    }

    fn restore(&mut self, snapshot: &RawValue) -> Result<(), String> {
        self.state.borrow_mut().outcome.take();
        let restored = self.ask(|instance| instance.restore(snapshot));
        restored.unwrap_or_else(|| Err(self.failure().unwrap_or_default()))
    }

    fn failure(&self) -> Option<String> {
        self.state.borrow().failure.clone()
    }

    fn refuel(&mut self, replayed: bool) {
        self.state.get_mut().instance.refuel(replayed);
    }

    fn take_lines(&mut self) -> Vec<String> {
        self.state.borrow_mut().instance.take_lines()
    }
}
