//! What is accepted although it does not do what it seems to: each with its line and its cure.

use sluicegate::config::{ConfigErrors, Warnings, load_with_warnings};
use sluicegate::rules::Defaults;

use super::text;

fn warned(yaml: &str) -> Vec<String> {
    let loaded = load_with_warnings(&[text(yaml)], &Defaults::default(), ConfigErrors::default());
    let (_, warnings): (_, Warnings) = loaded.unwrap_or_else(|errors| panic!("{yaml}: {errors}"));
    warnings.lines().collect()
}

/// One descriptor with these lines in it, each indented by four.
fn descriptor(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    format!("domain: d\ndescriptors:\n  - key: a\n{lines}")
}

const LIMIT: &str = "rate_limit: {unit: day, requests_per_unit: 1}";

#[test]
fn a_field_in_the_wrong_place_is_told_where_it_belongs() {
    assert_warned(&[
        // What egctl and Envoy Gateway's translator print.
        (
            "name: d\ndomain: d\n",
            "rules.yaml:1:1: d: ",
            &[
                "`name` has no effect in a rules file",
                "belongs in `rate_limit`",
                "move `name`",
            ],
        ),
        (
            "domain: d\nunit: day\n",
            "rules.yaml:2:1: d: ",
            &["`unit` has no effect", "`rate_limit`"],
        ),
        (
            &descriptor(&["requests_per_unit: 5", LIMIT]),
            "rules.yaml:4:5: d / a: ",
            &["`requests_per_unit` has no effect in a descriptor"],
        ),
        (
            &descriptor(&["rate_limit: {unit: day, shadow_mode: true}"]),
            "rules.yaml:4:29: d / a: ",
            &["`shadow_mode` has no effect in `rate_limit`", "belongs in a descriptor"],
        ),
        (
            &format!(
                "{}  - {{key: b, rate_limit: {{unit: day, name: x}}}}\n",
                descriptor(&["rate_limit: {unit: day, replaces: [{name: x, key: y}]}"])
            ),
            "rules.yaml:4:50: d / a: ",
            &["`key` has no effect in an entry of `replaces`"],
        ),
    ]);
}

#[test]
fn an_option_without_a_limit_that_it_could_change_has_no_effect() {
    assert_warned(&[
        (
            &descriptor(&["shadow_mode: true"]),
            "rules.yaml:4:18: d / a: ",
            &[
                "`shadow_mode` has no effect here",
                "add a `rate_limit`",
                "leave out `shadow_mode`",
            ],
        ),
        (
            &descriptor(&["quota_mode: true"]),
            "rules.yaml:4:17: d / a: ",
            &["`quota_mode` has no effect here"],
        ),
        (
            &descriptor(&["detailed_metric: true"]),
            "rules.yaml:4:22: d / a: ",
            &["`detailed_metric` has no effect here"],
        ),
        (
            &descriptor(&["metadata: {team: x}"]),
            "rules.yaml:4:15: d / a: ",
            &["`metadata` has no effect here"],
        ),
        (
            &descriptor(&["on_store_error: deny"]),
            "rules.yaml:4:21: d / a: ",
            &["`on_store_error` has no effect here", "or below it"],
        ),
        (
            &descriptor(&[
                "shadow_mode: true",
                "descriptors:",
                "  - key: b",
                &format!("    {LIMIT}"),
            ]),
            "rules.yaml:4:18: d / a: ",
            &["`shadow_mode` has no effect here"],
        ),
    ]);
}

#[test]
fn limits_that_cannot_lease_and_open_wildcards_are_told() {
    assert_warned(&[
        // Limits that cannot lease hits.
        (
            &descriptor(&["rate_limit: {unit: day, requests_per_unit: 1, algorithm: token_bucket, lease: true}"]),
            "rules.yaml:4:83: d / a: ",
            &["`lease` has no effect here", "sliding_window", "leave out `lease`"],
        ),
        (
            &descriptor(&[
                "lease: true",
                "rate_limit: {unit: day, requests_per_unit: 1, algorithm: leaky_bucket}",
            ]),
            "rules.yaml:4:12: d / a: ",
            &["`lease` has no effect here"],
        ),
        (
            &descriptor(&["rate_limit: {unit: day, requests_per_unit: 1, algorithm: sliding_log, lease: true}"]),
            "rules.yaml:4:82: d / a: ",
            &["`lease` has no effect here"],
        ),
        (
            &descriptor(&["rate_limit: {unit: day, requests_per_unit: 1, algorithm: concurrency, lease: true}"]),
            "rules.yaml:4:82: d / a: ",
            &["`lease` has no effect here"],
        ),
        (
            &descriptor(&[
                "metadata: {sluicegate: {lease: true}, team: x}",
                "rate_limit: {unit: day, requests_per_unit: 1, algorithm: token_bucket}",
            ]),
            "rules.yaml:4:36: d / a: ",
            &["`lease` has no effect here"],
        ),
        // A wildcard that leaves open what it counts.
        (
            &descriptor(&["value: /login*", LIMIT]),
            "rules.yaml:4:12: d / a=/login*: ",
            &[
                "a counter of its own",
                "share_threshold: true",
                "share_threshold: false",
            ],
        ),
    ]);
}

