//! Our mapping against Envoy's own: the same `rate_limits` stand in a route and in a rules file, a real Envoy sends both
//! what it made of them (to a rate limit service) and what we make them of (to ext_authz), and they are the same.

use sluicegate::config::{Text, load};
use sluicegate::model::Descriptor;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use sluicegate::proto::envoy::service::auth::v3::CheckRequest;
use sluicegate::rules::{Defaults, RuleSet};
use sluicegate::service::authz::View;

use crate::support::{
    envoy::{Envoy, PATIENT},
    recorder::Recorder,
};

/// In the words of Envoy's routes, which are ours.
const RATE_LIMITS: &[&str] = &[
    "{actions: [{remote_address: {}}]}",
    "{actions: [{masked_remote_address: {v4_prefix_mask_len: 20, v6_prefix_mask_len: 56}}]}",
    "{actions: [{masked_remote_address: {v6_prefix_mask_len: 128}}]}",
    "{actions: [{generic_key: {descriptor_value: everything}}]}",
    "{actions: [{generic_key: {descriptor_key: k, descriptor_value: v}}, {remote_address: {}}]}",
    "{actions: [{request_headers: {header_name: x-a, descriptor_key: a}}]}",
    "{actions: [{request_headers: {header_name: X-A, descriptor_key: a}}, {request_headers: {header_name: x-b, descriptor_key: b}}]}",
    "{actions: [{generic_key: {descriptor_value: g}}, {request_headers: {header_name: x-b, descriptor_key: b, skip_if_absent: true}}]}",
    "{actions: [{request_headers: {header_name: ':path', descriptor_key: path}}]}",
    "{actions: [{request_headers: {header_name: ':method', descriptor_key: method}}]}",
    "{actions: [{request_headers: {header_name: ':authority', descriptor_key: host}}]}",
    "{actions: [{query_parameters: {query_parameter_name: q, descriptor_key: q}}]}",
    "{actions: [{generic_key: {descriptor_value: g}}, {query_parameters: {query_parameter_name: r, descriptor_key: r, skip_if_absent: true}}]}",
    "{actions: [{header_value_match: {descriptor_value: exact, headers: [{name: x-m, string_match: {exact: One}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: exact-i, headers: [{name: x-m, string_match: {exact: One, ignore_case: true}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: prefix, headers: [{name: x-m, string_match: {prefix: O}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: suffix, headers: [{name: x-m, string_match: {suffix: E, ignore_case: true}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: contains, headers: [{name: x-m, string_match: {contains: ne}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: regex, headers: [{name: x-m, string_match: {safe_regex: {regex: 'O.|t[a-z]+'}}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: not, headers: [{name: x-m, string_match: {exact: One}, invert_match: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: empty, headers: [{name: x-m, string_match: {exact: ''}, treat_missing_header_as_empty: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: not-empty, headers: [{name: x-m, string_match: {exact: ''}, treat_missing_header_as_empty: true, invert_match: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: present, headers: [{name: x-m, present_match: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: absent, headers: [{name: x-m, present_match: false}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: absent2, headers: [{name: x-m, present_match: true, invert_match: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: present2, headers: [{name: x-m, present_match: false, invert_match: true}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: bare, headers: [{name: x-m}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: none, expect_match: false, headers: [{name: x-m, string_match: {exact: One}}]}}]}",
    "{actions: [{header_value_match: {descriptor_value: both, headers: [{name: x-m, string_match: {prefix: 'O'}}, {name: x-a}]}}]}",
    "{actions: [{header_value_match: {descriptor_key: hk, descriptor_value: key, headers: [{name: x-m}]}}]}",
    "{actions: [{query_parameter_value_match: {descriptor_value: q, query_parameters: [{name: q, string_match: {exact: 'a b'}}]}}]}",
    "{actions: [{query_parameter_value_match: {descriptor_value: q-there, query_parameters: [{name: q, present_match: true}]}}]}",
    "{actions: [{query_parameter_value_match: {descriptor_value: no-q, expect_match: false, query_parameters: [{name: q, present_match: true}]}}]}",
    "{actions: [{query_parameter_value_match: {descriptor_value: q-absent, query_parameters: [{name: q, present_match: false}]}}]}",
    "{actions: [{metadata: {descriptor_key: md, default_value: none, metadata_key: {key: nobody, path: [{key: a}]}}}]}",
    "{actions: [{metadata: {descriptor_key: md, metadata_key: {key: nobody, path: [{key: a}]}}}]}",
];

