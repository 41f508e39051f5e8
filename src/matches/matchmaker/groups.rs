//! Who is to meet: pure, so that it can be tested and measured without a server.
//!
//! Tickets that agree (the same game, options and number of players) meet those whose ratings are
//! near. Whoever has waited longest is seen to first, and is the one whose window counts: how far
//! from its own a rating may be. The window begins with what is not known of the player and widens
//! until it takes in everybody, so that nobody waits for ever while others are there. Of those
//! within it the nearest are taken, and of several that are as near the ones that have waited
//! longest. A party is on one match whole or not at all, and waits from the moment that it is whole.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::ids::{TicketId, Timestamp};
use crate::store::{Party, TicketRecord};

/// How far from its own a ticket's opponents' ratings may be at first, in points, if its deviation is
/// not more: of somebody of whom little is known, all who may be as strong are near.
const WINDOW_POINTS: f64 = 100.0;
/// So many points more for each second that it waits.
const WIDENS_PER_SECOND: f64 = 25.0;
/// After so long it may meet anybody.
const OPEN_AFTER_SECONDS: f64 = 30.0;

/// What has to be equal.
type Kind<'a> = (&'a str, &'a str, u8);

/// Somebody alone, or a whole party.
struct Unit<'a> {
    tickets: Vec<&'a TicketRecord>,
    since: Timestamp,
    points: f64,
    window: f64,
}

/// Units that agree. They have numbers, which are the smaller the longer they have waited.
#[derive(Default)]
struct Pool {
    rising: Order,
    falling: Order,
}

/// Units in an order of their ratings; of those that are rated alike the one that has waited longest
/// comes first.
#[derive(Default)]
struct Order {
    numbers: Vec<usize>,
    /// By the number of their players, the places in `numbers` of those that are still to be had.
    free: BTreeMap<usize, BTreeSet<usize>>,
}

/// Where a unit is in both orders of its pool.
#[derive(Clone, Copy, Default)]
struct Places {
    rising: usize,
    falling: usize,
}

/// The groups that a match is to be made for, each of as many players as its match begins with, the
/// oldest ticket first.
///
/// `tickets` are those that search, oldest first. No user meets himself. One that is claimed or has
/// waited to its end meets nobody.
pub fn form(tickets: &[TicketRecord], now: Timestamp) -> Vec<Vec<&TicketRecord>> {
    let units = units(tickets, now);
    let mut pools: HashMap<Kind<'_>, Pool> = HashMap::new();
    for (number, unit) in units.iter().enumerate() {
        pools.entry(unit.kind()).or_default().push(number);
    }
    let mut places = vec![Places::default(); units.len()];
    for pool in pools.values_mut() {
        pool.sort(&units, &mut places);
    }
    let mut groups = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        let Some(pool) = pools.get_mut(&unit.kind()) else { continue };
        if !pool.take(unit, places[number]) {
            continue;
        }
        let Some(others) = pool.others(&units, number, places[number]) else { continue };
        let mut group = unit.tickets.clone();
        for other in others {
            pool.take(&units[other], places[other]);
            group.extend(&units[other].tickets);
        }
        group.sort_by_key(|ticket| ticket.id);
        groups.push(group);
    }
    groups
}

/// All who are ready to be matched, those who have waited longest first.
fn units(tickets: &[TicketRecord], now: Timestamp) -> Vec<Unit<'_>> {
    let mut units = Vec::with_capacity(tickets.len());
    let mut parties: HashMap<(Kind<'_>, &Party), Vec<&TicketRecord>> = HashMap::new();
    let mut seen = HashSet::with_capacity(tickets.len());
    for ticket in tickets {
        let free = ticket.r#match.is_none() && ticket.expires_at > now;
        if !free || !seen.insert((&ticket.game, ticket.user)) {
            continue;
        }
        let Some(party) = &ticket.party else {
            units.push(Unit::new(vec![ticket], now));
            continue;
        };
        let members = parties.entry((kind(ticket), party)).or_default();
        members.push(ticket);
        if members.len() >= usize::from(party.size) {
            units.push(Unit::new(std::mem::take(members), now));
        }
    }
    units.sort_by_key(|unit| (unit.since, unit.first()));
    units
}

