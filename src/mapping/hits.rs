//! What a request costs.

use super::{Attributes, Subject};

/// Most hits that a request may ask for itself; limits are at most 32 bits wide.
pub const MAX_HITS: u64 = u32::MAX as u64;

/// Where a list's hits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HitsFrom {
    /// So many; 0 only looks whether one more would pass.
    Fixed(u64),
    /// A header's whole number.
    Header {
        /// Its name in lower case.
        name: Box<str>,
        /// Hits of a request without it, or with something else in it.
        default: u64,
        /// More than this counts as this.
        max: u64,
    },
    /// The body's length by `content-length`, else by what the proxy counted.
    ContentLength {
        /// So many bytes are one hit, begun ones count; at least 1.
        bytes_per_hit: u64,
        /// Hits of a request whose length nobody knows (chunked).
        default: u64,
        /// More than this counts as this.
        max: u64,
    },
}

impl HitsFrom {
    /// The hits. What a request says itself is at least 1, so that nobody goes free by claiming to cost nothing.
    #[must_use]
    pub fn hits<A: Attributes>(&self, subject: &Subject<'_, A>) -> u64 {
        match self {
            Self::Fixed(hits) => *hits,
            Self::Header { name, default, max } => {
                let claimed = subject.header(name).and_then(|value| number(&value));
                claimed.unwrap_or(*default).clamp(1, (*max).max(1))
            }
            Self::ContentLength {
                bytes_per_hit,
                default,
                max,
            } => {
                let header = subject.header("content-length").and_then(|value| number(&value));
                let bytes = header.or_else(|| subject.attributes().size());
                let hits = bytes.map_or(*default, |bytes| bytes.div_ceil((*bytes_per_hit).max(1)));
                hits.clamp(1, (*max).max(1))
            }
        }
    }
}

/// Digits only; a number too large for us is the largest.
fn number(text: &str) -> Option<u64> {
    let text = text.trim_matches(' ');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_digits() {
        assert_eq!(number("17"), Some(17));
        assert_eq!(number(" 0 "), Some(0));
        assert_eq!(number("99999999999999999999999"), Some(u64::MAX));
        for bad in ["", "-1", "+1", "1.5", "0x1", "1,2", "١"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
