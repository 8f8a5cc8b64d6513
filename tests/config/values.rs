//! Values that are no single text: lists, networks, regular expressions; against trying each.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::fmt::Write;
use std::net::IpAddr;

use proptest::prelude::*;
use regex::Regex;
use sluicegate::rules::trace::Why;
use sluicegate::rules::{CountedAs, RuleSet};

use super::errors::refused;
use super::{entries, find, rules};

const TREE: &str = r#"
domain: d
descriptors:
  - { key: k, value: exact, rate_limit: { unit: day } }
  - { key: k, value_in: [exact, listed, "10.0.0.9", ab], rate_limit: { unit: day } }
  - { key: k, value_cidr: [10.0.0.0/8, "2001:db8::/32"], rate_limit: { unit: day } }
  - { key: k, value_cidr: [10.1.0.0/16], share_threshold: true, rate_limit: { unit: day } }
  - { key: k, value: "a*", share_threshold: false, rate_limit: { unit: day } }
  - { key: k, value_regex: "[a-z]+[0-9]|10\\..*", rate_limit: { unit: day } }
  - { key: k, value_regex: "[a-z0-9]+", share_threshold: true, rate_limit: { unit: day } }
  - { key: k, rate_limit: { unit: day } }
"#;

#[test]
fn the_more_certain_kind_wins() {
    let rules = rules(TREE);
    let domain = &rules.domains["d"];
    for (value, expected) in [
        ("exact", "k_exact"),
        ("listed", "k_in(10.0.0.9,ab,exact,listed)"),
        ("10.0.0.9", "k_in(10.0.0.9,ab,exact,listed)"),
        ("ab", "k_in(10.0.0.9,ab,exact,listed)"),
        ("10.0.0.8", "k_cidr(10.0.0.0/8,2001:db8::/32)"),
        ("2001:db8::7", "k_cidr(10.0.0.0/8,2001:db8::/32)"),
        ("10.1.2.3", "k_cidr(10.1.0.0/16)"),
        ("abc1", "k_a*"),
        ("x1", r"k_regex([a-z]+[0-9]|10\..*)"),
        ("10.0.0.256", r"k_regex([a-z]+[0-9]|10\..*)"),
        ("xyz", "k_regex([a-z0-9]+)"),
        // The whole value, or nothing of it.
        ("x1\n", "k"),
        ("X1", "k"),
        ("2001:db9::7", "k"),
        ("", "k"),
    ] {
        assert_eq!(find(domain, &[("k", value)]), Some(expected), "{value:?}");
    }
}

#[test]
fn an_address_is_counted_as_such_however_it_is_written() {
    let rules = rules(TREE);
    let counted = |value: &str| {
        let entries = entries(&[("k", value)]);
        let found = rules.domains["d"].find(&entries).expect("a rule");
        match found.values[0] {
            CountedAs::Own => format!("own {value}"),
            CountedAs::Written(text) => format!("own {text}"),
            CountedAs::Shared(name) => format!("shared {name}"),
            CountedAs::Address(address) => format!("address {address}"),
        }
    };
    assert_eq!(counted("10.0.0.8"), "address 10.0.0.8");
    assert_eq!(counted("::ffff:10.0.0.8"), "address 10.0.0.8");
    assert_eq!(counted("::FFFF:0a00:8"), "address 10.0.0.8");
    assert_eq!(counted("2001:DB8:0:0::7"), "address 2001:db8::7");
    // An exemption, or a limit of its own, holds for every spelling, too.
    assert_eq!(counted("10.0.0.9"), "own 10.0.0.9");
    assert_eq!(counted("::ffff:10.0.0.9"), "own 10.0.0.9");
    assert_eq!(
        find(&rules.domains["d"], &[("k", "::FFFF:A00:9")]),
        Some("k_in(10.0.0.9,ab,exact,listed)")
    );
    assert_eq!(counted("::ffff:10.1.0.1"), "shared cidr(10.1.0.0/16)");
    assert_eq!(counted("xyz"), "shared regex([a-z0-9]+)");
    assert_eq!(counted("x1"), "own x1");
    assert_eq!(counted("listed"), "own listed");
    // The name of a set is a value like any other.
    assert_eq!(counted("cidr(10.1.0.0/16)"), "own cidr(10.1.0.0/16)");
}

