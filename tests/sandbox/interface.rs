//! `docs/plugin-interface.json` says what the server does.

use std::sync::{Arc, LazyLock};

use gameserver::games::wasm::Plugin;
use gameserver::games::wasm::interface::{self, EXPORTS, Function, IMPORTS, INTERFACE};
use gameserver::games::{Game, Seat};
use serde_json::{Value, json};

use crate::wat::{INFO, Module};
use crate::{raw, start};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../docs/plugin-interface.json")).unwrap()
});

/// What of a function is written down in code, too.
fn signature(function: &Value) -> Value {
    let types: Vec<_> =
        function["params"].as_array().unwrap().iter().map(|param| &param["type"]).collect();
    json!([function["name"], types, function["results"], function["required"]])
}

fn written(functions: &[Function]) -> Vec<Value> {
    let words = |types: &[_]| -> Vec<String> {
        types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect()
    };
    let signature = |function: &Function| {
        json!([function.name, words(function.takes), words(function.gives), function.required])
    };
    functions.iter().map(signature).collect()
}

#[test]
fn functions_and_bounds_are_those_of_the_server() {
    assert_eq!(DOCUMENT["interface"], INTERFACE);
    for (part, functions) in [("exports", EXPORTS), ("imports", IMPORTS)] {
        let documented: Vec<_> = DOCUMENT[part].as_array().unwrap().iter().map(signature).collect();
        assert_eq!(documented, written(functions), "{part}");
        for function in DOCUMENT[part].as_array().unwrap() {
            for text in ["takes", "gives"] {
                let schema = function.get(text).map(|place| place.as_str().unwrap());
                assert!(schema.is_none_or(|place| DOCUMENT.pointer(&place[1..]).is_some()));
            }
        }
    }
    let bounds = json!({
        "module_bytes": interface::MODULE_BYTES_MAX,
        "memory_bytes": interface::MEMORY_BYTES_MAX,
        "table_elements": interface::TABLE_ELEMENTS_MAX,
        "tables": interface::TABLES_MAX,
        "call_fuel": interface::CALL_FUEL,
        "entry_fuel": interface::ENTRY_FUEL,
        "calls_depth": interface::CALLS_DEPTH_MAX,
        "stack_bytes": interface::STACK_BYTES_MAX,
        "exports": interface::EXPORTS_MAX,
        "command_bytes": interface::COMMAND_BYTES_MAX,
        "text_bytes": interface::TEXT_BYTES_MAX,
        "text_depth": interface::TEXT_DEPTH_MAX,
        "events": interface::EVENTS_MAX,
        "event_bytes": interface::EVENT_BYTES_MAX,
        "detail_chars": interface::DETAIL_CHARS_MAX,
        "reason_bytes": interface::REASON_BYTES_MAX,
        "line_bytes": interface::LINE_BYTES_MAX,
        "lines": interface::LINES_MAX,
        "line_fuel": interface::LINE_FUEL,
        "locals": interface::LOCALS_MAX,
        // wasmi's own.
        "functions": 10_000,
        "mean_function_bytes_min": 40,
        "parameters": 32,
        "globals": 1000,
        "data_segments": 1000,
        "element_segments": 1000,
    });
    assert_eq!(DOCUMENT["bounds"], bounds);
}

/// Whether a value is as a schema says: as much of JSON Schema as there is in the document, but for
/// `pattern` and `uniqueItems`.
fn is_valid(schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return *schema == json!(true) };
    let length = || value.as_str().map(|text| text.chars().count() as u64);
    let items = || value.as_array().map(Vec::as_slice);
    keywords.iter().all(|(keyword, given)| match keyword.as_str() {
        "description" | "pattern" | "uniqueItems" => true,
        "$ref" => is_valid(DOCUMENT.pointer(&given.as_str().unwrap()[1..]).unwrap(), value),
        "type" => match given.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("{other}"),
        },
        "const" => value == given,
        "enum" => given.as_array().unwrap().contains(value),
        "minimum" => value.as_i64().is_none_or(|number| number >= given.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|number| number <= given.as_i64().unwrap()),
        "minLength" => length().is_none_or(|length| length >= given.as_u64().unwrap()),
        "maxLength" => length().is_none_or(|length| length <= given.as_u64().unwrap()),
        "minItems" => items().is_none_or(|items| items.len() as u64 >= given.as_u64().unwrap()),
        "maxItems" => items().is_none_or(|items| items.len() as u64 <= given.as_u64().unwrap()),
        "items" => items().is_none_or(|items| items.iter().all(|item| is_valid(given, item))),
        "required" => {
            let names = given.as_array().unwrap();
            value.is_object()
                && names.iter().all(|name| value.get(name.as_str().unwrap()).is_some())
        }
        "properties" => given.as_object().unwrap().iter().all(|(name, schema)| {
            value.get(name).is_none_or(|property| is_valid(schema, property))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            object.keys().all(|name| keywords["properties"].get(name).is_some())
        }),
        "oneOf" => {
            let schemas = given.as_array().unwrap();
            schemas.iter().filter(|schema| is_valid(schema, value)).count() == 1
        }
        other => panic!("{other}"),
    })
}

