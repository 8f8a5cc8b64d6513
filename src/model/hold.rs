//! Holds: hits that a request keeps on a counter until their real number is known.

use std::fmt;

/// The key of the descriptor entry that settles a hold; its value is the hold's id, as an answer's metadata has told it.
pub const HOLD_ENTRY: &str = "sluicegate_hold";

/// Bytes of an id that are its time.
const TIME_BYTES: usize = 7;
/// Bytes of an id.
const BYTES: usize = 16;

/// The name of all holds of one request: the time in microseconds, so that ids sort by it, then 72 random bits, so that
/// nobody can guess one. It is the same on every replica: what it holds is known where the counter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId([u8; BYTES]);

/// The random bits of an id.
pub type HoldBits = [u8; BYTES - TIME_BYTES];

impl HoldId {
    /// An id made at this time.
    #[must_use]
    pub fn new(now_us: u64, random: HoldBits) -> Self {
        let mut bytes = [0; BYTES];
        let [_, time @ ..] = now_us.to_be_bytes();
        let (head, tail) = bytes.split_at_mut(TIME_BYTES);
        head.copy_from_slice(&time);
        tail.copy_from_slice(&random);
        Self(bytes)
    }

    /// Whether it stands for the oldest hold of its counter, where holds have no names: one that was made at the time 0.
    #[must_use]
    pub fn is_oldest(&self) -> bool {
        self.0.starts_with(&[0; TIME_BYTES])
    }

    /// Reads what [`fmt::Display`] writes; `None` if it is anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 2 * BYTES || !text.bytes().all(lower) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// How a counter's open holds stand, and what a check has done to them; all zero where a limit has no `hold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holds {
    /// Hits that all open holds of the counter keep after the transaction.
    pub open: u64,
    /// Of a check that holds: what it keeps. Of one that settles: what its hold had kept until then; 0 if the id is
    /// unknown or has expired.
    pub own: u64,
    /// Hits of holds that nobody has settled before their ttl, and whose release this check has made; each is told once.
    pub expired: u64,
    /// Of a check that settles: its hold had been settled before, so that nothing was done.
    pub repeated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is() {
        let id = HoldId::new(1_763_000_000_123_456, [7; 9]);
        let text = id.to_string();
        assert_eq!((text.len(), HoldId::parse(&text)), (32, Some(id)));
        for text in [
            "",
            "none",
            &text[1..],
            &text.to_uppercase(),
            &format!("+{}", &text[1..]),
            &format!("{text}0"),
        ] {
            assert_eq!(HoldId::parse(text), None, "{text}");
        }
        assert!(id < HoldId::new(1_763_000_000_123_457, [0; 9]));
    }
}
