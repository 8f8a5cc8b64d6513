//! Ten thousand connections, and what becomes of those for which there is no place.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep;

use crate::listeners::{ask, connect};
use crate::load::{Kind, RULES, frame};
use crate::soak::{Use, measure};
use crate::support::http::Client;
use crate::support::process::PATIENCE;
use crate::support::sluicegate::Sluicegate;

/// Connections, where the system lets the processes have so many.
const CROWD: usize = 10_000;
/// Memory that one of them may cost; streams that wait for their request included.
const MAX_KIB: u64 = 48;
/// Streams that a connection opens without a request.
const STREAMS: u32 = 4;
/// HTTP/2's preface and an empty SETTINGS frame.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A HEADERS frame that opens a call and does not end it.
fn opened_stream(id: u32) -> Vec<u8> {
    let path = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
    // POST, http, then literals: :path, :authority, content-type, te.
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).expect("short")];
    block.extend(path);
    block.extend(b"\x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers");
    let length = u32::try_from(block.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], 1, 4];
    frame.extend(id.to_be_bytes());
    frame.extend(block);
    frame
}

/// Raises this process's own limit; how many connections both ends can hold.
fn room_for(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .expect("its own limit");
    let files = maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    // The server gives three quarters to its gRPC port.
    let room = (files / 4 * 3).saturating_sub(100).min(wanted);
    if room < wanted {
        println!("only {room} connections: the hard limit of open files is {files}");
    }
    room
}

fn open(port: u16, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut start = GREETING.to_vec();
    match n % 4 {
        0 => start.clear(),
        1 => start.truncate(10),
        2 => {}
        _ => (0..STREAMS).for_each(|n| start.extend(opened_stream(2 * n + 1))),
    }
    stream.write_all(&start).expect("sent");
    stream
}

/// A connection whose greeting was read: the server's acknowledgement of our SETTINGS has come.
fn greet(port: u16) -> TcpStream {
    let (mut stream, mut heard) = (open(port, 2), Vec::new());
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    while !heard.ends_with(b"\0\0\0\x04\x01\0\0\0\0") {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .expect("SETTINGS and the acknowledgement of ours");
        heard.extend(byte);
    }
    stream
}

/// A line of `/metrics`.
pub async fn metric(server: &Sluicegate, name: &str) -> u64 {
    let text = Client::new(server.admin_port).get("/metrics", &[]).await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" 0");
    line.trim().parse().expect("a number")
}

