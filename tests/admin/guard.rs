//! Who may ask.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::{Admin, TOKEN};

const STATUS: &str = "/api/v1/status";

/// A bearer header's value.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The status line of what a raw request is answered.
fn raw(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    // The server may answer and close before it has all of a large body.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.take(4096).read_to_end(&mut answer);
    String::from_utf8_lossy(&answer)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn loopback_reads_without_a_token_and_foreign_names_pages_and_forwarded_calls_do_not() {
    let admin = Admin::start(false, &[]);
    let port = admin.server.admin_port;
    let status = async |headers: &[(&str, &str)]| admin.api.get(STATUS, headers).await.status.as_u16();
    assert_eq!(status(&[]).await, 200);
    for ours in ["localhost", "localhost:80", "127.0.0.1:1", "[::1]:6070"] {
        assert_eq!(status(&[("host", ours)]).await, 200, "{ours}");
    }
    // DNS rebinding: the name is the attacker's, the address is ours.
    for foreign in [
        "evil.example",
        "evil.example:6070",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ] {
        assert_eq!(status(&[("host", foreign)]).await, 403, "{foreign}");
    }
    assert_eq!(status(&[("origin", "https://evil.example")]).await, 403);
    assert_eq!(status(&[("origin", "null")]).await, 403);
    assert_eq!(status(&[("sec-fetch-site", "cross-site")]).await, 403);
    let own = format!("http://127.0.0.1:{port}");
    assert_eq!(
        status(&[("origin", &own), ("sec-fetch-site", "same-origin")]).await,
        200
    );
    // A proxy on this machine is not the operator.
    assert_eq!(status(&[("x-forwarded-for", "10.0.0.1")]).await, 403);
    assert_eq!(status(&[("forwarded", "for=10.0.0.1")]).await, 403);
    // Nothing is compared where there is nothing to compare with.
    assert_eq!(
        status(&[("x-forwarded-for", "10.0.0.1"), ("authorization", "Bearer ")]).await,
        403
    );
}

#[tokio::test]
async fn the_token_opens_what_is_closed_a_wrong_one_closes_what_is_open_and_a_new_file_is_read() {
    let mut admin = Admin::start(true, &[]);
    let right = bearer(TOKEN);
    let forwarded = ("x-forwarded-for", "10.0.0.1");
    let answer = admin.api.get(STATUS, &[forwarded]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(
        answer
            .header("www-authenticate")
            .is_some_and(|scheme| scheme.starts_with("Bearer"))
    );
    assert_eq!(answer.json()["status"], 401);
    let status = async |admin: &Admin, token: &str| {
        let headers = [forwarded, ("host", "sluicegate.internal"), ("authorization", token)];
        admin.api.get(STATUS, &headers).await.status.as_u16()
    };
    assert_eq!(status(&admin, &right).await, 200);
    for wrong in [
        &TOKEN[1..],
        &format!("{TOKEN}x"),
        "",
        &TOKEN.to_uppercase(),
        &"x".repeat(32),
    ] {
        assert_eq!(status(&admin, &bearer(wrong)).await, 401, "{wrong:?}");
    }
    // From loopback, too: whoever sends a token wants to know that it is wrong.
    let wrong = bearer("wrongwrongwrongwrong");
    assert_eq!(admin.api.get(STATUS, &[("authorization", &wrong)]).await.status, 401);
    // A cross-site page is refused even with the token.
    let headers = [("authorization", right.as_str()), ("origin", "https://evil.example")];
    assert_eq!(admin.api.get(STATUS, &headers).await.status, 403);

    let next = "fedcba9876543210fedcba9876543210";
    std::fs::write(admin.token_file.path(), next).expect("the token");
    admin
        .server
        .process
        .wait_until("it reads the new token", |process| process.log().contains("read again"));
    assert_eq!(status(&admin, &bearer(next)).await, 200);
    assert_eq!(status(&admin, &right).await, 401);
    // What is no token leaves the old one in force.
    std::fs::write(admin.token_file.path(), "short").expect("the token");
    admin
        .server
        .process
        .wait_until("it says that the file is wrong", |process| {
            process.log().contains("cannot be used")
        });
    assert_eq!(status(&admin, &bearer(next)).await, 200);
    for token in [TOKEN, next] {
        assert!(!admin.server.process.log().contains(token), "a token is in the log");
    }
}

#[tokio::test]
async fn nothing_is_changed_without_the_token_and_every_answer_is_strict() {
    let admin = Admin::start(false, &[]);
    for (path, expected) in [(STATUS, 403), ("/api/v1/nothing", 403)] {
        let answer = admin.api.post(path, &[], "{}").await;
        assert_eq!(answer.status.as_u16(), expected, "{path}");
    }
    for path in [STATUS, "/api/v1/nothing", "/api/v1/top?limit=0", "/api/nothing"] {
        let answer = admin.api.get(path, &[]).await;
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        if path != STATUS {
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn ten_megabytes_are_refused_and_the_next_caller_is_served() {
    let admin = Admin::start(true, &[]);
    let port = admin.server.admin_port;
    let mut request = format!(
        "POST {STATUS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 10485760\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + (10 << 20), b'x');
    let line = tokio::task::spawn_blocking(move || raw(port, &request))
        .await
        .expect("an answer");
    assert!(line.is_empty() || line.contains(" 4"), "{line}");
    assert_eq!(admin.api.get(STATUS, &[]).await.status, 200);
}
