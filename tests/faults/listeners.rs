//! Clients that are slow, silent, many or malicious, against the real process.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use futures::future::join_all;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tokio::time::timeout;
use tonic::transport::Channel;
use wire::rate_limit_service_client::RateLimitServiceClient;

use crate::load::RULES;
use crate::support::http::Client;
use crate::support::sluicegate::Sluicegate;

/// Connections that say nothing, on each port; within the usual bound of 1024 files for a test process.
const IDLE: usize = 200;

pub async fn ask(client: &mut RateLimitServiceClient<Channel>, value: &[u8]) -> Result<i32, tonic::Status> {
    ask_for(client, "local", value).await
}

/// The same for another key.
pub async fn ask_for(
    client: &mut RateLimitServiceClient<Channel>,
    key: &str,
    value: &[u8],
) -> Result<i32, tonic::Status> {
    let answer = client.should_rate_limit(request(key, value)).await?;
    Ok(answer.into_inner().overall_code)
}

/// One descriptor of one entry.
pub fn request(key: &str, value: &[u8]) -> wire::RateLimitRequest {
    let entry = common::rate_limit_descriptor::Entry {
        key: key.into(),
        value: value.to_vec(),
    };
    wire::RateLimitRequest {
        domain: "chaos".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![entry],
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub async fn connect(server: &Sluicegate) -> RateLimitServiceClient<Channel> {
    connect_to(server.grpc_port).await
}

/// The same by its port.
pub async fn connect_to(port: u16) -> RateLimitServiceClient<Channel> {
    let url = format!("http://127.0.0.1:{port}");
    RateLimitServiceClient::connect(url).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_malformed_connections_are_nobody_elses_business() {
    let server = Sluicegate::start(RULES, &[]);
    let mut idle = Vec::new();
    for port in [server.grpc_port, server.http_port, server.admin_port] {
        for n in 0..IDLE {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            // Some say nothing, some begin a head, some speak nonsense.
            let start: &[u8] = match n % 4 {
                0 => b"",
                1 => b"POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{",
                2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
                _ => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            };
            // It may have been closed on us already.
            let _ = stream.write_all(start);
            idle.push(stream);
        }
    }
    let mut client = connect(&server).await;
    assert_eq!(ask(&mut client, b"x").await.expect("answered"), 1);
    assert_eq!(Client::new(server.http_port).get("/healthcheck", &[]).await.body, "OK");
    let big = "x".repeat(2 << 20);
    assert_eq!(
        Client::new(server.http_port)
            .post("/json", &[], &big)
            .await
            .status
            .as_u16(),
        413
    );
    drop(idle);
    assert!(!server.process.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_reach_the_log_escaped() {
    let server = Sluicegate::start(RULES, &["--log-level", "trace"]);
    let mut client = connect(&server).await;
    let lines = ["forged", "\u{1b}[31mred", "\0", "\r\u{8}\u{7f}", "\u{2028}"];
    for text in lines {
        let value = format!("x\n2026-01-01T00:00:00Z ERROR {text}");
        ask(&mut client, value.as_bytes()).await.expect("answered");
        let body = serde_json::json!({"domain": value, "descriptors": [{"entries": [{"key": value, "value": value}]}], value: 1});
        Client::new(server.http_port)
            .post("/json", &[], &body.to_string())
            .await;
    }
    ask(&mut client, b"\xFF\xC3\n").await.expect("answered");
    let log = server.process.log();
    assert!(log.len() > 1000, "a trace says a lot: {log}");
    for line in log.lines() {
        assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_given_up_while_the_process_stood_still_take_no_other_along() {
    let server = Sluicegate::start(RULES, &[]);
    let client = connect(&server).await;
    ask(&mut client.clone(), b"x").await.expect("answered");
    server.process.signal("STOP");
    let mut patient = client.clone();
    let patient = tokio::spawn(async move { ask(&mut patient, b"patient").await });
    let given_up = (0..500).map(|_| {
        let mut client = client.clone();
        async move { timeout(Duration::from_millis(200), ask(&mut client, b"x")).await }
    });
    assert!(join_all(given_up).await.iter().all(Result::is_err));
    server.process.signal("CONT");
    let answer = patient.await.expect("no panic");
    assert_eq!(answer.expect("answered on the same connection"), 1);
}
