//! `make demo` shows what it says it shows.

use std::process::{Command, Output};

use crate::support::envoy;

fn demo(store: &str, mode: &str) -> Output {
    Command::new("python3")
        .arg(envoy::project_path("deploy/demo/demo.py"))
        .args(["--binary", env!("CARGO_BIN_EXE_sluicegate"), "--envoy"])
        .arg(envoy::binary())
        .args(["--once", "--ports", "free", "--store", store, "--mode", mode])
        .output()
        .expect("python3")
}

fn assert_tour(store: &str, mode: &str, shows: &[&str]) {
    let output = demo(store, mode);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for shown in shows {
        assert!(text.contains(shown), "no {shown} in:\n{text}");
    }
}

const LIMITS: &[&str] = &[
    "200 OK",
    "429 Too Many Requests",
    "retry-after: ",
    "\"per-address\"",
    "\"trial-key\"",
];
/// It ends well only if no token is charged over the budget and every hold is gone.
const BUDGETS: &[&str] = &["hold and settle", "3 × 200, 1 × 429", "the stream breaks off"];

#[test]
fn the_tour_in_memory() {
    assert_tour("memory", "ratelimit", LIMITS);
}

#[test]
fn the_tour_by_ext_authz() {
    assert_tour("memory", "ext_authz", LIMITS);
}

#[test]
fn the_tour_in_redis() {
    assert_tour("redis", "ratelimit", LIMITS);
}

#[test]
fn the_tour_of_budgets_in_memory() {
    assert_tour("memory", "llm", BUDGETS);
}

#[test]
fn the_tour_of_budgets_in_redis() {
    assert_tour("redis", "llm", BUDGETS);
}

/// It ends well only if both Envoys together stay within the limit.
#[test]
fn the_tour_of_quotas() {
    assert_tour(
        "memory",
        "rlqs",
        &["Envoy 2: passed", "no request waited for the server"],
    );
}
