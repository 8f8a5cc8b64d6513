//! Durations in rules: `30s`, `5m`, `1h30m`, `250ms`.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::{Unit, Window};

use super::problem::Problem;

/// The units that mean the same to everybody; `month` and `year` stay with `unit`, where their lengths are defined.
const UNITS: [&str; 6] = ["ms", "s", "m", "h", "d", "w"];
/// No rule needs a longer one to say what it wants.
const MAX_TEXT: usize = 32;

/// Reads `window`: whole seconds, at least one, as the largest unit that divides it.
pub(super) fn window(text: &str) -> Result<Window, Problem> {
    let unit = |example| bad("window", text, "it is the name of a unit".into(), example);
    match Unit::parse(text) {
        None => {}
        Some(Unit::Second) => return Err(unit("unit: second")),
        Some(Unit::Minute) => return Err(unit("unit: minute")),
        Some(Unit::Hour) => return Err(unit("unit: hour")),
        Some(Unit::Day) => return Err(unit("unit: day` or `window: { calendar: day }")),
        Some(Unit::Week) => return Err(unit("unit: week` or `window: { calendar: week }")),
        Some(Unit::Month) => return Err(unit("unit: month` (30 days) or `window: { calendar: month }")),
        Some(Unit::Year) => return Err(unit("unit: year` (365 days) or `window: { calendar: year }")),
    }
    let bad = |reason| bad("window", text, reason, "window: 30s");
    let duration = parse(text).map_err(bad)?;
    if duration.subsec_nanos() != 0 {
        return Err(bad("windows are whole seconds".into()));
    }
    let seconds = duration.as_secs();
    if seconds == 0 {
        return Err(bad("it is empty".into()));
    }
    Unit::ALL
        .into_iter()
        .rev()
        .find(|unit| seconds % unit.seconds() == 0)
        .and_then(|unit| {
            let multiplier = u32::try_from(seconds / unit.seconds()).ok()?;
            Some(Window::times(unit, multiplier))
        })
        .ok_or_else(|| bad("it is too long".into()))
}

/// Reads `max_delay` into microseconds; how long it may be is for `algorithms::limit` to say.
pub(super) fn delay_us(text: &str) -> Result<u64, Problem> {
    parse(text)
        .map(crate::model::time::micros)
        .map_err(|reason| bad("max_delay", text, reason, "max_delay: 500ms"))
}

/// Reads the `ttl` of a hold into microseconds.
pub(super) fn ttl_us(text: &str) -> Result<u64, Problem> {
    parse(text)
        .map(crate::model::time::micros)
        .map_err(|reason| bad("ttl", text, reason, "ttl: 10m"))
}

fn bad(field: &'static str, text: &str, reason: Cow<'static, str>, example: &'static str) -> Problem {
    Problem::BadDuration {
        field,
        word: text.to_owned(),
        reason,
        example,
    }
}

/// Reads a duration: numbers, each with its unit behind it.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn parse(text: &str) -> Result<Duration, Cow<'static, str>> {
    if text.len() > MAX_TEXT {
        return Err("it is too long a text".into());
    }
    let units = text.split(|c: char| c.is_ascii_digit() || c == ' ');
    let mut any = false;
    for unit in units.filter(|unit| !unit.is_empty()) {
        any = true;
        if !UNITS.contains(&unit) {
            return Err(format!("its units are {}", UNITS.join(", ")).into());
        }
    }
    if !any {
        return Err("it has no unit".into());
    }
    humantime::parse_duration(text).map_err(|_| "it is numbers, each with its unit behind it".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_become_the_largest_unit_that_divides_them() {
        for (text, unit, multiplier) in [
            ("1s", Unit::Second, 1),
            ("30s", Unit::Second, 30),
            ("60s", Unit::Minute, 1),
            ("90s", Unit::Second, 90),
            ("5m", Unit::Minute, 5),
            ("1h30m", Unit::Minute, 90),
            ("1h 30m", Unit::Minute, 90),
            ("24h", Unit::Day, 1),
            ("7d", Unit::Week, 1),
            ("2w", Unit::Week, 2),
            ("30d", Unit::Month, 1),
            ("365d", Unit::Year, 1),
            ("2000ms", Unit::Second, 2),
        ] {
            assert_eq!(window(text), Ok(Window::times(unit, multiplier)), "{text}");
        }
    }

    #[test]
    fn what_is_no_window_says_why() {
        for (text, reason) in [
            ("", "no unit"),
            ("30", "no unit"),
            ("0s", "empty"),
            ("1500ms", "whole seconds"),
            ("1M", "units are"),
            ("1month", "units are"),
            ("1.5h", "units are"),
            ("-5s", "units are"),
            ("s", "numbers"),
            ("5 s 3", "numbers"),
            ("99999999999999999999s", "numbers"),
            ("9999999999999999s", "too long"),
            ("111111111111111111111111111111111s", "too long"),
        ] {
            let message = window(text).expect_err(text).to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert_eq!(delay_us("250ms"), Ok(250_000));
    }
}
