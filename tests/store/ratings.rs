//! Ratings move with the ends of matches, once, whoever else writes; leaderboards show them.

use std::collections::HashMap;
use std::sync::Arc;

use gameserver::games::{Outcome, Seat};
use gameserver::ids::{MatchId, Timestamp, UserId};
use gameserver::ratings::RatingChange;
use gameserver::store::{
    Appended, Leader, MatchChange, MatchState, Place, Store, UserRecord, Visibility,
};

use crate::{NOW, add, change, each, event, guest, later, new_match};

const GAME: &str = "pairs";

/// Accounts, from the oldest to the newest.
async fn guests(store: &Store, count: usize) -> Vec<UserRecord> {
    let mut guests: Vec<_> = (0..count).map(|number| guest(&format!("Guest {number}"))).collect();
    guests.sort_by_key(|user| user.id);
    for user in &guests {
        add(store, user).await;
    }
    guests
}

/// A match between users, and the rated end of it.
pub fn played(users: &[UserId], winners: &[u8]) -> Vec<MatchChange> {
    let mut new = new_match(GAME, Visibility::Public, users[0]);
    new.seats = (0..).map(Seat).zip(users.iter().copied().map(Some)).collect();
    let end = ended(new.id, 1, winners, later(60));
    vec![new, end]
}

fn ended(id: MatchId, previous_seq: u64, winners: &[u8], at: Timestamp) -> MatchChange {
    let winners: Vec<_> = winners.iter().copied().map(Seat).collect();
    let outcome = Outcome { draw: winners.is_empty(), winners, reason: "completed".into() };
    MatchChange {
        state: MatchState::Ended,
        outcome: Some(outcome),
        rated: true,
        at,
        ..change(id, previous_seq, vec![event(previous_seq + 1, None, None)])
    }
}

async fn append(store: &Store, changes: &[MatchChange]) -> Appended {
    store.append(Arc::new(changes.to_vec())).await.unwrap()
}

fn moved(changes: &[RatingChange]) -> Vec<(u8, f64, f64)> {
    changes.iter().map(|RatingChange { seat, before, after }| (seat.0, *before, *after)).collect()
}

/// Who is on the leaderboard, with wins, losses and draws.
async fn counts(store: &Store) -> HashMap<UserId, [u64; 3]> {
    let leaders = store.leaders(GAME, None, 1000).await.unwrap();
    let counts = |leader: Leader| {
        let standing = leader.standing;
        (leader.user, [standing.wins, standing.losses, standing.draws])
    };
    leaders.into_iter().map(counts).collect()
}

#[test]
fn the_end_of_a_match_moves_ratings_once() {
    each(|store| async move {
        let users = guests(&store, 3).await;
        let [a, b, c] = [users[0].id, users[1].id, users[2].id];
        let first = played(&[a, b], &[0]);
        let expected = vec![(0, 1500.0, 1662.31), (1, 1500.0, 1337.69)];
        // Also if the answer was lost, and the batch is tried again, alone and behind others.
        for _ in 0..3 {
            let appended = append(&store, &first).await;
            assert_eq!(appended.refused, []);
            assert_eq!(moved(&appended.ratings[&first[0].id]), expected);
        }
        let record = store.match_record(first[0].id).await.unwrap().unwrap();
        assert_eq!(moved(&record.ratings.unwrap()), expected);
        // Several of one player in a batch: one after the other.
        let (second, third) = (played(&[b, c], &[]), played(&[c, b, a], &[1, 2]));
        let both = [second.clone(), third.clone()].concat();
        let appended = append(&store, &both).await;
        let of = |changes: &[MatchChange]| moved(&appended.ratings[&changes[0].id]);
        let before =
            |changes: Vec<(u8, f64, f64)>| changes.into_iter().map(|(_, before, _)| before);
        let after = |changes: Vec<(u8, f64, f64)>| changes.into_iter().map(|(_, _, after)| after);
        assert!(before(of(&second)).eq([1337.69, 1500.0]), "{:?}", of(&second));
        assert!(before(of(&third)).take(2).eq(after(of(&second)).rev()), "{:?}", of(&third));
        assert_eq!(append(&store, &both).await.ratings.len(), 2);
        let expected = HashMap::from([(a, [2, 0, 0]), (b, [1, 1, 1]), (c, [0, 1, 1])]);
        assert_eq!(counts(&store).await, expected);
    });
}

#[test]
fn what_is_refused_or_not_rated_moves_nothing() {
    each(|store| async move {
        let users = guests(&store, 3).await;
        let [a, b, c] = [users[0].id, users[1].id, users[2].id];
        let mut unrated = played(&[a, b], &[0]);
        unrated[1].rated = false;
        let appended = append(&store, &unrated).await;
        assert!(appended.refused.is_empty() && appended.ratings.is_empty());
        let alone = played(&[a], &[0]);
        assert!(append(&store, &alone).await.ratings.is_empty());
        let record = store.match_record(alone[0].id).await.unwrap().unwrap();
        assert_eq!((record.state, record.ratings), (MatchState::Ended, None));
        assert_eq!(counts(&store).await, HashMap::new());
        // Of a batch, what is refused takes nothing along, whichever way it is.
        let (sound, late) = (played(&[a, c], &[1]), ended(unrated[0].id, 7, &[1], later(90)));
        let mut doubled = played(&[b, c], &[0]);
        doubled[1].events.insert(0, event(1, None, None));
        let batch = [sound.clone(), vec![late], doubled.clone()].concat();
        let appended = append(&store, &batch).await;
        let mut refused = vec![unrated[0].id, doubled[0].id];
        refused.retain(|id| !appended.refused.contains(id));
        assert_eq!(refused, []);
        assert_eq!(appended.ratings.into_keys().collect::<Vec<_>>(), [sound[0].id]);
        assert_eq!(counts(&store).await, HashMap::from([(a, [0, 1, 0]), (c, [1, 0, 0])]));
    });
}

