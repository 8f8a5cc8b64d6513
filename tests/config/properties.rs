//! The matcher against one that tries everything.

use proptest::prelude::*;
use sluicegate::rules::RuleSet;

use super::{find, rules};

/// One rule: a path of (key, value or empty), with a limit or without.
type Path = (Vec<(String, String)>, bool);

/// Whether a pattern matches, by definition: a star is any text.
fn matches(pattern: &[u8], value: &[u8]) -> bool {
    match pattern.split_first() {
        None => value.is_empty(),
        Some((b'*', rest)) => (0..=value.len()).any(|at| matches(rest, &value[at..])),
        Some((first, rest)) => value
            .split_first()
            .is_some_and(|(head, tail)| head == first && matches(rest, tail)),
    }
}

/// A node of the naive tree, in order of declaration.
#[derive(Debug, Default)]
struct Naive {
    children: Vec<(String, String, Naive)>,
    limited: bool,
}

impl Naive {
    fn add(&mut self, path: &[(String, String)], limited: bool) {
        let Some(((key, value), rest)) = path.split_first() else {
            self.limited |= limited;
            return;
        };
        let at = self.children.iter().position(|(k, v, _)| (k, v) == (key, value));
        let at = at.unwrap_or_else(|| {
            self.children.push((key.clone(), value.clone(), Self::default()));
            self.children.len() - 1
        });
        self.children[at].2.add(rest, limited);
    }

    fn find(&self, entries: &[(&str, &str)], path: &str) -> Option<String> {
        let Some(((key, value), rest)) = entries.split_first() else {
            return self.limited.then(|| path.to_owned());
        };
        let of_key = || self.children.iter().filter(|(k, _, _)| k == key);
        let exact = of_key().find(|(_, v, _)| v == value && !v.is_empty());
        let fixed = |pattern: &str| pattern.chars().filter(|c| *c != '*').count();
        let wild = of_key().filter(|(_, v, _)| v.contains('*') && matches(v.as_bytes(), value.as_bytes()));
        // `max_by_key` gives the last of equals: the first declared when read backwards.
        let wild = wild
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .max_by_key(|(_, v, _)| fixed(v));
        let any = of_key().find(|(_, v, _)| v.is_empty());
        let (k, v, child) = exact.or(wild).or(any)?;
        let dot = if path.is_empty() { "" } else { "." };
        let under = if v.is_empty() { "" } else { "_" };
        child.find(rest, &format!("{path}{dot}{k}{under}{v}"))
    }

    fn yaml(&self, indent: usize, out: &mut String) {
        for (key, value, child) in &self.children {
            let pad = " ".repeat(indent);
            *out += &format!("{pad}- key: \"{key}\"\n");
            if !value.is_empty() {
                *out += &format!("{pad}  value: \"{value}\"\n");
            }
            if child.limited {
                *out += &format!("{pad}  rate_limit: {{unit: day}}\n");
            }
            if !child.children.is_empty() {
                *out += &format!("{pad}  descriptors:\n");
                child.yaml(indent + 4, out);
            }
        }
    }
}

fn compile(naive: &Naive) -> RuleSet {
    let mut yaml = "domain: d\ndescriptors:\n".to_owned();
    naive.yaml(2, &mut yaml);
    rules(&yaml)
}

fn paths() -> impl Strategy<Value = Vec<Path>> {
    let level = ("[ab]", "[ab*ü]{0,6}");
    let path = (prop::collection::vec(level, 1..4), prop::bool::weighted(0.8));
    prop::collection::vec(path, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_matcher_finds_what_trying_everything_finds(
        paths in paths(),
        requests in prop::collection::vec(prop::collection::vec(("[ab]", "[ab*ü]{0,8}"), 0..4), 1..16),
    ) {
        let mut naive = Naive::default();
        for (path, limited) in &paths {
            naive.add(path, *limited);
        }
        let rules = compile(&naive);
        for request in &requests {
            let pairs: Vec<(&str, &str)> = request.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            prop_assert_eq!(find(&rules.domains["d"], &pairs).map(ToOwned::to_owned), naive.find(&pairs, ""), "{:?}", pairs);
        }
    }

    /// No text whatever makes reading panic, and every error has a message and a place in the text.
    #[test]
    fn any_text_is_read_or_refused(yaml in prop_oneof![".{0,200}", "([ \\n\\-:\\[\\]{},\"'&*a|>#!?%@`\t]|domain|descriptors|key){0,60}"]) {
        if let Err(errors) = super::try_rules(&yaml) {
            prop_assert!(errors.count() > 0);
            for error in errors.as_slice() {
                prop_assert!(!error.problem.to_string().is_empty());
                if let Some(place) = error.place {
                    prop_assert!(place.offset + place.length <= yaml.len(), "{:?}", place);
                }
            }
            prop_assert!(!errors.render(true).is_empty());
        }
    }
}