/// Whether a text is as the document says.
fn is_documented(name: &str, text: &str) -> bool {
    let schema = &DOCUMENT["schemas"]["$defs"][name];
    assert!(schema.is_object(), "{name}");
    serde_json::from_str(text).is_ok_and(|value| is_valid(schema, &value))
}

#[test]
fn an_info_is_taken_if_it_is_as_documented() {
    let with = |from: &str, to: &str| {
        assert!(INFO.contains(from), "{from}");
        INFO.replacen(from, to, 1)
    };
    let turns = "\"mode\":\"turns\"";
    let (mut taken, mut refused) = (0, 0);
    for info in [
        INFO.into(),
        with("\"one_view\":true", "\"grace_seconds\":3600"),
        with("\"one_view\":true", "\"grace_seconds\":3601"),
        with("\"one_view\":true", "\"grace_seconds\":0"),
        with("\"one_view\":true", "\"one_view\":1"),
        with(",\"default_players\":2", ""),
        with("\"max_players\":3", "\"max_players\":64"),
        with("\"max_players\":3", "\"max_players\":65"),
        with("\"min_players\":1", "\"min_players\":0"),
        with("\"min_players\":1,", ""),
        with(turns, "\"mode\":\"ticks\",\"tick_hz\":60"),
        with(turns, "\"mode\":\"ticks\",\"tick_hz\":61"),
        with(turns, "\"mode\":\"ticks\""),
        with(turns, "\"mode\":\"turns\",\"tick_hz\":1"),
        with(turns, "\"mode\":\"relay\""),
        with(turns, "\"mode\":\"turns\",\"more\":1"),
        with("\"Count\"", "\"\""),
        with("\"Count\"", &format!("{:?}", "ä".repeat(64))),
        with("\"Count\"", &format!("{:?}", "ä".repeat(65))),
        with("Count to ten.", &"ä".repeat(501)),
        with("{", ""),
    ] {
        let module = Module::new().with("tick", "").gives("info", &info);
        let is_taken = Plugin::load("count", &module.bytes()).is_ok();
        assert_eq!(is_taken, is_documented("info", &info), "{info}");
        *(if is_taken { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 4 && refused > 10);
}

#[test]
fn an_answer_is_taken_if_it_is_as_documented() {
    let many = |count: usize| format!("{{\"events\":[{}]}}", vec!["{}"; count].join(","));
    for (function, schema, texts) in [
        (
            "decide",
            "decision",
            vec![
                many(0),
                many(1),
                many(64),
                many(65),
                r#"{"refused":"not_your_turn"}"#.into(),
                r#"{"refused":"illegal_move","detail":"no"}"#.into(),
                r#"{"refused":"bad_command","detail":1}"#.into(),
                r#"{"refused":"why"}"#.into(),
                r#"{"refused":"bad_command","events":[1]}"#.into(),
                "{}".into(),
                "[]".into(),
            ],
        ),
        (
            "audience",
            "audience",
            vec![
                r#"{"except":1}"#.into(),
                r#"{"except":-1}"#.into(),
                r#"{"only":[]}"#.into(),
                r#"{"only":[0,63]}"#.into(),
                r#"{"only":0}"#.into(),
                r#"{"only":[0],"except":1}"#.into(),
                "{}".into(),
            ],
        ),
        (
            "outcome",
            "outcome",
            vec![
                r#"{"winners":[0],"draw":false,"reason":"completed"}"#.into(),
                r#"{"winners":[],"draw":false,"reason":"a-B_9"}"#.into(),
                r#"{"winners":[],"draw":true,"reason":"x"}"#.into(),
                r#"{"winners":[0],"draw":true,"reason":"x"}"#.into(),
                r#"{"winners":[-1],"draw":false,"reason":"x"}"#.into(),
                r#"{"winners":[],"draw":true,"reason":""}"#.into(),
                format!(r#"{{"winners":[],"draw":true,"reason":"{}"}}"#, "x".repeat(32)),
                format!(r#"{{"winners":[],"draw":true,"reason":"{}"}}"#, "x".repeat(33)),
                r#"{"winners":[],"draw":true}"#.into(),
            ],
        ),
    ] {
        let mut taken = 0;
        for text in &texts {
            let module =
                Module::new().with("audience", "(i64.const 0)").gives_later(function, text);
            let plugin = Arc::new(Plugin::load("count", &module.bytes()).unwrap());
            let mut game: Box<dyn Game> = start(&plugin);
            game.apply(None, &raw("1"));
            match function {
                "decide" => drop(game.decide(Seat(0), &raw("1"))),
                "audience" => drop(game.audience(None, &raw("1"))),
                _ => drop(game.outcome()),
            }
            let is_taken = game.failure().is_none();
            assert_eq!(is_taken, is_documented(schema, text), "{text}: {:?}", game.failure());
            taken += usize::from(is_taken);
        }
        assert!((1..texts.len()).contains(&taken));
    }
}
