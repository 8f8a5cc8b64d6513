//! A password of Redis that changes while the server runs: said once with the cure, shown by the health check, and taken
//! from the file without a restart.

use std::fs;

use crate::support::{ratelimit::Ratelimit, redis::Redis};

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
