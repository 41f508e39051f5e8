//! Rotation of the keys of access tokens: a pure function of the Secret with them and of how far
//! they have come.
//!
//! No pod may get a token whose key it does not know, and none may be refused before it expires. So
//! `keys.pem` changes three times, and each time all pods have it before it changes again:
//!
//! | it holds | pods sign with | it changes when |
//! | --- | --- | --- |
//! | old, new | old | all pods know the new key |
//! | new, old | new | all sign with it, and the last token of the old one has expired |
//! | new | new | somebody asks for another |
//!
//! How far that is stands in the Secret's annotations, written together with the keys: whoever leads
//! next goes on from there.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::crd::Gameserver;
use super::desired::PEM_KEY;
use super::keys::new_key_pem;
use super::settings;
use super::status::Why;

/// The annotation of a Gameserver that asks for a new key: whenever its value is another.
pub const ROTATE_ANNOTATION: &str = "gameserver.com/rotate-keys";
/// Of the Secret: the value that was heard last.
const HEARD: &str = "gameserver.com/rotated-for";
/// Of the Secret: [`ADDED`] or [`SIGNING`] while a rotation is under way.
const STAGE: &str = "gameserver.com/rotation";
/// Of the Secret: when the old keys go.
const UNTIL: &str = "gameserver.com/old-keys-until";
/// Of the Secret: the longest life, in seconds, that tokens of these keys may have been given.
const LIFE: &str = "gameserver.com/token-seconds";
const ADDED: &str = "added";
const SIGNING: &str = "signing";

/// How much longer an old key stays than the last token that it signed: clocks differ.
const OLD_KEY_MARGIN: Duration = Duration::from_secs(300);

/// The Secret with keys that the operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The keys; the first signs, all verify.
    pub pem: String,
    heard: Option<String>,
    stage: Stage,
    /// The longest that a token of these keys may live: one that was made before the setting was
    /// shortened lives as long as it was to.
    life: Duration,
    /// Of the Secret that was read: it may not have changed since.
    pub resource_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Settled,
    Added,
    Signing(Option<Timestamp>),
}

/// What to do about the keys.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until somebody asks or pods have changed.
    Rest,
    /// Nothing, for so long.
    Wait(Duration),
    /// Write this, and tell.
    Write(Kept, Why),
}

impl Kept {
    /// The first keys of a Gameserver.
    pub fn first(object: &Gameserver) -> Self {
        let heard = asked(object).map(str::to_owned);
        let life = settings::access_token_life(&object.spec.config);
        Self { pem: new_key_pem(), heard, stage: Stage::Settled, life, resource_version: None }
    }

    /// What a Secret holds, if it holds keys.
    pub fn of(secret: &Secret) -> Option<Self> {
        let pem = String::from_utf8(secret.data.as_ref()?.get(PEM_KEY)?.0.clone()).ok()?;
        let annotation = |name: &str| secret.annotations().get(name).cloned();
        let until = annotation(UNTIL).and_then(|until| until.parse().ok());
        let stage = match annotation(STAGE).as_deref() {
            Some(ADDED) => Stage::Added,
            Some(SIGNING) => Stage::Signing(until),
            _ => Stage::Settled,
        };
        // Somebody may have changed it: no server gives a token more.
        let life = annotation(LIFE).and_then(|life| life.parse().ok()).unwrap_or(0);
        let life = Duration::from_secs(life.min(*settings::ACCESS_TOKEN_SECONDS_RANGE.end()));
        let (heard, resource_version) = (annotation(HEARD), secret.resource_version());
        (!pem.is_empty()).then_some(Self { pem, heard, stage, life, resource_version })
    }

