//! The environment variables of envoyproxy/ratelimit.

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
        LogFormat, Notice, OnOverload, PrometheusSettings, ServeArgs, Settings, SettingsErrors, StatsdTransport,
        StoreKind, Topology,
        ratelimit_env::table::{Fate, VARIABLES, markdown, text},
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
    // Not as there: no socket of nutcracker, but memory.
    assert_eq!((settings.store.kind, settings.store.redis), (StoreKind::Memory, None));
}

#[test]
fn the_table_names_what_is_read_and_its_defaults_are_the_defaults() {
    let asked = RefCell::new(BTreeSet::new());
    Settings::from_ratelimit_env(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    })
    .expect("good");
    let table: BTreeSet<String> = VARIABLES.iter().map(|variable| variable.name.to_owned()).collect();
    assert_eq!(asked.into_inner(), table);
    assert_eq!(table.len(), VARIABLES.len(), "a name stands twice");

    for variable in VARIABLES {
        if !variable.default.is_empty() && !variable.default.contains("by ") && !variable.default.contains(" if ") {
            assert_eq!(
                good(&[(variable.name, variable.default)]),
                good(&[]),
                "{}",
                variable.name
            );
        }
    }
    for line in [text(), markdown()] {
        assert!(VARIABLES.iter().all(|variable| line.contains(variable.name)));
    }
}

#[test]
fn what_a_flag_of_serve_can_say_a_variable_can_too() {
    // Said in other words there: rules and listeners, and the store.
    const ELSEWHERE: [&str; 5] = ["RULES", "STORE", "GRPC_ADDR", "HTTP_ADDR", "ADMIN_ADDR"];
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    for flag in command.get_arguments() {
        let variable = flag
            .get_env()
            .unwrap_or_else(|| panic!("--{} has no variable", flag.get_id()));
        let variable = variable.to_str().expect("ASCII");
        let known = VARIABLES.iter().any(|known| known.name == variable);
        assert!(
            known || ELSEWHERE.contains(&variable),
            "{variable} is missing in the table"
        );
        assert!(flag.get_help().is_some(), "--{} has no help", flag.get_id());
    }
}