fn kind(ticket: &TicketRecord) -> Kind<'_> {
    (&ticket.game, &ticket.options, ticket.players)
}

impl<'a> Unit<'a> {
    /// Of tickets, oldest first; there is one at least.
    fn new(tickets: Vec<&'a TicketRecord>, now: Timestamp) -> Self {
        let mean = |total: f64| total / f64::from(u32::try_from(tickets.len()).unwrap_or(u32::MAX));
        let points = mean(tickets.iter().map(|ticket| ticket.rating.points).sum());
        let least_known = tickets.iter().map(|ticket| ticket.rating.deviation);
        let known = least_known.fold(WINDOW_POINTS, f64::max);
        let since = tickets.iter().map(|ticket| ticket.id.made_at()).max().unwrap_or(now);
        let waited = now.since(since).as_secs_f64();
        let widened = known + WIDENS_PER_SECOND * waited;
        let window = if waited < OPEN_AFTER_SECONDS { widened } else { f64::INFINITY };
        Self { tickets, since, points, window }
    }

    fn first(&self) -> TicketId {
        self.tickets[0].id
    }

    fn kind(&self) -> Kind<'a> {
        kind(self.tickets[0])
    }

    fn players(&self) -> usize {
        usize::from(self.tickets[0].players)
    }

    fn gap(&self, other: &Self) -> f64 {
        (self.points - other.points).abs()
    }
}

impl Pool {
    fn push(&mut self, number: usize) {
        self.rising.numbers.push(number);
        self.falling.numbers.push(number);
    }

