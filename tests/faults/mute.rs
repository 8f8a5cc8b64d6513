//! A log that nobody reads: standard error is a full pipe.

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::crowd::metric;
use crate::listeners::{ask, connect};
use crate::load::RULES;
use crate::support::http::Client;
use crate::support::process::PATIENCE;
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

/// Requests in a round; each is many lines of a trace.
const ROUND: u32 = 300;
const DROPPED: &str = "sluicegate_log_lines_dropped_total";

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_wait_for_who_reads_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut redis = Redis::start();
    let url = redis.url();
    let server = Sluicegate::start_with_log_in(&fifo, RULES, &["--redis-url", &url, "--log-level", "trace"]);
    let mut client = connect(&server).await;
    // Far more than a pipe holds, and then more than we hold; with Redis, without it, and when it is back.
    let start = Instant::now();
    for round in 0.. {
        for n in 0..ROUND {
            let answer = tokio::time::timeout(PATIENCE, ask(&mut client, &n.to_be_bytes())).await;
            answer.expect("in time").expect("answered");
        }
        match round {
            0 => redis.kill(),
            2 => redis.restart(),
            _ => {}
        }
        if round > 2 && metric(&server, DROPPED).await > 0 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "nothing was dropped after {round} rounds");
    }
    // Somebody reads again: the log goes on, and says what is missing.
    let (lines, read) = channel();
    std::thread::spawn(move || {
        let mut log = File::open(fifo).expect("the log");
        let (mut text, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(bytes @ 1..) = log.read(&mut chunk) {
            text.extend_from_slice(&chunk[..bytes]);
            if lines
                .send(String::from_utf8_lossy(&text).contains("log lines were dropped"))
                .is_err()
            {
                return;
            }
        }
    });
    let start = Instant::now();
    while !read.recv_timeout(PATIENCE).expect("more of the log") {
        assert!(start.elapsed() < PATIENCE, "the log does not say it");
    }
    ask(&mut client, b"last").await.expect("answered");
}

/// Its end does not wait for them either.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_though_nobody_reads_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    // Filled before it starts.
    let fill = r#"exec 3<>"$0"; timeout 1 yes >&3; exit 0"#;
    let mut holder = File::options().read(true).write(true).open(&fifo).expect("the FIFO");
    assert!(
        Command::new("sh")
            .args(["-c", fill])
            .arg(&fifo)
            .status()
            .expect("sh")
            .success()
    );
    let mut server = Sluicegate::start_with_log_in(&fifo, RULES, &[]);
    assert_eq!(Client::new(server.http_port).get("/healthcheck", &[]).await.body, "OK");
    // It serves; a moment later it hears signals, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.process.signal("TERM");
    assert!(server.process.wait_for_exit().success());
    holder.read_exact(&mut [0; 2]).expect("it was full");
}
