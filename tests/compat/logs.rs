//! Log lines as pipelines made for envoyproxy/ratelimit read them.

use std::fs;

use serde_json::Value;

use crate::support::ratelimit::Ratelimit;

#[test]
fn json_lines_have_their_names() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("config")).expect("a directory");
    fs::write(dir.path().join("config/rules.yaml"), "domain: d\ndescriptors: []").expect("a file");
    let root = dir.path().display().to_string();
    let variables = [
        ("RUNTIME_ROOT", root.as_str()),
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "json"),
        // Has no effect: a warning says so.
        ("REDIS_PIPELINE_WINDOW", "150us"),
    ];
    let mut server = Ratelimit::start(&variables);
    server
        .process
        .wait_until("a line", |process| process.log().contains("rules in force"));
    let lines: Vec<Value> = server
        .process
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    for line in &lines {
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"));
        assert!(!text("@message").is_empty(), "{line}");
        assert!(
            text("@timestamp").starts_with("20") && text("@timestamp").ends_with('Z'),
            "{line}"
        );
        assert!(["warning", "info"].contains(&text("level")), "{line}");
    }
    let rules = lines.iter().find(|line| line["@message"] == "rules in force");
    assert_eq!(
        rules.map(|line| (&line["level"], &line["domains"])),
        Some((&"info".into(), &1.into()))
    );
    assert!(lines.iter().any(|line| line["level"] == "warning"), "{lines:?}");
}
