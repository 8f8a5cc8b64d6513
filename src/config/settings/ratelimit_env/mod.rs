//! Settings from the environment variables of envoyproxy/ratelimit, so that its manifests work as they are.
//!
//! Every variable is in [`table`], with what becomes of it here. All wrong values are reported together; a variable
//! that has no effect here is accepted with a [`Notice`] that says why.

mod reader;
mod redis;
pub mod table;
mod traces;
mod variables;
mod xds;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::errors::SettingsErrors;
use super::{
    LimitHeaders, ListenSettings, LogFormat, PrometheusSettings, ServerTls, Settings, StatsdSettings, StatsdTransport,
    values,
};

pub use reader::Notice;
use reader::Reader;

/// Bytes that one key of envoyproxy/ratelimit's local cache takes, roughly.
const LOCAL_CACHE_KEY_BYTES: u64 = 128;

impl Settings {
    /// Reads them; `env` gives a variable's value. Empty values count as unset.
    ///
    /// # Errors
    /// Every value that is not allowed, with what is.
    pub fn from_ratelimit_env(env: impl Fn(&str) -> Option<String>) -> Result<(Self, Vec<Notice>), SettingsErrors> {
        let mut reader = Reader::new(&env);
        let mut settings = Self::default();
        listen(&mut reader, &mut settings.listen);
        settings.listen.grpc_tls = grpc_tls(&mut reader);
        telemetry(&mut reader, &mut settings);
        settings.telemetry.traces = traces::settings(&mut reader);
        rules(&mut reader, &mut settings);
        redis::store(&mut reader, &mut settings.store);
        counting(&mut reader, &mut settings);
        answers(&mut reader, &mut settings);
        ours(&mut reader, &mut settings);
        reader.without_effect();
        reader.finish(settings)
    }
}

fn listen(reader: &mut Reader<'_>, listen: &mut ListenSettings) {
    let mut address = |host: &str, port: &str, default: u16| {
        let ip = reader.parse(host, values::listen_host);
        let ip = ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        SocketAddr::new(ip, reader.port(port).unwrap_or(default))
    };
    listen.http_addr = address("HOST", "PORT", 8080);
    listen.admin_addr = address("DEBUG_HOST", "DEBUG_PORT", 6070);
    listen.grpc_addr = address("GRPC_HOST", "GRPC_PORT", 8081);
    listen.grpc_uds = reader.path("GRPC_UDS");
    let mut age = |name: &str, default: Duration| {
        let age = reader.parse(name, values::duration).unwrap_or(default);
        Some(age).filter(|age| !age.is_zero())
    };
    listen.grpc_max_connection_age = age("GRPC_MAX_CONNECTION_AGE", Duration::from_secs(24 * 3600));
    listen.grpc_max_connection_age_grace = age("GRPC_MAX_CONNECTION_AGE_GRACE", Duration::from_secs(3600));
}

fn grpc_tls(reader: &mut Reader<'_>) -> Option<ServerTls> {
    const NAMES: [&str; 5] = [
        "GRPC_SERVER_TLS_CERT",
        "GRPC_SERVER_TLS_KEY",
        "GRPC_CLIENT_TLS_CACERT",
        "GRPC_SERVER_TLS_CA_CERT",
        "GRPC_CLIENT_TLS_SAN",
    ];
    let [cert, key, client_ca, server_ca, san] = NAMES.map(|name| reader.text(name));
    if !reader.truth("GRPC_SERVER_USE_TLS") {
        reader.idle(&NAMES, "GRPC_SERVER_USE_TLS is not true");
        return None;
    }
    if client_ca.is_some() && server_ca.is_some() && client_ca != server_ca {
        reader.idle(
            &["GRPC_SERVER_TLS_CA_CERT"],
            "GRPC_CLIENT_TLS_CACERT names another file, which is used",
        );
    }
    let client_ca = client_ca.or(server_ca).map(PathBuf::from);
    let client_sans: Vec<String> = san
        .iter()
        .flat_map(|names| names.split(','))
        .map(|n| n.trim().into())
        .collect();
    if client_ca.is_none() && !client_sans.is_empty() {
        reader.problem(
            "GRPC_CLIENT_TLS_SAN",
            "needs GRPC_CLIENT_TLS_CACERT: without a CA no name can be trusted",
        );
    }
    for (name, value) in NAMES.iter().zip([&cert, &key]) {
        if value.is_none() {
            reader.problem(name, "is needed with GRPC_SERVER_USE_TLS=true: the path of a PEM file");
        }
    }
    Some(ServerTls {
        cert: cert?.into(),
        key: key?.into(),
        client_ca,
        client_sans,
    })
}

