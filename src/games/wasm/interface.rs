//! Interface 1: what a module exports and imports, by name and type, and how large anything may be.

use wasmi::{ExternType, FuncType, Module, ValType};

/// The version that [`super::instance::Instance::check_version`] wants.
pub const INTERFACE: i32 = 1;
/// Bytes of a file.
pub const MODULE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a match's memory.
pub const MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Elements in each of a match's tables.
pub const TABLE_ELEMENTS_MAX: usize = 10_000;
/// Tables of a module.
pub const TABLES_MAX: usize = 4;
/// Fuel of one call, and of making an instance: about a unit for each instruction. So much is some
/// tens of milliseconds, in which the match, and a thread, do nothing else.
pub const CALL_FUEL: u64 = 20_000_000;
/// Fuel of all calls that one command, step, newcomer or page of a log leads to.
pub const ENTRY_FUEL: u64 = 100_000_000;
/// What a match that is gone through again may take more: what just fitted has to fit again, though
/// rooms for texts lie elsewhere then, and a later version of the interpreter may count otherwise.
pub const REPLAY_FUEL_FACTOR: u64 = 2;
/// Fuel of a line for the log: what it costs the host.
pub const LINE_FUEL: u64 = 1000;
/// Variables that a function declares.
pub const LOCALS_MAX: u64 = 1000;
/// Calls within calls.
pub const CALLS_DEPTH_MAX: usize = 1000;
/// Bytes of their variables.
pub const STACK_BYTES_MAX: usize = 1_000_000;
/// Exports of a module: each of its instances has a table of them.
pub const EXPORTS_MAX: usize = 1000;
/// Bytes of a command; longer ones are refused before the module sees them.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a text that a module gives.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Lists and objects within each other in it.
pub const TEXT_DEPTH_MAX: usize = 64;
/// Events that may follow from one command.
pub const EVENTS_MAX: usize = 64;
/// Bytes of an event.
pub const EVENT_BYTES_MAX: usize = 4096;
/// Characters of an explanation for a player; what is longer is cut.
pub const DETAIL_CHARS_MAX: usize = 500;
/// Bytes of an outcome's reason.
pub const REASON_BYTES_MAX: usize = 32;
/// Bytes of a line for the log; what is longer is cut.
pub const LINE_BYTES_MAX: usize = 1024;
/// Lines that wait to be taken; more are forgotten.
pub const LINES_MAX: usize = 32;

/// What a module's imports are called in.
pub(super) const HOST: &str = "gameserver";
/// The exported memory.
pub(super) const MEMORY: &str = "memory";

/// A function on the border.
pub struct Function {
    /// What it is called.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static [ValType],
    /// What it gives.
    pub gives: &'static [ValType],
    /// Whether each module exports it.
    pub required: bool,
}

use ValType::{I32, I64};

const fn required(
    name: &'static str,
    takes: &'static [ValType],
    gives: &'static [ValType],
) -> Function {
    Function { name, takes, gives, required: true }
}

const fn optional(
    name: &'static str,
    takes: &'static [ValType],
    gives: &'static [ValType],
) -> Function {
    Function { name, takes, gives, required: false }
}

/// What a module exports, but for its memory.
pub const EXPORTS: &[Function] = &[
    required("interface_version", &[], &[I32]),
    required("alloc", &[I32], &[I32]),
    required("info", &[], &[I64]),
    required("start", &[I32, I32], &[I64]),
    required("decide", &[I32, I32, I32], &[I64]),
    required("apply", &[I32, I32, I32], &[]),
    required("leave", &[I32, I32], &[]),
    required("view", &[I32], &[I64]),
    required("outcome", &[], &[I64]),
    optional("tick", &[], &[]),
    optional("audience", &[I32, I32, I32], &[I64]),
    optional("snapshot", &[], &[I64]),
    optional("restore", &[I32, I32], &[I32]),
    optional("commands", &[I32], &[I64]),
    optional("_initialize", &[], &[]),
];

/// What a module may import from `gameserver`.
pub const IMPORTS: &[Function] =
    &[optional("random", &[], &[I64]), optional("log", &[I32, I32], &[])];

/// Whether a module's exports and imports are those of the interface; an error says which is not.
pub(super) fn check(module: &Module) -> Result<(), String> {
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        let known = IMPORTS.iter().find(|function| from == HOST && function.name == name);
        let known = known.ok_or_else(|| {
            format!(
                "it imports {from}.{name}: a game may import {HOST}.random and {HOST}.log, and \
                 nothing else"
            )
        })?;
        check_type(import.ty(), known).map_err(|what| format!("import {from}.{name}: {what}"))?;
    }
    match module.get_export(MEMORY) {
        Some(ExternType::Memory(_)) => {}
        _ => return Err(format!("it exports no memory called {MEMORY:?}")),
    }
    for function in EXPORTS {
        match module.get_export(function.name) {
            Some(export) => check_type(&export, function)
                .map_err(|what| format!("export {}: {what}", function.name))?,
            None if function.required => {
                return Err(format!("it doesn't export {}", described(function)));
            }
            None => {}
        }
    }
    let exports = module.exports().count();
    if exports > EXPORTS_MAX {
        return Err(format!("it has {exports} exports; {EXPORTS_MAX} at most"));
    }
    if module.get_export("snapshot").is_some() != module.get_export("restore").is_some() {
        return Err("it exports one of snapshot and restore: both, or neither".into());
    }
    Ok(())
}

fn check_type(found: &ExternType, wanted: &Function) -> Result<(), String> {
    match found {
        ExternType::Func(found)
            if found.params() == wanted.takes && found.results() == wanted.gives =>
        {
            Ok(())
        }
        ExternType::Func(found) => {
            let found = signature(found);
            Err(format!("it is {found}, and should be {}", described(wanted)))
        }
        _ => Err(format!("it is no function: it should be {}", described(wanted))),
    }
}

fn described(function: &Function) -> String {
    let signature = FuncType::new(function.takes.to_vec(), function.gives.to_vec());
    format!("{}{}", function.name, self::signature(&signature))
}

/// A function's type as people write it: `(i32, i32) -> i64`.
fn signature(function: &FuncType) -> String {
    let words = |types: &[ValType]| {
        let words: Vec<String> = types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect();
        words.join(", ")
    };
    let gives = words(function.results());
    let gives = if gives.is_empty() { gives } else { format!(" -> {gives}") };
    format!("({}){gives}", words(function.params()))
}
