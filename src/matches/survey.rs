//! What matches and their sockets are doing, for whoever looks from outside.

use super::Registry;
use super::live::Match;
use super::outbox::Activity;
use crate::games::Seat;
use crate::ids::MatchId;
use crate::store::MatchState;

/// A match, as it was found.
pub struct MatchSurvey {
    /// Which one.
    pub id: MatchId,
    /// What is played.
    pub game: String,
    /// Where it is in its life.
    pub state: MatchState,
    /// The last event's number.
    pub seq: u64,
    /// Outputs that wait for a commit.
    pub waiting: usize,
    /// Its sockets.
    pub sockets: Vec<SocketSurvey>,
}

/// A socket, as it was found.
pub struct SocketSurvey {
    /// `None` for a spectator.
    pub seat: Option<Seat>,
    /// What it is doing.
    pub activity: Activity,
    /// Frames that wait to be written.
    pub queued: usize,
}

impl Registry {
    /// Shows all matches in memory, one after the other.
    pub fn survey(&self, mut each: impl FnMut(&MatchSurvey)) {
        self.loaded().iter().for_each(|live| each(&live.survey()));
    }

    /// Changes that wait in the log's queue.
    pub fn changes_waiting(&self) -> usize {
        self.log.max_capacity() - self.log.capacity()
    }
}

impl Match {
    fn survey(&self) -> MatchSurvey {
        let core = self.lock_any();
        let sockets = core.sockets.iter().map(|socket| {
            let (activity, queued) = socket.outbox.activity();
            SocketSurvey { seat: socket.seat(), activity, queued }
        });
        MatchSurvey {
            id: self.id,
            game: self.info().name.clone(),
            state: core.record.state,
            seq: core.seq,
            waiting: core.pending.len(),
            sockets: sockets.collect(),
        }
    }
}
