//! `concurrency`: Envoy takes a slot with the request and gives it back when the stream is done.

mod exact;
mod lost;

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT, project_file, with_cluster},
    http::Client,
    process::{PATIENCE, POLL},
    sluicegate::Sluicegate,
    upstream::Upstream,
};

const SLOTS: usize = 3;
/// The line of `envoy.yaml` above its rate limits.
const ABOVE: &str =
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n";

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

/// What a page of the documentation tells users to set for their routes, as deep as it stands in `envoy.yaml`.
fn documented_in(page: &str) -> String {
    const START: &str = "typed_per_filter_config:";
    let page = project_file(page);
    let mut blocks = page.split("```yaml\n").filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.starts_with(START)).expect("an example");
    let indented = block.lines().map(|line| format!("                      {line}\n"));
    indented.collect()
}

/// A slot for each address, given back as users are told to.
fn documented() -> String {
    documented_in("docs/rules.md")
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
    let cluster = with_cluster("counting", upstream.port);
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

/// A store that is late denies here: nobody may pass whom it did not count.
fn in_redis(url: &str) -> [&str; 6] {
    ["--redis-url", url, "--on-store-error", "deny", "--store-timeout", "20s"]
}
