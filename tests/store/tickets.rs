//! Tickets of the matchmaker: claims are whole, and what a node leaves behind is settled by others.

use std::sync::Arc;
use std::time::Duration;

use gameserver::ids::{MatchId, NodeId, TicketId, UserId};
use gameserver::ratings::Rating;
use gameserver::store::{
    NewTicket, NodeRecord, Party, Store, StoreError, TicketRecord, TicketState, Visibility,
};

use crate::{NOW, add, append, each, guest, later, new_match};

/// A user with a ticket that searches until a moment.
async fn searching(store: &Store, until: u64) -> TicketRecord {
    let user = guest("Somebody");
    add(store, &user).await;
    let ticket = TicketRecord {
        id: TicketId::new(),
        game: "pairs".into(),
        options: r#"{"pairs":4}"#.into(),
        players: 2,
        party: Some(Party { code: "ß-1".into(), size: 2 }),
        user: user.id,
        display_name: "Somebody".into(),
        rating: Rating::default(),
        state: TicketState::Searching,
        r#match: None,
        expires_at: later(until),
    };
    assert_eq!(store.add_ticket(ticket.clone(), 100).await.unwrap(), NewTicket::Added);
    ticket
}

async fn state(store: &Store, ticket: &TicketRecord) -> (TicketState, Option<MatchId>) {
    let ticket = store.ticket(ticket.id).await.unwrap().unwrap();
    (ticket.state, ticket.r#match)
}

#[test]
fn tickets_are_read_as_they_were_written_and_users_have_one_a_game() {
    each(|store| async move {
        let first = searching(&store, 10).await;
        assert_eq!(store.ticket(first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(store.ticket(TicketId::new()).await.unwrap(), None);
        let again = TicketRecord { id: TicketId::new(), ..first.clone() };
        let other_game = TicketRecord { game: "chess".into(), party: None, ..again.clone() };
        let found = store.add_ticket(again.clone(), 100).await.unwrap();
        assert_eq!(found, NewTicket::Searching(first.clone()));
        assert_eq!(store.add_ticket(other_game.clone(), 1).await.unwrap(), NewTicket::Full);
        assert_eq!(store.add_ticket(other_game.clone(), 2).await.unwrap(), NewTicket::Added);
        assert_eq!(store.searching_tickets(9).await.unwrap(), [first.clone(), other_game]);
        assert_eq!(store.searching_tickets(1).await.unwrap()[0].id, first.id);
        let nobodys = TicketRecord { user: UserId::new(), ..again.clone() };
        let refused = store.add_ticket(nobodys, 100).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        // With the account they go.
        store.delete_user(first.user, NOW).await.unwrap();
        assert_eq!(store.searching_tickets(9).await.unwrap(), []);
    });
}

#[test]
fn a_group_is_claimed_whole_or_not_at_all() {
    each(|store| async move {
        let [a, b, c, d] = [
            searching(&store, 10).await,
            searching(&store, 10).await,
            searching(&store, 10).await,
            searching(&store, 10).await,
        ];
        let ids = [(); 3].map(|()| MatchId::new());
        let claim = async |groups: Vec<(MatchId, Vec<TicketId>)>| {
            store.claim_tickets(groups, None).await.unwrap()
        };
        assert!(store.cancel_ticket(d.id, d.user).await.unwrap());
        assert!(!store.cancel_ticket(c.id, a.user).await.unwrap(), "another's");
        let groups = vec![(ids[0], vec![a.id, b.id]), (ids[1], vec![c.id, d.id])];
        assert_eq!(claim(groups).await, [ids[0]]);
        assert_eq!(claim(vec![(ids[2], vec![b.id, c.id])]).await, []);
        assert_eq!(state(&store, &a).await, (TicketState::Searching, Some(ids[0])));
        assert_eq!(state(&store, &c).await, (TicketState::Searching, None));
        assert_eq!(state(&store, &d).await, (TicketState::Cancelled, None));
        assert!(!store.cancel_ticket(a.id, a.user).await.unwrap(), "claimed");
        assert_eq!(store.expire_tickets(later(10)).await.unwrap(), [c.id], "claimed ones do not");
        // Its match is not there: those who were to play it search on.
        let mut settled = store.settle_tickets(None).await.unwrap();
        settled.sort();
        assert_eq!(settled, [a.id, b.id]);
        let mut new = new_match("pairs", Visibility::Public, a.user);
        new.id = ids[2];
        new.create.as_mut().unwrap().id = ids[2];
        assert_eq!(claim(vec![(ids[2], vec![a.id, b.id])]).await, [ids[2]]);
        assert_eq!(append(&store, vec![new]).await, []);
        assert_eq!(store.settle_tickets(None).await.unwrap().len(), 2);
        assert_eq!(state(&store, &b).await, (TicketState::Matched, Some(ids[2])));
        assert_eq!(store.settle_tickets(None).await.unwrap(), []);
    });
}

#[test]
fn what_is_over_is_forgotten() {
    each(|store| async move {
        let [waits, old] = [searching(&store, 10).await, searching(&store, 5).await];
        assert_eq!(store.expire_tickets(later(4)).await.unwrap(), []);
        assert_eq!(store.expire_tickets(later(5)).await.unwrap(), [old.id]);
        assert_eq!(state(&store, &old).await, (TicketState::Expired, None));
        store.forget_tickets(later(5)).await.unwrap();
        assert!(store.ticket(old.id).await.unwrap().is_some());
        store.forget_tickets(later(100)).await.unwrap();
        assert!(store.ticket(old.id).await.unwrap().is_none());
        assert_eq!(store.searching_tickets(9).await.unwrap(), [waits]);
    });
}

#[test]
fn of_many_who_claim_at_a_time_one_gets_each_ticket() {
    each(|store| async move {
        let mut tickets = Vec::new();
        for _ in 0..9 {
            tickets.push(searching(&store, 10).await.id);
        }
        // Each wants pairs that overlap with those of the others.
        let claims = (0..4).map(|shift| {
            let (store, mut tickets) = (Arc::clone(&store), tickets.clone());
            tickets.rotate_left(shift);
            let groups: Vec<_> =
                tickets.chunks_exact(2).map(|pair| (MatchId::new(), pair.to_vec())).collect();
            tokio::spawn(async move {
                let claimed = store.claim_tickets(groups.clone(), None).await.unwrap();
                groups.into_iter().filter(|(id, _)| claimed.contains(id)).collect::<Vec<_>>()
            })
        });
        let mut all = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            all.extend(claim.await.unwrap());
        }
        assert!(!all.is_empty());
        for ticket in store.searching_tickets(9).await.unwrap() {
            let of_whom: Vec<_> = all.iter().filter(|(_, ids)| ids.contains(&ticket.id)).collect();
            assert!(of_whom.len() <= 1, "{of_whom:?}");
            assert_eq!(of_whom.first().map(|(id, _)| *id), ticket.r#match);
        }
    });
}

/// Of a node that is gone: what it made stays, and what it did not make by then it never does.
#[test]
fn a_node_whose_lease_was_ended_makes_no_match() {
    each(|store| async move {
        let Store::Postgres(postgres) = &*store else { return };
        let node =
            |name: &str| NodeRecord { id: NodeId::new(), address: name.into(), certificate: None };
        let [gone, here] = [node("gone"), node("here")];
        let long = Duration::from_secs(60);
        postgres.add_node(&gone, Duration::from_secs(1)).await.unwrap();
        postgres.add_node(&here, long).await.unwrap();
        let mut groups = Vec::new();
        for _ in 0..2 {
            let pair = [searching(&store, 10).await, searching(&store, 10).await];
            let mut new = new_match("pairs", Visibility::Public, pair[0].user);
            (new.node, new.epoch) = (Some(gone.id), 1);
            let ids = pair.iter().map(|ticket| ticket.id).collect();
            let claimed = store.claim_tickets(vec![(new.id, ids)], Some(gone.id)).await.unwrap();
            assert_eq!(claimed, [new.id]);
            groups.push((new, pair));
        }
        let [(made, [first, _]), (late, [second, _])] = &groups[..] else { panic!() };
        while postgres.nodes().await.unwrap().contains(&gone) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Its lease has run out, but nobody has ended it yet.
        assert_eq!(append(&store, vec![made.clone()]).await, []);
        assert_eq!(store.settle_tickets(Some(here.id)).await.unwrap().len(), 4);
        assert_eq!(state(&store, first).await, (TicketState::Matched, Some(made.id)));
        assert_eq!(state(&store, second).await, (TicketState::Searching, None));
        assert_eq!(append(&store, vec![late.clone()]).await, [late.id]);
        assert!(store.match_record(late.id).await.unwrap().is_none());
        // Those of a node that holds a lease are left alone.
        let ids = vec![second.id];
        store.claim_tickets(vec![(late.id, ids)], Some(here.id)).await.unwrap();
        assert_eq!(store.settle_tickets(Some(NodeId::new())).await.unwrap(), []);
        assert_eq!(store.settle_tickets(Some(here.id)).await.unwrap(), [second.id]);
    });
}

#[test]
fn what_was_done_in_a_minute_is_counted_by_all() {
    each(|store| async move {
        let Store::Postgres(postgres) = &*store else { return };
        let count = async |key| postgres.count([key; 32]).await.unwrap();
        // A minute may end while it counts: then it begins anew, once.
        for _ in 0..2 {
            let (first, left) = count(1).await;
            assert!((1..=60).contains(&left), "{left}");
            let more = [count(1).await.0, count(1).await.0];
            postgres.uncount([1; 32]).await.unwrap();
            if (first, more, count(1).await.0, count(2).await.0) == (1, [2, 3], 3, 1) {
                postgres.prune_rates().await.unwrap();
                return;
            }
            let (_, left) = count(1).await;
            tokio::time::sleep(Duration::from_secs(left.into())).await;
        }
        panic!("it does not count");
    });
}
