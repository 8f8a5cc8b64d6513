//! Several limits on one descriptor: what they are called, what cannot stand together, and what a change does to counters.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use sluicegate::model::AlgorithmKind;
use sluicegate::rules::RuleSet;

use super::errors::refused;
use super::{entries, rules, try_rules};

fn yaml(descriptor: &str) -> String {
    format!("domain: d\ndescriptors:\n  - key: k\n    {descriptor}\n")
}

/// Paths and hits of what applies to `k=x`, in the order of the file.
fn found(rules: &RuleSet) -> Vec<(String, u32)> {
    let matched = rules.domains["d"].find(&entries(&[("k", "x")])).expect("rules");
    let rule = |rule: &std::sync::Arc<sluicegate::rules::Rule>| (rule.path.to_string(), rule.requests_per_unit);
    matched.rules.iter().map(rule).collect()
}

fn limits(list: &str) -> RuleSet {
    rules(&yaml(&format!("rate_limits: [{list}]")))
}

const SECOND: &str = "{requests_per_unit: 10, unit: second}";
const DAY: &str = "{requests_per_unit: 250, unit: day, name: daily}";

#[test]
fn the_longest_window_has_the_plain_name_whatever_the_order() {
    let of = |pairs: &[(&str, u32)]| -> Vec<(String, u32)> {
        pairs.iter().map(|(path, hits)| ((*path).to_owned(), *hits)).collect()
    };
    assert_eq!(
        found(&limits(&format!("{SECOND}, {DAY}"))),
        of(&[("k#1s", 10), ("k", 250)])
    );
    assert_eq!(
        found(&limits(&format!("{DAY}, {SECOND}"))),
        of(&[("k", 250), ("k#1s", 10)])
    );
    assert_eq!(found(&limits(SECOND)), of(&[("k", 10)]));
    // Permits in flight are no quota, whatever their time to live.
    let permits = "{requests_per_unit: 5, window: 2d, algorithm: concurrency}";
    assert_eq!(
        found(&limits(&format!("{permits}, {DAY}"))),
        of(&[("k#172800s", 5), ("k", 250)])
    );
    let same = "{requests_per_unit: 9, unit: day, algorithm: token_bucket}";
    let third = "{requests_per_unit: 8, unit: day, algorithm: fixed_window}";
    assert_eq!(
        found(&limits(&format!("{DAY}, {same}, {third}"))),
        of(&[("k", 250), ("k#86400s", 9), ("k#86400s.2", 8)])
    );
    // Nor does the order of those of one window.
    let mut sorted = found(&limits(&format!("{third}, {same}, {DAY}")));
    sorted.reverse();
    assert_eq!(sorted, found(&limits(&format!("{DAY}, {same}, {third}"))));
    let (hard, soft) = (
        "{requests_per_unit: 9, unit: day}",
        "{requests_per_unit: 8, unit: day, on_limit: mark}",
    );
    assert_eq!(
        found(&limits(&format!("{soft}, {hard}"))),
        of(&[("k#86400s", 8), ("k", 9)])
    );
    assert_eq!(
        found(&limits(&format!("{hard}, {soft}"))),
        of(&[("k", 9), ("k#86400s", 8)])
    );
    let rules = limits(&format!("{SECOND}, {DAY}"));
    let lines: Vec<&str> = rules.rules.iter().map(|rule| &*rule.source).collect();
    assert_eq!(lines, ["rules.yaml:4", "rules.yaml:4"]);
    let dump = rules.dump();
    assert!(dump.contains("d.k#1s: unit=SECOND requests_per_unit=10"), "{dump}");
    assert!(dump.contains("d.k: unit=DAY requests_per_unit=250"), "{dump}");
}

#[test]
fn they_may_stand_in_metadata_in_place_of_the_rate_limit() {
    let list = format!("rate_limits: [{SECOND}, {DAY}]");
    let moved = format!("metadata: {{sluicegate: {{{list}}}}}");
    assert_eq!(rules(&yaml(&moved)).dump(), rules(&yaml(&list)).dump());
    let eight: Vec<String> = (1..=8)
        .map(|n| format!("{{requests_per_unit: {n}, window: {n}m}}"))
        .collect();
    assert_eq!(found(&limits(&eight.join(", "))).len(), 8);
}

