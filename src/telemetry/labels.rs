//! What may stand in a metric's label: bounded, and for the names that existing dashboards use, written as there.

use std::borrow::Cow;
use std::fmt::Write;

/// Longest label value, in bytes. What rules say may be long: Envoy Gateway puts a route's name, with its namespace and
/// its host, twice into one.
pub(crate) const MAX_LABEL: usize = 1024;
/// Longest part of a name that a request's value stands in, in bytes.
pub(crate) const MAX_WITH_VALUE: usize = 256;
/// Bytes of BLAKE3 at the end of a shortened value.
const HASH_BYTES: usize = 8;

/// At most `max` bytes: a longer text keeps its beginning and ends in `#` and a hash over the whole, since two series
/// with the same labels make a page that no server takes.
pub(crate) fn bounded(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let kept = text.floor_char_boundary(max.saturating_sub(1 + 2 * HASH_BYTES));
    let mut short = format!("{}#", &text[..kept]);
    for byte in &blake3::hash(text.as_bytes()).as_bytes()[..HASH_BYTES] {
        // Writing to a String cannot fail.
        let _ = write!(short, "{byte:02x}");
    }
    Cow::Owned(short)
}

/// As envoyproxy/ratelimit writes it, and dashboards look for it: `_` for colons, pipes and the dots of an IPv4 address
/// (`masked_remote_address_10_0_0_0/8`).
pub(crate) fn stat_name(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut dots_until = 0;
    let write = |(at, c): (usize, char)| {
        if at >= dots_until && c.is_ascii_digit() {
            dots_until = ipv4_end(&bytes[at..]).map_or(dots_until, |length| at + length);
        }
        match c {
            ':' | '|' => '_',
            '.' if at < dots_until => '_',
            c => c,
        }
    };
    text.char_indices().map(write).collect()
}

/// The length of four groups of one to three digits, with dots between them, that these bytes begin with.
fn ipv4_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for group in 0..4 {
        if group > 0 {
            bytes.get(at).filter(|byte| **byte == b'.')?;
            at += 1;
        }
        let digits = bytes[at..].iter().take(3).take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        if digits == 0 {
            return None;
        }
        at += digits;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_dashboards_look_for_them() {
        for (name, expected) in [
            ("path_/foo/bar", "path_/foo/bar"),
            ("path_/foo:*:bar|baz", "path_/foo_*_bar_baz"),
            ("masked_remote_address_0.0.0.0/0", "masked_remote_address_0_0_0_0/0"),
            (
                "masked_remote_address_invert:192.0.2.0/24",
                "masked_remote_address_invert_192_0_2_0/24",
            ),
            ("from_10.1.2.3_to_10.4.5.6", "from_10_1_2_3_to_10_4_5_6"),
            ("1234.1.1.1", "1234_1_1_1"),
            ("1.2.3", "1.2.3"),
            ("1.2.3.x", "1.2.3.x"),
            ("1.2.3.4567.8", "1_2_3_4567.8"),
            ("host_www.example.com", "host_www.example.com"),
            ("größe_1.2.3.4", "größe_1_2_3_4"),
            ("", ""),
        ] {
            assert_eq!(stat_name(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_long_stays_apart() {
        let long = |end: &str| format!("{}{end}", "ö".repeat(600));
        let (one, other) = (long("one"), long("other"));
        let (one, other) = (bounded(&one, MAX_LABEL), bounded(&other, MAX_LABEL));
        assert!(one.len() <= MAX_LABEL && other.len() <= MAX_LABEL);
        assert_ne!(one, other);
        assert!(one.starts_with("öö") && one.contains('#'), "{one}");
        assert_eq!(bounded("short", MAX_LABEL), "short");
    }
}