    fn sort(&mut self, units: &[Unit<'_>], places: &mut [Places]) {
        let points = |number: &usize| units[*number].points;
        let Self { rising, falling } = self;
        rising.numbers.sort_by(|one, other| points(one).total_cmp(&points(other)));
        falling.numbers.sort_by(|one, other| points(other).total_cmp(&points(one)));
        rising.all_free(units, |number, place| places[number].rising = place);
        falling.all_free(units, |number, place| places[number].falling = place);
    }

    /// Takes a unit out; false: it was taken before.
    fn take(&mut self, unit: &Unit<'_>, places: Places) -> bool {
        let size = unit.tickets.len();
        self.falling.take(size, places.falling) && self.rising.take(size, places.rising)
    }

    /// Those that make up a match with a unit, which is out already and whose window they are in.
    fn others(&self, units: &[Unit<'_>], number: usize, places: Places) -> Option<Vec<usize>> {
        let unit = &units[number];
        let need = unit.players().checked_sub(unit.tickets.len())?;
        let lower = |other: &usize| units[*other].points >= unit.points;
        let lower = self.falling.numbers.partition_point(lower);
        let mut near = Vec::new();
        for size in self.rising.free.keys().take_while(|size| **size <= need) {
            let mut above = self.rising.from(*size, places.rising).peekable();
            let mut below = self.falling.from(*size, lower).peekable();
            // More of one size than fit in can't be needed.
            for _ in 0..need / size {
                let next = match (above.peek(), below.peek()) {
                    (Some(up), Some(down)) if nearer(units, number, *down, *up).is_lt() => {
                        below.next()
                    }
                    (Some(_), _) => above.next(),
                    (None, _) => below.next(),
                };
                near.extend(next.filter(|other| unit.gap(&units[*other]) <= unit.window));
            }
        }
        near.sort_by(|one, other| nearer(units, number, *one, *other));
        fill(need, &near, |other| units[other].tickets.len())
    }
}

impl Order {
    fn all_free(&mut self, units: &[Unit<'_>], mut at: impl FnMut(usize, usize)) {
        for (place, number) in self.numbers.iter().enumerate() {
            at(*number, place);
            self.free.entry(units[*number].tickets.len()).or_default().insert(place);
        }
    }

    fn take(&mut self, size: usize, place: usize) -> bool {
        self.free.get_mut(&size).is_some_and(|places| places.remove(&place))
    }

    /// Those of a size that are still to be had, from a place on.
    fn from(&self, size: usize, place: usize) -> impl Iterator<Item = usize> + '_ {
        let places = self.free.get(&size).into_iter().flat_map(move |free| free.range(place..));
        places.map(|place| self.numbers[*place])
    }
}

/// Which of two is nearer to a unit, or has waited longer.
fn nearer(units: &[Unit<'_>], to: usize, one: usize, other: usize) -> Ordering {
    let gap = |number: usize| units[to].gap(&units[number]);
    gap(one).total_cmp(&gap(other)).then(one.cmp(&other))
}

/// Those of `from` whose sizes make up exactly `need`, as far to its front as can be.
fn fill(need: usize, from: &[usize], size: impl Fn(usize) -> usize) -> Option<Vec<usize>> {
    // By which of `from` a sum was first reached: what it was reached from came before.
    let mut by: Vec<Option<usize>> = vec![None; need + 1];
    for (number, unit) in from.iter().enumerate() {
        for sum in (size(*unit)..=need).rev() {
            let rest = sum - size(*unit);
            if by[sum].is_none() && (rest == 0 || by[rest].is_some()) {
                by[sum] = Some(number);
            }
        }
        if by[need].is_some() {
            break;
        }
    }
    let (mut chosen, mut sum) = (Vec::new(), need);
    while sum > 0 {
        let unit = from[by[sum]?];
        chosen.push(unit);
        sum -= size(unit);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{MatchId, UserId};
    use crate::ratings::Rating;
    use crate::store::TicketState;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn ticket(number: u128, user: u128, options: &str, players: u8) -> TicketRecord {
        TicketRecord {
            id: TicketId(Uuid::from_u128(number)),
            game: "pairs".into(),
            options: options.into(),
            players,
            party: None,
            user: UserId(Uuid::from_u128(user)),
            display_name: String::new(),
            rating: Rating::default(),
            state: TicketState::Searching,
            r#match: None,
            expires_at: Timestamp(NOW.0 + 1),
        }
    }

    /// A ticket of two players for a match that has waited for so many seconds.
    fn rated(points: f64, deviation: f64, waited: f64) -> TicketRecord {
        let rating = Rating { points, deviation, ..Rating::default() };
        let since = NOW.minus(std::time::Duration::from_secs_f64(waited)).0;
        let since = u64::try_from(since).unwrap();
        let random: [u8; 10] = UserId::new().0.into_bytes()[6..].try_into().unwrap();
        let id = TicketId(uuid::Builder::from_unix_timestamp_millis(since, &random).into_uuid());
        TicketRecord { id, rating, user: UserId::new(), ..ticket(0, 0, "{}", 2) }
    }

    fn party(mut ticket: TicketRecord, code: &str, size: u8) -> TicketRecord {
        ticket.party = Some(Party { code: code.into(), size });
        ticket
    }

    fn numbers(tickets: &[TicketRecord]) -> Vec<Vec<u128>> {
        let number = |ticket: &&TicketRecord| ticket.id.0.as_u128();
        form(tickets, NOW).iter().map(|group| group.iter().map(number).collect()).collect()
    }

    #[test]
    fn the_oldest_meet_first() {
        let tickets: Vec<_> = (0..7).map(|number| ticket(number, number, "{}", 3)).collect();
        assert_eq!(numbers(&tickets), [[0, 1, 2], [3, 4, 5]]);
    }

    #[test]
    fn those_that_differ_do_not_meet() {
        let mut tickets = vec![
            ticket(0, 0, "{}", 2),
            ticket(1, 1, r#"{"pairs":4}"#, 2),
            ticket(2, 2, "{}", 3),
            ticket(3, 0, "{}", 2),
        ];
        tickets[1].game = "tictactoe".into();
        assert_eq!(numbers(&tickets), [[0; 0]; 0]);
        tickets.push(ticket(4, 4, "{}", 2));
        assert_eq!(numbers(&tickets), [[0, 4]]);
    }

    #[test]
    fn claimed_and_expired_ones_meet_nobody() {
        let mut tickets: Vec<_> = (0..4).map(|number| ticket(number, number, "{}", 2)).collect();
        tickets[0].r#match = Some(MatchId(Uuid::nil()));
        tickets[2].expires_at = NOW;
        assert_eq!(numbers(&tickets), [[1, 3]]);
    }

    #[test]
    fn one_who_needs_nobody_is_matched_at_once() {
        assert_eq!(numbers(&[ticket(0, 0, "{}", 1), ticket(1, 1, "{}", 1)]), [[0], [1]]);
    }

    fn meet(mut tickets: Vec<TicketRecord>) -> Vec<Vec<f64>> {
        tickets.sort_by_key(|ticket| ticket.id);
        let points = |ticket: &&TicketRecord| ticket.rating.points;
        form(&tickets, NOW).iter().map(|group| group.iter().map(points).collect()).collect()
    }

    #[test]
    fn a_window_is_what_is_not_known_and_widens_until_it_takes_in_everybody() {
        let none: [[f64; 0]; 0] = [];
        let pair = |points, deviation, waited| {
            meet(vec![rated(1500.0, deviation, waited), rated(points, 60.0, 0.0)])
        };
        assert_eq!(pair(1600.0, 60.0, 0.001), [[1500.0, 1600.0]]);
        assert_eq!(pair(1601.0, 60.0, 0.001), none);
        assert_eq!(pair(1601.0, 60.0, 0.1), [[1500.0, 1601.0]]);
        assert_eq!(pair(1150.0, 350.0, 0.001), [[1500.0, 1150.0]]);
        assert_eq!(pair(1400.0 - 29.0 * 25.0, 60.0, 29.0), [[1500.0, 675.0]]);
        assert_eq!(pair(600.0, 60.0, 29.0), none);
        assert_eq!(pair(-9000.0, 60.0, 30.0), [[1500.0, -9000.0]]);
        // Of two it is the window of the one who has waited longer that counts.
        let tickets = vec![rated(1500.0, 60.0, 0.1), rated(1800.0, 350.0, 0.0)];
        assert_eq!(meet(tickets), none);
    }

    #[test]
    fn the_nearest_meet_and_of_equals_those_who_have_waited_longest() {
        let tickets = vec![
            rated(1500.0, 350.0, 9.0),
            rated(1400.0, 350.0, 8.0),
            rated(1560.0, 350.0, 7.0),
            rated(1450.0, 350.0, 6.0),
            rated(1450.0, 350.0, 5.0),
        ];
        let groups = form(&tickets, NOW);
        let of = |group: &[&TicketRecord]| {
            let place = |ticket: &&TicketRecord| tickets.iter().position(|t| t.id == ticket.id);
            group.iter().filter_map(place).collect::<Vec<_>>()
        };
        assert_eq!(groups.iter().map(|group| of(group)).collect::<Vec<_>>(), [[0, 3], [1, 4]]);
    }

    #[test]
    fn a_party_waits_until_it_is_whole_and_stays_together() {
        let of =
            |number: u128, code: &str, size| party(ticket(number, number, "{}", 4), code, size);
        let alone = |number: u128| ticket(number, number, "{}", 4);
        let mut tickets = vec![of(0, "a", 3), alone(1), alone(2), of(3, "a", 3), of(4, "b", 3)];
        assert_eq!(numbers(&tickets), [[0; 0]; 0]);
        // The same code, but not the same party.
        tickets.push(of(5, "a", 2));
        tickets.push(alone(6));
        assert_eq!(numbers(&tickets), [[0; 0]; 0]);
        tickets.push(of(7, "a", 3));
        assert_eq!(numbers(&tickets), [[0, 1, 3, 7]]);
        // Two and one and one, though two and two would be nearer to be had.
        tickets.push(of(8, "a", 2));
        assert_eq!(numbers(&tickets), [vec![0, 1, 3, 7], vec![2, 5, 6, 8]]);
        // Parties of all who play need nobody; larger ones can't play.
        let all = |number: u128, size| party(ticket(number, number, "{}", 2), "c", size);
        assert_eq!(numbers(&[all(0, 2), all(1, 2)]), [[0, 1]]);
        assert_eq!(numbers(&[all(0, 3), all(1, 3), all(2, 3)]), [[0; 0]; 0]);
    }

    #[test]
    fn sizes_are_chosen_so_that_they_fit() {
        let sizes = [3, 1, 2, 2, 5];
        let fill = |need| {
            let mut chosen = fill(need, &[0, 1, 2, 3, 4], |number| sizes[number])?;
            chosen.sort_unstable();
            Some(chosen)
        };
        assert_eq!(fill(0), Some(vec![]));
        assert_eq!(fill(4), Some(vec![0, 1]));
        assert_eq!(fill(5), Some(vec![0, 2]));
        assert_eq!(fill(8), Some(vec![0, 1, 2, 3]));
        assert_eq!(fill(13), Some(vec![0, 1, 2, 3, 4]));
        assert_eq!(fill(14), None);
    }

    /// What somebody wishes: options, the number of players, a party, a rating, and the wait.
    type Wish = (usize, u8, Option<(u8, u8)>, f64, f64);

    fn wish() -> impl Strategy<Value = Wish> {
        let party = prop::option::weighted(0.4, (0u8..3, 2u8..4));
        (0usize..2, 1u8..6, party, 1000.0..2000.0, 0.0..40.0)
    }

    fn tickets(wishes: &[Wish]) -> Vec<TicketRecord> {
        let ticket = |(kind, players, with, points, waited): &Wish| {
            let options = ["{}", r#"{"pairs":4}"#][*kind].to_owned();
            let rated = rated(*points, 80.0, *waited);
            let rated = TicketRecord { options, players: *players, ..rated };
            with.map_or(rated.clone(), |(code, size)| party(rated, &code.to_string(), size))
        };
        let mut tickets: Vec<_> = wishes.iter().map(ticket).collect();
        tickets.sort_by_key(|ticket| ticket.id);
        tickets
    }

    proptest! {
        #[test]
        fn groups_are_whole_agree_share_nobody_and_keep_to_windows(
            wishes in prop::collection::vec(wish(), 0..150)
        ) {
            let tickets = tickets(&wishes);
            let mut matched = HashSet::new();
            for group in form(&tickets, NOW) {
                prop_assert_eq!(group.len(), usize::from(group[0].players));
                prop_assert!(group.iter().all(|ticket| kind(ticket) == kind(group[0])));
                prop_assert!(group.iter().all(|ticket| matched.insert(ticket.id)), "once");
                prop_assert!(group.is_sorted_by_key(|ticket| ticket.id));
                for party in group.iter().filter_map(|ticket| ticket.party.as_ref()) {
                    let members = group.iter().filter(|one| one.party.as_ref() == Some(party));
                    prop_assert_eq!(members.count() % usize::from(party.size), 0);
                }
                let members: Vec<TicketRecord> = group.iter().copied().cloned().collect();
                let units = units(&members, NOW);
                let oldest = &units[0];
                prop_assert!(units.iter().all(|unit| oldest.gap(unit) <= oldest.window));
            }
        }

        /// Of those who are left none could be matched with others who are left.
        #[test]
        fn nobody_is_passed_over(wishes in prop::collection::vec(wish(), 0..60)) {
            let tickets = tickets(&wishes);
            let groups = form(&tickets, NOW);
            let matched: HashSet<_> = groups.iter().flatten().map(|ticket| ticket.id).collect();
            let left = |ticket: &&TicketRecord| !matched.contains(&ticket.id);
            let left: Vec<_> = tickets.iter().filter(left).cloned().collect();
            let units = units(&left, NOW);
            for (number, unit) in units.iter().enumerate() {
                let agree = |other: &&Unit<'_>| {
                    other.kind() == unit.kind() && unit.gap(other) <= unit.window
                };
                let sums = units[number + 1..].iter().filter(agree).fold(1u128, |sums, other| {
                    sums | sums << other.tickets.len()
                });
                let need = unit.players().checked_sub(unit.tickets.len());
                prop_assert!(need.is_none_or(|need| sums >> need & 1 == 0), "{}", number);
            }
        }

        /// Whoever has waited until the window is open meets whoever there is.
        #[test]
        fn the_oldest_does_not_wait_for_ever(
            points in prop::collection::vec(-5000.0..5000.0, 2..40)
        ) {
            let mut tickets: Vec<_> = points.iter().map(|points| rated(*points, 30.0, 1.0)).collect();
            tickets.insert(0, rated(1500.0, 30.0, 30.0));
            prop_assert_eq!(form(&tickets, NOW)[0][0].id, tickets[0].id);
        }
    }
}
