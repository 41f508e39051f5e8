//! The engine's own events: seats taken and given up, the start, the end.
//!
//! They share numbers with the game's events. The log keeps no names: who took a seat stands beside
//! the event, so that an account's deletion leaves a match that nobody in particular played.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::games::{Leaving, Outcome, Seat};
use crate::ids::{Timestamp, UserId};
use crate::store::EventRecord;

/// What others see in the place of a player whose account is gone.
pub const NOBODY: &str = "Deleted player";

/// An event that is the engine's own; see `docs/protocol.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Structural {
    /// Somebody took a seat.
    Joined {
        /// Which one.
        seat: Seat,
        /// Who; not in the log.
        #[serde(flatten, default, skip_deserializing)]
        who: Option<Who>,
    },
    /// Somebody gave a seat up.
    Left {
        /// Which one.
        seat: Seat,
        /// Why.
        reason: Leaving,
        /// After which step of a `ticks` game that runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tick: Option<u64>,
    },
    /// The match runs from here.
    Started {
        /// How many seats it has.
        players: u8,
    },
    /// The match is over.
    Ended(Outcome),
}

/// Who took a seat, as clients are told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Who {
    /// The account; `None` where it is gone.
    pub user: Option<UserId>,
    /// Its display name.
    pub display_name: String,
}

impl Structural {
    /// The seat that the event's frame carries.
    pub fn seat(&self) -> Option<Seat> {
        match self {
            Self::Joined { seat, .. } | Self::Left { seat, .. } => Some(*seat),
            Self::Started { .. } | Self::Ended(_) => None,
        }
    }

    /// As the log keeps it: who took a seat stands beside the event.
    pub fn record(&self, seq: u64, at: Timestamp) -> EventRecord {
        let (stored, user) = match self {
            Self::Joined { seat, who } => {
                (&Self::Joined { seat: *seat, who: None }, who.as_ref().and_then(|who| who.user))
            }
            other => (other, None),
        };
        EventRecord {
            seq,
            at,
            seat: self.seat(),
            command_id: None,
            user,
            display_name: None,
            structural: true,
            event: serde_json::to_string(stored).expect("an event is JSON"),
        }
    }

    /// As clients are told.
    pub fn to_wire(&self) -> Box<RawValue> {
        to_raw_value(self).expect("an event is JSON")
    }
}

/// A record of the log as clients are told; an error where it is not JSON.
pub fn wire_event(record: &EventRecord) -> serde_json::Result<Box<RawValue>> {
    if !record.structural {
        return RawValue::from_string(record.event.clone());
    }
    let mut event: Structural = serde_json::from_str(&record.event)?;
    if let Structural::Joined { who, .. } = &mut event {
        *who = Some(Who {
            user: record.user,
            display_name: record.display_name.clone().unwrap_or_else(|| NOBODY.into()),
        });
    }
    Ok(event.to_wire())
}
