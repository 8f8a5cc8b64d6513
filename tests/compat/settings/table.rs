//! The table of variables: what is read, what is wrong, what is documented.

use super::*;

#[test]
fn the_table_names_what_is_read_and_its_defaults_are_the_defaults() {
    let asked = RefCell::new(BTreeSet::new());
    Settings::from_ratelimit_env(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    })
    .expect("good");
    let table: BTreeSet<String> = variables().map(|setting| setting.variable.to_owned()).collect();
    assert_eq!(asked.into_inner(), table);
    assert_eq!(table.len(), variables().count(), "a name stands twice");

    for setting in variables() {
        if !setting.default.is_empty() && !setting.default.contains(' ') {
            assert_eq!(
                good(&[(setting.variable, setting.default)]),
                good(&[]),
                "{}",
                setting.variable
            );
        }
    }
    for line in [text(), markdown()] {
        assert!(variables().all(|setting| line.contains(setting.variable)));
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
        let known = variables().any(|known| known.variable == variable);
        assert!(
            known || ELSEWHERE.contains(&variable),
            "{variable} is missing in the table"
        );
        assert!(flag.get_help().is_some(), "--{} has no help", flag.get_id());
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
    for setting in variables() {
        let Compatibility::Ignored(why) = setting.compat else {
            continue;
        };
        let (settings, notices) = read(&[(setting.variable, "anything")]).expect("accepted");
        assert_eq!(
            notices,
            [Notice {
                name: setting.variable,
                why
            }]
        );
        assert_eq!(settings, good(&[]), "{}", setting.variable);
        assert_eq!(
            notices[0].to_string(),
            format!("{} has no effect: {why}", setting.variable)
        );
    }
    good(&[
        ("TRACING_ENABLED", "false"),
        ("REDIS_PIPELINE_LIMIT", ""),
        ("MEMCACHE_TLS", "false"),
    ]);
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
