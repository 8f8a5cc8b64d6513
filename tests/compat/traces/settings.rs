//! The variables alone.

use std::{collections::BTreeMap, time::Duration};

use sluicegate::config::settings::{Notice, OtlpProtocol, Settings, SettingsErrors, SpanBatches, TraceSettings};
use sluicegate::tls::ClientTls;

fn read(variables: &[(&str, &str)]) -> Result<(Settings, Vec<Notice>), SettingsErrors> {
    let env: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Settings::from_ratelimit_env(|name| env.get(name).map(|value| (*value).to_owned()))
}

fn traced(variables: &[(&str, &str)]) -> (TraceSettings, Vec<Notice>) {
    let (settings, notices) = read(&[&[("TRACING_ENABLED", "true")], variables].concat())
        .unwrap_or_else(|errors| panic!("{variables:?}: {errors}"));
    (settings.telemetry.traces.expect("traces"), notices)
}

#[test]
fn without_more_spans_go_to_a_collector_on_this_host() {
    assert_eq!(read(&[]).expect("good").0.telemetry.traces, None);
    let (traces, notices) = traced(&[]);
    assert_eq!(notices, []);
    assert_eq!(
        (traces.service_name.as_str(), traces.service_namespace.as_str()),
        ("RateLimit", "")
    );
    assert_eq!(
        (traces.service_instance_id, traces.batches),
        (None, SpanBatches::default())
    );
    assert!((traces.sampling_rate - 1.0).abs() < f64::EPSILON);
    let otlp = traces.otlp;
    assert_eq!(
        (otlp.protocol, otlp.address.as_str(), otlp.path.as_str()),
        (OtlpProtocol::Http, "localhost:4318", "/v1/traces")
    );
    assert_eq!(
        (otlp.tls, otlp.headers.len(), otlp.gzip, otlp.timeout),
        (None, 0, false, Duration::from_secs(10))
    );
    let grpc = traced(&[("TRACING_EXPORTER_PROTOCOL", "grpc")]).0.otlp;
    assert_eq!((grpc.address.as_str(), grpc.path.as_str()), ("localhost:4317", "/"));
}

