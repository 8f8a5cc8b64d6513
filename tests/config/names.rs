//! What rules and sets of values are called, so that no two are taken for each other; and what all expressions cost.

#![allow(clippy::print_stdout, reason = "a test prints what it measured")]

use std::fmt::Write;
use std::time::Instant;

use super::errors::refused;
use super::rules;

/// Levels are joined without escapes: rules whose paths would read the same are told apart, in what they count and in what
/// they are called.
#[test]
fn paths_that_read_the_same_are_numbered() {
    let of = |hits: u32| {
        let leaf = |key: &str, value: &str, hits: u32| {
            format!("  - {{key: {key}, value: {value}, rate_limit: {{unit: day, requests_per_unit: {hits}}}}}\n")
        };
        let (one, other) = (leaf("a", "b_c", 1), leaf("a_b", "c", hits));
        let deep = "  - {key: a_b_c, rate_limit: {unit: day}}\n";
        rules(&format!("domain: d\ndescriptors:\n{one}{other}{deep}"))
    };
    let (old, new) = (of(2), of(3));
    let paths: Vec<&str> = old.rules.iter().map(|rule| &*rule.path).collect();
    assert_eq!(paths, ["a_b_c", "a_b_c~2", "a_b_c~3"]);
    let changes = new.changes(&old);
    assert_eq!(changes.len(), 3);
    let changed: Vec<_> = changes
        .iter()
        .filter(|(was, is)| was.map(|rule| rule.limit) != is.map(|rule| rule.limit))
        .collect();
    assert_eq!(changed.len(), 1);
}

#[test]
fn a_value_that_reads_like_a_set_beside_it_is_refused() {
    let level = |other: &str| {
        let of = |fields: &str| format!("  - {{key: k, {fields}, rate_limit: {{unit: day}}}}\n");
        format!("domain: d\ndescriptors:\n{}{}", of("value: 'in(a,b)'"), of(other))
    };
    let same = &refused(&level("value_in: [b, a]"))[0];
    assert!(
        same.contains("call these values \"in(a,b)\", as those of rules.yaml:3"),
        "{same}"
    );
    rules(&level("value_in: [a, c]"));
}

/// A set is the same in any order.
#[test]
fn the_order_of_a_set_is_no_part_of_its_name() {
    let of = |values: &str| {
        rules(&format!(
            "domain: d\ndescriptors:\n  - {{key: k, {values}, share_threshold: true, rate_limit: {{unit: day}}}}\n"
        ))
    };
    for (one, other, extended) in [
        ("value_in: [a, b]", "value_in: [b, a]", "value_in: [b, a, c]"),
        (
            "value_cidr: [10.0.0.0/8, 9.0.0.0/8]",
            "value_cidr: [9.0.0.0/8, 10.0.0.0/8]",
            "value_cidr: [9.0.0.0/8, 10.0.0.0/8, 11.0.0.0/8]",
        ),
    ] {
        let (one, other, extended) = (of(one), of(other), of(extended));
        assert_eq!(one.rules[0].levels, other.rules[0].levels);
        assert!(other.starting_anew(&one).is_empty());
        assert_eq!(extended.starting_anew(&one).len(), 1, "another shared counter");
    }
}

#[test]
fn expressions_are_bounded_together_wherever_they_stand() {
    let mut yaml = "domain: d\ndescriptors:\n".to_owned();
    for number in 0..3000 {
        let below =
            format!("{{key: below, value_regex: '(?:\\pL{{4}}|\\pN{{4}}){number}', rate_limit: {{unit: day}}}}");
        let _ = writeln!(yaml, "  - {{key: k{number}, descriptors: [{below}]}}");
    }
    let started = Instant::now();
    let found = refused(&yaml);
    println!("refused in {:?}", started.elapsed());
    assert_eq!(found.len(), 1, "what comes behind is not compiled");
    assert!(
        found[0].contains("of all rules compile to more than 16 MiB together: use fewer"),
        "{}",
        found[0]
    );
}

/// Cures that are right for what was meant.
#[test]
fn what_was_meant_is_offered() {
    for (fields, said, cure) in [
        (
            "rate_limit: [{unit: day}, {unit: second}]",
            "`rate_limit` is one limit, not a list",
            "write `rate_limits: [ … ]`",
        ),
        (
            "rate_limit: {window: month}",
            "`window` \"month\" is no duration",
            "`unit: month` (30 days) or `window: { calendar: month }`",
        ),
        (
            "value_cidr: [], rate_limit: {unit: day}",
            "`value_cidr` is empty",
            "add an entry",
        ),
        (
            "value_in: [a], metadata: {sluicegate: {value_in: [b]}}",
            "`value_in` beside",
            "or `the same in `metadata.sluicegate``",
        ),
    ] {
        let found = refused(&format!("domain: d\ndescriptors:\n  - {{key: k, {fields}}}\n"));
        assert!(found[0].contains(said) && found[0].contains(cure), "{found:#?}");
    }
}