pub async fn wait_for(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ready().await {
        assert!(start.elapsed() < PATIENCE, "not {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_held_and_let_go() {
    let crowd = room_for(CROWD);
    let server = Sluicegate::start(RULES, &["--client-timeout", "10m"]);
    let mut client = connect(&server).await;
    ask(&mut client, b"first").await.expect("answered");
    let before = measure(server.process.id());
    let start = Instant::now();
    let connections: Vec<TcpStream> = (0..crowd).map(|n| open(server.grpc_port, n)).collect();
    let held = u64::try_from(crowd).expect("a few");
    wait_for("all accepted", async || {
        metric(&server, "sluicegate_connections{port=\"grpc\"}").await > held
    })
    .await;
    for n in 0..100_u32 {
        ask(&mut client, &n.to_be_bytes()).await.expect("answered");
    }
    let newcomer = ask(&mut connect(&server).await, b"newcomer").await;
    assert_eq!(newcomer.expect("answered"), 1);
    let with: Use = measure(server.process.id());
    let grown = with.resident_kib.saturating_sub(before.resident_kib);
    println!(
        "{crowd} connections, {} streams: {} bytes each, {} open files, all within {:?}",
        crowd / 4 * 4,
        grown * 1024 / held,
        with.files,
        start.elapsed()
    );
    assert!(with.files >= crowd, "{with:?}");
    assert!(grown <= held * MAX_KIB, "{before:?} → {with:?}");
    drop(connections);
    wait_for("all let go", async || {
        measure(server.process.id()).files <= before.files + 8
    })
    .await;
    ask(&mut client, b"last").await.expect("answered");
    assert!(!server.process.log().contains("panicked"));
}

/// Whether the other side has closed it, or does within the time that a test may wait.
fn is_closed(stream: &mut TcpStream, wait: Duration) -> bool {
    stream.set_read_timeout(Some(wait)).expect("a timeout");
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_places_are_taken_the_silent_leave_and_the_others_stay() {
    let max = 40;
    let server = Sluicegate::start(RULES, &["--client-timeout", "10m", "--max-connections", "40"]);
    let accepted = "sluicegate_connections{port=\"grpc\"}";
    let mut silent: Vec<TcpStream> = (0..max).map(|_| open(server.grpc_port, 0)).collect();
    wait_for("all accepted", async || metric(&server, accepted).await == 40).await;
    // Whoever has something to say is let in for one who has not.
    let mut client = connect(&server).await;
    ask(&mut client, b"x").await.expect("answered");
    let evicted = "sluicegate_connections_closed_total{port=\"grpc\",reason=\"evicted\"}";
    assert!(metric(&server, evicted).await >= 1);
    assert!(is_closed(&mut silent[0], PATIENCE), "the first of the silent");

    // Where all have greeted, who comes is told at once.
    let greeted: Vec<TcpStream> = (1..max).map(|_| greet(server.grpc_port)).collect();
    assert!(silent.iter_mut().all(|stream| is_closed(stream, PATIENCE)));
    let mut refused = open(server.grpc_port, 2);
    assert!(is_closed(&mut refused, PATIENCE));
    let refusals = "sluicegate_connections_closed_total{port=\"grpc\",reason=\"refused\"}";
    assert!(metric(&server, refusals).await >= 1);
    ask(&mut client, b"x").await.expect("those who are there are served");
    drop(greeted);
    wait_for("evicted", async || metric(&server, accepted).await == 1).await;
    let lines = ["connection limit reached", "connections are below the limit again"];
    wait_for("both said", async || {
        ask(&mut connect(&server).await, b"x").await.expect("answered");
        lines.iter().all(|line| server.process.log().contains(line))
    })
    .await;
    let log = server.process.log();
    for line in lines {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_files_are_said_and_kept_apart() {
    let mut server = Sluicegate::start_with_files("-n 256", RULES, &["--client-timeout", "10m"]);
    let said = "may open too few files for --max-connections";
    server
        .process
        .wait_until("too few files said", |process| process.log().contains(said));
    let _crowd: Vec<TcpStream> = (0..300).map(|n| open(server.grpc_port, n / 150 * 2)).collect();
    ask_anyhow(&server).await;
    let log = server.process.log();
    assert!(!log.contains("could not be accepted"), "{log}");
    assert_eq!(Client::new(server.http_port).get("/healthcheck", &[]).await.body, "OK");
}

/// As a server in Go would: 1024 is what most systems give, and far less than what they allow.
#[test]
fn a_soft_limit_of_files_is_raised_to_the_hard_one() {
    let server = Sluicegate::start_with_files("-Sn 64", RULES, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process.id())).expect("a living process");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = files.expect("the limit of files").split_whitespace();
    let [soft, hard] = [numbers.next(), numbers.next()];
    assert_eq!(soft, hard, "{limits}");
}

/// Whether it gets an answer depends on places; whether it hears soon does not.
async fn ask_anyhow(server: &Sluicegate) {
    let mut client = connect(server).await;
    tokio::time::timeout(PATIENCE, ask(&mut client, b"x"))
        .await
        .expect("an answer or an error")
        .ok();
}

/// A stream that is opened and never used is ended, also where its connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn streams_without_a_request_are_ended() {
    let server = Sluicegate::start(RULES, &["--client-timeout", "1s"]);
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.grpc_port));
    let (mut sender, connection) = h2::client::handshake(stream.await.expect("a connection"))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let mut calls = Vec::new();
    for _ in 0..500 {
        let request = http::Request::post("http://x/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        sender = sender.ready().await.expect("room for a stream");
        calls.push(sender.send_request(request, false).expect("sent"));
    }
    for (response, _body) in calls {
        let response = tokio::time::timeout(PATIENCE, response).await.expect("it is ended");
        let status = response.expect("an answer").headers()["grpc-status"].clone();
        assert_eq!(status, "4", "DEADLINE_EXCEEDED");
    }
}

/// Clients that ask, never take an answer since their windows are closed, and still say that they are there.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answers_is_left() {
    let server = Sluicegate::start(RULES, &["--client-timeout", "1s"]);
    let mut client = connect(&server).await;
    ask(&mut client, b"first").await.expect("answered");
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", server.grpc_port)).await;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, bytes::Bytes>(stream.expect("a connection"))
        .await
        .expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let mut calls = Vec::new();
    for n in 0..2000 {
        let request = http::Request::post("http://x/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let mut sender = sender.clone().ready().await.expect("room for a stream");
        let (answer, mut body) = sender.send_request(request, false).expect("sent");
        body.send_data(frame(Kind::Local, n), true).expect("sent");
        calls.push(answer);
    }
    let end = tokio::time::timeout(PATIENCE, connection).await;
    let _ = end.expect("the server closes it").expect("no panic");
    let slow = "sluicegate_connections_closed_total{port=\"grpc\",reason=\"slow\"}";
    assert_eq!(metric(&server, slow).await, 1);
    // A connection that is quiet for long has nothing to take.
    sleep(Duration::from_secs(3)).await;
    ask(&mut client, b"last").await.expect("answered");
    assert_eq!(metric(&server, slow).await, 1);
}
