//! What `gameserver check-game` tells the author of a module: matches are played by chance, and held
//! against what `docs/plugins.md` asks of a game.
//!
//! A match is played in several instances at once. Each is told the same, and no two are asked the
//! same; so whatever depends on more than what a match's log tells comes out as a difference between
//! them. Seeds are fixed: a module is played in the same way each time it is checked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::{Leaving, Mode, Rng, Seat, SeatSet, Setup, Viewer};
use super::Plugin;
use super::instance::{Failure, Instance};
use super::interface::{
    CALL_FUEL, COMMAND_BYTES_MAX, MEMORY_BYTES_MAX, TEXT_BYTES_MAX, TEXT_DEPTH_MAX,
};

/// Matches of a game in `turns` mode, and moves of each.
const TURNS: (u64, usize) = (200, 300);
/// The same in `ticks` mode, and steps.
const TICKS: (u64, usize) = (40, 600);
/// Calls after which no more is played: some seconds.
const CALLS_MAX: u64 = 1_000_000;
/// The same for fuel, where calls are dear.
const FUEL_MAX: u64 = 6_000_000_000;
/// One in so many moves is a player leaving; in `ticks` mode, one in so many steps.
const LEAVING: usize = 64;
/// One in so many commands is none of those that the module offers.
const JUNK: usize = 8;
/// A match is restored anew after so many moves, in the mean.
const RESTORING: usize = 6;
/// Bytes of a text in a report; of a longer one, this much where it differs.
const SHOWN_BYTES_MAX: usize = 1000;
/// Bytes that are shown before a difference.
const SHOWN_BEFORE: usize = 100;

/// Commands that no game expects. The server lets them through.
const UNEXPECTED: &[&str] = &[
    "null",
    "true",
    "-1",
    "0.5",
    "255",
    "4294967296",
    "18446744073709551616",
    "1e400",
    "-99999999999999999999999999999999999999",
    r#""""#,
    r#""\u0000\"\\\n\ud83d\ude00 é""#,
    r#""0""#,
    "[]",
    "{}",
    "[[{}]]",
    r#"{"":null}"#,
    r#"{"no such command":[1,{"a":"b"}]}"#,
];
/// How deep the deepest of them is, and how long the longest.
const DEEP: usize = TEXT_DEPTH_MAX;
const LONG: usize = COMMAND_BYTES_MAX - 2;

/// What came of a check.
#[derive(Default)]
pub struct Report {
    matches: u64,
    ended: u64,
    commands: u64,
    refused: u64,
    events: u64,
    /// Units that the calls of each function took.
    fuel: BTreeMap<&'static str, Vec<u64>>,
    calls: u64,
    fuel_spent: u64,
    memory_bytes: usize,
    view_bytes: usize,
    views_differ: bool,
}

/// Plays matches of a game. An error says what is wrong with it, and in which match.
pub fn check(plugin: &Plugin) -> Result<Report, String> {
    let report = RefCell::default();
    let (matches, moves) = if plugin.info.mode == Mode::Ticks { TICKS } else { TURNS };
    let numbers = (plugin.info.min_players..=plugin.info.max_players).cycle();
    for (seed, players) in (0..matches).zip(numbers) {
        let mut at = "before it begins".to_owned();
        let setup = Setup { players, seed, options: Map::new() };
        let played = Played::start(plugin, setup, &report).and_then(|mut played| {
            let ended = played.play(moves);
            at = format!("at move {}: {}", played.moves, played.doing);
            ended
        });
        let context = format!("in a match of {players} with the seed {seed}, {at}");
        let ended = played.map_err(|what| format!("{what}\n{context}"))?;
        let report = &mut *report.borrow_mut();
        report.matches += 1;
        report.ended += u64::from(ended);
        if report.is_enough() {
            break;
        }
    }
    Ok(report.into_inner())
}

/// One match, in all of its instances.
struct Played<'a> {
    plugin: &'a Plugin,
    setup: Setup,
    report: &'a RefCell<Report>,
    random: Rng,
    /// Is asked everything.
    main: Twin<'a>,
    /// Is asked of its state alone.
    follower: Twin<'a>,
    /// Is asked when all is over.
    silent: Twin<'a>,
    /// Began from the main one's snapshot, and then is as the follower.
    restored: Option<Twin<'a>>,
    /// Nothing happens in it: it is asked of audiences.
    blank: Option<Twin<'a>>,
    gone: SeatSet,
    /// The main one's, as it was looked at last.
    state: State,
    moves: usize,
    /// What is done now, for people.
    doing: String,
}

