//! A real Envoy that traces: its spans and ours are one trace.

use super::{Collector, SPAN, Server, TRACE, hex, traceparent};
use crate::support::envoy::{Envoy, PATIENT};

/// Envoy's tracer, for an HTTP connection manager.
const TRACER: &str = r#"
                tracing:
                  provider:
                    name: envoy.tracers.opentelemetry
                    typed_config:
                      "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                      service_name: envoy
                      grpc_service: { envoy_grpc: { cluster_name: collector } }
"#;

fn cluster(port: u16) -> String {
    format!(
        r#"  clusters:
    - name: collector
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment:
        cluster_name: collector
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn our_spans_are_children_of_envoys() {
    let mut collector = Collector::grpc(0, None).await;
    let url = format!("http://127.0.0.1:{}", collector.port);
    // No decision of our own: Envoy says that the trace is sampled.
    let variables = [("TRACING_EXPORTER_PROTOCOL", "grpc"), ("TRACING_SAMPLING_RATE", "0")];
    let server = Server::start(&url, &variables).await;
    let [front, authz] = ["front", "front_ext_authz"].map(|name| format!("stat_prefix: {name}\n"));
    let traced = |door: &str| format!("{door}{}", TRACER.trim_start_matches('\n'));
    let changes = [
        PATIENT,
        ("domain: demo", "domain: shop"),
        ("  clusters:\n", &cluster(collector.port)),
        (&front, &traced(&front)),
        (&authz, &traced(&authz)),
    ];
    let envoy = Envoy::start(server.process.grpc_port, &changes);
    let parent = traceparent(true);
    for (client, call) in [
        (
            envoy.client(),
            "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
        ),
        (envoy.authz_client(), "envoy.service.auth.v3.Authorization/Check"),
    ] {
        let answer = client.get("/", &[("traceparent", &parent)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (mut ours, mut theirs) = (None, Vec::new());
        while ours.as_ref().is_none_or(|parent| !theirs.contains(parent)) {
            let (_, span) = collector.next().await;
            assert_eq!(hex(&span.trace_id), TRACE);
            if span.name == call {
                ours = Some(hex(&span.parent_span_id));
            } else {
                theirs.push(hex(&span.span_id));
            }
        }
        assert_ne!(
            ours.as_deref(),
            Some(SPAN),
            "Envoy's own span is between the client's and ours"
        );
    }
}
