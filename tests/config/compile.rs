//! What files become: every field, defaults, inheritance, merging, and the text for `/rlconfig`.

use std::sync::Arc;

use prost_types::{Struct, Value, value::Kind};
use sluicegate::config::xds::Update;
use sluicegate::config::{self, load};
use sluicegate::model::{Algorithm, AlgorithmKind, Unit, Window};
use sluicegate::proto::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use sluicegate::rules::{CountedAs, Defaults, OnStoreError, Rule, RuleSet};

use super::{named, rules, text, try_rules};

fn only(rules: &RuleSet) -> &Arc<Rule> {
    assert_eq!(rules.rules.len(), 1);
    &rules.rules[0]
}

/// One descriptor `k` with these fields of `rate_limit`.
fn limited(fields: &str) -> RuleSet {
    rules(&format!(
        "domain: d\ndescriptors:\n  - {{key: k, rate_limit: {{{fields}}}}}\n"
    ))
}

#[test]
fn every_field_of_the_reference_arrives() {
    let rules = rules(
        r#"
domain: shop
descriptors:
  - key: plan
    value: "free*"
    value_to_metric: true
    share_threshold: true
    descriptors:
      - key: user
        shadow_mode: true
        quota_mode: yes
        detailed_metric: true
        metadata: {team: payments, tags: [a, 1, 2.5, true, null], deep: {x: 1}}
        rate_limit:
          unit: MONTH
          requests_per_unit: 4294967295
          name: per-user
          replaces:
            - name: other
            - name: third
"#,
    );
    let rule = only(&rules);
    assert_eq!(&*rule.domain, "shop");
    assert_eq!(&*rule.path, "plan_free*.user");
    let level = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(*rule.levels, [level("plan", "free*"), level("user", "")]);
    assert_eq!(&*rule.name, "per-user");
    assert_eq!(rule.requests_per_unit, u32::MAX);
    assert_eq!(rule.window, Window::of(Unit::Month));
    assert!(rule.shadow_mode && rule.quota_mode && rule.detailed_metric);
    assert_eq!(*rule.value_to_metric, [true, false]);
    assert_eq!(*rule.replaces, ["other".to_owned(), "third".to_owned()]);
    let metadata = serde_json::to_value(rule.metadata.as_deref()).unwrap();
    let expected = serde_json::json!({"team": "payments", "tags": ["a", 1, 2.5, true, null], "deep": {"x": 1}});
    assert_eq!(metadata, expected);
    let limit = rule.limit.unwrap();
    assert_eq!(
        (limit.hits, limit.window_us),
        (u64::from(u32::MAX), 30 * 86_400_000_000)
    );
    assert_eq!(limit.algorithm.kind(), AlgorithmKind::SlidingWindow);
}

#[test]
fn values_are_the_text_that_was_written() {
    let rules = rules(
        "domain: 42\ndescriptors:\n  - {key: k, value: 007, rate_limit: {unit: day}}\n  - {key: k, value: no, rate_limit: {unit: day}}\n  - {key: k, value: 1.50, rate_limit: {unit: day}}\n  - {key: k, value: '1.5', rate_limit: {unit: day}}\n  - {key: k, value: 0x1F, rate_limit: {unit: day}}\n  - {key: k, value: null, rate_limit: {unit: day}}\n  - {key: k, value: 1e999, rate_limit: {unit: day}}\n",
    );
    let paths: Vec<&str> = rules.rules.iter().map(|rule| &*rule.path).collect();
    assert_eq!(paths, ["k_007", "k_no", "k_1.50", "k_1.5", "k_0x1F", "k", "k_1e999"]);
    assert!(rules.domains.contains_key("42"));
}

#[test]
fn windows_are_units_multiples_or_durations() {
    for (fields, unit, multiplier) in [
        ("unit: Second", Unit::Second, 1),
        ("unit: week", Unit::Week, 1),
        ("unit: second, unit_multiplier: 60", Unit::Second, 60),
        ("window: 30s", Unit::Second, 30),
        ("window: 1h30m", Unit::Minute, 90),
        ("window: 1d", Unit::Day, 1),
    ] {
        let rules = limited(fields);
        assert_eq!(only(&rules).window, Window::times(unit, multiplier), "{fields}");
    }
}

