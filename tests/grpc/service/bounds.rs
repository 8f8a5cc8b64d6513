//! What bounds the service: overload, connections, a drain.

use std::time::Duration;

use sluicegate::config::settings::{OnOverload, RedisSettings, StoreKind};
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::OnStoreError;
use tonic::{Code, Request};

use super::{RULES, ok};
use crate::server::{Server, request};
use crate::support::redis::Redis;

#[tokio::test]
async fn a_drain_flips_health_first_and_finishes_what_is_under_way() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 5s}}]";
    let server = Server::start_with(rules, |settings| {
        settings.limits.drain_delay = Duration::from_millis(300)
    })
    .await;
    let channel = tonic::transport::Endpoint::new(server.url())
        .expect("url")
        .connect()
        .await
        .expect("connected");
    let mut health = HealthClient::new(channel);
    for service in ["", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService"] {
        let answer = health
            .check(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .expect("known")
            .into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut client = server.client().await;
    client
        .should_rate_limit(request("d", &[&[("k", "x")]]))
        .await
        .expect("first");
    let mut waiting = client.clone();
    // Held back for about a second: it is under way when the drain begins, and ends after it.
    let held = tokio::spawn(async move {
        let mut request = Request::new(request("d", &[&[("k", "x")]]));
        request.set_timeout(Duration::from_secs(5));
        waiting.should_rate_limit(request).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = health
        .check(HealthCheckRequest {
            service: "ratelimit".into(),
        })
        .await
        .expect("known")
        .into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    assert_eq!(
        held.await
            .expect("no panic")
            .expect("answered")
            .into_inner()
            .overall_code,
        ok()
    );
    stopping.await.expect("no panic");
}

/// Two requests while only one may be worked on, and the store answers none of them.
async fn one_too_many(on_overload: OnOverload) -> Result<wire::RateLimitResponse, tonic::Status> {
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 100000}}]";
    let redis = Redis::start();
    let server = Server::start_with(rules, |settings| {
        settings.limits.max_concurrent = 1;
        settings.limits.on_overload = on_overload;
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&redis.url()).expect("a good URL"));
        settings.store.timeout = Duration::from_secs(30);
        settings.store.on_store_error = OnStoreError::Deny;
    })
    .await;
    let ask = |value: &'static str| {
        let client = server.client();
        async move {
            let request = request("d", &[&[("k", value)], &[("k", "z")]]);
            let answer = client.await.should_rate_limit(request).await;
            answer.map(tonic::Response::into_inner)
        }
    };
    // Until the store decides: nothing else lets it pass.
    while ask("warm").await.expect("answered").overall_code != ok() {}
    redis.process.signal("STOP");
    let (one, two) = (std::pin::pin!(ask("one")), std::pin::pin!(ask("two")));
    let (at_once, waits) = match futures::future::select(one, two).await {
        futures::future::Either::Left((answer, other)) => (answer, other),
        futures::future::Either::Right((answer, other)) => (answer, other),
    };
    redis.process.signal("CONT");
    assert_eq!(waits.await.expect("answered").overall_code, ok());
    at_once
}

#[tokio::test]
async fn overload_is_answered_at_once_as_configured() {
    let refused = one_too_many(OnOverload::Unavailable).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    let passed = one_too_many(OnOverload::Allow).await.expect("passed");
    assert_eq!((passed.overall_code, passed.statuses.len()), (ok(), 2));
}

#[tokio::test]
async fn an_answer_that_waits_for_its_turn_keeps_nobody_out() {
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 5s}}]";
    let server = Server::start_with(rules, |settings| settings.limits.max_concurrent = 1).await;
    let mut client = server.client().await;
    let ask = |value| request("d", &[&[("k", value)]]);
    client.should_rate_limit(ask("x")).await.expect("at once");
    let mut waiting = client.clone();
    let held = waiting.should_rate_limit(ask("x"));
    let held = std::pin::pin!(held);
    let others = async {
        for _ in 0..20 {
            client.should_rate_limit(ask("y")).await.expect("answered");
            tokio::task::yield_now().await;
        }
    };
    let (held, ()) = tokio::join!(held, async {
        tokio::time::timeout(Duration::from_secs(60), others)
            .await
            .expect("answered")
    });
    assert_eq!(held.expect("answered").into_inner().overall_code, ok());
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_bound_are_closed_at_once() {
    let server = Server::start_with(RULES, |settings| settings.limits.max_connections = 1).await;
    let mut first = server.client().await;
    let ask = || request("edge", &[&[("tenant", "t")]]);
    first.should_rate_limit(ask()).await.expect("the first is served");
    // The second's handshake is answered by the kernel; what it asks fails without waiting.
    let mut second = server.client().await;
    let refused = tokio::time::timeout(Duration::from_secs(20), second.should_rate_limit(ask())).await;
    refused.expect("it hears of it").expect_err("no place");
    first.should_rate_limit(ask()).await.expect("the first is still served");
    drop(first);
    let start = std::time::Instant::now();
    while let Err(error) = second.should_rate_limit(ask()).await {
        assert!(start.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
}
