//! The environment variables of envoyproxy/ratelimit.

mod redis;
mod started;
mod table;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, FromArgMatches};
use sluicegate::{
    config::settings::{
        Compatibility, LogFormat, Notice, OnOverload, PrometheusSettings, ServeArgs, Settings, SettingsErrors,
        StatsdTransport, StoreKind, Topology,
        listing::{markdown, text, variables},
        redis::HostPort,
    },
    model::AlgorithmKind,
    rules::OnStoreError,
    tls::{ClientTls, ServerTls},
};

type Env<'a> = &'a [(&'a str, &'a str)];

fn read(env: Env) -> Result<(Settings, Vec<Notice>), SettingsErrors> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    Settings::from_ratelimit_env(|name| env.get(name).map(|value| (*value).to_owned()))
}

/// Good settings without notices.
fn good(env: Env) -> Settings {
    let (settings, notices) = read(env).unwrap_or_else(|errors| panic!("{env:?}: {errors}"));
    assert_eq!(notices, [], "{env:?}");
    settings
}

fn errors(env: Env) -> Vec<String> {
    read(env)
        .expect_err("wrong")
        .0
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn server(host: &str, port: u16) -> HostPort {
    HostPort {
        host: host.into(),
        port,
    }
}

#[test]
fn nothing_set_is_what_envoyproxy_ratelimit_does_without_variables() {
    let settings = good(&[]);
    assert_eq!(settings.listen.http_addr, address("0.0.0.0:8080"));
    assert_eq!(settings.listen.admin_addr, address("0.0.0.0:6070"));
    assert_eq!(settings.listen.grpc_addr, address("0.0.0.0:8081"));
    assert_eq!(
        settings.listen.grpc_max_connection_age,
        Some(Duration::from_secs(86_400))
    );
    assert_eq!(
        settings.listen.grpc_max_connection_age_grace,
        Some(Duration::from_secs(3600))
    );
    assert_eq!(settings.listen.grpc_tls, None);
    assert_eq!(settings.listen.prometheus, None);
    assert_eq!(
        settings.rules.paths,
        [PathBuf::from("/srv/runtime_data/current/config")]
    );
    assert!(!settings.rules.ignore_dot_files && settings.rules.xds.is_none());
    assert_eq!(settings.telemetry.log_level, "warn");
    assert_eq!(settings.telemetry.statsd, None);
    assert_eq!(settings.answers.limit_headers, None);
    // Unlike envoyproxy/ratelimit: no socket of nutcracker, but memory.
    assert_eq!((settings.store.kind, settings.store.redis), (StoreKind::Memory, None));
}

#[test]
fn listeners() {
    let settings = good(&[
        ("HOST", "127.0.0.1"),
        ("PORT", "1080"),
        ("DEBUG_HOST", "localhost"),
        ("DEBUG_PORT", "1070"),
        ("GRPC_HOST", "::"),
        ("GRPC_PORT", "1081"),
        ("GRPC_UDS", "/run/rl.sock"),
        ("GRPC_MAX_CONNECTION_AGE", "1m30s"),
        ("GRPC_MAX_CONNECTION_AGE_GRACE", "0"),
        ("USE_PROMETHEUS", "T"),
        ("PROMETHEUS_ADDR", ":19001"),
        ("PROMETHEUS_PATH", "/prom"),
    ]);
    let listen = settings.listen;
    assert_eq!(listen.http_addr, address("127.0.0.1:1080"));
    assert_eq!(listen.admin_addr, address("127.0.0.1:1070"));
    assert_eq!(listen.grpc_addr, address("[::]:1081"));
    assert_eq!(listen.grpc_uds, Some("/run/rl.sock".into()));
    assert_eq!(listen.grpc_max_connection_age, Some(Duration::from_secs(90)));
    assert_eq!(listen.grpc_max_connection_age_grace, None);
    assert_eq!(
        listen.prometheus,
        Some(PrometheusSettings {
            addr: address("0.0.0.0:19001"),
            path: "/prom".into()
        })
    );
    assert_eq!(
        good(&[("USE_PROMETHEUS", "true"), ("DISABLE_STATS", "true")])
            .listen
            .prometheus,
        None
    );
}

#[test]
fn counting_answers_and_the_rest() {
    let settings = good(&[
        ("CACHE_KEY_PREFIX", "team:"),
        ("LOCAL_CACHE_SIZE_IN_BYTES", "1048576"),
        ("NEAR_LIMIT_RATIO", "0.5"),
        ("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "true"),
        ("SHADOW_MODE", "true"),
        ("QUOTA_MODE", "True"),
        ("RESPONSE_DYNAMIC_METADATA", "TRUE"),
        ("LIMIT_RESPONSE_HEADERS_ENABLED", "t"),
        ("LIMIT_LIMIT_HEADER", "X-L"),
        ("LIMIT_REMAINING_HEADER", "X-R"),
        ("LIMIT_RESET_HEADER", "X-S"),
        ("LOG_LEVEL", "WARNING"),
        ("LOG_FORMAT", "JSON"),
        ("DEFAULT_ALGORITHM", "fixed_window"),
        ("COUNT_DENIED", "true"),
        ("CHARGE_AFTER_PEEK", "true"),
        ("ON_STORE_ERROR", "deny"),
        ("REPLICAS", "3"),
        ("STORE_TIMEOUT", "250us"),
        ("LEASE", "off"),
        ("ON_OVERLOAD", "allow"),
        ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
        ("MERGE_DOMAIN_CONFIG", "true"),
        ("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "true"),
        ("EXTRA_TAGS", "cluster:eu-1,my-team:a b"),
    ]);
    let Settings {
        store,
        answers,
        rules,
        telemetry,
        limits,
        ..
    } = settings;
    assert_eq!((store.key_prefix.as_str(), store.deny_cache_max_keys), ("team:", 8192));
    assert_eq!(
        (store.on_store_error, store.replicas, store.lease),
        (OnStoreError::Deny, 3, false)
    );
    assert_eq!(
        (store.timeout, limits.on_overload),
        (Duration::from_micros(250), OnOverload::Allow)
    );
    assert!((answers.near_limit_ratio - 0.5).abs() < 1e-9);
    assert!(answers.shadow_mode && answers.quota_mode && answers.dynamic_metadata);
    let headers = answers.limit_headers.expect("headers");
    assert_eq!([headers.limit, headers.remaining, headers.reset], ["X-L", "X-R", "X-S"]);
    assert_eq!(
        (telemetry.log_level.as_str(), telemetry.log_format),
        ("warn", LogFormat::Json)
    );
    let tags = [("cluster", "eu-1"), ("my_team", "a b")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(telemetry.extra_tags, BTreeMap::from(tags));
    assert_eq!(
        (rules.default_algorithm, rules.count_denied),
        (AlgorithmKind::FixedWindow, true)
    );
    assert!(rules.force_start && rules.merge_domains && rules.healthy_needs_domain && rules.charge_after_peek);

    let (_, notices) = read(&[("STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT", "false")]).expect("good");
    assert!(notices[0].why.contains("COUNT_DENIED"));
}

#[test]
fn statsd_only_when_it_is_asked_for() {
    let statsd = |env: Env| good(env).telemetry.statsd;
    let on = statsd(&[
        ("USE_STATSD", "true"),
        ("STATSD_HOST", "statsd"),
        ("STATSD_PORT", "9125"),
        ("STATS_FLUSH_INTERVAL", "5s"),
    ])
    .expect("statsd");
    assert_eq!(
        (on.host.as_str(), on.port, on.transport),
        ("statsd", 9125, StatsdTransport::Tcp)
    );
    assert_eq!((on.flush_interval, on.dogstatsd), (Duration::from_secs(5), false));
    let dog = statsd(&[("USE_DOG_STATSD", "true")]).expect("statsd");
    assert_eq!((dog.transport, dog.dogstatsd), (StatsdTransport::Udp, true));
    assert_eq!(
        statsd(&[("USE_STATSD", "true"), ("STATSD_PROTOCOL", "udp")]).map(|s| s.transport),
        { Some(StatsdTransport::Udp) }
    );
    assert_eq!(statsd(&[("USE_STATSD", "true"), ("DISABLE_STATS", "true")]), None);
}

/// envoyproxy/ratelimit's cache never has less than 512 KiB: a few keys would never deny anything.
#[test]
fn a_tiny_local_cache_is_as_large_as_the_smallest_of_envoyproxy_ratelimit() {
    let keys = |env: Env| good(env).store.deny_cache_max_keys;
    assert_eq!(keys(&[("LOCAL_CACHE_SIZE_IN_BYTES", "1000")]), 4096);
    assert_eq!(keys(&[("LOCAL_CACHE_SIZE_IN_BYTES", "524288")]), 4096);
    assert_eq!(keys(&[("LOCAL_CACHE_SIZE_IN_BYTES", "0")]), 100_000);
    let both = [("LOCAL_CACHE_SIZE_IN_BYTES", "1000"), ("DENY_CACHE_MAX_KEYS", "7")];
    assert_eq!(keys(&both), 7);
}
