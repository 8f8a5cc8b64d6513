//! `sluicegate test`.

use std::fmt::Write;

use crate::{directory, project, sluicegate, text};

const RULES: &str = "
domain: shop
ext_authz:
  rate_limits:
    - actions: [{ path: {} }, { remote_address: {} }]
descriptors:
  - key: path
    value: /login
    descriptors:
      - key: remote_address
        rate_limit: { name: login, unit: minute, requests_per_unit: 5 }
  - key: path
    rate_limit: { name: nobody, unit: second, requests_per_unit: 1 }
  - key: bucket
    rate_limit: { name: queue, algorithm: leaky_bucket, unit: second, requests_per_unit: 10, max_delay: 1s }
  - key: watched
    shadow_mode: true
    rate_limit: { name: candidate, unit: hour, requests_per_unit: 1 }
  - key: several
    rate_limits:
      - { name: burst, unit: second, requests_per_unit: 2 }
      - { name: quota, unit: day, requests_per_unit: 3 }
  - key: soft
    rate_limit: { name: warning, unit: hour, requests_per_unit: 1, on_limit: mark }
  - key: tokens
    rate_limit: { name: budget, unit: hour, requests_per_unit: 100, hold: { ttl: 10m } }
  - key: worker
    rate_limit: { name: busy, algorithm: concurrency, window: 1h, requests_per_unit: 1 }
";

const PASSES: &str = "
start: 2026-03-28T00:00:00Z
rules: [shop.yaml]
tests:
  - name: login stops a password guesser
    steps:
      - { at: 0s, times: 5, every: 1s, request: { http: 'GET /login?u={i}', client: 192.0.2.1 }, expect: allowed }
      - { at: 6s, request: { http: GET /login?u=9, client: 192.0.2.1 }, expect: { denied_by: login, retry_after: 54s..58s } }
      - { at: 6s, request: { http: GET /login, client: 192.0.2.2 }, expect: { allowed: true, remaining: 4 } }
      - { at: 2m, request: { descriptors: [[{ path: /login }, { remote_address: 192.0.2.1 }]] }, expect: { remaining: 4 } }
  - name: counters are fresh, names are optional
    steps:
      - { request: { http: GET /login, client: 192.0.2.1 }, expect: { remaining: 4, descriptors: [[path: /login, remote_address: 192.0.2.1]] } }
      - { request: { http: GET /other, client: 192.0.2.1 }, expect: { allowed: true, descriptors: [[path: /other, remote_address: 192.0.2.1]] } }
  - name: a leaky bucket delays in virtual time
    steps:
      - { times: 10, request: { descriptors: [[bucket: a]] }, expect: { allowed: true, delay: 0..900ms } }
      - { request: { descriptors: [[bucket: a]] }, expect: { allowed: true, delay: 1s } }
      - { request: { descriptors: [[bucket: a]] }, expect: { denied_by: queue } }
  - name: shadow mode never denies
    steps:
      - { request: { descriptors: [[watched: a]] }, expect: allowed }
      - { request: { descriptors: [[watched: a]] }, expect: { allowed: true, shadow_denied_by: candidate } }
  - name: several limits hold, each by its name
    steps:
      - { times: 2, request: { descriptors: [[several: a]] }, expect: allowed }
      - { request: { descriptors: [[several: a]] }, expect: { denied_by: burst } }
      - { at: 2s, request: { descriptors: [[several: a]] }, expect: { allowed: true, remaining: 0 } }
      - { at: 4s, request: { descriptors: [[several: a]] }, expect: { denied_by: quota } }
      - { at: 4s, request: { descriptors: [[several: a]], hits: 3 }, expect: { denied_by: [burst, quota] } }
  - name: a soft limit marks
    steps:
      - { times: 2, request: { descriptors: [[soft: a]] }, expect: allowed }
      - { request: { descriptors: [[soft: a]] }, expect: { allowed: true, shadow_denied_by: warning } }
  - name: hits that have happened are charged, and a hold ends by itself
    steps:
      - { request: { descriptors: [[tokens: a]], hits: 60 }, expect: { allowed: true, remaining: 40 } }
      - { request: { descriptors: [[tokens: a, sluicegate_hold: none]], hits: 30 }, expect: { allowed: true, remaining: 10 } }
      - { at: 20m, request: { descriptors: [[tokens: a]], hits: 70 }, expect: { allowed: true, remaining: 0 } }
  - name: a slot comes back
    steps:
      - { request: { descriptors: [[worker: a]] }, expect: allowed }
      - { request: { descriptors: [[worker: a]] }, expect: { denied_by: shop/worker } }
      - { request: { descriptors: [[worker: a]], hits: -1 }, expect: allowed }
      - { request: { descriptors: [[worker: a]] }, expect: allowed }
