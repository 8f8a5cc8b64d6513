//! The `ext_authz` section: what it may say, and what is wrong with what it says.

mod cases;

use std::borrow::Cow;
use std::net::IpAddr;

use sluicegate::config::load;
use sluicegate::mapping::{Absent, Attributes, FailureMode, HitsFrom, NoMapping};
use sluicegate::rules::Defaults;

use self::cases::CASES;
use super::errors::{lines, refused};
use super::{named, rules, text};

/// A rules file with this section, and rules for the keys `a` and `a / b`.
fn with(section: &str) -> String {
    let section: String = section.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "domain: d\ndescriptors:\n  - key: a\n    rate_limit: {{unit: second, requests_per_unit: 1}}\n    descriptors:\n      \
         - key: b\n        rate_limit: {{unit: second, requests_per_unit: 1}}\next_authz:\n{section}"
    )
}

/// Everything that can be said, said once.
const EVERYTHING: &str = r#"
domain: shop
descriptors:
  - {key: k, rate_limit: {unit: second, requests_per_unit: 1}}
ext_authz:
  default: true
  domain_extension: ratelimit_domain
  client_address: {xff_num_trusted_hops: 2, skip_xff_append: true, ipv6_prefix_len: 56}
  normalize_path: true
  failure_mode: deny
  answers:
    denied_status: 503
    headers: [ratelimit, retry_after]
    body: false
    upstream_header: X-Quota
    dynamic_metadata: true
  rate_limits:
    - match:
        host: [shop.example, "*.shop.example"]
        path_prefix: /api/
        method: [GET, POST]
        headers:
          - {name: X-Tier, string_match: {prefix: gold, ignore_case: true}, invert_match: true}
      hits_addend: {header: {name: X-Cost, default: 2, max: 50}}
      actions:
        - request_headers: {header_name: X-Api-Key, descriptor_key: k, skip_if_absent: true}
    - match: {path: [/a, /b]}
      hits_addend: 0
      actions: [{remote_address: {descriptor_key: k}}]
    - match: {path_template: "/users/{id}"}
      hits_addend: {number: 3}
      actions: [{masked_remote_address: {v4_prefix_mask_len: 24, v6_prefix_mask_len: 48, descriptor_key: k}}]
    - hits_addend: {content_length: {bytes_per_hit: 1024, default: 1, max: 9}}
      actions: [{generic_key: {descriptor_key: k, descriptor_value: v}}]
    - actions:
        - header_value_match:
            descriptor_key: k
            descriptor_value: v
            expect_match: false
            headers: [{name: ":path", string_match: {safe_regex: {regex: "/[a-z]+"}}}, {name: x, present_match: false}]
    - actions: [{query_parameters: {query_parameter_name: q, descriptor_key: k, default_value: none}}]
    - actions:
        - query_parameter_value_match:
            descriptor_key: k
            descriptor_value: v
            query_parameters: [{name: q, string_match: {suffix: ""}}, {name: r}, {name: s, present_match: false}]
    - actions: [{path: {descriptor_key: k}}]
    - actions: [{path: {descriptor_key: k, segments: 2}}]
    - actions: [{path: {descriptor_key: k, template: ["/users/{id}", /about]}}]
    - actions: [{path: {descriptor_key: k, template: "/users/{id}", variable: id}}]
    - actions: [{method: {descriptor_key: k}}]
    - actions: [{host: {descriptor_key: k}}]
    - actions: [{source_principal: {descriptor_key: k, skip_if_absent: true}}]
    - actions: [{jwt_claim: {claim: sub, descriptor_key: k}}]
    - actions: [{jwt_claim: {claim: [realm, user], payload_in_metadata: p, filter: f, descriptor_key: k}}]
    - actions: [{metadata: {metadata_key: {key: f, path: [{key: a}, {key: b}]}, descriptor_key: k}}]
    - actions: [{context_extension: {name: tier, descriptor_key: k, default_value: free}}]
"#;

#[test]
fn everything_that_can_be_said_is_taken() {
    let rules = rules(EVERYTHING);
    let mapping = rules.ext_authz.get("shop").expect("a mapping");
    assert_eq!(mapping.lists.len(), 18);
    assert_eq!(mapping.client.xff_num_trusted_hops, 2);
    assert!(mapping.client.skip_xff_append && mapping.normalize_path);
    assert_eq!(mapping.client.ipv6_prefix_len, 56);
    assert_eq!(mapping.failure_mode, Some(FailureMode::Deny));
    let answers = &mapping.answers;
    assert_eq!((answers.denied_status, answers.body), (503, false));
    assert_eq!(
        (answers.x_ratelimit, answers.ietf, answers.retry_after),
        (false, true, true)
    );
    assert_eq!(answers.upstream_header.as_deref(), Some("x-quota"));
    assert!(answers.dynamic_metadata);
    assert_eq!(
        mapping.lists[0].hits,
        Some(HitsFrom::Header {
            name: "x-cost".into(),
            default: 2,
            max: 50
        })
    );
    assert_eq!(mapping.lists[0].actions[0].absent, Absent::SkipEntry);
    assert_eq!(mapping.lists[1].hits, Some(HitsFrom::Fixed(0)));
    assert_eq!(mapping.lists[17].actions[0].absent, Absent::Value("free".into()));
}

