//! A password of Redis that changes while the server runs: said once with the cure, shown by the health check, and taken
//! from the file without a restart.

use std::fs;

use tokio_util::sync::CancellationToken;

use crate::support::{
    ratelimit::Ratelimit,
    redis::{Redis, cli, sentinel::Sentinel},
};

/// Asks until the details of the health check say whether the store answers.
async fn store_answers(server: &Ratelimit, expected: bool) {
    let wanted = format!(r#""store_answers":{expected}"#);
    for _ in 0..3000 {
        let page = server.http().get("/healthcheck?details", &[]).await.body;
        if page.replace(' ', "").contains(&wanted) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{expected} is never said: {}", server.process.log());
}

/// `rotate` gives the user another password; `admin` are arguments with which `redis-cli` logs in from then on.
async fn rotated(prepare: &[&str], login: [&str; 2], rotate: &[&str], admin: [&[&str]; 2]) {
    let redis = Redis::start();
    assert_eq!(redis.cli(prepare), "OK");
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), "domain: d\n").expect("a file");
    let file = root.path().join("password");
    fs::write(&file, format!("{}\n", login[0])).expect("a file");
    let (path, url) = (root.path().display().to_string(), format!("127.0.0.1:{}", redis.port));
    let mut server = Ratelimit::start(&[
        ("RUNTIME_ROOT", &path),
        ("LOG_LEVEL", "info"),
        ("REDIS_URL", &url),
        ("REDIS_AUTH_FILE", &file.display().to_string()),
    ]);
    server.wait_for_redis(1);
    store_answers(&server, true).await;

    assert_eq!(redis.cli(&[admin[0], rotate].concat()), "OK");
    redis.cli(&[admin[1], &["CLIENT", "KILL", "TYPE", "normal"]].concat());
    server
        .process
        .wait_until("the cure", |process| process.log().contains("Redis refuses the login"));
    store_answers(&server, false).await;

    fs::write(&file, format!("{}\n", login[1])).expect("a file");
    server.wait_for_redis(2);
    store_answers(&server, true).await;
    let log = server.process.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("refuses the login")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains("WRONGPASS") && said[0].contains("REDIS_AUTH_FILE"),
        "{log}"
    );
    assert!(!log.contains("hunter"), "{log}");
}

#[tokio::test]
async fn of_the_default_user() {
    let set = ["CONFIG", "SET", "requirepass", "hunter1"];
    let rotate = ["CONFIG", "SET", "requirepass", "hunter2"];
    rotated(
        &set,
        ["hunter1", "hunter2"],
        &rotate,
        [&["-a", "hunter1"], &["-a", "hunter2"]],
    )
    .await;
}

#[tokio::test]
async fn of_a_user_of_its_own() {
    let set = ["ACL", "SETUSER", "limiter", "on", ">hunter1", "~*", "+@all"];
    let rotate = ["ACL", "SETUSER", "limiter", "resetpass", ">hunter2"];
    rotated(&set, ["limiter:hunter1", "limiter:hunter2"], &rotate, [&[], &[]]).await;
}

/// What no waiting would fix stops the start.
#[test]
fn a_file_that_is_not_there_stops_the_start() {
    let (mut command, _dir) = crate::support::ratelimit::command();
    command.envs([
        ("REDIS_URL", "127.0.0.1:1"),
        ("REDIS_AUTH_FILE", "/nowhere/password"),
        ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
        ("PORT", "0"),
        ("DEBUG_PORT", "0"),
        ("GRPC_PORT", "0"),
    ]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("/nowhere/password"), "{text}");
}

/// Asks without a pause until it is told to stop; how many requests were answered.
async fn load(server: &Ratelimit, key: &'static str, stop: CancellationToken) -> usize {
    let client = server.http();
    let mut asked = 0;
    while !stop.is_cancelled() {
        let body = format!(
            r#"{{"domain": "d", "descriptors": [{{"entries": [{{"key": "{key}", "value": "{}"}}]}}]}}"#,
            asked % 100
        );
        assert_eq!(client.post("/json", &[], &body).await.status, 200);
        asked += 1;
    }
    asked
}

/// Requests that something else than the store decided.
async fn undecided(server: &Ratelimit) -> Vec<String> {
    let metrics = server.debug().get("/metrics", &[]).await.body;
    let of_failure = |line: &&str| line.starts_with("sluicegate_failure_mode_decisions_total") && !line.ends_with(" 0");
    metrics.lines().filter(of_failure).map(ToOwned::to_owned).collect()
}

const RULES: &str = "domain: d\ndescriptors:\n  - {key: minute, rate_limit: {unit: minute, requests_per_unit: 1000000}}\n  - {key: \
                     second, rate_limit: {unit: second, requests_per_unit: 1000000}}\n";

/// How often somebody has logged in, or has tried to.
fn logins(redis: &Redis, admin: &[&str]) -> u64 {
    let stats = redis.cli(&[admin, &["INFO", "commandstats"]].concat());
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix("calls=")?.split(',').next()?.parse::<u64>().ok()
    };
    calls("cmdstat_auth:").unwrap_or_default() + calls("cmdstat_hello:").unwrap_or_default()
}