";

#[test]
fn tests_that_hold_pass_and_name_the_rules_that_nobody_reached() {
    let directory = directory(&[("shop.yaml", RULES), ("t.yaml", PASSES)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("8 of 8 tests passed, 8 of 9 rules reached"), "{out}");
    assert!(out.contains("not reached: shop / path (nobody)"), "{out}");
}

#[test]
fn a_wrong_expectation_is_told_with_its_line_what_came_and_which_rule_decided() {
    let wrong = "rules: [shop.yaml]
tests:
  - name: too generous
    steps:
      - times: 7
        request: { http: GET /login, client: 192.0.2.1 }
        expect: allowed
      - request: { http: GET /login, client: 192.0.2.1 }
        expect: { denied_by: nobody, retry_after: 1s..2s, remaining: 3 }
";
    let directory = directory(&[("shop.yaml", RULES), ("t.yaml", wrong)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml", "--junit", "junit.xml"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    for part in [
        "FAILED  t.yaml:3: too generous",
        "t.yaml:7: step 1, at 0s, request 6 of 7",
        "expected allowed",
        "came     denied",
        "because  [path=/login, remote_address=192.0.2.1]: rule shop / path_/login.remote_address (login), 5 per minute, \
         sliding_window: denied, 0 of 5 left, admitted again in 1m",
        "and 1 further requests of this step",
        "t.yaml:9: step 2",
        "expected denied by nobody",
        "came     denied by shop / path_/login.remote_address (login)",
        "expected retry_after 1s..2s",
        "expected remaining 3",
        "FAILED: 1 of 1",
    ] {
        assert!(out.contains(part), "{part:?} in\n{out}");
    }
    let junit = std::fs::read_to_string(directory.path().join("junit.xml")).expect("a report");
    assert!(
        junit.contains(r#"<testsuite name="t.yaml" tests="1" failures="1">"#),
        "{junit}"
    );
    assert!(
        junit.contains(r#"<failure message="expected allowed, came denied">"#),
        "{junit}"
    );

    let output = sluicegate(directory.path(), &["test", "t.yaml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1));
    let misses = &json["files"][0]["tests"][0]["misses"];
    assert_eq!(misses[0]["line"], 7, "{json:#}");
    assert_eq!(misses[0]["further"], 1, "{json:#}");
    assert_eq!(json["files"][0]["coverage"]["reached"], 1, "{json:#}");
}

#[test]
fn every_error_of_a_test_file_is_told_with_its_place() {
    let broken = "start: tomorrow
rules: [shop.yaml]
test: []
tests:
  - name: broken
    steps:
      - { at: 5s, request: { http: GET /, client: nobody }, expect: alowed }
      - { at: 1s, times: 0, request: { http: a b c }, expect: { remaining: 5..1 } }
      - { request: { http: /, descriptors: [] }, expect: allowed }
      - { expect: { allowed: true, denied_by: x } }
";
    let directory = directory(&[("shop.yaml", RULES), ("t.yaml", broken)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    for part in [
        "t.yaml:1:8: `start`",
        "t.yaml:3:1: unknown field \"test\"",
        "did you mean `tests`",
        "t.yaml:7:51: broken: `client` \"nobody\" cannot be used: it is no IP address",
        "did you mean `allowed`",
        "`times` must be between 1 and",
        "`remaining` \"5..1\" cannot be used: it begins behind its end",
        "must have exactly one of its kinds",
        "a step has no `request`",
        "`denied_by` beside `allowed: true`",
    ] {
        assert!(err.contains(part), "{part:?} in\n{err}");
    }
    let backwards = "rules: [shop.yaml]\ntests:\n  - steps:\n      - { at: 5s, request: { http: / }, expect: allowed }\n      \
                     - { at: 1s, request: { http: / }, expect: allowed }\n";
    std::fs::write(directory.path().join("t.yaml"), backwards).expect("a file");
    let err = text(&sluicegate(directory.path(), &["test", "t.yaml"]).stderr);
    assert!(
        err.contains("t.yaml:5:9: #1: `at` \"1s\" cannot be used: the step before it ends at 5s"),
        "{err}"
    );
}

/// What would be left out of a request, and what could not fail, is told instead of passed.
#[test]
fn a_test_that_cannot_fail_is_an_error() {
    let broken = "rules: []
tests:
  - name: nothing is asked
    steps: []
  - name: not what it says
    steps:
      - { request: { http: /, headers: { x-key: [k] } }, expect: allowed }
      - { request: { http: /, context_extensions: { a: } }, expect: allowed }
      - { request: { descriptors: [[several: { a: b }]] }, expect: allowed }
      - { request: { descriptors: [[several: a]] }, expect: { denied_by: [] } }
      - { request: { descriptors: [[several: a]], hits: -5000000000 }, expect: denied }
";
    let directory = directory(&[("shop.yaml", RULES), ("t.yaml", broken)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    for part in [
        "t.yaml:1:8: `rules` is empty",
        "t.yaml:4:12: nothing is asked: `steps` is empty",
        "t.yaml:7:49: not what it says: a name or a value in `headers` must be a text",
        "in `context_extensions` must be a text",
        "t.yaml:9:46: not what it says: a name or a value in `descriptors` must be a text",
        "`denied_by` is empty",
        "`hits` \"-5000000000\" cannot be used",
        "7 errors",
    ] {
        assert!(err.contains(part), "{part:?} in\n{err}");
    }
    std::fs::write(directory.path().join("t.yaml"), "rules: [shop.yaml]\ntests: []\n").expect("a file");
    let err = text(&sluicegate(directory.path(), &["test", "t.yaml"]).stderr);
    assert!(err.contains("t.yaml:2:8: `tests` is empty"), "{err}");
    let misspelt = "rules: [shop.yaml]\ndomain: shpo\ntests:\n  - steps:\n      - { request: { descriptors: [[soft: a]] }, \
                    expect: allowed }\n";
    std::fs::write(directory.path().join("t.yaml"), misspelt).expect("a file");
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("came     the rules have no domain \"shpo\""), "{out}");
}

/// A thousand tests that together pass 375 days of virtual time: a test that waited for the real clock would not end.
#[test]
fn a_year_of_virtual_time_needs_no_waiting() {
    let mut many = String::from("rules: [shop.yaml]\ntests:\n");
    for number in 0..1000 {
        let steps = "[{ request: { descriptors: [[watched: a]] }, expect: allowed }, { at: 9h, request: { descriptors: \
                     [[watched: a]] }, expect: { allowed: true, remaining: 0 } }]";
        writeln!(many, "  - {{ name: n{number}, steps: {steps} }}").expect("a string");
    }
    let directory = directory(&[("shop.yaml", RULES), ("t.yaml", &many)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let out = text(&output.stdout);
    assert!(out.contains("1000 of 1000 tests passed"), "{out}");
}

#[test]
fn the_projects_own_rules_are_tested() {
    let files = [
        "deploy/demo/rules.test.yaml",
        "deploy/compose/rules.test.yaml",
        "deploy/kubernetes/rules.test.yaml",
        "tests/prove/example.test.yaml",
    ];
    let output = sluicegate(&project(), &[&["test"][..], &files].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(!out.contains("not reached"), "{out}");
}

/// Limits of a calendar, in the night in which clocks are set forward.
#[test]
fn a_calendar_day_ends_at_the_local_midnight() {
    let rules = "domain: d
descriptors:
  - key: user
    rate_limit: { name: daily, requests_per_unit: 2, window: { calendar: day, time_zone: Europe/Berlin } }
";
    let tests = "rules: [rules.yaml]
start: 2026-03-28T22:59:00Z
tests:
  - name: the day of 23 hours
    steps:
      - { times: 2, request: { descriptors: [[user: a]] }, expect: allowed }
      - { request: { descriptors: [[user: a]] }, expect: { denied_by: daily, retry_after: 60s } }
      - { at: 60s, times: 2, request: { descriptors: [[user: a]] }, expect: allowed }
      - { at: 60s, request: { descriptors: [[user: a]] }, expect: { denied_by: daily, retry_after: 23h } }
      - { at: 23h, request: { descriptors: [[user: a]] }, expect: { denied_by: daily, retry_after: 60s } }
      - { at: 23h1m, request: { descriptors: [[user: a]] }, expect: { allowed: true, remaining: 1 } }
";
    let directory = directory(&[("rules.yaml", rules), ("t.yaml", tests)]);
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
}

/// What decided is the plan's limit, not the default's.
#[test]
fn a_plan_is_told_with_its_own_algorithm() {
    let rules = "domain: shop
plans:
  free: { requests_per_unit: 1, unit: hour }
  pro: { requests_per_unit: 3, unit: hour, algorithm: token_bucket }
sources: { tenants: { file: tenants.csv } }
descriptors:
  - { key: tenant, rate_limit: { plan_from: tenants, default: free } }
";
    let wrong = "rules: [shop.yaml]
tests:
  - name: pro
    steps: [{ request: { descriptors: [[{ tenant: acme }]] }, expect: denied }]
";
    let files = [("shop.yaml", rules), ("tenants.csv", "acme,pro\n"), ("t.yaml", wrong)];
    let output = sluicegate(directory(&files).path(), &["test", "t.yaml"]);
    let out = text(&output.stdout);
    assert!(
        out.contains("rule shop / tenant, 3 per hour, token_bucket: admitted"),
        "{out}"
    );
}
