//! Inclusive ranges as expectations write them: `4`, `1..5`, `..5`, `24s..26s`.

use std::borrow::Cow;
use std::fmt;

use crate::config::duration;
use crate::model::time::micros;
use crate::prove::explain::Micros;

/// What a range counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Whole numbers.
    Number,
    /// Durations, in microseconds.
    Duration,
}

/// An inclusive range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    min: u64,
    max: u64,
    measure: Measure,
}

impl Range {
    /// Reads a range.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str, measure: Measure) -> Result<Self, Cow<'static, str>> {
        let bound = |text: &str, open: u64| match (text.trim(), measure) {
            ("", _) => Ok(open),
            (text, Measure::Number) => text.parse().map_err(|_| "it is no whole number".into()),
            ("0", Measure::Duration) => Ok(0),
            (text, Measure::Duration) => duration::parse(text).map(micros),
        };
        let (min, max) = match text.split_once("..") {
            Some((min, max)) if min.trim().is_empty() && max.trim().is_empty() => {
                return Err("a range needs at least one end".into());
            }
            Some((min, max)) => (bound(min, 0)?, bound(max, u64::MAX)?),
            None if text.trim().is_empty() => return Err("it is empty".into()),
            None => (bound(text, 0)?, bound(text, 0)?),
        };
        if min > max {
            return Err("it begins behind its end".into());
        }
        Ok(Self { min, max, measure })
    }

    /// Whether a number, or a duration in microseconds, lies in it.
    #[must_use]
    pub const fn contains(&self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |f: &mut fmt::Formatter<'_>, value: u64| match self.measure {
            Measure::Number => write!(f, "{value}"),
            Measure::Duration => write!(f, "{}", Micros(value)),
        };
        if self.min == self.max {
            return show(f, self.min);
        }
        if self.min > 0 {
            show(f, self.min)?;
        }
        f.write_str("..")?;
        if self.max < u64::MAX {
            show(f, self.max)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_and_may_be_open() {
        for (text, inside, outside) in [
            ("4", vec![4], vec![3, 5]),
            ("1..3", vec![1, 2, 3], vec![0, 4]),
            ("..3", vec![0, 3], vec![4]),
            ("3..", vec![3, u64::MAX], vec![2]),
        ] {
            let range = Range::parse(text, Measure::Number).unwrap();
            assert!(inside.iter().all(|value| range.contains(*value)), "{text}");
            assert!(!outside.iter().any(|value| range.contains(*value)), "{text}");
            assert_eq!(range.to_string(), text);
        }
        let range = Range::parse("24s..1m30s", Measure::Duration).unwrap();
        assert!(range.contains(24_000_000) && range.contains(90_000_000) && !range.contains(90_000_001));
        assert_eq!(range.to_string(), "24s..1m 30s");
    }

    #[test]
    fn bad_ranges_are_refused() {
        for bad in ["", "..", "5..4", "a", "1..b", "-1", "1.5"] {
            assert!(Range::parse(bad, Measure::Number).is_err(), "{bad}");
        }
        for bad in ["", "..", "5s..4s", "5", "5 parsecs"] {
            assert!(Range::parse(bad, Measure::Duration).is_err(), "{bad}");
        }
    }
}