/// Rules for all their keys.
const KEYS: &[&[&str]] = &[
    &["remote_address"],
    &["masked_remote_address"],
    &["generic_key", "b"],
    &["generic_key", "r"],
    &["k", "remote_address"],
    &["a", "b"],
    &["path"],
    &["method"],
    &["host"],
    &["q"],
    &["header_match"],
    &["hk"],
    &["query_match"],
    &["md"],
];

type Headers = &'static [(&'static str, &'static str)];

const REQUESTS: &[(&str, Headers)] = &[
    ("/", &[]),
    ("/a//b/%2e%2E?x=1", &[("x-a", "1"), ("x-b", "2"), ("x-m", "One")]),
    ("/?q=a%20b&r=%", &[("x-a", ""), ("x-m", "one")]),
    ("/?q=a+b&q=second", &[("x-b", "b"), ("x-m", "two")]),
    ("/?q", &[("x-m", "t1"), ("x-a", "a, b")]),
    ("/?q=&r=%C3%BC", &[("x-m", "Once")]),
    ("/?Q=1&%71=2", &[("x-m", "")]),
    ("/?q=1=2&r=a;b", &[("x-m", "NONE"), ("x-a", "\u{e9}")]),
    ("/?a&&q=%41%zz", &[("x-b", " spaced ")]),
];

