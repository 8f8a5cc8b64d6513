//! As others start it: Istio, Envoy Gateway, flags; TLS and the control plane.

use super::*;

#[test]
fn flags_become_settings() {
    let read = |arguments: &[&str]| {
        let command = ServeArgs::augment_args(clap::Command::new("serve"));
        let matches = command
            .try_get_matches_from([&["serve"], arguments].concat())
            .map_err(|error| error.to_string())?;
        let args = ServeArgs::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        let (settings, notices) = args.into_settings().map_err(|errors| errors.to_string())?;
        assert_eq!(notices, []);
        Ok::<_, String>(settings)
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
    assert!(
        settings.rules.charge_after_peek,
        "its policies charge what responses cost"
    );
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
