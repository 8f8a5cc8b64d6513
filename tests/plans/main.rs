//! Plans from outside of the rules, as a client of the real server sees them: files, hashes in Redis and URLs that change,
//! break and come back.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says why, and prints what it measured"
)]

#[path = "../support/mod.rs"]
mod support;

mod file;
mod many;
mod redis;
mod url;

use std::time::Duration;

use support::http::Client;
use support::process::{PATIENCE, POLL};
use support::sluicegate::Sluicegate;

/// A server whose rules have one source.
struct Shop {
    server: Sluicegate,
    json: Client,
    admin: Client,
}

/// The rules with this source.
fn rules(source: &str) -> String {
    format!(
        "domain: shop\nplans:\n  free: {{ requests_per_unit: 1, unit: hour }}\n  pro: {{ requests_per_unit: 3, unit: hour, \
         algorithm: token_bucket }}\n  all: {{ unlimited: true }}\nsources:\n  tenants: {source}\ndescriptors:\n  - key: \
         tenant\n    rate_limit: {{ name: tenants, plan_from: tenants, default: free }}\n"
    )
}

impl Shop {
    fn start(source: &str, arguments: &[&str]) -> Self {
        Self::of(Sluicegate::start(&rules(source), arguments))
    }

    fn of(server: Sluicegate) -> Self {
        Self {
            json: Client::new(server.http_port),
            admin: Client::new(server.admin_port),
            server,
        }
    }

    /// How many of the next 10 requests of a tenant pass.
    async fn passes(&self, tenant: &str) -> usize {
        let body = serde_json::json!({
            "domain": "shop",
            "descriptors": [{"entries": [{"key": "tenant", "value": tenant}]}],
        });
        let mut passed = 0;
        for _ in 0..10 {
            passed += usize::from(self.json.post("/json", &[], &body.to_string()).await.status == 200);
        }
        passed
    }

    /// The limit of a tenant, and by which plan; counts nothing.
    async fn explain(&self, tenant: &str) -> serde_json::Value {
        let body = serde_json::json!({
            "domain": "shop",
            "descriptors": [{"entries": [{"key": "tenant", "value": tenant}]}],
        });
        let json = [("content-type", "application/json")];
        let answer = self.admin.post("/api/v1/explain", &json, &body.to_string()).await;
        answer.json()["descriptors"][0].clone()
    }

    /// Until a tenant has this plan.
    async fn until_plan(&self, tenant: &str, plan: &str) {
        let what = format!("{tenant} has the plan {plan}");
        until(&what, async || self.explain(tenant).await["plan"]["name"] == plan).await;
    }

    /// Until the log has this text; it may lag behind.
    async fn until_logged(&self, text: &str) {
        until(text, async || self.server.process.log().contains(text)).await;
    }

    /// A metric of the source.
    async fn metric(&self, name: &str, more: &str) -> Option<f64> {
        let text = self.admin.get("/metrics", &[]).await.body;
        let line = format!("{name}{{domain=\"shop\"{more},source=\"tenants\"}} ");
        let line = text.lines().find_map(|found| found.strip_prefix(&line))?;
        Some(line.parse().expect("a number"))
    }

    /// How often the source was read, well or not.
    async fn reads(&self, result: &str) -> f64 {
        let text = self.admin.get("/metrics", &[]).await.body;
        let line =
            format!("sluicegate_plan_source_reads_total{{domain=\"shop\",result=\"{result}\",source=\"tenants\"}} ");
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0.0, |number| number.parse().expect("a number"))
    }

    /// Until the source is known to be stale, or no longer: in metrics and health alike, healthy all the while.
    async fn until_stale(&self, stale: bool) {
        until(if stale { "stale" } else { "no longer stale" }, async || {
            let value = self.metric("sluicegate_plan_source_stale", "").await;
            value == Some(f64::from(u8::from(stale)))
        })
        .await;
        let health = self.admin.get("/healthcheck?details", &[]).await;
        assert_eq!(health.status, 200);
        let names: &[&str] = if stale { &["shop/tenants"] } else { &[] };
        assert_eq!(health.json()["stale_plan_sources"], serde_json::json!(names));
        let status = self.admin.get("/api/v1/status", &[]).await.json();
        let reasons: Vec<String> = names.iter().map(|name| format!("plans are stale: {name}")).collect();
        assert_eq!(status["reasons"], serde_json::json!(reasons));
    }
}

/// Waits for something that is going to happen.
async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !happened().await {
            tokio::time::sleep(POLL).await;
        }
    };
    let waited = tokio::time::timeout(Duration::max(PATIENCE, Duration::from_secs(30)), waited);
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}
