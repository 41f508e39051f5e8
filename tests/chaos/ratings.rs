//! Ratings as the database has them: each end that is to be rated has moved those of its players, once,
//! and each from where the one before has left it.

use std::collections::{BTreeMap, HashMap};

use crate::check::{Broken, Violation};

/// What everybody begins with, in hundredths of a point.
const BEGIN: i64 = 150_000;

/// A player's place in a game.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Player {
    pub game: String,
    pub user: String,
}

/// What all matches have made of ratings, in hundredths of a point.
#[derive(Clone, Default)]
pub struct Ratings {
    /// Before and after, of each seat of a rated match.
    pub moves: Vec<(Player, i64, i64)>,
    /// What it came to, and wins, losses and draws together.
    pub standings: BTreeMap<Player, (i64, i64)>,
    /// Matches that have ended, should have moved ratings, and have not.
    pub unrated: Vec<String>,
}

pub fn read(client: &mut postgres::Client) -> Ratings {
    let player = |row: &postgres::Row| Player { game: row.get(0), user: row.get(1) };
    let moves = "SELECT game, user_id::text, round((change->>'before')::numeric * 100)::bigint,
            round((change->>'after')::numeric * 100)::bigint
        FROM matches, json_array_elements(ratings::json) AS change
        JOIN match_players ON match_players.seat = (change->>'seat')::smallint
        WHERE match_players.match_id = matches.id";
    let standings = "SELECT game, user_id::text, round(rating::numeric * 100)::bigint,
        wins + losses + draws FROM ratings";
    let unrated = "SELECT id::text FROM matches
        WHERE state = 'ended' AND visibility = 'public' AND game <> 'relay' AND ratings IS NULL
            AND outcome::json->>'reason' <> 'timeout' AND (outcome::json->>'draw' = 'true'
                OR json_array_length(outcome::json->'winners') > 0)";
    let rows = |client: &mut postgres::Client, sql: &str| client.query(sql, &[]).unwrap();
    Ratings {
        moves: rows(client, moves)
            .iter()
            .map(|row| (player(row), row.get(2), row.get(3)))
            .collect(),
        standings: rows(client, standings)
            .iter()
            .map(|row| (player(row), (row.get(2), row.get(3))))
            .collect(),
        unrated: rows(client, unrated).iter().map(|row| row.get(0)).collect(),
    }
}

/// All that is wrong with them.
pub fn violations(ratings: &Ratings) -> Vec<Violation> {
    let violation = |text: String| Violation { broken: Broken::Rating, text };
    let unrated = ratings.unrated.iter().map(|id| violation(format!("{id}: it moved no rating")));
    let mut moves: BTreeMap<&Player, Vec<(i64, i64)>> = BTreeMap::new();
    for (player, before, after) in &ratings.moves {
        moves.entry(player).or_default().push((*before, *after));
    }
    let players = moves.keys().copied().chain(ratings.standings.keys());
    let players: std::collections::BTreeSet<&Player> = players.collect();
    let wrong = players.into_iter().filter_map(|player| {
        let moves = moves.get(player).map(Vec::as_slice).unwrap_or_default();
        let why = contradiction(moves, ratings.standings.get(player).copied())?;
        Some(violation(format!("{} of {}: {why}", player.game, player.user)))
    });
    unrated.chain(wrong).collect()
}

/// Why moves do not come to a standing.
fn contradiction(moves: &[(i64, i64)], standing: Option<(i64, i64)>) -> Option<String> {
    let Some((rating, counted)) = standing else {
        return Some(format!("{} matches moved a rating that is not there", moves.len()));
    };
    if usize::try_from(counted) != Ok(moves.len()) {
        return Some(format!("{counted} are counted of {} matches", moves.len()));
    }
    // Each begins where another has ended; what is left over is where all of it has come to.
    let mut ends: HashMap<i64, i64> = HashMap::from([(BEGIN, 1)]);
    for (before, after) in moves {
        *ends.entry(*before).or_default() -= 1;
        *ends.entry(*after).or_default() += 1;
    }
    ends.retain(|_, count| *count != 0);
    let sound =
        ends.len() == 1 && ends.iter().all(|(end, count)| *count == 1 && (end - rating).abs() <= 1);
    (!sound).then(|| format!("{moves:?} do not come to {rating}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Ratings {
        let player = |user: &str| Player { game: "pairs".into(), user: user.into() };
        let (a, b) = (player("a"), player("b"));
        Ratings {
            moves: vec![
                (a.clone(), 150_000, 166_231),
                (b.clone(), 150_000, 133_769),
                (a.clone(), 166_231, 160_000),
                (b.clone(), 133_769, 150_000),
            ],
            standings: [(a, (160_000, 2)), (b, (150_000, 2))].into(),
            unrated: Vec::new(),
        }
    }

    fn found(break_it: impl FnOnce(&mut Ratings)) -> usize {
        let mut ratings = sound();
        break_it(&mut ratings);
        violations(&ratings).len()
    }

    #[test]
    fn what_moved_once_and_not_is_told_apart() {
        assert_eq!(found(|_| {}), 0);
        assert_eq!(found(|ratings| ratings.unrated.push("match".into())), 1);
        // Lost, doubled, and one that began where another had begun.
        assert_eq!(found(|ratings| drop(ratings.moves.pop())), 1);
        assert_eq!(found(|ratings| ratings.moves.push(ratings.moves[0].clone())), 1);
        assert_eq!(found(|ratings| ratings.moves[2].1 = 150_000), 1);
        assert_eq!(found(|ratings| ratings.standings.clear()), 2);
        assert_eq!(found(|ratings| ratings.moves.clear()), 2);
    }
}