#[test]
fn who_is_deleted_is_rated_no_more() {
    each(|store| async move {
        let users = guests(&store, 3).await;
        let [a, b, gone] = [users[0].id, users[1].id, users[2].id];
        let three = played(&[a, b, gone], &[2]);
        append(&store, &three).await;
        let (mut open, end) = (played(&[b, gone, a], &[1]), later(70));
        open.truncate(1);
        append(&store, &open).await;
        store.delete_user(gone, NOW).await.unwrap();
        let expected = HashMap::from([(a, [0, 1, 0]), (b, [0, 1, 0])]);
        assert_eq!(counts(&store).await, expected);
        assert_eq!(store.leaders_around(GAME, gone, 5, 10).await.unwrap(), None);
        assert_eq!(store.leaders_around(GAME, a, 5, 10).await.unwrap().unwrap().0, 1);
        let appended = append(&store, &[ended(open[0].id, 1, &[1], end)]).await;
        let seats: Vec<_> =
            appended.ratings[&open[0].id].iter().map(|change| change.seat.0).collect();
        assert_eq!(seats, [0, 2]);
        let two = played(&[a, gone], &[0]);
        assert!(append(&store, &two).await.ratings.is_empty());
        let record = store.match_record(three[0].id).await.unwrap().unwrap();
        assert_eq!((record.players[2].user, record.ratings.unwrap().len()), (None, 3));
    });
}

#[test]
fn many_who_end_matches_of_the_same_players_at_a_time_lose_nothing() {
    each(|store| async move {
        let users = guests(&store, 6).await;
        let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
        let writers = (0..8usize).map(|writer| {
            let (store, mut ids) = (Arc::clone(&store), ids.clone());
            ids.rotate_left(writer % users.len());
            tokio::spawn(async move {
                for round in 0..5 {
                    let batch: Vec<_> = (0..3)
                        .flat_map(|pair| played(&[ids[pair], ids[5 - pair]], &[round % 2]))
                        .collect();
                    let appended = append(&store, &batch).await;
                    assert_eq!((appended.refused.len(), appended.ratings.len()), (0, 3));
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let counts = counts(&store).await;
        for id in &ids {
            assert_eq!(counts[id].iter().sum::<u64>(), 8 * 5, "{counts:?}");
        }
        // Ranks are sums of what is counted on the way.
        for (place, leader) in store.leaders(GAME, None, 10).await.unwrap().iter().enumerate() {
            let (first, around) =
                store.leaders_around(GAME, leader.user, 0, 1).await.unwrap().unwrap();
            assert_eq!((first, around[0].user), (place as u64 + 1, leader.user));
        }
    });
}

#[test]
fn a_leaderboard_is_read_by_page_and_around_a_player() {
    each(|store| async move {
        let users = guests(&store, 20).await;
        // Pairs whose members are all rated alike but for those who have played more.
        for pair in users.chunks_exact(2) {
            append(&store, &played(&[pair[0].id, pair[1].id], &[0])).await;
        }
        for other in [5, 7, 9] {
            append(&store, &played(&[users[0].id, users[other].id], &[0])).await;
        }
        let all = store.leaders(GAME, None, 100).await.unwrap();
        assert_eq!((all.len(), all[0].user), (20, users[0].id));
        assert_eq!(all[0].display_name, users[0].display_name);
        let key = |leader: &Leader| (leader.standing.rating.points, leader.user);
        assert!(all.is_sorted_by(|one, other| key(one) > key(other)));
        let place =
            |leader: &Leader| Place { points: leader.standing.rating.points, user: leader.user };
        for number in 0..20u32 {
            let at = number as usize;
            let rest = store.leaders(GAME, Some(place(&all[at])), 100).await.unwrap();
            assert_eq!(rest, all[at + 1..]);
            for (above, limit) in [(0, 1), (3, 7), (100, 200), (2, 3)] {
                let around = store.leaders_around(GAME, all[at].user, above, limit).await;
                let (first, leaders) = around.unwrap().unwrap();
                let from = number.saturating_sub(above);
                assert_eq!(first, u64::from(from) + 1, "{number} {above} {limit}");
                let to = (from + limit).min(20) as usize;
                assert_eq!(leaders, all[from as usize..to], "{number} {above} {limit}");
            }
        }
        assert_eq!(store.leaders(GAME, Some(place(&all[0])), 1).await.unwrap(), all[1..2]);
        assert_eq!(store.leaders("chess", None, 10).await.unwrap(), []);
        assert_eq!(store.leaders_around("chess", users[0].id, 3, 7).await.unwrap(), None);
    });
}
