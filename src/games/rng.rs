//! Chance that can be had again: the same seed gives the same numbers for ever.
//!
//! A match is rebuilt from its seed and its log, years later and on another machine, so nothing
//! here may ever give other numbers: no generator of a library, whose next version may, and no
//! width of the platform. It is no secret's source; seeds come from the operating system.

use serde::{Deserialize, Serialize};

/// `SplitMix64`: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
/// 2014, with the constants of Vigna's `splitmix64.c`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number: each is as likely as any other.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`, which is at least 1; each is as likely as any other.
    #[expect(clippy::cast_possible_truncation, reason = "what is below n fits where n does")]
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        // The numbers from here on would make the low rests more likely than the high ones.
        let end = u64::MAX - u64::MAX % n;
        loop {
            let number = self.next_u64();
            if number < end {
                return (number % n) as usize;
            }
        }
    }

    /// Brings `items` into any order, each as likely as any other (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_literature() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [(); 5].map(|()| rng.next_u64()),
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ],
            "Vigna's splitmix64.c"
        );
        assert_eq!(Rng::new(0).next_u64(), 0xE220_A839_7B1D_CDAF, "Java's SplittableRandom");
    }

    /// Logs of past matches depend on it: where this fails, the code is wrong and not the test.
    #[test]
    fn a_shuffle_is_the_same_for_ever() {
        let mut items: Vec<u8> = (0..16).collect();
        Rng::new(7).shuffle(&mut items);
        assert_eq!(items, [14, 6, 4, 2, 5, 11, 13, 1, 3, 12, 15, 10, 8, 0, 9, 7]);
    }

    #[test]
    fn numbers_below_are_even() {
        let mut rng = Rng::new(42);
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[rng.below(3)] += 1;
        }
        assert!(counts.iter().all(|count| (9_700..10_300).contains(count)), "{counts:?}");
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn every_order_comes() {
        let mut rng = Rng::new(0);
        let orders: std::collections::BTreeSet<[u8; 4]> = (0..500)
            .map(|_| {
                let mut items = [0, 1, 2, 3];
                rng.shuffle(&mut items);
                items
            })
            .collect();
        assert_eq!(orders.len(), 24);
    }
}
