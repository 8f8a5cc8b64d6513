//! Our subset of the API against a published full binding: what one writes, the other reads, both ways.

use envoy_types::pb::envoy::config::core::v3 as full_core;
use envoy_types::pb::envoy::service::auth::v3 as full_auth;
use envoy_types::pb::envoy::service::ratelimit::v3 as full;
use prost::Message;
use sluicegate::proto::envoy::config::core::v3 as core;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::auth::v3 as auth;
use sluicegate::proto::envoy::service::ratelimit::v3 as ours;

/// What `from` writes, `To` reads and writes again to the same bytes: no field was lost or renumbered.
fn crosses<To: Message + Default>(from: &impl Message) -> To {
    let bytes = from.encode_to_vec();
    let read = To::decode(bytes.as_slice()).expect("readable");
    // Maps have no order on the wire, so compare sizes there and bytes where there are none.
    assert_eq!(read.encoded_len(), bytes.len(), "a field was lost");
    read
}

fn our_request() -> ours::RateLimitRequest {
    let entry = |key: &str, value: &str| common::rate_limit_descriptor::Entry {
        key: key.into(),
        value: value.into(),
    };
    ours::RateLimitRequest {
        domain: "edge".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![entry("user", "alice"), entry("path", "")],
            limit: Some(common::rate_limit_descriptor::RateLimitOverride {
                requests_per_unit: 42,
                unit: 7,
                unit_multiplier: None,
            }),
            hits_addend: Some(0),
            is_negative_hits: true,
        }],
        hits_addend: 3,
    }
}

#[test]
fn requests_cross_both_ways() {
    let ours = our_request();
    let theirs: full::RateLimitRequest = crosses(&ours);
    assert_eq!(theirs.domain, "edge");
    assert_eq!(theirs.hits_addend, 3);
    let descriptor = &theirs.descriptors[0];
    assert_eq!(descriptor.entries[0].key, "user");
    assert_eq!(descriptor.entries[0].value, "alice");
    let limit = descriptor.limit.expect("limit");
    assert_eq!((limit.requests_per_unit, limit.unit), (42, 7));
    assert_eq!(descriptor.hits_addend.expect("hits").value, 0);
    assert!(descriptor.is_negative_hits);
    let back: ours::RateLimitRequest = crosses(&theirs);
    assert_eq!(back, ours);
}

#[test]
fn a_multiplier_newer_than_the_binding_uses_the_numbers_of_envoy_1_40() {
    // RateLimitOverride.unit_multiplier = 3 and RateLimitResponse.RateLimit.unit_multiplier = 4, both UInt32Value.
    let limit = common::rate_limit_descriptor::RateLimitOverride {
        requests_per_unit: 1,
        unit: 1,
        unit_multiplier: Some(30),
    };
    assert_eq!(limit.encode_to_vec(), [0x08, 1, 0x10, 1, 0x1a, 2, 0x08, 30]);
    let limit = ours::rate_limit_response::RateLimit {
        requests_per_unit: 1,
        unit: 1,
        name: String::new(),
        unit_multiplier: Some(30),
    };
    assert_eq!(limit.encode_to_vec(), [0x08, 1, 0x10, 1, 0x22, 2, 0x08, 30]);
}

