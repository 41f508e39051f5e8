//! The match's own chance: the same numbers each time the match is gone through.
//!
//! Only for [`Rules::start`](crate::Rules::start), [`apply`](crate::Rules::apply),
//! [`tick`](crate::Rules::tick) and [`leave`](crate::Rules::leave): elsewhere the server stops the
//! module, since what is only looked at must not change what comes next.

/// A number; each is as likely as any other.
pub fn next_u64() -> u64 {
    source::next_u64()
}

/// A number below `n`, which is at least 1; each is as likely as any other.
#[expect(clippy::cast_possible_truncation, reason = "what is below n fits where n does")]
pub fn below(n: usize) -> usize {
    let n = n as u64;
    // The numbers from here on would make the low rests more likely than the high ones.
    let end = u64::MAX - u64::MAX % n;
    loop {
        let number = next_u64();
        if number < end {
            return (number % n) as usize;
        }
    }
}

/// Brings `items` into any order, each as likely as any other (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}

#[cfg(target_arch = "wasm32")]
mod source {
    #[link(wasm_import_module = "gameserver")]
    unsafe extern "C" {
        safe fn random() -> u64;
    }

    pub fn next_u64() -> u64 {
        random()
    }
}

/// What the server would give for the seed 0, for a game's own tests.
#[cfg(not(target_arch = "wasm32"))]
mod source {
    use std::cell::Cell;

    thread_local! { static STATE: Cell<u64> = const { Cell::new(0) }; }

    pub fn next_u64() -> u64 {
        let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        STATE.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_are_even() {
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[below(3)] += 1;
        }
        assert!(counts.iter().all(|count| (9_700..10_300).contains(count)), "{counts:?}");
        assert_eq!(below(1), 0);
    }
}
