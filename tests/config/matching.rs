//! Which rule applies: exact, then the most specific wildcard, then the key alone; only at the last entry; no way back.

use std::fmt::Write;

use sluicegate::rules::{CountedAs, RuleSet};

use super::{entries, find, rules};

/// Entries, and the path of the rule that applies.
type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
/// What it is called, the pattern of a number, and a request that the seventh matches.
type Shape = (&'static str, fn(usize) -> String, &'static str);

const TREE: &str = r#"
domain: d
descriptors:
  - key: user
    value: alice
    rate_limit: {unit: hour, requests_per_unit: 5}
    descriptors:
      - {key: path, value: /login, rate_limit: {unit: hour, requests_per_unit: 1}}
      - {key: path, rate_limit: {unit: hour, requests_per_unit: 3}}
  - {key: user, rate_limit: {unit: hour, requests_per_unit: 2}}
  - {key: user, value: root}
  - key: host
    value: "*"
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: host
    value: "*.example.com"
    rate_limit: {unit: hour, requests_per_unit: 2}
  - key: host
    value: "api.*.example.com"
    rate_limit: {unit: hour, requests_per_unit: 3}
    descriptors:
      - {key: path, value: "/v1/*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 4}}
  - key: host
    value: api.x.example.com
    rate_limit: {unit: hour, requests_per_unit: 5}
  - {key: a_b, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: a, value: b_c, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: empty, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: "star*", value: "lit*eral", rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: "star*", value: "lit*", share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 1}}
"#;

#[test]
fn the_tree_is_walked_as_described() {
    let rules = rules(TREE);
    let domain = &rules.domains["d"];
    let cases: &[Case<'_>] = &[
        (&[("user", "alice")], Some("user_alice")),
        (&[("user", "bob")], Some("user")),
        (&[("user", "")], Some("user")),
        (&[("user", "Alice")], Some("user")),
        (&[("USER", "alice")], None),
        (&[("user", "alice"), ("path", "/login")], Some("user_alice.path_/login")),
        (&[("user", "alice"), ("path", "/x")], Some("user_alice.path")),
        // The limit stands on the last entry only, and the last entry must be reached.
        (&[("user", "alice"), ("path", "/x"), ("more", "y")], None),
        (&[("user", "bob"), ("path", "/x")], None),
        (&[("path", "/x")], None),
        (&[], None),
        // An exact node without a limit shadows the key's default: no way back.
        (&[("user", "root")], None),
        // The most specific wildcard, after the exact value.
        (&[("host", "x")], Some("host_*")),
        (&[("host", "www.example.com")], Some("host_*.example.com")),
        (&[("host", "api.y.example.com")], Some("host_api.*.example.com")),
        (&[("host", "api.x.example.com")], Some("host_api.x.example.com")),
        // Exact has no children, and its wildcard sibling is not tried.
        (&[("host", "api.x.example.com"), ("path", "/v1/a")], None),
        (
            &[("host", "api.y.example.com"), ("path", "/v1/a")],
            Some("host_api.*.example.com.path_/v1/*"),
        ),
        // Keys and values are compared apart.
        (&[("a_b", "c")], Some("a_b")),
        (&[("a", "b_c")], Some("a_b_c")),
        (&[("a", "b")], None),
        (&[("empty", "")], Some("empty")),
        // A star in a key is a star; in a value it matches itself exactly first.
        (&[("star*", "lit*eral")], Some("star*_lit*eral")),
        (&[("star*", "literal")], Some("star*_lit*eral")),
        (&[("star*", "litmus")], Some("star*_lit*")),
        (&[("starry", "litmus")], None),
    ];
    for (pairs, expected) in cases {
        assert_eq!(find(domain, pairs), *expected, "{pairs:?}");
    }
}