#[test]
fn what_is_wrong_with_values_has_its_place_and_its_cure() {
    let long = "a".repeat(5000);
    for (fields, expected) in [
        (
            "value: a, value_in: [b]",
            "3:34 d / k=a | `value_in` beside `value` | keep `value_in` or `value`",
        ),
        (
            "value_in: [b], value_regex: a",
            "`value_regex` beside `value_in` | not both",
        ),
        ("value_in: []", "3:24 d / k | `value_in` is empty | add an entry"),
        (
            "value_in: a",
            "3:24 d / k | `value_in` must be a list of values, not the text \"a\"",
        ),
        (
            "value_in: [a, a]",
            "`value_in` \"a\" cannot be used: it stands in the list twice: keep one",
        ),
        ("value_in: [a, '']", "3:28 d / k | `value_in` is empty"),
        (
            "value_in: [[a]]",
            "3:25 d / k | an entry of `value_in` must be text, not a list",
        ),
        (
            "value_cidr: [10.0.0.1/8]",
            "3:27 d / k | `value_cidr` \"10.0.0.1/8\" cannot be used: its address has bits behind the prefix: write 10.0.0.0/8",
        ),
        (
            "value_cidr: [localhost]",
            "it is no network: write it as in `10.0.0.0/8`",
        ),
        (
            "value_cidr: ['::ffff:10.0.0.0/104', 10.0.0.0/8]",
            "it stands in the list twice",
        ),
        (
            "value_regex: '(?=x)'",
            "3:27 d / k | `value_regex` \"(?=x)\" cannot be used: look-around, including look-ahead and look-behind, is not supported; its syntax is RE2's",
        ),
        (
            "value_regex: '(a{1000}){1000}'",
            "it compiles to more than 256 KiB: make its repetitions and classes smaller",
        ),
        ("value_regex: ''", "`value_regex` is empty"),
        (
            &format!("value_regex: {long}"),
            "`value_regex` is longer than 4096 bytes",
        ),
        (
            "metadata: {sluicegate: {value_in: [a]}}, value: b",
            "`value_in` beside `value`",
        ),
        (
            "value: a, share_threshold: true",
            "give `value_in`, `value_cidr` or `value_regex`",
        ),
    ] {
        let yaml = format!("domain: d\ndescriptors:\n  - {{key: k, {fields}, rate_limit: {{unit: day}}}}\n");
        let found = refused(&yaml);
        let parts: Vec<&str> = expected.split(" | ").collect();
        assert!(
            parts.iter().all(|part| found[0].contains(part)),
            "{expected}\n{found:#?}"
        );
    }
    let twice = "domain: d\ndescriptors:\n  - {key: k, value_cidr: [10.0.0.0/8], rate_limit: {unit: day}}\n  - {key: k, value_cidr: [11.0.0.0/8, 10.0.0.0/8]}\n";
    assert!(refused(twice)[0].contains("stand on this level already: rules.yaml:3"));
}

#[test]
fn values_may_stand_in_metadata() {
    for values in ["value_in: [a, b]", "value_cidr: [10.0.0.0/8]", "value_regex: a+"] {
        let yaml =
            |fields: &str| format!("domain: d\ndescriptors:\n  - {{key: k, {fields}, rate_limit: {{unit: day}}}}\n");
        let moved = yaml(&format!("metadata: {{sluicegate: {{{values}}}}}"));
        assert_eq!(rules(&moved).dump(), rules(&yaml(values)).dump());
    }
}

/// To refuse an expression for its size takes time: after a few of them no more are tried.
#[test]
fn of_many_expressions_that_are_too_large_only_a_few_are_tried() {
    let mut yaml = "domain: d\ndescriptors:\n".to_owned();
    for n in 0..100 {
        let _ = writeln!(
            yaml,
            "  - {{key: k, value_regex: '(a{{1000}}){{1000}}{n}', rate_limit: {{unit: day}}}}"
        );
    }
    assert_eq!(refused(&yaml).len(), 16);
    // What is only written wrong is said of each.
    assert_eq!(refused(&yaml.replace("(a{", "(?=a{")).len(), 100);
}

