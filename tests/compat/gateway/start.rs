//! When the process does not start, or is not ready: wrong variables, ports in use, no rules yet.

use super::config;
use crate::support::{
    ads::ControlPlane,
    http::Client,
    process::{Process, free_port},
    ratelimit::{Ratelimit, command},
};

#[tokio::test]
async fn without_force_start_it_is_not_ready_before_the_first_rules() {
    let mut plane = ControlPlane::new(None);
    let process = Ratelimit::start(&[
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", &plane.address()),
        ("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "50ms"),
        ("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "true"),
    ]);
    let http = process.http();
    let probe = http.get("/healthcheck", &[]).await;
    assert_eq!(probe.status, 500, "{}", probe.body);
    plane.publish("1", &[]);
    plane.start();
    assert_eq!(plane.next_answer().await, Ok("1".into()));
    assert_eq!(http.get("/healthcheck", &[]).await.status, 500, "no domain yet");
    plane.publish("2", &[config(1)]);
    assert_eq!(plane.next_answer().await, Ok("2".into()));
    assert_eq!(http.get("/healthcheck", &[]).await.status, 200);
    plane.publish("3", &[]);
    assert_eq!(plane.next_answer().await, Ok("3".into()));
    assert_eq!(http.get("/healthcheck", &[]).await.status, 500, "no domain any more");
}

#[test]
fn wrong_variables_stop_the_start() {
    let (mut command, _dir) = command();
    command.envs([
        ("PORT", "http"),
        ("REDIS_TYPE", "REPLICA"),
        ("REDIS_URL", "redis://u:hunter2@h:x"),
    ]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in [
        "PORT=\"http\": allowed is a port",
        "REDIS_TYPE=\"REPLICA\": allowed are SINGLE",
        "REDIS_URL: ",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

/// Envoy AI Gateway's own manifest gives the process a flag, which envoyproxy/ratelimit does not read.
#[tokio::test]
async fn flags_of_others_are_ignored() {
    let flags = ["--quotaRateLimitServiceAddr=envoy-ai-gateway-ratelimit.envoy-gateway-system"];
    let port = free_port();
    let (mut command, _dir) = command();
    command.args(flags).env("PORT", port.to_string());
    let variables = [
        ("GRPC_PORT", "0"),
        ("DEBUG_PORT", "0"),
        ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
    ];
    let mut process = Process::spawn("ratelimit", command.envs(variables));
    process.wait_for_port(port);
    assert_eq!(Client::new(port).get("/healthcheck", &[]).await.status, 200);
    assert!(process.log().contains(flags[0]), "{}", process.log());

    for wrong in ["chek", "--help"] {
        let (mut command, _dir) = crate::support::ratelimit::command();
        let output = command.arg(wrong).output().expect("it runs");
        assert_eq!(output.status.success(), wrong == "--help", "{wrong}: {output:?}");
    }
}

#[test]
fn who_says_nothing_is_told_what_to_say() {
    let (mut command, _dir) = command();
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && text.contains("sluicegate serve"),
        "{text}"
    );
}

#[test]
fn a_port_in_use_is_named_with_the_variable_that_sets_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let (mut command, _dir) = command();
    command.envs([
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("HOST", "127.0.0.1"),
        ("PORT", &port),
        ("GRPC_PORT", "0"),
    ]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(&port) && text.contains("HOST and PORT"),
        "{text}"
    );
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let (mut command, _dir) = command();
    command.envs([
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true"),
        ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", "/nowhere/ca.crt"),
        ("PORT", "0"),
        ("DEBUG_PORT", "0"),
        ("GRPC_PORT", "0"),
    ]);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("/nowhere/ca.crt"), "{text}");
}
