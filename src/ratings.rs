//! How strong players are: Glicko-2, pure.
//!
//! After Mark E. Glickman, "Example of the Glicko-2 system" (2013, glicko.net/glicko/glicko2.pdf);
//! steps and letters are the paper's. Each match is a rating period of its own, in which every
//! player has met every other; time without matches adds what periods without matches add there.

use std::f64::consts::PI;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::games::{Outcome, Seat};
use crate::ids::Timestamp;

/// What nobody has played for yet.
const POINTS: f64 = 1500.0;
/// The deviation of somebody of whom nothing is known; none grows above it.
const DEVIATION_MAX: f64 = 350.0;
/// The volatility that everybody begins with.
const VOLATILITY: f64 = 0.06;
/// Bounds volatility, whatever happens: above it ratings would be noise.
const VOLATILITY_MAX: f64 = 0.1;
/// τ: how fast volatility changes. The paper: 0.3 to 1.2.
const TAU: f64 = 0.5;
/// Points in a unit of the Glicko-2 scale.
const SCALE: f64 = 173.7178;
/// ε of step 5.
const CONVERGENCE: f64 = 1e-6;
/// Iterations of step 5 at most; a dozen are usual.
const ITERATIONS_MAX: usize = 100;
/// What the better one is expected to lose at least: beyond some 2,400 points a gap counts as that.
const EXPECTED_MIN: f64 = 1e-6;
/// The time without a match that counts as a rating period: a deviation of 60 is 107 after a year.
const IDLE_PERIOD: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// What is known of a player's strength in a game.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rating {
    /// The rating itself.
    pub points: f64,
    /// Its deviation: with a chance of 95 % it is right within twice of that.
    pub deviation: f64,
    /// How much it is expected to move.
    pub volatility: f64,
}

/// A player's place in a game's ratings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// As of the last rated match.
    pub rating: Rating,
    /// Rated matches won.
    pub wins: u64,
    /// Rated matches that somebody else has won.
    pub losses: u64,
    /// Rated matches that were a draw.
    pub draws: u64,
    /// When the last rated match ended.
    pub rated_at: Timestamp,
}

/// What a match has made of the rating of a seat's player, in points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatingChange {
    /// Whose.
    pub seat: Seat,
    /// Before the match.
    pub before: f64,
    /// After it.
    pub after: f64,
}

/// Points as they are shown: to the hundredth.
pub fn shown(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}

impl Default for Rating {
    fn default() -> Self {
        Self { points: POINTS, deviation: DEVIATION_MAX, volatility: VOLATILITY }
    }
}

impl Rating {
    /// After so many periods without a match: step 6 alone.
    #[must_use]
    pub fn idle(self, periods: f64) -> Self {
        let deviation = self.deviation.hypot(self.volatility * SCALE * periods.max(0.0).sqrt());
        Self { deviation: deviation.min(DEVIATION_MAX), ..self }
    }

    /// After a rating period with these results: who was met, and 1 for a win, 0.5 for a draw, 0
    /// for a loss. Without any it is [`Self::idle`] for a period.
    #[must_use]
    pub fn after(self, results: &[(Self, f64)]) -> Self {
        if results.is_empty() {
            return self.idle(1.0);
        }
        let (mu, phi) = ((self.points - POINTS) / SCALE, self.deviation / SCALE);
        // Steps 3 and 4.
        let (mut known, mut gain) = (0.0, 0.0);
        for (other, score) in results {
            let g = 1.0 / (3.0f64.sqrt() * other.deviation / SCALE / PI).hypot(1.0);
            let gap = mu - (other.points - POINTS) / SCALE;
            let expected = (1.0 / (1.0 + (-g * gap).exp())).clamp(EXPECTED_MIN, 1.0 - EXPECTED_MIN);
            known += g * g * expected * (1.0 - expected);
            gain += g * (score - expected);
        }
        let v = 1.0 / known;
        let volatility = self.volatility_after(phi, v, v * gain);
        // Steps 6 to 8.
        let before = phi.hypot(volatility);
        let phi = 1.0 / (1.0 / (before * before) + known).sqrt();
        let deviation = (phi * SCALE).min(DEVIATION_MAX);
        Self { points: POINTS + SCALE * (mu + phi * phi * gain), deviation, volatility }
    }

