//! Answers to requests that a real Envoy does not send, or only when misconfigured.

use sluicegate::config::settings::OnOverload;
use sluicegate::engine::EngineOptions;
use sluicegate::mapping::FailureMode;
use sluicegate::proto::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use sluicegate::proto::envoy::service::auth::v3 as wire;
use sluicegate::telemetry::{Metrics, ServiceKind};
use tonic::Code;
use wire::check_response::HttpResponse;

use super::{check, http, service};

const RULES: &str = "
domain: d
ext_authz:
  rate_limits:
    - actions: [{ request_headers: { header_name: x-id, descriptor_key: id } }]
descriptors:
  - { key: id, rate_limit: { unit: hour, requests_per_unit: 2, name: per-id } }
";

fn denied(response: &wire::CheckResponse) -> Option<(i32, &str)> {
    match response.http_response.as_ref().expect("an answer") {
        HttpResponse::DeniedResponse(denied) => Some((denied.status.as_ref().expect("a status").code, &denied.body)),
        HttpResponse::OkResponse(_) => None,
    }
}

fn code(response: &wire::CheckResponse) -> i32 {
    response.status.as_ref().expect("a status").code
}

fn bad(metrics: &Metrics, reason: &str) -> u64 {
    metrics.bad_requests.with_label_values(&[reason]).get()
}

#[tokio::test]
async fn what_cannot_be_decided_is_answered_by_the_failure_mode_and_counted() {
    let no_attributes = wire::CheckRequest::default();
    let no_http = wire::CheckRequest {
        attributes: Some(wire::AttributeContext::default()),
    };
    let mut many = check("/", &[]);
    http(&mut many).headers = (0..1001).map(|n| (format!("h{n}"), String::new())).collect();
    let mut many_raw = check("/", &[]);
    http(&mut many_raw).header_map = Some(HeaderMap {
        headers: vec![HeaderValue::default(); 1001],
    });
    let long = check("/", &[("x-id", &"x".repeat((128 << 10) + 1))]);
    let mut elsewhere = check("/", &[("x-id", "1")]);
    let attributes = elsewhere.attributes.as_mut().expect("attributes");
    attributes
        .context_extensions
        .insert("domain".into(), "nowhere\n\u{1b}[31m".into());
    for (request, reason) in [
        (no_attributes, "no_attributes"),
        (no_http, "no_http"),
        (many, "too_large"),
        (many_raw, "too_large"),
        (long, "too_large"),
        (elsewhere, "unknown_domain"),
    ] {
        for mode in [FailureMode::Allow, FailureMode::Deny] {
            let (service, metrics) = service(RULES, mode, EngineOptions::default());
            let response = service.answer(&request, None).await.expect("an answer");
            match mode {
                FailureMode::Allow => assert_eq!((code(&response), denied(&response)), (0, None), "{reason}"),
                FailureMode::Deny => {
                    assert_eq!(code(&response), Code::Unavailable as i32);
                    assert_eq!(denied(&response).expect("denied").0, 503, "{reason}");
                }
            }
            assert_eq!(bad(&metrics, reason), 1, "{reason}");
            assert_eq!(metrics.service(ServiceKind::Authz).error.get(), 1);
            assert!(!response.dynamic_metadata.is_empty());
        }
    }
}

#[tokio::test]
async fn a_domains_own_failure_mode_comes_first() {
    let closed = RULES.replace("ext_authz:\n", "ext_authz:\n  failure_mode: deny\n");
    let (service, _) = service(&closed, FailureMode::Allow, EngineOptions::default());
    let long = check("/", &[("x-id", &"x".repeat((128 << 10) + 1))]);
    let response = service.answer(&long, None).await.expect("an answer");
    assert_eq!(denied(&response).expect("denied").0, 503);
}

#[tokio::test]
async fn without_rules_the_failure_mode_answers() {
    let (service, metrics) = service("", FailureMode::Deny, EngineOptions::default());
    let response = service.answer(&check("/", &[]), None).await.expect("an answer");
    assert_eq!(code(&response), Code::Unavailable as i32);
    assert_eq!(bad(&metrics, "no_configuration"), 1);
}

#[tokio::test]
async fn overload_is_told_to_the_caller_unless_it_lets_pass() {
    let full = |on_overload| EngineOptions {
        max_concurrent: 0,
        on_overload,
        ..EngineOptions::default()
    };
    let request = check("/", &[("x-id", "1")]);
    let (refusing, _) = service(RULES, FailureMode::Allow, full(OnOverload::Unavailable));
    let status = refusing.answer(&request, None).await.expect_err("overloaded");
    assert_eq!(status.code(), Code::Unavailable);
    let (allowing, _) = service(RULES, FailureMode::Deny, full(OnOverload::Allow));
    assert_eq!(denied(&allowing.answer(&request, None).await.expect("an answer")), None);
}

