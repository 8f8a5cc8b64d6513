//! No CheckRequest whatever, and no bytes in place of one, end in anything but an answer.

use proptest::prelude::*;
use std::sync::LazyLock;

use prost::Message;
use sluicegate::engine::EngineOptions;
use sluicegate::mapping::FailureMode;
use sluicegate::proto::envoy::config::core::v3::{HeaderMap, HeaderValue};
use sluicegate::proto::envoy::service::auth::v3::CheckRequest;
use sluicegate::rules::RuleSet;
use sluicegate::service::authz::{AuthzService, View};

use super::{check, http, rules, service};

/// Every kind of action and of condition.
const EVERYTHING: &str = r#"
domain: d
descriptors:
  - { key: k, rate_limit: { unit: hour, requests_per_unit: 1000000 } }
ext_authz:
  client_address: { xff_num_trusted_hops: 1 }
  answers: { upstream_header: x-quota, dynamic_metadata: true }
  rate_limits:
    - hits_addend: { header: { name: x-cost } }
      actions: [{ request_headers: { header_name: x-id, descriptor_key: k } }]
    - hits_addend: { content_length: { bytes_per_hit: 3 } }
      actions: [{ remote_address: { descriptor_key: k } }]
    - actions: [{ masked_remote_address: { descriptor_key: k, v4_prefix_mask_len: 0, v6_prefix_mask_len: 1 } }]
    - match: { host: "*.example", path_prefix: /a, method: [GET, PUT], headers: [{ name: x-m }] }
      actions: [{ generic_key: { descriptor_key: k, descriptor_value: v } }]
    - match: { path_template: "/a/{x}/**" }
      actions: [{ path: { descriptor_key: k, template: ["/{y}", "/a/{y}/**"], variable: y } }]
    - actions: [{ path: { descriptor_key: k } }]
    - actions: [{ path: { descriptor_key: k, segments: 2 } }]
    - actions: [{ query_parameters: { query_parameter_name: q, descriptor_key: k } }]
    - actions:
        - header_value_match:
            descriptor_key: k
            descriptor_value: v
            headers:
              - { name: x-m, string_match: { safe_regex: { regex: "(a+)+b|é.*" } } }
              - { name: x-n, string_match: { suffix: B, ignore_case: true }, invert_match: true }
    - actions:
        - query_parameter_value_match:
            descriptor_key: k
            descriptor_value: v
            query_parameters: [{ name: q, string_match: { contains: a } }]
    - actions: [{ method: { descriptor_key: k } }]
    - actions: [{ host: { descriptor_key: k } }]
    - actions: [{ source_principal: { descriptor_key: k } }]
    - actions: [{ jwt_claim: { claim: [a, b], descriptor_key: k } }]
    - actions: [{ context_extension: { name: e, descriptor_key: k } }]
"#;

static SERVICE: LazyLock<AuthzService> =
    LazyLock::new(|| service(EVERYTHING, FailureMode::Deny, EngineOptions::default()).0);
static RULES: LazyLock<RuleSet> = LazyLock::new(|| rules(EVERYTHING));

/// Asks, and checks what every answer has to be like.
fn answer(request: &CheckRequest) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let response = runtime.block_on(SERVICE.answer(request, None)).expect("an answer");
    assert!(response.status.is_some() && response.http_response.is_some());
    let bytes = response.encode_to_vec();
    assert!(bytes.len() < 64 << 10, "an answer of {} bytes", bytes.len());
}

/// Text that means something to some part of the mapping, and any other.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a/%.?&=#:,*\\[\\]é0-9f -]{0,40}",
        ".{0,20}",
        "([0-9]{1,3}[.,: ]){0,6}",
        Just("application/grpc".to_owned()),
        Just("%".repeat(5000)),
        Just("/..".repeat(2000)),
        Just("a".repeat(30_000)),
        Just(",".repeat(5000)),
        Just("\0\u{7f}\u{202e}\n".to_owned()),
    ]
}

fn header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        Just("x-id"),
        Just("x-m"),
        Just("x-n"),
        Just("x-cost"),
        Just("content-length"),
        Just("content-type"),
        Just("x-forwarded-for"),
        Just("x-ratelimit-\u{e9}"),
        Just("x-ratelimit-limit"),
        Just(""),
    ];
    (name.prop_map(str::to_owned), text())
}

fn request() -> impl Strategy<Value = CheckRequest> {
    let headers = prop::collection::vec(header(), 0..6);
    let raw = prop::collection::vec((header(), prop::collection::vec(any::<u8>(), 0..30)), 0..4);
    (text(), text(), text(), text(), any::<i64>(), headers, raw).prop_map(
        |(path, host, method, peer, size, headers, raw)| {
            let mut request = check(&path, &[]);
            let http = http(&mut request);
            (http.host, http.method, http.size) = (host, method, size);
            http.headers = headers.into_iter().collect();
            http.header_map = Some(HeaderMap {
                headers: raw
                    .into_iter()
                    .map(|((key, value), raw_value)| HeaderValue { key, value, raw_value })
                    .collect(),
            });
            let attributes = request.attributes.as_mut().expect("attributes");
            attributes.context_extensions.insert("e".into(), peer.clone());
            attributes.source.as_mut().expect("a source").principal = peer;
            request
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_request_is_answered(request in request()) {
        answer(&request);
        // And mapped within its bounds, always the same way.
        let mapping = RULES.ext_authz.get("d").expect("a mapping");
        let view = View::of(&request, 1000).expect("a view");
        let descriptors = mapping.descriptors(&view, 1 << 17).expect("short");
        prop_assert!(descriptors.len() <= mapping.lists.len());
        for descriptor in &descriptors {
            prop_assert_eq!(descriptor.entries.len(), 1);
            prop_assert!(descriptor.hits_addend.is_none_or(|hits| (1..=u64::from(u32::MAX)).contains(&hits)));
        }
        prop_assert_eq!(&descriptors, &mapping.descriptors(&view, 1 << 17).expect("short"));
        let longest = descriptors.iter().map(|d| d.entries[0].value.len()).max().unwrap_or(0);
        if longest > 0 {
            prop_assert!(mapping.descriptors(&view, longest - 1).is_err(), "the bound is a bound");
        }
    }

    /// Bytes that begin as a request and go on as anything.
    #[test]
    fn any_bytes_are_a_request_or_none(request in request(), at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..12), cut in any::<bool>()) {
        let mut wire = request.encode_to_vec();
        let at = at.index(wire.len());
        for (place, byte) in wire.iter_mut().skip(at).zip(&bytes) {
            *place = *byte;
        }
        if cut {
            wire.truncate(at);
        }
        if let Ok(request) = CheckRequest::decode(wire.as_slice()) {
            answer(&request);
        }
        if let Ok(request) = CheckRequest::decode(bytes.as_slice()) {
            answer(&request);
        }
    }
}
