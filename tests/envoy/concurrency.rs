//! `concurrency`: Envoy takes a slot with the request and gives it back when the stream is done.

use std::time::Duration;

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT, project_file},
    http::Client,
    process::{PATIENCE, POLL},
    redis::Redis,
    sluicegate::Sluicegate,
    upstream::Upstream,
};

const SLOTS: usize = 3;
/// The line of `envoy.yaml` above its rate limits.
const ABOVE: &str =
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n";
/// What gives back a slot for each request, denied or not.
const PLAIN: &str = "{ number: 1, is_negative_hits: true }";

/// Envoy minds `hits_addend` in the filter's own configuration of a route only, not in `rate_limits` beside the route.
fn limits(entries: &[String]) -> String {
    let mut text = "                      typed_per_filter_config:
                        envoy.filters.http.ratelimit:
                          \"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                          rate_limits:
"
    .to_owned();
    for entry in entries {
        text += &format!("                            - {entry}\n");
    }
    text
}

/// A slot for each address, given back as `docs/rules.md` tells users to.
fn documented() -> String {
    const START: &str = "typed_per_filter_config:";
    let page = project_file("docs/rules.md");
    let mut blocks = page.split("```yaml\n").filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.starts_with(START)).expect("an example");
    let indented = block.lines().map(|line| format!("                      {line}\n"));
    indented.collect()
}

/// A slot for each address, taken with the request and given back so.
fn one_limit(release: &str) -> String {
    limits(&[
        "actions: [{ remote_address: {} }]".into(),
        format!("{{ actions: [{{ remote_address: {{}} }}], apply_on_stream_done: true, hits_addend: {release} }}"),
    ])
}

/// An Envoy with these limits in front of an upstream.
fn front(service: &Sluicegate, upstream: &Upstream, limits: &str, changes: &[(&str, &str)]) -> Envoy {
    let cluster = format!(
        "  clusters:
    - name: counting
      type: STATIC
      load_assignment:
        cluster_name: counting
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
",
        upstream.port
    );
    let own = [
        (ABOVE, limits),
        (
            "route: { cluster: upstream }",
            "route: { cluster: counting, timeout: 60s }",
        ),
        ("  clusters:\n", cluster.as_str()),
    ];
    Envoy::start(service.grpc_port, &[&own, changes].concat())
}

fn rules(slot_life: &str) -> String {
    format!(
        "domain: demo
descriptors:
  - key: remote_address
    rate_limit: {{ name: in-flight, algorithm: concurrency, requests_per_unit: {SLOTS}, window: {slot_life} }}
  - key: generic_key
    value: weight
    rate_limit: {{ name: weight, algorithm: concurrency, requests_per_unit: 5, window: {slot_life} }}
"
    )
}

/// The service, an Envoy that releases by these limits, and an upstream that counts what Envoy lets through.
struct Scene {
    service: Sluicegate,
    envoy: Envoy,
    upstream: Upstream,
}

impl Scene {
    async fn start(limits: &str, arguments: &[&str]) -> Self {
        Self::start_with(limits, arguments, &[PATIENT, FAILURE_DENIES]).await
    }

    /// Slots live for ten minutes: only releases can make room again.
    async fn start_with(limits: &str, arguments: &[&str], changes: &[(&str, &str)]) -> Self {
        let service = Sluicegate::start(&rules("10m"), arguments);
        let upstream = Upstream::start().await;
        let envoy = front(&service, &upstream, limits, changes);
        Self {
            service,
            envoy,
            upstream,
        }
    }

