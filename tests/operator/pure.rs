//! Spec in, objects out: what the operator would make of the samples in `deploy/`.
//!
//! After a change that is meant: `GOLDEN=write cargo test … --test operator pure`, and read the diff.

use std::fs;
use std::path::Path;

use gameserver::operator::crd::{self, Gameserver};
use gameserver::operator::desired::{self, Desired, Keyed, Seen};
use gameserver::operator::pods::LOAD_FIGURES;
use gameserver::operator::settings;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, or what it would have to be if it is to be written.
fn assert_golden(path: &Path, text: &str) {
    if std::env::var("GOLDEN").is_ok_and(|golden| golden == "write") {
        fs::write(path, text).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap();
    assert!(golden == text, "{} differs from what is generated:\n{text}", path.display());
}

/// The Gameserver of a sample.
pub fn sample(name: &str) -> Gameserver {
    let path = root().join("deploy/samples").join(name);
    let text = fs::read_to_string(path).unwrap();
    let document = text.split("---\n").find(|part| part.contains("kind: Gameserver")).unwrap();
    let mut object: Gameserver = serde_saphyr::from_str(document).unwrap();
    object.metadata.namespace = Some("games".into());
    object.metadata.uid = Some("4d2b1a7e-0000-0000-0000-000000000000".into());
    object
}

fn seen(object: &Gameserver) -> Seen {
    let keyed = |name: &str, key: &str| Keyed {
        name: name.into(),
        key: key.into(),
        digest: "0123456789".into(),
    };
    let managed = object.spec.database.managed.is_some();
    let url = if managed { "play-database" } else { "play-postgres" };
    Seen {
        database_url: Some(keyed(url, "url")),
        keys: Some(keyed("play-keys", "keys.pem")),
        database_password: managed.then(|| "secret".into()),
        database_ip: managed.then(|| "10.96.0.7".into()),
        plugins: object
            .spec
            .games
            .iter()
            .filter(|game| game.wasm.is_some())
            .map(|game| (game.name.clone(), "abcdef".into()))
            .collect(),
    }
}

/// Everything that is made for a sample, as one text.
fn made(name: &str) -> String {
    let object = sample(name);
    assert_eq!(object.problems(), Vec::<String>::new(), "{name}");
    let seen = seen(&object);
    let mut all: Vec<Value> = Vec::new();
    for wanted in desired::objects(&object, &seen) {
        match wanted {
            Desired::Present(object) => all.push(object),
            Desired::Absent(kind, name) => all.push(json!({ "absent": kind, "name": name })),
        }
    }
    let url = seen.database_url.as_ref().unwrap();
    all.extend(desired::restore(&object, url));
    all.push(desired::migration(&object, url));
    let template = desired::template(&object, &seen).unwrap();
    let revision = desired::digest(&template);
    all.push(desired::pod(&object, &template, &revision, 0));
    let texts: Vec<String> = all.iter().map(|one| serde_saphyr::to_string(one).unwrap()).collect();
    texts.join("---\n")
}

#[test]
fn samples_become_these_objects() {
    for name in ["smallest.yaml", "production.yaml", "plugin.yaml", "external-database.yaml"] {
        assert_golden(&root().join("tests/operator/golden").join(name), &made(name));
    }
}

#[test]
fn the_definition_is_the_generated_one() {
    assert_golden(&root().join("deploy/crd.yaml"), &crd::crd_yaml());
}

#[test]
fn every_pod_is_locked_down() {
    for name in ["smallest.yaml", "production.yaml", "plugin.yaml"] {
        for document in made(name).split("---\n").filter(|one| one.contains("containers:")) {
            for rule in [
                "enableServiceLinks: false",
                "automountServiceAccountToken: false",
                "runAsNonRoot: true",
                "readOnlyRootFilesystem: true",
                "allowPrivilegeEscalation: false",
                "type: RuntimeDefault",
                "- ALL",
            ] {
                assert!(document.contains(rule), "{name} lacks {rule}:\n{document}");
            }
            assert!(!document.contains("preStop"), "{document}");
        }
    }
}

#[test]
fn a_revision_changes_with_what_pods_depend_on_and_with_nothing_else() {
    let object = sample("smallest.yaml");
    let revision = |object: &Gameserver, seen: &Seen| {
        desired::digest(&desired::template(object, seen).unwrap())
    };
    let first = revision(&object, &seen(&object));
    let changed = |change: &dyn Fn(&mut Gameserver)| {
        let mut object = object.clone();
        change(&mut object);
        revision(&object, &seen(&object)) != first
    };
    assert!(changed(&|object| object.spec.image = "gameserver:2".into()));
    assert!(changed(&|object| {
        object.spec.config.insert("GAMESERVER_LOG".into(), "debug".into());
    }));
    assert!(!changed(&|object| object.spec.replicas = 7));
    assert!(!changed(&|object| object.spec.service.port = 81));
    assert!(!changed(&|object| object.metadata.uid = Some("another".into())));
    let mut rotated = seen(&object);
    rotated.keys.as_mut().unwrap().digest = "another".into();
    assert_ne!(revision(&object, &rotated), first);
    assert_eq!(desired::template(&object, &Seen::default()), None);
}

#[test]
fn every_setting_of_the_server_is_known() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `GAMESERVER_"));
    let of_server: Vec<String> =
        rows.map(|row| format!("GAMESERVER_{}", row.split('`').next().unwrap())).collect();
    assert!(of_server.len() > 20, "{of_server:?}");
    let own = settings::OWN.iter().map(|(name, _)| *name);
    let known: Vec<&str> = settings::CONFIGURABLE.iter().copied().chain(own).collect();
    for name in &of_server {
        assert!(known.contains(&name.as_str()), "the operator does not know {name}");
    }
    let life =
        format!("| `GAMESERVER_ACCESS_TOKEN_SECONDS` | `{}` |", settings::ACCESS_TOKEN_SECONDS);
    let row = readme.lines().find(|line| line.starts_with(&life)).expect(&life);
    let (from, to) = settings::ACCESS_TOKEN_SECONDS_RANGE.into_inner();
    assert!(row.replace(',', "").contains(&format!("{from} to {to}")), "{row}");
    for name in &known {
        assert!(of_server.iter().any(|of| of == name), "the server has no {name} any more");
    }
}

