//! `sluicegate replay`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;

use crate::{directory, sluicegate, text};

/// Two requests a minute for each client, and a key of its own.
const RULES: &str = "
domain: shop
ext_authz:
  rate_limits:
    - actions: [{ remote_address: {} }]
    - actions: [{ request_headers: { header_name: x-key, descriptor_key: key } }]
descriptors:
  - { key: remote_address, rate_limit: { name: address, unit: minute, requests_per_unit: 2 } }
  - { key: key, rate_limit: { name: key, unit: minute, requests_per_unit: 1000 } }
";
const LOOSER: &str = "
domain: shop
ext_authz: { rate_limits: [{ actions: [{ remote_address: {} }] }] }
descriptors:
  - { key: remote_address, rate_limit: { unit: minute, requests_per_unit: 4 } }
";

/// Client 1 comes six times within a minute, client 2 twice.
fn clf() -> String {
    let mut log = String::new();
    for second in 0..6 {
        writeln!(
            log,
            "192.0.2.1 - - [28/Nov/2026:06:00:0{second} +0000] \"GET /a?b=\\\"c HTTP/1.1\" 200 12 \"-\" \"curl/8\""
        )
        .expect("text");
        if second % 3 == 0 {
            writeln!(
                log,
                "192.0.2.2 - - [28/Nov/2026:06:00:0{second} +0000] \"GET /a HTTP/1.1\" 200 12"
            )
            .expect("text");
        }
    }
    log
}