/// What changes a match.
enum Happening<'a> {
    Event(Seat, &'a RawValue),
    Leaving(Seat, Leaving),
    Step,
}

impl<'a> Played<'a> {
    fn start(
        plugin: &'a Plugin,
        setup: Setup,
        report: &'a RefCell<Report>,
    ) -> Result<Self, String> {
        let mut odd = setup.clone();
        odd.options.insert("no such option".into(), Value::Array(vec![Value::Null]));
        Twin::new(plugin, &odd, report)?.call("start", |instance| instance.start(&odd))?;
        let start = || Twin::start(plugin, &setup, report);
        Ok(Self {
            plugin,
            report,
            random: Rng::new(setup.seed),
            main: start()?,
            follower: start()?,
            silent: start()?,
            restored: None,
            blank: plugin.exports("audience").then(start).transpose()?,
            gone: SeatSet::default(),
            state: State::default(),
            moves: 0,
            doing: "it begins".into(),
            setup,
        })
    }

    /// Whether it ended within so many `moves`.
    fn play(&mut self, moves: usize) -> Result<bool, String> {
        self.look()?;
        while self.moves < moves && !self.is_over() && !self.seats().is_empty() {
            if self.report.borrow().is_enough() {
                break;
            }
            self.moves += 1;
            match self.plugin.info.mode {
                Mode::Ticks => self.step()?,
                _ => self.turn()?,
            }
        }
        let silent = self.silent.state()?;
        let what = "asking changes something: in a match that nobody asked for anything till now";
        self.state.is_also(&silent, what)?;
        Ok(self.is_over())
    }

    fn is_over(&self) -> bool {
        self.state.outcome.is_some()
    }

    fn seats(&self) -> Vec<Seat> {
        (0..self.setup.players).map(Seat).filter(|seat| !self.gone.contains(*seat)).collect()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.random.below(n) == 0
    }

