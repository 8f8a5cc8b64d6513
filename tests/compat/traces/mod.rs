//! `TRACING_…` and `OTEL_EXPORTER_OTLP_…`: the real binary, real collectors.

mod collector;
mod envoy;
mod scene;
mod settings;
mod trust;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use prost::Message;
use sluicegate::{proto::envoy::service::ratelimit::v3::rate_limit_response::Code, tls::ServerTls};

use crate::support::{
    certs::{Ca, Volume},
    process::{Process, free_port},
    ratelimit::command,
};
use collector::{Batch, Collector, assert_says, texts};
use scene::{Server, rules};

/// What nobody but the limiter may hear of.
const PERSON: &str = "jane.doe@example.com";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{SPAN}-0{}", u8::from(sampled))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_decisions_over_grpc() {
    let mut collector = Collector::grpc(0, None).await;
    let url = format!("http://127.0.0.1:{}", collector.port);
    let mut server = Server::start(
        &url,
        &[
            // Whatever any library says.
            ("LOG_LEVEL", "trace"),
            ("TRACING_EXPORTER_PROTOCOL", "grpc"),
            ("TRACING_SERVICE_NAME", "limits"),
            ("TRACING_SERVICE_NAMESPACE", "edge"),
            ("TRACING_SERVICE_INSTANCE_ID", "pod-1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=n%201,service.name=not-this"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cret,x-team=a"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ],
    )
    .await;
    let parent = traceparent(true);
    let state = [("traceparent", parent.as_str()), ("tracestate", "vendor=x")];
    assert_eq!(server.ask("shop", &state).await.expect("an answer"), Code::Ok);
    let (batch, span) = collector.next().await;
    assert_eq!(span.name, "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (TRACE.into(), SPAN.into())
    );
    assert_eq!(
        (span.kind, span.trace_state.as_str()),
        (2, "vendor=x"),
        "a server's span"
    );
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    assert_says(
        &span.attributes,
        &[
            ("rpc.system", "grpc"),
            ("rpc.service", "envoy.service.ratelimit.v3.RateLimitService"),
            ("rpc.method", "ShouldRateLimit"),
            ("rpc.grpc.status_code", "0"),
            ("sluicegate.domain", "shop"),
            ("sluicegate.code", "OK"),
        ],
    );
    assert!(!texts(&span.attributes).contains_key("sluicegate.rule"));
    let resource = batch.request.resource_spans[0].resource.as_ref().expect("a resource");
    assert_says(
        &resource.attributes,
        &[
            ("service.name", "limits"),
            ("service.namespace", "edge"),
            ("service.instance.id", "pod-1"),
            ("k8s.node.name", "n 1"),
        ],
    );
    assert_eq!(batch.headers["authorization"], "Bearer s3cret");
    assert_eq!(
        (&batch.headers["x-team"], &batch.headers["grpc-encoding"]),
        (&"a".parse().expect("ASCII"), &"gzip".parse().expect("ASCII"))
    );

    let denied = denied_and_bad_requests(&mut server, &mut collector).await;
    for batch in [batch, denied] {
        let bytes = batch.request.encode_to_vec();
        let told = bytes.windows(PERSON.len()).any(|bytes| bytes == PERSON.as_bytes());
        assert!(!told, "{batch:?}");
    }
    let log = server.process.process.log();
    assert!(
        log.contains("a span of each call is sent") && !log.contains("s3cret"),
        "{log}"
    );
}

/// A denial, a domain that is none, one that would break a line: what is bad is the client's, not an error of ours.
async fn denied_and_bad_requests(server: &mut Server, collector: &mut Collector) -> Batch {
    assert_eq!(server.ask("shop", &[]).await.expect("an answer"), Code::OverLimit);
    let (denied, span) = collector.next().await;
    let said = texts(&span.attributes);
    assert_eq!(
        (said["sluicegate.code"].as_str(), said["sluicegate.rule"].as_str()),
        ("OVER_LIMIT", "per-user")
    );
    assert!(span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE);
    assert_eq!(
        server.ask("", &[]).await.expect_err("no domain").code(),
        tonic::Code::InvalidArgument
    );
    let (_, span) = collector.next().await;
    assert_eq!(texts(&span.attributes)["rpc.grpc.status_code"], "3");
    assert_eq!(span.status.expect("a status").code, 0);
    let hostile = format!("a\n\u{1b}[2J{}", "x".repeat(500));
    server.ask(&hostile, &[]).await.expect("an answer");
    let (_, span) = collector.next().await;
    let domain = &texts(&span.attributes)["sluicegate.domain"];
    assert!(
        domain.starts_with("a\\n\\u{1b}[2Jx") && domain.len() < 200,
        "{domain:?}"
    );
    denied
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_checks_over_http() {
    for compression in ["none", "gzip"] {
        let mut collector = Collector::http(0).await;
        let url = format!("http://127.0.0.1:{}/otlp/", collector.port);
        let variables = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=not-this"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-token=a%2Cs3cret"),
            ("LOG_LEVEL", "trace"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
        ];
        let mut server = Server::start(&url, &variables).await;
        assert_eq!((server.check().await, server.check().await), (0, 8));
        for (code, rule) in [("OK", None), ("OVER_LIMIT", Some("per-user"))] {
            let (batch, span) = collector.next().await;
            assert_eq!(span.name, "envoy.service.auth.v3.Authorization/Check");
            assert_eq!(
                (hex(&span.trace_id), hex(&span.parent_span_id)),
                (TRACE.into(), SPAN.into())
            );
            let said = texts(&span.attributes);
            assert_eq!(
                (said["sluicegate.domain"].as_str(), said["sluicegate.code"].as_str()),
                ("shop", code)
            );
            assert_eq!(said.get("sluicegate.rule").map(String::as_str), rule);
            assert_eq!(
                (batch.path.as_str(), &batch.headers["x-token"]),
                ("/otlp/v1/traces", &"a,s3cret".parse().expect("ASCII"))
            );
            assert_eq!(batch.headers["content-type"], "application/x-protobuf");
            let encoding = batch
                .headers
                .get("content-encoding")
                .map(|value| value.to_str().expect("ASCII"));
            assert_eq!(encoding, (compression == "gzip").then_some("gzip"));
            let resource = batch.request.resource_spans[0].resource.as_ref().expect("a resource");
            let resource = texts(&resource.attributes);
            assert_eq!(
                (resource["service.name"].as_str(), resource["service.instance.id"].len()),
                ("RateLimit", 36)
            );
        }
        assert_eq!(server.lines("s3cret"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_an_error_of_ours() {
    let mut collector = Collector::http(0).await;
    let url = format!("http://127.0.0.1:{}", collector.port);
    // Rules that never come.
    let variables = [
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", "127.0.0.1:1"),
        ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
    ];
    let mut server = Server::start(&url, &variables).await;
    let refused = server.ask("shop", &[]).await.expect_err("no rules");
    let (_, span) = collector.next().await;
    let said = texts(&span.attributes);
    assert_eq!(said["rpc.grpc.status_code"], "14");
    let status = span.status.expect("a status");
    assert_eq!((status.code, status.message.as_str()), (2, refused.message()));
    // The other service answers by the failure mode, so that nothing failed.
    assert_eq!(server.check().await, 0);
    let (_, span) = collector.next().await;
    let said = texts(&span.attributes);
    assert_eq!(
        (said["rpc.grpc.status_code"].as_str(), said["sluicegate.code"].as_str()),
        ("0", "UNKNOWN")
    );
    assert_eq!(
        (
            said["sluicegate.reason"].as_str(),
            said["sluicegate.failure_mode"].as_str()
        ),
        ("no_configuration", "allow")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_decision_goes_before_the_sampling_rate() {
    let (sampled, not) = (traceparent(true), traceparent(false));
    for rate in ["0", "1"] {
        let mut collector = Collector::http(0).await;
        let url = format!("http://127.0.0.1:{}", collector.port);
        let mut server = Server::start(&url, &[("TRACING_SAMPLING_RATE", rate)]).await;
        for _ in 0..20 {
            server
                .ask("unsampled", &[("traceparent", &not)])
                .await
                .expect("an answer");
            if rate == "0" {
                server.ask("nobody", &[]).await.expect("an answer");
            }
        }
        server
            .ask("sampled", &[("traceparent", &sampled)])
            .await
            .expect("an answer");
        // Spans leave in the order in which their calls ended.
        let (_, span) = collector.next().await;
        assert_eq!(texts(&span.attributes)["sluicegate.domain"], "sampled", "{rate}");
        assert!(collector.is_empty());
        server.wait_for_count("sent", 1).await;
        assert_eq!(server.counted("sent").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_stops_nothing_and_is_said_once() {
    for protocol in ["grpc", "http"] {
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let variables = [
            ("TRACING_EXPORTER_PROTOCOL", protocol),
            // The default: the end is heard where the beginning was.
            ("LOG_LEVEL", "warn"),
            // Long enough for new attempts, so that spans wait.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ];
        let mut server = Server::start(&url, &variables).await;
        let start = Instant::now();
        while server.counted("failed").await < 3 || server.counted("dropped").await < 3 {
            assert!(start.elapsed() < PATIENCE, "{}", server.process.process.log());
            for _ in 0..20 {
                server.ask("shop", &[]).await.expect("an answer");
            }
        }
        let log = server.process.process.log();
        assert_eq!(server.lines("spans cannot be sent"), 1, "{log}");
        assert!(log.contains("Connection refused"), "{log}");
        let mut collector = match protocol {
            "grpc" => Collector::grpc(port, None).await,
            _ => Collector::http(port).await,
        };
        while server.lines("the trace collector is back") == 0 {
            assert!(start.elapsed() < PATIENCE * 2, "{}", server.process.process.log());
            server.ask("shop", &[]).await.expect("an answer");
        }
        collector.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_process_sends_what_waits_but_not_for_ever() {
    const NEVER: &str = "3600000";
    for protocol in ["grpc", "http"] {
        let mut collector = match protocol {
            "grpc" => Collector::grpc(0, None).await,
            _ => Collector::http(0).await,
        };
        let variables = [
            ("TRACING_EXPORTER_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", NEVER),
        ];
        let url = format!("http://127.0.0.1:{}", collector.port);
        let mut server = Server::start(&url, &variables).await;
        for _ in 0..3 {
            server.ask("shop", &[]).await.expect("an answer");
        }
        assert!(collector.is_empty());
        server.process.process.signal("TERM");
        assert!(server.process.process.wait_for_exit().success());
        for _ in 0..3 {
            collector.next().await;
        }

        // One that takes connections and says nothing.
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://127.0.0.1:{}", mute.local_addr().expect("an address").port());
        let mut server = Server::start(
            &url,
            &[&variables[..], &[("OTEL_EXPORTER_OTLP_TIMEOUT", NEVER)]].concat(),
        )
        .await;
        server.ask("shop", &[]).await.expect("an answer");
        server.process.process.signal("TERM");
        assert!(server.process.process.wait_for_exit().success());
        assert_eq!(server.lines("the last spans could not be sent"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_with_tls() {
    let ca = Ca::new("collectors");
    let files = Volume::new(&ca.issue(&["127.0.0.1"]).files(&ca.pem()));
    let path = |name: &str| files.path(name).display().to_string();
    let (cert, key, ca_file) = (path("tls.crt"), path("tls.key"), path("ca.crt"));
    let tls = ServerTls {
        cert: files.path("tls.crt"),
        key: files.path("tls.key"),
        client_ca: Some(files.path("ca.crt")),
        client_sans: Vec::new(),
    };
    for protocol in ["grpc", "http"] {
        let mut collector = match protocol {
            "grpc" => Collector::grpc(0, Some((&ca.issue(&["127.0.0.1"]), &ca.pem()))).await,
            _ => Collector::https(&tls).await,
        };
        let url = format!("https://127.0.0.1:{}", collector.port);
        let trusting = [
            ("TRACING_EXPORTER_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_file.as_str()),
        ];
        let known = [
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", cert.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", &key),
        ];
        let mut server = Server::start(&url, &[trusting, known].concat()).await;
        server.ask("shop", &[]).await.expect("an answer");
        collector.next().await;

        let mut stranger = Server::start(&url, &trusting).await;
        stranger.ask("shop", &[]).await.expect("an answer");
        let failed = |process: &Process| process.log().contains("spans cannot be sent");
        stranger.process.process.wait_until("refused", failed);
        assert!(collector.is_empty());
    }
}

#[test]
fn a_start_that_cannot_trace_says_why() {
    let dir = rules();
    let root = dir.path().display().to_string();
    let missing = Path::new(&root).join("no.pem").display().to_string();
    for (name, value, said) in [
        ("TRACING_SAMPLING_RATE", "2", "0 to 1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", missing.as_str(), "no.pem"),
    ] {
        let (mut command, _link) = command();
        let output = command
            .env("RUNTIME_ROOT", &root)
            .envs([
                ("GRPC_PORT", "0"),
                ("PORT", "0"),
                ("DEBUG_PORT", "0"),
                ("TRACING_ENABLED", "true"),
            ])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1")
            .env(name, value)
            .output()
            .expect("it ends");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && log.contains(said), "{name}: {log}");
        assert!(
            log.contains(name) || log.contains("OTEL_EXPORTER_OTLP_"),
            "{name}: {log}"
        );
    }
}
