//! Times of access logs → microseconds since the Unix epoch.

/// Reads `2026-11-28T06:00:00.123Z` (RFC 3339; without a zone it is UTC), `28/Nov/2026:06:00:00 +0000`, or a number of
/// seconds (with a fraction), milliseconds, microseconds or nanoseconds since the epoch.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    match (bytes.get(2), bytes.get(4)) {
        (Some(b'/'), _) => common(bytes),
        (_, Some(b'-')) => rfc3339(bytes),
        _ => epoch(text),
    }
}

/// `28/Nov/2026:06:00:00 +0000`
fn common(text: &[u8]) -> Option<u64> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = text.get(3..6)?;
    let month = 1 + MONTHS.chunks_exact(3).position(|name| name == month)? as i64;
    let separators = [(6, b'/'), (11, b':'), (14, b':'), (17, b':')];
    if separators.iter().any(|(at, byte)| text.get(*at) != Some(byte)) {
        return None;
    }
    let zone = match text.get(20..) {
        None | Some([]) => 0,
        Some([b' ', zone @ ..]) => offset(zone)?,
        Some(_) => return None,
    };
    let day = days(number(text, 7, 11)?, month, number(text, 0, 2)?)?;
    micros(day, clock(text, 12)? - zone, 0)
}

fn rfc3339(text: &[u8]) -> Option<u64> {
    let separators = [(7, b"-".as_slice()), (10, b"T t"), (13, b":"), (16, b":")];
    if separators
        .iter()
        .any(|(at, allowed)| !text.get(*at).is_some_and(|byte| allowed.contains(byte)))
    {
        return None;
    }
    let day = days(number(text, 0, 4)?, number(text, 5, 7)?, number(text, 8, 10)?)?;
    let mut rest = text.get(19..)?;
    let mut fraction_us = 0;
    if let [b'.' | b',', digits @ ..] = rest {
        let end = digits
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(digits.len());
        fraction_us = fraction(digits.get(..end)?)?;
        rest = digits.get(end..)?;
    }
    let zone = match rest {
        [] | [b'Z' | b'z'] => 0,
        [b' ', zone @ ..] => offset(zone)?,
        zone => offset(zone)?,
    };
    micros(day, clock(text, 11)? - zone, fraction_us)
}

/// Which unit a number has is told by its size: 10^11 seconds are the year 5138, 10^11 milliseconds are 1973.
fn epoch(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let number: u64 = Some(whole)
        .filter(|whole| whole.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()?;
    match number {
        0 => None,
        1..100_000_000_000 => {
            let fraction = if part.is_empty() { 0 } else { fraction(part.as_bytes())? };
            Some(number * 1_000_000 + fraction)
        }
        100_000_000_000..100_000_000_000_000 => {
            let fraction = if part.is_empty() {
                0
            } else {
                fraction(part.as_bytes())? / 1000
            };
            Some(number * 1000 + fraction)
        }
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        _ => Some(number / 1000),
    }
}

/// Decimals of a second as microseconds.
fn fraction(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0;
    for at in 0..6 {
        let digit = match digits.get(at) {
            Some(byte) if byte.is_ascii_digit() => u64::from(byte - b'0'),
            Some(_) => return None,
            None => 0,
        };
        value = value * 10 + digit;
    }
    Some(value)
}

fn number(text: &[u8], from: usize, to: usize) -> Option<i64> {
    text.get(from..to)?.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Seconds of a day from `HH:MM:SS`.
fn clock(text: &[u8], at: usize) -> Option<i64> {
    let (hour, minute, second) = (
        number(text, at, at + 2)?,
        number(text, at + 3, at + 5)?,
        number(text, at + 6, at + 8)?,
    );
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// `+0100`, `-07:00`, `Z` in seconds.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        [b'Z'] => return Some(0),
        _ => return None,
    };
    let minutes_at = match rest.len() {
        4 => 2,
        5 if rest.get(2) == Some(&b':') => 3,
        _ => return None,
    };
    let (hours, minutes) = (number(rest, 0, 2)?, number(rest, minutes_at, minutes_at + 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 of a date in the Gregorian calendar (Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=last).contains(&day) {
        return None;
    }
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn micros(day: i64, second: i64, fraction_us: u64) -> Option<u64> {
    let seconds = u64::try_from(day * 86_400 + second).ok()?;
    Some(seconds * 1_000_000 + fraction_us)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_of_every_kind_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("2026-11-28T06:00:00.123456Z", 1_795_845_600_123_456),
            ("2026-11-28T06:00:00.1Z", 1_795_845_600_100_000),
            ("2026-11-28 06:00:00", 1_795_845_600_000_000),
            ("2026-11-28T07:30:00+01:30", 1_795_845_600_000_000),
            ("28/Nov/2026:06:00:00 +0000", 1_795_845_600_000_000),
            ("27/Nov/2026:23:00:00 -0700", 1_795_845_600_000_000),
            ("29/Feb/2024:00:00:00 +0000", 1_709_164_800_000_000),
            ("1795845600", 1_795_845_600_000_000),
            ("1795845600.123456", 1_795_845_600_123_456),
            ("1795845600.123456789", 1_795_845_600_123_456),
            ("1795845600123", 1_795_845_600_123_000),
            ("1795845600123456", 1_795_845_600_123_456),
            ("1795845600123456789", 1_795_845_600_123_456),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "-",
            "0",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-28T25:00:00Z",
            "2026-11-28",
            "28/Foo/2026:06:00:00 +0000",
            "28/Nov/2026:06:00:00 UTC",
            "2026-11-28T06:00:00.Z",
            "1795845600.x",
            "1969-12-31T23:59:59Z",
            "28/Nov/2026 06:00:00",
            "29/Feb/2026:00:00:00 +0000",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-11-28T06:00:00+24:00",
            "28/Nov/2026:06:00:00 +0060",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