    /// The annotations that say how far it is.
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        let (stage, until) = match self.stage {
            Stage::Settled => (None, None),
            Stage::Added => (Some(ADDED), None),
            Stage::Signing(until) => (Some(SIGNING), until),
        };
        let heard = self.heard.clone().map(|heard| (HEARD, heard));
        let stage = stage.map(|stage| (STAGE, stage.to_owned()));
        let until = until.map(|at| (UNTIL, at.to_string()));
        let life = (LIFE, self.life.as_secs().to_string());
        [Some(life), heard, stage, until].into_iter().flatten().collect()
    }

    /// The same with a note of the longer life that tokens of these keys are about to be given.
    pub fn noted(&self, object: &Gameserver) -> Option<Self> {
        let life = settings::access_token_life(&object.spec.config);
        (life > self.life).then(|| Self { life, ..self.clone() })
    }

    /// What is next. `everywhere`: all pods that run have just these keys.
    pub fn next(&self, object: &Gameserver, everywhere: bool, now: Timestamp) -> Step {
        let write = |stage, pem: String, reason, message: String| {
            Step::Write(Self { pem, stage, ..self.clone() }, Why::new(reason, message))
        };
        match self.stage {
            Stage::Settled => {
                let Some(asked) = asked(object) else { return Step::Rest };
                if self.heard.as_deref() == Some(asked) {
                    return Step::Rest;
                }
                let heard = Self { heard: Some(asked.to_owned()), ..self.clone() };
                let pem = format!("{}\n{}", self.pem.trim_end(), new_key_pem());
                let told = "there is a new key; when all pods know it, they sign with it";
                let told = Why::new("KeyAdded", told);
                Step::Write(Self { pem, stage: Stage::Added, ..heard }, told)
            }
            _ if !everywhere => Step::Rest,
            Stage::Added => {
                let told = "all pods know the new key, and begin to sign with it";
                write(Stage::Signing(None), newest_first(&self.pem), "KeySigns", told.to_owned())
            }
            Stage::Signing(None) => {
                let stays = self.life + OLD_KEY_MARGIN;
                let until = now.saturating_add(SignedDuration::try_from(stays).unwrap_or_default());
                let until = until.unwrap_or(now);
                let told = format!("all pods sign with the new key; the old ones go at {until}");
                let told = Why::new("OldKeysExpire", told);
                // Tokens of the new key that live longer than those made from now on are gone by then.
                let life = settings::access_token_life(&object.spec.config);
                Step::Write(Self { life, stage: Stage::Signing(Some(until)), ..self.clone() }, told)
            }
            Stage::Signing(Some(until)) if now < until => {
                Step::Wait(Duration::try_from(until.duration_since(now)).unwrap_or_default())
            }
            Stage::Signing(Some(_)) => {
                let told = "the new key is the only one";
                write(Stage::Settled, newest_alone(&self.pem), "KeysRotated", told.to_owned())
            }
        }
    }
}

/// Why a rotation that is asked for is not done.
pub fn refusal(object: &Gameserver) -> Option<Why> {
    let given = object.spec.auth.keys_secret_ref.as_ref()?;
    asked(object)?;
    let message = format!(
        "the keys in Secret {} are your own: rotate them there, and take the annotation {ROTATE_ANNOTATION} away",
        given.name
    );
    Some(Why::new("RotationRefused", message))
}

fn asked(object: &Gameserver) -> Option<&str> {
    let asked = object.annotations().get(ROTATE_ANNOTATION)?;
    Some(asked.as_str()).filter(|asked| !asked.is_empty())
}

/// The blocks of a PEM text, each from its first line to the next one's.
fn blocks(pem: &str) -> Vec<&str> {
    let begins: Vec<usize> = pem.match_indices("-----BEGIN ").map(|(at, _)| at).collect();
    let ends = begins.iter().skip(1).copied().chain([pem.len()]);
    begins.iter().zip(ends).map(|(begin, end)| &pem[*begin..end]).collect()
}

/// The last block, which was added last, before the others.
fn newest_first(pem: &str) -> String {
    let blocks = blocks(pem);
    let older = blocks.len().saturating_sub(1);
    let newest_first = blocks.iter().skip(older).chain(&blocks[..older]);
    newest_first.flat_map(|block| [block.trim_end(), "\n"]).collect()
}

