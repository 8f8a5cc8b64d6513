//! One target for each endpoint.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use prost::Message;
use sluicegate::admin::Health;
use sluicegate::admin::http::public;
use sluicegate::admin::json::JsonService;
use sluicegate::config::xds::Update;
use sluicegate::config::{Text, load};
use sluicegate::proto::envoy::service::auth::v3 as auth;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::proto::ratelimit::config::ratelimit::v3 as xds;
use sluicegate::rules::Defaults;
use sluicegate::service::rls::Caller;
use sluicegate::telemetry::ServiceKind;
use tonic::Code;
use tower::ServiceExt;

use crate::inputs::{broken, bytes, request};
use crate::{fuzz, services, wait};

const RULES: &str = r#"
domain: d
descriptors:
  - key: user
    detailed_metric: true
    rate_limit: {unit: minute, requests_per_unit: 3}
    descriptors:
      - {key: tenant, value: "a*", rate_limit: {window: 10s, requests_per_unit: 2, algorithm: token_bucket}}
      - {key: tenant, value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}
  - {key: tenant, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 1}}
"#;

const AUTHZ_RULES: &str = include_str!("authz.yaml");

#[test]
fn rules_yaml() {
    let pieces = prop::sample::select(vec![
        "domain",
        "descriptors",
        "key",
        "value",
        "rate_limit",
        "unit",
        "requests_per_unit",
        "ext_authz",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "&a ",
        "*a",
        "|",
        ">",
        "#",
        "!!",
        "?",
        "%",
        "\t",
        "\0",
        "é",
        "9999999999999999999",
        "-1",
        "1e999",
        "0x",
        "~",
        "true",
        "<<",
    ]);
    let inputs = prop_oneof![
        prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat().into_bytes()),
        broken(Just(RULES.as_bytes().to_vec())),
        broken(Just(AUTHZ_RULES.as_bytes().to_vec())),
    ];
    fuzz(&inputs, |input| {
        let yaml = String::from_utf8_lossy(&input);
        let text = Text {
            name: "rules.yaml".into(),
            text: yaml.as_ref().into(),
        };
        match load(&[text], &Defaults::default()) {
            Ok(rules) => {
                let dump = rules.dump();
                let lines = dump.lines().filter(|line| !line.starts_with("# "));
                prop_assert_eq!(lines.count(), rules.rules.len());
                prop_assert!(!dump.contains(|c: char| c.is_control() && c != '\n'));
            }
            Err(errors) => prop_assert!(errors.count() > 0 && !errors.render(true).is_empty()),
        }
        Ok(())
    });
}

#[test]
fn rate_limit_requests() {
    let services = services(RULES);
    let inputs = broken(request().prop_map(|request| request.encode_to_vec()));
    fuzz(&inputs, |input| {
        let Ok(request) = wire::RateLimitRequest::decode(input.as_slice()) else {
            return Ok(());
        };
        let descriptors = request.descriptors.len();
        match wait(services.rls.answer(ServiceKind::Rls, request, Caller::default())) {
            Ok(response) => prop_assert_eq!(response.statuses.len(), descriptors),
            Err(status) => {
                prop_assert_eq!(status.code(), Code::InvalidArgument);
                prop_assert!(!status.message().is_empty());
            }
        }
        Ok(())
    });
}

#[test]
fn authorization_requests() {
    let services = services(AUTHZ_RULES);
    let header = ("[a-z:-]{1,12}", "[ -~é]{0,20}");
    let path = prop_oneof!["/[a-z%./?&=;0-9+]{0,30}", "\\PC{0,20}"];
    let parts = (
        path,
        prop::collection::hash_map(header.0, header.1, 0..5),
        "[0-9a-f.:]{0,20}",
        bytes(),
    );
    let good = parts.prop_map(|(path, mut headers, address, body)| {
        headers.insert("x-api-key".into(), String::from_utf8_lossy(&body).into_owned());
        headers.insert("x-forwarded-for".into(), address);
        let http = auth::attribute_context::HttpRequest {
            method: "GET".into(),
            path,
            headers,
            host: "h".into(),
            ..Default::default()
        };
        let request = auth::attribute_context::Request {
            http: Some(http),
            ..Default::default()
        };
        let attributes = auth::AttributeContext {
            request: Some(request),
            ..Default::default()
        };
        let check = auth::CheckRequest {
            attributes: Some(attributes),
        };
        check.encode_to_vec()
    });
    fuzz(&broken(good), |input| {
        if let Ok(request) = auth::CheckRequest::decode(input.as_slice()) {
            let response = wait(services.authz.answer(&request, None)).expect("no overload");
            prop_assert!(response.status.is_some() || response.http_response.is_some());
        }
        Ok(())
    });
}

#[test]
fn resources_of_a_control_plane() {
    let rule = (
        "[a-z\0]{0,4}",
        "[a-z*]{0,4}",
        prop::option::of((any::<u32>(), -1..9_i32, any::<bool>())),
    );
    let leaf = rule.prop_map(|(key, value, limit)| xds::RateLimitDescriptor {
        key,
        value,
        rate_limit: limit.map(|(requests_per_unit, unit, unlimited)| xds::RateLimitPolicy {
            requests_per_unit,
            unit,
            unlimited,
            ..Default::default()
        }),
        ..Default::default()
    });
    let tree = leaf.prop_recursive(6, 24, 4, |inner| {
        ("[a-z]{1,3}", prop::collection::vec(inner, 0..4)).prop_map(|(key, descriptors)| xds::RateLimitDescriptor {
            key,
            descriptors,
            ..Default::default()
        })
    });
    let good = ("[a-z]{0,3}", prop::collection::vec(tree, 0..4)).prop_map(|(domain, descriptors)| {
        let config = xds::RateLimitConfig {
            name: domain.clone(),
            domain,
            descriptors,
        };
        config.encode_to_vec()
    });
    fuzz(&broken(good), |input| {
        if let Ok(config) = xds::RateLimitConfig::decode(input.as_slice()) {
            let update = Update {
                version: "1".into(),
                configs: vec![config],
            };
            if let Err(errors) = update.compile(&Defaults::default()) {
                prop_assert!(!errors.to_string().is_empty());
            }
        }
        Ok(())
    });
}

#[test]
fn json_bodies() {
    let router = public(
        Health::new(false),
        JsonService::new(services(RULES).rls).expect("descriptors"),
    );
    const GOOD: &str = r#"{"domain":"d","descriptors":[{"entries":[{"key":"user","value":"\u0000é"}],"hitsAddend":"2","limit":{"requestsPerUnit":1,"unit":"DAY"}}],"hitsAddend":1}"#;
    let inputs = prop_oneof![
        3 => broken(Just(GOOD.as_bytes().to_vec())),
        1 => bytes(),
        1 => (1..100_000_usize).prop_map(|depth| "[{\"a\":".repeat(depth).into_bytes()),
    ];
    fuzz(&inputs, |input| {
        let request = Request::post("/json").body(Body::from(input)).expect("a request");
        let answer = wait(router.clone().oneshot(request)).expect("infallible");
        let known = [
            StatusCode::OK,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
        ];
        prop_assert!(known.contains(&answer.status()), "{}", answer.status());
        let body = wait(to_bytes(answer.into_body(), 1 << 20)).expect("a body");
        prop_assert!(!body.is_empty());
        Ok(())
    });
}