#[test]
fn responses_cross_both_ways() {
    use ours::rate_limit_response::{DescriptorStatus, RateLimit};
    let header = core::HeaderValue {
        key: "retry-after".into(),
        value: "3".into(),
        raw_value: vec![],
    };
    let metadata = prost_types::Struct {
        fields: [(
            "rule".to_owned(),
            prost_types::Value {
                kind: Some(prost_types::value::Kind::StringValue("per-user".into())),
            },
        )]
        .into(),
    };
    let ours = ours::RateLimitResponse {
        overall_code: 2,
        statuses: vec![DescriptorStatus {
            code: 2,
            current_limit: Some(RateLimit {
                requests_per_unit: 10,
                unit: 7,
                name: "per-user".into(),
                unit_multiplier: None,
            }),
            limit_remaining: 4,
            duration_until_reset: Some(prost_types::Duration {
                seconds: 2,
                nanos: 500_000_000,
            }),
        }],
        response_headers_to_add: vec![header.clone()],
        request_headers_to_add: vec![header],
        raw_body: b"{}".to_vec(),
        dynamic_metadata: metadata.encode_to_vec(),
    };
    let theirs: full::RateLimitResponse = crosses(&ours);
    assert_eq!(theirs.overall_code, 2);
    let status = &theirs.statuses[0];
    assert_eq!(status.limit_remaining, 4);
    let limit = status.current_limit.as_ref().expect("limit");
    assert_eq!(
        (limit.requests_per_unit, limit.unit, limit.name.as_str()),
        (10, 7, "per-user")
    );
    let reset = status.duration_until_reset.as_ref().expect("reset");
    assert_eq!((reset.seconds, reset.nanos), (2, 500_000_000));
    assert_eq!(theirs.response_headers_to_add[0].key, "retry-after");
    assert_eq!(theirs.raw_body, b"{}");
    let theirs_metadata = theirs.dynamic_metadata.as_ref().expect("metadata");
    assert_eq!(theirs_metadata.encode_to_vec(), metadata.encode_to_vec());
    let back: ours::RateLimitResponse = crosses(&theirs);
    assert_eq!(back, ours);
}

#[test]
fn every_unit_has_the_number_of_the_full_binding() {
    use full::rate_limit_response::rate_limit::Unit as Full;
    use ours::rate_limit_response::rate_limit::Unit as Ours;
    for unit in [
        Ours::Second,
        Ours::Minute,
        Ours::Hour,
        Ours::Day,
        Ours::Week,
        Ours::Month,
        Ours::Year,
    ] {
        let full = Full::try_from(i32::from(unit)).expect("known");
        assert_eq!(full.as_str_name(), unit.as_str_name());
    }
}

#[test]
fn authorization_checks_cross_both_ways() {
    use full_auth::attribute_context as parts;
    let address = full_core::Address {
        address: Some(full_core::address::Address::SocketAddress(full_core::SocketAddress {
            address: "10.0.0.7".into(),
            port_specifier: Some(full_core::socket_address::PortSpecifier::PortValue(443)),
            ..Default::default()
        })),
    };
    let theirs = full_auth::CheckRequest {
        attributes: Some(full_auth::AttributeContext {
            source: Some(parts::Peer {
                address: Some(address),
                principal: "spiffe://mesh/ns/a".into(),
                ..Default::default()
            }),
            request: Some(parts::Request {
                time: None,
                http: Some(parts::HttpRequest {
                    id: "1".into(),
                    method: "GET".into(),
                    headers: [("x-user".to_owned(), "alice".to_owned())].into(),
                    path: "/a?b=c".into(),
                    host: "example.org".into(),
                    scheme: "https".into(),
                    size: -1,
                    protocol: "HTTP/2".into(),
                    raw_body: b"x".to_vec(),
                    ..Default::default()
                }),
            }),
            context_extensions: [("domain".to_owned(), "edge".to_owned())].into(),
            ..Default::default()
        }),
    };
    let ours: auth::CheckRequest = crosses(&theirs);
    let attributes = ours.attributes.as_ref().expect("attributes");
    let http = attributes
        .request
        .as_ref()
        .and_then(|request| request.http.as_ref())
        .expect("http");
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.size),
        ("GET", "/a?b=c", -1)
    );
    assert_eq!(http.headers["x-user"], "alice");
    assert_eq!(attributes.context_extensions["domain"], "edge");
    assert_eq!(
        attributes.source.as_ref().expect("source").principal,
        "spiffe://mesh/ns/a"
    );
    let back: full_auth::CheckRequest = crosses(&ours);
    assert_eq!(back, theirs);
}

