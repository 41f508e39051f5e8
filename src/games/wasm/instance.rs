//! One match's memory of a module, and calls into it: each has its own fuel, and whatever comes out is
//! looked at before it is believed.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wasmi::{
    Caller, Engine, Error, Linker, Memory, Store, StoreLimits, StoreLimitsBuilder, TrapCode,
    TypedFunc, WasmParams, WasmResults,
};

use super::super::{
    Audience, BadOption, Leaving, Outcome, Refusal, Rng, Seat, SeatSet, Setup, Viewer,
};
use super::interface::{
    CALL_FUEL, COMMAND_BYTES_MAX, DETAIL_CHARS_MAX, ENTRY_FUEL, EVENT_BYTES_MAX, EVENTS_MAX, HOST,
    INTERFACE, LINE_BYTES_MAX, LINE_FUEL, LINES_MAX, MEMORY, MEMORY_BYTES_MAX, REASON_BYTES_MAX,
    REPLAY_FUEL_FACTOR, TABLE_ELEMENTS_MAX, TABLES_MAX, TEXT_BYTES_MAX, TEXT_DEPTH_MAX,
};
use super::{FAILED, Plugin};
use crate::telemetry::figures::{PLUGIN_CALLS, PLUGIN_FUEL};

/// Fields of the engine's own events.
const ENGINES: &[&str] = &["joined", "left", "started", "ended"];

/// Why a module can't go on: which function failed, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure(pub String);

/// What a module's imports work on.
pub(super) struct Host {
    limits: StoreLimits,
    random: Rng,
    /// Whether the call is one that comes again when the match is gone through again.
    may_draw: bool,
    lines: Vec<String>,
}

/// A module's memory, and the functions that it exports.
pub(super) struct Instance {
    store: Store<Host>,
    memory: Memory,
    exports: Exports,
    /// Fuel of the last call.
    pub spent: u64,
    /// Fuel that a call may take, and that all calls may until [`Self::refuel`].
    call_fuel: u64,
    left: u64,
}

type Text = i64;
type InText = (i32, i32);
type SeatAndText = (i32, i32, i32);

struct Exports {
    interface_version: TypedFunc<(), i32>,
    alloc: TypedFunc<i32, i32>,
    info: TypedFunc<(), Text>,
    start: TypedFunc<InText, Text>,
    decide: TypedFunc<SeatAndText, Text>,
    apply: TypedFunc<SeatAndText, ()>,
    leave: TypedFunc<(i32, i32), ()>,
    view: TypedFunc<i32, Text>,
    outcome: TypedFunc<(), Text>,
    tick: Option<TypedFunc<(), ()>>,
    audience: Option<TypedFunc<SeatAndText, Text>>,
    snapshot: Option<TypedFunc<(), Text>>,
    restore: Option<TypedFunc<InText, i32>>,
    commands: Option<TypedFunc<i32, Text>>,
}

/// What `start` is given.
#[derive(Serialize)]
struct Start<'a> {
    players: u8,
    options: &'a serde_json::Map<String, serde_json::Value>,
}

/// What it says against an option.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOption {
    option: String,
    detail: String,
}

/// What follows from a command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    events: Option<Vec<Box<RawValue>>>,
    refused: Option<Refused>,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refused {
    NotYourTurn,
    IllegalMove,
    BadCommand,
}

/// Who may be told of an event, where that is not everybody.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Except(Seat),
    Only(Vec<Seat>),
}

/// A match's state as it is kept: the module knows nothing of its numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    random: Rng,
    state: Box<RawValue>,
}

/// What a module may import.
pub(super) fn linker(engine: &Engine) -> Linker<Host> {
    let random = |mut caller: Caller<'_, Host>| {
        let host = caller.data_mut();
        if host.may_draw {
            return Ok(host.random.next_u64().cast_signed());
        }
        let where_it_may = "random is for start, apply, tick and leave alone: here its numbers would \
                            not come again";
        Err(Error::new(where_it_may))
    };
    let log = |mut caller: Caller<'_, Host>, address: i32, length: i32| {
        let fuel = caller.get_fuel()?;
        caller.set_fuel(fuel.saturating_sub(LINE_FUEL))?;
        let memory = caller.get_export(MEMORY).and_then(wasmi::Extern::into_memory);
        let Some(memory) = memory else { return Ok(()) };
        let (bytes, host) = memory.data_and_store_mut(&mut caller);
        let line = slice(bytes, address.cast_unsigned().into(), length.cast_unsigned().into())
            .ok_or_else(|| Error::new("log: there is no such memory"))?;
        if host.lines.len() < LINES_MAX {
            let line = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
            host.lines.push(line.replace(char::is_control, " "));
        }
        Ok(())
    };
    let mut linker = Linker::new(engine);
    let defined = linker
        .func_wrap(HOST, "random", random)
        .and_then(|linker| linker.func_wrap(HOST, "log", log).map(drop));
    debug_assert!(defined.is_ok(), "two names");
    linker
}