#[tokio::test]
async fn headers_may_come_as_bytes() {
    let (service, _) = service(RULES, FailureMode::Deny, EngineOptions::default());
    let raw = |values: &[&[u8]]| {
        let mut request = check("/", &[]);
        let header = |value: &&[u8]| HeaderValue {
            key: "X-Id".into(),
            raw_value: value.to_vec(),
            ..Default::default()
        };
        http(&mut request).header_map = Some(HeaderMap {
            headers: values.iter().map(header).collect(),
        });
        request
    };
    for (values, passes) in [
        (&[&b"\xff"[..]][..], true),
        (&[b"\xff"], true),
        (&[b"\xff"], false),
        // Another byte is another client; a repeated header is neither of its values.
        (&[b"\xfe"], true),
        (&[b"\xff", b"\xff"], true),
    ] {
        let response = service.answer(&raw(values), None).await.expect("an answer");
        assert_eq!(denied(&response).is_none(), passes, "{values:?}");
    }
}

#[tokio::test]
async fn metadata_is_text_numbers_and_truth_values() {
    use prost_types::{Struct, Value, value::Kind};
    let yaml = RULES.replace(
        "{ request_headers: { header_name: x-id, descriptor_key: id } }",
        "{ metadata: { metadata_key: { key: f, path: [{ key: a }, { key: b }] }, descriptor_key: id } }",
    );
    let rules = super::rules(&yaml);
    let mapped = |kind: Kind| {
        let leaf = Struct {
            fields: [("b".to_owned(), Value { kind: Some(kind) })].into(),
        };
        let outer = Value {
            kind: Some(Kind::StructValue(leaf)),
        };
        let mut request = check("/", &[]);
        request.attributes.as_mut().expect("attributes").metadata_context = Some(Metadata {
            filter_metadata: [(
                "f".to_owned(),
                Struct {
                    fields: [("a".to_owned(), outer)].into(),
                },
            )]
            .into(),
            ..Default::default()
        });
        let view = sluicegate::service::authz::View::of(&request, 10).expect("a view");
        let mapping = rules.ext_authz.resolve(&view).expect("a mapping");
        let descriptors = mapping.descriptors(&view, 1000).expect("short");
        descriptors.first().map(|d| d.entries[0].value.clone())
    };
    for (kind, expected) in [
        (Kind::StringValue("text".into()), Some("text")),
        (Kind::StringValue(String::new()), None),
        (Kind::NumberValue(42.0), Some("42")),
        (Kind::NumberValue(-1.5), Some("-1.5")),
        (Kind::NumberValue(1e300), Some(&*1e300.to_string())),
        (Kind::NumberValue(f64::NAN), Some("NaN")),
        (Kind::BoolValue(true), Some("true")),
        (Kind::NullValue(0), None),
        (Kind::StructValue(Struct::default()), None),
        (Kind::ListValue(prost_types::ListValue::default()), None),
    ] {
        assert_eq!(mapped(kind.clone()).as_deref(), expected, "{kind:?}");
    }
}

/// As Azure Application Gateway writes the header: with the client's port.
#[tokio::test]
async fn clients_are_told_apart_also_where_their_ports_are_named() {
    const BY_CLIENT: &str = "
domain: d
ext_authz:
  client_address: { xff_num_trusted_hops: 1 }
  rate_limits:
    - actions: [{ remote_address: {} }]
descriptors:
  - { key: remote_address, rate_limit: { unit: hour, requests_per_unit: 1 } }
";
    let (service, metrics) = service(BY_CLIENT, FailureMode::Deny, EngineOptions::default());
    let fallbacks = |reason: &str| metrics.edges.client_not_named.with_label_values(&[reason]).get();
    // (header, whether it is a client that has not been seen)
    for (forwarded, passes) in [
        ("203.0.113.7:51234, 10.0.0.7", true),
        ("203.0.113.7:51235, 10.0.0.7", false),
        ("203.0.113.7, 10.0.0.7", false),
        ("203.0.113.8:51234, 10.0.0.7", true),
        ("[2001:db8::1]:443, 10.0.0.7", true),
        ("2001:db8::1, 10.0.0.7", false),
    ] {
        let answer = service
            .answer(&check("/", &[("x-forwarded-for", forwarded)]), None)
            .await;
        let answer = answer.expect("an answer");
        assert_eq!(code(&answer) == 0, passes, "{forwarded}");
    }
    assert_eq!((fallbacks("no_address"), fallbacks("too_few")), (0, 0));
    // No client is named: all of them are the peer.
    for (forwarded, passes) in [
        ("unknown, 10.0.0.7", true),
        ("10.0.0.7", false),
        ("_a:1, 10.0.0.7", false),
    ] {
        let answer = service
            .answer(&check("/", &[("x-forwarded-for", forwarded)]), None)
            .await;
        assert_eq!(code(&answer.expect("an answer")) == 0, passes, "{forwarded}");
    }
    assert_eq!((fallbacks("no_address"), fallbacks("too_few")), (2, 1));
}
