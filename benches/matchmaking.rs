//! How long it takes to say who is to meet of 10,000 who wait: `cargo bench --bench matchmaking`.

use std::time::{Duration, Instant};

use gameserver::ids::{TicketId, Timestamp, UserId};
use gameserver::matches::matchmaker::form;
use gameserver::store::{TicketRecord, TicketState};

/// Who waits.
const TICKETS: u32 = 10_000;
/// So many different wishes there are among them.
const KINDS: u32 = 10;
/// Of so many tries the middle one counts.
const TRIES: usize = 101;

fn main() {
    let ticket = |number| TicketRecord {
        id: TicketId::new(),
        game: "pairs".into(),
        options: format!("{{\"pairs\":{}}}", 2 + number % KINDS),
        players: 2,
        user: UserId::new(),
        display_name: "Somebody".into(),
        state: TicketState::Searching,
        r#match: None,
        expires_at: Timestamp(1),
    };
    let tickets: Vec<_> = (0..TICKETS).map(ticket).collect();
    let mut times = [Duration::ZERO; TRIES];
    for time in &mut times {
        let began = Instant::now();
        let groups = std::hint::black_box(form(&tickets, Timestamp(0))).len();
        *time = began.elapsed();
        assert_eq!(groups, tickets.len() / 2);
    }
    times.sort();
    println!("{TICKETS} tickets are matched in {:?}", times[TRIES / 2]);
}
