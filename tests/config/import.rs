//! limitador's limits as rules: its own examples and what its documents show are translated, loaded and decided as it
//! decides, wherever sliding windows and its own agree; what has no counterpart is refused in its place.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod cases;
mod model;

use std::num::NonZeroUsize;
use std::sync::Arc;

use proptest::prelude::*;
use sluicegate::config::import::limitador;
use sluicegate::model::{Descriptor, Request};
use sluicegate::prove::limiter::VirtualLimiter;
use sluicegate::rules::Defaults;

use super::support::sluicegate::run;
use super::{entries, named, rules};
use cases::{CASES, Case, REFUSED};
use model::Limitador;

/// The lists of actions in the notes, each as keys with the values that Envoy's configuration gives.
fn lists(translated: &str) -> Vec<Vec<(String, Option<String>)>> {
    let mut lists: Vec<Vec<(String, Option<String>)>> = Vec::new();
    let unquote = |text: &str| serde_json::from_str::<String>(text).expect("a text in quotes");
    for line in translated.lines() {
        if line.starts_with("#   - actions:") {
            lists.push(Vec::new());
        }
        let Some(action) = line.strip_prefix("#     - ") else {
            continue;
        };
        let last = lists.last_mut().expect("a list");
        if let Some(tag) = action.strip_prefix("generic_key: { descriptor_value: ") {
            let tag = unquote(tag.trim_end_matches(" }"));
            last.push(("generic_key".to_owned(), Some(tag)));
        } else {
            let key = action.split_once("`descriptor_key: ").expect("a key").1;
            last.push((unquote(key.trim_end_matches("`)")), None));
        }
    }
    lists
}

/// What Envoy sends by these lists for a request with these entries: a list whose entry is missing is left out.
fn descriptors(lists: &[Vec<(String, Option<String>)>], request: &[(&str, &str)]) -> Vec<Descriptor> {
    let value = |key: &str| request.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
    let one = |list: &Vec<(String, Option<String>)>| {
        let pairs: Option<Vec<_>> = list
            .iter()
            .map(|(key, tag)| Some((key.as_str(), tag.as_deref().or_else(|| value(key))?)))
            .collect();
        Some(Descriptor {
            entries: entries(&pairs?),
            ..Descriptor::default()
        })
    };
    lists.iter().filter_map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn translated_limits_decide_as_limitador(
        case in 0..CASES.len(),
        bursts in prop::collection::vec(prop::collection::vec(prop::collection::vec(0..8_usize, 4), 1..60), 1..4),
    ) {
        let Case { name, file, limits, entries: universe } = &CASES[case];
        let translated = limitador(&named("limits.yaml", file), None).unwrap_or_else(|errors| panic!("{errors}"));
        let lists = lists(&translated);
        let rules = Arc::new(rules(&translated));
        let domain = rules.domains.keys().next().expect("a domain").to_string();
        let limiter = VirtualLimiter::new(rules, Defaults::default(), NonZeroUsize::MAX, 1_000_000_000).expect("a limiter");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut model = Limitador::new(limits());
        let mut now_us = 1_000_000_000;
        let mut denied = 0;
        for burst in &bursts {
            for choice in burst {
                now_us += 10;
                let request: Vec<(&str, &str)> = universe
                    .iter()
                    .zip(choice)
                    .filter_map(|((key, values), at)| Some((*key, *values.get(*at % (values.len() + 1))?)))
                    .collect();
                let expected = model.decide(now_us, &request);
                let descriptors = descriptors(&lists, &request);
                let allowed = descriptors.is_empty() || {
                    let request = Request { domain: domain.clone(), descriptors, ..Request::default() };
                    let decision = runtime.block_on(limiter.decide_at(now_us, &request)).expect("a decision");
                    !decision.over_limit
                };
                denied += usize::from(!allowed);
                prop_assert_eq!(allowed, expected, "{}: {:?} at {}, after {} denials", name, request, now_us, denied);
            }
            // Past every window of both, with the slices of the sliding one.
            now_us += 3 * 3600 * 1_000_000;
        }
    }
}

