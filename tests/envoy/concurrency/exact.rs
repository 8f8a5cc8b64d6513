//! Never more in flight than slots, and every slot comes back.

use std::time::Duration;

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};

use super::{SLOTS, Scene, documented, documented_in, front, in_redis, limits, one_limit, passed_of, rules};
use crate::support::{
    envoy::{AUTHZ_FAILURE_DENIES, PATIENT},
    redis::Redis,
    sluicegate::Sluicegate,
    upstream::Upstream,
};

/// What gives back a slot for each request, denied or not.
const PLAIN: &str = "{ number: 1, is_negative_hits: true }";

/// Rounds of 8 requests on 3 slots: 5 are denied while 3 are held, and then all slots are free for the next round,
/// none more. Then 20 clients that never pause. `denied_released`: Envoy makes a release for denied requests, too.
async fn assert_exact(limits: &str, denied_released: bool, arguments: &[&str]) {
    const AT_ONCE: usize = 8;
    let scene = Scene::start(limits, arguments).await;
    let releases = if denied_released { AT_ONCE } else { SLOTS };
    for round in 1..=5 {
        let mut requests = scene.send("/hold", AT_ONCE);
        for _ in SLOTS..AT_ONCE {
            let status = requests.join_next().await.expect("more").expect("answered");
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "round {round}");
        }
        scene.wait_for_in_flight(SLOTS).await;
        scene.upstream.let_go();
        assert_eq!(passed_of(&requests.join_all().await), SLOTS, "round {round}");
        // Each slot was taken and given back; nothing else asked for anything.
        scene
            .wait_for_decisions([(SLOTS + releases) * round, (AT_ONCE - SLOTS) * round])
            .await;
    }
    let end = Instant::now() + Duration::from_secs(2);
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let client = scene.envoy.client();
        clients.spawn(async move {
            let mut statuses = Vec::new();
            while Instant::now() < end {
                statuses.push(client.get("/", &[]).await.status);
            }
            statuses
        });
    }
    let statuses = clients.join_all().await.concat();
    let passed = passed_of(&statuses);
    println!(
        "of {} requests by 20 clients {passed} passed on {SLOTS} slots",
        statuses.len()
    );
    assert!(
        passed > SLOTS && passed < statuses.len(),
        "{passed} of {}",
        statuses.len()
    );
    assert_eq!(scene.upstream.most(), SLOTS, "in flight at the same time");
    scene.wait_until_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_in_flight_than_slots_in_memory() {
    assert_exact(&documented(), false, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_in_flight_than_slots_in_redis() {
    let redis = Redis::start();
    assert_exact(&documented(), false, &in_redis(&redis.url())).await;
}

/// The plain form: Envoy makes the second call for denied requests, too, and the service leaves those out.
#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_number_gives_back_nothing_that_denied_requests_never_took() {
    assert_exact(&one_limit(PLAIN), true, &[]).await;
}

/// Two limits of different cost in one request, each released by its own number: 2 of 5 are held by one request, 4 by
/// two, and a third does not fit.
#[tokio::test(flavor = "multi_thread")]
async fn several_limits_get_back_each_its_own() {
    let release = |name: &str| {
        let format = format!("%DYNAMIC_METADATA(envoy.filters.http.ratelimit:sluicegate:slots_of:{name})%");
        format!("apply_on_stream_done: true, hits_addend: {{ format: \"{format}\", is_negative_hits: true }}")
    };
    let scene = Scene::start(
        &limits(&[
            "actions: [{ remote_address: {} }]".into(),
            "{ actions: [{ generic_key: { descriptor_value: weight } }], hits_addend: { number: 2 } }".into(),
            format!("{{ actions: [{{ remote_address: {{}} }}], {} }}", release("in-flight")),
            format!(
                "{{ actions: [{{ generic_key: {{ descriptor_value: weight }} }}], {} }}",
                release("weight")
            ),
        ]),
        &[],
    )
    .await;
    for round in 1..=4 {
        let requests = scene.send("/hold", 2);
        scene.wait_for_in_flight(2).await;
        assert_eq!(scene.passing(3).await, 0, "round {round}");
        scene.upstream.let_go();
        assert_eq!(passed_of(&requests.join_all().await), 2, "round {round}");
        // In this limit the three would have passed.
        scene.wait_for_decisions([7 * round, 0]).await;
    }
    assert_eq!(scene.upstream.most(), 2);
}

/// `ext_authz` takes the slots, and a rate limit filter that does nothing else gives them back: docs/ext_authz.md has it.
#[tokio::test(flavor = "multi_thread")]
async fn slots_that_ext_authz_took_come_back_by_a_rate_limit_filter() {
    const FILTER: &str = "                  - name: envoy.filters.http.ext_authz\n";
    const ROUTES: &str = "                      # Which rules file answers: `domain` in it. Without this the one whose section is the default.
                      typed_per_filter_config:\n";
    let release = format!(
        "                  - name: envoy.filters.http.ratelimit
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
                      domain: demo
                      rate_limit_service: {{ transport_api_version: V3, grpc_service: {{ envoy_grpc: {{ cluster_name: sluicegate }} }} }}
{FILTER}"
    );
    // The filter that stands there already goes on behind it.
    let limit = documented_in("docs/ext_authz.md");
    let rules = format!(
        "{}ext_authz: {{ rate_limits: [{{ actions: [{{ remote_address: {{}} }}] }}] }}\n",
        rules("10m")
    );
    let service = Sluicegate::start(&rules, &[]);
    let upstream = Upstream::start().await;
    let changes = [PATIENT, AUTHZ_FAILURE_DENIES, (FILTER, &release), (ROUTES, &limit)];
    let envoy = front(&service, &upstream, "", &changes);
    let scene = Scene {
        service,
        envoy,
        upstream,
    };
    for round in 1..=4 {
        let mut held = JoinSet::new();
        for _ in 0..8 {
            let client = scene.envoy.authz_client();
            held.spawn(async move { client.get("/hold", &[]).await.status });
        }
        for _ in SLOTS..8 {
            let status = held.join_next().await.expect("more").expect("answered");
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "round {round}");
        }
        scene.wait_for_in_flight(SLOTS).await;
        scene.let_go(&mut held).await;
        scene.wait_for_decisions([2 * SLOTS * round, 5 * round]).await;
    }
    assert_eq!(scene.upstream.most(), SLOTS);
}
