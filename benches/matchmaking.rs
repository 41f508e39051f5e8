//! How long it takes to say who is to meet of 10,000 who wait: `cargo bench --bench matchmaking`.

use std::time::{Duration, Instant};

use gameserver::ids::{TicketId, Timestamp, UserId};
use gameserver::matches::matchmaker::form;
use gameserver::ratings::Rating;
use gameserver::store::{Party, TicketRecord, TicketState};

/// Who waits.
const TICKETS: u32 = 10_000;
/// Of so many tries the middle one counts.
const TRIES: usize = 101;

/// A ticket of somebody with a rating for a match of so many players.
fn ticket(options: u32, players: u8, points: f64, deviation: f64) -> TicketRecord {
    TicketRecord {
        id: TicketId::new(),
        game: "pairs".into(),
        options: format!("{{\"pairs\":{}}}", 2 + options),
        players,
        party: None,
        user: UserId::new(),
        display_name: "Somebody".into(),
        rating: Rating { points, deviation, ..Rating::default() },
        state: TicketState::Searching,
        r#match: None,
        expires_at: Timestamp(i64::MAX),
    }
}

/// A rating between 800 and 2200, another for each number.
fn points(number: u32) -> f64 {
    800.0 + f64::from(number.wrapping_mul(2_654_435_761) % 1_400_000) / 1000.0
}

fn measure(what: &str, tickets: impl Fn(u32) -> TicketRecord) {
    let tickets: Vec<_> = (0..TICKETS).map(tickets).collect();
    let now = Timestamp::now();
    let (mut times, mut matched) = ([Duration::ZERO; TRIES], 0);
    for time in &mut times {
        let began = Instant::now();
        let groups = std::hint::black_box(form(&tickets, now));
        *time = began.elapsed();
        matched = groups.iter().map(Vec::len).sum();
    }
    times.sort();
    println!("{what}: {matched} of {TICKETS} are matched in {:.1?}", times[TRIES / 2]);
}

fn main() {
    measure("new players, ten kinds of wishes, two a match", |number| {
        ticket(number % 10, 2, 1500.0, 350.0)
    });
    measure("rated players, two a match", |number| ticket(0, 2, points(number), 60.0));
    measure("rated players, eight a match", |number| ticket(0, 8, points(number), 60.0));
    measure("a third of them in parties of two and three, eight a match", |number| {
        let (party, place) = (number / 15, number % 15);
        let (code, size) = match place {
            0 | 1 => (format!("{party} a"), 2),
            2..=4 => (format!("{party} b"), 3),
            _ => return ticket(0, 8, points(number), 60.0),
        };
        let party = Some(Party { code, size });
        TicketRecord { party, ..ticket(0, 8, points(number), 60.0) }
    });
    measure("all too far apart, eight a match", |number| {
        ticket(0, 8, f64::from(number) * 1000.0, 60.0)
    });
}
