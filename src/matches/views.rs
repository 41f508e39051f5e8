//! Views of a `ticks` game on their way to sockets: encoded once for all who see the same, and as
//! differences for those who asked for them.
//!
//! A difference is a JSON merge patch (RFC 7386) from the view before. It is made of the two texts as
//! they are: what has not changed is compared and passed over, and nothing is built of it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::games::Viewer;
use crate::protocol::{Frame, ServerMessage};

/// Members of an object whose order may have changed; of a larger one the whole view is sent, since
/// each would have to be looked for.
const UNORDERED_MEMBERS_MAX: usize = 64;

/// The latest view of those who see the same.
pub(super) struct Shown {
    /// One of them.
    pub viewer: Viewer,
    /// After which step.
    pub tick: u64,
    view: Box<RawValue>,
}

/// A new view, in the forms that sockets ask for.
pub(super) struct News<'a> {
    seq: u64,
    tick: u64,
    view: &'a RawValue,
    before: Option<&'a Shown>,
    whole: OnceCell<Arc<Frame>>,
    difference: OnceCell<Option<Arc<Frame>>>,
}

impl Shown {
    pub fn new(viewer: Viewer, tick: u64, view: Box<RawValue>) -> Self {
        Self { viewer, tick, view }
    }

    /// Whether there is nothing to tell.
    pub fn is(&self, view: &RawValue) -> bool {
        self.view.get() == view.get()
    }
}

impl<'a> News<'a> {
    pub fn new(seq: u64, tick: u64, view: &'a RawValue, before: Option<&'a Shown>) -> Self {
        let (whole, difference) = (OnceCell::new(), OnceCell::new());
        Self { seq, tick, view, before, whole, difference }
    }

    /// For whoever has any other view, or none.
    pub fn whole(&self) -> Arc<Frame> {
        let whole = || {
            let (seq, tick, view) = (self.seq, self.tick, Some(self.view));
            Frame::message(&ServerMessage::View { seq, tick, view, base: None, patch: None })
        };
        Arc::clone(self.whole.get_or_init(whole))
    }

    /// For whoever has the view before; the whole one where that is no longer.
    pub fn difference(&self) -> Arc<Frame> {
        let difference = || {
            let before = self.before?;
            let patch = to_raw_value(&patch(&before.view, self.view)?).ok()?;
            let smaller = patch.get().len() < self.view.get().len();
            let (seq, tick, base, patch) = (self.seq, self.tick, Some(before.tick), Some(&*patch));
            let message = ServerMessage::View { seq, tick, view: None, base, patch };
            smaller.then(|| Frame::message(&message))
        };
        let difference = self.difference.get_or_init(difference).as_ref();
        difference.map_or_else(|| self.whole(), Arc::clone)
    }
}

/// What of an object changes.
#[derive(Debug)]
struct Patch<'a>(Vec<(Cow<'a, str>, Change<'a>)>);

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Change<'a> {
    Set(&'a RawValue),
    Within(Patch<'a>),
    /// Written as null, which is why a view with a new null in an object has no difference.
    Gone,
}

impl Serialize for Patch<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, change)| (name, change)))
    }
}

