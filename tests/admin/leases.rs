//! `/api/v1/leases`: what Envoys hold that enforce quotas themselves.

use sluicegate::proto::envoy::service::rate_limit_quota::v3 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wire::rate_limit_quota_service_client::RateLimitQuotaServiceClient;
use wire::rate_limit_quota_usage_reports::BucketQuotaUsage;

use crate::support::http::Client;
use crate::support::process::{PATIENCE, POLL};
use crate::support::sluicegate::Sluicegate;

const RULES: &str = "domain: edge
rlqs: { bucket: [name, user] }
descriptors:
  - key: name
    value: per-user
    descriptors:
      - key: user
        rate_limit: { requests_per_unit: 1000, unit: hour }
  - { key: name, value: free, rate_limit: { unlimited: true } }
";

/// An Envoy's stream: what it reports, and what it is told.
struct Stream {
    reports: mpsc::UnboundedSender<wire::RateLimitQuotaUsageReports>,
    assignments: tonic::Streaming<wire::RateLimitQuotaResponse>,
}

impl Stream {
    async fn open(port: u16, name: &'static str) -> Self {
        let address = format!("http://127.0.0.1:{port}");
        let mut client = RateLimitQuotaServiceClient::connect(address).await.expect("connected");
        let (reports, receiver) = mpsc::unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
        let metadata = request.metadata_mut();
        metadata.insert("x-envoy-node", name.parse().expect("a header"));
        let assignments = client
            .stream_rate_limit_quotas(request)
            .await
            .expect("opened")
            .into_inner();
        Self { reports, assignments }
    }

    /// Reports this bucket, and waits for what follows from it.
    async fn report(&mut self, entries: &[(&str, &str)], seconds: i64, allowed: u64) {
        let entries = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let id = prost::Message::encode_to_vec(&wire::BucketId {
            bucket: entries.collect(),
        });
        let usage = BucketQuotaUsage {
            bucket_id: id.into(),
            time_elapsed: Some(prost_types::Duration { seconds, nanos: 0 }),
            num_requests_allowed: allowed,
            num_requests_denied: 0,
        };
        let report = wire::RateLimitQuotaUsageReports {
            domain: "edge".into(),
            bucket_quota_usages: vec![usage],
        };
        self.reports.send(report).expect("open");
        if seconds == 0 {
            let told = tokio::time::timeout(PATIENCE, self.assignments.message()).await;
            assert!(matches!(told, Ok(Ok(Some(_)))), "{told:?}");
        }
    }
}

/// What the resource says once `is` holds for it.
async fn leases(api: &Client, query: &str, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let path = format!("/api/v1/leases?{query}");
    let mut last = serde_json::Value::Null;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            last = api.get(&path, &[]).await.json();
            if is(&last) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    });
    assert!(found.await.is_ok(), "{last}");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_say_who_holds_how_much_until_when() {
    // Counters that outlive the server are leased from at once.
    let redis = tokio::task::block_in_place(crate::support::redis::Redis::start);
    let server = tokio::task::block_in_place(|| {
        Sluicegate::start(RULES, &["--redis-url", &redis.url(), "--store-timeout", "5s"])
    });
    let api = Client::new(server.admin_port);
    let empty = leases(&api, "", |_| true).await;
    let nothing = serde_json::json!({ "streams": 0, "streams_without_answer": 0, "total": 0, "held": 0, "leases": [] });
    assert_eq!(empty, nothing);
    let hostile = "</td><script>|=%#\u{202e}";
    let mut one = Stream::open(server.grpc_port, "edge-1").await;
    one.report(&[("name", "per-user"), ("user", hostile)], 0, 0).await;
    one.report(&[("name", "free")], 0, 0).await;
    let mut two = Stream::open(server.grpc_port, "edge-2").await;
    two.report(&[("name", "per-user"), ("user", "bob")], 0, 0).await;
    let list = leases(&api, "", |list| list["total"] == 2).await;
    assert_eq!(
        (&list["streams"], &list["streams_without_answer"]),
        (&2.into(), &0.into())
    );
    let all = list["leases"].as_array().expect("a list");
    let of = |name: &str| {
        all.iter()
            .find(|lease| lease["envoy"] == name)
            .expect("a lease")
            .clone()
    };
    let first = of("edge-1");
    assert_eq!(first["descriptor"][1]["value"], hostile);
    assert_eq!(
        (&first["domain"], &first["rule"]),
        (&"edge".into(), &"name_per-user.user".into())
    );
    assert_eq!((&first["used"], &first["late"]), (&0.into(), &false.into()));
    let granted = first["granted"].as_u64().expect("a number");
    assert!(granted > 0 && first["held"] == granted, "{first}");
    let ends = first["expires_in_ms"].as_u64().expect("a number");
    assert!((1..=310_000).contains(&ends), "{first}");
    let sum: u64 = all.iter().filter_map(|lease| lease["held"].as_u64()).sum();
    assert_eq!(list["held"], sum);
    // What a report says was used is not held any more.
    one.report(&[("name", "per-user"), ("user", hostile)], 5, 7).await;
    let list = leases(&api, "envoy=edge-1", |list| list["leases"][0]["held"] != granted).await;
    assert_eq!(list["total"], 1);
    for (query, total) in [
        ("domain=edge", 2),
        ("domain=other", 0),
        ("rule=name_per-user.user", 2),
        ("rule=name_free", 0),
        ("envoy=edge-2", 1),
    ] {
        assert_eq!(leases(&api, query, |_| true).await["total"], total, "{query}");
    }
    let page = leases(&api, "limit=1", |_| true).await;
    assert_eq!(
        (&page["total"], page["leases"].as_array().map(Vec::len)),
        (&2.into(), Some(1))
    );
    for bad in ["limit=0", "limit=201", "unknown=1"] {
        assert_eq!(
            api.get(&format!("/api/v1/leases?{bad}"), &[]).await.status,
            400,
            "{bad}"
        );
    }
    drop(one);
    leases(&api, "", |list| list["streams"] == 1 && list["total"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_that_are_given_while_the_store_is_away_are_told() {
    // Nobody listens there.
    let server = tokio::task::block_in_place(|| Sluicegate::start(RULES, &["--redis-url", "redis://127.0.0.1:1"]));
    let api = Client::new(server.admin_port);
    let conditions = || async { api.get("/healthcheck?details", &[]).await.json()["quotas_without_store"].clone() };
    assert_eq!(conditions().await, false);
    let mut one = Stream::open(server.grpc_port, "edge-1").await;
    one.report(&[("name", "per-user"), ("user", "bob")], 0, 0).await;
    assert_eq!(conditions().await, true);
    let metrics = api.get("/metrics", &[]).await.body;
    let is = |line: &str| metrics.lines().any(|found| found.starts_with(line));
    assert!(is("sluicegate_rlqs_streams_without_store 1"), "{metrics}");
    assert!(
        is(r#"sluicegate_rlqs_decided_without_store_total{mode="local"} "#),
        "{metrics}"
    );
    drop(one);
    tokio::time::timeout(PATIENCE, async {
        while conditions().await != false {
            tokio::time::sleep(POLL).await;
        }
    })
    .await
    .expect("told no more when the stream has gone");
}
