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
