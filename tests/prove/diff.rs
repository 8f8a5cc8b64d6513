//! `sluicegate check --diff`.

use crate::{directory, sluicegate, text};

const OLD: &str = "
domain: shop
descriptors:
  - { key: same, rate_limit: { unit: minute, requests_per_unit: 5 } }
  - { key: fewer, rate_limit: { name: f, unit: minute, requests_per_unit: 5 } }
  - { key: longer, rate_limit: { unit: minute, requests_per_unit: 5 } }
  - { key: spread, rate_limit: { unit: hour, requests_per_unit: 60 } }
  - { key: bucket, rate_limit: { unit: second, requests_per_unit: 5 } }
  - { key: shadow, shadow_mode: true, rate_limit: { unit: second, requests_per_unit: 5 } }
  - { key: gone, rate_limit: { unit: second, requests_per_unit: 5 } }
  - { key: free, rate_limit: { unlimited: true } }
  - { key: finer, rate_limit: { unit: minute, requests_per_unit: 5 } }
  - { key: log, rate_limit: { algorithm: sliding_log, unit: minute, requests_per_unit: 5 } }
  - { key: path, value: /health }
  - { key: tried, candidate: { unit: minute, requests_per_unit: 3 }, rate_limit: { unit: minute, requests_per_unit: 5 } }
  - { key: several, rate_limit: { unit: day, requests_per_unit: 250 } }
  - { key: soft, rate_limit: { unit: day, requests_per_unit: 5 } }
  - { key: held, rate_limit: { unit: day, requests_per_unit: 5, hold: { ttl: 10m } } }
  - { key: calls, rate_limit: { window: { calendar: month, time_zone: UTC }, requests_per_unit: 5 } }
  - { key: each, value: \"a*\", rate_limit: { unit: day, requests_per_unit: 5 } }
  - { key: learns, rate_limit: { unit: day, requests_per_unit: 5, hold: { ttl: 10m, adaptive: { first: 7 } } } }
  - { key: shown, rate_limit: { unit: day, requests_per_unit: 5 } }
";
const NEW: &str = "
domain: shop
ext_authz: { rate_limits: [{ actions: [{ generic_key: { descriptor_key: same, descriptor_value: x } }] }] }
descriptors:
  - { key: same, rate_limit: { unit: minute, requests_per_unit: 5 } }
  - { key: fewer, rate_limit: { name: f, unit: minute, requests_per_unit: 3 } }
  - { key: longer, rate_limit: { unit: minute, unit_multiplier: 2, requests_per_unit: 5 } }
  - { key: spread, rate_limit: { unit: minute, requests_per_unit: 2 } }
  - { key: bucket, rate_limit: { algorithm: token_bucket, unit: second, requests_per_unit: 5, burst: 9 } }
  - { key: shadow, rate_limit: { unit: second, requests_per_unit: 5 } }
  - { key: added, rate_limit: { algorithm: concurrency, window: 1m, requests_per_unit: 5 } }
  - { key: free, rate_limit: { unit: day, requests_per_unit: 1 } }
  - { key: finer, rate_limit: { unit: minute, requests_per_unit: 5, precision: 64 } }
  - { key: log, rate_limit: { algorithm: sliding_log, unit: hour, requests_per_unit: 5 } }
  - { key: tried, rate_limit: { unit: minute, requests_per_unit: 3 } }
  - { key: new, rate_limit: { unlimited: true }, candidate: { unit: day, requests_per_unit: 2 } }
  - { key: soft, rate_limit: { unit: day, requests_per_unit: 5, on_limit: mark, headers: false, body: false } }
  - { key: held, rate_limit: { unit: day, requests_per_unit: 5, hold: { ttl: 20m } } }
  - { key: calls, rate_limit: { window: { calendar: month, time_zone: Asia/Tokyo }, requests_per_unit: 5 } }
  - { key: each, value: \"a*\", share_threshold: true, rate_limit: { unit: day, requests_per_unit: 5 } }
  - { key: learns, rate_limit: { unit: day, requests_per_unit: 5, hold: { ttl: 10m, adaptive: { first: 8 } } } }
  - { key: shown, detailed_metric: true, rate_limit: { unit: day, requests_per_unit: 5 } }
  - { key: several, rate_limits: [{ unit: second, requests_per_unit: 10 }, { unit: day, requests_per_unit: 200 }] }
";

#[test]
fn a_change_is_told_in_words() {
    let directory = directory(&[("old.yaml", OLD), ("new.yaml", NEW)]);
    let output = sluicegate(directory.path(), &["check", "--diff", "old.yaml", "new.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let expected = [
        "shop / added: new, 5 at the same time",
        "shop / bucket: looser: 5 per second by sliding_window → 5 per second by token_bucket, burst 9; its counters start anew",
        "shop / calls: counted otherwise: 5 per month (UTC) by fixed_window → 5 per month (Asia/Tokyo) by fixed_window; its \
         counters start anew",
        "shop / each_a*: which values share a counter is different; its counters start anew",
        "shop / fewer (f): tighter: 5 per minute by sliding_window → 3 per minute by sliding_window; its counters go on",
        "shop / finer: counted otherwise: 5 per minute by sliding_window → 5 per minute by sliding_window, precision 64; its \
         counters go on",
        "shop / free: tighter: 1 per day by sliding_window, it was unlimited",
        "shop / gone: gone, it was 5 per second by sliding_window",
        "shop / held: counted otherwise: 5 per day by sliding_window, held up to 10m → 5 per day by sliding_window, held up to \
         20m; its counters start anew",
        "shop / learns: what is held before the mean cost is known is different; its counters go on",
        "shop / log: tighter: 5 per minute by sliding_log → 5 per hour by sliding_log; its counters start anew",
        "shop / longer: tighter: 5 per minute by sliding_window → 5 per 2 minutes by sliding_window; its counters go on",
        "shop / new: new, unlimited; tries a candidate: 2 per day by sliding_window",
        "shop / several: tighter: 250 per day by sliding_window → 200 per day by sliding_window; its counters go on",
        "shop / several#1s: new, 10 per second by sliding_window",
        "shop / shadow: denies now (no shadow mode any more); its counters go on",
        "shop / shown: `detailed_metric`: not set → true; its counters go on",
        "shop / soft: what is over passes with a mark; clients are not told of it in headers any more; denials do not tell of it \
         any more; its counters go on",
        "shop / spread: less at once, more in the long run: 60 per hour by sliding_window → 2 per minute by sliding_window; its \
         counters go on",
        "shop / tried: tighter: 5 per minute by sliding_window → 3 per minute by sliding_window; its candidate is in force: \
         3 per minute by sliding_window; its counters go on",
        "no longer: shop.path_/health: no limit",
        "shop: the `ext_authz` section is new",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{lines}");
    let same = sluicegate(directory.path(), &["check", "--diff", "new.yaml", "new.yaml"]);
    assert_eq!(text(&same.stdout), "no rule means anything else than before\n");
    std::fs::write(directory.path().join("new.yaml"), "domian: x\n").expect("a file");
    let wrong = sluicegate(directory.path(), &["check", "--diff", "old.yaml", "new.yaml"]);
    assert_eq!(wrong.status.code(), Some(1));
}

const PLANS: &str = "
domain: shop
plans:
  free: { requests_per_unit: 1, unit: hour }
  pro: { requests_per_unit: 3, unit: hour }
sources:
  tenants: { file: tenants.csv }
descriptors:
  - { key: tenant, rate_limit: { plan_from: tenants, default: free } }
  - { key: a, value: b_c, rate_limit: { unit: day, requests_per_unit: 1 } }
  - { key: a_b, value: c, rate_limit: { unit: day, requests_per_unit: 2 } }
  - { key: several, rate_limit: { unit: day, requests_per_unit: 250 } }
  - { key: set, value_in: [x, y], share_threshold: true, rate_limit: { unit: day, requests_per_unit: 1 } }
  - { key: each, value_in: [x, y], rate_limit: { unit: day, requests_per_unit: 1 } }
  - { key: order, value_in: [x, y], share_threshold: true, rate_limit: { unit: day, requests_per_unit: 1 } }
";

/// What looks the same by name, goes on under another name, or hides in a plan.
#[test]
fn what_a_name_does_not_show_is_told() {
    let new = PLANS
        .replace(
            "requests_per_unit: 3, unit: hour",
            "requests_per_unit: 3, unit: hour, algorithm: token_bucket",
        )
        .replace("unit: day, requests_per_unit: 2 }", "unit: day, requests_per_unit: 3 }")
        .replace(
            "rate_limit: { unit: day, requests_per_unit: 250 }",
            "rate_limits: [{ unit: day, requests_per_unit: 250 }, { unit: month, requests_per_unit: 10000 }]",
        )
        .replace("key: set, value_in: [x, y]", "key: set, value_in: [x, y, z]")
        .replace("key: each, value_in: [x, y]", "key: each, value_in: [x, y, z]")
        .replace("key: order, value_in: [x, y]", "key: order, value_in: [y, x]");
    let rows = "acme,pro\n";
    let files = [
        ("old/r.yaml", PLANS),
        ("new/r.yaml", new.as_str()),
        ("old/tenants.csv", rows),
        ("new/tenants.csv", rows),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let output = sluicegate(directory.path(), &["check", "--diff", "old", "new"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let expected = [
        "shop / a_b_c~2: looser: 2 per day by sliding_window → 3 per day by sliding_window; its counters go on",
        "shop / each_in(x,y,z): its values are others than in each_in(x,y); its counters go on",
        "shop / set_in(x,y,z): its values are others than in set_in(x,y); its counters start anew",
        "shop / several: looser: 250 per day by sliding_window → 10000 per month by sliding_window; its counters go on",
        "shop / several#86400s: new, 250 per day by sliding_window; its counters start anew",
        "shop / tenant: plan pro: 3 per hour by sliding_window, precision 32 → 3 per hour by token_bucket, burst 3; counters of \
         values with plan pro start anew",
        "no longer: shop.tenants plan pro: 3 per hour by sliding_window",
        "new: shop.tenants plan pro: 3 per hour by token_bucket",
    ];
    let found: Vec<&str> = lines.lines().collect();
    assert_eq!(found.len(), expected.len(), "{lines}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start), "{start}\n{lines}");
    }
}