#[test]
fn the_figures_of_the_load_are_ones_that_the_server_gives() {
    let figures = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    for name in LOAD_FIGURES {
        assert!(figures.contains(&format!("| `{name}` | gauge |")), "the server has no {name}");
    }
}

#[test]
fn what_the_schema_can_not_know_is_said_with_its_field() {
    let mut object = sample("smallest.yaml");
    object.spec.config.insert("GAMESERVER_COLOUR".into(), "red".into());
    object.spec.config.insert("GAMESERVER_DATABASE_URL_FILE".into(), "/x".into());
    object.spec.database.managed = None;
    let plugin = |name: &str, wasm| serde_json::from_value(json!({"name": name, "wasm": wasm}));
    object.spec.games = vec![
        plugin("a", json!({"file": "/games/a.wasm", "sha256": "0"})).unwrap(),
        plugin("b", json!({"configMapKeyRef": {"name": "b", "key": "b.wasm"}})).unwrap(),
    ];
    assert_eq!(
        object.problems(),
        [
            "spec.database is either external or managed",
            "spec.games[].wasm.sha256 is for configMapKeyRef: pin the image of a file by its digest",
            "spec.games[].wasm: plugins are all of ConfigMaps, or all files of one directory",
            "spec.config has GAMESERVER_COLOUR: this operator's server has no such setting",
            "spec.config has GAMESERVER_DATABASE_URL_FILE: use spec.database",
        ]
    );
}
