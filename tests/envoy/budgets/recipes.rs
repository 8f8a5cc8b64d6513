//! The recipes of docs/budgets.md, as they stand there.

use http::StatusCode;

use super::{CHAT, Scene, documented, route, rules};
use crate::support::envoy::{AUTHZ_FAILURE_DENIES, FAILURE_DENIES, PATIENT};

/// The page's rules that have this text, in the domain of `envoy.yaml`.
fn documented_rules(text: &str) -> String {
    documented("domain: llm", text, 0).replace("domain: llm", "domain: demo")
}

/// An answer without usage costs its estimate, an error nothing: whatever reads the usage.
async fn the_unknown_costs_the_estimate(scene: &Scene) {
    assert_eq!(scene.ask("carl", "/silent").await.status, StatusCode::OK);
    scene.wait_for_left("carl", 500).await;
    assert_eq!(scene.ask("dora", "/error").await.status, StatusCode::BAD_GATEWAY);
    scene.wait_for_left("dora", 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_events_to_metadata() {
    let filters = documented("http_filters:", "json_to_metadata", 16);
    let scene = Scene::with_filters(&rules("10m"), &filters, &route("'llm.usage' in metadata")).await;
    for (user, path) in [("anna", "/json/350"), ("ben", "/stream/350")] {
        assert_eq!(scene.burst(user, path, 20).await, 2);
        scene.wait_for_left(user, 300).await;
    }
    // The first event says what the question cost, the last one what the answer did.
    assert_eq!(scene.burst("emil", "/messages/350", 20).await, 2);
    scene.wait_for_left("emil", 200).await;
    the_unknown_costs_the_estimate(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_limits_each_with_its_own_weights() {
    let filter = documented("http_filters:", "ai_protocol_manager", 16);
    let scene = Scene::with_filters(&documented_rules("team-day"), &filter, &route("hold_of['team-day']")).await;
    let ask = async |user: &str, team: &str, path: &str| {
        let headers = [("x-user", user), ("x-team", team), ("content-type", "application/json")];
        scene.envoy.client().post(path, &headers, CHAT).await.status
    };
    assert_eq!(ask("anna", "red", "/cached/100").await, StatusCode::OK);
    scene.wait_for_left("anna", 800).await;
    // 60 at 1, 40 at a tenth, 100 at 4.
    scene.wait_for_left_of("team", "red", 10_000 - 464).await;
    scene.wait_for_left_of("model", "m", 4800).await;
    // Nobody knows what it cost: each rule charges what it held.
    assert_eq!(ask("ben", "blue", "/silent").await, StatusCode::OK);
    scene.wait_for_left("ben", 500).await;
    scene.wait_for_left_of("team", "blue", 8000).await;
    scene.wait_for_left_of("model", "m", 4300).await;
    // What the user's limit denies holds nothing of the others.
    assert_eq!(ask("ben", "blue", "/cached/200").await, StatusCode::OK);
    scene.wait_for_left("ben", 100).await;
    scene.wait_for_left_of("model", "m", 3900).await;
    for _ in 0..3 {
        assert_eq!(ask("ben", "blue", "/cached/200").await, StatusCode::TOO_MANY_REQUESTS);
    }
    scene.wait_for_left_of("model", "m", 3900).await;
    scene.wait_for_left_of("team", "blue", 8000 - 964).await;
}

/// What Envoy Gateway makes of a policy with `cost`; and the same whose question brings no number, as Agent Router's.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_ask_and_charge() {
    let rules = "domain: demo
descriptors:
  - key: httproute/default/models/rule/0
    value: httproute/default/models/rule/0
    descriptors:
      - key: rule-0-match-0
        rate_limit: { requests_per_unit: 1000, unit: minute, hold: { ttl: 30s, adaptive: { first: 500 } } }
";
    let filters = documented("http_filters:", "json_to_metadata", 16)
        .replace("prompt_tokens", "total_tokens")
        .replace("key: input,", "key: total,");
    let written = route("rule-0-match-0");
    let question = "                              hits_addend: { number: 0 }\n";
    assert!(written.contains(question), "{written}");
    for route in [&written, &written.replace(question, "")] {
        let scene = Scene::with_filters(rules, &filters, route).await;
        assert_eq!(scene.burst("anna", "/json/500", 20).await, 2);
        scene.wait_for_charges(1000).await;
        assert_eq!(scene.burst("ben", "/stream/500", 20).await, 2);
        scene.wait_for_charges(2000).await;
        assert_eq!(
            scene.ask("ben", "/json/500").await.status,
            StatusCode::TOO_MANY_REQUESTS
        );
    }
}

/// What ext_authz holds is settled by the limiter's filter behind it, which asks nothing before the request.
#[tokio::test(flavor = "multi_thread")]
async fn ext_authz_holds_and_the_limiter_settles() {
    const FILTER: &str = "                      metadata_context_namespaces: [envoy.filters.http.jwt_authn]\n";
    const ROUTE: &str = "                          check_settings: { context_extensions: { domain: demo } }\n";
    let (_, filter) = documented("http_filters:", "envoy_grpc: { cluster_name: sluicegate } }", 16)
        .split_once('\n')
        .map(|(start, rest)| (start.to_owned(), rest.replace("domain: llm", "domain: demo")))
        .expect("a filter");
    let settles = route("key: envoy.filters.http.ext_authz");
    let (_, settles) = settles.split_once('\n').expect("a route");
    let (filter, settles) = (format!("{FILTER}{filter}"), format!("{ROUTE}{settles}"));
    let changes = [
        PATIENT,
        FAILURE_DENIES,
        AUTHZ_FAILURE_DENIES,
        (FILTER, filter.as_str()),
        (ROUTE, settles.as_str()),
    ];
    let mut scene = Scene::start(&documented_rules("ext_authz:"), "", &[], &changes).await;
    let ask = async |scene: &Scene, user: &str, path: &str| {
        let headers = [("x-user", user)];
        scene.envoy.authz_client().post(path, &headers, CHAT).await.status
    };
    assert_eq!(ask(&scene, "anna", "/header/450").await, StatusCode::OK);
    scene.wait_for_left("anna", 550).await;
    let line = scene.envoy.wait_for_access(&["/header/450", "status=200"]);
    assert!(
        line.contains("\"hold\":500") && line.contains("\"hold_id\":\""),
        "{line}"
    );
    // Neither what was too low nor what is unknown is free; what was denied and what failed is.
    assert_eq!(ask(&scene, "anna", "/header/600").await, StatusCode::OK);
    scene.wait_for_left("anna", 0).await;
    assert_eq!(ask(&scene, "anna", "/header/1").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&scene, "ben", "/silent").await, StatusCode::OK);
    scene.wait_for_left("ben", 500).await;
    assert_eq!(ask(&scene, "ben", "/error").await, StatusCode::BAD_GATEWAY);
    scene.wait_for_left("ben", 500).await;
    let metrics = scene.metrics().await;
    assert!(
        metrics.contains("sluicegate_holds_total{result=\"made\"} 4\n"),
        "{metrics}"
    );
    scene.wait_for_charges(450 + 600 + 500).await;
}

/// A client chooses `max_tokens`: by no number does it get around its limit.
#[tokio::test(flavor = "multi_thread")]
async fn no_estimate_removes_the_limit() {
    let filter = documented("http_filters:", "ai_protocol_manager", 16);
    let scene = Scene::with_filters(&rules("10m"), &filter, &route("envoy.ai.token_usage")).await;
    let ask = async |user: &str, path: &str, most: &str| {
        let headers = [("x-user", user), ("content-type", "application/json")];
        let body = CHAT.replace("400", most);
        scene.envoy.client().post(path, &headers, &body).await.status
    };
    for (user, most) in [
        ("anna", "1000000000000"),
        ("ben", "-5"),
        ("carl", "\"many\""),
        ("dora", "1e300"),
    ] {
        // Alone it passes, and is charged what it cost; then the rest is held by one request at a time, and runs out.
        assert_eq!(ask(user, "/json/350", most).await, StatusCode::OK, "{user}");
        scene.wait_for_left(user, 650).await;
        assert_eq!(ask(user, "/json/700", most).await, StatusCode::OK, "{user}");
        scene.wait_for_left(user, 0).await;
        assert_eq!(
            ask(user, "/json/1", most).await,
            StatusCode::TOO_MANY_REQUESTS,
            "{user}"
        );
    }
}