    fn any<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.random.below(items.len())].clone())
    }

    /// A move of a game in `turns` mode.
    fn turn(&mut self) -> Result<(), String> {
        if self.one_in(LEAVING) {
            self.leave()?;
            return self.look();
        }
        // Whoever can do something does so, mostly.
        let mut seats = self.seats();
        self.random.shuffle(&mut seats);
        let Some(mut author) = seats.first().copied() else { return Ok(()) };
        let mut offered = Vec::new();
        for seat in seats {
            offered = self.offered(seat)?;
            if !offered.is_empty() {
                author = if self.one_in(JUNK) { author } else { seat };
                break;
            }
        }
        self.settled("commands")?;
        let command = self.command(&offered);
        let events = self.decide(author, &command)?;
        self.settled("decide")?;
        for event in events {
            self.happen(&Happening::Event(author, &event))?;
            self.look()?;
            self.hear(author, &event)?;
        }
        Ok(())
    }

    /// A step of a game in `ticks` mode: all that is applied in it was decided before.
    fn step(&mut self) -> Result<(), String> {
        if self.one_in(LEAVING) {
            self.leave()?;
            self.look()?;
        }
        let mut inputs = Vec::new();
        for seat in self.seats() {
            if self.one_in(2) {
                let offered = self.offered(seat)?;
                let command = self.command(&offered);
                let events = self.decide(seat, &command)?;
                inputs.extend(events.into_iter().map(|event| (seat, event)));
            }
        }
        self.settled("decide or commands")?;
        for (seat, event) in inputs {
            self.happen(&Happening::Event(seat, &event))?;
        }
        self.happen(&Happening::Step)?;
        self.look()
    }

    fn leave(&mut self) -> Result<(), String> {
        let why = if self.one_in(2) { Leaving::Resigned } else { Leaving::Timeout };
        let seats = self.seats();
        let Some(seat) = self.any(&seats) else { return Ok(()) };
        self.gone = self.gone.with(seat);
        self.happen(&Happening::Leaving(seat, why))
    }

    /// What the module says that a seat might send.
    fn offered(&mut self, seat: Seat) -> Result<Vec<Box<RawValue>>, String> {
        self.doing = format!("seat {} is offered commands", seat.0);
        let commands = self.main.call("commands", |instance| instance.commands(seat))?;
        Ok(commands.unwrap_or_default())
    }

    /// One of those offered, mostly; one of them with something else in it; or anything.
    fn command(&mut self, offered: &[Box<RawValue>]) -> Box<RawValue> {
        let Some(command) = self.any(offered) else { return self.unexpected() };
        if !self.one_in(JUNK) {
            return command;
        }
        let unexpected = self.unexpected();
        let fields = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(command.get());
        let Ok(mut fields) = fields else { return unexpected };
        let names: Vec<String> = fields.keys().cloned().collect();
        let Some(name) = self.any(&names) else { return unexpected };
        fields.insert(name, unexpected.clone());
        serde_json::value::to_raw_value(&fields).unwrap_or(unexpected)
    }

    fn unexpected(&mut self) -> Box<RawValue> {
        let text = match self.random.below(UNEXPECTED.len() + 2) {
            0 => format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP)),
            1 => format!("{:?}", "x".repeat(LONG)),
            index => UNEXPECTED[index - 2].into(),
        };
        RawValue::from_string(text).expect("it is JSON")
    }

    /// The events that follow from a command: none if it is refused.
    fn decide(&mut self, seat: Seat, command: &RawValue) -> Result<Vec<Box<RawValue>>, String> {
        self.doing = format!("seat {} sends {}", seat.0, excerpt(command.get(), 0));
        let mut ask = || self.main.call("decide", |instance| instance.decide(seat, command));
        let (first, again) = (ask()?, ask()?);
        let [told, told_again] = [&first, &again].map(|decided| format!("{decided:?}"));
        same(&told, &told_again, || "decide changes something: asked again, it gives".into())?;
        let report = &mut *self.report.borrow_mut();
        report.commands += 1;
        report.refused += u64::from(first.is_err());
        let events = first.unwrap_or_default();
        report.events += events.len() as u64;
        Ok(events)
    }

    /// Who may be told of an event follows from the event alone.
    fn hear(&mut self, seat: Seat, event: &RawValue) -> Result<(), String> {
        let Some(blank) = &mut self.blank else { return Ok(()) };
        let ask = |twin: &mut Twin<'_>| {
            let audience = twin.call("audience", |instance| instance.audience(Some(seat), event));
            audience.map(|audience| format!("{audience:?}"))
        };
        let (told, told_before) = (ask(&mut self.main)?, ask(blank)?);
        let what =
            || "audience depends on more than the event: in a match that just began it gives";
        same(&told, &told_before, || what().into())?;
        self.settled("audience")
    }

    fn happen(&mut self, what: &Happening<'_>) -> Result<(), String> {
        self.doing = match what {
            Happening::Event(seat, event) => {
                format!("the event {} of seat {} is applied", excerpt(event.get(), 0), seat.0)
            }
            Happening::Leaving(seat, why) => format!("seat {} leaves: {}", seat.0, why.reason()),
            Happening::Step => "a step".into(),
        };
        for twin in [&mut self.main, &mut self.follower, &mut self.silent] {
            twin.happen(what)?;
        }
        let Some(restored) = &mut self.restored else { return Ok(()) };
        restored.happen(what).map_err(|why| format!("once restored from a snapshot, {why}"))
    }

    /// Whether the instances agree on what has become of the match.
    fn look(&mut self) -> Result<(), String> {
        let before = std::mem::replace(&mut self.state, self.main.state()?);
        if let (Some(outcome), now) = (&before.outcome, &self.state.outcome) {
            let now = now.as_deref().unwrap_or("0");
            same(outcome, now, || "an outcome that was given must stay: now it is".into())?;
        }
        self.settled("view, outcome or snapshot")?;
        self.state.check_views(self.plugin.one_view, &mut self.report.borrow_mut())?;
        let what = "decide, commands or audience changes something: in a match that was not asked for \
                    them";
        self.state.is_also(&self.follower.state()?, what)?;
        if let Some(restored) = &mut self.restored {
            let what = "snapshot does not keep everything: in a match restored from one";
            self.state.is_also(&restored.state()?, what)?;
        }
        if self.restored.is_none() || self.one_in(RESTORING) {
            self.restore()?;
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), String> {
        let Some(snapshot) = self.main.call("snapshot", Instance::snapshot)? else { return Ok(()) };
        let mut restored = Twin::start(self.plugin, &self.setup, self.report)?;
        let taken = restored.call("restore", |instance| instance.restore(&snapshot))?;
        let given = excerpt(snapshot.get(), 0);
        taken
            .map_err(|why| format!("restore does not take what snapshot gave: {why}\n  {given}"))?;
        let what = "snapshot or restore leaves something out: restored";
        self.state.is_also(&restored.state()?, what)?;
        self.restored = Some(restored);
        Ok(())
    }

    /// What must change nothing has changed nothing that can be seen.
    fn settled(&mut self, by: &str) -> Result<(), String> {
        let now = self.main.state()?;
        self.state.is_also(&now, &format!("{by} changes something: after it"))
    }
}

