//! A match gone through again, without a server: as text for people, and rebuilt from its log to see
//! whether all that is kept of it comes to the same.

use std::fmt::Write as _;
use std::sync::Arc;

use super::core::Core;
use super::event::wire_event;
use super::{MatchError, kept_plugin, log_of, snapshot, start};
use crate::games::wasm::FAILED;
use crate::games::{Catalog, GameType, Viewer};
use crate::ids::MatchId;
use crate::store::{EventRecord, MatchRecord, Snapshot, Store, StoreError};

/// All that the store has of a match.
pub struct Kept {
    record: MatchRecord,
    snapshot: Option<Snapshot>,
    events: Vec<EventRecord>,
    /// The plugin that it was played with, which holds it in the catalog, or why there is none.
    plugin: Result<Arc<dyn GameType>, MatchError>,
}

impl Kept {
    /// Reads a match; one that is played has its state of a moment.
    pub async fn read(store: &Store, id: MatchId, catalog: &Catalog) -> Result<Self, MatchError> {
        // It may go on meanwhile: what is read first is the oldest.
        let snapshot = store.log_snapshot(id).await?;
        let record = store.match_record(id).await?.ok_or(MatchError::Unknown)?;
        let mut events = log_of(store, id, 0).await?;
        events.retain(|event| event.seq <= record.seq);
        let plugin = kept_plugin(store, &record).await.map(|plugin| catalog.know(plugin));
        Ok(Self { record, snapshot, events, plugin })
    }

    /// What is known of the match, and its log, a line for each event.
    pub fn text(&self) -> String {
        let MatchRecord { id, game, game_version, state, seed, options, created_at, .. } =
            &self.record;
        let mut text = format!(
            "match {id}: {game} (rules {game_version}), {}, made {created_at}, seed {seed}, \
             options {options}\n",
            state.as_str()
        );
        for player in super::players_of(&self.record, &[]) {
            let _ = writeln!(text, "seat {}: {}", player.seat.0, player.display_name);
        }
        for event in &self.events {
            let EventRecord { seq, at, seat, .. } = event;
            let seat = seat.map_or_else(|| "-".into(), |seat| seat.0.to_string());
            let told = wire_event(event).map_or_else(|_| event.event.clone(), |e| e.get().into());
            let _ = writeln!(text, "{seq:>6}  {at}  {seat:>2}  {told}");
        }
        text
    }

    /// What a spectator sees in the end, once it is known that the whole log, and the snapshot with
    /// what follows it, come to the same state and to the end that was written down.
    pub fn verify(&self, catalog: &Catalog) -> Result<String, MatchError> {
        if let Err(MatchError::GameFailed(game, why)) = &self.plugin {
            return Err(MatchError::GameFailed(game.clone(), why.clone()));
        }
        let whole = self.rebuild(None, catalog)?;
        let state = |core: &Core| snapshot::take(core).map(|taken| taken.state);
        if let Some(taken) = &self.snapshot
            && state(&self.rebuild(Some(taken), catalog)?) != state(&whole)
        {
            let what = format!("the snapshot at {} differs from the log", taken.seq);
            return Err(self.corrupt(&what));
        }
        if whole.record.outcome != self.record.outcome {
            let ends = |core: &MatchRecord| {
                core.outcome.as_ref().and_then(|outcome| serde_json::to_string(outcome).ok())
            };
            let (log, written) = (ends(&whole.record), ends(&self.record));
            let what = format!("the log ends with {log:?}, and {written:?} is written down");
            return Err(self.corrupt(&what));
        }
        let ruled = whole.game.outcome();
        let failed = self.record.outcome.as_ref().is_some_and(|outcome| outcome.reason == FAILED);
        if ruled.is_some() && ruled != self.record.outcome && !failed {
            return Err(self.corrupt(&format!("by the rules it ends with {ruled:?}")));
        }
        Ok(whole.game.view(Viewer::Spectator).get().into())
    }

    fn rebuild(&self, snapshot: Option<&Snapshot>, catalog: &Catalog) -> Result<Core, MatchError> {
        let MatchRecord { game, game_version, options, seed, .. } = &self.record;
        let known = catalog.find_version(game, game_version);
        let game_type =
            known.ok_or_else(|| MatchError::GameGone(format!("{game} {game_version}")))?;
        let options = serde_json::from_str(options).map_err(|e| self.corrupt(&e.to_string()))?;
        let (_, game) = start(&game_type, options, *seed)?;
        let after = snapshot.map_or(0, |snapshot| snapshot.seq);
        let first = self.events.partition_point(|event| event.seq <= after);
        let (record, events) = (self.record.clone(), &self.events[first..]);
        Core::rebuild(record, snapshot, events, game_type.info().mode, game, 0)
            .map_err(|what| self.corrupt(&what))
    }

    fn corrupt(&self, what: &str) -> MatchError {
        StoreError::Corrupt(format!("match {}: {what}", self.record.id)).into()
    }
}