/// One warning each: the YAML, its place, and parts of its text and its cure.
fn assert_warned(cases: &[(&str, &str, &[&str])]) {
    let mut wrong = Vec::new();
    for (yaml, place, parts) in cases {
        let found = warned(yaml);
        let right =
            matches!(&found[..], [only] if only.starts_with(place) && parts.iter().all(|part| only.contains(part)));
        if !right {
            wrong.push(format!("{yaml}\n  expected {place} {parts:?}\n  found    {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_has_an_effect_is_not_warned_of() {
    let nested = |option: &str| descriptor(&[option, "descriptors:", "  - key: b", &format!("    {LIMIT}")]);
    for yaml in [
        descriptor(&["shadow_mode: true", LIMIT]),
        descriptor(&["shadow_mode: false"]),
        // As Envoy Gateway writes it, on each level of a rule.
        descriptor(&[
            "shadow_mode: true",
            "descriptors:",
            "  - key: b",
            "    shadow_mode: true",
            &format!("    {LIMIT}"),
        ]),
        descriptor(&["lease: true", LIMIT]),
        descriptor(&["lease: false"]),
        descriptor(&["rate_limit: {unit: day, requests_per_unit: 1, algorithm: fixed_window, lease: true}"]),
        nested("on_store_error: deny"),
        nested("lease: true"),
        nested("value_to_metric: true"),
        descriptor(&["value: /login*", "share_threshold: true", LIMIT]),
        descriptor(&["value: /login*", "share_threshold: false", LIMIT]),
        descriptor(&["value: /login*", "metadata: {sluicegate: {share_threshold: true}}", LIMIT]),
        // It exempts what matches: nothing is counted.
        descriptor(&["value: /health*"]),
        "domain: d\nlease: true\ndescriptors:\n  - {key: a, rate_limit: {unit: day, algorithm: token_bucket, requests_per_unit: 1}}\n  - {key: b, rate_limit: {unit: day}}\n".to_owned(),
    ] {
        assert_eq!(warned(&yaml), Vec::<String>::new(), "{yaml}");
    }
}

/// A file full of them fills no log.
#[test]
fn warnings_are_bounded_and_counted() {
    let many: String = (0..500)
        .map(|n| format!("  - {{key: k{n}, shadow_mode: true}}\n"))
        .collect();
    let found = warned(&format!("domain: d\ndescriptors:\n{many}"));
    assert_eq!(found.len(), 101);
    assert_eq!(found.last().map(String::as_str), Some("… and 400 more warnings"));
}

#[test]
fn a_replaced_name_that_no_rule_has_is_told() {
    let replacing = |name: &str| {
        descriptor(&[&format!(
            "rate_limit: {{unit: day, name: b, replaces: [{{name: {name}}}]}}"
        )])
    };
    assert_warned(&[(
        &replacing("gone"),
        "rules.yaml:4:",
        &["no rule of the domain is called \"gone\"", "give a rule this `name`"],
    )]);
    let there = "  - {key: c, rate_limit: {unit: day, name: gone}}\n";
    assert!(warned(&format!("{}{there}", replacing("gone"))).is_empty());
}

#[test]
fn what_looks_like_more_than_it_is_is_told() {
    let value_in = descriptor(&["value_in: [\"/login*\"]", LIMIT]);
    let regex = |text: &str| descriptor(&[&format!("value_regex: '{text}'"), "share_threshold: true", LIMIT]);
    assert!(warned(&regex("/orders/[0-9]+(/.*)?")).is_empty());
    let rlqs = |limit: &str| format!("rlqs: {{}}\n{}", descriptor(&[limit]));
    assert_warned(&[
        (
            &value_in,
            "rules.yaml:4:16: d / a: ",
            &["a `*` in `value_in` is no wildcard", "with `value: …`"],
        ),
        (
            &regex(r"/api/\w+/.*"),
            "rules.yaml:4:18: d / a: ",
            &[
                "values longer than 7177 bytes do not match it",
                "`[0-9A-Za-z_]` for `\\w`",
            ],
        ),
        (
            &rlqs("rate_limit: {unit: day, algorithm: concurrency}"),
            "rules.yaml:1:7: d: ",
            &["`rlqs` has no effect here", "neither `leaky_bucket` nor `concurrency`"],
        ),
        (
            &descriptor(&["rate_limits: [{unit: day, hold: {}}, {unit: hour}]"]),
            "rules.yaml:4:42: d / a: ",
            &[
                "counts what requests hold, and then what they cost",
                "a descriptor of its own",
            ],
        ),
    ]);
    assert!(warned(&rlqs("rate_limit: {unit: day}")).is_empty());
    assert!(warned(&rlqs("rate_limit: {unlimited: true}")).is_empty());
}