#[test]
fn what_is_not_said_has_a_careful_default() {
    let rules = rules(&with(
        "rate_limits:\n  - actions:\n      - remote_address: {descriptor_key: a}\n      - method: {descriptor_key: b}",
    ));
    let mapping = rules.ext_authz.get("d").expect("a mapping");
    assert_eq!(mapping.client.xff_num_trusted_hops, 0, "no header is believed");
    assert_eq!(mapping.client.ipv6_prefix_len, 64);
    assert!(mapping.normalize_path);
    assert_eq!(mapping.failure_mode, None);
    assert_eq!(mapping.answers.denied_status, 429);
    assert_eq!(mapping.lists[0].hits, None);
    assert_eq!(mapping.lists[0].actions[0].absent, Absent::SkipList);
}

/// One error each: the section, then `line:column path | part of the message | part of the help`. The section begins on
/// line 9, three columns in.
#[test]
fn every_error_has_its_place_and_says_how_to_fix_it() {
    for (section, expected) in CASES {
        let errors = refused(&with(section));
        let mut parts = expected.split(" | ");
        assert_eq!(errors.len(), 1, "{section}: {errors:#?}");
        let mut found = errors[0].split(" | ");
        assert_eq!(found.next(), parts.next(), "{section}: {errors:#?}");
        for part in parts {
            let text = found.next().unwrap_or_default();
            assert!(text.contains(part), "{section}: {part:?} is not in {text:?}");
        }
    }
}

#[test]
fn all_errors_of_a_section_come_in_one_run() {
    let errors = refused(&with(
        "failure_mode: x\nanswers: {body: 1}\nrate_limits:\n  - actions: [{path: {template: a}}, {generic_key: {}}]\n  - {}",
    ));
    assert_eq!(errors.len(), 5, "{errors:#?}");
}

#[test]
fn too_many_lists_or_actions_are_refused() {
    let action = "{remote_address: {descriptor_key: a}}";
    let lists = vec![format!("{{actions: [{action}]}}"); 257].join(", ");
    let errors = refused(&with(&format!("rate_limits: [{lists}]")));
    assert!(
        errors[0].contains("`rate_limits` has more than 256 entries"),
        "{errors:#?}"
    );
    let actions = vec![action; 33].join(", ");
    let errors = refused(&with(&format!("rate_limits: [{{actions: [{actions}]}}]")));
    assert!(errors[0].contains("`actions` has more than 32 entries"), "{errors:#?}");
}

/// A request that holds a context extension, and nothing else.
struct Named(Option<(&'static str, &'static str)>);

impl Attributes for Named {
    fn method(&self) -> &str {
        ""
    }
    fn host(&self) -> &str {
        ""
    }
    fn path(&self) -> &str {
        ""
    }
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn source_address(&self) -> Option<IpAddr> {
        None
    }
    fn source_principal(&self) -> &str {
        ""
    }
    fn context_extension(&self, key: &str) -> Option<&str> {
        self.0.filter(|(name, _)| *name == key).map(|(_, value)| value)
    }
    fn metadata(&self, _: &str, _: &[Box<str>]) -> Option<Cow<'_, str>> {
        None
    }
    fn size(&self) -> Option<u64> {
        None
    }
}

fn of(domain: &str, more: &str) -> String {
    format!(
        "domain: {domain}\ndescriptors:\n  - {{key: a, rate_limit: {{unit: second, requests_per_unit: 1}}}}\n\
         ext_authz:\n  rate_limits: [{{actions: [{{remote_address: {{descriptor_key: a}}}}]}}]\n{more}"
    )
}

#[test]
fn several_files_need_one_default_at_most() {
    let defaults = Defaults::default();
    let two = [named("1.yaml", &of("one", "")), named("2.yaml", &of("two", ""))];
    let loaded = load(&two, &defaults).expect("fine");
    assert_eq!(loaded.ext_authz.len(), 2);
    let nothing = Named(None);
    assert_eq!(loaded.ext_authz.resolve(&nothing).err(), Some(NoMapping::NoDomain));
    let named_two = Named(Some(("domain", "two")));
    assert_eq!(&*loaded.ext_authz.resolve(&named_two).expect("two").domain, "two");
    let unknown = Named(Some(("domain", "three")));
    assert!(matches!(
        loaded.ext_authz.resolve(&unknown),
        Err(NoMapping::UnknownDomain { .. })
    ));

    let default = |name: &str| of(name, "  default: true\n");
    let both = [named("1.yaml", &default("one")), named("2.yaml", &default("two"))];
    let errors = lines(&load(&both, &defaults).expect_err("two defaults"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("`default: true` stands in the `ext_authz` section of another domain already"));

    let one = load(&[text(&of("one", ""))], &defaults).expect("fine");
    assert_eq!(&*one.ext_authz.resolve(&nothing).expect("the only one").domain, "one");
    let none = rules("domain: d\n");
    assert_eq!(none.ext_authz.resolve(&nothing).err(), Some(NoMapping::NoSections));
}

#[test]
fn a_domain_in_two_files_has_one_section() {
    let merging = Defaults {
        merge_domains: true,
        ..Defaults::default()
    };
    let rules_only = "domain: one\ndescriptors:\n  - {key: b, rate_limit: {unit: second, requests_per_unit: 1}}\n";
    let files = [named("1.yaml", rules_only), named("2.yaml", &of("one", ""))];
    assert_eq!(load(&files, &merging).expect("fine").ext_authz.len(), 1);
    let second = of("one", "").replace("key: a,", "key: c,");
    let files = [named("1.yaml", &of("one", "")), named("2.yaml", &second)];
    let errors = lines(&load(&files, &merging).expect_err("two sections"));
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("has an `ext_authz` section in another file already"));
}