#[test]
fn algorithms_take_their_options() {
    for (fields, expected) in [
        ("precision: 8", Algorithm::SlidingWindow { precision: 8 }),
        ("algorithm: sliding_log", Algorithm::SlidingLog),
        ("algorithm: fixed_window", Algorithm::FixedWindow),
        ("algorithm: concurrency", Algorithm::Concurrency),
    ] {
        let rules = limited(&format!("unit: second, requests_per_unit: 10, {fields}"));
        assert_eq!(only(&rules).limit.unwrap().algorithm, expected, "{fields}");
    }
    let bucket = limited("unit: second, requests_per_unit: 10, algorithm: token_bucket, burst: 25");
    assert!(matches!(
        only(&bucket).limit.unwrap().algorithm,
        Algorithm::TokenBucket { burst: 25, .. }
    ));
    let leaky = limited("unit: second, requests_per_unit: 10, algorithm: leaky_bucket, max_delay: 250ms");
    assert!(matches!(
        only(&leaky).limit.unwrap().algorithm,
        Algorithm::LeakyBucket {
            max_delay_us: 250_000,
            ..
        }
    ));
    assert_eq!(only(&limited("unlimited: true")).limit, None);
    // What it would be is of no interest then, as in the reference.
    assert_eq!(only(&limited("unlimited: true, requests_per_unit: 5")).limit, None);
    assert_eq!(only(&limited("unit: second")).limit.unwrap().hits, 0);
}

#[test]
fn the_default_algorithm_is_for_rules_that_name_none() {
    let yaml = "domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: day}}\n  - {key: b, rate_limit: {unit: day, algorithm: sliding_window}}\n  - {key: c, rate_limit: {unit: day, count_denied: false}}\n";
    let defaults = Defaults {
        algorithm: AlgorithmKind::FixedWindow,
        count_denied: true,
        ..Defaults::default()
    };
    let rules = load(&[text(yaml)], &defaults).unwrap();
    let counting = |at: usize| (rules.rules[at].limit.unwrap().algorithm, rules.rules[at].count_denied);
    assert_eq!(counting(0), (Algorithm::FixedWindow, true));
    assert_eq!(counting(1), (Algorithm::SlidingWindow { precision: 32 }, true));
    assert_eq!(counting(2), (Algorithm::FixedWindow, false));
}

#[test]
fn denied_hits_count_where_a_rule_says_so() {
    for algorithm in ["sliding_window", "sliding_log", "token_bucket", "fixed_window"] {
        let fields = format!("unit: second, requests_per_unit: 10, algorithm: {algorithm}");
        assert!(!only(&limited(&fields)).count_denied, "{algorithm}");
        assert!(
            only(&limited(&format!("{fields}, count_denied: true"))).count_denied,
            "{algorithm}"
        );
    }
}

#[test]
fn failure_mode_and_leases_come_from_the_nearest() {
    let rules = rules(
        r"
domain: d
on_store_error: deny
lease: false
descriptors:
  - key: a
    on_store_error: allow
    rate_limit: {unit: day}
    descriptors:
      - {key: b, lease: true, rate_limit: {unit: day}}
      - {key: c, rate_limit: {unit: day, on_store_error: local, lease: true}}
  - {key: d, rate_limit: {unit: day}}
",
    );
    let modes: Vec<_> = rules
        .rules
        .iter()
        .map(|rule| (&*rule.path, rule.on_store_error, rule.lease))
        .collect();
    assert_eq!(
        modes,
        [
            ("a", Some(OnStoreError::Allow), Some(false)),
            ("a.b", Some(OnStoreError::Allow), Some(true)),
            ("a.c", Some(OnStoreError::Local), Some(true)),
            ("d", Some(OnStoreError::Deny), Some(false)),
        ]
    );
}