#[test]
fn shared_counters_are_named_by_their_pattern() {
    let rules = rules(TREE);
    let domain = &rules.domains["d"];
    let shared = |pairs: &[(&str, &str)]| {
        let found = domain.find(&entries(pairs)).map(|found| found.values.to_vec());
        found.unwrap_or_default()
    };
    assert_eq!(
        shared(&[("host", "api.y.example.com"), ("path", "/v1/a")]),
        [CountedAs::Own, CountedAs::Shared("/v1/*")]
    );
    assert_eq!(shared(&[("host", "www.example.com")]), [CountedAs::Own]);
    // Whoever sends the pattern's own text gets no counter of his own by it.
    assert_eq!(shared(&[("star*", "lit*")]), [CountedAs::Shared("lit*")]);
}

#[test]
fn an_unknown_domain_has_no_rules() {
    assert!(!rules(TREE).domains.contains_key("e"));
}

/// Looks into hash maps for one lookup.
fn probes(rules: &RuleSet, pairs: &[(&str, &str)]) -> (Option<String>, usize) {
    let mut probes = 0;
    let domain = &rules.domains["d"];
    let found = domain.find_probed(&entries(pairs), &mut || probes += 1);
    (found.map(|found| found.rules[0].path.to_string()), probes)
}

fn many(count: usize, value: impl Fn(usize) -> String) -> RuleSet {
    let line = |i| {
        let value = value(i);
        format!("  - {{key: k, value: \"{value}\", rate_limit: {{unit: hour, requests_per_unit: 1}}}}\n")
    };
    let lines: String = (0..count).map(line).collect();
    rules(&format!("domain: d\ndescriptors:\n{lines}"))
}

/// The number of looks is the same for 10 rules as for 10,000, whatever kind they are.
#[test]
fn a_lookup_costs_the_same_among_ten_thousand_rules() {
    let shapes: [Shape; 6] = [
        ("exact", |i| format!("v{i:05}"), "v00007"),
        ("prefix", |i| format!("tenant-{i:05}-*"), "tenant-00007-x"),
        (
            "suffix",
            |i| format!("*.tenant-{i:05}.example"),
            "www.tenant-00007.example",
        ),
        ("both", |i| format!("/v1/{i:05}/*/{i:05}"), "/v1/00007/users/00007"),
        ("between", |i| format!("*tenant-{i:05}*"), "www.tenant-00007.example"),
        (
            "between, twice",
            |i| format!("/api/*/{i:05}/*/{i:05}-x*"),
            "/api/v1/00007/y/00007-x",
        ),
    ];
    for (shape, value, request) in shapes {
        let few = probes(&many(10, value), &[("k", request)]);
        let all = probes(&many(10_000, value), &[("k", request)]);
        assert_eq!(few, all, "{shape}");
        assert_eq!(all.0, Some(format!("k_{}", value(7))), "{shape}");
        assert!(all.1 <= 2 + 2 * request.len(), "{shape}: {} probes", all.1);
        let nothing = probes(&many(10_000, value), &[("k", "something else")]);
        assert_eq!(nothing.0, None, "{shape}");
    }
}

/// Ten levels among ten thousand rules: two looks for each entry.
#[test]
fn a_lookup_costs_its_depth() {
    let mut yaml = "domain: d\ndescriptors:\n".to_owned();
    for branch in 0..1000 {
        for level in 0..10 {
            let indent = "  ".repeat(2 * level + 1);
            let field = "  ".repeat(2 * level + 2);
            let value = if level == 0 { branch } else { level };
            writeln!(yaml, "{indent}- key: k{level}\n{field}value: v{value}").unwrap();
            writeln!(yaml, "{field}rate_limit: {{unit: hour, requests_per_unit: 1}}").unwrap();
            if level < 9 {
                writeln!(yaml, "{field}descriptors:").unwrap();
            }
        }
    }
    let rules = rules(&yaml);
    assert_eq!(rules.rules.len(), 10_000);
    let keys: Vec<String> = (0..10).map(|level| format!("k{level}")).collect();
    let values: Vec<String> = (0..10)
        .map(|level| format!("v{}", if level == 0 { 500 } else { level }))
        .collect();
    let pairs: Vec<(&str, &str)> = keys
        .iter()
        .zip(&values)
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    for depth in 1..=10 {
        let (found, probes) = probes(&rules, &pairs[..depth]);
        assert!(found.is_some());
        assert_eq!(probes, 2 * depth);
    }
}
