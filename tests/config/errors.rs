//! Every kind of error: where it is, in which place of the tree, what it says and how it says to fix it.

mod cases;

use sluicegate::config::{ConfigErrors, Problem, load};
use sluicegate::rules::Defaults;

use self::cases::CASES;
use super::{named, text, try_rules};

/// Each error as `line:column path | message | help`.
pub fn lines(errors: &ConfigErrors) -> Vec<String> {
    let line = |error: &sluicegate::config::ConfigError| {
        let place = error
            .place
            .map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
        let help = error.problem.help().unwrap_or_default();
        format!("{place} {} | {} | {help}", error.path, error.problem)
    };
    errors.as_slice().iter().map(line).collect()
}

pub fn refused(yaml: &str) -> Vec<String> {
    match try_rules(yaml) {
        Err(errors) => lines(&errors),
        Ok(_) => panic!("accepted: {yaml}"),
    }
}

/// One error each: the YAML, then `line:column path | part of the message | part of the help`.
#[test]
fn every_kind_of_error_has_its_place_and_says_how_to_fix_it() {
    let mut wrong = Vec::new();
    for (yaml, expected) in CASES {
        let found = refused(yaml);
        let [place, message, help] = *expected.split(" | ").collect::<Vec<_>>() else {
            panic!("{expected}");
        };
        let parts: Vec<Vec<&str>> = found.iter().map(|line| line.split(" | ").collect()).collect();
        let matches = matches!(&parts[..], [only] if only.len() == 3
            && only[0] == place && only[1].contains(message) && only[2].contains(help));
        if !matches {
            wrong.push(format!("{yaml}\n  expected {expected}\n  found    {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_errors_of_all_files_come_in_one_run() {
    let first = named(
        "a.yaml",
        "domain: a\ntypo: 1\ndescriptors:\n  - key: k\n    rate_limit: {unit: minit, requests_per_unit: x, burst: -1}\n    descriptors:\n      - value: v\n        shadow_mode: 3\n",
    );
    let second = named("b.yaml", "domain: [\n");
    let third = named("c.yaml", "domain: a\n");
    let errors = load(&[first, second, third], &Defaults::default()).expect_err("wrong");
    let all: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
    let expected = [
        "a.yaml:2:1: a: unknown field",
        "a.yaml:5:24: a / k: unknown unit",
        "a.yaml:5:50: a / k: `requests_per_unit` must be",
        "a.yaml:5:60: a / k: `burst` must be between",
        "a.yaml:7:9: a / k / #1: a descriptor has no `key`",
        "a.yaml:8:22: a / k / #1: `shadow_mode` must be",
        "b.yaml:1:9: not valid YAML",
        "c.yaml:1:9: a: domain \"a\" stands in another file already: a.yaml",
    ];
    for expected in expected {
        let found = all.iter().filter(|line| line.starts_with(expected)).count();
        assert_eq!(found, 1, "{expected}\n{all:#?}");
    }
    assert_eq!(all.len(), expected.len(), "{all:#?}");
    let rendered = errors.render(false);
    assert!(rendered.ends_with("8 errors\n"), "{rendered}");
    assert!(rendered.contains("\n  help: did you mean `minute`?\n"), "{rendered}");
}

#[test]
fn a_terminal_sees_the_lines_around_the_place() {
    let errors = try_rules("domain: d\ndescriptors:\n  - key: a\n    ratelimit: {}\n").expect_err("wrong");
    let fancy = errors.render(true);
    for part in ["rules.yaml:4:5", "ratelimit: {}", "did you mean `rate_limit`?"] {
        assert!(fancy.contains(part), "{part}: {fancy}");
    }
}

#[test]
fn user_text_in_messages_is_escaped_and_clipped() {
    let yaml = format!("domain: \"d\\n\\u001b[31m\"\n\"x\\n{}\": 1\n", "y".repeat(500));
    let line = refused(&yaml).join("");
    assert!(!line.contains(['\n', '\u{1b}']), "{line:?}");
    assert!(line.len() < 400, "{line}");
}

/// What is wrong is shown with its line, but a terminal is told nothing by it.
#[test]
fn controls_in_a_file_reach_no_terminal() {
    for yaml in [
        "domain: \"\u{1b}]0;owned\u{7}\"\ntypo: 1 # \u{1b}[2J\u{9b}31m\n",
        "domain: d\nx\u{1b}[2J: *\u{1b}[2J\n",
        "domain: d\nx: *a\u{9b}\n",
    ] {
        let Err(errors) = try_rules(yaml) else {
            panic!("accepted")
        };
        for line in [errors.render(false), errors.to_string()] {
            assert!(!line.contains(|c: char| c.is_control() && c != '\n'), "{line:?}");
        }
        // The graphics bring their own colours, none of the file's.
        let fancy = errors.render(true);
        for told in ["\u{1b}]0", "\u{1b}[2J", "\u{7}", "\u{9b}"] {
            assert!(!fancy.contains(told), "{fancy:?}");
        }
    }
}

#[test]
fn options_that_only_come_from_defaults_never_clash() {
    let defaults = Defaults {
        count_denied: true,
        ..Defaults::default()
    };
    let yaml = "domain: d\ndescriptors:\n  - {key: a, rate_limit: {unit: day, algorithm: token_bucket, burst: 5, requests_per_unit: 1}}\n";
    assert!(load(&[text(yaml)], &defaults).is_ok());
    // Said by the file, it does.
    let errors = load(
        &[text(&yaml.replace(
            "token_bucket, burst: 5",
            "leaky_bucket, count_denied: true",
        ))],
        &defaults,
    )
    .expect_err("clash");
    assert!(matches!(errors.as_slice()[0].problem, Problem::Limit(_)));
}

/// Templates that write many documents leave a `---` behind the last one.
#[test]
fn a_mark_behind_which_nothing_stands_begins_no_document() {
    for end in [
        "---",
        "---\n",
        "---\n# the end\n\n",
        "---\r\n---\r\n",
        "\n# more\n---  \n",
    ] {
        let rules = try_rules(&format!("---\ndomain: d\ndescriptors: []\n{end}")).expect(end);
        assert_eq!(rules.domains.len(), 1, "{end:?}");
    }
    assert_eq!(refused("domain: d\n---\ndomain: e\n---\n").len(), 1);
    assert!(try_rules("---\n---\n").is_err());
}
