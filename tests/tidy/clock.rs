//! Who reads the clock. Deciding takes time as an argument (`model::Clock`), so that tests, replays and simulations own it.

use std::collections::{BTreeMap, BTreeSet};

use crate::project::Project;
use crate::tokens::{Kind, Tests, mentions, tokens};

/// Types whose `now` reads a clock.
const CLOCKS: [&str; 3] = ["std::time::Instant", "std::time::SystemTime", "tokio::time::Instant"];

/// Files that may, each with the reason. tokio's `Instant` stands still in a test that pauses it.
const MAY_READ: &[(&str, &str)] = &[
    ("src/api/selections.rs", "how long a selection may be confirmed"),
    ("src/api/state.rs", "how long the process has been up, for people"),
    ("src/app/drain.rs", "tokio's: when the drain is to be over"),
    ("src/app/link_log.rs", "how long a connection was lost, for a log line"),
    ("src/bench/load.rs", "measures"),
    ("src/bench/pace.rs", "measures"),
    ("src/bench/plans.rs", "measures"),
    ("src/cli/prove.rs", "how often progress is shown"),
    (
        "src/config/watch/quiet.rs",
        "files that go on changing: a thread with the system's own clock",
    ),
    ("src/config/xds/client.rs", "tokio's: how long a stream lived"),
    ("src/engine/mod.rs", "tokio's: what is left of a caller's deadline"),
    ("src/engine/reset.rs", "tokio's: how long a search may last"),
    ("src/engine/wait.rs", "tokio's: what is left of a caller's deadline"),
    ("src/model/time.rs", "the clock itself"),
    ("src/net/limiter.rs", "tokio's: how long a connection has been idle"),
    ("src/service/authz/mod.rs", "how long an answer took, for a histogram"),
    (
        "src/service/deadline.rs",
        "where a timeout on the wire becomes a deadline",
    ),
    ("src/service/rls.rs", "how long an answer took, for a histogram"),
    (
        "src/store/redis/budget.rs",
        "the time of one call, for fred, which knows no other clock",
    ),
    ("src/store/remote/carried.rs", "tokio's: when what is owed ends"),
    ("src/store/remote/circuit.rs", "tokio's: when the server failed"),
    ("src/store/remote/flush.rs", "tokio's: how long a round may last"),
    ("src/store/remote/job.rs", "tokio's: when a caller gives up"),
    ("src/store/remote/ledger.rs", "tokio's: when what is owed ends"),
    ("src/store/remote/send.rs", "tokio's: whether a caller has given up"),
    ("src/telemetry/store_meter.rs", "tokio's: how long a call took"),
];

fn check(project: &Project, may_read: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut reads = BTreeSet::new();
    for (path, text) in project.rust("src/") {
        let mentions = mentions(&tokens(path, text, Tests::Skip));
        let names: BTreeMap<&str, String> = mentions
            .iter()
            .filter_map(|mention| match &mention.kind {
                Kind::Use { name, .. } => Some((name.as_str(), mention.segments.join("::"))),
                Kind::Plain => None,
            })
            .collect();
        for mention in mentions.iter().filter(|mention| mention.kind == Kind::Plain) {
            let Some((last, of)) = mention.segments.split_last() else {
                continue;
            };
            let Some((first, rest)) = of.split_first() else {
                continue;
            };
            let first = names.get(first.as_str()).map_or(first.as_str(), String::as_str);
            let full = [&[first.to_owned()], rest].concat().join("::");
            if last == "now" && CLOCKS.contains(&full.as_str()) {
                reads.insert(path);
                if !may_read.iter().any(|(known, _)| *known == path) {
                    wrong.push(format!(
                        "{path}:{}: reads the clock: take the time as an argument",
                        mention.line
                    ));
                }
            }
        }
    }
    for (path, _) in may_read.iter().filter(|(path, _)| !reads.contains(path)) {
        wrong.push(format!("{path}: reads no clock: take it off the list"));
    }
    wrong
}

#[test]
fn only_listed_files_read_the_clock() {
    crate::assert_none(check(&Project::read(), MAY_READ));
}

#[test]
fn a_reading_is_found_under_any_name() {
    let project = Project::of(&[
        (
            "src/a.rs",
            "use tokio::time::Instant as Moment;\nfn f() { Moment::now(); }",
        ),
        (
            "src/b.rs",
            "use std::time;\nfn f() -> R { x.unwrap_or_else(time::SystemTime::now) }",
        ),
        ("src/c.rs", "fn f() { m!(std::time::Instant::now()) }"),
        (
            "src/d.rs",
            "use crate::model::Instant; fn f() { Instant::now(); now(); }",
        ),
        (
            "src/e.rs",
            "#[cfg(test)] mod tests { use std::time::Instant; fn f() { Instant::now(); } }",
        ),
    ]);
    assert_eq!(
        check(&project, &[("src/c.rs", "why"), ("src/d.rs", "why")]),
        [
            "src/a.rs:2: reads the clock: take the time as an argument",
            "src/b.rs:2: reads the clock: take the time as an argument",
            "src/d.rs: reads no clock: take it off the list"
        ]
    );
}
