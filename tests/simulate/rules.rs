//! The rules of a simulated installation, in two versions between which it may switch while it serves.

use std::sync::{Arc, LazyLock};

use sluicegate::config::{Text, load};
use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::model::{Algorithm, CounterKey, Limit};
use sluicegate::rules::{Defaults, OnStoreError, RuleSet};

/// The domain of every request.
pub const DOMAIN: &str = "sim";
/// What the engine puts before every key.
pub const PREFIX: &str = "sg:";
/// Versions of the rules.
pub const VERSIONS: usize = 2;

/// One rule, as the caller and the oracle know it.
struct Spec {
    name: &'static str,
    /// `rate_limit` but for its number.
    fields: &'static str,
    /// `requests_per_unit` in each version.
    hits: [u32; VERSIONS],
    /// `on_store_error` in each version.
    mode: [&'static str; VERSIONS],
    is_quota: bool,
}

const fn spec(name: &'static str, fields: &'static str, hits: [u32; 2], mode: [&'static str; 2]) -> Spec {
    Spec {
        name,
        fields,
        hits,
        mode,
        is_quota: false,
    }
}

const fn quota(name: &'static str, fields: &'static str, hits: [u32; 2]) -> Spec {
    Spec {
        is_quota: true,
        ..spec(name, fields, hits, DENY)
    }
}

const LOCAL: [&str; 2] = ["local", "local"];
const DENY: [&str; 2] = ["deny", "deny"];

/// Tight rules try the limits; the counters of long windows are compared with the oracle's at the end of a run.
const SPECS: [Spec; 23] = [
    spec("window-local", "window: 2s", [8, 8], LOCAL),
    spec("window-deny", "window: 1s, precision: 8", [6, 9], DENY),
    spec("window-exact", "window: 1s, lease: false", [5, 5], DENY),
    spec("window-large", "window: 2s", [200, 150], DENY),
    spec("log-deny", "window: 1s, algorithm: sliding_log", [5, 3], DENY),
    spec(
        "bucket-local",
        "window: 1s, algorithm: token_bucket, burst: 5",
        [10, 10],
        LOCAL,
    ),
    spec(
        "bucket-deny",
        "window: 1s, algorithm: token_bucket, burst: 4",
        [8, 8],
        DENY,
    ),
    spec(
        "leaky-deny",
        "window: 1s, algorithm: leaky_bucket, max_delay: 100ms",
        [20, 20],
        DENY,
    ),
    spec(
        "fixed-mixed",
        "window: 1s, algorithm: fixed_window",
        [8, 8],
        ["local", "deny"],
    ),
    spec(
        "fixed-allow",
        "window: 1s, algorithm: fixed_window",
        [4, 4],
        ["allow", "deny"],
    ),
    spec("permits-deny", "window: 1h, algorithm: concurrency", [3, 4], DENY),
    spec("permits-local", "window: 1h, algorithm: concurrency", [4, 4], LOCAL),
    spec("hour-local", "window: 1h", [1000, 900], LOCAL),
    spec("day-fixed", "window: 1d, algorithm: fixed_window", [40, 40], DENY),
    spec("hour-log", "window: 1h, algorithm: sliding_log", [500, 500], LOCAL),
    spec("hour-debit", "window: 1h, count_denied: true", [100, 100], LOCAL),
    // From here on in the fourth edition.
    spec("hold-hour", "window: 1h, hold: {ttl: 10m}", [200, 150], DENY),
    spec(
        "hold-day",
        "window: 1d, algorithm: fixed_window, hold: {ttl: 20m}",
        [90, 90],
        LOCAL,
    ),
    spec("hold-short", "window: 1h, hold: {ttl: 1s}", [80, 120], DENY),
    spec(
        "hold-bucket",
        "window: 1s, algorithm: token_bucket, burst: 20, hold: {ttl: 1s}",
        [40, 40],
        DENY,
    ),
    quota("quota-hour", "window: 1h", [60, 50]),
    quota("quota-tight", "window: 2s", [6, 6]),
    spec("slices", "window: 20s, precision: 64", [400, 300], DENY),
];

/// How many rules there are.
pub const RULES: usize = SPECS.len();
/// Those of the first editions.
pub const FIRST_RULES: usize = 16;
/// Of the first editions' rules, those that scenarios need.
pub const WINDOW_EXACT: usize = 2;
pub const LEAKY: usize = 7;
pub const PERMITS: [usize; 2] = [10, 11];
pub const HOUR_LOCAL: usize = 12;
pub const DAY_FIXED: usize = 13;
/// Rules whose hits are held.
pub const HOLDS: [usize; 4] = [16, 17, 18, 19];
/// Quotas.
pub const QUOTAS: [usize; 2] = [20, 21];
/// A rule whose slices are so short that hits are counted in many of them.
pub const SLICES: usize = 22;
/// A hold that lasts so long is there at the end of every run.
const LONG_TTL_US: u64 = 60_000_000;

/// Whether a rule's answers may be held back.
pub fn is_leaky(rule: usize) -> bool {
    matches!(versions()[0].known[rule].limit.algorithm, Algorithm::LeakyBucket { .. })
}

/// A rule as the oracle knows it.
#[derive(Debug, Clone)]
pub struct Known {
    pub name: &'static str,
    pub limit: Limit,
    pub mode: OnStoreError,
    /// Its hits are counted whether they fit or not.
    pub debits: bool,
}

impl Known {
    /// Whether its hits are permits, to be released.
    pub const fn is_permit(&self) -> bool {
        matches!(self.limit.algorithm, Algorithm::Concurrency)
    }

    /// Whether no hit of it leaves before a run ends.
    pub const fn lasts(&self) -> bool {
        self.limit.window_us >= 60_000_000
    }

    /// Whether its hits are held.
    pub const fn is_held(&self) -> bool {
        self.limit.hold_us > 0
    }

    /// Whether a hold of it that nobody settles is there at the end of every run.
    pub const fn holds_last(&self) -> bool {
        holds_last(&self.limit)
    }

    /// The key of a value's counter.
    pub fn key(&self, value: &str) -> CounterKey {
        counter_key(PREFIX, Owner::Rule, &self.limit, DOMAIN, [Part::Own(self.name, value)])
    }
}

/// The same of a limit.
pub const fn holds_last(limit: &Limit) -> bool {
    limit.hold_us >= LONG_TTL_US
}

/// A version of the rules.
pub struct Version {
    pub rules: Arc<RuleSet>,
    pub known: Vec<Known>,
}

/// All versions, compiled once.
pub fn versions() -> &'static [Version; VERSIONS] {
    static ALL: LazyLock<[Version; VERSIONS]> = LazyLock::new(|| [version(0), version(1)]);
    &ALL
}

fn version(number: usize) -> Version {
    let mut yaml = format!("domain: {DOMAIN}\ndescriptors:\n");
    for spec in &SPECS {
        yaml += &format!(
            "  - {{key: {}, quota_mode: {}, rate_limit: {{requests_per_unit: {}, on_store_error: {}, {}}}}}\n",
            spec.name, spec.is_quota, spec.hits[number], spec.mode[number], spec.fields
        );
    }
    let text = Text {
        name: "rules.yaml".into(),
        text: yaml.into(),
    };
    let rules = load(&[text], &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let known = SPECS.iter().zip(&rules.rules).map(|(spec, rule)| Known {
        name: spec.name,
        limit: rule.limit.expect("every rule counts"),
        mode: rule.on_store_error.expect("every rule says so"),
        debits: rule.count_denied,
    });
    Version {
        known: known.collect(),
        rules: Arc::new(rules),
    }
}