/// An instance, whose calls are counted.
struct Twin<'a> {
    instance: Instance,
    players: u8,
    report: &'a RefCell<Report>,
}

impl<'a> Twin<'a> {
    fn new(plugin: &Plugin, setup: &Setup, report: &'a RefCell<Report>) -> Result<Self, String> {
        let instance = Instance::new(plugin, setup.seed).map_err(String::from)?;
        Ok(Self { instance, players: setup.players, report })
    }

    fn start(plugin: &Plugin, setup: &Setup, report: &'a RefCell<Report>) -> Result<Self, String> {
        let mut twin = Self::new(plugin, setup, report)?;
        match twin.call("start", |instance| instance.start(setup))? {
            None => Ok(twin),
            Some(bad) => Err(format!("start refuses option {} where there is none", bad.field)),
        }
    }

    fn call<T>(
        &mut self,
        name: &'static str,
        call: impl FnOnce(&mut Instance) -> Result<T, Failure>,
    ) -> Result<T, String> {
        self.instance.refuel(false);
        self.instance.spent = 0;
        let answer = call(&mut self.instance);
        if self.instance.spent == 0 {
            // There is no such function.
            return answer.map_err(String::from);
        }
        let report = &mut *self.report.borrow_mut();
        report.fuel.entry(name).or_default().push(self.instance.spent);
        report.calls += 1;
        report.fuel_spent += self.instance.spent;
        report.memory_bytes = report.memory_bytes.max(self.instance.memory_bytes());
        answer.map_err(String::from)
    }

    fn happen(&mut self, what: &Happening<'_>) -> Result<(), String> {
        match what {
            Happening::Event(seat, event) => {
                self.call("apply", |instance| instance.apply(Some(*seat), event))
            }
            Happening::Leaving(seat, why) => {
                self.call("leave", |instance| instance.leave(*seat, *why))
            }
            Happening::Step => self.call("tick", Instance::tick),
        }
    }

    fn state(&mut self) -> Result<State, String> {
        let players = self.players;
        let seats = (0..players).map(|seat| Viewer::Seat(Seat(seat)));
        let views = seats.chain([Viewer::Spectator]).map(|viewer| {
            self.call("view", |instance| instance.view(viewer)).map(|view| view.get().to_owned())
        });
        let views = views.collect::<Result<_, _>>()?;
        let outcome = self.call("outcome", |instance| instance.outcome(players))?;
        let outcome = outcome.map(|outcome| format!("{outcome:?}"));
        let snapshot = self.call("snapshot", Instance::snapshot)?;
        Ok(State { views, outcome, snapshot: snapshot.map(|snapshot| snapshot.get().to_owned()) })
    }
}

/// All that a match's state can be told by.
#[derive(Default)]
struct State {
    /// Of each seat, and of a spectator.
    views: Vec<String>,
    outcome: Option<String>,
    snapshot: Option<String>,
}

impl State {
    /// Whether `other` is the same; `what` comes before what of it is not.
    fn is_also(&self, other: &Self, what: &str) -> Result<(), String> {
        for (index, (view, other)) in self.views.iter().zip(&other.views).enumerate() {
            same(view, other, || format!("{what}, the view of {} is", self.viewer(index)))?;
        }
        let parts = [
            ("outcome", &self.outcome, &other.outcome),
            ("snapshot", &self.snapshot, &other.snapshot),
        ];
        for (part, own, other) in parts {
            let [own, other] = [own, other].map(|text| text.as_deref().unwrap_or("0"));
            same(own, other, || format!("{what}, the {part} is"))?;
        }
        Ok(())
    }

    fn check_views(&self, one_view: bool, report: &mut Report) -> Result<(), String> {
        for (index, view) in self.views.iter().enumerate() {
            report.view_bytes = report.view_bytes.max(view.len());
            report.views_differ |= *view != self.views[0];
            if one_view {
                let who = self.viewer(index);
                same(&self.views[0], view, || {
                    format!("one_view is true, and the view of {who} is")
                })?;
            }
        }
        Ok(())
    }