#[test]
fn what_cannot_stand_together_is_refused_with_its_place_and_its_cure() {
    let nine: Vec<String> = (1..=9).map(|n| format!("{{window: {n}m}}")).collect();
    for (wrong, expected) in [
        (
            format!("rate_limits: [{SECOND}]\n    rate_limit: {DAY}"),
            "4:18 d / k | `rate_limits` beside `rate_limit` | keep `rate_limits` or `rate_limit`, not both",
        ),
        (
            format!("metadata: {{sluicegate: {{rate_limits: [{SECOND}]}}}}\n    rate_limit: {DAY}"),
            "4:42 d / k | `rate_limits` beside `rate_limit` | not both",
        ),
        (
            format!("rate_limits: [{SECOND}]\n    metadata: {{sluicegate: {{rate_limits: [{DAY}]}}}}"),
            "beside `the same in `metadata.sluicegate`` | not both",
        ),
        (
            format!("rate_limits: [{SECOND}]\n    candidate: {DAY}"),
            "`candidate` beside `rate_limits` | not both",
        ),
        (
            format!("rate_limits: [{}]", nine.join(", ")),
            "4:18 d / k | `rate_limits` has more than 8 limits | keep the 8 that matter",
        ),
        (
            "rate_limits: []".to_owned(),
            "4:18 d / k | `rate_limits` has no | add a limit",
        ),
        (
            "rate_limits: {unit: day}".to_owned(),
            "4:18 d / k | `rate_limits` must be a list of limits",
        ),
        (
            format!("rate_limits: [{SECOND}, {{unlimited: true}}]"),
            "d / k | `unlimited` beside other limits | leave it out",
        ),
        (
            format!("rate_limits: [{SECOND}, {{requests_per_unit: 3, window: 1s}}]"),
            "4:58 d / k | another limit per second by sliding_window stands here already | keep the smaller one",
        ),
        (
            format!("rate_limits: [{SECOND}, {{unit: minit}}]"),
            "d / k / rate_limits #2 | unknown unit \"minit\" | did you mean `minute`?",
        ),
        (
            format!("rate_limits: [{SECOND}, {{unit: day, x: 1}}]"),
            "d / k / rate_limits #2 | unknown field \"x\" in `rate_limit`",
        ),
        (
            format!("rate_limits: [{SECOND}, {DAY}]\n    metadata: {{sluicegate: {{window: 30s}}}}"),
            "d / k | `window` in `metadata.sluicegate` beside `rate_limits` | move `window` into the limits of the list",
        ),
        (
            format!("rate_limits: [{DAY}, {{name: b, unit: second, replaces: [{{name: daily}}]}}]"),
            "4:111 d / k | another limit of its own list, \"daily\" | leave it out, or leave out the limit",
        ),
    ] {
        let found = refused(&yaml(&wrong));
        let [place, rest] = *expected.splitn(2, " | ").collect::<Vec<_>>() else {
            panic!("{expected}");
        };
        let parts: Vec<&str> = rest.split(" | ").collect();
        let fits = |line: &String| line.contains(place) && parts.iter().all(|part| line.contains(part));
        assert!(found.iter().any(fits), "{expected}\n{found:#?}");
    }
}

/// A quota goes on when a shorter limit comes to stand beside it, and what starts anew is named.
#[test]
fn counters_go_on_as_far_as_their_names_do() {
    let anew = |old: &RuleSet, new: &RuleSet| -> Vec<String> {
        new.starting_anew(old)
            .iter()
            .map(|rule| rule.path.to_string())
            .collect()
    };
    let alone = rules(&yaml(&format!("rate_limit: {DAY}")));
    let both = limits(&format!("{SECOND}, {DAY}"));
    assert!(anew(&alone, &both).is_empty(), "what was there goes on");
    // The longest has the counters of the one that was alone.
    let month = format!("{DAY}, {{requests_per_unit: 10000, unit: month}}");
    assert_eq!(anew(&alone, &limits(&month)), ["k#86400s"]);
    assert!(anew(&both, &alone).is_empty());
    assert!(anew(&both, &limits(&format!("{DAY}, {SECOND}"))).is_empty());
    assert!(
        anew(
            &both,
            &limits(&format!("{DAY}, {{requests_per_unit: 99, unit: second}}"))
        )
        .is_empty()
    );
    assert_eq!(
        anew(&both, &limits(&format!("{DAY}, {{requests_per_unit: 99, window: 2s}}"))),
        ["k#2s"]
    );
    assert_eq!(
        both.rules[0].limit.unwrap().algorithm.kind(),
        AlgorithmKind::SlidingWindow
    );
    // Nothing was there before.
    assert!(anew(&try_rules("domain: e\ndescriptors: []\n").unwrap(), &both).is_empty());
}
