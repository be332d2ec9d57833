//! Numbers as people read them.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// A time in milliseconds with three digits, or a dash.
pub(super) fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| three_digits(time.as_secs_f64() * 1e3))
}

/// A number with about three digits, and no fewer than its whole part has.
pub(super) fn three_digits(value: f64) -> String {
    let digits = if value >= 100.0 || value == 0.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    match text.split_once('.') {
        Some((whole, part)) => format!("{}.{part}", grouped(whole)),
        None => grouped(&text),
    }
}

/// A whole number with commas between thousands.
pub(super) fn count(n: u64) -> String {
    grouped(&n.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share from 0 to 1 as per cent.
pub(super) fn percent(share: f64) -> String {
    // What is not all must not read as if it were.
    let text = format!("{:.1} %", share * 100.0);
    if share < 1.0 && text == "100.0 %" { ">99.9 %".to_owned() } else { text }
}

/// A time in seconds, to the tenth.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Date and time in UTC, as `2026-11-23 15:00:00 UTC`.
pub(super) fn utc(time: SystemTime) -> String {
    let at = OffsetDateTime::from(time);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn numbers_are_short_and_not_rounded_into_a_lie() {
        assert_eq!(ms(Some(Duration::from_micros(52))), "0.052");
        assert_eq!(ms(Some(Duration::from_micros(1_234_567))), "1,235");
        assert_eq!([ms(None), three_digits(0.0)], ["-", "0"]);
        assert_eq!([three_digits(9.999), three_digits(1234.5)], ["10.00", "1,234"]);
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([percent(1.0), percent(0.99999), percent(0.5)], ["100.0 %", ">99.9 %", "50.0 %"]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_446_061, "2026-11-23 15:01:01 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