#[test]
fn the_rest_is_refused_with_its_line_and_a_cure() {
    for (condition, expected) in REFUSED {
        let quoted = serde_json::Value::from(*condition);
        let file = format!(
            "- namespace: n\n  max_value: 1\n  seconds: 1\n  conditions:\n    - {quoted}\n- {{namespace: n, max_value: 1, \
             seconds: 2, conditions: [], variables: []}}\n"
        );
        let errors = limitador(&named("limits.yaml", &file), None).expect_err(condition);
        let said = errors.to_string();
        assert!(said.contains(expected), "{condition}: {said}");
        assert!(said.starts_with("limits.yaml:5:7: limit 1: `conditions` "), "{said}");
        assert_eq!(errors.count(), 1, "{said}");
    }
}

/// limitador-server/sandbox/limits.yaml has two limits with `!=`: its third alone would be less than what it says.
#[test]
fn one_refusal_refuses_the_file() {
    let file = r#"---
- namespace: test_namespace
  max_value: 10
  seconds: 60
  conditions:
    - "descriptors[0]['req.method'] == 'GET'"
    - "descriptors[0]['req.path'] != '/json'"
  variables: []
- namespace: test_namespace
  max_value: 5
  seconds: 60
  conditions:
    - "descriptors[0]['req.method'] == 'POST'"
    - "descriptors[0]['req.path'] != '/json'"
  variables: []
- namespace: test_namespace
  max_value: 50000
  seconds: 10
  conditions:
    - "descriptors[0]['req.method'] == 'GET'"
    - "descriptors[0]['req.path'] == '/json'"
  variables: []
"#;
    let errors = limitador(&named("limits.yaml", file), None).expect_err("refused");
    let lines: Vec<_> = errors
        .as_slice()
        .iter()
        .filter_map(|error| Some(error.place?.line))
        .collect();
    assert_eq!(lines, [7, 14], "{errors}");
    assert!(
        errors.to_string().contains("\"descriptors[0]['req.path'] != '/json'\""),
        "quotes as written: {errors}"
    );
}

#[test]
fn shapes_that_are_no_limits_file() {
    let cases = [
        ("apiVersion: v1\nkind: ConfigMap\ndata: {}\n", "below its `data`"),
        ("domain: x\n", "a list of limits"),
        ("", "a list of limits"),
        ("- {namespace: n, seconds: 1}\n", "has no `max_value`"),
        ("- {namespace: n, max_value: 1, seconds: 0}\n", "between 1 and"),
        (
            "- {namespace: n, max_value: 4294967296, seconds: 1}\n",
            "between 0 and 4294967295",
        ),
        ("- {namespace: n, max_value: 1, seconds: 315360001}\n", "window"),
        ("- {namespace: '', max_value: 1, seconds: 1}\n", "`namespace` is empty"),
        (
            "- {namespace: n, max_value: 1, seconds: 1, policy: x}\n",
            "unknown field",
        ),
        (
            "- {namespace: n, max_value: 1, seconds: 1}\n- {namespace: n, max_value: 2, seconds: 1}\n",
            "limit 1, line 1",
        ),
        (
            "- {namespace: n, max_value: 1, seconds: 1, variables: ['descriptors[0].a.b']}\n",
            "more than one entry",
        ),
        (
            "- {namespace: n, max_value: 1, seconds: 1, variables: [\"descriptors[0].a + 'x'\"]}\n",
            "more than one entry",
        ),
    ];
    for (file, expected) in cases {
        let errors = limitador(&named("limits.yaml", file), None).expect_err(file);
        assert!(errors.to_string().contains(expected), "{file}: {errors}");
    }
}

