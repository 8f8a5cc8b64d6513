//! `TRACING_…`, and what OpenTelemetry defines for exporters: `OTEL_EXPORTER_OTLP_…` (a variable for traces goes before
//! the one for all signals), `OTEL_BSP_…`, `OTEL_RESOURCE_ATTRIBUTES`.
//!
//! As the exporters that envoyproxy/ratelimit is built with read them, but that a wrong value stops the start.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use percent_encoding::percent_decode_str;

use super::super::errors::SettingsErrors;
use super::super::reader::{Notice, Reader};
use super::super::secret::Secret;
use super::super::setting::Topic;
use super::super::traces::{OtlpProtocol, OtlpSettings, SpanBatches, TraceSettings};
use super::super::values;
use crate::tls::ClientTls;

// For traces, for all signals.
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const INSECURE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const COMPRESSION: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
/// CA, certificate and key for traces, then for all signals.
const CERTIFICATES: [&str; 6] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

/// Spans that may wait at most.
const MAX_WAITING: usize = 100_000;
/// Longest text of a resource's attribute, in bytes.
const MAX_ATTRIBUTE: usize = 1024;

impl TraceSettings {
    /// What they say where a flag has turned tracing on.
    ///
    /// # Errors
    /// Every value that is not allowed, with what is.
    pub fn from_variables(env: impl Fn(&str) -> Option<String>) -> Result<(Self, Vec<Notice>), SettingsErrors> {
        let mut reader = Reader::new(&env, str::to_owned);
        let settings = enabled(&mut reader);
        reader.finish(settings)
    }
}

/// What they say; `None` if nothing is traced.
pub(super) fn settings(reader: &mut Reader<'_>) -> Option<TraceSettings> {
    if !reader.truth("TRACING_ENABLED") {
        reader.idle_topic(Topic::Traces, &["TRACING_ENABLED"], "TRACING_ENABLED is not true");
        return None;
    }
    Some(enabled(reader))
}

fn enabled(reader: &mut Reader<'_>) -> TraceSettings {
    let resource = reader.parse("OTEL_RESOURCE_ATTRIBUTES", |text| decoded(text, "an attribute"));
    TraceSettings {
        service_name: attribute(reader, "TRACING_SERVICE_NAME").unwrap_or_else(|| "RateLimit".into()),
        service_namespace: attribute(reader, "TRACING_SERVICE_NAMESPACE").unwrap_or_default(),
        service_instance_id: attribute(reader, "TRACING_SERVICE_INSTANCE_ID"),
        resource: resource.unwrap_or_default(),
        sampling_rate: reader.parse("TRACING_SAMPLING_RATE", sampling_rate).unwrap_or(1.0),
        batches: batches(reader),
        otlp: otlp(reader),
    }
}

fn attribute(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    reader.parse(name, |text| within(text).map(str::to_owned))
}

fn within(text: &str) -> Result<&str, String> {
    if text.len() > MAX_ATTRIBUTE {
        Err(format!("allowed are {MAX_ATTRIBUTE} bytes"))
    } else {
        Ok(text)
    }
}

fn sampling_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.0..=1.0).contains(rate))
        .ok_or_else(|| "allowed is a number from 0 to 1, such as 0.1".into())
}

fn batches(reader: &mut Reader<'_>) -> SpanBatches {
    let mut batches = SpanBatches::default();
    let count = |text: &str| {
        let count = values::at_least_one::<u64>(text).ok();
        count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= MAX_WAITING)
            .ok_or_else(|| format!("allowed is a whole number from 1 to {MAX_WAITING}"))
    };
    reader.set(&mut batches.max_waiting, "OTEL_BSP_MAX_QUEUE_SIZE", count);
    reader.set(&mut batches.max_spans, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", count);
    batches.max_spans = batches.max_spans.min(batches.max_waiting);
    reader.set(&mut batches.delay, "OTEL_BSP_SCHEDULE_DELAY", millis);
    batches
}

/// As OpenTelemetry has its durations.
fn millis(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(millis @ 1..) => Ok(Duration::from_millis(millis.into())),
        _ => Err("allowed is a number of milliseconds without a unit, such as 10000".into()),
    }
}

