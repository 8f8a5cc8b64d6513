//! The stream of events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Admin;

/// A reader of the stream that says what it has seen.
struct Reader {
    lines: BufReader<TcpStream>,
}

impl Reader {
    fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        stream
            .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .expect("a request");
        Self {
            lines: BufReader::new(stream),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line in time");
        line
    }

    /// Reads on until a line begins so.
    fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the stream ended before {start:?}");
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

#[tokio::test]
async fn denials_and_reloads_are_told_as_they_happen() {
    let admin = Admin::start(false, &[]);
    let port = admin.server.admin_port;
    let mut reader = Reader::open(port);
    // The first beat: it listens from here on.
    reader.until(":");
    admin.ask("user", "<script>alert(1)</script>", 5).await;
    let (mut reader, denied) = tokio::task::spawn_blocking(move || {
        reader.until("event: denied");
        let data = reader.until("data: ");
        (reader, data)
    })
    .await
    .expect("an event");
    let denied: serde_json::Value = serde_json::from_str(denied.trim_start_matches("data: ")).expect("JSON");
    assert_eq!(denied["counter"]["rule"], "user");
    assert!(
        (1..=2).contains(&denied["denials_since_last"].as_u64().unwrap_or(0)),
        "{denied}"
    );
    let document = admin.api.get("/api/v1/openapi.json", &[]).await.json();
    let described = &document["components"]["schemas"]["DeniedEvent"]["properties"];
    let fields = |of: &serde_json::Value| of.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&denied), fields(described));
    assert_eq!(denied["counter"]["descriptor"][0]["value"], "<script>alert(1)</script>");
    std::fs::write(&admin.server.rules, "domain: [").expect("the rules");
    let refused = tokio::task::spawn_blocking(move || {
        reader.until("event: reload");
        reader.until("data: ")
    })
    .await
    .expect("an event");
    let refused: serde_json::Value = serde_json::from_str(refused.trim_start_matches("data: ")).expect("JSON");
    assert_eq!(refused["ok"], false);
    assert!(
        refused["errors"]
            .as_str()
            .is_some_and(|errors| errors.contains("rules.yaml:")),
        "{refused}"
    );
    let status = admin.api.get("/api/v1/status", &[]).await.json();
    assert_eq!(status["reloads"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["rules"]["rules"], 4);
    assert_eq!(status["rules"]["hash"], status["reloads"][0]["hash"]);
    assert_ne!(status["rules"]["hash"], "");
}

/// A reader that has stopped reading keeps its place for good where nothing happens: what is sent fits in the buffers of sockets.
#[tokio::test]
async fn of_too_many_readers_the_oldest_leaves_whether_it_reads_or_not() {
    let admin = Admin::start(false, &[]);
    let port = admin.server.admin_port;
    let listening = || {
        let mut reader = Reader::open(port);
        reader.until(":");
        reader
    };
    // One after the other, so that the first is the oldest.
    let mut readers: Vec<Reader> = (0..16).map(|_| listening()).collect();
    // None of them reads from here on, and one more comes: it is served, and the oldest's stream ends.
    let mut newest = listening();
    admin.ask("user", "mallory", 5).await;
    let ended = tokio::task::spawn_blocking(move || {
        readers[0].until("event: displaced");
        readers[0].until("0\r\n");
        for reader in readers[1..].iter_mut().chain([&mut newest]) {
            reader.until("event: denied");
        }
    });
    ended.await.expect("the others read on");
}

#[tokio::test]
async fn the_process_ends_while_somebody_listens() {
    let mut admin = Admin::start(false, &[]);
    let mut reader = Reader::open(admin.server.admin_port);
    reader.until(":");
    admin.server.process.signal("TERM");
    assert!(admin.server.process.wait_for_exit().success());
}

#[tokio::test]
async fn readers_that_stall_hold_up_nobody() {
    let admin = Admin::start(false, &[]);
    let port = admin.server.admin_port;
    let mut stalled: Vec<Reader> = (0..15).map(|_| Reader::open(port)).collect();
    for reader in &mut stalled {
        reader.until(":");
    }
    let mut reader = Reader::open(port);
    reader.until(":");
    // More than waits for a reader, of values as long as they may be.
    for n in 0..40 {
        admin.ask("user", &format!("{n}{}", "x".repeat(4000)), 8).await;
    }
    admin.ask("user", "mallory", 8).await;
    let heard = tokio::task::spawn_blocking(move || {
        reader.until("event: denied");
        reader.until("data: ")
    });
    assert!(heard.await.expect("an event").contains("shop"));
    assert_eq!(admin.api.get("/api/v1/status", &[]).await.status, 200);
    assert_eq!(admin.top("by=denied", 328).await["denied"], 205);
    drop(stalled);
}
