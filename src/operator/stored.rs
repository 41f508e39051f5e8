//! A Gameserver as it is stored: one from before the schema was as it is may be unreadable. That is
//! told of the object itself, and holds up no other.

use std::borrow::Cow;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};

use super::crd::{Gameserver, GameserverSpec, GameserverStatus};

/// An object, or why there is none to be read.
#[derive(Clone, Debug)]
pub struct Stored(pub Result<Gameserver, Unreadable>);

/// An object that can't be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Whose problem it is.
    pub metadata: ObjectMeta,
    /// What was said of it last.
    pub status: Option<GameserverStatus>,
    /// Which fields can't be read, and why.
    pub problem: String,
    /// See [`least`].
    pub least: Value,
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut stored = Value::deserialize(deserializer)?;
        // One that can't be read is written anew.
        let status = stored.as_object_mut().and_then(|stored| stored.remove("status"));
        let status = status.and_then(|status| serde_json::from_value(status).ok());
        let error = match Gameserver::deserialize(&stored) {
            Ok(object) => return Ok(Self(Ok(Gameserver { status, ..object }))),
            Err(error) => error,
        };
        let spec = &stored["spec"];
        let problems: Vec<String> =
            fields(spec).filter_map(|(name, value)| problem(name, value)).collect();
        // What is lacking has a name already.
        let problem = if problems.is_empty() { error.to_string() } else { problems.join("; ") };
        let metadata = ObjectMeta::deserialize(&stored["metadata"]).map_err(de::Error::custom)?;
        Ok(Self(Err(Unreadable { metadata, status, problem, least: least(spec) })))
    }
}

/// The merge patch that leaves of a spec what the API server has to take: one that breaks a rule is
/// not let go either.
pub fn least(spec: &Value) -> Value {
    let mut least = nothing(spec);
    least["image"] = json!("none");
    if spec["database"].is_object() {
        least["database"] = least_database(&spec["database"]);
    }
    least
}

/// The same of a database, whose kind and size may not change.
fn least_database(database: &Value) -> Value {
    let managed = &database["managed"];
    if managed.is_null() {
        let secret = json!({ "name": "none", "key": null });
        return json!({ "external": { "secretRef": secret }, "managed": null });
    }
    let mut least = nothing(managed);
    if managed["size"].is_string() {
        least["size"] = managed["size"].clone();
    }
    json!({ "external": null, "managed": least })
}

/// The merge patch that takes all fields away.
fn nothing(of: &Value) -> Value {
    fields(of).map(|(name, _)| (name.clone(), Value::Null)).collect::<Map<_, _>>().into()
}

fn fields(spec: &Value) -> impl Iterator<Item = (&String, &Value)> {
    spec.as_object().into_iter().flatten()
}

/// Why a field can't be read, with its name, which the error of the whole lacks.
fn problem(name: &str, value: &Value) -> Option<String> {
    let mut alone = json!({ "image": "any" });
    alone[name] = value.clone();
    let error = GameserverSpec::deserialize(&alone).err()?;
    Some(format!("spec.{name}: {error}"))
}

impl Resource for Stored {
    type DynamicType = ();
    type Scope = <Gameserver as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Gameserver::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Gameserver::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Gameserver::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Gameserver::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, Gameserver::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, Gameserver::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &Value) -> Stored {
        serde_json::from_value(json!({ "metadata": { "name": "play" }, "spec": spec })).unwrap()
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        let broken = read(&json!({"image": "i", "replicas": "many", "update": {"maxSurge": {}}}));
        assert_eq!(broken.meta().name.as_deref(), Some("play"));
        let problem = broken.0.unwrap_err().problem;
        let told = r#"spec.replicas: invalid type: string "many", expected i32; spec.update: invalid type: map, expected i32"#;
        assert_eq!(problem, told);
        let problem = read(&json!({"replicas": 1})).0.unwrap_err().problem;
        assert_eq!(problem, "missing field `image`");
        assert_eq!(read(&json!({"image": "i"})).0.unwrap().spec.replicas, 1);
    }

    #[test]
    fn a_status_stays_if_it_can_be_read_and_holds_up_no_spec() {
        let stored = |replicas: Value, status: Value| -> Stored {
            let spec = json!({"image": "i", "replicas": replicas});
            let metadata = json!({"name": "play"});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
                .unwrap()
        };
        let known = json!({"observedGeneration": 3, "currentRevision": "abc"});
        let revision =
            |status: Option<GameserverStatus>| status.and_then(|one| one.current_revision);
        let unreadable = stored(json!("many"), known.clone()).0.unwrap_err();
        assert_eq!(revision(unreadable.status).as_deref(), Some("abc"));
        let readable = stored(json!(2), known).0.unwrap();
        assert_eq!(revision(readable.status).as_deref(), Some("abc"));
        let odd = stored(json!(2), json!({"replicas": "many"})).0.unwrap();
        assert_eq!((odd.spec.replicas, odd.status), (2, None));
        assert_eq!(stored(json!("many"), json!("odd")).0.unwrap_err().status, None);
    }

    #[test]
    fn a_database_stays_of_its_kind_and_size() {
        let managed = json!({"image": "i", "replicas": "many", "database": {"managed": {}}});
        let database = json!({"managed": {}, "external": null});
        assert_eq!(
            least(&managed),
            json!({"image": "none", "replicas": null, "database": database})
        );
        let broken = json!({"database": "managed"});
        assert_eq!(least(&broken), json!({"image": "none", "database": null}));
        assert_eq!(least(&json!("nothing")), json!({"image": "none"}));
        let both = json!({"managed": {"size": "2Gi", "runAsUser": 0}, "external": {}});
        let managed = json!({"size": "2Gi", "runAsUser": null});
        assert_eq!(least_database(&both), json!({"managed": managed, "external": null}));
        let sized = json!({"managed": {"size": 2}});
        assert_eq!(least_database(&sized)["managed"], json!({"size": null}));
        let external = json!({"secretRef": {"name": "none", "key": null}});
        for kind in [json!({}), json!({"external": {"secretRef": 1}})] {
            assert_eq!(least_database(&kind), json!({"managed": null, "external": external}));
        }
    }
}
