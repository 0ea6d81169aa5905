//! Dates as `Release` files and HTTP headers write them: `Sat, 14 Jun 2025 10:00:00 UTC` (RFC 5322 with a zone in words).

use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Returns the time that `text` means; nothing where it is no such date or lies before 1970.
pub(in crate::fetch) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.split_once(',').map_or(text, |(_, date)| date);
    let mut words = text.split_ascii_whitespace();
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let utc = matches!(words.next()?, "UTC" | "GMT" | "Z" | "+0000");
    if !utc
        || !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns the days from 1 January 1970 to a date of the Gregorian calendar. Years are counted from March, so that the
/// leap day is the last one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    before + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_what_gnu_date_says() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Sat, 14 Jun 2025 10:00:00 UTC", 1_749_895_200),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Fri, 1 Mar 2024 00:00:00 +0000", 1_709_251_200),
            ("31 Dec 1999 23:59:59 UTC", 946_684_799),
        ] {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "Sat, 14 Jun 2025",
            "Sat, 99 Jun 2025 10:00:00 UTC",
            "1 Jan 1960 00:00:00 UTC",
            "Sat, 14 Jun 2025 10:00:00 CET",
            "1 Jan 99999999999999999999 0:0:0 UTC",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