fn newest_alone(pem: &str) -> String {
    blocks(pem).first().map_or_else(String::new, |block| format!("{}\n", block.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::crd::{GameserverSpec, KeysRef};
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn object(asked: &str) -> Gameserver {
        let mut object = Gameserver::new("play", GameserverSpec::default());
        object.annotations_mut().insert(ROTATE_ANNOTATION.into(), asked.into());
        object
    }

    /// What is written next, and the word that tells it; as it would be read again.
    fn written(kept: &Kept, object: &Gameserver, now: Timestamp) -> (Kept, &'static str) {
        let Step::Write(next, told) = kept.next(object, true, now) else { panic!("{kept:?}") };
        let secret = json!({
            "metadata": {"annotations": next.annotations()},
            "data": {PEM_KEY: k8s_openapi::ByteString(next.pem.clone().into_bytes())},
        });
        let read = Kept::of(&serde_json::from_value(secret).unwrap()).unwrap();
        assert_eq!(read, next);
        (next, told.reason)
    }

    #[test]
    fn a_new_key_is_known_before_it_signs_and_the_old_one_outlives_its_tokens() {
        let first = Kept::first(&object("1"));
        assert_eq!(first.next(&object("1"), true, at(0)), Step::Rest);
        let (added, told) = written(&first, &object("2"), at(0));
        assert_eq!((blocks(&added.pem)[0].trim_end(), told), (first.pem.trim_end(), "KeyAdded"));
        assert_eq!(blocks(&added.pem).len(), 2);
        // Some pods don't know it yet, whatever else is asked meanwhile.
        assert_eq!(added.next(&object("3"), false, at(1)), Step::Rest);
        let (signing, told) = written(&added, &object("2"), at(1));
        assert_eq!(told, "KeySigns");
        let swapped: Vec<&str> = blocks(&added.pem).into_iter().rev().collect();
        assert_eq!(blocks(&signing.pem), swapped);
        assert_eq!(signing.next(&object("2"), false, at(2)), Step::Rest);
        let (leaving, told) = written(&signing, &object("2"), at(2));
        assert_eq!((leaving.pem.as_str(), told), (signing.pem.as_str(), "OldKeysExpire"));
        let life = Duration::from_secs(900) + OLD_KEY_MARGIN;
        assert_eq!(leaving.next(&object("2"), true, at(2)), Step::Wait(life));
        let (done, told) = written(&leaving, &object("3"), at(2 + 1200));
        assert_eq!((done.pem.as_str(), told), (blocks(&signing.pem)[0], "KeysRotated"));
        assert_eq!(done.next(&object("2"), true, at(1300)), Step::Rest);
        // What was asked for meanwhile begins now.
        assert_eq!(written(&done, &object("3"), at(1300)).1, "KeyAdded");
        assert_eq!(
            done.next(&Gameserver::new("play", GameserverSpec::default()), true, at(0)),
            Step::Rest
        );
    }

    fn living(seconds: u64, asked: &str) -> Gameserver {
        let mut object = object(asked);
        object.spec.config.insert("GAMESERVER_ACCESS_TOKEN_SECONDS".into(), seconds.to_string());
        object
    }

    fn stay(seconds: u64) -> Step {
        Step::Wait(Duration::from_secs(seconds) + OLD_KEY_MARGIN)
    }

    #[test]
    fn a_key_outlives_the_longest_lived_token_that_it_signed() {
        let first = Kept::first(&living(7200, "1"));
        // Shortened in the same edit that asks for another key.
        let short = living(60, "2");
        let (added, _) = written(&first, &short, at(0));
        let (signing, _) = written(&added, &short, at(1));
        let (leaving, told) = written(&signing, &short, at(2));
        assert_eq!(told, "OldKeysExpire");
        assert_eq!(leaving.next(&short, true, at(2)), stay(7200));
        // The new key has signed none of those that outlive this.
        let (done, _) = written(&leaving, &short, at(2 + 7500));
        let again = living(60, "3");
        let (added, _) = written(&done, &again, at(8000));
        let (signing, _) = written(&added, &again, at(8001));
        let (leaving, _) = written(&signing, &again, at(8002));
        assert_eq!(leaving.next(&again, true, at(8002)), stay(60));
    }

    #[test]
    fn a_longer_life_is_noted_whatever_is_under_way() {
        let long = living(7200, "2");
        let (added, _) = written(&Kept::first(&object("1")), &object("2"), at(0));
        let noted = added.noted(&long).unwrap();
        assert_eq!(noted, Kept { life: Duration::from_secs(7200), ..added.clone() });
        assert_eq!((noted.noted(&long), noted.noted(&object("2"))), (None, None));
        let (signing, _) = written(&noted, &object("2"), at(3));
        let (leaving, _) = written(&signing, &object("2"), at(4));
        assert_eq!(leaving.next(&object("2"), true, at(4)), stay(7200));
        // Keys of an operator that took no notes: at first what is set now.
        let unnoted = Kept { life: Duration::ZERO, ..added };
        assert_eq!(unnoted.noted(&long), Some(noted));
    }

    #[test]
    fn a_life_that_no_server_gives_keeps_no_key() {
        let first = Kept::first(&object("1"));
        for never in [0, 59, 86_401, 900_000, u64::MAX] {
            assert_eq!(Kept::first(&living(never, "1")).life, first.life, "{never}");
            let far = Kept { life: Duration::from_secs(never), ..first.clone() };
            let secret = json!({
                "metadata": {"annotations": far.annotations()},
                "data": {PEM_KEY: k8s_openapi::ByteString(far.pem.clone().into_bytes())},
            });
            let read = Kept::of(&serde_json::from_value(secret).unwrap()).unwrap();
            assert_eq!(read.life.as_secs(), never.min(86_400));
        }
        assert_eq!(Kept::first(&living(86_400, "1")).life, Duration::from_secs(86_400));
    }

    #[test]
    fn keys_of_ones_own_are_not_rotated() {
        let mut object = object("1");
        assert_eq!(refusal(&object), None);
        object.spec.auth.keys_secret_ref = Some(KeysRef { name: "own".into(), key: "k".into() });
        assert!(refusal(&object).unwrap().message.contains("Secret own are your own"));
        object.annotations_mut().clear();
        assert_eq!(refusal(&object), None);
    }
}