fn telemetry(reader: &mut Reader<'_>, settings: &mut Settings) {
    let telemetry = &mut settings.telemetry;
    telemetry.log_level = reader
        .parse("LOG_LEVEL", values::log_level)
        .unwrap_or_else(|| "warn".into());
    telemetry.log_format = reader
        .parse("LOG_FORMAT", values::log_format)
        .unwrap_or(LogFormat::Text);
    telemetry.extra_tags = reader.parse("EXTRA_TAGS", values::tags).unwrap_or_default();

    let disabled = reader.truth("DISABLE_STATS");
    let dogstatsd = reader.truth("USE_DOG_STATSD");
    let statsd = reader.truth("USE_STATSD") || dogstatsd;
    let transport = reader.parse("STATSD_PROTOCOL", |text| match text {
        "tcp" => Ok(StatsdTransport::Tcp),
        "udp" => Ok(StatsdTransport::Udp),
        _ => Err("allowed are tcp and udp".into()),
    });
    let usual = if dogstatsd {
        StatsdTransport::Udp
    } else {
        StatsdTransport::Tcp
    };
    let sink = StatsdSettings {
        host: reader.text("STATSD_HOST").unwrap_or_else(|| "localhost".into()),
        port: reader.port("STATSD_PORT").unwrap_or(8125),
        transport: transport.unwrap_or(usual),
        dogstatsd,
        flush_interval: reader
            .parse("STATS_FLUSH_INTERVAL", flush_interval)
            .unwrap_or(Duration::from_secs(10)),
    };
    telemetry.statsd = (statsd && !disabled).then_some(sink);

    let prometheus = reader.truth("USE_PROMETHEUS");
    let addr = reader.parse("PROMETHEUS_ADDR", values::listen_address);
    let path = reader.parse("PROMETHEUS_PATH", |path| {
        let starts = path.starts_with('/');
        starts
            .then(|| path.to_owned())
            .ok_or_else(|| "allowed is a path that starts with /".into())
    });
    settings.listen.prometheus = (prometheus && !disabled).then(|| PrometheusSettings {
        addr: addr.unwrap_or(super::any_address(9090)),
        path: path.unwrap_or_else(|| "/metrics".into()),
    });
}

fn flush_interval(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(100);
    let interval = values::duration(text)?;
    if interval < least {
        Err("allowed are at least 100ms".into())
    } else {
        Ok(interval)
    }
}

fn rules(reader: &mut Reader<'_>, settings: &mut Settings) {
    const FILE_NAMES: [&str; 5] = [
        "RUNTIME_ROOT",
        "RUNTIME_SUBDIRECTORY",
        "RUNTIME_APPDIRECTORY",
        "RUNTIME_IGNOREDOTFILES",
        "RUNTIME_WATCH_ROOT",
    ];
    let rules = &mut settings.rules;
    rules.force_start = reader.truth("FORCE_START_WITHOUT_INITIAL_CONFIG");
    rules.merge_domains = reader.truth("MERGE_DOMAIN_CONFIG");
    rules.healthy_needs_domain = reader.truth("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED");
    rules.ignore_dot_files = reader.truth("RUNTIME_IGNOREDOTFILES");
    rules.may_be_empty = true;
    reader.truth("RUNTIME_WATCH_ROOT");
    let mut directory = PathBuf::from(
        reader
            .text("RUNTIME_ROOT")
            .unwrap_or_else(|| "/srv/runtime_data/current".into()),
    );
    let below = [
        reader.text("RUNTIME_SUBDIRECTORY"),
        reader.text("RUNTIME_APPDIRECTORY").or(Some("config".into())),
    ];
    for part in below.iter().flatten() {
        // Below, also where somebody wrote a slash in front.
        directory.push(Path::new(part.trim_start_matches('/')));
    }
    let xds = xds::settings(reader);
    let from_plane = reader.parse("CONFIG_TYPE", |text| match text {
        "FILE" => Ok(false),
        "GRPC_XDS_SOTW" => Ok(true),
        _ => Err("allowed are FILE and GRPC_XDS_SOTW".into()),
    });
    if from_plane == Some(true) {
        reader.idle(&FILE_NAMES, "with CONFIG_TYPE=GRPC_XDS_SOTW no files are read");
        rules.xds = Some(xds);
    } else {
        reader.idle(&xds::NAMES, "CONFIG_TYPE is not GRPC_XDS_SOTW");
        rules.paths = vec![directory];
    }
}