impl Instance {
    /// A new one; nothing has begun in it.
    pub fn new(plugin: &Plugin, seed: u64) -> Result<Self, Failure> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .instances(1)
            .memories(1)
            .tables(TABLES_MAX)
            .build();
        let host = Host { limits, random: Rng::new(seed), may_draw: false, lines: Vec::new() };
        let mut store = Store::new(&plugin.engine, host);
        store.limiter(|host| &mut host.limits);
        let made = |error: Error| Failure(format!("it can't be started: {}", explained(&error)));
        store.set_fuel(CALL_FUEL).map_err(made)?;
        let instance =
            plugin.linker.instantiate_and_start(&mut store, &plugin.module).map_err(made)?;
        let exports = Exports::of(&store, instance).map_err(made)?;
        let memory = instance.get_memory(&store, MEMORY).ok_or(Error::new("no memory"));
        let memory = memory.map_err(made)?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&store, "_initialize") {
            initialize.call(&mut store, ()).map_err(made)?;
        }
        Ok(Self { store, memory, exports, spent: 0, call_fuel: CALL_FUEL, left: ENTRY_FUEL })
    }

    /// Something else happens: its calls have all their fuel.
    pub fn refuel(&mut self, replayed: bool) {
        let factor = if replayed { REPLAY_FUEL_FACTOR } else { 1 };
        (self.call_fuel, self.left) = (CALL_FUEL * factor, ENTRY_FUEL * factor);
    }

    pub fn check_version(&mut self) -> Result<(), Failure> {
        match self.call("interface_version", self.exports.interface_version, ())? {
            INTERFACE => Ok(()),
            other => Err(Failure(format!(
                "its interface is version {other}; this server knows version {INTERFACE}"
            ))),
        }
    }

    pub fn info<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let text = self.call("info", self.exports.info, ())?;
        self.json("info", text)
    }

    /// Begins a match, unless there is an option that it doesn't take.
    pub fn start(&mut self, setup: &Setup) -> Result<Option<BadOption>, Failure> {
        let input = Start { players: setup.players, options: &setup.options };
        let input = serde_json::to_string(&input).map_err(|error| Failure(error.to_string()))?;
        self.store.data_mut().may_draw = true;
        let answer =
            self.call_with("start", self.exports.start, &input, |(at, length)| (at, length))?;
        if answer == 0 {
            return Ok(None);
        }
        let NoOption { option, detail } = self.json("start", answer)?;
        Ok(Some(BadOption { field: shortened(&option), detail: shortened(&detail) }))
    }

    pub fn decide(
        &mut self,
        seat: Seat,
        command: &RawValue,
    ) -> Result<Result<Vec<Box<RawValue>>, Refusal>, Failure> {
        if command.get().len() > COMMAND_BYTES_MAX || depth(command.get()) > TEXT_DEPTH_MAX {
            return Ok(Err(Refusal::BadCommand(format!(
                "a command has {COMMAND_BYTES_MAX} bytes and {TEXT_DEPTH_MAX} levels at most"
            ))));
        }
        let answer =
            self.call_with("decide", self.exports.decide, command.get(), with_seat(Some(seat)))?;
        let Decision { events, refused, detail } = self.json("decide", answer)?;
        let detail = shortened(&detail);
        match (events, refused) {
            (Some(events), None) if (1..=EVENTS_MAX).contains(&events.len()) => {
                match events.iter().find_map(|event| no_event(event)) {
                    None => Ok(Ok(events)),
                    Some(why) => Err(Failure(format!("decide: {why}"))),
                }
            }
            (None, Some(Refused::NotYourTurn)) => Ok(Err(Refusal::NotYourTurn)),
            (None, Some(Refused::IllegalMove)) => Ok(Err(Refusal::IllegalMove(detail))),
            (None, Some(Refused::BadCommand)) => Ok(Err(Refusal::BadCommand(detail))),
            (Some(events), None) => Err(Failure(format!(
                "decide: it gives {} events; 1 to {EVENTS_MAX} may follow from a command",
                events.len()
            ))),
            _ => Err(Failure("decide: it gives either events or refused".into())),
        }
    }

    pub fn apply(&mut self, seat: Option<Seat>, event: &RawValue) -> Result<(), Failure> {
        self.store.data_mut().may_draw = true;
        self.call_with("apply", self.exports.apply, event.get(), with_seat(seat))
    }

    pub fn tick(&mut self) -> Result<(), Failure> {
        self.store.data_mut().may_draw = true;
        self.exports.tick.map_or(Ok(()), |tick| self.call("tick", tick, ()))
    }

    pub fn leave(&mut self, seat: Seat, why: Leaving) -> Result<(), Failure> {
        let why = match why {
            Leaving::Left | Leaving::Resigned => 1,
            Leaving::Timeout => 2,
        };
        self.store.data_mut().may_draw = true;
        self.call("leave", self.exports.leave, (i32::from(seat.0), why))
    }

    pub fn audience(&mut self, seat: Option<Seat>, event: &RawValue) -> Result<Audience, Failure> {
        let Some(audience) = self.exports.audience else { return Ok(Audience::Everyone) };
        if self.left < self.call_fuel {
            // A page of a log must not end its match.
            return Ok(Audience::Only(SeatSet::default()));
        }
        let answer = self.call_with("audience", audience, event.get(), with_seat(seat))?;
        if answer == 0 {
            return Ok(Audience::Everyone);
        }
        Ok(match self.json("audience", answer)? {
            Told::Except(seat) => Audience::Except(seat),
            Told::Only(seats) => {
                Audience::Only(seats.into_iter().fold(SeatSet::default(), SeatSet::with))
            }
        })
    }

    pub fn view(&mut self, viewer: Viewer) -> Result<Box<RawValue>, Failure> {
        let seat = match viewer {
            Viewer::Seat(seat) => i32::from(seat.0),
            Viewer::Spectator => -1,
        };
        let text = self.call("view", self.exports.view, seat)?;
        self.json("view", text)
    }

    /// How a match of so many players ended, if it has.
    pub fn outcome(&mut self, players: u8) -> Result<Option<Outcome>, Failure> {
        let answer = self.call("outcome", self.exports.outcome, ())?;
        if answer == 0 {
            return Ok(None);
        }
        let outcome: Outcome = self.json("outcome", answer)?;
        let Outcome { winners, draw, reason } = &outcome;
        let rising = winners.windows(2).all(|pair| pair[0] < pair[1]);
        let wrong = if !rising || winners.iter().any(|seat| seat.0 >= players) {
            "winners are seats of the match, in rising order"
        } else if *draw && !winners.is_empty() {
            "nobody wins a draw"
        } else if !is_word(reason) || reason == FAILED {
            "its reason is a word of 1 to 32 letters, digits, - and _, and not `failed`"
        } else {
            return Ok(Some(outcome));
        };
        Err(Failure(format!("outcome: {wrong}")))
    }

    /// All of the state, if the module gives it.
    pub fn snapshot(&mut self) -> Result<Option<Box<RawValue>>, Failure> {
        let Some(snapshot) = self.exports.snapshot else { return Ok(None) };
        let text = self.call("snapshot", snapshot, ())?;
        let state = self.json("snapshot", text)?;
        let kept = Kept { random: self.store.data().random.clone(), state };
        let kept = serde_json::value::to_raw_value(&kept);
        kept.map(Some).map_err(|error| Failure(error.to_string()))
    }

    /// Takes it back; the inner error says that it is none.
    pub fn restore(&mut self, snapshot: &RawValue) -> Result<Result<(), String>, Failure> {
        let Some(restore) = self.exports.restore else {
            return Ok(Err("the game gives no snapshots".into()));
        };
        let Kept { random, state } = match serde_json::from_str(snapshot.get()) {
            Ok(kept) => kept,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let answer = self.call_with("restore", restore, state.get(), |text| text)?;
        self.store.data_mut().random = random;
        Ok(if answer == 1 { Ok(()) } else { Err("the game doesn't take it".into()) })
    }

    /// What a seat might send now, if the module says so.
    pub fn commands(&mut self, seat: Seat) -> Result<Option<Vec<Box<RawValue>>>, Failure> {
        let Some(commands) = self.exports.commands else { return Ok(None) };
        let text = self.call("commands", commands, i32::from(seat.0))?;
        self.json("commands", text).map(Some)
    }

    /// The lines that it has logged.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.store.data_mut().lines)
    }

    /// Bytes of its memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        function: TypedFunc<P, R>,
        given: P,
    ) -> Result<R, Failure> {
        self.fuelled(name, |own| function.call(&mut own.store, given))
    }

    /// Calls with a text, in room that the module finds for it.
    fn call_with<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        function: TypedFunc<P, R>,
        text: &str,
        given: impl FnOnce(InText) -> P,
    ) -> Result<R, Failure> {
        self.fuelled(name, |own| {
            let length =
                i32::try_from(text.len()).map_err(|error| Error::new(error.to_string()))?;
            let address = own.exports.alloc.call(&mut own.store, length)?;
            let place = usize::try_from(address.cast_unsigned()).unwrap_or(usize::MAX);
            own.memory
                .write(&mut own.store, place, text.as_bytes())
                .map_err(|_| Error::new(format!("alloc has no {length} bytes at {address}")))?;
            function.call(&mut own.store, given((address, length)))
        })
    }

    /// One call with all its fuel.
    fn fuelled<T>(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let (fuel, lines) = (self.call_fuel.min(self.left), self.store.data().lines.len());
        self.store.set_fuel(fuel).map_err(|error| Failure(error.to_string()))?;
        let answer = call(self);
        let host = self.store.data_mut();
        host.may_draw = false;
        let last_words = host.lines.get(lines..).and_then(<[String]>::last).cloned();
        self.spent = fuel - self.store.get_fuel().unwrap_or(0);
        self.left -= self.spent;
        PLUGIN_CALLS.increment();
        PLUGIN_FUEL.add(self.spent);
        answer.map_err(|error| {
            let said = last_words.map_or_else(String::new, |line| format!(": {line}"));
            let why = if fuel < self.call_fuel && is_out_of_fuel(&error) {
                format!(
                    "all that follows from one thing takes more than {ENTRY_FUEL} units of fuel"
                )
            } else {
                explained(&error)
            };
            Failure(format!("{name}: {why}{said}"))
        })
    }

    /// A text that the module has given, as JSON.
    fn json<T: DeserializeOwned>(&self, name: &str, text: Text) -> Result<T, Failure> {
        let wrong = |what: String| Failure(format!("{name}: {what}"));
        let text = text.cast_unsigned();
        let (address, length) = (text >> 32, text & u64::from(u32::MAX));
        if length > TEXT_BYTES_MAX as u64 {
            return Err(wrong(format!("it gives {length} bytes; {TEXT_BYTES_MAX} at most")));
        }
        let bytes = slice(self.memory.data(&self.store), address, length)
            .ok_or_else(|| wrong(format!("it has no {length} bytes at {address}")))?;
        let text =
            std::str::from_utf8(bytes).map_err(|error| wrong(format!("no UTF-8: {error}")))?;
        if depth(text) > TEXT_DEPTH_MAX {
            return Err(wrong(format!("JSON of more than {TEXT_DEPTH_MAX} levels")));
        }
        serde_json::from_str(text).map_err(|error| wrong(format!("not what is expected: {error}")))
    }
}

