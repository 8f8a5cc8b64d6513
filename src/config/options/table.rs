//! The entries. Their order is that of the documentation and of the fields in a line of `/rlconfig`.

use crate::algorithms::limit::{DEFAULT_PRECISION, MAX_PRECISION};
use crate::model::Algorithm;
use crate::rules::{self, Rule};

use super::super::compat::Compatibility::{self, Extended, Native, Supported};
use super::option::Level::{Candidate, Descriptor, File, Metadata, Plan, RateLimit};
use super::option::{Effect, FieldAccess, Kind, Level, RuleOption, Shown};
use super::shapes;

macro_rules! slot {
    ($field:ident) => {
        FieldAccess {
            get: |options| &options.$field,
            get_mut: |options| &mut options.$field,
        }
    };
}

const fn entry(
    name: &'static str,
    levels: &'static [Level],
    kind: Kind,
    default: &'static str,
    doc: &'static str,
    compat: Compatibility,
) -> RuleOption {
    RuleOption {
        name,
        levels,
        kind,
        default,
        doc,
        compat,
        show: |_, _| {},
        effect: None,
    }
}

impl RuleOption {
    const fn shown(mut self, show: fn(&Shown<'_>, &mut Vec<String>)) -> Self {
        self.show = show;
        self
    }

    /// It affects the rule of its own descriptor.
    const fn of_its_rule(mut self, applies: fn(&Rule) -> bool, needs: &'static str) -> Self {
        self.effect = Some(Effect {
            below: false,
            applies,
            repeated: |_| false,
            needs,
        });
        self
    }

    /// The same for one that says nothing wrong where each rule below has it, too.
    const fn of_its_rule_or_all_below(mut self, set: fn(&Rule) -> bool) -> Self {
        self.effect = Some(Effect {
            below: false,
            applies: counts,
            repeated: set,
            needs: OWN_RULE,
        });
        self
    }

    /// It affects the rule of its own descriptor and all below.
    const fn of_rules_below(mut self, applies: fn(&Rule) -> bool, needs: &'static str) -> Self {
        self.effect = Some(Effect {
            below: true,
            applies,
            repeated: |_| false,
            needs,
        });
        self
    }
}

/// The limits of one `rate_limit`, which xDS sources may give in `metadata`, of a `candidate` and of a plan.
const COUNTING: &[Level] = &[RateLimit, Metadata, Candidate, Plan];
const OWN_RULE: &str = "a `rate_limit` on the same descriptor";
const ANY_RULE: &str = "a `rate_limit` on this descriptor or below it";

fn any(_: &Rule) -> bool {
    true
}

fn counts(rule: &Rule) -> bool {
    rule.limit.is_some()
}

/// A candidate as its rule's limit would be shown.
fn as_a_rule(rule: &Rule, candidate: &rules::Candidate) -> String {
    let rule = Rule {
        limit: Some(candidate.limit),
        requests_per_unit: candidate.requests_per_unit,
        window: candidate.window,
        count_denied: candidate.count_denied,
        ..rule.clone()
    };
    let shown = Shown {
        rule: &rule,
        shared: &[],
    };
    let mut values = vec![format!("{} per {}", rule.requests_per_unit, rule.window)];
    for option in TABLE.iter().filter(|option| option.stands_on(Candidate)) {
        (option.show)(&shown, &mut values);
    }
    values.join(" ")
}

fn flag(set: bool, out: &mut Vec<String>) {
    if set {
        out.push("true".to_owned());
    }
}

const _: () = assert!(
    DEFAULT_PRECISION == 32 && MAX_PRECISION == 1000,
    "the entry of `precision` says so"
);

/// Every field.
#[rustfmt::skip]
pub static TABLE: &[RuleOption] = &[
    // The tree.
    entry("domain", &[File], Kind::Tree, "required",
        "whose rules these are: the `domain` of Envoy's rate limit filter. A domain stands in one file, unless merging is on (`--merge-domains`)",
        Supported),
    entry("descriptors", &[File, Descriptor], Kind::Tree, "none",
        "the next level of the tree, at most 32 levels", Supported),
    entry("ext_authz", &[File], Kind::Tree, "none",
        "how requests that come by `ext_authz` become descriptors: [ext_authz.md](ext_authz.md)", Native),
    entry("plans", &[File], Kind::Tree, "none",
        "limits by name, for rules with `plan_from`: [plans.md](plans.md)", Native),
    entry("sources", &[File], Kind::Tree, "none",
        "where it stands which value has which plan: files, hashes in Redis, URLs ([plans.md](plans.md))", Native),
    entry("rlqs", &[File], Kind::Shaped {
            read: shapes::rlqs,
            given: |options| options.rlqs.is_there().then(|| options.rlqs.place()),
        }, "none",
        "`rlqs: {}`: these rules may also be enforced by Envoys themselves (`rate_limit_quota`): [rlqs.md](rlqs.md). `bucket: [name, user]` says which keys of a bucket id make its descriptor, in this order (all of them, sorted, where it is left out); `refill: true`: leases of `token_bucket` rules refill by the second",
        Native)
        .of_rules_below(|rule| rule.rlqs || (rule.limit.is_none() && rule.plan_from.is_none()),
            "a `rate_limit` without `hold` and `plan_from` that is neither `leaky_bucket` nor `concurrency`"),
    entry("key", &[Descriptor], Kind::Tree, "required", "the key of the descriptor entry that it matches",
        Extended("it is never joined with the value, so that no two rules collide, and a `*` in it is a character; envoyproxy/ratelimit matches keys and values joined")),
    entry("value", &[Descriptor], Kind::Tree, "any",
        "the value that it matches; empty = any. May contain `*` (up to 32); quote it when it begins with one",
        Extended("`*` anywhere; among several wildcards that match, the most specific wins (longest fixed text), not the first")),
    entry("value_in", &[Descriptor, Metadata], Kind::Shaped {
            read: shapes::value_in,
            given: |options| options.value_in.is_there().then(|| options.value_in.place()),
        }, "none",
        "in place of `value`: a list of values, `[a, b]` ([below](#which-rule-applies))", Native),
    entry("value_cidr", &[Descriptor, Metadata], Kind::Shaped {
            read: shapes::value_cidr,
            given: |options| options.value_cidr.is_there().then(|| options.value_cidr.place()),
        }, "none",
        "in place of `value`: a list of networks, `[10.0.0.0/8, 2001:db8::/32]`, for values that are addresses; the longest prefix wins, and an IPv4-mapped address counts as the IPv4 one",
        Native),
    entry("value_regex", &[Descriptor, Metadata], Kind::Text(slot!(value_regex)), "none",
        "in place of `value`: a regular expression over the whole value, in RE2's syntax, compiled to at most 256 KiB; those of all rules together to 16 MiB",
        Native),
    entry("rate_limit", &[Descriptor], Kind::Tree, "none", "what is counted when a request's descriptor ends here", Supported),

    entry("rate_limits", &[Descriptor, Metadata], Kind::Shaped {
            read: shapes::rate_limits,
            given: |options| options.rate_limits.is_there().then(|| options.rate_limits.place()),
        }, "none",
        "in place of `rate_limit`: a list of up to 8 limits that all hold, such as 10 a second and 250 a day ([below](#several-limits))",
        Native),

    // How to count.
    entry("requests_per_unit", &[RateLimit, Candidate, Plan], Kind::Number(slot!(requests_per_unit)), "`0`",
        "hits in a window, 0 to 4294967295; 0 denies everything", Supported),
    entry("unit", &[RateLimit, Candidate, Plan], Kind::Text(slot!(unit)), "required",
        "`second` `minute` `hour` `day` `week` `month` (30 days) `year` (365 days), in any case",
        Supported),
    entry("unit_multiplier", COUNTING, Kind::Number(slot!(unit_multiplier)), "`1`", "that many units are the window", Native)
        .shown(|shown, out| out.extend(shown.rule.limit.map(|_| shown.rule.window.multiplier.to_string()))),
    entry("window", COUNTING, Kind::Window(slot!(window)), "none",
        "in place of `unit`: `30s`, `5m`, `1h30m`, `7d`; whole seconds, at most 3650 days. Or `{ calendar: month, time_zone: Europe/Berlin }`: the `day`, `week`, `month` or `year` of a time zone ([below](#calendar-windows))",
        Native)
        .shown(|shown, out| if shown.rule.window.zone.is_some() {
            out.push(shown.rule.window.to_string());
        }),
    entry("algorithm", COUNTING, Kind::Text(slot!(algorithm)), "`sliding_window`",
        "`sliding_window` `sliding_log` `token_bucket` `leaky_bucket` `fixed_window` `concurrency`; `--default-algorithm` changes the default",
        Native)
        .shown(|shown, out| out.extend(shown.rule.limit.map(|limit| limit.algorithm.kind().to_string()))),
    entry("precision", COUNTING, Kind::Number(slot!(precision)), "`32`",
        "`sliding_window`: slices in a window, 1 to 1000. A denial may last up to a slice too long; each slice costs a few bytes a key",
        Native)
        .shown(|shown, out| if let Some(Algorithm::SlidingWindow { precision }) = shown.rule.limit.map(|limit| limit.algorithm) {
            out.push(precision.to_string());
        }),
    entry("burst", COUNTING, Kind::LargeNumber(slot!(burst)), "`requests_per_unit`",
        "`token_bucket`: hits that may come at once", Native)
        .shown(|shown, out| if let Some(Algorithm::TokenBucket { burst, .. }) = shown.rule.limit.map(|limit| limit.algorithm) {
            out.push(burst.to_string());
        }),
    entry("max_delay", COUNTING, Kind::Text(slot!(max_delay)), "`1s`",
        "`leaky_bucket`: the longest that a request is held back, at most 60 s. Set Envoy's timeout above it", Native)
        .shown(|shown, out| if let Some(Algorithm::LeakyBucket { max_delay_us, .. }) = shown.rule.limit.map(|limit| limit.algorithm) {
            out.push(format!("{max_delay_us}us"));
        }),
    entry("unlimited", &[RateLimit, Plan], Kind::Truth(slot!(unlimited)), "`false`",
        "`true`: never counted, always passes; no `unit` beside it", Supported)
        .shown(|shown, out| flag(shown.rule.limit.is_none(), out)),
    entry("name", &[RateLimit], Kind::Text(slot!(name)), "none",
        "what answers, logs and metrics call it; keep it to letters, digits, `-`, `_` and `.`, since Envoy prints it unescaped",
        Extended("it names the limit in headers, body and metadata (#509)"))
        .shown(|shown, out| if !shown.rule.name.is_empty() {
            out.push(shown.rule.name.to_string());
        }),
    entry("headers", &[RateLimit, Metadata], Kind::Truth(slot!(headers)), "`true`",
        "`false`: clients are not told of this limit in headers: no `current_limit` for Envoy's `x-ratelimit-*`, nothing in ours, no `retry-after` of it",
        Native)
        .shown(|shown, out| if !shown.rule.headers {
            out.push("false".to_owned());
        }),
    entry("body", &[RateLimit, Metadata], Kind::Truth(slot!(body)), "`true`",
        "`false`: the body of a denial does not tell of this limit", Native)
        .shown(|shown, out| if !shown.rule.body {
            out.push("false".to_owned());
        }),
    entry("on_limit", &[RateLimit, Metadata], Kind::Text(slot!(on_limit)), "`deny`",
        "`deny`, or `mark`: what is over the limit passes, with the request header `x-ratelimit-over: <name>` for the upstream ([below](#soft-limits))",
        Native)
        .shown(|shown, out| if shown.rule.marks {
            out.push("mark".to_owned());
        }),
    entry("replaces", &[RateLimit], Kind::Shaped {
            read: shapes::replaces,
            given: |options| options.replaces.is_there().then(|| options.replaces.place()),
        }, "none",
        "a list of `name: …`: those rules are dropped, uncounted, when this one applies to the same request", Supported)
        .shown(|shown, out| out.extend(shown.rule.replaces.iter().cloned())),
    entry("count_denied", COUNTING, Kind::Truth(slot!(count_denied)), "the server's setting",
        "denied hits count too, as in envoyproxy/ratelimit; not for `leaky_bucket` and `concurrency` ([below](#hits-that-are-known-afterwards))",
        Native)
        .shown(|shown, out| flag(shown.rule.count_denied, out)),
    entry("hold", COUNTING, Kind::Hold(slot!(hold)), "none",
        "`hold: { ttl: 10m }`: a request's hits are kept as a hold until a descriptor with the entry `sluicegate_hold` settles it with their real number, or the ttl ends ([budgets.md](budgets.md)); not for `leaky_bucket`. The ttl is 10m where it is left out, and never longer than the window. With `adaptive: { first: 500 }` in it, questions with 0 hits hold what requests have cost on average (`first` until that is known), and hits settle the oldest hold",
        Native)
        .shown(|shown, out| if let Some(limit) = shown.rule.limit.filter(|limit| limit.hold_us > 0 && !shown.rule.rlqs) {
            out.push(format!("{}ms", limit.hold_us.div_ceil(1000)));
            out.extend(shown.rule.hold_first.map(|first| format!("adaptive {first}")));
        }),
    entry("plan_from", &[RateLimit], Kind::Text(slot!(plan_from)), "none",
        "in place of a limit: the name of one of the file's `sources`, which gives each value of this key its plan ([plans.md](plans.md))",
        Native)
        .shown(|shown, out| if let Some(from) = &shown.rule.plan_from {
            out.push(format!("{} ({})", from.source.name, from.source.from));
        }),
    entry("default", &[RateLimit], Kind::Text(slot!(default)), "none",
        "with `plan_from`: the plan of values that the source does not have", Native)
        .shown(|shown, out| out.extend(shown.rule.plan_from.as_ref().map(|from| from.default.name.to_string()))),

    // What holds for a rule and all below.
    entry("on_store_error", &[File, Descriptor, RateLimit, Metadata], Kind::Text(slot!(on_store_error)), "the server's setting",
        "`local`, `allow` or `deny`, while the store cannot answer. It holds for this rule and all below; the nearest one holds",
        Native)
        .shown(|shown, out| out.extend(shown.rule.on_store_error.map(|mode| mode.name().to_owned())))
        .of_rules_below(any, ANY_RULE),
    entry("lease", &[File, Descriptor, RateLimit, Metadata], Kind::Truth(slot!(lease)), "the server's setting",
        "`true` or `false`: whether hits of `sliding_window` and `fixed_window` limits may be leased ahead. It holds for this rule and all below; the nearest one holds",
        Native)
        .shown(|shown, out| out.extend(shown.rule.lease.map(|lease| lease.to_string())))
        .of_rules_below(|rule| rule.limit.is_some_and(|limit| limit.algorithm.kind().can_lease() && limit.hold_us == 0),
            "a `rate_limit` with `algorithm: sliding_window` or `fixed_window`, no `hold`, and no `rlqs` on the domain"),
    entry("shadow_mode", &[Descriptor], Kind::Truth(slot!(shadow_mode)), "`false`",
        "`true`: counted and reported, never denies", Supported)
        .of_its_rule_or_all_below(|rule| rule.shadow_mode),
    entry("share_threshold", &[Descriptor, Metadata], Kind::Truth(slot!(share_threshold)), "`false`",
        "`true`, with a `*` in `value`, or with `value_in`, `value_cidr` or `value_regex`: all values that match share one counter; `false`: each has its own",
        Extended("for values of other kinds, too"))
        .shown(|shown, out| out.extend(shown.shared.iter().map(ToString::to_string)))
        .of_rules_below(any, ANY_RULE),
    entry("quota_mode", &[Descriptor], Kind::Truth(slot!(quota_mode)), "`false`",
        "`true`: a quota; a request is over only if all scopes of its quotas are ([below](#quotas))", Supported)
        .of_its_rule_or_all_below(|rule| rule.quota_mode),
    entry("detailed_metric", &[Descriptor], Kind::Truth(slot!(detailed_metric)), "`false`",
        "`true`: request values enter the names of metrics, bounded in number, in place of the rule's own name; not those that share a counter",
        Extended("bounded: 10,000 series a process, the rest counts under its rule (#275)"))
        .shown(|shown, out| flag(shown.rule.detailed_metric, out))
        .of_its_rule(any, OWN_RULE),
    entry("value_to_metric", &[Descriptor, Metadata], Kind::Truth(slot!(value_to_metric)), "`false`",
        "`true`: the same for the value of this level alone; with `share_threshold` the wildcard stands in it",
        Extended("bounded, as `detailed_metric`"))
        .shown(|shown, out| {
            let levels = shown.rule.levels.iter().zip(shown.rule.value_to_metric.iter());
            out.extend(levels.filter(|(_, own)| **own).map(|((key, _), _)| key.clone()));
        })
        .of_rules_below(any, ANY_RULE),
    entry("candidate", &[Descriptor, Metadata], Kind::Shaped {
            read: shapes::candidate,
            given: |options| options.candidate.is_there().then(|| options.candidate.place()),
        }, "none",
        "a limit to try beside the `rate_limit`, which may be `unlimited`: decided on counters of its own, never denies ([below](#candidates))",
        Native)
        .shown(|shown, out| if let Some(candidate) = &shown.rule.candidate {
            out.push(as_a_rule(shown.rule, candidate));
        })
        .of_its_rule(any, OWN_RULE),
    entry("metadata", &[Descriptor], Kind::Shaped {
            read: shapes::metadata,
            given: |options| options.metadata.is_there().then(|| options.metadata.place()),
        }, "none",
        "a mapping, returned as dynamic metadata",
        Extended("kept with detailed metrics; the key `sluicegate` in it holds native options, for rules that come by xDS"))
        .shown(|shown, out| if let Some(metadata) = &shown.rule.metadata {
            out.push(serde_json::to_string(&**metadata).unwrap_or_default());
        })
        .of_its_rule(any, OWN_RULE),
];