fn counting(reader: &mut Reader<'_>, settings: &mut Settings) {
    let store = &mut settings.store;
    if let Some(prefix) = reader.text("CACHE_KEY_PREFIX") {
        store.key_prefix = prefix;
    }
    let cache_bytes = reader.parse("LOCAL_CACHE_SIZE_IN_BYTES", |text| {
        text.parse::<u64>()
            .map_err(|_| "allowed is a number of bytes, or 0".into())
    });
    if let Some(bytes) = cache_bytes.filter(|bytes| *bytes > 0) {
        store.deny_cache_max_keys = usize::try_from((bytes / LOCAL_CACHE_KEY_BYTES).max(1)).unwrap_or(usize::MAX);
    }
    if reader.parse("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", values::boolean) == Some(false) {
        let why = "a denied request consumes nothing here; COUNT_DENIED=true counts denials, too";
        reader.idle(&["STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT"], why);
    }
}

fn answers(reader: &mut Reader<'_>, settings: &mut Settings) {
    let answers = &mut settings.answers;
    let usual = LimitHeaders::default();
    let mut header = |name: &str, usual: String| reader.parse(name, values::header_name).unwrap_or(usual);
    let headers = LimitHeaders {
        limit: header("LIMIT_LIMIT_HEADER", usual.limit),
        remaining: header("LIMIT_REMAINING_HEADER", usual.remaining),
        reset: header("LIMIT_RESET_HEADER", usual.reset),
    };
    answers.limit_headers = reader.truth("LIMIT_RESPONSE_HEADERS_ENABLED").then_some(headers);
    answers.dynamic_metadata = reader.truth("RESPONSE_DYNAMIC_METADATA");
    answers.shadow_mode = reader.truth("SHADOW_MODE");
    answers.quota_mode = reader.truth("QUOTA_MODE");
    reader.set(&mut answers.near_limit_ratio, "NEAR_LIMIT_RATIO", values::ratio);
}

/// Variables that envoyproxy/ratelimit does not have; the same names as `serve` knows.
fn ours(reader: &mut Reader<'_>, settings: &mut Settings) {
    let Settings {
        rules,
        store,
        answers,
        limits,
        listen,
        telemetry,
    } = settings;
    listen.admin_token_file = reader.path("ADMIN_TOKEN_FILE");
    reader.set(&mut telemetry.top, "ADMIN_TOP", values::boolean);
    reader.set(&mut telemetry.mask_values, "MASK_VALUES", values::mask_values);
    reader.set(&mut rules.default_algorithm, "DEFAULT_ALGORITHM", values::algorithm);
    reader.set(&mut rules.count_denied, "COUNT_DENIED", values::boolean);
    // A control plane for envoyproxy/ratelimit cannot say it of a rule, and gateways charge costs that way.
    rules.charge_after_peek = true;
    reader.set(&mut rules.charge_after_peek, "CHARGE_AFTER_PEEK", values::boolean);
    reader.set(&mut store.timeout, "STORE_TIMEOUT", values::positive_duration);
    reader.set(&mut store.on_store_error, "ON_STORE_ERROR", values::on_store_error);
    reader.set(&mut store.replicas, "REPLICAS", values::at_least_one);
    reader.set(&mut store.memory_max_keys, "MEMORY_MAX_KEYS", values::at_least_one);
    reader.set(&mut store.deny_cache, "DENY_CACHE", values::boolean);
    reader.set(
        &mut store.deny_cache_max_keys,
        "DENY_CACHE_MAX_KEYS",
        values::at_least_one,
    );
    reader.set(&mut store.coalesce, "COALESCE", values::boolean);
    reader.set(&mut store.lease, "LEASE", values::boolean);
    reader.set(&mut answers.ietf_headers, "IETF_HEADERS", values::boolean);
    reader.set(&mut answers.problem_body, "PROBLEM_BODY", values::boolean);
    reader.set(&mut limits.max_concurrent, "MAX_CONCURRENT", values::at_least_one);
    reader.set(&mut limits.on_overload, "ON_OVERLOAD", values::on_overload);
    reader.set(&mut limits.max_connections, "MAX_CONNECTIONS", values::at_least_one);
    reader.set(&mut limits.client_timeout, "CLIENT_TIMEOUT", values::positive_duration);
    reader.set(&mut limits.max_delayed, "MAX_DELAYED", values::at_least_one);
    reader.set(&mut limits.drain_delay, "DRAIN_DELAY", values::duration);
    reader.set(&mut limits.drain_timeout, "DRAIN_TIMEOUT", values::duration);
}