/// Why siblings did not match, as `explain` has it.
#[test]
fn siblings_that_fit_are_told_from_those_that_do_not() {
    let rules = rules(
        "domain: d\ndescriptors:\n  - {key: word, value_regex: 'a+', rate_limit: {unit: day}}\n  - {key: word, value_regex: '[a-z]+', \
         rate_limit: {unit: day}}\n  - {key: word, value_regex: '[ab]*a[ab]{3000}', rate_limit: {unit: day}}\n  - {key: address, value: \
         '::ffff:10.0.0.9', rate_limit: {unit: day}}\n  - {key: address, value: 10.0.0.9, rate_limit: {unit: day}}\n  - {key: address, \
         value_in: [10.0.0.9, q], rate_limit: {unit: day}}\n  - {key: address, value_cidr: [10.0.0.0/8], rate_limit: {unit: day}}\n  - {key: \
         address, value_cidr: [11.0.0.0/8], rate_limit: {unit: day}}\n",
    );
    let others = |key: &str, value: &str| -> Vec<(String, Why)> {
        let entries = entries(&[(key, value)]);
        let trace = rules.domains["d"].trace(&entries);
        trace.steps[0]
            .others
            .iter()
            .map(|other| (other.text.to_owned(), other.why))
            .collect()
    };
    let expected = |all: &[(&str, Why)]| -> Vec<(String, Why)> {
        all.iter().map(|(text, why)| ((*text).to_owned(), *why)).collect()
    };
    assert_eq!(
        others("word", "aaa"),
        expected(&[
            ("regex([a-z]+)", Why::LessSpecific),
            ("regex([ab]*a[ab]{3000})", Why::NoFit)
        ])
    );
    assert_eq!(
        others("address", "::ffff:10.0.0.9"),
        expected(&[
            ("10.0.0.9", Why::LessSpecific),
            ("cidr(10.0.0.0/8)", Why::LessSpecific),
            ("in(10.0.0.9,q)", Why::LessSpecific),
            ("cidr(11.0.0.0/8)", Why::NoFit),
        ])
    );
    let long = "a".repeat(10_000);
    assert!(find(&rules.domains["d"], &[("word", &long)]).is_none());
    assert!(others("word", &long).iter().all(|(_, why)| *why == Why::TooLong));
}

/// A descriptor of the level, as the oracle has it.
#[derive(Debug, Clone)]
enum Values {
    Text(String),
    In(Vec<String>),
    Cidr(Vec<(IpAddr, u8)>),
    Regex(String),
}

fn matches_wildcard(pattern: &str, value: &str) -> bool {
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    Regex::new(&format!(r"(?s)\A{}\z", parts.join(".*")))
        .unwrap()
        .is_match(value)
}

fn contains((network, length): &(IpAddr, u8), value: &str) -> bool {
    let Ok(address) = value.parse::<IpAddr>() else {
        return false;
    };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    };
    let address = address.to_canonical();
    let length = usize::from(*length);
    address.is_ipv4() == network.is_ipv4() && bits(address)[..length] == bits(*network)[..length]
}

/// Which descriptor has the value, by trying each of them.
fn naive(all: &[Values], value: &str) -> Option<usize> {
    let numbered = || all.iter().enumerate();
    let first = |fits: &dyn Fn(&Values) -> bool| numbered().find(|(_, values)| fits(values)).map(|(at, _)| at);
    let longest = || {
        let hits = numbered().filter_map(|(at, values)| match values {
            Values::Cidr(networks) => networks
                .iter()
                .filter(|n| contains(n, value))
                .map(|(_, length)| *length)
                .max()
                .map(|length| (length, at)),
            _ => None,
        });
        hits.max_by_key(|(length, _)| *length).map(|(_, at)| at)
    };
    let wildcard = || {
        let fixed = |text: &str| text.chars().filter(|c| *c != '*').count();
        let hits = numbered().filter_map(|(at, values)| match values {
            Values::Text(text) if text.contains('*') && matches_wildcard(text, value) => {
                Some((fixed(text), std::cmp::Reverse(at)))
            }
            _ => None,
        });
        hits.max().map(|(_, at)| at.0)
    };
    let named = |value: &str| {
        first(&|values| matches!(values, Values::Text(text) if text == value && !text.is_empty()))
            .or_else(|| first(&|values| matches!(values, Values::In(list) if list.iter().any(|one| one == value))))
    };
    let in_usual_form = || {
        let address: IpAddr = value.parse().ok()?;
        let has_networks = all.iter().any(|values| matches!(values, Values::Cidr(_)));
        has_networks.then(|| named(&address.to_canonical().to_string()))?
    };
    named(value)
        .or_else(in_usual_form)
        .or_else(longest)
        .or_else(wildcard)
        .or_else(|| first(&|values| matches!(values, Values::Regex(text) if Regex::new(&format!(r"\A(?:{text})\z")).unwrap().is_match(value))))
        .or_else(|| first(&|values| matches!(values, Values::Text(text) if text.is_empty())))
}

fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    prop_oneof![
        (0_u8..=32, 0_u8..4).prop_map(|(length, third)| {
            let bits =
                u32::from_be_bytes([10, 0, third, 77]) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            (IpAddr::V4(bits.into()), length)
        }),
        (0_u8..=128).prop_map(|length| {
            let bits = 0x2001_0db8_0000_0000_0000_0000_0000_0007_u128
                & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            (IpAddr::V6(bits.into()), length)
        }),
    ]
}

fn one() -> impl Strategy<Value = Values> {
    let text = || prop_oneof!["[ab]{1,3}", "10\\.0\\.[0-3]\\.7{1,2}", "2001:db8::[67]"];
    prop_oneof![
        3 => prop_oneof![text().boxed(), "[ab*]{1,4}".boxed(), Just(String::new()).boxed()].prop_map(Values::Text),
        2 => prop::collection::btree_set(text(), 1..4).prop_map(|set| Values::In(set.into_iter().collect())),
        2 => prop::collection::vec(network(), 1..3).prop_map(Values::Cidr),
        2 => prop::sample::select(vec!["a+", "[ab]{2}", "b|bb|a", "(?i)A.*", "10\\..*", ".*7", "a|ab", "", "^b.$", "\\w+"]).prop_map(|text| Values::Regex(text.to_owned())),
    ]
}

/// Text, members of lists, networks and expressions may each stand on a level once.
fn distinct(all: Vec<Values>) -> Vec<Values> {
    let mut seen = std::collections::HashSet::new();
    let slots = |values: &Values| match values {
        Values::Text(text) => vec![format!("t{text}")],
        Values::In(list) => list.iter().map(|text| format!("l{text}")).collect(),
        Values::Cidr(list) => list
            .iter()
            .map(|(address, length)| format!("n{address}/{length}"))
            .collect(),
        Values::Regex(text) => vec![format!("r{text}")],
    };
    all.into_iter()
        .filter(|values| !matches!(values, Values::Regex(text) if text.is_empty()))
        .filter(|values| slots(values).into_iter().all(|slot| seen.insert(slot)))
        .collect()
}

fn yaml(all: &[Values]) -> String {
    let mut out = "domain: d\ndescriptors:\n".to_owned();
    for (number, values) in all.iter().enumerate() {
        let fields = match values {
            Values::Text(text) if text.is_empty() => String::new(),
            Values::Text(text) => format!(", value: '{text}', share_threshold: {}", text.contains('*')),
            Values::In(list) => format!(", value_in: ['{}']", list.join("', '")),
            Values::Cidr(list) => {
                let list: Vec<String> = list
                    .iter()
                    .map(|(address, length)| format!("'{address}/{length}'"))
                    .collect();
                format!(", value_cidr: [{}]", list.join(", "))
            }
            Values::Regex(text) => format!(", value_regex: '{text}'"),
        };
        let _ = writeln!(
            out,
            "  - {{key: k{fields}, rate_limit: {{unit: day, requests_per_unit: {number}}}}}"
        );
    }
    out
}

/// The number of the descriptor that has a value.
fn number(rules: &RuleSet, value: &str) -> Option<usize> {
    let found = rules.domains["d"].find(&entries(&[("k", value)]))?;
    usize::try_from(found.rules[0].requests_per_unit).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lookup_finds_what_trying_each_finds(
        all in prop::collection::vec(one(), 1..14).prop_map(distinct),
        values in prop::collection::vec(prop_oneof!["[abA]{0,4}", "10\\.0\\.[0-3]\\.7{1,2}", "::ffff:10\\.0\\.[0-3]\\.7", "2001:db8::[67]", "2001:DB8:0::[67]"], 1..20),
    ) {
        prop_assume!(!all.is_empty());
        let rules = rules(&yaml(&all));
        for value in &values {
            prop_assert_eq!(number(&rules, value), naive(&all, value), "{:?} in\n{}", value, yaml(&all));
        }
    }
}
