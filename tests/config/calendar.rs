//! `window: { calendar: …, time_zone: … }`.

use sluicegate::config::load;
use sluicegate::model::{Algorithm, AlgorithmKind, Unit};
use sluicegate::rules::{Defaults, RuleSet};

use super::errors::refused;
use super::{rules, text};

fn yaml(descriptor: &str) -> String {
    format!("domain: d\ndescriptors:\n  - key: k\n    {descriptor}\n")
}

fn limited(fields: &str) -> RuleSet {
    rules(&yaml(&format!("rate_limit: {{requests_per_unit: 5, {fields}}}")))
}

const BERLIN: &str = "window: {calendar: month, time_zone: Europe/Berlin}";

#[test]
fn a_unit_of_a_zone_is_counted_by_fixed_window_whatever_the_default() {
    let rule = limited(BERLIN).rules[0].clone();
    let Some(Algorithm::CalendarWindow(calendar)) = rule.limit.map(|limit| limit.algorithm) else {
        panic!("{rule:?}");
    };
    assert_eq!(
        (calendar.unit(), calendar.zone().name()),
        (Unit::Month, "Europe/Berlin")
    );
    assert_eq!(rule.window.to_string(), "month (Europe/Berlin)");
    let defaults = Defaults {
        algorithm: AlgorithmKind::TokenBucket,
        ..Defaults::default()
    };
    let stated = format!("rate_limit: {{requests_per_unit: 5, algorithm: fixed_window, {BERLIN}}}");
    let same = load(&[text(&yaml(&stated))], &defaults).unwrap();
    assert_eq!(same.rules[0].limit, rule.limit);
    let utc = limited("window: {calendar: Day}");
    assert_eq!(utc.rules[0].window.to_string(), "day (UTC)");
    let any_case = limited("window: {calendar: month, time_zone: europe/berlin}");
    assert_eq!(any_case.rules[0].limit, rule.limit);
}

#[test]
fn it_stands_wherever_a_window_does() {
    // Sources that need `metadata` cannot leave the unit out.
    let in_metadata = rules(&yaml(&format!(
        "rate_limit: {{requests_per_unit: 5, unit: second}}\n    metadata: {{sluicegate: {{{BERLIN}}}}}"
    )));
    assert_eq!(in_metadata.rules[0].limit, limited(BERLIN).rules[0].limit);
    let candidate = rules(&yaml(&format!(
        "rate_limit: {{unlimited: true}}\n    candidate: {{requests_per_unit: 5, {BERLIN}}}"
    )));
    let candidate = candidate.rules[0].candidate.as_deref();
    assert_eq!(
        candidate.map(|candidate| candidate.limit),
        limited(BERLIN).rules[0].limit
    );
    let several = rules(&yaml(&format!(
        "rate_limits: [{{requests_per_unit: 5, {BERLIN}}}, {{requests_per_unit: 5, algorithm: fixed_window, unit: month}}, \
         {{requests_per_unit: 1, window: {{calendar: day, time_zone: Asia/Tokyo}}}}]"
    )));
    let paths: Vec<_> = several.rules.iter().map(|rule| &*rule.path).collect();
    assert_eq!(paths, ["k#2592000s", "k", "k#86400s"]);
    let plan = rules(&format!(
        "domain: d\nplans:\n  free: {{requests_per_unit: 5, {BERLIN}}}\nsources:\n  t: {{file: t.csv}}\ndescriptors:\n  \
         - {{key: k, rate_limit: {{plan_from: t, default: free}}}}\n"
    ));
    assert_eq!(plan.rules[0].limit, limited(BERLIN).rules[0].limit);
    let dump = limited(BERLIN).dump();
    assert!(
        dump.contains("d.k: unit=MONTH requests_per_unit=5") && dump.contains("window: month (Europe/Berlin)"),
        "{dump}"
    );
}

#[test]
fn another_zone_or_unit_starts_anew_and_another_number_does_not() {
    let now = limited(BERLIN);
    for (fields, starts_anew) in [
        (BERLIN, false),
        ("window: {calendar: month, time_zone: Europe/Vienna}", true),
        ("window: {calendar: week, time_zone: Europe/Berlin}", true),
        ("unit: month, algorithm: fixed_window", true),
    ] {
        assert_eq!(!limited(fields).starting_anew(&now).is_empty(), starts_anew, "{fields}");
    }
    let more = rules(&yaml(&format!("rate_limit: {{requests_per_unit: 500, {BERLIN}}}")));
    assert!(more.starting_anew(&now).is_empty());
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_cure() {
    let cases = [
        ("window: {calendar: moon}", "4:59 d / k | unknown calendar \"moon\" | "),
        ("window: {calendar: hour}", "one of: day, week, month, year"),
        (
            "window: {}",
            "4:48 d / k | a `window` has no `calendar` | add `calendar: month`",
        ),
        (
            "window: [month]",
            "`window` must be a text, or `{ calendar: …, time_zone: … }`, not a list",
        ),
        (
            "window: {calendar: day, starts: 6h}",
            "unknown field \"starts\" in `window` | one of: calendar, time_zone",
        ),
        (
            "window: {calendar: day, time_zone: Europe/Berln}",
            "4:75 d / k | `time_zone` \"Europe/Berln\" cannot be used: the tz database has no such zone: did you mean \
             `Europe/Berlin`?",
        ),
        (
            "window: {calendar: day, time_zone: Atlantis}",
            "write one of its names, such as `Europe/Berlin`",
        ),
        (
            "window: {calendar: day, time_zone: 5}",
            "the tz database has no such zone",
        ),
        (
            "unit: day, window: {calendar: day}",
            "4:59 d / k | `window` beside `unit` | keep",
        ),
        (
            "unit_multiplier: 2, window: {calendar: day}",
            "`window` beside `unit_multiplier`",
        ),
        (
            "algorithm: sliding_window, window: {calendar: day}",
            "4:51 d / k | a window of a calendar starts over at its end, which sliding_window does not: remove `algorithm`",
        ),
        (
            "precision: 8, window: {calendar: day}",
            "`precision` has no meaning for fixed_window",
        ),
        (
            "unlimited: true, window: {calendar: day}",
            "`window` beside `unlimited: true`",
        ),
    ];
    for (fields, expected) in cases {
        let found = refused(&yaml(&format!("rate_limit: {{requests_per_unit: 5, {fields}}}")));
        assert!(
            matches!(&found[..], [one] if one.contains(expected)),
            "{fields}: {found:#?}\n{expected}"
        );
    }
    let twice = refused(&yaml(&format!("rate_limits: [{{{BERLIN}}}, {{{BERLIN}}}]")));
    assert!(
        twice[0].contains("another limit per month (Europe/Berlin) by fixed_window stands here already"),
        "{twice:?}"
    );
}
