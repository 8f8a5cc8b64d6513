//! What `sluicegate replay` reads: formats, compression, order, lines that are no good, and streams.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use super::{RULES, clf, replay};
use crate::{directory, sluicegate, text};

/// The report on a log that comes by the standard input.
fn replay_stdin(directory: &Path, log: &[u8]) -> Value {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["replay", "--json", "--rules", "rules.yaml", "-"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(log).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn every_format_and_compression_says_the_same() {
    let mut envoy = String::new();
    let mut json = String::new();
    for line in clf().lines() {
        let client = line.split(' ').next().expect("a client");
        let second = &line[33..35];
        writeln!(envoy, "[2026-11-28T06:00:{second}.000Z] GET /a 200 {client}:4711 \"k\"").expect("text");
        writeln!(json, "{{\"at\":\"2026-11-28T06:00:{second}Z\",\"src\":{{\"ip\":\"{client}\"}},\"other\":[1,{{}}],\"h\":{{\"k\":\"k\"}}}}").expect("text");
    }
    let format =
        "[%START_TIME%] %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %DOWNSTREAM_REMOTE_ADDRESS% \"%REQ(X-KEY)%\"";
    let fields = [
        "--field",
        "time=at",
        "--field",
        "client=src.ip",
        "--field",
        "header.X-Key=h.k",
    ];
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(clf().as_bytes()).expect("gzip");
    let zstd = compress_to_vec(clf().as_bytes(), CompressionLevel::Fastest);
    let directory = directory(&[
        ("rules.yaml", RULES),
        ("envoy.log", &envoy),
        ("json.log", &json),
        ("clf.log", &clf()),
    ]);
    for (name, bytes) in [
        ("clf.gz", gzip.finish().expect("gzip")),
        ("clf.zst", zstd.clone()),
        ("two.zst", [zstd.clone(), zstd].concat()),
    ] {
        std::fs::write(directory.path().join(name), bytes).expect("a file");
    }
    let denied = |args: &[&str]| {
        let report = replay(directory.path(), args);
        assert_eq!(report["unreadable"], serde_json::json!({}), "{args:?}");
        report["denied"].clone()
    };
    for args in [
        &["clf.log"][..],
        &["clf.gz"],
        &["clf.zst"],
        &["--format", "common", "clf.log"],
        &["--format", format, "envoy.log"],
    ] {
        assert_eq!(denied(args), 4, "{args:?}");
    }
    // Two frames in one file: the second begins earlier than the first ended, so only the window's length is set right.
    assert_eq!(replay(directory.path(), &["two.zst"])["lines"], 16);
    let with_fields: Vec<&str> = fields.iter().copied().chain(["json.log"]).collect();
    assert_eq!(denied(&with_fields), 4);
    let report = replay(directory.path(), &with_fields);
    assert_eq!(report["rules"][1]["requests"], 8, "{report:#}");

    let report = replay_stdin(directory.path(), clf().as_bytes());
    assert_eq!(report["denied"], 4);
}

#[test]
fn logs_are_merged_in_order_of_time_and_small_disorder_is_set_right() {
    let log = clf();
    let lines: Vec<&str> = log.lines().collect();
    let (first, second) = (lines[..4].join("\n"), lines[4..].join("\n"));
    let directory = directory(&[("rules.yaml", RULES), ("a.log", &second), ("b.log", &first)]);
    let report = replay(directory.path(), &["a.log", "b.log"]);
    assert_eq!(
        (&report["denied"], &report["unreadable"]),
        (&4.into(), &serde_json::json!({})),
        "{report:#}"
    );

    let at = |ms: u32| {
        format!(
            "{{\"time\":\"2026-11-28T06:00:{:02}.{:03}Z\",\"client\":\"192.0.2.1\"}}\n",
            ms / 1000,
            ms % 1000
        )
    };
    let shuffled: String = [2000, 1500, 1100, 3000, 2100].map(at).concat();
    std::fs::write(directory.path().join("j.log"), &shuffled).expect("a file");
    let report = replay(directory.path(), &["j.log"]);
    assert_eq!(
        (&report["requests"], &report["unreadable"]),
        (&5.into(), &serde_json::json!({}))
    );
    assert_eq!(report["from"], "2026-11-28T06:00:01.100Z");
    // 900 ms later than a line that has gone on.
    std::fs::write(directory.path().join("j.log"), [5000, 7000, 3000].map(at).concat()).expect("a file");
    let report = replay(directory.path(), &["j.log"]);
    assert_eq!(
        report["unreadable"]["later than the reorder window"]["lines"], 1,
        "{report:#}"
    );
    assert_eq!(
        report["unreadable"]["later than the reorder window"]["example"], "at 2026-11-28T06:00:03.000Z",
        "{report:#}"
    );
    let report = replay(directory.path(), &["--reorder-window", "5s", "j.log"]);
    assert_eq!(
        (&report["requests"], &report["unreadable"]),
        (&3.into(), &serde_json::json!({}))
    );
}

#[test]
fn what_cannot_be_read_is_counted_by_reason_with_an_example() {
    let mut log = clf().into_bytes();
    log.extend(b"192.0.2.9 - - [28/Nov/2026:26:00:00 +0000] \"GET / HTTP/1.1\" 200 1\n");
    log.extend(b"192.0.2.9 - - [28/Nov/2026:06:00:09 +0000] \"-\" 408 0\n\xff\xfe\nnonsense \x1b[31m\n");
    log.extend(vec![b'x'; 300_000]);
    log.extend(b"\n192.0.2.1 - - [28/Nov/2026:06:00:09 +0000] \"GET / HTTP/1.1\" 200 1\n");
    let directory = directory(&[("rules.yaml", RULES)]);
    std::fs::write(directory.path().join("a.log"), log).expect("a file");
    let report = replay(directory.path(), &["a.log"]);
    assert_eq!(
        (&report["requests"], &report["lines"]),
        (&9.into(), &14.into()),
        "{report:#}"
    );
    let unreadable = report["unreadable"].as_object().expect("reasons");
    for reason in [
        "a time that cannot be read",
        "a request line without a method and a path",
        "not UTF-8",
        "no time in brackets",
        "longer than 64 KiB",
    ] {
        assert_eq!(
            unreadable.get(reason).map(|reason| &reason["lines"]),
            Some(&1.into()),
            "{reason} in {report:#}"
        );
    }
    let output = text(&sluicegate(directory.path(), &["replay", "--rules", "rules.yaml", "a.log"]).stdout);
    assert!(
        output.contains("1 × no time in brackets, for instance: nonsense \\u{1b}[31m"),
        "{output}"
    );
}

/// A stream can be read only once: what tells the format and the order must not be lost.
#[test]
fn a_pipe_is_read_from_its_beginning_and_tells_its_format() {
    let directory = directory(&[("rules.yaml", RULES)]);
    let fifo = directory.path().join("log");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    // Longer than what is read at a time.
    let filler = format!("\"{}\"", "x".repeat(4000));
    let lines: String = (0..200)
        .map(|n| {
            format!(
                "{{\"time\":\"2026-11-28T06:00:{:02}Z\",\"client\":\"192.0.2.1\",\"agent\":{filler}}}\n",
                n / 4
            )
        })
        .collect();
    let (written, to) = (lines.clone(), fifo);
    let writer = std::thread::spawn(move || std::fs::write(to, written));
    let report = replay(directory.path(), &["log"]);
    writer.join().expect("the writer").expect("all was read");
    assert_eq!(
        (&report["lines"], &report["requests"]),
        (&200.into(), &200.into()),
        "{report:#}"
    );
    assert_eq!(report["unreadable"], serde_json::json!({}));

    let report = replay_stdin(directory.path(), lines.as_bytes());
    assert_eq!(report["requests"], 200, "{report:#}");
}

#[test]
fn durations_may_have_a_point_and_bad_ones_are_told() {
    let line = |second: u32, duration: &str| {
        format!("{{\"time\":\"2026-11-28T06:00:0{second}Z\",\"client\":\"192.0.2.1\",\"duration\":\"{duration}\"}}\n")
    };
    let rules = RULES.replace(
        "name: address, unit: minute, requests_per_unit: 2",
        "name: address, algorithm: concurrency, window: 1h, requests_per_unit: 1",
    );
    // The first ends when the third comes, the second is denied.
    let log = [
        line(0, "1500.5"),
        line(1, "5"),
        line(2, "5"),
        line(3, "soon"),
        line(4, "-"),
    ]
    .concat();
    let directory = directory(&[("rules.yaml", &rules), ("a.log", &log)]);
    let report = replay(directory.path(), &["a.log"]);
    assert_eq!(
        (&report["requests"], &report["denied"]),
        (&4.into(), &1.into()),
        "{report:#}"
    );
    let bad = &report["unreadable"]["a duration that is no number of milliseconds"];
    assert_eq!(bad["lines"], 1, "{report:#}");
}
