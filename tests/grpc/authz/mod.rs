//! ext_authz without a network: answers, bad input, properties.

mod hostile;
mod mapping;
mod service;

use std::num::NonZeroUsize;
use std::sync::Arc;

use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions};
use sluicegate::mapping::FailureMode;
use sluicegate::model::{Clock, ManualClock};
use sluicegate::proto::envoy::config::core::v3::{Address, SocketAddress, address};
use sluicegate::proto::envoy::service::auth::v3 as wire;
use sluicegate::rules::{Defaults, RuleSet};
use sluicegate::service::AnswerOptions;
use sluicegate::service::authz::AuthzService;
use sluicegate::store::MemoryStore;
use sluicegate::telemetry::Metrics;
use wire::attribute_context::{HttpRequest, Peer, Request};

fn rules(yaml: &str) -> RuleSet {
    let text = Text {
        name: "rules.yaml".into(),
        text: yaml.into(),
    };
    load(&[text], &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
}

/// A service in memory; time stands still.
fn service(yaml: &str, failure_mode: FailureMode, options: EngineOptions) -> (AuthzService, Arc<Metrics>) {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000_000_000_000));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let keys = NonZeroUsize::new(10_000).expect("not zero");
    let store = Arc::new(MemoryStore::new(keys, Arc::clone(&clock)));
    let engine = Engine::new(store, None, options, Arc::clone(&clock), Arc::clone(&metrics));
    if !yaml.is_empty() {
        engine.activate(Arc::new(rules(yaml)), 1);
    }
    let answers = Arc::new(AnswerOptions::default());
    let service = AuthzService::new(Arc::new(engine), answers, failure_mode, Arc::clone(&metrics), clock);
    (service, metrics)
}

/// What Envoy sends for a GET.
fn check(path: &str, headers: &[(&str, &str)]) -> wire::CheckRequest {
    let socket = SocketAddress {
        address: "10.0.0.7".into(),
        ..Default::default()
    };
    let http = HttpRequest {
        method: "GET".into(),
        path: path.into(),
        host: "shop.example".into(),
        headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..Default::default()
    };
    wire::CheckRequest {
        attributes: Some(wire::AttributeContext {
            source: Some(Peer {
                address: Some(Address {
                    address: Some(address::Address::SocketAddress(socket)),
                }),
                ..Default::default()
            }),
            request: Some(Request {
                time: None,
                http: Some(http),
            }),
            ..Default::default()
        }),
    }
}

fn http(check: &mut wire::CheckRequest) -> &mut HttpRequest {
    let attributes = check.attributes.as_mut().expect("attributes");
    let request = attributes.request.as_mut().expect("a request");
    request.http.as_mut().expect("HTTP")
}