#[test]
fn flags_become_settings() {
    let read = |arguments: &[&str]| {
        let command = ServeArgs::augment_args(clap::Command::new("serve"));
        let matches = command
            .try_get_matches_from([&["serve"], arguments].concat())
            .map_err(|error| error.to_string())?;
        let args = ServeArgs::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        args.into_settings().map_err(|errors| errors.to_string())
    };
    assert_eq!(read(&[]).expect("good"), Settings::default());
    let settings = read(&[
        "--rules=/a,/b",
        "--redis-url=rediss://u:p@h/2",
        "--redis-tls-ca=/ca",
        "--grpc-addr=:1",
        "--grpc-tls-cert=/c",
        "--grpc-tls-key=/k",
        "--on-store-error=deny",
        "--lease=off",
        "--shadow-mode",
        "--limit-headers",
        "--log-level=info,fred=warn",
        "--max-delayed=5",
        "--deny-cache-max-keys=7",
    ])
    .expect("good");
    assert_eq!(settings.rules.paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
    let redis = settings.store.redis.expect("a Redis");
    assert_eq!((settings.store.kind, redis.database), (StoreKind::Redis, 2));
    assert_eq!(redis.tls.expect("TLS").client.ca, Some("/ca".into()));
    assert_eq!(settings.listen.grpc_addr, address("0.0.0.0:1"));
    assert_eq!(settings.listen.grpc_tls.expect("TLS").cert, PathBuf::from("/c"));
    assert_eq!(
        (settings.store.on_store_error, settings.store.lease),
        (OnStoreError::Deny, false)
    );
    assert!(settings.answers.shadow_mode && settings.answers.limit_headers.is_some());
    assert_eq!(
        (settings.limits.max_delayed, settings.store.deny_cache_max_keys),
        (5, 7)
    );
    for (arguments, text) in [
        (&["--store=redis"][..], "--redis-url"),
        (
            &["--redis-url=redis://u:hunter2@h:x"],
            "--redis-url: allowed is host:port",
        ),
        (&["--grpc-tls-cert=/c"], "--grpc-tls-key"),
        (&["--grpc-tls-client-ca=/c"], "--grpc-tls-cert"),
        (&["--grpc-uds=/s", "--grpc-addr=:1"], "cannot be used with"),
        (&["--replicas=0"], "at least 1"),
        (&["--on-store-error=panic"], "local, allow, deny"),
    ] {
        let error = read(arguments).expect_err("wrong");
        assert!(
            error.contains(text) && !error.contains("hunter2"),
            "{arguments:?}: {error}"
        );
    }
}

/// `UPDATE_DOCS=1 cargo test --test compat documentation` writes the table.
#[test]
fn the_documentation_holds_the_table() {
    const MARKS: [&str; 2] = ["<!-- variables: begin -->\n", "<!-- variables: end -->"];
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/migrating.md");
    let doc = std::fs::read_to_string(&path).expect("the document");
    let (before, rest) = doc.split_once(MARKS[0]).expect("the first mark");
    let (table, after) = rest.split_once(MARKS[1]).expect("the second mark");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let new = [before, MARKS[0], &markdown(), MARKS[1], after].concat();
        std::fs::write(&path, new).expect("written");
    } else {
        assert_eq!(
            table,
            markdown(),
            "docs/migrating.md is out of date: run with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn what_is_not_taken_is_noticed_unless_it_changes_nothing() {
    for variable in VARIABLES {
        let Fate::NotTaken(why) = variable.fate else { continue };
        let (settings, notices) = read(&[(variable.name, "anything")]).expect("accepted");
        assert_eq!(
            notices,
            [Notice {
                name: variable.name,
                why
            }]
        );
        assert_eq!(settings, good(&[]), "{}", variable.name);
        assert_eq!(
            notices[0].to_string(),
            format!("{} has no effect: {why}", variable.name)
        );
    }
    good(&[
        ("TRACING_ENABLED", "false"),
        ("REDIS_PIPELINE_LIMIT", ""),
        ("MEMCACHE_TLS", "false"),
    ]);
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
fn tls_on_grpc() {
    let files = [
        ("GRPC_SERVER_USE_TLS", "true"),
        ("GRPC_SERVER_TLS_CERT", "/certs/tls.crt"),
        ("GRPC_SERVER_TLS_KEY", "/certs/tls.key"),
    ];
    let plain = ServerTls {
        cert: "/certs/tls.crt".into(),
        key: "/certs/tls.key".into(),
        client_ca: None,
        client_sans: Vec::new(),
    };
    assert_eq!(good(&files).listen.grpc_tls, Some(plain.clone()));
    fn with<'a>(files: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [files, more].concat()
    }
    for ca in ["GRPC_CLIENT_TLS_CACERT", "GRPC_SERVER_TLS_CA_CERT"] {
        let env = with(
            &files,
            &[
                (ca, "/certs/ca.crt"),
                ("GRPC_CLIENT_TLS_SAN", "envoy.mesh, spiffe://td/envoy"),
            ],
        );
        let expected = ServerTls {
            client_ca: Some("/certs/ca.crt".into()),
            client_sans: vec!["envoy.mesh".into(), "spiffe://td/envoy".into()],
            ..plain.clone()
        };
        assert_eq!(good(&env).listen.grpc_tls, Some(expected), "{ca}");
    }
    let (both, notices) = read(&with(
        &files,
        &[("GRPC_CLIENT_TLS_CACERT", "/a"), ("GRPC_SERVER_TLS_CA_CERT", "/b")],
    ))
    .expect("good");
    assert_eq!(both.listen.grpc_tls.expect("TLS").client_ca, Some("/a".into()));
    assert_eq!(notices[0].name, "GRPC_SERVER_TLS_CA_CERT");

    assert_eq!(errors(&with(&files, &[("GRPC_CLIENT_TLS_SAN", "x")])).len(), 1);
    let missing = errors(&[("GRPC_SERVER_USE_TLS", "1")]);
    assert!(missing[0].starts_with("GRPC_SERVER_TLS_CERT: is needed"), "{missing:?}");
    assert!(missing[1].starts_with("GRPC_SERVER_TLS_KEY: is needed"), "{missing:?}");
    let (off, notices) = read(&files[1..]).expect("good");
    assert_eq!(off.listen.grpc_tls, None);
    assert_eq!(notices.len(), 2);
}

#[test]
fn one_redis_in_every_form() {
    let redis = |env: Env| good(env).store.redis.expect("a Redis");
    let single = |host: &str, port| Topology::Single(server(host, port));
    let cases: [(Env, Topology); 12] = [
        (
            &[("REDIS_SOCKET_TYPE", "tcp"), ("REDIS_URL", "redis:6380")],
            single("redis", 6380),
        ),
        (&[("REDIS_URL", "redis.ns.svc:6379")], single("redis.ns.svc", 6379)),
        (&[("REDIS_URL", "redis")], single("redis", 6379)),
        (&[("REDIS_URL", "[::1]:6380")], single("::1", 6380)),
        (&[("REDIS_URL", "redis://h/0")], single("h", 6379)),
        (
            &[("REDIS_SOCKET_TYPE", "unix"), ("REDIS_URL", "/run/redis.sock")],
            Topology::Unix("/run/redis.sock".into()),
        ),
        (
            &[("REDIS_URL", "/run/redis.sock")],
            Topology::Unix("/run/redis.sock".into()),
        ),
        (
            &[("REDIS_TYPE", "cluster"), ("REDIS_URL", "a:1,b:2")],
            Topology::Cluster(vec![server("a", 1), server("b", 2)]),
        ),
        (
            &[("REDIS_TYPE", "CLUSTER"), ("REDIS_URL", "redis://a:1")],
            Topology::Cluster(vec![server("a", 1)]),
        ),
        (
            &[("REDIS_URL", "redis-cluster://a:1,b")],
            Topology::Cluster(vec![server("a", 1), server("b", 6379)]),
        ),
        (
            &[("REDIS_TYPE", "SENTINEL"), ("REDIS_URL", "mymaster,s1:26379,s2:26380")],
            Topology::Sentinel {
                master: "mymaster".into(),
                sentinels: vec![server("s1", 26_379), server("s2", 26_380)],
            },
        ),
        (
            &[("REDIS_URL", "redis-sentinel://s1,s2:1/mymaster")],
            Topology::Sentinel {
                master: "mymaster".into(),
                sentinels: vec![server("s1", 26_379), server("s2", 1)],
            },
        ),
    ];
    for (env, topology) in cases {
        assert_eq!(redis(env).topology, topology, "{env:?}");
        assert_eq!(good(env).store.kind, StoreKind::Redis);
    }
}

#[test]
fn redis_logins_tls_and_pools() {
    let redis = good(&[
        ("REDIS_URL", "redis:6379"),
        ("REDIS_AUTH", "limiter:pa:ss"),
        ("REDIS_SENTINEL_AUTH", "only"),
        ("REDIS_POOL_SIZE", "7"),
        ("REDIS_TIMEOUT", "2s"),
        ("REDIS_TLS", "true"),
        ("REDIS_TLS_CACERT", "/ca"),
        ("REDIS_TLS_CLIENT_CERT", "/cert"),
        ("REDIS_TLS_CLIENT_KEY", "/key"),
        ("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "true"),
        ("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "true"),
    ])
    .store
    .redis
    .expect("a Redis");
    let auth = redis.auth.clone().expect("a login");
    assert_eq!(
        (auth.username.as_deref(), auth.password.expose()),
        (Some("limiter"), "pa:ss")
    );
    let sentinel = redis.sentinel_auth.clone().expect("a login");
    assert_eq!((sentinel.username, sentinel.password.expose()), (None, "only"));
    assert_eq!((redis.pool_size, redis.connect_timeout), (7, Duration::from_secs(2)));
    let tls = redis.tls.clone().expect("TLS");
    assert!(tls.skip_hostname && redis.health_needs_connection);
    assert_eq!(tls.client.identity, Some(("/cert".into(), "/key".into())));
    let printed = format!("{redis:?} {redis}");
    assert!(!printed.contains("pa:ss") && !printed.contains("only"), "{printed}");

    let from_url = good(&[("REDIS_URL", "rediss://us%40er:p%3Aw@h:1/3")])
        .store
        .redis
        .expect("a Redis");
    let auth = from_url.auth.expect("a login");
    assert_eq!(
        (auth.username.as_deref(), auth.password.expose()),
        (Some("us@er"), "p:w")
    );
    assert_eq!((from_url.database, from_url.tls.is_some()), (3, true));
}

#[test]
fn a_redis_of_its_own_for_seconds() {
    let env = [
        ("REDIS_URL", "main:1"),
        ("REDIS_PERSECOND", "true"),
        ("REDIS_PERSECOND_URL", "seconds:2"),
        ("REDIS_PERSECOND_SOCKET_TYPE", "tcp"),
        ("REDIS_PERSECOND_AUTH", "x"),
        ("REDIS_PERSECOND_POOL_SIZE", "3"),
    ];
    let store = good(&env).store;
    assert_eq!(
        store.redis.expect("a Redis").topology,
        Topology::Single(server("main", 1))
    );
    let seconds = store.redis_per_second.expect("another");
    assert_eq!(
        (seconds.topology, seconds.pool_size),
        (Topology::Single(server("seconds", 2)), 3)
    );
    assert!(errors(&env[..2])[0].starts_with("REDIS_PERSECOND_URL: is needed"));
    let (off, notices) = read(&[env[0], env[2]]).expect("good");
    assert!(off.store.redis_per_second.is_none());
    assert_eq!(notices[0].name, "REDIS_PERSECOND_URL");
}

#[test]
fn counting_answers_and_the_rest() {
    let settings = good(&[
        ("CACHE_KEY_PREFIX", "team:"),
        ("LOCAL_CACHE_SIZE_IN_BYTES", "1280"),
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
    assert_eq!((store.key_prefix.as_str(), store.deny_cache_max_keys), ("team:", 10));
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
    assert!(rules.force_start && rules.merge_domains && rules.healthy_needs_domain);

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

#[test]
fn as_istio_starts_it() {
    let settings = good(&[
        ("LOG_LEVEL", "debug"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "redis:6379"),
        ("USE_STATSD", "false"),
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("RUNTIME_WATCH_ROOT", "false"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
        ("HOST", "::"),
        ("GRPC_HOST", "::"),
    ]);
    assert_eq!(settings.rules.paths, [PathBuf::from("/data/ratelimit/config")]);
    assert!(settings.rules.ignore_dot_files);
    let slashes = [
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "/ratelimit/"),
        ("RUNTIME_APPDIRECTORY", "/c"),
    ];
    assert_eq!(good(&slashes).rules.paths, [PathBuf::from("/data/ratelimit/c")]);
}

#[test]
fn as_envoy_gateway_starts_it() {
    let (settings, notices) = read(&[
        ("RUNTIME_ROOT", "/data"),
        ("RUNTIME_SUBDIRECTORY", "ratelimit"),
        ("RUNTIME_IGNOREDOTFILES", "true"),
        ("RUNTIME_WATCH_ROOT", "false"),
        ("LOG_LEVEL", "info"),
        ("USE_STATSD", "false"),
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", "envoy-gateway:18001"),
        ("CONFIG_GRPC_XDS_NODE_ID", "envoy-ratelimit"),
        ("GRPC_SERVER_USE_TLS", "true"),
        ("GRPC_SERVER_TLS_CERT", "/certs/tls.crt"),
        ("GRPC_SERVER_TLS_KEY", "/certs/tls.key"),
        ("GRPC_SERVER_TLS_CA_CERT", "/certs/ca.crt"),
        ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true"),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", "/certs/tls.crt"),
        ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", "/certs/tls.key"),
        ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "/certs/ca.crt"),
        ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", "redis.redis.svc:6379"),
        ("USE_PROMETHEUS", "true"),
        ("PROMETHEUS_ADDR", ":19001"),
        ("PROMETHEUS_MAPPER_YAML", "/etc/statsd-exporter/conf.yaml"),
    ])
    .expect("good");
    let names: Vec<_> = notices.iter().map(|notice| notice.name).collect();
    assert_eq!(
        names,
        [
            "RUNTIME_ROOT",
            "RUNTIME_SUBDIRECTORY",
            "RUNTIME_IGNOREDOTFILES",
            "RUNTIME_WATCH_ROOT",
            "PROMETHEUS_MAPPER_YAML"
        ]
    );
    assert!(settings.rules.paths.is_empty() && settings.rules.force_start);
    let xds = settings.rules.xds.expect("a control plane");
    assert_eq!(
        (xds.server.as_str(), xds.node_id.as_str()),
        ("envoy-gateway:18001", "envoy-ratelimit")
    );
    let tls = ClientTls {
        ca: Some("/certs/ca.crt".into()),
        identity: Some(("/certs/tls.crt".into(), "/certs/tls.key".into())),
        server_name: None,
    };
    assert_eq!(xds.tls, Some(tls));
    assert!(settings.listen.grpc_tls.expect("TLS").client_ca.is_some());
    assert_eq!(
        settings.listen.prometheus.expect("a listener").addr,
        address("0.0.0.0:19001")
    );
}

#[test]
fn a_control_plane_in_detail() {
    let xds = good(&[
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", "dns:///plane"),
        ("CONFIG_GRPC_XDS_NODE_METADATA", "zone=z1,team=a=b"),
        (
            "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS",
            "Authorization:Bearer s3cret,x-a:b:c",
        ),
        ("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "2s"),
        ("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "1m"),
        ("XDS_CLIENT_BACKOFF_JITTER", "false"),
        ("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "1000000"),
    ])
    .rules
    .xds
    .expect("a control plane");
    assert_eq!((xds.server.as_str(), xds.tls.is_none()), ("plane:18000", true));
    assert_eq!(xds.node_metadata["team"], "a=b");
    assert_eq!(xds.headers["authorization"].expose(), "Bearer s3cret");
    assert_eq!(xds.headers["x-a"].expose(), "b:c");
    assert!(!format!("{xds:?}").contains("s3cret"));
    assert_eq!(
        (xds.backoff_initial, xds.backoff_max),
        (Duration::from_secs(2), Duration::from_secs(60))
    );
    assert_eq!((xds.backoff_jitter, xds.max_message_bytes), (false, 1_000_000));
}

#[test]
fn everything_wrong_is_said_at_once_with_what_is_allowed() {
    let wrong: [(&str, &str, &str); 26] = [
        ("HOST", "example.com", "IP address"),
        ("PORT", "80800", "port from 0 to 65535"),
        ("GRPC_PORT", "tcp://10.0.0.1:8081", "enableServiceLinks: false"),
        ("GRPC_MAX_CONNECTION_AGE", "1 day", "such as 250ms"),
        ("GRPC_MAX_CONNECTION_AGE_GRACE", "-1s", "not negative"),
        ("GRPC_SERVER_USE_TLS", "yep", "true and false"),
        ("LOG_LEVEL", "loud", "error, warn, info, debug, trace"),
        ("LOG_FORMAT", "xml", "text and json"),
        ("CONFIG_TYPE", "grpc", "FILE and GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", "http://x/y", "host:port"),
        ("CONFIG_GRPC_XDS_NODE_METADATA", "zone", "name=value"),
        ("XDS_CLIENT_MAX_MSG_SIZE_IN_BYTES", "0", "at least 1"),
        ("USE_PROMETHEUS", "on!", "true and false"),
        ("PROMETHEUS_ADDR", "9090", "address:port"),
        ("PROMETHEUS_PATH", "metrics", "starts with /"),
        ("NEAR_LIMIT_RATIO", "1.1", "at most 1"),
        ("BACKEND_TYPE", "memcache", "redis and memory"),
        ("REDIS_TYPE", "replica", "SINGLE, SENTINEL and CLUSTER"),
        ("REDIS_SOCKET_TYPE", "udp", "tcp and unix"),
        ("REDIS_POOL_SIZE", "0", "at least 1"),
        ("LIMIT_RESET_HEADER", "a header", "HTTP header name"),
        ("DEFAULT_ALGORITHM", "gcra", "sliding_window, sliding_log"),
        ("ON_STORE_ERROR", "panic", "local, allow, deny"),
        ("STATSD_PROTOCOL", "sctp", "tcp and udp"),
        ("REPLICAS", "many", "at least 1"),
        ("EXTRA_TAGS", "team:a,key2:b", "one that metrics have already"),
    ];
    let env: Vec<(&str, &str)> = wrong.iter().map(|(name, value, _)| (*name, *value)).collect();
    let found = errors(&env);
    for (name, value, allowed) in wrong {
        let start = format!("{name}={value:?}: ");
        let line = found
            .iter()
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("{start} in {found:#?}"));
        assert!(line.contains(allowed), "{line}");
    }
    assert_eq!(found.len(), wrong.len(), "{found:#?}");
}

#[test]
fn secrets_are_not_repeated_in_errors() {
    for (name, value) in [
        ("REDIS_URL", "redis://user:hunter2@host:port"),
        ("REDIS_URL", "rediss://:hunter2@"),
        ("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "authorization hunter2"),
        (
            "CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS",
            "authorization:hunter2\u{7}",
        ),
    ] {
        let found = errors(&[(name, value)]);
        assert!(
            found.len() == 1 && found[0].starts_with(name) && !found[0].contains("hunter2"),
            "{found:?}"
        );
    }
}
