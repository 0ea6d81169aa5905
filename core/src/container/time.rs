//! [`Time`]: moments as documents and logs write them, RFC 3339 in UTC with nanoseconds, and as people say them. Pure,
//! but for [`Time::now`].

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in whole nanoseconds; its text sorts like it (until the year 10000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970 UTC.
    seconds: i64,
    nanos: u32,
}

/// The first second of the year 0, and the first one of the year 10000.
const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
const DAY: i64 = 86_400;

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no moment: expected a time such as 2006-01-02T15:04:05Z, or how long ago, such as 90s, 10m, 2h or 7d"
)]
pub struct BadTime {
    text: String,
}

impl Time {
    /// How many bytes the text of a moment takes.
    pub const LENGTH: usize = "2006-01-02T15:04:05.000000000Z".len();

    /// Returns the moment that the machine's clock shows.
    pub fn now() -> Self {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self::of(
                since.as_secs().try_into().unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            Err(before) => Self::of(0, 0).before(before.duration()),
        }
    }

    /// Returns the moment so many seconds after 1970 UTC; one outside of the years 0 to 9999 is the nearest inside.
    pub fn of(seconds: i64, nanos: u32) -> Self {
        Self {
            seconds: seconds.clamp(YEARS.start, YEARS.end - 1),
            nanos: nanos.min(999_999_999),
        }
    }

    /// Returns the moment `time` before this one.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        let whole = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match self.nanos.checked_sub(time.subsec_nanos()) {
            Some(nanos) => Self::of(self.seconds.saturating_sub(whole), nanos),
            None => Self::of(
                self.seconds.saturating_sub(whole).saturating_sub(1),
                1_000_000_000 + self.nanos - time.subsec_nanos(),
            ),
        }
    }

    /// Returns the whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns how long this is after `earlier`; nothing where it is before.
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = |time: Self| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let between = (nanos(self) - nanos(earlier)).max(0);
        Duration::new((between / 1_000_000_000) as u64, (between % 1_000_000_000) as u32)
    }

    /// Reads a moment: RFC 3339 with any offset, or how long before `now` it was (`90s`, `10m`, `2h`, `1d`, `1h30m`).
    pub fn parse(text: &str, now: Self) -> Result<Self, BadTime> {
        parse_rfc3339(text.as_bytes())
            .or_else(|| parse_ago(text).map(|ago| now.before(ago)))
            .ok_or_else(|| BadTime {
                text: crate::path::shown(text.as_bytes()),
            })
    }

    /// Reads what `Display` writes.
    pub(super) fn parse_exact(bytes: &[u8]) -> Option<Self> {
        parse_rfc3339(bytes).filter(|_| bytes.len() == Self::LENGTH)
    }
}

/// RFC 3339 in UTC, nine digits behind the second.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds.div_euclid(DAY), self.seconds.rem_euclid(DAY));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
            self.nanos
        )
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(text.as_bytes())
            .ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is no RFC 3339 time")))
    }
}

/// Returns the days from 1 January 1970 to a date of the Gregorian calendar. Years are counted from March, so that the
/// leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Returns the date so many days after 1 January 1970: the inverse of [`days`].
fn date(days: i64) -> (i64, i64, i64) {
    // Days in 400 years, and of them the day that this is.
    const CYCLE: i64 = 146_097;
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    // Each fourth year, not each hundredth, each four hundredth has a day more.
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + cycle * 400;
    if month < 10 {
        (year, month + 3, day)
    } else {
        (year + 1, month - 9, day)
    }
}

/// How many days a month has.
fn month_length(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    days(next_year, next, 1) - days(year, month, 1)
}

fn parse_rfc3339(bytes: &[u8]) -> Option<Time> {
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = bytes.get(from..from + length)?;
        digits.iter().try_fold(0, |value, digit| {
            digit
                .is_ascii_digit()
                .then(|| value * 10 + i64::from(digit - b'0'))
        })
    };
    let mark = |at: usize, marks: &[u8]| bytes.get(at).is_some_and(|byte| marks.contains(byte));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=month_length(year, month)).contains(&day) {
        return None;
    }
    // A leap second is the one after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if mark(at, b".") {
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return None;
        }
        let shown = digits.min(9);
        nanos = number(at + 1, shown)? * 10_i64.pow(9 - shown as u32);
        at += 1 + digits;
    }
    let offset = match (bytes.get(at)?, bytes.len() - at) {
        (b'Z' | b'z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) if mark(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 3600 + minutes * 60;
            if *sign == b'+' { east } else { -east }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    YEARS.contains(&seconds).then(|| Time::of(seconds, nanos as u32))
}

/// Reads `90s`, `10m`, `1h30m`, `2d`: numbers, each with its unit.
fn parse_ago(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.checked_mul(unit)?))?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        parse_rfc3339(text.as_bytes()).map(|time| time.to_string())
    }

    #[test]
    fn moments_are_what_gnu_date_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.000000000Z"),
            (YEARS.end - 1, "9999-12-31T23:59:59.000000000Z"),
            (YEARS.start, "0000-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(Time::of(seconds, 0).to_string(), text);
            assert_eq!(read(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn every_day_of_eight_hundred_years_is_its_own() {
        for day in days(1600, 1, 1)..days(2400, 1, 1) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
            assert!(
                (1..=month_length(year, month)).contains(&of_month),
                "{year}-{month}-{of_month}"
            );
        }
    }

    #[test]
    fn offsets_and_fractions_are_understood() {
        for (text, expected) in [
            ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09.000000000Z"),
            ("2024-05-06t07:08:09.5z", "2024-05-06T07:08:09.500000000Z"),
            ("2024-05-06 07:08:09+02:00", "2024-05-06T05:08:09.000000000Z"),
            (
                "2024-05-06T23:30:00.1234567891-01:00",
                "2024-05-07T00:30:00.123456789Z",
            ),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "10",
            "m",
            "-5m",
            "1w",
            "5m ",
            "2024-02-30T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-05-06",
            "2024-05-06T24:00:00Z",
            "2024-05-06T07:08:09",
            "2024-05-06T07:08:09.Z",
            "2024-05-06T07:08:09+2",
            "2024-05-06T07:08:09Zx",
            "99999999999999999999s",
            "18446744073709551615d",
            "\u{e4}m",
        ] {
            assert!(
                Time::parse(text, Time::of(0, 0)).is_err(),
                "{text:?} was accepted"
            );
        }
    }

    #[test]
    fn how_long_ago_is_counted_from_now() {
        let now = Time::of(100_000, 5);
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("1d", 86_400),
        ] {
            assert_eq!(
                Time::parse(text, now),
                Ok(Time::of(100_000 - seconds, 5)),
                "{text}"
            );
        }
        assert_eq!(now.before(Duration::from_nanos(6)), Time::of(99_999, 999_999_999));
        assert_eq!(now.since(Time::of(99_999, 6)), Duration::from_nanos(999_999_999));
        assert_eq!(Time::of(0, 0).since(now), Duration::ZERO);
    }
}