/// What makes `new` of `old`; `None` where no merge patch does, or finding it is too much work.
fn patch<'a>(old: &'a RawValue, new: &'a RawValue) -> Option<Patch<'a>> {
    let (Members(old), Members(new)) = (members(old)?, members(new)?);
    let find = |within: &[(Cow<str>, &'a RawValue)], place: usize, name: &str| {
        let here = within.get(place).filter(|(other, _)| other == name);
        let unordered = || {
            let few = within.len() <= UNORDERED_MEMBERS_MAX;
            few.then(|| within.iter().find(|(other, _)| other == name))
        };
        here.map_or_else(unordered, |here| Some(Some(here))).map(|found| found.map(|(_, v)| *v))
    };
    let mut changes = Vec::new();
    for (place, (name, value)) in new.iter().enumerate() {
        let change = match find(&old, place, name)? {
            Some(before) if before.get() == value.get() => continue,
            Some(before) if is_object(before) && is_object(value) => {
                Change::Within(patch(before, value)?)
            }
            _ if has_null(value)? => return None,
            _ => Change::Set(value),
        };
        changes.push((name.clone(), change));
    }
    for (place, (name, _)) in old.iter().enumerate() {
        if find(&new, place, name)?.is_none() {
            changes.push((name.clone(), Change::Gone));
        }
    }
    Some(Patch(changes))
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Whether the value is null or an object with a null in it, which a merge patch can't set; what
/// stands in arrays does not matter. `None`: it could not be looked at.
fn has_null(value: &RawValue) -> Option<bool> {
    if value.get() == "null" {
        return Some(true);
    }
    if !is_object(value) || !value.get().contains("null") {
        return Some(false);
    }
    for (_, value) in members(value)?.0 {
        if has_null(value)? {
            return Some(true);
        }
    }
    Some(false)
}

/// An object's members in their order, as they are.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name, which is copied only if it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn members(object: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(object.get()).ok()
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Walk;

        impl<'de> Visitor<'de> for Walk {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Walk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    /// RFC 7386, section 2, as it stands there.
    fn merged(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let Value::Object(mut target) = (if target.is_object() { target } else { json!({}) })
        else {
            unreachable!()
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let inner = merged(target.remove(name).unwrap_or_default(), value);
                target.insert(name.clone(), inner);
            }
        }
        Value::Object(target)
    }

    fn difference(old: &Value, new: &Value) -> Option<Value> {
        let [old, new] = [old, new].map(|value| to_raw_value(value).unwrap());
        let patch = patch(&old, &new)?;
        Some(serde_json::to_value(&patch).unwrap())
    }

    /// Values whose objects share names, so that they can differ by little.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_u8).prop_map(Value::from),
            prop::sample::select(vec!["", "null", "\"\\"]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                objects(inner),
            ]
        })
    }

    fn objects(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["a", "b", "\"", "ü"]).prop_map(str::to_owned);
        prop::collection::btree_map(name, inner, 0..4)
            .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_view_to_the_next(
            old in objects(values()), new in objects(values()),
        ) {
            if let Some(patch) = difference(&old, &new) {
                prop_assert_eq!(merged(old, &patch), new);
            } else {
                prop_assert!(new.to_string().contains("null"), "{} {}", old, new);
            }
        }
    }

    #[test]
    fn what_stays_is_not_told_and_what_goes_is() {
        let old = json!({"a": [1, null], "b": {"c": 1, "d": 2}, "e": null, "f": 1});
        let new = json!({"a": [null], "b": {"c": 1, "d": 3}, "e": null});
        let patch = json!({"a": [null], "b": {"d": 3}, "f": null});
        assert_eq!(difference(&old, &new), Some(patch));
        assert_eq!(difference(&old, &json!({"a": null})), None, "a null can't be set");
        assert!(difference(&json!({}), &json!({"a": {"b": [{"c": null}]}})).is_some());
        assert_eq!(difference(&json!({}), &json!({"a": {"b": {"c": null}}})), None);
        assert_eq!(difference(&json!([1]), &json!([2])), None, "a view that is no object");
    }

    #[test]
    fn an_order_that_changes_costs_no_more_than_is_worth_it() {
        let object = |names: &mut dyn Iterator<Item = u32>| {
            let members: Vec<String> = names.map(|name| format!("\"{name}\":{name}")).collect();
            RawValue::from_string(format!("{{{}}}", members.join(","))).unwrap()
        };
        let [few, back] = [object(&mut (0..60)), object(&mut (0..60).rev())];
        assert!(patch(&few, &back).unwrap().0.is_empty());
        let [many, back] = [object(&mut (0..65)), object(&mut (0..65).rev())];
        assert!(patch(&many, &back).is_none());
        assert!(patch(&many, &many).unwrap().0.is_empty());
    }

    #[test]
    fn the_whole_view_is_sent_where_the_difference_is_no_smaller() {
        let text = |frame: Arc<Frame>| {
            let bytes = frame.bytes(crate::protocol::Codec::Json);
            let start = bytes.iter().position(|byte| *byte == b'{').unwrap();
            serde_json::from_slice::<Value>(&bytes[start..]).unwrap()
        };
        let shown = |view: &Value| Shown::new(Viewer::Spectator, 4, to_raw_value(view).unwrap());
        let long = "x".repeat(20);
        let (old, new) = (shown(&json!({"a": 1, "b": long})), json!({"a": 2, "b": long}));
        let view = to_raw_value(&new).unwrap();
        let news = News::new(9, 5, &view, Some(&old));
        let patch = json!({"type": "view", "seq": 9, "tick": 5, "base": 4, "patch": {"a": 2}});
        assert_eq!(text(news.difference()), patch);
        let whole = json!({"type": "view", "seq": 9, "tick": 5, "view": new});
        assert_eq!(text(news.whole()), whole);
        let other = shown(&json!({}));
        assert_eq!(text(News::new(9, 5, &view, Some(&other)).difference()), whole);
        assert_eq!(text(News::new(9, 5, &view, None).difference()), whole);
    }
}
