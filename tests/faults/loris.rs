//! Clients of the HTTP ports that take their time, or send more than anybody wants.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::listeners::{ask, connect_to};
use crate::load::RULES;
use crate::soak::measure;
use crate::support::http::Client;
use crate::support::process::PATIENCE;
use crate::support::sluicegate::Sluicegate;

/// Short, so that a test can see its end.
const CLIENT_TIMEOUT: &[&str] = &["--client-timeout", "1s"];

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What comes until the server closes; fails when it does not.
fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("still open: {error}"),
        _ => String::from_utf8_lossy(&rest).into_owned(),
    }
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let server = Sluicegate::start(RULES, CLIENT_TIMEOUT);
    let beginnings: [&[u8]; 4] = [b"", b"PRI * HT", b"GET /healthcheck HTTP/1.1\r\nhost: ", b"GET /"];
    for port in [server.http_port, server.admin_port] {
        let slow: Vec<TcpStream> = beginnings
            .iter()
            .map(|beginning| {
                let mut stream = connect(port);
                stream.write_all(beginning).expect("sent");
                stream
            })
            .collect();
        for stream in slow {
            assert!(!rest(stream).contains("200 OK"));
        }
    }
}

#[test]
fn a_head_that_trickles_ends_the_connection() {
    let server = Sluicegate::start(RULES, CLIENT_TIMEOUT);
    for port in [server.http_port, server.admin_port] {
        let mut stream = connect(port);
        stream.write_all(b"GET /healthcheck HTTP/1.1\r\n").expect("sent");
        let mut lines = 0;
        while stream.write_all(b"x: y\r\n").is_ok() {
            lines += 1;
            assert!(lines < 600, "it is still read after a minute");
            sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_body_that_never_ends_is_answered_with_408() {
    let server = Sluicegate::start(RULES, CLIENT_TIMEOUT);
    let heads = ["content-length: 1000", "transfer-encoding: chunked"];
    for head in heads {
        let mut stream = connect(server.http_port);
        write!(stream, "POST /json HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n").expect("sent");
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head}: {answer}");
        assert!(answer.contains("did not arrive within 1s"), "{head}: {answer}");
    }
    // A byte now and then does not help.
    let mut stream = connect(server.http_port);
    write!(stream, "POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").expect("sent");
    let mut trickle = stream.try_clone().expect("the same");
    let sender = std::thread::spawn(move || {
        (0..600).any(|_| {
            sleep(Duration::from_millis(100));
            trickle.write_all(b" ").is_err()
        })
    });
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(sender.join().expect("no panic"), "it is still read after a minute");
    // Nobody reads a body here; what is left of it does not keep the connection.
    let mut stream = connect(server.admin_port);
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    )
    .expect("sent");
    assert!(rest(stream).starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_size_cost_no_memory() {
    let server = Sluicegate::start(RULES, &[]);
    let client = Client::new(server.http_port);
    let largest = " ".repeat((1 << 20) - 2) + "{}";
    let answer = client.post("/json", &[], &largest).await;
    assert_ne!(answer.status.as_u16(), 413, "{answer:?}");
    // What the allocator keeps for the next time is not growth.
    flood(&server, &client, &largest).await;
    let before = measure(server.process.id());
    for _ in 0..3 {
        flood(&server, &client, &largest).await;
    }
    let after = measure(server.process.id());
    assert!(
        after.resident_kib < before.resident_kib + 32 * 1024,
        "{before:?} → {after:?}"
    );
}

/// About 100 MiB of bodies that are too large.
async fn flood(server: &Sluicegate, client: &Client, largest: &str) {
    for round in 0..20 {
        let refused = client.post("/json", &[], &format!("{largest} ")).await;
        assert_eq!(refused.status.as_u16(), 413);
        // Said in advance, and too much to be read for nothing.
        let mut stream = connect(server.http_port);
        let size = 1_u64 << (24 + round);
        write!(
            stream,
            "POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        )
        .expect("sent");
        assert!(rest(stream).starts_with("HTTP/1.1 413 "));
    }
    // Not said, and without an end.
    for _ in 0..8 {
        let mut stream = connect(server.http_port);
        stream
            .write_all(b"POST /json HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            .expect("sent");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let sent = (0..4096).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok());
        assert!(sent.count() < 4096, "256 MiB were taken");
    }
}

/// More slow clients than a port has places; who asks something is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_take_all_places() {
    let server = Sluicegate::start(RULES, &["--client-timeout", "10m"]);
    for (port, crowd) in [(server.http_port, 1100), (server.admin_port, 200)] {
        let starts: [&[u8]; 3] = [
            b"",
            b"GET / HTTP/1.1\r\n",
            b"POST /json HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
        ];
        let _slow: Vec<TcpStream> = (0..crowd)
            .map(|n| {
                let mut stream = connect(port);
                // It may have had to leave already.
                let _ = stream.write_all(starts[n % 3]);
                stream
            })
            .collect();
        let answer = Client::new(port).get("/healthcheck", &[]).await;
        assert_eq!(answer.body, "OK");
    }
    let log = server.process.log();
    assert_eq!(log.matches("connection limit reached").count(), 2, "{log}");
}

/// Its age ends before its time to greet does; it leaves all the same, and a full port goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_that_is_too_old_keeps_no_place() {
    let bounds = ["--max-connections", "2", "--grpc-max-connection-age", "200ms"];
    let server = Sluicegate::start(RULES, &[&bounds, CLIENT_TIMEOUT].concat());
    let greeting: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for start in [b"", greeting] {
        let mut stream = connect(server.grpc_port);
        stream.write_all(start).expect("sent");
        rest(stream);
    }
    let server = Sluicegate::start(RULES, &[&bounds[..], &["--client-timeout", "10m"]].concat());
    let silent = [(); 2].map(|()| connect(server.grpc_port));
    sleep(Duration::from_millis(500));
    let answer = async { ask(&mut connect_to(server.grpc_port).await, b"x").await };
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("it is let in");
    assert_eq!(answer.expect("answered"), 1);
    drop(silent);
}

#[test]
fn silent_connections_do_not_hold_up_the_end() {
    let mut server = Sluicegate::start(RULES, &["--client-timeout", "10m", "--drain-timeout", "10m"]);
    let ports = [server.grpc_port, server.http_port, server.admin_port];
    let silent = ports.map(connect);
    let half: [TcpStream; 3] = ports.map(connect);
    for mut stream in &half {
        stream.write_all(b"PRI * HTTP/2.0").expect("sent");
    }
    server.process.signal("TERM");
    assert!(server.process.wait_for_exit().success());
    drop((silent, half));
}
