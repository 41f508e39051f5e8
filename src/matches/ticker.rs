//! The clock of all `ticks` games of a node: one task, and a wheel of milliseconds in which each match
//! stands at the time of its next step.
//!
//! A step that comes late does not hurry the next ones: up to [`CATCH_UP_STEPS`] are made up for, and
//! what is more is lost to that match's clock. A match whose steps take long gets a task of its own and
//! is slowed until they are a small part of its time, so that others are not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::live::Match;
use super::ticks::Step;
use crate::telemetry::figures::{TICK_TIME, TICKS_LATE};
use crate::telemetry::work;
use crate::vital::Vital;

/// Milliseconds that the wheel goes round in: more than the longest time between two steps.
const SLOTS: usize = 1024;
/// Steps that a late match makes up for.
const CATCH_UP_STEPS: u32 = 1;
/// A step that takes longer is made in a task of its own the next time.
const LONG_STEP: Duration = Duration::from_millis(1);
/// A match steps at most this part of the time: the next step waits for so many times what one took.
const STEPS_PART: u32 = 4;

/// Matches that move, or are about to.
pub struct Ticker {
    /// How much of a match a crash may lose.
    pub loss: Duration,
    /// Those that are to get into the wheel; each match is in one place at most.
    arrivals: Mutex<Vec<Due>>,
    arrived: Notify,
}

/// A match, and when it is to step.
struct Due {
    at: Instant,
    live: Arc<Match>,
    /// Whether its last step was a long one.
    long: bool,
}

impl Ticker {
    /// Starts the task.
    pub fn start(loss: Duration) -> Arc<Self> {
        let (arrivals, arrived) = (Mutex::default(), Notify::new());
        let ticker = Arc::new(Self { loss, arrivals, arrived });
        tokio::spawn(Arc::clone(&ticker).run());
        ticker
    }

    /// From now on the match steps, until it says that it stops; it must not be here already.
    pub fn add(&self, live: &Arc<Match>) {
        let at = Instant::now() + live.period();
        self.arrive(Due { at, live: Arc::clone(live), long: false });
    }

    fn arrive(&self, due: Due) {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(due);
        self.arrived.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let _vital = Vital("the clock of matches");
        let (mut wheel, mut due) = (Wheel::new(Instant::now()), Vec::new());
        loop {
            let arrivals =
                std::mem::take(&mut *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
            for arrival in arrivals {
                wheel.insert(arrival);
            }
            let Some(next) = wheel.next() else {
                self.arrived.notified().await;
                continue;
            };
            let time = wheel.start + Duration::from_millis(next);
            if time > Instant::now() {
                // Whoever arrives may be due before.
                let _ = timeout_at(time.into(), self.arrived.notified()).await;
                continue;
            }
            let working = work::TICKER.works();
            wheel.take(next, &mut due);
            for one in due.drain(..) {
                if one.long {
                    let ticker = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Some(next) = one.step() {
                            ticker.arrive(next);
                        }
                    });
                } else if let Some(next) = one.step() {
                    wheel.insert(next);
                }
            }
            drop(working);
            // Those who were told something write it before others are told more.
            yield_now().await;
        }
    }
}

impl Due {
    /// Steps; gives the next one, unless the match stops.
    fn step(self) -> Option<Self> {
        let (period, now) = (self.live.period(), Instant::now());
        let late = now.saturating_duration_since(self.at);
        // Broken rules stop their match alone; whoever comes back loads it anew.
        let Ok(step) = catch_unwind(AssertUnwindSafe(|| self.live.step(now))) else {
            tracing::error!(r#match = %self.live.id, "a step has panicked: the match is given up");
            self.live.give_up();
            return None;
        };
        let took = now.elapsed();
        match step {
            Step::Stopped => return None,
            // Due as before: it comes with the next millisecond.
            Step::Busy => return Some(self),
            Step::Done | Step::Stood => {}
        }
        TICK_TIME.took(took);
        if late > period / 2 || step == Step::Stood {
            TICKS_LATE.increment();
        }
        let at = next_at(self.at, now, period, took);
        Some(Self { at, live: self.live, long: took > LONG_STEP })
    }
}

/// When the step after one that was due, began and took so long is due.
fn next_at(due: Instant, began: Instant, period: Duration, took: Duration) -> Instant {
    let late = began.saturating_duration_since(due);
    let from = if late > period * CATCH_UP_STEPS { began } else { due };
    (from + period).max(began + took * STEPS_PART)
}

/// Matches by the millisecond of their next step.
struct Wheel {
    start: Instant,
    slots: Vec<Vec<Due>>,
    /// The millisecond that is looked at next, since the start.
    at: u64,
    count: usize,
}

impl Wheel {
    fn new(start: Instant) -> Self {
        Self { start, slots: (0..SLOTS).map(|_| Vec::new()).collect(), at: 0, count: 0 }
    }

    /// What is further away than the wheel reaches comes round too early, by less than a step that
    /// took so long.
    fn insert(&mut self, due: Due) {
        if self.count == 0 {
            // Nobody has turned it since.
            self.at = self.at.max(self.millisecond(Instant::now()));
        }
        let last = self.at + SLOTS as u64 - 1;
        let place = self.millisecond(due.at).clamp(self.at, last);
        self.slot(place).push(due);
        self.count += 1;
    }

    /// The next millisecond in which something is due.
    fn next(&mut self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        (self.at..self.at + SLOTS as u64).find(|place| !self.slot(*place).is_empty())
    }

    /// Swaps what is due at the millisecond `next` for the empty `due`.
    fn take(&mut self, next: u64, due: &mut Vec<Due>) {
        std::mem::swap(self.slot(next), due);
        self.at = next + 1;
        self.count -= due.len();
    }

    /// Rounded up: no step comes early.
    fn millisecond(&self, time: Instant) -> u64 {
        let micros = time.saturating_duration_since(self.start).as_micros();
        u64::try_from(micros.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    fn slot(&mut self, millisecond: u64) -> &mut Vec<Due> {
        let place = usize::try_from(millisecond % SLOTS as u64).unwrap_or(0);
        &mut self.slots[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_step_is_made_up_for_and_a_later_one_is_lost() {
        let (start, period) = (Instant::now(), Duration::from_millis(50));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let took = Duration::from_micros(10);
        assert_eq!(next_at(at(100), at(100), period, took), at(150));
        assert_eq!(next_at(at(100), at(149), period, took), at(150), "the phase is kept");
        assert_eq!(next_at(at(100), at(151), period, took), at(201), "the clock is slowed");
        let long = Duration::from_millis(30);
        assert_eq!(next_at(at(100), at(100), period, long), at(220), "so that others have time");
    }
}
