//! Settings from the environment variables of envoyproxy/ratelimit, so that its manifests work as they are.
//!
//! Every variable is in [`table`](super::table), with what becomes of it. All wrong values are reported together; a
//! variable that has no effect is accepted with a [`Notice`] that says why.

mod redis;
mod traces;
mod xds;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::errors::SettingsErrors;
use super::model::{
    LimitHeaders, ListenSettings, PrometheusSettings, Settings, StatsdSettings, StatsdTransport, StoreSettings,
    any_address,
};
use super::reader::{Notice, Reader};
use super::setting::Topic;
use super::values;
use crate::tls::ServerTls;

/// Bytes that one key of envoyproxy/ratelimit's local cache takes, roughly.
const LOCAL_CACHE_KEY_BYTES: u64 = 128;
/// The smallest local cache of envoyproxy/ratelimit, whatever it is told.
const LOCAL_CACHE_MIN_BYTES: u64 = 512 << 10;

impl Settings {
    /// Reads them; `env` gives a variable's value. Empty values count as unset.
    ///
    /// # Errors
    /// Every value that is not allowed, with what is.
    pub fn from_ratelimit_env(env: impl Fn(&str) -> Option<String>) -> Result<(Self, Vec<Notice>), SettingsErrors> {
        let mut reader = Reader::new(&env, str::to_owned);
        let mut settings = Self::of_ratelimit();
        reader.fields(&mut settings);
        listen(&mut reader, &mut settings.listen);
        settings.listen.grpc_tls = grpc_tls(&mut reader);
        settings.listen.admin_tls = reader.admin_tls();
        telemetry(&mut reader, &mut settings);
        settings.telemetry.traces = traces::settings(&mut reader);
        rules(&mut reader, &mut settings);
        redis::store(&mut reader, &mut settings.store);
        counting(&mut reader, &mut settings.store);
        limit_headers(&mut reader, &mut settings);
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
        addr: addr.unwrap_or(any_address(9090)),
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
        reader.idle_topic(Topic::ControlPlane, &[], "CONFIG_TYPE is not GRPC_XDS_SOTW");
        rules.paths = vec![directory];
    }
}

fn counting(reader: &mut Reader<'_>, store: &mut StoreSettings) {
    let cache_bytes = reader.parse("LOCAL_CACHE_SIZE_IN_BYTES", |text| {
        text.parse::<u64>()
            .map_err(|_| "allowed is a number of bytes, or 0".into())
    });
    if let Some(bytes) = cache_bytes.filter(|bytes| *bytes > 0)
        && reader.text("DENY_CACHE_MAX_KEYS").is_none()
    {
        let keys = bytes.max(LOCAL_CACHE_MIN_BYTES) / LOCAL_CACHE_KEY_BYTES;
        store.deny_cache_max_keys = usize::try_from(keys).unwrap_or(usize::MAX);
    }
    if reader.parse("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", values::boolean) == Some(false) {
        let why = "a denied request consumes nothing; COUNT_DENIED=true counts denials, too";
        reader.idle(&["STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT"], why);
    }
}

/// The names of the headers, if there are any.
fn limit_headers(reader: &mut Reader<'_>, settings: &mut Settings) {
    let mut named = |names: [&str; 3], headers: &mut Option<LimitHeaders>| {
        let [limit, remaining, reset] = names.map(|name| reader.parse(name, values::header_name));
        if let Some(headers) = headers {
            let set = |slot: &mut String, name: Option<String>| *slot = name.unwrap_or_else(|| slot.clone());
            set(&mut headers.limit, limit);
            set(&mut headers.remaining, remaining);
            set(&mut headers.reset, reset);
        }
    };
    named(
        ["LIMIT_LIMIT_HEADER", "LIMIT_REMAINING_HEADER", "LIMIT_RESET_HEADER"],
        &mut settings.answers.limit_headers,
    );
    named(
        [
            "LIMIT_REQUEST_LIMIT_HEADER",
            "LIMIT_REQUEST_REMAINING_HEADER",
            "LIMIT_REQUEST_RESET_HEADER",
        ],
        &mut settings.answers.request_limit_headers,
    );
}