#[test]
fn endpoints() {
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    for (variables, address, path, secure) in [
        (&[(ALL, "http://c:1")][..], "c:1", "/v1/traces", false),
        (&[(ALL, "http://c/")], "c:80", "/v1/traces", false),
        (&[(ALL, "HTTPS://c/a/")], "c:443", "/a/v1/traces", true),
        (&[(OWN, "https://[::1]:1")], "[::1]:1", "/", true),
        (
            &[(OWN, "http://c:1/own"), (ALL, "https://other:2/x")],
            "c:1",
            "/own",
            false,
        ),
        (
            &[(ALL, "https://c:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
            "c:1",
            "/v1/traces",
            false,
        ),
        (
            &[
                (ALL, "http://c"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
                ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
            ],
            "c:443",
            "/v1/traces",
            true,
        ),
    ] {
        let otlp = traced(variables).0.otlp;
        assert_eq!(
            (otlp.address.as_str(), otlp.path.as_str(), otlp.tls.is_some()),
            (address, path, secure),
            "{variables:?}"
        );
    }
    let grpc = traced(&[("TRACING_EXPORTER_PROTOCOL", "grpc"), (ALL, "http://c:4317/")])
        .0
        .otlp;
    assert_eq!((grpc.address.as_str(), grpc.path.as_str()), ("c:4317", "/"));
}

#[test]
fn the_one_for_traces_goes_before_the_one_for_all() {
    let (traces, notices) = traced(&[
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", " Api-Key = s3cret%3D= "),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own-ca"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
    ]);
    assert_eq!(notices, []);
    let otlp = &traces.otlp;
    assert_eq!(
        (otlp.protocol, otlp.timeout, otlp.gzip),
        (OtlpProtocol::Grpc, Duration::from_millis(250), false)
    );
    let headers: Vec<_> = otlp
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(headers, [("api-key", "s3cret==")]);
    assert!(!format!("{traces:?}").contains("s3cret"));
    let tls = ClientTls {
        ca: Some("/own-ca".into()),
        identity: Some(("/cert".into(), "/key".into())),
        server_name: None,
    };
    assert_eq!(otlp.tls, Some(tls));
    let batches = SpanBatches {
        max_waiting: 10,
        max_spans: 10,
        delay: Duration::from_millis(100),
    };
    assert_eq!(traces.batches, batches);
}

#[test]
fn what_has_no_effect_is_said() {
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "no URL"), ("TRACING_SERVICE_NAME", "x")];
    let (settings, notices) = read(&off).expect("good");
    assert_eq!(settings.telemetry.traces, None);
    let names: Vec<_> = notices.iter().map(|notice| notice.name).collect();
    assert_eq!(names, ["TRACING_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    let (traces, notices) = traced(&[
        ("TRACING_EXPORTER_PROTOCOL", "http"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
    ]);
    assert_eq!((traces.otlp.protocol, traces.otlp.tls), (OtlpProtocol::Http, None));
    let names: Vec<_> = notices.iter().map(|notice| notice.name).collect();
    assert_eq!(names, ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_CERTIFICATE"]);
}

/// Wrong variables, and part of what the error says.
const WRONG: &[(&[(&str, &str)], &str)] = &[
    (&[("TRACING_SAMPLING_RATE", "1.5")], "from 0 to 1"),
    (&[("TRACING_SAMPLING_RATE", "NaN")], "from 0 to 1"),
    (&[("TRACING_EXPORTER_PROTOCOL", "GRPC")], "http and grpc"),
    (
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
        "http/protobuf and grpc",
    ),
    (
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")],
        "such as http://collector:4318",
    ),
    (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999")], "host and port"),
    (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:1")], "host and port"),
    (
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://c")],
        "http:// or https://",
    ),
    (
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2@c")],
        "a login is not taken",
    ),
    (
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/v1/traces"),
        ],
        "gRPC takes no path",
    ),
    (&[("OTEL_EXPORTER_OTLP_INSECURE", "maybe")], "true and false"),
    (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], "gzip and none"),
    (&[("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")], "milliseconds"),
    (&[("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0")], "milliseconds"),
    (&[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], "name=value"),
    (&[("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2")], "HTTP header name"),
    (&[("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0a%0ax")], "no header value"),
    (&[("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=hunter2%ff")], "no UTF-8"),
    (
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k"),
        ],
        "come together",
    ),
    (&[("OTEL_BSP_MAX_QUEUE_SIZE", "0")], "from 1 to 100000"),
    (&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100001")], "from 1 to 100000"),
    (&[("OTEL_RESOURCE_ATTRIBUTES", "zone")], "name=value"),
];

#[test]
fn wrong_values_stop_the_start_and_secrets_are_not_repeated() {
    let long = "x".repeat(2000);
    let too_long = [("TRACING_SERVICE_NAME", long.as_str())];
    for (variables, said) in WRONG.iter().copied().chain([(&too_long[..], "1024 bytes")]) {
        let found = read(&[&[("TRACING_ENABLED", "true")], variables].concat())
            .expect_err("wrong")
            .0;
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        let name = variables.last().expect("a variable").0;
        assert!(lines.len() == 1 && lines[0].contains(said), "{variables:?}: {lines:?}");
        assert!(lines[0].starts_with(name) || name.ends_with("CLIENT_KEY"), "{lines:?}");
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
        // Nobody reads them while nothing is traced.
        read(variables).expect("good");
    }
    let (_, notices) =
        TraceSettings::from_variables(|name| name.ends_with("CLIENT_KEY").then(|| "/k".into())).expect("good");
    assert!(
        notices[0]
            .to_string()
            .ends_with("has no effect: traces are sent without TLS"),
        "{notices:?}"
    );
    let flag = TraceSettings::from_variables(|name| (name == "TRACING_SAMPLING_RATE").then(|| "x".into()));
    assert!(
        flag.expect_err("wrong")
            .to_string()
            .starts_with("TRACING_SAMPLING_RATE=\"x\"")
    );
}
