//! A small game in WebAssembly's text format, part by part: what tests of plugins vary.
//!
//! Whoever sends `1` counts up by one, and whoever leaves by ten; from ten on it is over. The count is
//! all that there is to see: a letter, from `a` on.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Functions: their types, and what they are unless a test says otherwise.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("interface_version", "(result i32)", "(i32.const 1)"),
    ("alloc", "(param $length i32) (result i32)", "(i32.const 65536)"),
    ("info", "(result i64)", ""),
    ("start", "(param $at i32) (param $length i32) (result i64)", "(i64.const 0)"),
    ("decide", "(param $seat i32) (param $at i32) (param $length i32) (result i64)", ""),
    (
        "apply",
        "(param $seat i32) (param $at i32) (param $length i32)",
        "(global.set $count (i32.add (global.get $count) (i32.const 1)))",
    ),
    (
        "leave",
        "(param $seat i32) (param $why i32)",
        "(global.set $count (i32.add (global.get $count) (i32.const 10)))",
    ),
    ("view", "(param $seat i32) (result i64)", COUNT),
    ("outcome", "(result i64)", ""),
    ("snapshot", "(result i64)", COUNT),
    (
        "restore",
        "(param $at i32) (param $length i32) (result i32)",
        "(global.set $count (i32.sub (i32.load8_u (i32.add (local.get $at) (i32.const 1)))
            (i32.const 97)))
         (i32.const 1)",
    ),
    ("commands", "(param $seat i32) (result i64)", ""),
    // Not there, unless a test says what they are.
    ("tick", "", ABSENT),
    ("audience", "(param $seat i32) (param $at i32) (param $length i32) (result i64)", ABSENT),
    ("_initialize", "", ABSENT),
];

/// Gives the count as JSON, three bytes at the address 8.
pub const COUNT: &str = "(i32.store8 (i32.const 9) (i32.add (global.get $count) (i32.const 97)))
    (i64.const 0x0000_0008_0000_0003)";
/// What `info` gives.
pub const INFO: &str = r#"{"title":"Count","description":"Count to ten.","min_players":1,"max_players":3,"default_players":2,"mode":"turns","one_view":true}"#;
const ABSENT: &str = "absent";
/// Where texts begin.
const TEXTS: usize = 1024;

/// A module.
pub struct Module {
    functions: BTreeMap<&'static str, String>,
    imports: String,
    memory: String,
    info: String,
    more: String,
    texts: usize,
}

impl Module {
    /// The game as it is meant.
    pub fn new() -> Self {
        let functions = FUNCTIONS.iter().map(|(name, _, body)| (*name, (*body).to_owned()));
        let mut module = Self {
            functions: functions.collect(),
            imports: String::new(),
            memory: "(memory (export \"memory\") 2)".into(),
            info: INFO.into(),
            more: "(global $count (mut i32) (i32.const 0))
                   (data (i32.const 8) \"\\22a\\22\")"
                .into(),
            texts: TEXTS,
        };
        let events = module.text(r#"{"events":[1]}"#);
        let refused = module.text(r#"{"refused":"bad_command","detail":"it takes 1"}"#);
        let outcome = module.text(r#"{"winners":[0],"draw":false,"reason":"completed"}"#);
        let decide = format!(
            "(if (result i64)
                (i32.and (i32.eq (i32.load8_u (local.get $at)) (i32.const 49))
                         (i32.eq (local.get $length) (i32.const 1)))
                (then {events}) (else {refused}))"
        );
        let over = format!(
            "(if (result i64) (i32.ge_u (global.get $count) (i32.const 10))
                (then {outcome}) (else (i64.const 0)))"
        );
        module
            .with("decide", decide)
            .with("outcome", over)
            .gives("info", INFO)
            .gives("commands", "[1]")
    }

    /// With another body of a function.
    pub fn with(mut self, function: &'static str, body: impl Into<String>) -> Self {
        assert!(self.functions.insert(function, body.into()).is_some(), "{function}");
        self
    }

    /// A function does this first.
    pub fn first(self, function: &'static str, first: &str) -> Self {
        let body = format!("{first}\n{}", self.functions[function]);
        self.with(function, body)
    }

    /// Without a function.
    pub fn without(self, function: &'static str) -> Self {
        self.with(function, ABSENT)
    }

    /// A function that gives a text.
    pub fn gives(mut self, function: &'static str, text: impl AsRef<[u8]>) -> Self {
        let body = self.text(text);
        self.with(function, body)
    }

    /// The same, once there was an event: modules are tried before they are offered.
    pub fn gives_later(mut self, function: &'static str, text: impl AsRef<[u8]>) -> Self {
        let text = self.text(text);
        self.first(function, &format!("(if (global.get $count) (then (return {text})))"))
    }

    /// With something else in `info`.
    pub fn info(self, from: &str, to: &str) -> Self {
        assert!(self.info.contains(from), "{from}");
        let info = self.info.replacen(from, to, 1);
        Self { info: info.clone(), ..self }.gives("info", info)
    }

    pub fn imports(mut self, imports: &str) -> Self {
        self.imports.push_str(imports);
        self
    }

    pub fn memory(mut self, memory: &str) -> Self {
        self.memory = memory.into();
        self
    }

    /// With more definitions.
    pub fn more(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    /// Puts a text into memory; an expression that gives it.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> String {
        let (text, at) = (text.as_ref(), self.texts);
        let _ = write!(self.more, "(data (i32.const {at}) \"");
        for byte in text {
            let _ = write!(self.more, "\\{byte:02x}");
        }
        self.more.push_str("\")\n");
        self.texts += text.len();
        format!("(i64.const {})", (at << 32) | text.len())
    }

    /// The text.
    pub fn wat(&self) -> String {
        let Self { functions, imports, memory, more, .. } = self;
        let mut wat = format!("(module {imports}\n{memory}\n{more}\n");
        for (name, ty, _) in FUNCTIONS {
            let body = &functions[name];
            if body != ABSENT {
                let _ = writeln!(wat, "(func ${name} (export {name:?}) {ty}\n{body})");
            }
        }
        wat + ")"
    }

    /// The module.
    pub fn bytes(&self) -> Vec<u8> {
        let wat = self.wat();
        wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
    }
}
