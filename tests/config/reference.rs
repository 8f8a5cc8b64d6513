//! Files as they are published, for envoyproxy/ratelimit and in our own documentation.

use super::rules;

/// The shapes that published configurations of envoyproxy/ratelimit have.
const PUBLISHED: &str = r#"---
# a comment
domain: edge
descriptors:
  - key: kind
    value: login
    rate_limit:
      replaces:
        - name: burst_rule
        - name: nobody
      unit: minute
      requests_per_unit: 4
  - key: from
    value: proxy
    descriptors:
      - key: to
        value: backend-1
        rate_limit:
          replaces: [{name: burst_rule}]
          unit: Hour
          requests_per_unit: 2
      - key: to
        value: banned
        rate_limit:
          name: ban_rule
          unit: minute
          requests_per_unit: 0
  - key: tier
    rate_limit: {unit: DAY, requests_per_unit: 2}
    descriptors:
      - key: colour
        rate_limit:
          name: burst_rule
          unit: week
          requests_per_unit: 3
        shadow_mode: true
      - key: free
        rate_limit:
          unlimited: true
          unit: ""
      - key: nothing
        descriptors:
  - key: plain
    detailed_metric: true
    rate_limit:
      unit: year
      requests_per_unit: 2
  - key: service
    value: svc*v2
    quota_mode: true
    share_threshold: false
    rate_limit: {unit: month, requests_per_unit: 1}
    metadata:
      owner: {name: "team"}
"#;

#[test]
fn files_of_the_reference_load_unchanged() {
    let rules = rules(PUBLISHED);
    let limits: Vec<_> = rules
        .rules
        .iter()
        .map(|rule| (&*rule.path, rule.window.unit.name(), rule.requests_per_unit))
        .collect();
    assert_eq!(
        limits,
        [
            ("kind_login", "minute", 4),
            ("from_proxy.to_backend-1", "hour", 2),
            ("from_proxy.to_banned", "minute", 0),
            ("tier", "day", 2),
            ("tier.colour", "week", 3),
            ("tier.free", "second", 0),
            ("plain", "year", 2),
            ("service_svc*v2", "month", 1),
        ]
    );
    let empty = super::rules("domain: later\ndescriptors:\n");
    assert_eq!((empty.domains.len(), empty.rules.len()), (1, 0));
}

/// How blocks begin that are no rules.
const ENVOYS: [&str; 5] = [
    "typed_per_filter_config:",
    "http_filters:",
    "apiVersion:",
    "remoteRateLimit:",
    "services:",
];

/// Every YAML block of the documentation is a rules file, or its `descriptors`.
#[test]
fn the_examples_in_the_documentation_are_rules() {
    let pages = [
        include_str!("../../docs/rules.md"),
        include_str!("../../docs/budgets.md"),
        include_str!("../../docs/ext_authz.md"),
        include_str!("../../docs/rlqs.md"),
        include_str!("../../README.md"),
    ];
    let blocks: Vec<&str> = pages
        .iter()
        .flat_map(|page| page.split("```yaml\n").skip(1))
        .filter_map(|rest| rest.split("```").next())
        // Envoy's part, and what makes it; `tests/envoy` runs it.
        .filter(|block| !ENVOYS.iter().any(|start| block.starts_with(start)))
        .collect();
    assert!(blocks.len() >= 4);
    for block in blocks {
        let domain = if block.contains("domain:") { "" } else { "domain: d\n" };
        assert!(!rules(&format!("{domain}{block}")).rules.is_empty(), "{block}");
    }
}
