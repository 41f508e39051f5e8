//! How many pods there are to be for so many players: a pure function of what pods report and of
//! what was recommended lately.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::crd::Autoscaling;
use super::rollout::Load;

/// Most recommendations that are remembered: an hour's worth, four a minute. The oldest goes.
const HISTORY_MAX: usize = 256;

/// What was recommended lately, and when.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<(Timestamp, i32)>);

/// The pods that are wanted now. `current` is what was wanted last; `loads` has what each ready pod
/// reported, `None` if it was not to be had.
pub fn desired(
    scale: &Autoscaling,
    current: i32,
    loads: &[Option<Load>],
    history: &mut History,
    now: Timestamp,
) -> i32 {
    let current = current.clamp(scale.min, scale.max);
    let known = loads.iter().flatten();
    let players: i64 = known.clone().map(|load| load.players).sum();
    let matches: i64 = known.map(|load| load.matches).sum();
    // A match needs a place even while its players are away.
    let load = players.max(matches).max(0);
    let per_pod = i64::from(scale.players_per_replica.max(1));
    let wanted = i32::try_from((load + per_pod - 1) / per_pod);
    let mut wanted = wanted.unwrap_or(i32::MAX).clamp(scale.min, scale.max);
    // What is not known may be anything: nobody goes for it.
    if loads.is_empty() || loads.iter().any(Option::is_none) {
        wanted = wanted.max(current);
    }
    history.remember(now, wanted, current, scale.scale_down_stabilization_seconds);
    history.most().unwrap_or(wanted)
}

impl History {
    fn remember(&mut self, now: Timestamp, wanted: i32, current: i32, window_seconds: i32) {
        let window = Duration::from_secs(u64::try_from(window_seconds).unwrap_or(0));
        if self.0.is_empty() {
            // What came before is not known: what there is counts as just recommended.
            self.0.push_back((now, current));
        }
        self.0.push_back((now, wanted));
        let old = |at: &Timestamp| {
            Duration::try_from(now.duration_since(*at)).is_ok_and(|age| age >= window)
        };
        while self.0.len() > 1 && (self.0.len() > HISTORY_MAX || old(&self.0[0].0)) {
            self.0.pop_front();
        }
    }

    fn most(&self) -> Option<i32> {
        self.0.iter().map(|(_, wanted)| *wanted).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000 + seconds).unwrap()
    }

    fn scale() -> Autoscaling {
        Autoscaling {
            min: 1,
            max: 5,
            players_per_replica: 100,
            scale_down_stabilization_seconds: 60,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as pods report it")]
    fn load(players: i64, matches: i64) -> Option<Load> {
        Some(Load { players, matches })
    }

    #[test]
    fn it_grows_at_once_and_shrinks_when_that_held_for_a_while() {
        let history = &mut History::default();
        assert_eq!(desired(&scale(), 1, &[load(250, 10)], history, at(0)), 3);
        assert_eq!(desired(&scale(), 3, &[load(50, 10)], history, at(30)), 3);
        assert_eq!(desired(&scale(), 3, &[load(150, 10)], history, at(59)), 3);
        assert_eq!(desired(&scale(), 3, &[load(50, 10)], history, at(60)), 2);
        assert_eq!(desired(&scale(), 2, &[load(50, 10)], history, at(119)), 1);
    }

    #[test]
    fn bounds_hold_and_matches_count() {
        let fresh = || History::default();
        assert_eq!(desired(&scale(), 1, &[load(10_000, 0)], &mut fresh(), at(0)), 5);
        assert_eq!(desired(&scale(), 1, &[load(0, 201)], &mut fresh(), at(0)), 3);
        assert_eq!(desired(&scale(), 9, &[], &mut fresh(), at(0)), 5);
    }

    #[test]
    fn nobody_goes_for_what_is_not_known() {
        let history = &mut History::default();
        for second in [0, 100, 200] {
            let loads = [load(1, 1), None];
            assert_eq!(desired(&scale(), 4, &loads, history, at(second)), 4);
        }
        // A new leader knows nothing of before.
        assert_eq!(desired(&scale(), 4, &[load(1, 1)], &mut History::default(), at(0)), 4);
    }

    #[test]
    fn without_stabilisation_the_last_word_counts() {
        let at_once = Autoscaling { scale_down_stabilization_seconds: 0, ..scale() };
        let history = &mut History::default();
        assert_eq!(desired(&at_once, 4, &[load(1, 1)], history, at(0)), 1);
    }
}