    fn viewer(&self, index: usize) -> String {
        let seats = self.views.len() - 1;
        if index < seats { format!("seat {index}") } else { "a spectator".into() }
    }
}

/// An error unless both are the same text; `what` comes before the other one.
fn same(one: &str, other: &str, what: impl FnOnce() -> String) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    let common = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let [one, other] = [one, other].map(|text| excerpt(text, common));
    Err(format!("{}\n  {other}\nand not\n  {one}", what()))
}

/// A text, or what of it stands about `place`.
fn excerpt(text: &str, place: usize) -> String {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.into();
    }
    let character = |at: usize| (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    let from = character(place.saturating_sub(SHOWN_BEFORE)).unwrap_or(0);
    let to = character(from + SHOWN_BYTES_MAX).unwrap_or(text.len());
    let before = if from > 0 { "…" } else { "" };
    let after = if to < text.len() { "…" } else { "" };
    format!("{before}{}{after}", &text[from..to])
}

impl Report {
    fn is_enough(&self) -> bool {
        self.calls >= CALLS_MAX || self.fuel_spent >= FUEL_MAX
    }

    /// What a game's author wants to know. `bytes` are the module's; `loaded` and `played` are how long
    /// it took to load it and to play.
    pub fn text(
        &mut self,
        plugin: &Plugin,
        bytes: usize,
        loaded: Duration,
        played: Duration,
    ) -> String {
        let info = &plugin.info;
        let mode = match info.tick_hz {
            Some(hz) => format!("ticks, {hz} a second"),
            None => "turns".into(),
        };
        let (fewest, most) = (info.min_players, info.max_players);
        let (loaded, played) = (loaded.as_secs_f64() * 1e3, played.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
        let speed = self.calls as f64 / played;
        let Self { matches, ended, events, commands, refused, .. } = self;
        let mut text = format!(
            "{}: {}\n\
             version   {}\n\
             mode      {mode}\n\
             players   {fewest} to {most}\n\
             module    {bytes} bytes, loaded in {loaded:.1} ms\n\
             matches   {matches}, of which {ended} came to an end\n\
             events    {events}, from {commands} commands of which {refused} were refused\n\
             calls     {}, {speed:.0} a second with all that they are compared with\n\
             memory    {} bytes of a match, {} of what it may have\n\
             views     {} bytes at most, {} of what they may have\n\n",
            info.name,
            info.title,
            info.version,
            self.calls,
            self.memory_bytes,
            share(self.memory_bytes as u64, MEMORY_BYTES_MAX as u64),
            self.view_bytes,
            share(self.view_bytes as u64, TEXT_BYTES_MAX as u64),
        );
        let _ = writeln!(
            text,
            "{:<10}{:>10}{:>14}{:>14}{:>10}",
            "function", "calls", "median fuel", "highest", "of bound"
        );
        for (name, fuel) in &mut self.fuel {
            fuel.sort_unstable();
            let (median, highest) = (fuel[fuel.len() / 2], fuel[fuel.len() - 1]);
            let (calls, share) = (fuel.len(), share(highest, CALL_FUEL));
            let _ = writeln!(text, "{name:<10}{calls:>10}{median:>14}{highest:>14}{share:>10}");
        }
        for warning in self.warnings(plugin) {
            let _ = write!(text, "\nwarning: {warning}");
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    fn warnings(&self, plugin: &Plugin) -> Vec<&'static str> {
        let ticks = plugin.info.mode == Mode::Ticks;
        let has = |name| plugin.exports(name);
        let all = [
            (
                !has("commands"),
                "it exports no commands: all that was sent are commands that no game expects, which \
                 shows little",
            ),
            (
                has("commands") && self.refused == self.commands,
                "each command was refused, also those that commands gave",
            ),
            (self.ended == 0, "no match came to an end"),
            (
                !ticks && self.views_differ && !has("audience"),
                "views differ, and it exports no audience: everybody is told of every event",
            ),
            (
                ticks && !self.views_differ && !plugin.one_view,
                "all views were the same: with one_view in info, one is made for all",
            ),
        ];
        all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, warning)| warning).collect()
    }
}

/// A part of a bound.
fn share(part: u64, bound: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    let percent = part as f64 * 100.0 / bound as f64;
    format!("{percent:.2} %")
}
