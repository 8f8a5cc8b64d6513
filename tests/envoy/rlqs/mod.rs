//! Envoys that enforce quotas themselves, with the shipped configuration: no window at the upstream is ever over the limit,
//! whatever dies or stands still.

mod scene;

use std::time::Duration;

use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use wire::rate_limit_service_client::RateLimitServiceClient;

use self::scene::{Load, QuotaEnvoy, Recorder, WINDOW, pass, rules};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

const LIMIT: u64 = 500;

struct Scene {
    services: Vec<Sluicegate>,
    envoys: Vec<QuotaEnvoy>,
    upstream: Recorder,
}

impl Scene {
    /// So many Envoys, and servers that share them out.
    async fn start(envoys: usize, servers: usize, arguments: &[&str]) -> Self {
        let upstream = Recorder::start().await;
        let (envoys, services) = tokio::task::block_in_place(|| {
            let services: Vec<_> = (0..servers)
                .map(|_| Sluicegate::start(&rules(LIMIT), arguments))
                .collect();
            let envoy = |at: usize| QuotaEnvoy::start(services[at % servers].grpc_port, upstream.port);
            ((0..envoys).map(envoy).collect(), services)
        });
        Self {
            services,
            envoys,
            upstream,
        }
    }

    /// Load on every Envoy: as much on each, or nine tenths on the first.
    fn load(&self, rate: u64, skewed: bool) -> Vec<Load> {
        let envoys = self.envoys.len() as u64;
        let rest = if skewed {
            rate / 10 / (envoys - 1)
        } else {
            rate / envoys
        };
        let rate_at = |at| if at == 0 { rate - rest * (envoys - 1) } else { rest };
        let ports = self.envoys.iter().map(|envoy| envoy.port);
        (0..)
            .zip(ports)
            .map(|(at, port)| Load::start(port, "anna", rate_at(at)))
            .collect()
    }

    /// The promise, and that it is not kept by denying everything.
    async fn ends(self, load: Vec<Load>, windows: f64, what: &str) {
        self.ends_within(Duration::ZERO, load, windows, what).await;
    }

    /// The same for windows that are so much shorter.
    async fn ends_within(self, shorter: Duration, load: Vec<Load>, windows: f64, what: &str) {
        let (mut allowed, mut denied) = (0, 0);
        for load in load {
            let (more, less) = load.stop().await;
            (allowed, denied) = (allowed + more, denied + less);
        }
        let (worst, count) = (self.upstream.worst(shorter), self.upstream.count());
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let share = 100.0 * count as f64 / (LIMIT as f64 * windows);
        println!(
            "{what}: {count} requests in {windows} windows ({share:.0} %), at most {worst} in one; {allowed} / {denied}"
        );
        assert!(
            worst as u64 <= LIMIT,
            "{worst} requests in {WINDOW:?}, where {LIMIT} may be"
        );
        assert!(count as u64 >= LIMIT / 2, "{count} requests only");
    }
}

async fn spread(envoys: usize, skewed: bool, what: &str) {
    let scene = Scene::start(envoys, 1, &[]).await;
    let load = scene.load(150, skewed);
    pass(35).await;
    scene.ends(load, 3.5, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_envoy_stays_within_the_limit() {
    spread(1, false, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_share_a_limit() {
    spread(2, false, "two, even").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_envoys_share_a_limit_that_one_of_them_needs() {
    spread(4, true, "four, 90:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_limit_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = ["--redis-url", &redis.url(), "--store-timeout", "2s"];
    let scene = Scene::start(4, 2, &arguments).await;
    let load = scene.load(150, false);
    pass(35).await;
    scene.ends(load, 3.5, "two servers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_comes_back_in_time() {
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let mut scene = Scene::start(2, 1, &["--redis-url", &url, "--store-timeout", "2s"]).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| {
        let port = scene.services[0].grpc_port;
        scene.services[0].process.signal("KILL");
        scene.services[0].process.wait_for_exit();
        let arguments = ["--redis-url", &url, "--store-timeout", "2s"];
        let again = Sluicegate::start_again(port, &rules(LIMIT), &arguments);
        scene.services.push(again);
    });
    pass(25).await;
    scene.ends(load, 3.7, "killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_stands_still_is_waited_for() {
    let scene = Scene::start(2, 1, &[]).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| scene.envoys[0].process.signal("STOP"));
    pass(13).await;
    scene.envoys[0].process.signal("CONT");
    pass(15).await;
    scene.ends(load, 4.0, "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_passes_no_limit() {
    let redis = tokio::task::block_in_place(Redis::start);
    let scene = Scene::start(2, 1, &["--redis-url", &redis.url(), "--store-timeout", "200ms"]).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| redis.process.signal("STOP"));
    pass(13).await;
    redis.process.signal("CONT");
    pass(15).await;
    scene.ends(load, 4.0, "frozen Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_hands_its_streams_over() {
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let mut scene = Scene::start(2, 1, &["--redis-url", &url]).await;
    let load = scene.load(60, false);
    pass(8).await;
    tokio::task::block_in_place(|| {
        scene.services[0].process.signal("TERM");
        let status = scene.services[0].process.wait_for_exit();
        assert!(status.success(), "{status}");
        let log = scene.services[0].process.log();
        assert!(!log.contains("still open"), "streams are closed, not cut: {log}");
    });
    pass(2).await;
    scene.ends(load, 1.0, "handed over").await;
}

/// One limit for requests that ask one by one and for quotas.
#[tokio::test(flavor = "multi_thread")]
async fn calls_and_quotas_count_on_one_counter() {
    let scene = Scene::start(1, 1, &[]).await;
    let load = scene.load(40, false);
    let address = format!("http://127.0.0.1:{}", scene.services[0].grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("connected");
    let entry = |key: &str, value: &str| common::rate_limit_descriptor::Entry {
        key: key.into(),
        value: value.into(),
    };
    let request = wire::RateLimitRequest {
        domain: "edge".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![entry("name", "per-user"), entry("user", "anna")],
            ..Default::default()
        }],
        hits_addend: 0,
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(25));
    let mut asked = 0;
    let port = scene.upstream.port;
    let direct = crate::support::http::Client::new(port);
    for _ in 0..1200 {
        ticks.tick().await;
        let answer = client
            .should_rate_limit(request.clone())
            .await
            .expect("answered")
            .into_inner();
        if answer.overall_code == i32::from(wire::rate_limit_response::Code::Ok) {
            asked += 1;
            direct.get("/", &[]).await;
        }
    }
    println!("{asked} by calls");
    assert!(asked >= LIMIT / 5, "{asked} by calls");
    // A call is decided a moment before its request comes to the upstream.
    scene.ends_within(Duration::from_millis(250), load, 3.0, "both").await;
}