    /// Step 5: the volatility that makes what has happened most likely (the Illinois algorithm).
    fn volatility_after(self, phi: f64, v: f64, delta: f64) -> f64 {
        let ln_now = self.volatility.powi(2).ln();
        let excess = delta * delta - phi * phi - v;
        let slope = |x: f64| {
            let variance = phi * phi + v + x.exp();
            x.exp() * (excess - x.exp()) / (2.0 * variance * variance) - (x - ln_now) / (TAU * TAU)
        };
        let mut a = ln_now;
        let mut b = if excess > 0.0 {
            excess.ln()
        } else {
            let below = |k: &f64| slope(ln_now - k * TAU) >= 0.0;
            let mut steps =
                std::iter::successors(Some(1.0), |k| Some(k + 1.0)).take(ITERATIONS_MAX);
            ln_now - TAU * steps.find(below).unwrap_or(1.0)
        };
        let (mut slope_a, mut slope_b) = (slope(a), slope(b));
        for _ in 0..ITERATIONS_MAX {
            if (b - a).abs() <= CONVERGENCE {
                break;
            }
            let c = a + (a - b) * slope_a / (slope_b - slope_a);
            let slope_c = slope(c);
            if slope_c * slope_b <= 0.0 {
                (a, slope_a) = (b, slope_b);
            } else {
                slope_a /= 2.0;
            }
            (b, slope_b) = (c, slope_c);
        }
        (a / 2.0).exp().min(VOLATILITY_MAX)
    }
}

impl Standing {
    /// Of somebody who has not played until now.
    pub fn new(now: Timestamp) -> Self {
        Self { rating: Rating::default(), wins: 0, losses: 0, draws: 0, rated_at: now }
    }

    /// Rated matches played.
    pub fn matches(&self) -> u64 {
        self.wins + self.losses + self.draws
    }

    /// The rating as of `now`: the longer ago the last match was, the less it says.
    pub fn rating(&self, now: Timestamp) -> Rating {
        let idle = now.since(self.rated_at).as_secs_f64();
        self.rating.idle(idle / IDLE_PERIOD.as_secs_f64())
    }
}

