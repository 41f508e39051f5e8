//! How often something may be done: a token bucket that is filled once a second.
//!
//! It counts by the registry's clock, so that a message asks nobody for the time.

/// Seconds' worth of tokens that gather while nothing is sent.
const BURST_SECONDS: u32 = 2;
/// Refusals in a row that are forgiven: a client that stumbles is told, one that floods is closed.
const REFUSALS_MAX: u32 = 1000;

/// A token bucket.
pub(super) struct Bucket {
    per_second: u32,
    tokens: u32,
    filled_at: u32,
    /// Refusals since something was granted for the first time in a second.
    refusals: u32,
}

impl Bucket {
    /// A full one. `now` is in seconds of any clock.
    pub(super) fn new(per_second: u32, now: u32) -> Self {
        let tokens = per_second.saturating_mul(BURST_SECONDS);
        Self { per_second, tokens, filled_at: now, refusals: 0 }
    }

    /// Whether `cost` more are granted at `now`. Something that costs more than a full bucket has is
    /// granted by a full one.
    pub(super) fn take(&mut self, cost: usize, now: u32) -> bool {
        let full = self.per_second.saturating_mul(BURST_SECONDS);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX).min(full);
        let seconds = now.saturating_sub(self.filled_at);
        if seconds > 0 {
            let more = self.per_second.saturating_mul(seconds);
            self.tokens = full.min(self.tokens.saturating_add(more));
            self.filled_at = now;
            if self.refusals < self.per_second {
                self.refusals = 0;
            }
        }
        let left = self.tokens.checked_sub(cost);
        match left {
            Some(left) => self.tokens = left,
            None => self.refusals += 1,
        }
        left.is_some()
    }

    /// Whether so many were refused that it can be no oversight.
    pub(super) fn is_flood(&self) -> bool {
        self.refusals > REFUSALS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_so_many_a_second() {
        let mut bucket = Bucket::new(3, 100);
        let granted = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(1, now)).count();
        assert_eq!(granted(&mut bucket, 100), 6);
        assert_eq!(granted(&mut bucket, 101), 3);
        assert_eq!(granted(&mut bucket, 109), 6);
        assert_eq!(granted(&mut bucket, 90), 0, "a clock that goes back grants nothing");
    }

    #[test]
    fn what_costs_more_than_there_ever_is_needs_all_there_is() {
        let mut bucket = Bucket::new(2, 0);
        assert!(bucket.take(100, 0) && !bucket.take(1, 0));
        assert!(!bucket.take(100, 1) && bucket.take(2, 1));
    }

    #[test]
    fn who_goes_on_although_refused_floods() {
        let mut bucket = Bucket::new(10, 0);
        let mut sent = 0;
        for second in 0..100 {
            for _ in 0..1000 {
                if !bucket.is_flood() {
                    bucket.take(1, second);
                    sent += 1;
                }
            }
        }
        assert!(bucket.is_flood() && sent < 1200, "{sent}");
        // One who sends a little more than may be is refused now and then, and never closed.
        let mut bucket = Bucket::new(10, 0);
        for second in 0..1000 {
            let granted = (0..12).filter(|_| bucket.take(1, second)).count();
            assert!(granted >= 10);
        }
        assert!(!bucket.is_flood());
    }
}