    /// So many requests at once, each on a connection of its own.
    fn send(&self, path: &'static str, count: usize) -> JoinSet<StatusCode> {
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let client = self.envoy.client();
            requests.spawn(async move { client.get(path, &[]).await.status });
        }
        requests
    }

    /// How many of so many requests pass at once; the others must be told that they are too many.
    async fn passing(&self, count: usize) -> usize {
        let statuses = self.send("/", count).join_all().await;
        passed_of(&statuses)
    }

    /// What the service has let pass (takes and releases alike) and what it has denied.
    async fn decisions(&self) -> [usize; 2] {
        let stats = Client::new(self.service.admin_port).get("/stats", &[]).await.body;
        ["allowed", "denied"].map(|word| {
            let name = format!("sluicegate_decisions_total.demo.remote_address.{word}: ");
            let value = stats.lines().find_map(|line| line.strip_prefix(&name));
            value.map_or(0, |value| value.parse().expect("a number"))
        })
    }

    async fn wait_for_decisions(&self, expected: [usize; 2]) {
        let start = Instant::now();
        while self.decisions().await != expected {
            let found = self.decisions().await;
            assert!(
                start.elapsed() < PATIENCE,
                "{found:?} decisions in place of {expected:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn wait_for_in_flight(&self, expected: usize) {
        let start = Instant::now();
        while self.upstream.in_flight() != expected {
            let found = self.upstream.in_flight();
            assert!(start.elapsed() < PATIENCE, "{found} in flight in place of {expected}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until Redis counts (0), or the service by itself (1).
    async fn wait_for_mode(&self, mode: usize) {
        let start = Instant::now();
        let line = format!("sluicegate_failure_mode{{store=\"redis\"}} {mode}");
        while !Client::new(self.service.admin_port)
            .get("/metrics", &[])
            .await
            .body
            .contains(&line)
        {
            // Somebody must ask for it to be noticed.
            let _ = self.passing(1).await;
            assert!(start.elapsed() < PATIENCE, "never: {line}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets all that is held go, and waits for its answers.
    async fn let_go(&self, held: &mut JoinSet<StatusCode>) {
        self.upstream.let_go();
        while let Some(status) = held.join_next().await {
            assert_eq!(status.expect("answered"), StatusCode::OK);
        }
    }

    /// Waits until all slots are free: as many requests pass together.
    async fn wait_until_free(&self) {
        let start = Instant::now();
        while self.passing(SLOTS).await < SLOTS {
            assert!(start.elapsed() < PATIENCE, "the slots never came back");
            tokio::time::sleep(POLL).await;
        }
    }
}

fn passed_of(statuses: &[StatusCode]) -> usize {
    let count = |wanted: StatusCode| statuses.iter().filter(|status| **status == wanted).count();
    let passed = count(StatusCode::OK);
    assert_eq!(
        passed + count(StatusCode::TOO_MANY_REQUESTS),
        statuses.len(),
        "{statuses:?}"
    );
    passed
}

/// Rounds of 8 requests on 3 slots: 5 are denied while 3 are held, and then all slots are free for the next round,
/// none more. Then 20 clients that never pause.
async fn assert_exact(arguments: &[&str]) {
    const AT_ONCE: usize = 8;
    let scene = Scene::start(&documented(), arguments).await;
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
            .wait_for_decisions([2 * SLOTS * round, (AT_ONCE - SLOTS) * round])
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

/// A store that is late denies here: nobody may pass whom it did not count.
fn in_redis(url: &str) -> [&str; 6] {
    ["--redis-url", url, "--on-store-error", "deny", "--store-timeout", "20s"]
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_in_flight_than_slots_in_memory() {
    assert_exact(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_in_flight_than_slots_in_redis() {
    let redis = Redis::start();
    assert_exact(&in_redis(&redis.url())).await;
}

/// What the plain form does, as `docs/rules.md` says: Envoy makes the second call for denied requests, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_number_gives_back_what_denied_requests_never_took() {
    let scene = Scene::start(&one_limit(PLAIN), &[]).await;
    let _held = scene.send("/hold", SLOTS);
    scene.wait_for_in_flight(SLOTS).await;
    let start = Instant::now();
    while scene.upstream.most() == SLOTS {
        let _ = scene.passing(1).await;
        assert!(
            start.elapsed() < PATIENCE,
            "Envoy no longer releases for denied requests"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_request_is_served_gives_its_slot_back() {
    let scene = Scene::start(&documented(), &[]).await;
    let held = scene.send("/hold", SLOTS);
    scene.wait_for_in_flight(SLOTS).await;
    assert_eq!(scene.passing(SLOTS).await, 0);
    drop(held);
    scene.wait_until_free().await;
}

/// Envoy then makes no second call: the service finds out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_gives_its_slot_back() {
    let redis = Redis::start();
    let scene = Scene::start(&documented(), &in_redis(&redis.url())).await;
    scene.wait_until_free().await;
    let scripts = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let calls = line.and_then(|line| line.split(',').next());
        calls.expect("a script has run").parse::<usize>().expect("a number")
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = scripts();
    redis.process.signal("STOP");
    let leaving = scene.send("/hold", SLOTS);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 3).await;
    // The call is on its way to Redis by now, or at the latest when Redis goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(leaving);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    redis.process.signal("CONT");
    scene.wait_until_free().await;
    assert!(scripts() > before + 1, "the slots were never taken");
    assert_eq!(scene.upstream.in_flight(), 0);
}

/// What passes because the service did not answer holds nothing, so it must not give anything back.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_passed_without_an_answer_gives_nothing_back() {
    let scene = Scene::start_with(&documented(), &[], &[(" timeout: 0.2s", " timeout: 3s")]).await;
    let held = scene.send("/hold", SLOTS);
    scene.wait_for_in_flight(SLOTS).await;
    scene.wait_for_decisions([SLOTS, 0]).await;
    scene.service.process.signal("STOP");
    let passed = scene.send("/", 1).join_all().await;
    scene.service.process.signal("CONT");
    assert_eq!(passed, [StatusCode::OK], "failure_mode_deny is false");
    for _ in 0..20 {
        assert_eq!(scene.passing(1).await, 0, "it gave back a slot that it did not have");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(scene.upstream.most(), SLOTS + 1);
    scene.upstream.let_go();
    assert_eq!(passed_of(&held.join_all().await), SLOTS);
    scene.wait_until_free().await;
}

/// While Redis refuses to count, the service counts by itself (`local`), by what it knew, and tells Redis later: slots
/// that were taken on one side of the change and given back on the other are neither lost nor there twice.
#[tokio::test(flavor = "multi_thread")]
async fn slots_outlast_an_outage_of_redis() {
    let redis = Redis::start();
    let local = ["--redis-url", &redis.url(), "--store-timeout", "5s"];
    let scene = Scene::start(&documented(), &local).await;
    scene.wait_for_mode(0).await;
    for round in 1..=3 {
        let mut held = scene.send("/hold", 2);
        scene.wait_for_in_flight(2).await;
        // A replica takes no writes.
        assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
        scene.wait_for_mode(1).await;
        let client = scene.envoy.client();
        held.spawn(async move { client.get("/hold", &[]).await.status });
        scene.wait_for_in_flight(SLOTS).await;
        assert_eq!(scene.passing(4).await, 0, "round {round}, by itself");
        if round == 2 {
            scene.let_go(&mut held).await;
            scene.wait_until_free().await;
        }
        assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        scene.wait_for_mode(0).await;
        if round != 2 {
            assert_eq!(scene.passing(4).await, 0, "round {round}, by Redis");
            scene.let_go(&mut held).await;
        }
        scene.wait_until_free().await;
    }
    assert_eq!(scene.upstream.most(), SLOTS);
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

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_an_envoy_that_crashed_free_themselves() {
    let service = Sluicegate::start(&rules("20s"), &[]);
    let upstream = Upstream::start().await;
    let start = || front(&service, &upstream, &documented(), &[PATIENT, FAILURE_DENIES]);
    let crashing = start();
    let mut lost = JoinSet::new();
    for _ in 0..SLOTS {
        let client = crashing.client();
        lost.spawn(async move { client.get("/hold", &[]).await.status });
    }
    let envoy = start();
    let client = envoy.client();
    let start = Instant::now();
    // The slots are taken once somebody else is denied.
    while client.get("/", &[]).await.status == 200 {
        assert!(start.elapsed() < PATIENCE, "the slots were never taken");
    }
    // Its clients stay until then: it must not see them leave.
    crashing.process.signal("KILL");
    lost.abort_all();
    while client.get("/", &[]).await.status != 200 {
        assert!(start.elapsed() < 2 * PATIENCE, "the slots were never freed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