fn rules(hops: &str) -> RuleSet {
    let rule = "rate_limit: {unit: second, requests_per_unit: 1}";
    let mut yaml = String::from("domain: demo\ndescriptors:\n");
    let mut known: Vec<&str> = Vec::new();
    for keys in KEYS {
        if known.contains(&keys[0]) {
            continue;
        }
        known.push(keys[0]);
        yaml += &format!("  - key: {}\n    {rule}\n    descriptors:\n", keys[0]);
        for below in KEYS
            .iter()
            .filter(|other| other[0] == keys[0])
            .filter_map(|other| other.get(1))
        {
            yaml += &format!("      - {{key: {below}, {rule}}}\n");
        }
    }
    yaml += &format!("ext_authz:\n  client_address: {{ipv6_prefix_len: 128, {hops}}}\n  rate_limits:\n");
    for list in RATE_LIMITS {
        yaml += &format!("    - {list}\n");
    }
    let text = Text {
        name: "rules.yaml".into(),
        text: yaml.into(),
    };
    load(&[text], &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// An Envoy whose ext_authz door asks by both filters.
fn envoy(recorder: &Recorder, changes: &[(&str, &str)]) -> Envoy {
    let filter = "metadata_context_namespaces: [envoy.filters.http.jwt_authn]\n";
    let both = format!(
        "{filter}                  - name: envoy.filters.http.ratelimit
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
                      domain: demo
                      timeout: 20s
                      rate_limit_service:
                        transport_api_version: V3
                        grpc_service: {{ envoy_grpc: {{ cluster_name: sluicegate }} }}
"
    );
    let route = "check_settings: { context_extensions: { domain: demo } }\n";
    let limited = format!(
        "{route}                      rate_limits: [{}]\n",
        RATE_LIMITS.join(", ")
    );
    let mut all = vec![(filter, both.as_str()), (route, limited.as_str()), PATIENT];
    all.extend(changes);
    Envoy::start(recorder.port, &all)
}

type Pairs = Vec<Vec<(String, String)>>;

fn theirs(descriptors: &[RateLimitDescriptor]) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("only text was sent");
    // Where all actions skip their entry Envoy sends a descriptor without any, which no rule can count.
    let descriptors = descriptors.iter().filter(|d| !d.entries.is_empty());
    descriptors
        .map(|d| d.entries.iter().map(|e| (text(&e.key), text(&e.value))).collect())
        .collect()
}

fn ours(descriptors: &[Descriptor]) -> Pairs {
    descriptors
        .iter()
        .map(|d| d.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect())
        .collect()
}

fn mapped(rules: &RuleSet, check: &CheckRequest) -> Vec<Descriptor> {
    let view = View::of(check, 1000).expect("Envoy sends an HTTP request");
    let mapping = rules.ext_authz.resolve(&view).expect("the domain's mapping");
    mapping.descriptors(&view, 1 << 17).expect("short values")
}

/// Sends the request and compares what both filters were told.
async fn compare(envoy: &Envoy, recorder: &Recorder, rules: &RuleSet, path: &str, headers: &[(&str, &str)]) {
    let answer = envoy.authz_client().get(path, headers).await;
    assert_eq!(answer.status, 200, "{path} {headers:?}");
    let (checks, limits) = recorder.take();
    assert_eq!((checks.len(), limits.len()), (1, 1), "{path} {headers:?}");
    let mapped = mapped(rules, &checks[0]);
    let (ours, theirs) = (ours(&mapped), theirs(&limits[0].descriptors));
    assert_eq!(ours, theirs, "ours, Envoy's: {path} {headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_those_that_envoys_own_actions_make() {
    let recorder = Recorder::start().await;
    let rules = rules("xff_num_trusted_hops: 0");
    let text = envoy(&recorder, &[]);
    for (path, headers) in REQUESTS {
        compare(&text, &recorder, &rules, path, headers).await;
    }
    drop(text);
    // The same where the filter sends headers as bytes.
    let raw = (
        "failure_mode_allow: true",
        "failure_mode_allow: true\n                      encode_raw_headers: true",
    );
    let bytes = envoy(&recorder, &[raw]);
    for (path, headers) in REQUESTS {
        compare(&bytes, &recorder, &rules, path, headers).await;
    }
}

const FORWARDED: &[&str] = &[
    "1.1.1.1",
    "1.1.1.1,2.2.2.2",
    "1.1.1.1, 2.2.2.2,3.3.3.3",
    "6.6.6.6 , 1.1.1.1 ,\t2.2.2.2 , 2001:db8:1:2:3:4:5:6",
    "2001:db8::1, fe80::1",
    "unknown, 1.1.1.1",
    "1.1.1.1, unknown",
    ",,",
    "1.1.1.1,",
    "256.1.1.1, 1.2.3",
    "01.1.1.1, 1.1.1.1",
    "2001:db8::1, 2001:0DB8:0:0:1:0:0:1",
];

#[tokio::test(flavor = "multi_thread")]
async fn trusted_hops_are_counted_as_envoy_counts_them() {
    const TRUST: &str = "stat_prefix: front_ext_authz\n                use_remote_address: true";
    let recorder = Recorder::start().await;
    for (envoys, ours) in [
        ("use_remote_address: true", "xff_num_trusted_hops: 0"),
        (
            "use_remote_address: true\n                xff_num_trusted_hops: 1",
            "xff_num_trusted_hops: 1",
        ),
        (
            "use_remote_address: true\n                xff_num_trusted_hops: 2",
            "xff_num_trusted_hops: 2",
        ),
        (
            "use_remote_address: true\n                xff_num_trusted_hops: 2\n                skip_xff_append: true",
            "xff_num_trusted_hops: 2, skip_xff_append: true",
        ),
        (
            "use_remote_address: false\n                xff_num_trusted_hops: 1",
            "xff_num_trusted_hops: 1",
        ),
        // There Envoy believes the last address itself, which is one hop.
        (
            "use_remote_address: false",
            "xff_num_trusted_hops: 1, skip_xff_append: true",
        ),
    ] {
        let changed = format!("stat_prefix: front_ext_authz\n                {envoys}");
        let envoy = envoy(&recorder, &[(TRUST, &changed)]);
        let rules = rules(ours);
        compare(&envoy, &recorder, &rules, "/", &[]).await;
        for header in FORWARDED {
            compare(&envoy, &recorder, &rules, "/", &[("x-forwarded-for", header)]).await;
        }
    }
}
