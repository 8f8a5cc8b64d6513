//! docs/recipes.md, copied out of the page and run.

use std::fs;
use std::time::Duration;

use http::StatusCode;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::envoy::{Envoy, FAILURE_DENIES, PATIENT, project_file, with_cluster};
use crate::support::http::{Answer, Client};
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;
use crate::support::sluicegate::{Sluicegate, run};
use crate::support::upstream::Upstream;

/// The line of `envoy.yaml` above its rate limits.
const ABOVE: &str =
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n";

/// The blocks of one recipe: rules, what Envoy needs, and the others in their order.
struct Recipe {
    rules: String,
    route: String,
    others: Vec<String>,
}

fn recipe(title: &str) -> Recipe {
    let page = project_file("docs/recipes.md");
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(title));
    let section = section.unwrap_or_else(|| panic!("no recipe {title}"));
    let blocks = section.split("```").skip(1).step_by(2);
    let mut blocks: Vec<String> = blocks
        .filter_map(|block| Some(block.split_once('\n')?.1.to_owned()))
        .collect();
    let rules = blocks.remove(0);
    assert!(rules.starts_with("domain: edge\n"), "{rules}");
    let at = blocks
        .iter()
        .position(|block| block.starts_with("typed_per_filter_config:"));
    let route = blocks.remove(at.expect("what Envoy needs"));
    Recipe {
        rules,
        route: route.lines().map(|line| format!("{:22}{line}\n", "")).collect(),
        others: blocks,
    }
}

impl Recipe {
    fn envoy(&self, service: &Sluicegate, changes: &[(&str, &str)]) -> Envoy {
        let own = [
            (ABOVE, self.route.as_str()),
            ("domain: demo", "domain: edge"),
            PATIENT,
            FAILURE_DENIES,
        ];
        Envoy::start(service.grpc_port, &[&own, changes].concat())
    }
}

fn is_denied(answer: &Answer) -> bool {
    assert!(
        [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status),
        "{answer:?}"
    );
    answer.status == StatusCode::TOO_MANY_REQUESTS
}

/// How many of so many requests, one after the other, pass.
async fn passes(client: &Client, path: &str, headers: &[(&str, &str)], times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        passed += usize::from(!is_denied(&client.get(path, headers).await));
    }
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn password_guessing() {
    let recipe = recipe("Password guessing");
    let service = Sluicegate::start(&recipe.rules, &[]);
    let envoy = recipe.envoy(&service, &[]);
    let client = envoy.client();
    for _ in 0..5 {
        assert!(!is_denied(&client.post("/login", &[], "guess").await));
    }
    let denied = client.post("/login?again", &[], "guess").await;
    assert!(
        is_denied(&denied) && denied.body.contains("logins-per-address"),
        "{denied:?}"
    );
    // Nothing else is a guess.
    assert_eq!(passes(&client, "/login", &[], 10).await, 10);
    assert!(!is_denied(&client.post("/cart", &[], "order").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn per_customer_plans() {
    let recipe = recipe("Per-customer plans");
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("customers.csv");
    fs::write(&file, &recipe.others[0]).expect("the customers");
    let rules = recipe.rules.replace("customers.csv", &file.display().to_string());
    let service = Sluicegate::start(&rules, &[]);
    let envoy = recipe.envoy(&service, &[]);
    for (customer, expected) in [("acme", 10), ("umbrella", 5), ("anybody", 3)] {
        let passed = passes(&envoy.client(), "/", &[("x-customer", customer)], 12).await;
        assert_eq!(passed, expected, "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_budget() {
    let recipe = recipe("An egress budget");
    let service = Sluicegate::start(&recipe.rules, &[]);
    // A fleet of two.
    let fleet = [recipe.envoy(&service, &[]), recipe.envoy(&service, &[])];
    let mut passed = 0;
    for n in 0..12 {
        passed += passes(&fleet[n % 2].client(), "/forecast", &[], 1).await;
    }
    assert_eq!(passed, 10);
    let denied = fleet[0].client().get("/forecast", &[]).await;
    let wait: u64 = denied
        .header("retry-after")
        .expect("retry-after")
        .parse()
        .expect("seconds");
    assert!(
        (1..=62).contains(&wait) && denied.body.contains("weather-a-minute"),
        "{denied:?}"
    );
    // The day, on a virtual clock.
    let directory = TempDir::new().expect("a directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
    write("rules.yaml", &recipe.rules);
    write("day.test.yaml", &recipe.others[0]);
    let output = run(directory.path(), &["test", "day.test.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn smoothing_webhooks() {
    let recipe = recipe("Smoothing webhooks");
    let service = Sluicegate::start(&recipe.rules, &[]);
    let envoy = recipe.envoy(&service, &[]);
    let mut burst = JoinSet::new();
    let start = Instant::now();
    for _ in 0..20 {
        let client = envoy.client();
        burst.spawn(async move { (client.post("/", &[("x-hook", "shop")], "order").await, start.elapsed()) });
    }
    let answers = burst.join_all().await;
    let waited: Vec<Duration> = answers
        .iter()
        .filter(|(answer, _)| !is_denied(answer))
        .map(|(_, waited)| *waited)
        .collect();
    let passed = waited.len();
    // One at once, and one for each second of `max_delay`; another for each second in which the burst came.
    assert!((3..20).contains(&passed), "{passed} passed");
    // A slow machine only adds to it.
    assert!(
        waited.iter().max() >= Some(&Duration::from_secs(1)),
        "nothing is held back: {waited:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_backend() {
    let recipe = recipe("One slow backend");
    let service = Sluicegate::start(&recipe.rules, &[]);
    let upstream = Upstream::start().await;
    let cluster = with_cluster("slow", upstream.port);
    let changes = [
        ("route: { cluster: upstream }", "route: { cluster: slow, timeout: 60s }"),
        ("  clusters:\n", cluster.as_str()),
    ];
    let envoy = recipe.envoy(&service, &changes);
    let mut held = JoinSet::new();
    for _ in 0..2 {
        let client = envoy.client();
        held.spawn(async move { client.get("/hold", &[]).await });
    }
    let start = Instant::now();
    while upstream.in_flight() < 2 {
        assert!(start.elapsed() < PATIENCE, "two in flight");
        tokio::time::sleep(POLL).await;
    }
    assert!(is_denied(&envoy.client().get("/hold", &[]).await));
    upstream.let_go();
    assert!(held.join_all().await.iter().all(|answer| !is_denied(answer)));
    let start = Instant::now();
    while is_denied(&envoy.client().get("/", &[]).await) {
        assert!(start.elapsed() < PATIENCE, "a permit is given back");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(upstream.most(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_gateways_one_limit() {
    let recipe = recipe("Several gateways, one limit");
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let arguments = ["--redis-url", &url, "--store-timeout", "5s"];
    let services = [0, 1].map(|_| Sluicegate::start(&recipe.rules, &arguments));
    let gateways = services.each_ref().map(|service| recipe.envoy(service, &[]));
    let mut passed = 0;
    for n in 0..60 {
        passed += passes(&gateways[n % 2].client(), "/", &[("x-api-key", "k")], 2).await;
    }
    assert_eq!(passed, 100);
}
