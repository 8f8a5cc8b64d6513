//! What is noted of a counter: its key, and the rule that counts it where the key does not say which.

use crate::model::CounterKey;

/// Between the two in a name; a key has every control character escaped.
const SEPARATOR: char = '\n';
/// Longest path of a rule that is noted, in bytes: names are bounded, as keys are.
const MAX_RULE: usize = 120;

/// A counter's key, with the path of its rule if the key was shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted<'a> {
    /// The counter's key.
    pub key: &'a str,
    /// The path of the rule that counted it, of a key that was shortened.
    pub rule: Option<&'a str>,
}

impl<'a> Noted<'a> {
    /// Notes the rule only where it is needed.
    pub fn new(key: &'a CounterKey, rule: impl FnOnce() -> Option<&'a str>) -> Self {
        let rule = key.is_shortened().then(rule).flatten();
        Self {
            key: key.as_str(),
            rule: rule.filter(|rule| rule.len() <= MAX_RULE),
        }
    }

    /// Reads a [`name`](Self::name).
    #[must_use]
    pub fn read(name: &'a str) -> Self {
        match name.split_once(SEPARATOR) {
            Some((key, rule)) => Self { key, rule: Some(rule) },
            None => Self { key: name, rule: None },
        }
    }

    /// Both as one text.
    #[must_use]
    pub fn name(&self) -> String {
        match self.rule {
            Some(rule) => format!("{}{SEPARATOR}{rule}", self.key),
            None => self.key.to_owned(),
        }
    }
}

impl<'a> From<&'a str> for Noted<'a> {
    fn from(key: &'a str) -> Self {
        Self { key, rule: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_noted_of_shortened_keys_alone_and_read_again() {
        let hash = "0".repeat(40);
        let long = CounterKey::from_raw(&format!("sg:sw:{{shop|user=vvv#{hash}}}"));
        let noted = Noted::new(&long, || Some("user"));
        assert_eq!((noted.key, noted.rule), (long.as_str(), Some("user")));
        assert_eq!(Noted::read(&noted.name()), noted);
        let rule = "r".repeat(MAX_RULE + 1);
        assert_eq!(Noted::new(&long, || Some(&rule)).rule, None, "names are bounded");
        let short = CounterKey::from_raw("sg:sw:{shop|user=v}");
        let noted = Noted::new(&short, || Some("user"));
        assert_eq!((noted.rule, noted.name()), (None, short.as_str().to_owned()));
    }
}
