//! What clients, upstreams and the access log are told.

use super::{rules, start, until_denied};
use crate::support::http::Answer;

const DESCRIPTORS: &str = "  - key: remote_address
    rate_limit: { name: per-address, requests_per_unit: 3, unit: hour }
  - key: api_key
    rate_limit: { name: per-key, requests_per_unit: 2, window: 30m }";
const LISTS: &str = "  rate_limits:
    - actions: [{ remote_address: {} }]
    - actions: [{ request_headers: { header_name: x-api-key, descriptor_key: api_key } }]";

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer
        .header(header)
        .unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    text.parse().unwrap_or_else(|_| panic!("{header}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_stand_on_200_and_429_and_the_body_names_the_limit() {
    let (_service, mut envoy) = start(&rules(LISTS, DESCRIPTORS), &[], &[]);
    let client = envoy.authz_client();
    for left in [2, 1, 0] {
        let answer = client.get("/some/path?q=1", &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (200, "hello from the upstream\n")
        );
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(number(&answer, "x-ratelimit-remaining"), left);
        assert!((3600..=7200).contains(&number(&answer, "x-ratelimit-reset")));
        assert_eq!(answer.header("ratelimit-policy"), Some("\"per-address\";q=3;w=3600"));
        let state = answer.header("ratelimit").expect("ratelimit");
        assert!(state.starts_with(&format!("\"per-address\";r={left};t=")), "{state}");
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    }
    let denied = client.get("/", &[]).await;
    assert_eq!(denied.status, 429);
    assert_eq!(number(&denied, "x-ratelimit-remaining"), 0);
    let retry = number(&denied, "retry-after");
    assert!((3600..=3800).contains(&retry), "{retry}");
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    let body = denied.json();
    assert_eq!(body["status"], 429);
    assert_eq!(
        body["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(body["violated-policies"][0]["name"], "per-address");
    assert_eq!(body["violated-policies"][0]["limit"], 3);
    assert_eq!(body["retry-after"], retry);
    let line = envoy.wait_for_access(&["status=429", "flags=UAEX"]);
    assert!(
        line.contains(r#""rule":"per-address""#) && line.contains(r#""domain":"demo""#),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_lists_limit_together_and_a_denial_takes_nothing() {
    let (_service, envoy) = start(&rules(LISTS, DESCRIPTORS), &[], &[]);
    let client = envoy.authz_client();
    let key = [("x-api-key", "k")];
    for _ in 0..2 {
        let answer = client.get("/", &key).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.header("ratelimit-policy"),
            Some("\"per-address\";q=3;w=3600, \"per-key\";q=2;w=1800")
        );
    }
    for _ in 0..5 {
        let denied = client.get("/", &key).await;
        assert_eq!(denied.status, 429);
        assert_eq!(denied.json()["violated-policies"][0]["name"], "per-key");
        // The tightest: the one that denies.
        assert_eq!(denied.header("x-ratelimit-limit"), Some("2"));
    }
    // The address's own limit lost two hits, not seven.
    let (passed, denied) = until_denied(&client, "/", &[]).await;
    assert_eq!((passed, denied.status.as_u16()), (1, 429));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_is_shared_with_the_rate_limit_filter() {
    let (_service, envoy) = start(&rules(LISTS, DESCRIPTORS), &[], &[]);
    assert_eq!(envoy.client().get("/", &[]).await.status, 200);
    assert_eq!(envoy.authz_client().get("/", &[]).await.status, 200);
    assert_eq!(envoy.client().get("/", &[]).await.status, 200);
    assert_eq!(envoy.authz_client().get("/", &[]).await.status, 429);
    assert_eq!(envoy.client().get("/", &[]).await.status, 429);
}

/// An upstream that says what it was sent, and claims limits of its own.
const TELLING: (&str, &str) = (
    "body: { inline_string: \"hello from the upstream\\n\" }\n",
    "body: { inline_string: \"hello from the upstream\\n\" }
                          response_headers_to_add:
                            - header: { key: x-ratelimit-limit, value: \"999\" }
                            - header: { key: x-saw, value: \"%REQ(x-ratelimit-limit)%|%REQ(x-ratelimit-mine)%|%REQ(ratelimit)%|%REQ(x-quota)%|%REQ(x-other)%\" }
",
);

#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_do_not_reach_the_upstream_and_ours_may() {
    let forged = [
        ("x-ratelimit-limit", "1000000"),
        ("X-RateLimit-Mine", "yes"),
        ("ratelimit", "\"vip\";r=1000000;t=1"),
        ("x-quota", "forged"),
        ("x-other", "kept"),
    ];
    let (_service, envoy) = start(&rules(LISTS, DESCRIPTORS), &[], &[TELLING]);
    let answer = envoy.authz_client().get("/", &forged).await;
    assert_eq!(answer.header("x-saw"), Some("|||forged|kept"));
    // One value: ours in place of the upstream's.
    assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));

    let told = format!("  answers: {{ upstream_header: x-quota, headers: [retry_after] }}\n{LISTS}");
    let (_service, envoy) = start(&rules(&told, DESCRIPTORS), &[], &[TELLING]);
    let answer = envoy.authz_client().get("/", &forged).await;
    let saw = answer.header("x-saw").expect("x-saw");
    assert!(
        saw.starts_with("|||\"per-address\";r=2;t=") && saw.ends_with("|kept"),
        "{saw}"
    );
    assert_eq!(answer.header("ratelimit"), None);
    assert_eq!(
        answer.header("x-ratelimit-limit"),
        Some("999"),
        "the upstream's own, since ours is off"
    );

    // No limit applies: the name is still ours to say.
    let nobody = told.replace("- actions: [{ remote_address: {} }]\n    ", "");
    let (_service, envoy) = start(&rules(&nobody, DESCRIPTORS), &[], &[TELLING]);
    let answer = envoy.authz_client().get("/", &forged).await;
    assert_eq!(answer.header("x-saw"), Some("||||kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_looks_as_configured() {
    let section =
        format!("  answers: {{ denied_status: 503, headers: [], body: false, dynamic_metadata: true }}\n{LISTS}");
    let (_service, mut envoy) = start(&rules(&section, DESCRIPTORS), &[], &[]);
    let (passed, denied) = until_denied(&envoy.authz_client(), "/", &[]).await;
    assert_eq!((passed, denied.status.as_u16(), denied.body.as_str()), (3, 503, ""));
    for header in ["x-ratelimit-limit", "ratelimit", "retry-after", "grpc-status"] {
        assert_eq!(denied.header(header), None, "{header}");
    }
    let line = envoy.wait_for_access(&["status=200"]);
    assert!(
        line.contains(r#""rule":"per-address""#) && line.contains(r#""code":"OK""#),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_mode_counts_and_lets_pass() {
    let (_service, mut envoy) = start(
        &rules(
            LISTS,
            &DESCRIPTORS.replace("rate_limit:", "shadow_mode: true\n    rate_limit:"),
        ),
        &[],
        &[],
    );
    for _ in 0..5 {
        assert_eq!(envoy.authz_client().get("/", &[]).await.status, 200);
    }
    envoy.wait_for_access(&["status=200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_come_from_where_the_list_says() {
    let section = "  rate_limits:
    - match: { path: /cost }
      hits_addend: { header: { name: x-cost, max: 3 } }
      actions: [{ remote_address: {} }]
    - match: { path: /fixed }
      hits_addend: 2
      actions: [{ request_headers: { header_name: x-id, descriptor_key: api_key } }]
    - match: { path: /upload }
      hits_addend: { content_length: { bytes_per_hit: 10 } }
      actions: [{ request_headers: { header_name: x-id, descriptor_key: api_key } }]";
    let (_service, envoy) = start(&rules(section, DESCRIPTORS), &[], &[]);
    let client = envoy.authz_client();
    let costly = client.get("/cost", &[("x-cost", "2")]).await;
    assert_eq!(costly.header("x-ratelimit-remaining"), Some("1"));
    assert_eq!(client.get("/cost", &[("x-cost", "1000")]).await.status, 429);
    assert_eq!(
        client
            .get("/cost", &[("x-cost", "-5")])
            .await
            .header("x-ratelimit-remaining"),
        Some("0")
    );
    let fixed = client.get("/fixed", &[("x-id", "f")]).await;
    assert_eq!(fixed.header("x-ratelimit-remaining"), Some("0"));
    let small = client.post("/upload", &[("x-id", "u")], "10 bytes..").await;
    assert_eq!(small.header("x-ratelimit-remaining"), Some("1"));
    let large = client.post("/upload", &[("x-id", "u")], "more than 10 bytes").await;
    assert_eq!(large.status, 429);
    // 18 bytes are 2 hits, and 3 could never pass.
    let never = client
        .post("/upload", &[("x-id", "v")], "more than 20 bytes, so never")
        .await;
    assert_eq!((never.status.as_u16(), never.header("retry-after")), (429, None));
}
