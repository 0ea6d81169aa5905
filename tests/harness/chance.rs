//! [`Chance`]: random moments that can be had again, by setting `MK_TEST_SEED` to the seed that a failed test printed.

use std::time::{Duration, SystemTime};

/// A source of numbers that look random (xorshift64).
#[derive(Debug)]
pub(crate) struct Chance {
    /// What to set `MK_TEST_SEED` to for the same numbers.
    pub(crate) seed: u64,
    state: u64,
}

impl Chance {
    /// Takes the seed from `MK_TEST_SEED`, else from the clock.
    pub(crate) fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is how a test is told to repeat itself"
        )]
        let said = std::env::var("MK_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = said.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
        });
        Self::of(seed)
    }

    /// Returns the numbers that follow from `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            seed,
            state: seed | 1,
        }
    }

    /// Returns a number less than `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() >> 11) as usize % end
    }

    /// Returns a time from zero up to `most`.
    pub(crate) fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.number() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// Returns a number.
    pub(crate) fn number(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}
