//! Query parameters, without a table of them: a rule asks for one or two.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The first value of a parameter, percent-decoded; empty where it has no `=`.
///
/// A value whose bytes are no UTF-8 stays undecoded, so that different ones stay different.
#[must_use]
pub fn parameter<'p>(path: &'p str, name: &str) -> Option<Cow<'p, str>> {
    let path = path.split_once('#').map_or(path, |(path, _fragment)| path);
    let (_, query) = path.split_once('?')?;
    let pair = |pair: &'p str| pair.split_once('=').unwrap_or((pair, ""));
    let (_, value) = query.split('&').map(pair).find(|(key, _)| decoded(key) == name)?;
    Some(decoded(value))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn finds_the_first_of_its_name() {
        let path = "/search?q=a%20b&empty=&flag&q=second&%6bey=v&bad=%ff&a+b=c#q=fragment";
        for (name, expected) in [
            ("q", Some("a b")),
            ("empty", Some("")),
            ("flag", Some("")),
            ("key", Some("v")),
            ("bad", Some("%ff")),
            ("a+b", Some("c")),
            ("nobody", None),
        ] {
            assert_eq!(parameter(path, name).as_deref(), expected, "{name}");
        }
        assert_eq!(parameter("/search", "q"), None);
        assert_eq!(parameter("/#?q=1", "q"), None);
    }
}
