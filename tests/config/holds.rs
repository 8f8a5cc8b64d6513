//! `hold`: what it compiles to, what is wrong with it, and what is warned of.

use sluicegate::config::{ConfigErrors, load_with_warnings};
use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::rules::Defaults;

use super::errors::refused;
use super::{rules, text};

fn yaml(rate_limit: &str) -> String {
    format!("domain: d\ndescriptors:\n  - key: k\n    rate_limit: {{{rate_limit}}}\n")
}

/// How long its hits are held, in milliseconds.
fn held_ms(rate_limit: &str) -> u64 {
    let rules = rules(&yaml(rate_limit));
    rules.rules[0].limit.map_or(0, |limit| limit.hold_us) / 1000
}

#[test]
fn a_hold_lasts_its_ttl_and_no_longer_than_the_window() {
    for (rate_limit, expected) in [
        ("unit: day", 0),
        ("unit: day, hold: {ttl: 250ms}", 250),
        ("unit: day, hold: {ttl: 10m}", 600_000),
        ("unit: day, hold: {}", 600_000),
        ("unit: minute, hold: {}", 60_000),
        ("unit: minute, hold: {ttl: 2h}", 60_000),
        (
            "unit: minute, algorithm: token_bucket, burst: 5, requests_per_unit: 1, hold: {ttl: 1s}",
            1_000,
        ),
        (
            "unit: minute, algorithm: concurrency, requests_per_unit: 1, hold: {ttl: 1s}",
            1_000,
        ),
    ] {
        assert_eq!(held_ms(rate_limit), expected, "{rate_limit}");
    }
    // Where the source has no field for it.
    let in_metadata = "domain: d\ndescriptors:\n  - key: k\n    rate_limit: {unit: day, requests_per_unit: 1}\n    metadata: {sluicegate: {hold: {ttl: 5s}}}\n";
    assert_eq!(rules(in_metadata).rules[0].limit.expect("a limit").hold_us, 5_000_000);
}

/// What is kept of holds with and without ids cannot be read as the other, so a rule that changes between them starts anew.
#[test]
fn holds_of_two_kinds_have_two_counters() {
    let key = |rate_limit: &str| {
        let limit = rules(&yaml(rate_limit)).rules[0].limit.expect("a limit");
        counter_key("", Owner::Rule, &limit, "d", [Part::Own("k", "v")])
    };
    assert_eq!(key("unit: day, hold: {}").as_str(), "sw+h600:{d|k=v}");
    assert_eq!(key("unit: day, hold: {adaptive: {}}").as_str(), "sw+m600:{d|k=v}");
}

#[test]
fn what_is_wrong_with_it_says_how_to_fix_it() {
    for (rate_limit, expected) in [
        ("unit: day, hold: 10m", ["`hold`", "must be a mapping"]),
        (
            "unit: day, hold: {tll: 10m}",
            ["unknown field \"tll\"", "did you mean `ttl`?"],
        ),
        ("unit: day, hold: {ttl: 10}", ["`ttl` \"10\" is no duration", "no unit"]),
        ("unit: day, hold: {ttl: ten}", ["no duration", "ttl: 10m"]),
        (
            "unit: day, hold: {ttl: 0s}",
            ["ttl must not be 0", "hold: { ttl: 10m }"],
        ),
        (
            "unit: day, hold: {ttl: 1m}, count_denied: true",
            ["`count_denied` beside `hold`", "not both"],
        ),
        (
            "unit: day, requests_per_unit: 1, algorithm: leaky_bucket, hold: {ttl: 1m}",
            ["no meaning for leaky_bucket", "token_bucket"],
        ),
        (
            "unit: day, algorithm: concurrency, requests_per_unit: 1, hold: {adaptive: {}}",
            ["`adaptive` beside `algorithm: concurrency`", "not both"],
        ),
        ("unit: day, hold: {adaptive: 5}", ["`adaptive`", "must be a mapping"]),
        (
            "unlimited: true, hold: {ttl: 1m}",
            ["`hold` beside `unlimited: true`", "leave out"],
        ),
    ] {
        let errors = refused(&yaml(rate_limit));
        assert_eq!(errors.len(), 1, "{errors:?}");
        for part in expected {
            assert!(errors[0].contains(part), "{} does not say {part}", errors[0]);
        }
    }
}

#[test]
fn a_ttl_above_the_window_and_a_lease_in_vain_are_warned_of() {
    let warned = |rate_limit: &str| {
        let loaded = load_with_warnings(
            &[text(&yaml(rate_limit))],
            &Defaults::default(),
            ConfigErrors::default(),
        );
        let (_, warnings) = loaded.expect("good rules");
        warnings.lines().collect::<Vec<_>>()
    };
    let long = warned("unit: minute, hold: {ttl: 10m}");
    assert!(
        long.len() == 1 && long[0].contains("10m is longer than the window of minute"),
        "{long:?}"
    );
    let lease = warned("unit: day, lease: true, hold: {ttl: 10m}");
    assert!(
        lease.len() == 1 && lease[0].contains("`lease` has no effect"),
        "{lease:?}"
    );
    assert_eq!(warned("unit: minute, hold: {}"), Vec::<String>::new());
    // A name without a value, as an indentation that slipped leaves it.
    for (rate_limit, field) in [
        ("unit: minute, hold:", "`hold` has no value"),
        ("unit: minute, hold: {adaptive:}", "`adaptive` has no value"),
    ] {
        let nothing = warned(rate_limit);
        assert!(nothing.len() == 1 && nothing[0].contains(field), "{nothing:?}");
    }
    let yaml = "domain: d\ndescriptors:\n  - key: sluicegate_hold\n    rate_limit: {unit: day, requests_per_unit: 1}\n";
    let loaded = load_with_warnings(&[text(yaml)], &Defaults::default(), ConfigErrors::default());
    let lines = loaded.expect("good rules").1.lines().collect::<Vec<_>>();
    assert!(
        lines.len() == 1 && lines[0].contains("no descriptor matches the key `sluicegate_hold`"),
        "{lines:?}"
    );
}