/// The password of each server changes under load, then its file: no request misses its store, connections that live are
/// logged in anew, and new ones are made with what the files have.
async fn under_load(prepare: &[&str], login: [&str; 2], rotate: &[&str], user: &[&str]) {
    let servers = [Redis::start(), Redis::start()];
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), RULES).expect("a file");
    let file = |n: usize| root.path().join(format!("login{n}"));
    for (n, redis) in servers.iter().enumerate() {
        assert_eq!(redis.cli(prepare), "OK");
        fs::write(file(n), format!("{}\n", login[0])).expect("a file");
    }
    let [main, per_second] = [&servers[0], &servers[1]].map(|redis| format!("127.0.0.1:{}", redis.port));
    let mut server = Ratelimit::start(&[
        ("RUNTIME_ROOT", &root.path().display().to_string()),
        ("LOG_LEVEL", "info"),
        ("REDIS_URL", &main),
        ("REDIS_AUTH_FILE", &file(0).display().to_string()),
        ("REDIS_PERSECOND", "true"),
        ("REDIS_PERSECOND_URL", &per_second),
        ("REDIS_PERSECOND_AUTH_FILE", &file(1).display().to_string()),
        // Neither a busy machine nor a cached answer is what this is about.
        ("STORE_TIMEOUT", "5s"),
    ]);
    server.wait_for_redis(2);
    store_answers(&server, true).await;
    let admin = |old: bool| -> Vec<&str> {
        match user {
            [] => vec!["-a", if old { "hunter1" } else { "hunter2" }],
            _ => Vec::new(),
        }
    };
    let logins = |redis: &Redis| logins(redis, &admin(false));
    let stop = CancellationToken::new();
    let rotation = async {
        for (n, redis) in servers.iter().enumerate() {
            assert_eq!(redis.cli(&[admin(true).as_slice(), rotate].concat()), "OK");
            // Each look of ours may be a login of its own.
            let before = logins(redis);
            fs::write(file(n), format!("{}\n", login[1])).expect("a file");
            let mut looks = 0;
            while logins(redis) <= before + looks + 1 {
                looks += u64::from(user.is_empty());
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                assert!(looks < 600, "connections are not logged in anew");
            }
        }
        stop.cancel();
    };
    let ((), minute, second) = tokio::join!(
        rotation,
        load(&server, "minute", stop.clone()),
        load(&server, "second", stop.clone())
    );
    assert!(minute > 0 && second > 0);
    assert_eq!(
        undecided(&server).await,
        Vec::<String>::new(),
        "{minute} and {second} requests"
    );
    for redis in &servers {
        redis.cli(&[admin(false).as_slice(), &["CLIENT", "KILL", "TYPE", "normal"]].concat());
    }
    server.wait_for_redis(4);
    store_answers(&server, true).await;
    let log = server.process.log();
    assert!(!log.contains("refuses the login") && !log.contains("hunter"), "{log}");
}

#[tokio::test]
async fn under_load_of_the_default_user() {
    let set = ["CONFIG", "SET", "requirepass", "hunter1"];
    let rotate = ["CONFIG", "SET", "requirepass", "hunter2"];
    under_load(&set, ["hunter1", "hunter2"], &rotate, &[]).await;
}

#[tokio::test]
async fn under_load_of_a_user_of_its_own() {
    let set = ["ACL", "SETUSER", "limiter", "on", ">hunter1", "~*", "+@all"];
    let rotate = ["ACL", "SETUSER", "limiter", "resetpass", ">hunter2"];
    under_load(&set, ["limiter:hunter1", "limiter:hunter2"], &rotate, &["limiter"]).await;
}

/// A connection that is refused reads the file at once, so that a password that changes together with its connections is
/// taken as soon as it stands in the file. Sentinels have a login of their own.
#[tokio::test]
async fn of_sentinels() {
    let watched = Sentinel::start();
    let set = |password: &str| {
        for port in watched.ports() {
            let set = [
                "ACL",
                "SETUSER",
                "watcher",
                "on",
                "resetpass",
                password,
                "+@all",
                "allchannels",
            ];
            assert_eq!(cli(port, &set), "OK");
            // Whoever does not log in sees nothing any more.
            assert_eq!(
                cli(
                    port,
                    &[
                        "ACL", "SETUSER", "default", "-@all", "+acl", "+client", "+auth", "+hello"
                    ]
                ),
                "OK"
            );
        }
    };
    set(">hunter1");
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), RULES).expect("a file");
    let file = root.path().join("login");
    fs::write(&file, "watcher:hunter1\n").expect("a file");
    let mut server = Ratelimit::start(&[
        ("RUNTIME_ROOT", &root.path().display().to_string()),
        ("LOG_LEVEL", "info"),
        ("REDIS_URL", &watched.url()),
        ("REDIS_TYPE", "SENTINEL"),
        ("REDIS_SENTINEL_AUTH_FILE", &file.display().to_string()),
        ("STORE_TIMEOUT", "5s"),
    ]);
    server.wait_for_redis(1);
    store_answers(&server, true).await;
    let stop = CancellationToken::new();
    let rotation = async {
        set(">hunter2");
        for port in watched.ports() {
            cli(port, &["CLIENT", "KILL", "TYPE", "normal"]);
        }
        for looks in 0.. {
            if server.process.log().contains("a sentinel refuses the login") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            assert!(looks < 600, "the cure is never said");
        }
        fs::write(&file, "watcher:hunter2\n").expect("a file");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        stop.cancel();
    };
    // Connections to the master need no sentinel.
    let ((), asked) = tokio::join!(rotation, load(&server, "minute", stop.clone()));
    assert!(asked > 0);
    assert_eq!(undecided(&server).await, Vec::<String>::new(), "{asked} requests");
    watched.master.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    server.wait_for_redis(2);
    store_answers(&server, true).await;
    let log = server.process.log();
    assert_eq!(log.matches("a sentinel refuses the login").count(), 1, "{log}");
    assert!(
        log.contains("REDIS_SENTINEL_AUTH_FILE") && !log.contains("hunter"),
        "{log}"
    );
}