#[test]
fn metadata_selects_ours_where_the_schema_has_no_fields() {
    let rules = rules(
        r#"
domain: d
descriptors:
  - key: k
    value: "a*"
    rate_limit: {unit: second, requests_per_unit: 5, name: n}
    metadata:
      team: x
      sluicegate: {algorithm: token_bucket, window: 30s, burst: 7, on_store_error: deny, lease: false, share_threshold: true, value_to_metric: true}
"#,
    );
    let rule = only(&rules);
    assert!(matches!(
        rule.limit.unwrap().algorithm,
        Algorithm::TokenBucket { burst: 7, .. }
    ));
    assert_eq!(rule.window.seconds(), 30);
    assert_eq!(
        (rule.on_store_error, rule.lease),
        (Some(OnStoreError::Deny), Some(false))
    );
    assert_eq!(*rule.value_to_metric, [true]);
    assert_eq!(
        serde_json::to_value(rule.metadata.as_deref()).unwrap(),
        serde_json::json!({"team": "x"})
    );
    let domain = &rules.domains["d"];
    let found = domain.find(&super::entries(&[("k", "abc")])).unwrap();
    assert_eq!(found.values.as_slice(), [CountedAs::Shared("a*")]);
}

/// As an xDS resource comes: no places, doubles for numbers, options in metadata.
#[test]
fn rules_without_text_compile_the_same_way() {
    let compile = |options: &[(&str, Kind)]| {
        let object = |fields: &[(&str, Kind)]| Struct {
            fields: fields
                .iter()
                .map(|(name, kind)| {
                    (
                        (*name).to_owned(),
                        Value {
                            kind: Some(kind.clone()),
                        },
                    )
                })
                .collect(),
        };
        let config = RateLimitConfig {
            domain: "d".into(),
            descriptors: vec![RateLimitDescriptor {
                key: "k".into(),
                rate_limit: Some(RateLimitPolicy {
                    unit: RateLimitUnit::Minute.into(),
                    requests_per_unit: 3,
                    ..RateLimitPolicy::default()
                }),
                metadata: Some(object(&[("sluicegate", Kind::StructValue(object(options)))])),
                ..RateLimitDescriptor::default()
            }],
            ..RateLimitConfig::default()
        };
        let update = Update {
            version: String::new(),
            configs: vec![config],
        };
        update.compile(&Defaults::default())
    };
    let text = |text: &str| Kind::StringValue(text.into());
    let (rules, _) = compile(&[("algorithm", text("token_bucket")), ("burst", Kind::NumberValue(9.0))]).unwrap();
    assert!(matches!(
        only(&rules).limit.unwrap().algorithm,
        Algorithm::TokenBucket { burst: 9, .. }
    ));
    let wrong = [
        ("algorithm", text("bucket")),
        ("burst", Kind::NumberValue(9.5)),
        ("bust", Kind::NumberValue(1.0)),
    ];
    let errors = compile(&wrong).unwrap_err().to_string();
    let expected = [
        "resource \"d\": d / k: unknown field \"bust\" in `metadata.sluicegate` (did you mean `burst`?)",
        "resource \"d\": d / k: `burst` must be a whole number (without quotes), not 9.5 (write a whole number (without quotes) here)",
        "resource \"d\": d / k: unknown algorithm \"bucket\" (one of: ",
    ];
    for expected in expected {
        assert!(errors.contains(expected), "{expected}\n{errors}");
    }
}

#[test]
fn a_domain_may_stand_in_several_files_if_merging_is_on() {
    let a = named(
        "a.yaml",
        "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day}}]\n",
    );
    let b = named(
        "b.yaml",
        "domain: d\ndescriptors: [{key: b, rate_limit: {unit: day}}]\n",
    );
    let merging = Defaults {
        merge_domains: true,
        ..Defaults::default()
    };
    let rules = load(&[a.clone(), b], &merging).unwrap();
    let domain = &rules.domains["d"];
    assert_eq!(super::find(domain, &[("a", "x")]), Some("a"));
    assert_eq!(super::find(domain, &[("b", "x")]), Some("b"));
    // The same key in both is an error all the same, and says where the first is.
    let again = named("c.yaml", &a.text);
    let errors = load(&[a, again], &merging).unwrap_err().to_string();
    assert!(
        errors.starts_with("c.yaml:2:21: d / a: this key and value stand on this level already: a.yaml:2"),
        "{errors}"
    );
}

#[test]
fn aliases_and_merge_keys_are_written_out() {
    let rules = rules(
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: &limit {unit: day, requests_per_unit: 5}\n  - key: b\n    rate_limit: *limit\n  - key: c\n    rate_limit:\n      <<: *limit\n      requests_per_unit: 6\n",
    );
    let limits: Vec<u32> = rules.rules.iter().map(|rule| rule.requests_per_unit).collect();
    assert_eq!(limits, [5, 5, 6]);
}

