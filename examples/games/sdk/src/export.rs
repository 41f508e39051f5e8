//! [`Rules`] as interface 1 of `docs/plugins.md`. Only [`export!`](crate::export!) calls this.
//!
//! An instance plays one match, and calls come one at a time: so there is one state, one room for the
//! text that comes in, and one for the text that goes out, which the next call writes over.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::thread::LocalKey;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Audience, Leaving, Refusal, Rules, Seat, Viewer};

/// Exports a type that implements [`Rules`] as the crate's game.
///
/// `export!(Game)`; in [`Mode::Ticks`](crate::Mode::Ticks) `export!(Game, tick)`; with
/// `export!(Game, audience)` [`Rules::audience`] is asked who may be told of an event.
#[macro_export]
macro_rules! export {
    ($game:ty $(, $more:ident)*) => {
        #[doc(hidden)]
        pub mod exported {
            use super::*;
            use $crate::export;

            thread_local! {
                static MATCH: export::Match<$game> = const { export::Match::new(None) };
            }

            $crate::export! { @
                fn _initialize() { export::initialize() }
                fn interface_version() -> i32 { 1 }
                fn alloc(length: usize) -> *mut u8 { export::alloc(length) }
                fn info() -> i64 { export::info::<$game>() }
                fn start(_address: *const u8, length: usize) -> i64 { export::start(&MATCH, length) }
                fn decide(seat: i32, _address: *const u8, length: usize) -> i64 {
                    export::decide(&MATCH, seat, length)
                }
                fn apply(seat: i32, _address: *const u8, length: usize) {
                    export::apply(&MATCH, seat, length);
                }
                fn leave(seat: i32, why: i32) { export::leave(&MATCH, seat, why) }
                fn view(seat: i32) -> i64 { export::view(&MATCH, seat) }
                fn outcome() -> i64 { export::outcome(&MATCH) }
                fn snapshot() -> i64 { export::snapshot(&MATCH) }
                fn restore(_address: *const u8, length: usize) -> i32 {
                    export::restore(&MATCH, length)
                }
                fn commands(seat: i32) -> i64 { export::commands(&MATCH, seat) }
            }
            $($crate::export! { @$more $game })*
        }
    };
    (@tick $game:ty) => {
        $crate::export! { @ fn tick() { export::tick(&MATCH) } }
    };
    (@audience $game:ty) => {
        $crate::export! { @
            fn audience(seat: i32, _address: *const u8, length: usize) -> i64 {
                export::audience::<$game>(seat, length)
            }
        }
    };
    (@ $(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            // For another machine, where tests run, they are functions like any other.
            #[cfg_attr(target_arch = "wasm32", unsafe(no_mangle))]
            pub extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
        )*
    };
}

/// The state of the match, once it began.
pub type Match<R> = RefCell<Option<R>>;

thread_local! {
    static TEXT_IN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static TEXT_OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What has to be there before all else: panics reach the server's log.
pub fn initialize() {
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo) {
    log(&panic.to_string());
}

/// A line for the server's log.
#[cfg(target_arch = "wasm32")]
fn log(line: &str) {
    #[link(wasm_import_module = "gameserver")]
    unsafe extern "C" {
        safe fn log(address: *const u8, length: usize);
    }
    log(line.as_ptr(), line.len());
}

#[cfg(not(target_arch = "wasm32"))]
fn log(line: &str) {
    eprintln!("{line}");
}

/// Room for the text of one call.
pub fn alloc(length: usize) -> *mut u8 {
    TEXT_IN.with_borrow_mut(|text| {
        text.clear();
        text.resize(length, 0);
        text.as_mut_ptr()
    })
}

/// The text of this call, which lies where `alloc` said.
fn read<T: DeserializeOwned>(length: usize) -> serde_json::Result<T> {
    TEXT_IN.with_borrow(|text| serde_json::from_slice(&text[..length]))
}

/// A text that goes out: its address in the upper 32 bits, its length in the lower ones.
fn write<T: Serialize>(value: &T) -> i64 {
    TEXT_OUT.with_borrow_mut(|text| {
        text.clear();
        serde_json::to_writer(&mut *text, value).expect("keys are strings, and numbers finite");
        let (address, length) = (text.as_ptr().addr() as u64, text.len() as u64);
        (address << 32 | length).cast_signed()
    })
}

/// A seat; none for everybody else.
fn seat(number: i32) -> Option<Seat> {
    u8::try_from(number).ok().map(Seat)
}

type State<R> = &'static LocalKey<Match<R>>;

fn with<R: Rules, T>(state: State<R>, look: impl FnOnce(&R) -> T) -> T {
    state.with_borrow(|game| look(game.as_ref().expect("the match began")))
}

fn change<R: Rules>(state: State<R>, change: impl FnOnce(&mut R)) {
    state.with_borrow_mut(|game| change(game.as_mut().expect("the match began")));
}

pub fn info<R: Rules>() -> i64 {
    write(&R::info())
}

pub fn start<R: Rules>(state: State<R>, length: usize) -> i64 {
    match R::start(&read(length).expect("a setup")) {
        Ok(game) => {
            state.set(Some(game));
            0
        }
        Err(bad_option) => write(&bad_option),
    }
}

pub fn decide<R: Rules>(state: State<R>, number: i32, length: usize) -> i64 {
    #[derive(Serialize)]
    struct Decided<E> {
        events: Vec<E>,
    }
    let decided = read(length).map_err(|error| Refusal::BadCommand(error.to_string()));
    let seat = seat(number).expect("a seat");
    match decided.and_then(|command| with(state, |game| game.decide(seat, command))) {
        Ok(events) => write(&Decided { events }),
        Err(refusal) => write(&refusal),
    }
}

pub fn apply<R: Rules>(state: State<R>, number: i32, length: usize) {
    let event = read(length).expect("an event that `decide` gave");
    change(state, |game| game.apply(seat(number), event));
}

pub fn tick<R: Rules>(state: State<R>) {
    change(state, Rules::tick);
}

pub fn leave<R: Rules>(state: State<R>, number: i32, why: i32) {
    let why = if why == 1 { Leaving::Resigned } else { Leaving::Timeout };
    change(state, |game| game.leave(seat(number).expect("a seat"), why));
}

pub fn audience<R: Rules>(number: i32, length: usize) -> i64 {
    let event = read(length).expect("an event that `decide` gave");
    match R::audience(seat(number), &event) {
        Audience::Everyone => 0,
        some => write(&some),
    }
}

pub fn view<R: Rules>(state: State<R>, number: i32) -> i64 {
    let viewer = seat(number).map_or(Viewer::Spectator, Viewer::Seat);
    with(state, |game| write(&game.view(viewer)))
}

pub fn outcome<R: Rules>(state: State<R>) -> i64 {
    with(state, |game| game.outcome().map_or(0, |outcome| write(&outcome)))
}

pub fn snapshot<R: Rules>(state: State<R>) -> i64 {
    with(state, |game| write(game))
}

pub fn restore<R: Rules>(state: State<R>, length: usize) -> i32 {
    let Ok(game) = read(length) else { return 0 };
    state.set(Some(game));
    1
}

pub fn commands<R: Rules>(state: State<R>, number: i32) -> i64 {
    with(state, |game| write(&game.commands(seat(number).expect("a seat"))))
}
