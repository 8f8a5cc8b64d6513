//! `sluicegate replay`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

mod input;

use crate::{directory, sluicegate, text};

/// Two requests a minute for each client, and a key of its own.
pub(super) const RULES: &str = "
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
pub(super) fn clf() -> String {
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

pub(super) fn replay(directory: &Path, args: &[&str]) -> Value {
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
    let report = replay(directory.path(), &["--html", "page.html", "empty.log"]);
    assert_eq!((report.get("from"), report.get("to")), (None, None), "{report:#}");
    let page = std::fs::read_to_string(directory.path().join("page.html")).expect("a page");
    assert!(page.contains("<h1>Replay: no request</h1>"), "{page}");
}

/// A script that looks at the exit code only must not take a log of another format for quiet traffic.
#[test]
fn a_log_without_a_usable_line_is_a_failure_and_the_report_says_why() {
    let directory = directory(&[("rules.yaml", RULES), ("a.log", "{\"client\":\"192.0.2.1\"}\n")]);
    let output = sluicegate(directory.path(), &["replay", "--rules", "rules.yaml", "a.log"]);
    assert_eq!(output.status.code(), Some(2));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        out.starts_with("1 lines, no request\n") && out.contains("1 × "),
        "{out}"
    );
    assert!(err.contains("no line could be used"), "{err}");
}

#[test]
fn candidates_are_decided_beside_the_limits_in_force() {
    let rules = RULES.replace(
        "unit: minute, requests_per_unit: 2 }",
        "unit: minute, requests_per_unit: 2 }, candidate: { unit: minute, requests_per_unit: 1 }",
    );
    let directory = directory(&[("rules.yaml", &rules), ("a.log", &clf())]);
    let report = replay(directory.path(), &["--html", "page.html", "a.log"]);
    let candidate = serde_json::json!({
        "limit": "1 per minute, sliding_window", "would_deny": 2, "would_allow": 0, "both_deny": 4,
    });
    assert_eq!(report["rules"][0]["candidate"], candidate, "{report:#}");
    assert_eq!(
        (&report["denied"], report["rules"][1].get("candidate")),
        (&4.into(), None)
    );
    let words = "candidate 1 per minute, sliding_window: 2 more would be denied, 0 fewer; 4 by both";
    let page = std::fs::read_to_string(directory.path().join("page.html")).expect("a page");
    assert!(page.contains(words), "{page}");
    let output = text(&sluicegate(directory.path(), &["replay", "--rules", "rules.yaml", "a.log"]).stdout);
    assert!(output.contains(words), "{output}");
}

#[test]
fn advice_for_limits_by_plan_says_that_it_knows_no_plan() {
    let rules = "
domain: shop
plans: { pro: { unit: minute, requests_per_unit: 5 }, free: { unit: minute, requests_per_unit: 2 } }
sources: { clients: { file: clients.csv } }
ext_authz: { rate_limits: [{ actions: [{ remote_address: {} }] }] }
descriptors:
  - { key: remote_address, rate_limit: { plan_from: clients, default: free } }
";
    let directory = directory(&[
        ("rules.yaml", rules),
        ("clients.csv", "192.0.2.1,pro\n"),
        ("a.log", &clf()),
    ]);
    let report = replay(directory.path(), &["a.log"]);
    assert_eq!(report["denied"], 1, "{report:#}");
    assert_eq!(
        report["rules"][0]["limit"],
        "by plan; without one 2 per minute, sliding_window"
    );
    assert!(
        report["notes"].to_string().contains("whatever their plan"),
        "{report:#}"
    );
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

/// A limit counts hits, and so must the limit that is advised.
#[test]
fn demand_is_counted_in_hits() {
    let rules = RULES.replace(
        "- actions: [{ remote_address: {} }]",
        "- { hits_addend: 5, actions: [{ remote_address: {} }] }",
    );
    let directory = directory(&[("rules.yaml", &rules), ("a.log", &clf())]);
    let demand = replay(directory.path(), &["a.log"])["rules"][0]["demand"].clone();
    assert_eq!(
        (&demand["max"], &demand["limit_for_share"]),
        (&30.into(), &30.into()),
        "{demand:#}"
    );
}

#[test]
fn what_is_wrong_with_the_other_rules_is_not_told_of_the_log() {
    let old = LOOSER
        .replace(
            "requests_per_unit: 4",
            "requests_per_unit: 4, algorithm: concurrency, window: 1h",
        )
        .replace("unit: minute, ", "");
    let directory = directory(&[("rules.yaml", RULES), ("old.yaml", &old), ("a.log", &clf())]);
    let report = replay(directory.path(), &["--against", "old.yaml", "a.log"]);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("the other rules: `concurrency` limits: the log does not say"),
        "{notes}"
    );
}