#[test]
fn several_namespaces_are_imported_one_at_a_time() {
    let file =
        "- {namespace: a, max_value: 1, seconds: 1}\n- {namespace: b, max_value: 0, seconds: 30, name: 'say \"b\"'}\n";
    let text = named("limits.yaml", file);
    let errors = limitador(&text, None).expect_err("two");
    assert!(errors.to_string().contains("by `--namespace`"), "{errors}");
    let errors = limitador(&text, Some("c")).expect_err("none");
    assert!(errors.to_string().contains("of: a, b"), "{errors}");
    let translated = limitador(&text, Some("b")).unwrap_or_else(|errors| panic!("{errors}"));
    let end = "\
domain: \"b\"
descriptors:
  - key: \"generic_key\"
    value: \"limit-2\"
    rate_limit:   # limit 2, line 2
      name: \"say \\\"b\\\"\"
      requests_per_unit: 0
      window: 30s
";
    assert!(translated.ends_with(end), "{translated}");
}

/// Limits of the same entries and other windows hold together, on one descriptor.
#[test]
fn several_windows_of_the_same_entries_are_several_limits() {
    let limit = |max: u32, seconds: u32, variable: &str| {
        format!(
            "- {{namespace: n, max_value: {max}, seconds: {seconds}, variables: [\"descriptors[0]['{variable}']\"]}}\n"
        )
    };
    let file = [limit(5, 1, "user"), limit(9, 60, "user"), limit(3, 1, "path")].concat();
    let translated = limitador(&named("limits.yaml", &file), None).unwrap_or_else(|errors| panic!("{errors}"));
    let start = "\
descriptors:
  - key: \"user\"
    rate_limits:
      -   # limit 1, line 1
        requests_per_unit: 5
        unit: second
      -   # limit 2, line 2
        requests_per_unit: 9
        unit: minute
  - key: \"path\"
    rate_limit:   # limit 3, line 3
";
    assert!(translated.contains(start), "{translated}");
    let paths: Vec<String> = rules(&translated)
        .rules
        .iter()
        .map(|rule| rule.path.to_string())
        .collect();
    assert_eq!(paths, ["user#1s", "user", "path"]);
    let shared = "- {namespace: n, max_value: 5, seconds: 1}\n- {namespace: n, max_value: 9, seconds: 60}\n";
    let translated = limitador(&named("limits.yaml", shared), None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(rules(&translated).rules.len(), 2);
    assert!(
        translated.contains("limit 1, 2") && !translated.contains("limit-2"),
        "{translated}"
    );
    let many: String = (1..=9).map(|seconds| limit(1, seconds, "user")).collect();
    let translated = limitador(&named("limits.yaml", &many), None).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(
        translated.contains("limit-9"),
        "a descriptor has up to eight: {translated}"
    );
}

/// Standard output has the rules and nothing else, or nothing.
#[test]
fn on_the_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write(
        "limits.yaml",
        "- {namespace: a, max_value: 1, seconds: 1, conditions: [], variables: [\"descriptors[0].u\"]}\n",
    );
    let output = run(directory.path(), &["import", "limitador", "limits.yaml"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    write("rules.yaml", &String::from_utf8(output.stdout).expect("UTF-8"));
    let output = run(directory.path(), &["check", "rules.yaml"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let output = run(directory.path(), &["import", "envoy-ratelimit", "rules.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && output.stdout.starts_with(b"ok: "),
        "{output:?}"
    );
    assert!(said.contains("this is `sluicegate check`"), "{said}");

    write(
        "limits.yaml",
        "- {namespace: a, max_value: 1, seconds: 1, conditions: [\"a != 'b'\"]}\n- {namespace: a, max_value: 1, seconds: 2}\n",
    );
    for wrong in ["limits.yaml", "nowhere.yaml", "."] {
        let output = run(directory.path(), &["import", "limitador", wrong]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
        assert!(
            output.stdout.is_empty() && output.stderr.starts_with(b"error: "),
            "{output:?}"
        );
    }
}
