//! One spelling of a path for one resource.
//!
//! `/a//b`, `/a/./b`, `/a/%62` and `/a/b/` reach the same resource on most servers: counted apart, they would be four
//! times the limit, and a `match` could be dodged. So they are read as `/a/b`.

use std::borrow::Cow;

/// One spelling: percent-escapes of unreserved characters decoded, others in upper case (RFC 3986, 6.2.2), dot segments
/// resolved, repeated and trailing slashes dropped. Borrows when the path is in that spelling already.
#[must_use]
pub fn normalize(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_normal(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Cow::Owned(normal)
}

fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    let odd = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.');
    !bytes.contains(&b'%') && !bytes.windows(2).any(odd) && (bytes.len() == 1 || bytes.last() != Some(&b'/'))
}

fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let escape = rest
            .get(at + 1..at + 3)
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(hex) = escape else {
            // No escape: the sign stands for itself.
            out.push('%');
            rest = &rest[at + 1..];
            continue;
        };
        match u8::from_str_radix(hex, 16) {
            Ok(byte) if is_unreserved(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.extend(hex.chars().map(|c| c.to_ascii_uppercase()));
            }
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    out
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_one_spelling() {
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("//a///b//", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/%61%2fb%2F%zz%", "/a%2Fb%2F%zz%"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..b/.c", "/a/..b/.c"),
            ("/ü/%c3%bc", "/ü/%C3%BC"),
            ("/%", "/%"),
            ("/%e", "/%e"),
            ("/%ü", "/%ü"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normalize(path), expected, "{path}");
        }
    }
}