/// Takes the end of a match into account: winners have beaten all others, and among themselves both
/// have drawn. With fewer than two players nothing changes. Gives what became of each rating.
pub fn settle(
    players: &mut [(Seat, Standing)],
    outcome: &Outcome,
    now: Timestamp,
) -> Vec<RatingChange> {
    if players.len() < 2 {
        return Vec::new();
    }
    let won = |seat: Seat| u8::from(outcome.winners.contains(&seat));
    let before: Vec<(Seat, Rating)> =
        players.iter().map(|(seat, standing)| (*seat, standing.rating(now))).collect();
    let settled = players.iter_mut().zip(&before).map(|((seat, standing), (_, rating))| {
        let others = before.iter().filter(|(other, _)| other != seat);
        let score = |other: Seat| (1.0 + f64::from(won(*seat)) - f64::from(won(other))) / 2.0;
        let results: Vec<_> = others.map(|(other, theirs)| (*theirs, score(*other))).collect();
        standing.rating = rating.after(&results);
        standing.rated_at = standing.rated_at.max(now);
        match (outcome.winners.is_empty(), won(*seat)) {
            (true, _) => standing.draws += 1,
            (false, 0) => standing.losses += 1,
            (false, _) => standing.wins += 1,
        }
        let after = shown(standing.rating.points);
        RatingChange { seat: *seat, before: shown(rating.points), after }
    });
    settled.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn rating(points: f64, deviation: f64) -> Rating {
        Rating { points, deviation, ..Rating::default() }
    }

    fn near(one: f64, other: f64, within: f64) -> bool {
        (one - other).abs() <= within
    }

    fn outcome(winners: &[u8]) -> Outcome {
        let winners: Vec<_> = winners.iter().copied().map(Seat).collect();
        Outcome { draw: winners.is_empty(), winners, reason: "completed".into() }
    }

    fn seated(standings: &[Standing]) -> Vec<(Seat, Standing)> {
        (0..).map(Seat).zip(standings.iter().copied()).collect()
    }

    #[test]
    fn the_example_of_the_paper() {
        let results = [
            (rating(1400.0, 30.0), 1.0),
            (rating(1550.0, 100.0), 0.0),
            (rating(1700.0, 300.0), 0.0),
        ];
        let Rating { points, deviation, volatility } = rating(1500.0, 200.0).after(&results);
        assert!(near(points, 1464.06, 0.01), "{points}");
        assert!(near(deviation, 151.52, 0.01), "{deviation}");
        assert!(near(volatility, 0.05999, 0.00001), "{volatility}");
    }

    #[test]
    fn what_is_known_fades_with_time() {
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let mut standing = Standing { rating: rating(1800.0, 60.0), ..Standing::new(NOW) };
        let after = |standing: &Standing, years| standing.rating(NOW.plus(year * years));
        assert_eq!(after(&standing, 0), standing.rating);
        let Rating { points, deviation, volatility } = after(&standing, 1);
        assert_eq!((points, volatility), (1800.0, VOLATILITY));
        assert!(near(deviation, 107.4, 0.1), "{deviation}");
        assert!(after(&standing, 100).deviation <= DEVIATION_MAX);
        // Clocks of nodes differ.
        standing.rated_at = NOW.plus(year);
        assert_eq!(standing.rating(NOW), standing.rating);
        settle(&mut [(Seat(0), standing), (Seat(1), standing)], &outcome(&[0]), NOW);
        // Who was away moves further than who was there.
        standing.rated_at = NOW.minus(year);
        let here = Standing { rated_at: NOW, ..standing };
        let changes = settle(&mut seated(&[standing, here]), &outcome(&[]), NOW);
        assert!(near(changes[0].after, 1800.0, 0.0), "{changes:?}");
        let changes = settle(&mut seated(&[standing, here]), &outcome(&[0]), NOW);
        let moved = |place: usize| (changes[place].after - changes[place].before).abs();
        assert!(moved(0) > 2.0 * moved(1) && moved(1) > 1.0, "{changes:?}");
    }

    #[test]
    fn two_who_begin_move_alike_and_are_counted() {
        let mut players = seated(&[Standing::new(NOW); 2]);
        let changes = settle(&mut players, &outcome(&[1]), NOW);
        let change = |seat, after| RatingChange { seat: Seat(seat), before: 1500.0, after };
        assert_eq!(changes, [change(0, 1337.69), change(1, 1662.31)]);
        let counts = |place: usize| {
            let Standing { wins, losses, draws, .. } = players[place].1;
            [wins, losses, draws]
        };
        assert_eq!([counts(0), counts(1)], [[0, 1, 0], [1, 0, 0]]);
        assert!(players.iter().all(|(_, standing)| standing.rating.deviation < 300.0));
        assert_eq!(settle(&mut players[..1], &outcome(&[0]), NOW), []);
        assert_eq!(players[0].1.wins, 0);
    }

    #[test]
    fn several_who_win_have_drawn_among_themselves() {
        let mut players = seated(&[Standing::new(NOW); 4]);
        let changes = settle(&mut players, &outcome(&[0, 3]), NOW);
        assert!(near(changes[0].after, changes[3].after, 0.0), "{changes:?}");
        assert!(near(changes[1].after, changes[2].after, 0.0), "{changes:?}");
        assert!(changes[0].after > 1500.0 && changes[1].after < 1500.0, "{changes:?}");
        let all = settle(&mut seated(&[Standing::new(NOW); 3]), &outcome(&[0, 1, 2]), NOW);
        assert!(all.iter().all(|change| near(change.after, 1500.0, 0.0)), "{all:?}");
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        (-2000.0..6000.0, 1.0..350.0, 0.03..0.1, 0..4000u64).prop_map(
            |(points, deviation, volatility, idle_days)| Standing {
                rating: Rating { points, deviation, volatility },
                rated_at: NOW.minus(Duration::from_secs(idle_days * 86_400)),
                ..Standing::new(NOW)
            },
        )
    }

    proptest! {
        #[test]
        fn who_wins_rises_who_loses_falls_and_all_stay_within_bounds(
            standings in prop::collection::vec(any_standing(), 2..9),
            winner in 0u8..8,
        ) {
            let winner = winner % u8::try_from(standings.len()).unwrap();
            let mut players = seated(&standings);
            settle(&mut players, &outcome(&[winner]), NOW);
            for ((seat, after), before) in players.iter().zip(&standings) {
                let Rating { points, deviation, volatility } = after.rating;
                prop_assert!(points.is_finite() && (0.0..=VOLATILITY_MAX).contains(&volatility));
                prop_assert!(deviation > 0.0 && deviation <= DEVIATION_MAX, "{}", deviation);
                if seat.0 == winner {
                    prop_assert!(points > before.rating.points);
                } else if standings.len() == 2 {
                    prop_assert!(points < before.rating.points);
                }
            }
        }

        #[test]
        fn seats_do_not_matter(
            standings in prop::collection::vec(any_standing(), 2..6),
            winner in 0usize..5,
        ) {
            let winner = winner % standings.len();
            let by = |order: &[usize]| {
                let mut players: Vec<_> = order
                    .iter()
                    .map(|place| (Seat(u8::try_from(*place).unwrap()), standings[*place]))
                    .collect();
                settle(&mut players, &outcome(&[u8::try_from(winner).unwrap()]), NOW);
                players.sort_by_key(|(seat, _)| *seat);
                players
            };
            let order: Vec<usize> = (0..standings.len()).collect();
            let reversed: Vec<usize> = order.iter().rev().copied().collect();
            for ((_, one), (_, other)) in by(&order).iter().zip(&by(&reversed)) {
                prop_assert!(near(one.rating.points, other.rating.points, 1e-6));
                prop_assert!(near(one.rating.deviation, other.rating.deviation, 1e-6));
            }
        }

        /// Of two who always play each other, the one who is truly better ends up above.
        #[test]
        fn many_matches_find_out_who_is_better(wins_of_ten in 6usize..10) {
            let mut players = seated(&[Standing::new(NOW); 2]);
            for number in 0..200 {
                let winner = u8::from(number % 10 >= wins_of_ten);
                settle(&mut players, &outcome(&[winner]), NOW);
            }
            let [better, worse] = [players[0].1.rating, players[1].1.rating];
            prop_assert!(better.points > worse.points);
            prop_assert!(better.deviation < 100.0 && worse.deviation < 100.0);
        }
    }
}
