//! Who is to meet: pure, so that it can be tested and measured without a server.

use std::collections::HashMap;

use crate::ids::Timestamp;
use crate::store::TicketRecord;

/// The groups that a match is to be made for, each of as many players as its match begins with.
///
/// `tickets` are those that search, oldest first. Of those that agree (the same game, options and
/// number of players) the oldest meet first; no user meets himself. One that is claimed or has
/// waited to its end meets nobody.
pub fn form(tickets: &[TicketRecord], now: Timestamp) -> Vec<Vec<&TicketRecord>> {
    let mut open: HashMap<_, Vec<&TicketRecord>> = HashMap::new();
    let mut whole = Vec::new();
    let free = |ticket: &&TicketRecord| ticket.r#match.is_none() && ticket.expires_at > now;
    for ticket in tickets.iter().filter(free) {
        let group = open.entry((&ticket.game, &ticket.options, ticket.players)).or_default();
        if group.iter().any(|other| other.user == ticket.user) {
            continue;
        }
        group.push(ticket);
        if group.len() >= usize::from(ticket.players) {
            whole.push(std::mem::take(group));
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::{MatchId, TicketId, UserId};
    use crate::store::TicketState;

    const NOW: Timestamp = Timestamp(1000);

    fn ticket(number: u128, user: u128, options: &str, players: u8) -> TicketRecord {
        TicketRecord {
            id: TicketId(Uuid::from_u128(number)),
            game: "pairs".into(),
            options: options.into(),
            players,
            user: UserId(Uuid::from_u128(user)),
            display_name: String::new(),
            state: TicketState::Searching,
            r#match: None,
            expires_at: Timestamp(NOW.0 + 1),
        }
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

    /// Tickets of a few kinds, whose users are all different or not.
    fn tickets(wishes: &[(u128, usize, u8)], all_differ: bool) -> Vec<TicketRecord> {
        let options = ["{}", r#"{"pairs":4}"#, r#"{"pairs":5}"#];
        let ticket = |(number, (user, kind, players)): (u128, &(u128, usize, u8))| {
            let user = if all_differ { number } else { *user };
            ticket(number, user, options[*kind], *players)
        };
        (0..).zip(wishes).map(ticket).collect()
    }

    fn agree(one: &TicketRecord, other: &TicketRecord) -> bool {
        (&one.options, one.players) == (&other.options, other.players)
    }

    proptest! {
        #[test]
        fn groups_are_whole_agree_and_share_nobody(
            wishes in prop::collection::vec((0u128..20, 0usize..3, 1u8..5), 0..200)
        ) {
            let tickets = tickets(&wishes, false);
            let mut matched = HashSet::new();
            for group in form(&tickets, NOW) {
                prop_assert_eq!(group.len(), usize::from(group[0].players));
                let users: HashSet<_> = group.iter().map(|ticket| ticket.user).collect();
                prop_assert_eq!(users.len(), group.len());
                prop_assert!(group.iter().all(|ticket| agree(ticket, group[0])));
                prop_assert!(group.iter().all(|ticket| matched.insert(ticket.id)), "once");
            }
        }

        #[test]
        fn nobody_is_passed_over(
            wishes in prop::collection::vec((0u128..1, 0usize..3, 1u8..5), 0..200)
        ) {
            let tickets = tickets(&wishes, true);
            let groups = form(&tickets, NOW);
            let matched: HashSet<_> = groups.iter().flatten().map(|ticket| ticket.id).collect();
            let left = |ticket: &&TicketRecord| !matched.contains(&ticket.id);
            for group in &groups {
                let last = group[group.len() - 1];
                let mut older = tickets.iter().filter(left).filter(|old| old.id < last.id);
                prop_assert!(older.all(|old| !agree(old, last)));
            }
            let left: Vec<_> = tickets.iter().filter(left).cloned().collect();
            prop_assert!(form(&left, NOW).is_empty());
        }
    }
}