impl Exports {
    fn of(store: &Store<Host>, instance: wasmi::Instance) -> Result<Self, Error> {
        // Names and types were checked when the module was loaded.
        macro_rules! exports {
            ($($required:ident),*; $($optional:ident),*) => {
                Ok(Self {
                    $($required: instance.get_typed_func(store, stringify!($required))?,)*
                    $($optional: instance.get_typed_func(store, stringify!($optional)).ok(),)*
                })
            };
        }
        exports!(
            interface_version, alloc, info, start, decide, apply, leave, view, outcome;
            tick, audience, snapshot, restore, commands
        )
    }
}

/// Why an event can't be one, if it can't.
fn no_event(event: &RawValue) -> Option<String> {
    let length = event.get().len();
    if length > EVENT_BYTES_MAX {
        return Some(format!("an event has {length} bytes; {EVENT_BYTES_MAX} at most"));
    }
    // Clients would take it for the engine's.
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(event.get()).ok()?;
    let name = ENGINES.iter().find(|name| fields.contains_key(**name))?;
    Some(format!("an event has a field {name}, which is for the engine's own"))
}

fn with_seat(seat: Option<Seat>) -> impl FnOnce(InText) -> SeatAndText {
    let seat = seat.map_or(-1, |seat| i32::from(seat.0));
    move |(address, length)| (seat, address, length)
}

fn slice(memory: &[u8], address: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(address).ok()?;
    memory.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// How deep lists and objects stand within each other.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn is_word(text: &str) -> bool {
    (1..=REASON_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn shortened(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

fn is_out_of_fuel(error: &Error) -> bool {
    matches!(error.as_trap_code(), Some(TrapCode::OutOfFuel))
}

/// What went wrong, for the module's author.
fn explained(error: &Error) -> String {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => format!("it takes more than {CALL_FUEL} units of fuel"),
        Some(TrapCode::UnreachableCodeReached) => {
            "it gives up (unreachable): a panic, an abort, or a failed assertion".into()
        }
        _ => error.to_string(),
    }
}
