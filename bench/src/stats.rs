//! Times → numbers that say what a contestant takes, and how sure that is.

use serde::{Deserialize, Serialize};

/// What many measurements of one thing come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Half of them took less.
    pub(crate) median: f64,
    /// 95 of 100 took less.
    pub(crate) p95: f64,
    /// How far apart the first and the last quarter are: the middle half lies within so much.
    pub(crate) spread: f64,
    /// How many there were.
    pub(crate) count: usize,
}

impl Summary {
    /// Sums up `times`; none where there are none.
    pub(crate) fn of(times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            p95: quantile(&sorted, 0.95)?,
            spread: quantile(&sorted, 0.75)? - quantile(&sorted, 0.25)?,
            count: sorted.len(),
        })
    }
}

/// Returns the value below which the `part` (0 to 1) of the `sorted` values lies, between two of them in proportion.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    Some(below + (above - below) * place.fract())
}

/// What ours takes of what theirs takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// Of the ratios within each round.
    pub(crate) median: f64,
    /// A quarter of them is below this.
    pub(crate) low: f64,
    /// A quarter of them is above this.
    pub(crate) high: f64,
}

/// Returns what `ours` took of `theirs` in the same round; the rounds of both are in the same order.
///
/// What slows the machine down for a while slows both of a round, so this moves less than the ratio of the medians.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(our, their)| our / their).collect();
    ratios.sort_by(f64::total_cmp);
    Some(Ratio {
        median: quantile(&ratios, 0.5)?,
        low: quantile(&ratios, 0.25)?,
        high: quantile(&ratios, 0.75)?,
    })
}

/// A generator of numbers for shuffling (xorshift64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Returns one that starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns the numbers below `count` in random order.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values_in_proportion() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        for (part, value) in [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.95, 4.8), (1.0, 5.0)] {
            let got = quantile(&sorted, part).unwrap();
            assert!((got - value).abs() < 1e-9, "{part}: {got}");
        }
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn one_slow_round_moves_neither_the_median_nor_the_spread() {
        let calm = Summary::of(&[3.0, 1.0, 2.0, 4.0, 5.0]).unwrap();
        let slow = Summary::of(&[3.0, 1.0, 2.0, 4.0, 500.0]).unwrap();
        assert_eq!((calm.median, calm.spread, calm.count), (3.0, 2.0, 5));
        assert_eq!((slow.median, slow.spread), (calm.median, calm.spread));
        assert!(slow.p95 > calm.p95);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        // The second round was ten times slower for both.
        let ratio_of = |ours: &[f64], theirs: &[f64]| ratio(ours, theirs).map(|ratio| ratio.median);
        assert_eq!(ratio_of(&[2.0, 20.0, 2.0], &[1.0, 10.0, 1.0]), Some(2.0));
        assert_eq!(ratio(&[], &[]), None);
    }

    #[test]
    fn an_order_holds_each_once_and_is_not_always_the_same() {
        let mut dice = Dice::new(7);
        let orders: std::collections::BTreeSet<Vec<usize>> = (0..200).map(|_| dice.order(3)).collect();
        assert_eq!(orders.len(), 6, "all orders of three come up: {orders:?}");
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }
}
