//! Which of two Debian versions is the newer (Debian policy 5.6.12; deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions, `[epoch:]upstream[-revision]`.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (Parts::of(one), Parts::of(other));
    numbers(one.epoch, other.epoch)
        .then_with(|| words(one.upstream, other.upstream))
        .then_with(|| words(one.revision, other.revision))
}

struct Parts<'a> {
    epoch: &'a [u8],
    upstream: &'a [u8],
    revision: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Self {
        let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self {
            epoch: epoch.as_bytes(),
            upstream: upstream.as_bytes(),
            revision: revision.as_bytes(),
        }
    }
}

/// Compares stretches of other characters and stretches of digits in turn.
fn words(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let text = |word: &[u8]| word.iter().position(u8::is_ascii_digit).unwrap_or(word.len());
        let (ends, ends_other) = (text(one), text(other));
        let order = letters(&one[..ends], &other[..ends_other]);
        (one, other) = (&one[ends..], &other[ends_other..]);
        let digits = |word: &[u8]| {
            word.iter()
                .position(|byte| !byte.is_ascii_digit())
                .unwrap_or(word.len())
        };
        let (ends, ends_other) = (digits(one), digits(other));
        let order = order.then_with(|| numbers(&one[..ends], &other[..ends_other]));
        (one, other) = (&one[ends..], &other[ends_other..]);
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Compares digits by their value, however many there are.
fn numbers(one: &[u8], other: &[u8]) -> Ordering {
    let significant = |digits: &'_ [u8]| {
        digits
            .iter()
            .position(|&digit| digit != b'0')
            .unwrap_or(digits.len())
    };
    let (one, other) = (&one[significant(one)..], &other[significant(other)..]);
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

/// Compares text without digits: `~` before the end, the end before letters, letters before all else.
fn letters(one: &[u8], other: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => 0,
        None => 1,
        Some(byte) if byte.is_ascii_alphabetic() => 1 + u16::from(*byte),
        Some(byte) => 256 + u16::from(*byte),
    };
    (0..one.len().max(other.len()))
        .map(|at| weight(one.get(at)).cmp(&weight(other.get(at))))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_the_policy_says() {
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+b1",
            "1.0~beta1~svn1245",
            "1.0~beta1",
            "1.0",
            "1.0-0.1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0-1.1",
            "1.0-10",
            "1.0a",
            "1.0+dfsg",
            "1.2",
            "1.10",
            "99999999999999999999999",
            "100000000000000000000000",
            "1:0.1",
            "1:0.2",
            "10:0",
        ];
        for (at, one) in ascending.iter().enumerate() {
            for (place, other) in ascending.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&place), "{one} and {other}");
            }
        }
    }

    #[test]
    fn different_texts_of_one_version_are_equal() {
        for (one, other) in [
            ("1.0", "0:1.0"),
            ("1.01", "1.1"),
            ("1.0-0", "1.0"),
            ("a0", "a"),
            ("1.0-", "1.0"),
        ] {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} and {other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_three_texts_have_one_order(texts in proptest::collection::vec("[0-2a~+:.-]{0,6}", 3)) {
            let mut texts = texts;
            texts.sort_by(|one, other| compare(one, other));
            let [one, two, three] = &texts[..] else { unreachable!("three texts were made") };
            for (smaller, larger) in [(one, two), (two, three), (one, three)] {
                assert!(compare(smaller, larger).is_le(), "{smaller} and {larger}");
                assert_eq!(compare(larger, smaller), compare(smaller, larger).reverse(), "{smaller} and {larger}");
            }
        }
    }
}