#[test]
fn json_and_a_byte_order_mark_are_fine() {
    let json =
        r#"{"domain": "d", "descriptors": [{"key": "k", "rate_limit": {"unit": "day", "requests_per_unit": 5}}]}"#;
    assert_eq!(rules(json).rules.len(), 1);
    assert_eq!(rules(&format!("\u{feff}{json}")).rules.len(), 1);
    let errors = try_rules("\u{feff}domain: d\ntypo: 1\n").unwrap_err();
    assert!(
        errors.to_string().starts_with("rules.yaml:2:1: d: unknown field"),
        "{errors}"
    );
    assert!(errors.render(true).contains("typo: 1"));
}

#[test]
fn the_example_admits_ten_a_minute_for_each_client() {
    let rules = config::example(&Defaults::default()).unwrap();
    let rule = only(&rules);
    assert_eq!(
        (&*rule.domain, &*rule.path, &*rule.name),
        ("demo", "remote_address", "per-client")
    );
    assert_eq!((rule.requests_per_unit, rule.window), (10, Window::of(Unit::Minute)));
}

/// Everything that the compiler knows of a file, each thing on its line.
const ALL: &str = r#"
domain: basic
ext_authz:
  default: true
  rate_limits:
    - actions: [{request_headers: {header_name: x-user, descriptor_key: key1}}]
descriptors:
  - {key: key1, rate_limit: {unit: second, requests_per_unit: 50}}
  - key: k
    value: "a\nb: unit=DAY"
    shadow_mode: true
    metadata: {team: "x\u2028"}
    rate_limit: {window: 30s, requests_per_unit: 2, name: n, algorithm: token_bucket, burst: 4, replaces: [{name: m}], on_store_error: deny, lease: false}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: key1, value: exempt}
  - {key: p, value: "/a*", share_threshold: true, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
"#;

#[test]
fn the_dump_is_a_line_for_each_rule_and_all_else_behind() {
    let rules = rules(ALL);
    let expected = "basic.key1: unit=SECOND requests_per_unit=50, shadow_mode: false, quota_mode: false, unit_multiplier: 1, algorithm: sliding_window, precision: 32\n\
        basic.k_a\\nb: unit=DAY: unit=SECOND requests_per_unit=2, shadow_mode: true, quota_mode: false, unit_multiplier: 30, algorithm: token_bucket, burst: 4, name: n, replaces: m, on_store_error: deny, lease: false, metadata: {\"team\":\"x\\u{2028}\"}\n\
        basic.free: unit=UNKNOWN requests_per_unit=0, shadow_mode: false, quota_mode: false, unlimited: true\n\
        basic.p_/a*: unit=DAY requests_per_unit=1, shadow_mode: false, quota_mode: false, unit_multiplier: 1, algorithm: sliding_window, precision: 32, share_threshold: /a*, detailed_metric: true\n\
        # basic.key1_exempt: no limit\n\
        # ext_authz: ";
    let dump = rules.dump();
    let (shown, mapping) = dump.split_at(expected.len());
    assert_eq!(shown, expected);
    assert!(mapping.contains("x-user") && mapping.lines().count() == 1, "{mapping}");
}

/// Replicas are compared by a hash of it, so the same file gives the same text, and no other file does.
#[test]
fn whatever_changes_a_rule_set_changes_its_dump() {
    let dump = rules(ALL).dump();
    assert_eq!(dump, rules(ALL).dump());
    for (from, to) in [
        ("x-user", "x-other"),
        ("  rate_limits:", "  domain_extension: elsewhere\n  rate_limits:"),
        ("team:", "group:"),
        (", share_threshold: true", ""),
        ("detailed_metric", "value_to_metric"),
        (", value: exempt", ", value: other"),
        ("requests_per_unit: 50", "requests_per_unit: 51"),
        ("value: \"/a*\"", "value: \"/b*\""),
    ] {
        assert!(ALL.contains(from), "{from}");
        assert_ne!(rules(&ALL.replace(from, to)).dump(), dump, "{from} -> {to}");
    }
}
