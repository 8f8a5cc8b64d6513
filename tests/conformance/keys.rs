//! No two different counters share a key.

use proptest::prelude::*;
use sluicegate::model::key::{Identity as Read, Owner, Part, PartKind, Tag, counter_key};
use sluicegate::model::{AlgorithmKind, CounterKey};

use crate::traces;

/// Strings of what separates and escapes, of braces, controls, the empty and the very long.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ab|=~#%:{}_\\x00\n\u{e9}]{0,6}",
        2 => "[a%7CD]{0,8}",
        1 => "[ab]{150,170}",
        1 => any::<String>(),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Identity {
    domain: String,
    /// Key, value, and whether all that match the value share the counter.
    parts: Vec<(String, String, bool)>,
    is_override: bool,
}

impl Identity {
    fn key(&self) -> CounterKey {
        let limit = traces::limit(AlgorithmKind::SlidingWindow, 10, 60);
        let owner = if self.is_override { Owner::Override } else { Owner::Rule };
        let parts = self.parts.iter().map(|(key, value, is_shared)| {
            if *is_shared {
                Part::Shared(key, value)
            } else {
                Part::Own(key, value)
            }
        });
        counter_key("", owner, &limit, &self.domain, parts)
    }
}

fn identity() -> impl Strategy<Value = Identity> {
    let part = (hostile(), hostile(), any::<bool>());
    (hostile(), proptest::collection::vec(part, 0..4), any::<bool>()).prop_map(|(domain, parts, is_override)| {
        Identity {
            domain,
            parts,
            is_override,
        }
    })
}

/// Moves text across a border: the pairs that careless joining confuses.
fn shifted(identity: &Identity) -> Vec<Identity> {
    let mut others = Vec::new();
    for index in 0..identity.parts.len() {
        let (key, value, is_shared) = identity.parts[index].clone();
        for sign in ["|", "=", "~", "_", "#", "%7C", ""] {
            let mut joined = identity.clone();
            joined.parts[index] = (format!("{key}{sign}{value}"), String::new(), is_shared);
            others.push(joined);
            if let Some((next_key, next_value, _)) = identity.parts.get(index + 1).cloned() {
                let mut merged = identity.clone();
                merged.parts[index] = (key.clone(), format!("{value}{sign}{next_key}={next_value}"), is_shared);
                merged.parts.remove(index + 1);
                others.push(merged);
            }
        }
        let mut other_kind = identity.clone();
        other_kind.parts[index].2 = !is_shared;
        others.push(other_kind);
    }
    others
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_counters_have_different_keys(one in identity(), two in identity()) {
        for other in shifted(&one).into_iter().chain([two]) {
            prop_assert_eq!(one == other, one.key() == other.key(), "{:?} and {:?}", one, other);
        }
    }

    #[test]
    fn keys_are_bounded_and_have_one_hash_tag(identity in identity()) {
        let key = identity.key();
        let text = key.as_str();
        prop_assert!(text.len() < 300);
        prop_assert_eq!(text.matches('{').count(), 1);
        prop_assert_eq!(text.matches('}').count(), 1);
        prop_assert!(!text.chars().any(|c| c.is_ascii_control()));
    }
}

/// The algorithm is part of a key, so that a rule that changes it starts clean; its numbers are not, except for the
/// window of a log and of a limit that a request brings.
#[test]
fn what_a_key_says_of_its_limit() {
    let key = |owner, kind, hits, seconds| {
        let limit = traces::limit(kind, hits, seconds);
        counter_key("", owner, &limit, "d", [Part::Own("k", "v")])
    };
    let kinds = AlgorithmKind::ALL.into_iter();
    let keys: Vec<_> = kinds.map(|kind| key(Owner::Rule, kind, 10, 60)).collect();
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    for (kind, known) in AlgorithmKind::ALL.into_iter().zip(&keys) {
        assert_eq!(*known, key(Owner::Rule, kind, 20, 60), "{kind}");
        let is_log = kind == AlgorithmKind::SlidingLog;
        assert_eq!(*known != key(Owner::Rule, kind, 10, 61), is_log, "{kind}");
        let own = key(Owner::Override, kind, 10, 60);
        assert_ne!(own, *known, "{kind}");
        assert_ne!(own, key(Owner::Override, kind, 10, 61), "{kind}");
        assert_eq!(own, key(Owner::Override, kind, 20, 60), "{kind}");
    }
}

/// Whatever stands before the key, its owner is read back as it was written, and no two share a key.
#[test]
fn several_limits_of_a_descriptor_have_keys_of_their_own() {
    let tag = |seconds, number| Owner::Several(Tag { seconds, number });
    let owners = [
        Owner::Rule,
        Owner::Override,
        Owner::Candidate,
        tag(60, 1),
        tag(60, 2),
        tag(602, 1),
        tag(1, 1),
        tag(Tag::PLANS, 1),
        tag(Tag::PLANS, 2),
    ];
    for prefix in ["", "sg:", "a#1", "a#1s", "#60s:", "x{#60s.2}"] {
        for kind in AlgorithmKind::ALL {
            let limit = traces::limit(kind, 10, 60);
            let mut seen = std::collections::BTreeSet::new();
            for owner in owners {
                let key = counter_key(prefix, owner, &limit, "d", [Part::Own("k#5s", "v")]);
                let read = Read::of(key.as_str()).expect("a key");
                assert_eq!((read.owner, read.shortened), (owner, false), "{key}");
                assert!(seen.insert(key));
            }
        }
    }
}

/// A rule for a network counts addresses, another one may count the same text for itself.
#[test]
fn an_address_is_not_counted_as_its_text() {
    let limit = traces::limit(AlgorithmKind::SlidingWindow, 10, 60);
    let key = |part| counter_key("", Owner::Rule, &limit, "d", [part, Part::Own("k", "=v")]);
    let address = "10.9.9.9".parse().expect("an address");
    let keys = [
        (key(Part::Own("ip", "10.9.9.9")), PartKind::Own),
        (key(Part::Shared("ip", "10.9.9.9")), PartKind::Shared),
        (key(Part::Address("ip", address)), PartKind::Address),
    ];
    for (key, kind) in &keys {
        let levels = Read::of(key.as_str()).expect("a key").levels;
        let expected = [
            ("ip".to_owned(), "10.9.9.9".to_owned(), *kind),
            ("k".to_owned(), "=v".to_owned(), PartKind::Own),
        ];
        assert_eq!(levels, expected, "{key}");
        assert!(keys.iter().filter(|(other, _)| other == key).count() == 1, "{key}");
    }
}
