//! `REDIS_…`.

use super::*;

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

/// In a list, too, a server may be a URL; what it says of the login holds for all of them.
#[test]
fn lists_of_urls() {
    let redis = |kind: &str, url: &str| {
        good(&[("REDIS_TYPE", kind), ("REDIS_URL", url)])
            .store
            .redis
            .expect("a Redis")
    };
    let login = |auth: &Option<sluicegate::config::settings::RedisAuth>| {
        auth.as_ref().map(|auth| auth.password.expose().to_owned())
    };

    let cluster = redis("CLUSTER", "redis://foo:b@r@redis1:1,redis://foo:b@r@redis2:2,redis3:3");
    let nodes = vec![server("redis1", 1), server("redis2", 2), server("redis3", 3)];
    assert_eq!(cluster.topology, Topology::Cluster(nodes));
    assert_eq!(
        (login(&cluster.auth), cluster.sentinel_auth),
        (Some("b@r".into()), None)
    );
    let cluster = redis("CLUSTER", "rediss://redis1:1,rediss://redis2:2");
    assert!(cluster.auth.is_none() && cluster.tls.is_some());

    let sentinel = redis("SENTINEL", "foob@r,redis://foo:bar@redis1:1,redis://foo:bar@redis2:2");
    assert_eq!(
        sentinel.topology,
        Topology::Sentinel {
            master: "foob@r".into(),
            sentinels: vec![server("redis1", 1), server("redis2", 2)],
        }
    );
    assert_eq!(
        (login(&sentinel.sentinel_auth), sentinel.auth),
        (Some("bar".into()), None)
    );

    for (kind, url) in [
        ("CLUSTER", "redis://a:b@h:1,redis://a:c@h:2"),
        ("CLUSTER", "redis://h:1/2"),
        ("CLUSTER", "unix:///run/redis.sock"),
        ("CLUSTER", "redis-sentinel://h/m"),
        ("CLUSTER", ","),
        ("SENTINEL", "redis://h:1"),
        ("SENTINEL", "m,unix:///run/redis.sock"),
        ("SINGLE", "redis://h:1,redis://h:2"),
    ] {
        let errors = errors(&[("REDIS_TYPE", kind), ("REDIS_URL", url)]);
        assert!(errors[0].starts_with("REDIS_URL: "), "{kind} {url}: {errors:?}");
    }
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

/// Files and Kubernetes Secrets end in a newline, which Redis would refuse as a part of the password.
#[test]
fn a_newline_at_the_end_is_no_part_of_a_secret() {
    for end in ["\n", "\r\n", "\n\n"] {
        let (url, auth) = (format!("redis://:hunter2@h{end}"), format!("user:hunter2{end}"));
        let sentinel = format!("hunter3{end}");
        let settings = good(&[
            ("REDIS_URL", "h:1"),
            ("REDIS_AUTH", &auth),
            ("REDIS_SENTINEL_AUTH", &sentinel),
        ]);
        let redis = settings.store.redis.expect("a Redis");
        let auth = redis.auth.expect("a login");
        assert_eq!(
            (auth.username.as_deref(), auth.password.expose()),
            (Some("user"), "hunter2")
        );
        assert_eq!(redis.sentinel_auth.expect("a login").password.expose(), "hunter3");
        let redis = good(&[("REDIS_URL", &url)]).store.redis.expect("a Redis");
        assert_eq!(redis.auth.expect("a login").password.expose(), "hunter2");
    }
    let plane = good(&[
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_CLIENT_ADDITIONAL_HEADERS", "authorization:Bearer x\n"),
        ("CONFIG_GRPC_XDS_NODE_ID", "node\n"),
    ]);
    let xds = plane.rules.xds.expect("a control plane");
    assert_eq!(
        (xds.headers["authorization"].expose(), xds.node_id.as_str()),
        ("Bearer x", "node")
    );
    // One that is a newline alone is not set.
    assert_eq!(
        good(&[("REDIS_URL", "h:1"), ("REDIS_AUTH", "\n")])
            .store
            .redis
            .expect("a Redis")
            .auth,
        None
    );
}