fn otlp(reader: &mut Reader<'_>) -> OtlpSettings {
    let protocol = protocol(reader);
    let base = endpoint(reader, ENDPOINT[1]);
    let own = endpoint(reader, ENDPOINT[0]);
    let path = match (&own, &base) {
        (Some(own), _) => own.path.clone(),
        (None, Some(base)) => format!("{}/v1/traces", base.path.trim_end_matches('/')),
        (None, None) => "/v1/traces".to_owned(),
    };
    let insecure = either(reader, INSECURE, values::boolean);
    let name = ENDPOINT[usize::from(own.is_none())];
    let (secure, address, path) = match own.or(base) {
        None => {
            let secure = insecure == Some(false);
            (secure, format!("localhost:{}", protocol.port()), path)
        }
        Some(endpoint) => {
            if protocol == OtlpProtocol::Grpc && endpoint.path != "/" {
                reader.problem(
                    name,
                    "gRPC takes no path behind the port; TRACING_EXPORTER_PROTOCOL=http does",
                );
            }
            let secure = insecure.map_or(endpoint.secure, |insecure| !insecure);
            let port = endpoint.port.unwrap_or(if secure { 443 } else { 80 });
            (secure, format!("{}:{port}", endpoint.host), path)
        }
    };
    let tls = tls(reader, secure);
    OtlpSettings {
        protocol,
        address,
        path: if protocol == OtlpProtocol::Grpc {
            "/".into()
        } else {
            path
        },
        tls,
        headers: headers(reader),
        gzip: either(reader, COMPRESSION, compression).unwrap_or(false),
        timeout: either(reader, TIMEOUT, millis).unwrap_or(Duration::from_secs(10)),
    }
}

/// The one for traces, else the one for all signals; both must be right.
fn either<T>(reader: &mut Reader<'_>, names: [&str; 2], parse: fn(&str) -> Result<T, String>) -> Option<T> {
    let [own, general] = names.map(|name| reader.parse(name, parse));
    own.or(general)
}

fn protocol(reader: &mut Reader<'_>) -> OtlpProtocol {
    let ours = reader.parse("TRACING_EXPORTER_PROTOCOL", |text| match text {
        "http" => Ok(OtlpProtocol::Http),
        "grpc" => Ok(OtlpProtocol::Grpc),
        _ => Err("allowed are http and grpc".into()),
    });
    if ours.is_some() {
        // Not read, so not wrong: others may need it.
        reader.idle(&PROTOCOL, "TRACING_EXPORTER_PROTOCOL says it");
        return ours.unwrap_or(OtlpProtocol::Http);
    }
    let theirs = either(reader, PROTOCOL, |text| match text {
        "http/protobuf" => Ok(OtlpProtocol::Http),
        "grpc" => Ok(OtlpProtocol::Grpc),
        _ => Err("allowed are http/protobuf and grpc (TRACING_EXPORTER_PROTOCOL goes before it)".into()),
    });
    theirs.unwrap_or(OtlpProtocol::Http)
}

/// Where a collector is.
struct Endpoint {
    secure: bool,
    host: String,
    port: Option<u16>,
    path: String,
}

fn endpoint(reader: &mut Reader<'_>, name: &str) -> Option<Endpoint> {
    if reader.text(name).is_some_and(|text| text.contains('@')) {
        reader.problem(
            name,
            "a login is not taken here; OTEL_EXPORTER_OTLP_HEADERS can carry one",
        );
        return None;
    }
    reader.parse(name, |text| {
        url(text)
            .ok_or_else(|| "allowed is http:// or https:// with host and port, such as http://collector:4318".into())
    })
}

fn url(text: &str) -> Option<Endpoint> {
    let uri: Uri = text.parse().ok()?;
    let secure = match uri.scheme()? {
        scheme if *scheme == Scheme::HTTP => false,
        scheme if *scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let has_port = authority.as_str().len() > authority.host().len();
    if authority.host().is_empty() || has_port != authority.port_u16().is_some() || uri.query().is_some() {
        return None;
    }
    Some(Endpoint {
        secure,
        host: authority.host().to_owned(),
        port: authority.port_u16(),
        path: uri.path().to_owned(),
    })
}

fn tls(reader: &mut Reader<'_>, secure: bool) -> Option<ClientTls> {
    if !secure {
        reader.idle(&CERTIFICATES, "traces are sent without TLS");
        return None;
    }
    let [ca, cert, key, all_ca, all_cert, all_key] = CERTIFICATES;
    let identity = reader.identity(cert, key);
    let all_identity = reader.identity(all_cert, all_key);
    Some(ClientTls {
        ca: reader.path(ca).or(reader.path(all_ca)),
        identity: identity.or(all_identity),
        server_name: None,
    })
}

fn headers(reader: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let parse = |text: &str| decoded(text, "a header").and_then(values::headers);
    let [own, general] = HEADERS.map(|name| reader.parse(name, parse));
    own.or(general).unwrap_or_default()
}

/// `name=value` pairs, separated by commas, values percent-encoded. An error repeats no value.
fn decoded(text: &str, what: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = values::pairs(text, &['='])?;
    for (name, value) in &mut pairs {
        let decoded = percent_decode_str(value).decode_utf8();
        let decoded = decoded.map_err(|_| format!("{what}, {name:?}: the value is no UTF-8"))?;
        *value = within(decoded.trim())?.to_owned();
    }
    Ok(pairs)
}

fn compression(text: &str) -> Result<bool, String> {
    match text {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("allowed are gzip and none".into()),
    }
}