#[test]
fn authorization_answers_cross_both_ways() {
    let header = |key: &str| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: key.into(),
            value: "1".into(),
            raw_value: vec![],
        }),
        append_action: 2,
        ..Default::default()
    };
    let denied = auth::DeniedHttpResponse {
        status: Some(sluicegate::proto::envoy::r#type::v3::HttpStatus { code: 429 }),
        headers: vec![header("retry-after")],
        body: "no".into(),
    };
    let ours = auth::CheckResponse {
        status: Some(sluicegate::proto::google::rpc::Status {
            code: 8,
            message: "over".into(),
            details: vec![],
        }),
        http_response: Some(auth::check_response::HttpResponse::DeniedResponse(denied)),
        dynamic_metadata: Vec::new(),
    };
    let theirs: full_auth::CheckResponse = crosses(&ours);
    let Some(full_auth::check_response::HttpResponse::DeniedResponse(denied)) = &theirs.http_response else {
        panic!("denied");
    };
    assert_eq!(denied.status.as_ref().expect("status").code, 429);
    assert_eq!(denied.headers[0].append_action, 2);
    assert_eq!(crosses::<auth::CheckResponse>(&theirs), ours);
    let ok = auth::OkHttpResponse {
        headers: vec![header("x-remaining")],
        headers_to_remove: vec!["x-ratelimit-limit".into()],
        response_headers_to_add: vec![header("ratelimit")],
        ..Default::default()
    };
    let ours = auth::CheckResponse {
        status: Some(sluicegate::proto::google::rpc::Status::default()),
        http_response: Some(auth::check_response::HttpResponse::OkResponse(ok)),
        dynamic_metadata: Vec::new(),
    };
    let theirs: full_auth::CheckResponse = crosses(&ours);
    assert_eq!(crosses::<auth::CheckResponse>(&theirs), ours);
}

/// Bucket ids stay bytes in ours: the same on the wire.
#[test]
fn quotas_cross_both_ways() {
    use envoy_types::pb::envoy::service::rate_limit_quota::v3 as full_quota;
    use envoy_types::pb::envoy::r#type::v3 as full_type;
    use full_quota::rate_limit_quota_response::bucket_action::BucketAction as Kind;
    use sluicegate::proto::envoy::service::rate_limit_quota::v3 as quota;

    let bucket: std::collections::HashMap<_, _> = [("name".to_owned(), "all".to_owned())].into();
    let theirs = full_quota::RateLimitQuotaUsageReports {
        domain: "edge".into(),
        bucket_quota_usages: vec![full_quota::rate_limit_quota_usage_reports::BucketQuotaUsage {
            bucket_id: Some(full_quota::BucketId { bucket: bucket.clone() }),
            time_elapsed: Some(envoy_types::pb::google::protobuf::Duration { seconds: 5, nanos: 7 }),
            num_requests_allowed: 11,
            num_requests_denied: 12,
        }],
    };
    let ours: quota::RateLimitQuotaUsageReports = crosses(&theirs);
    let usage = &ours.bucket_quota_usages[0];
    assert_eq!(
        quota::BucketId::decode(usage.bucket_id.clone()).expect("an id").bucket,
        bucket
    );
    assert_eq!((usage.num_requests_allowed, usage.num_requests_denied), (11, 12));
    assert_eq!(
        usage.time_elapsed.as_ref().map(|time| (time.seconds, time.nanos)),
        Some((5, 7))
    );

    let tokens = full_type::TokenBucket {
        max_tokens: 9,
        tokens_per_fill: Some(envoy_types::pb::google::protobuf::UInt32Value { value: 0 }),
        fill_interval: Some(envoy_types::pb::google::protobuf::Duration { seconds: 1, nanos: 0 }),
    };
    let strategy = full_type::rate_limit_strategy::Strategy::TokenBucket(tokens);
    let assigned = full_quota::rate_limit_quota_response::bucket_action::QuotaAssignmentAction {
        assignment_time_to_live: Some(envoy_types::pb::google::protobuf::Duration { seconds: 3, nanos: 0 }),
        rate_limit_strategy: Some(full_type::RateLimitStrategy {
            strategy: Some(strategy),
        }),
    };
    let theirs = full_quota::RateLimitQuotaResponse {
        bucket_action: vec![full_quota::rate_limit_quota_response::BucketAction {
            bucket_id: Some(full_quota::BucketId { bucket }),
            bucket_action: Some(Kind::QuotaAssignmentAction(assigned)),
        }],
    };
    let ours: quota::RateLimitQuotaResponse = crosses(&theirs);
    let back: full_quota::RateLimitQuotaResponse = crosses(&ours);
    assert_eq!(back, theirs);
}