fn replay(directory: &Path, args: &[&str]) -> Value {
    let args: Vec<&str> = ["replay", "--json", "--rules", "rules.yaml"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let output = sluicegate(directory, &args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_log_is_decided_by_the_rules_at_its_own_times() {
    let directory = directory(&[("rules.yaml", RULES), ("access.log", &clf())]);
    let report = replay(directory.path(), &["access.log"]);
    assert_eq!(
        (&report["lines"], &report["requests"], &report["denied"]),
        (&8.into(), &8.into(), &4.into()),
        "{report:#}"
    );
    let rule = &report["rules"][0];
    assert_eq!(
        (&rule["requests"], &rule["denied"], &rule["keys"]),
        (&8.into(), &4.into(), &2.into()),
        "{rule:#}"
    );
    assert_eq!(rule["first_denied"], "2026-11-28T06:00:02.000Z");
    assert_eq!(rule["longest_denial_us"], 3_000_000);
    assert_eq!(rule["worst"][0]["key"], "remote_address=192.0.2.1");
    assert_eq!(rule["worst"][0]["denied"], 4);
    // One window of 6 and one of 2.
    assert_eq!(
        (&rule["demand"]["windows"], &rule["demand"]["max"]),
        (&2.into(), &6.into())
    );
    assert_eq!(rule["demand"]["limit_for_share"], 6);
    let text = text(&sluicegate(directory.path(), &["replay", "--rules", "rules.yaml", "access.log"]).stdout);
    assert!(
        text.contains("8 requests, 4 would be denied (50.00 %), 0 are not limited"),
        "{text}"
    );
    assert!(
        text.contains("4 × remote_address=192.0.2.1, 2026-11-28T06:00:02.000Z to"),
        "{text}"
    );
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

    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["replay", "--json", "--rules", "rules.yaml", "-"])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(clf().as_bytes())
        .expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
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

/// A log without what the rules count by looks like traffic that no rule limits.
#[test]
fn what_no_line_has_is_told_when_rules_get_no_request() {
    let lines = "{\"ts\":\"2026-11-28T06:00:00Z\",\"ip\":\"192.0.2.1\",\"path\":\"/\",\"key\":\"k\"}\n";
    let directory = directory(&[("rules.yaml", RULES), ("a.log", lines), ("empty.log", "")]);
    let notes = |args: &[&str]| replay(directory.path(), args)["notes"].to_string();
    let missing = notes(&["a.log", "--field", "client=source.ip", "--field", "header.x-key=key"]);
    assert!(
        missing.contains("no line has a client's address (client): "),
        "{missing}"
    );
    let both = notes(&["a.log"]);
    assert!(
        both.contains("no line has a client's address (client), nor a request header"),
        "{both}"
    );
    let complete = notes(&["a.log", "--field", "client=ip", "--field", "header.x-key=key"]);
    assert_eq!(complete, "[]");
    let empty = sluicegate(directory.path(), &["replay", "--rules", "rules.yaml", "empty.log"]);
    let empty = text(&empty.stdout);
    assert!(empty.starts_with("0 lines, no request\n"), "{empty}");
    assert!(!empty.contains("note"), "{empty}");
}

/// A report that was cut off because the disk is full must not look complete.
#[test]
fn a_report_that_cannot_be_written_is_a_failure() {
    let directory = directory(&[("rules.yaml", RULES), ("a.log", &clf())]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .current_dir(directory.path())
        .args(["replay", "--json", "--rules", "rules.yaml", "a.log"])
        .stdout(full.expect("/dev/full"))
        .stderr(Stdio::piped())
        .output()
        .expect("the program");
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(err.contains("standard output: No space left"), "{err}");
}

#[test]
fn two_sets_of_rules_are_compared_request_by_request() {
    let directory = directory(&[("rules.yaml", RULES), ("old.yaml", LOOSER), ("a.log", &clf())]);
    let against = replay(directory.path(), &["--against", "old.yaml", "a.log"])["against"].clone();
    assert_eq!(
        (&against["denied"], &against["newly_denied"], &against["newly_allowed"]),
        (&2.into(), &2.into(), &0.into()),
        "{against:#}"
    );
    assert_eq!(
        against["rules"][0]["before"],
        Value::Null,
        "the key's rule is new: {against:#}"
    );
    assert_eq!(
        (&against["rules"][1]["before"], &against["rules"][1]["after"]),
        (&2.into(), &4.into()),
        "{against:#}"
    );
    assert_eq!(against["keys"][0]["key"], "remote_address=192.0.2.1");
    assert_eq!(against["keys"][0]["newly_denied"], 2);
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_shows_hostile_values_as_text() {
    let rules = RULES
        .replace("header_name: x-key", "header_name: user-agent")
        .replace("requests_per_unit: 1000", "requests_per_unit: 0");
    let log =
        "192.0.2.1 - - [28/Nov/2026:06:00:00 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"<script>alert(1)</script>\"\n";
    let directory = directory(&[("rules.yaml", &rules), ("a.log", log)]);
    replay(directory.path(), &["--html", "page.html", "a.log"]);
    let page = std::fs::read_to_string(directory.path().join("page.html")).expect("a page");
    assert!(page.contains("key=&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    for bad in ["<script", "http://", "https://", "url(", "@import"] {
        assert!(!page.contains(bad), "{bad} in {page}");
    }
    assert!(page.contains("class=\"bad\" d=\"M"), "{page}");
}

#[test]
fn what_is_wrong_with_the_flags_is_said() {
    let directory = directory(&[("rules.yaml", RULES), ("a.log", &clf())]);
    for (args, part) in [
        (&["--format", "%REQ(:PATH)%", "a.log"][..], "no %START_TIME%"),
        (
            &["--format", "%START_TIME%%PROTOCOL%", "a.log"],
            "nothing stands between %PROTOCOL%",
        ),
        (&["--format", "%START_TIME% %REQ(A?B)%", "a.log"], "one of two headers"),
        (&["--format", "apache", "a.log"], "is no format"),
        (
            &["--format", "json", "--field", "who=x", "a.log"],
            "the names are time, method",
        ),
        (&["--deny-at-most", "200", "a.log"], "from 0 to 100"),
        (&["missing.log"], "missing.log: No such file"),
    ] {
        let args: Vec<&str> = ["replay", "--rules", "rules.yaml"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let output = sluicegate(directory.path(), &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(part),
            "{part:?} in {}",
            text(&output.stderr)
        );
    }
}

/// The slots of a concurrency limit are free again when the logged request has ended.
#[test]
fn durations_free_the_slots_of_concurrency_limits() {
    let rules = RULES.replace(
        "name: address, unit: minute, requests_per_unit: 2",
        "algorithm: concurrency, window: 1h, requests_per_unit: 1",
    );
    let line = |ms: u32, duration: u32| {
        format!("{{\"time\":\"2026-11-28T06:00:00.{ms:03}Z\",\"client\":\"192.0.2.1\",\"duration\":{duration}}}\n")
    };
    let log = [line(0, 100), line(50, 10), line(100, 300), line(500, 1)].concat();
    let directory = directory(&[("rules.yaml", &rules), ("a.log", &log)]);
    let report = replay(directory.path(), &["a.log"]);
    assert_eq!(
        (&report["requests"], &report["denied"]),
        (&4.into(), &1.into()),
        "{report:#}"
    );
    assert!(!report["notes"].to_string().contains("concurrency"), "{report:#}");
}
