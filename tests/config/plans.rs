//! `plans`, `sources` and `plan_from`: what is refused, and that all of it is shown.

use std::collections::BTreeSet;

use sluicegate::config::load;
use sluicegate::rules::Defaults;

use super::errors::refused;
use super::{named, rules, try_rules};

const GOOD: &str = r#"domain: d
plans:
  free: { requests_per_unit: 1, unit: hour }
  pro: { requests_per_unit: 3, unit: hour, algorithm: token_bucket }
sources:
  tenants: { file: tenants.csv }
descriptors:
  - key: tenant
    rate_limit: { name: t, plan_from: tenants, default: free }
"#;

#[test]
fn whatever_differs_is_shown() {
    let changes = [
        ("", ""),
        ("requests_per_unit: 1", "requests_per_unit: 2"),
        ("requests_per_unit: 3", "requests_per_unit: 4"),
        ("algorithm: token_bucket", "algorithm: fixed_window"),
        ("  pro: {", "  plus: {"),
        ("file: tenants.csv", "file: other.csv"),
        ("file: tenants.csv", "redis: { hash: h }"),
        ("file: tenants.csv", "http: { url: \"http://h/\" }"),
        ("file: tenants.csv", "http: { url: \"https://h/\", every: 5s }"),
        ("default: free", "default: pro"),
    ];
    let dumps: BTreeSet<String> = changes
        .iter()
        .map(|(from, to)| rules(&GOOD.replace(from, to)).dump())
        .collect();
    assert_eq!(dumps.len(), changes.len(), "{dumps:#?}");
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_cure() {
    let cases = [
        (
            "requests_per_unit: 1, unit: hour",
            "requests_per_unit: 1",
            "3:",
            "has no `unit`",
        ),
        (
            "requests_per_unit: 1, unit: hour",
            "unit: day, nothing: 1",
            "3:",
            "unknown field",
        ),
        ("  free: {", "  fr/ee: {", "3:", "a name has letters"),
        ("  free: {", "  1st: {", "3:", "a name has letters"),
        ("  pro: {", "  free: {", "4:", "stands here twice"),
        (
            "{ file: tenants.csv }",
            "{ file: a, redis: { hash: b } }",
            "6:",
            "exactly one of its kinds",
        ),
        ("{ file: tenants.csv }", "{}", "6:", "exactly one of its kinds"),
        ("{ file: tenants.csv }", "{ fiel: a }", "6:", "did you mean `file`?"),
        ("file: tenants.csv", "redis: {}", "6:", "has no `hash`"),
        ("file: tenants.csv", "http: { every: 5s }", "6:", "has no `url`"),
        (
            "file: tenants.csv",
            "http: { url: \"ftp://h/\" }",
            "6:",
            "begins with neither",
        ),
        (
            "file: tenants.csv",
            "http: { url: \"http://me:secret@h/\" }",
            "6:",
            "a login in it",
        ),
        (
            "file: tenants.csv",
            "http: { url: \"http://h/\", every: 5ms }",
            "6:",
            "allowed are 1s to 1d",
        ),
        ("plan_from: tenants", "plan_from: tenant", "9:", "it has: tenants"),
        ("default: free", "default: gold", "9:", "it has: free, pro"),
        (", default: free", "", "9:", "has no `default`"),
        ("plan_from: tenants, ", "unit: day, ", "9:", "it needs `plan_from"),
        ("name: t,", "unit: day,", "9:", "`unit` beside `plan_from`"),
        ("name: t,", "burst: 5,", "9:", "`burst` beside `plan_from`"),
        ("name: t,", "unlimited: true,", "9:", "`unlimited` beside `plan_from`"),
        ("plans:", "plan:", "2:", "unknown field"),
        (
            "rate_limit: { name: t, plan_from: tenants, default: free }",
            "rate_limit: { unit: day }\n    metadata: { sluicegate: { plan_from: tenants } }",
            "10:",
            "`plan_from` has no effect in `metadata.sluicegate`",
        ),
    ];
    assert_refused(&cases);
}

/// Values of different plans would count on one counter, each by its own number; and `false` says no less than `true`.
#[test]
fn what_cannot_stand_beside_plan_from_is_refused() {
    assert_refused(&[
        (
            "name: t,",
            "count_denied: false,",
            "9:",
            "`count_denied` beside `plan_from`",
        ),
        (
            "- key: tenant",
            "- key: tenant\n    value: \"t*\"\n    share_threshold: true",
            "11:",
            "`plan_from` beside `share_threshold: true`",
        ),
        (
            "- key: tenant",
            "- key: tenant\n    value_in: [a, b]\n    metadata: { sluicegate: { share_threshold: true } }",
            "11:",
            "`plan_from` beside `share_threshold: true`",
        ),
    ]);
}

/// What in the good rules is replaced by what, the line where that is refused, and a part of what is said.
fn assert_refused(cases: &[(&str, &str, &str, &str)]) {
    for (from, to, place, expected) in cases {
        let yaml = GOOD.replacen(from, to, 1);
        let found = refused(&yaml);
        assert!(
            found[0].starts_with(place) && found[0].contains(expected),
            "{to}: {found:?}"
        );
    }
}

#[test]
fn what_nobody_uses_is_warned_of() {
    let unused = GOOD.replace("plan_from: tenants, default: free", "unit: day");
    let source = sluicegate::config::Text {
        name: "rules.yaml".into(),
        text: unused.into(),
    };
    let loaded =
        sluicegate::config::load_with_warnings(&[source], &sluicegate::rules::Defaults::default(), Default::default());
    let (_, warnings) = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    let lines: Vec<_> = warnings.lines().collect();
    assert!(
        matches!(&lines[..], [one] if one.contains("`sources` has no effect here")),
        "{lines:?}"
    );
}

/// A path is relative to the rules file, wherever the process runs.
#[test]
fn sources_of_plans_know_where_they_are() {
    let rules = try_rules(GOOD).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(rules.sources[0].from.to_string(), "file tenants.csv");
    let text = sluicegate::config::Text {
        name: "/etc/sluicegate/rules.yaml".into(),
        text: GOOD.into(),
    };
    let load = |text| sluicegate::config::load(&[text], &sluicegate::rules::Defaults::default());
    let rules = load(text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(rules.sources[0].from.to_string(), "file /etc/sluicegate/tenants.csv");
}

/// What is told of a limit is the rule's to say, also where what it counts is a plan's.
#[test]
fn what_is_told_stands_beside_plan_from() {
    let told = rules(&GOOD.replace("name: t,", "name: t, headers: false, body: false, on_limit: mark,"));
    let rule = &told.rules[0];
    assert_eq!((rule.headers, rule.body, rule.marks), (false, false, true));
    let above = GOOD.replace(
        "- key: tenant\n    rate_limit",
        "- key: group\n    value: \"*\"\n    share_threshold: true\n    descriptors:\n    - key: tenant\n      rate_limit",
    );
    assert_eq!(
        rules(&above).rules[0].path.as_ref(),
        "group_*.tenant",
        "shared above the level is no harm"
    );
}

/// Among several limits one with plans has a name that depends on no plan's window.
#[test]
fn among_several_limits_plans_keep_their_name() {
    let of = |default: &str, list: &str| {
        rules(
            &GOOD
                .replace("free: { requests_per_unit: 1, unit: hour }", default)
                .replace(
                    "rate_limit: { name: t, plan_from: tenants, default: free }",
                    &format!("rate_limits: [{list}]"),
                ),
        )
    };
    let paths = |rules: &sluicegate::rules::RuleSet| -> Vec<String> {
        rules.rules.iter().map(|rule| rule.path.to_string()).collect()
    };
    let plans = "{ plan_from: tenants, default: free }";
    let both = format!("{{ requests_per_unit: 9, unit: day }}, {plans}");
    let minute = of("free: { requests_per_unit: 1, unit: minute }", &both);
    let week = of("free: { requests_per_unit: 1, unit: week }", &both);
    let unlimited = of("free: { unlimited: true }", &both);
    let same = of("free: { requests_per_unit: 5, unit: day }", &both);
    for rules in [&minute, &week, &unlimited, &same] {
        assert_eq!(paths(rules), ["tenant#86400s", "tenant"]);
        assert!(rules.starting_anew(&minute).is_empty());
    }
    let alone = of("free: { requests_per_unit: 1, unit: minute }", plans);
    assert_eq!(paths(&alone), ["tenant"]);
    let two = GOOD
        .replace("sources:", "sources:\n  also: { file: also.csv }")
        .replace(
            "rate_limit: { name: t, plan_from: tenants, default: free }",
            &format!("rate_limits: [{plans}, {{ plan_from: also, default: pro }}]"),
        );
    assert_eq!(paths(&rules(&two)), ["tenant#plans", "tenant"]);
    let twice = GOOD.replace(
        "rate_limit: { name: t, plan_from: tenants, default: free }",
        &format!("rate_limits: [{plans}, {{ plan_from: tenants, default: pro }}]"),
    );
    let found = refused(&twice);
    assert!(
        found[0].starts_with("9:") && found[0].contains("`plan_from` this source"),
        "{found:?}"
    );
}

#[test]
fn plans_whose_values_start_anew_are_named() {
    let anew = |from: &str, to: &str| -> Vec<String> {
        let (old, new) = (rules(GOOD), rules(&GOOD.replacen(from, to, 1)));
        let names = new.rules[0].plans_starting_anew(&old.rules[0]);
        assert_eq!(new.starting_anew(&old).is_empty(), names.is_empty(), "{to}");
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(anew("algorithm: token_bucket", "algorithm: fixed_window"), ["pro"]);
    assert_eq!(
        anew(
            "requests_per_unit: 1,",
            "requests_per_unit: 1, algorithm: fixed_window,"
        ),
        ["free"]
    );
    assert_eq!(anew("  pro: {", "  plus: {"), ["pro"], "they have the default now");
    assert_eq!(anew("plan_from: tenants, default: free", "unit: day"), ["pro"]);
    assert_eq!(anew("requests_per_unit: 3", "requests_per_unit: 9"), [""; 0]);
}

/// Metrics and logs would mix them up.
#[test]
fn a_domain_has_one_source_of_a_name_whatever_its_files() {
    let file = |name: &str, key: &str| {
        let rules = format!(
            "domain: d\nplans: {{ free: {{ requests_per_unit: 1, unit: day }} }}\nsources:\n  tenants: {{ file: {key}.csv \
             }}\ndescriptors: [{{key: {key}, rate_limit: {{plan_from: tenants, default: free}}}}]\n"
        );
        named(name, &rules)
    };
    let merging = Defaults {
        merge_domains: true,
        ..Defaults::default()
    };
    let errors = load(&[file("a.yaml", "a"), file("b.yaml", "b")], &merging)
        .unwrap_err()
        .to_string();
    assert_eq!(
        errors,
        "b.yaml:4:3: d: the domain has a source \"tenants\" in another file already: a.yaml:4 (give one of them another name: \
         metrics and logs tell sources apart by domain and name)"
    );
    let other = named("b.yaml", &file("b.yaml", "b").text.replace("tenants", "others"));
    assert!(load(&[file("a.yaml", "a"), other], &merging).is_ok());
}
