//! The table of options: every entry is read, merged, shown and documented.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sluicegate::config::options::{Level, TABLE, docs};

use super::{errors::refused, rules};

/// For each option that has no place in the fixed part of a line: a rule with it, as `key: …` beside `LIMIT` or in it.
const EXAMPLES: [(&str, &str); 26] = [
    ("unit_multiplier", "rate_limit: {unit: day, unit_multiplier: 2}"),
    ("window", "rate_limit: {window: 30s}"),
    ("algorithm", "rate_limit: {unit: day, algorithm: fixed_window}"),
    ("precision", "rate_limit: {unit: day, precision: 7}"),
    (
        "burst",
        "rate_limit: {unit: day, requests_per_unit: 1, algorithm: token_bucket, burst: 3}",
    ),
    (
        "max_delay",
        "rate_limit: {unit: day, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 3s}",
    ),
    ("unlimited", "rate_limit: {unlimited: true}"),
    ("name", "rate_limit: {unit: day, name: n}"),
    ("replaces", "rate_limit: {unit: day, replaces: [{name: m}]}"),
    ("count_denied", "rate_limit: {unit: day, count_denied: true}"),
    ("hold", "rate_limit: {unit: day, hold: {ttl: 5m}}"),
    ("on_store_error", "rate_limit: {unit: day, on_store_error: deny}"),
    ("lease", "rate_limit: {unit: day, lease: false}"),
    (
        "share_threshold",
        "value: \"x*\"\n    share_threshold: true\n    rate_limit: {unit: day}",
    ),
    ("detailed_metric", "detailed_metric: true\n    rate_limit: {unit: day}"),
    ("value_to_metric", "value_to_metric: true\n    rate_limit: {unit: day}"),
    ("metadata", "metadata: {team: x}\n    rate_limit: {unit: day}"),
    (
        "candidate",
        "candidate: {unit: day, requests_per_unit: 1}\n    rate_limit: {unit: day}",
    ),
    ("headers", "rate_limit: {unit: day, headers: false}"),
    ("body", "rate_limit: {unit: day, body: false}"),
    ("on_limit", "rate_limit: {unit: day, on_limit: mark}"),
    ("value_in", "value_in: [a, b]\n    rate_limit: {unit: day}"),
    ("value_cidr", "value_cidr: [10.0.0.0/8]\n    rate_limit: {unit: day}"),
    ("value_regex", "value_regex: a+\n    rate_limit: {unit: day}"),
    ("rate_limits", "rate_limits: [{unit: day}, {unit: hour}]"),
    ("requests_per_unit", "rate_limit: {unit: day, requests_per_unit: 77}"),
];

/// Replicas compare a hash of the dump: an option that is missing in it hides a difference.
#[test]
fn every_option_changes_the_dump() {
    let yaml = |lines: &str| format!("domain: d\ndescriptors:\n  - key: k\n    {lines}\n");
    let plain = rules(&yaml("rate_limit: {unit: day}")).dump();
    let mut covered: BTreeSet<&str> = ["shadow_mode", "quota_mode"].into();
    for (name, lines) in EXAMPLES {
        assert_ne!(rules(&yaml(lines)).dump(), plain, "{name}");
        covered.insert(name);
    }
    for name in ["shadow_mode", "quota_mode"] {
        let dump = rules(&yaml(&format!("{name}: true\n    rate_limit: {{unit: day}}"))).dump();
        assert!(dump.contains(&format!("{name}: true")), "{dump}");
    }
    let quota = |rlqs: &str| rules(&format!("rlqs: {rlqs}\n{}", yaml("rate_limit: {unit: day}"))).dump();
    let dumps = [plain, quota("{}"), quota("{bucket: [a]}"), quota("{refill: true}")];
    assert_eq!(dumps.iter().collect::<BTreeSet<_>>().len(), dumps.len(), "{dumps:?}");
    covered.insert("rlqs");
    // The tree is in every line; `unit` begins each.
    covered.extend([
        "domain",
        "descriptors",
        "ext_authz",
        "key",
        "value",
        "rate_limit",
        "unit",
    ]);
    // See `plans.rs`.
    covered.extend(["plans", "sources", "plan_from", "default"]);
    let table: BTreeSet<&str> = TABLE.iter().map(|option| option.name).collect();
    assert_eq!(covered, table, "an option has no example here");
    assert_eq!(table.len(), TABLE.len(), "a name stands twice");
}

/// An option of a rule that may stand in `metadata` counts the same there, and not in both places.
#[test]
fn options_in_metadata_are_those_of_the_rule() {
    for option in TABLE.iter().filter(|option| option.stands_on(Level::Metadata)) {
        let Some((_, lines)) = EXAMPLES.iter().find(|(name, _)| *name == option.name) else {
            panic!("{} has no example", option.name);
        };
        let rule = lines.lines().last().unwrap_or_default().trim();
        let Some((before, given)) = rule.split_once(&format!("{}: ", option.name)) else {
            continue;
        };
        let given = given.strip_suffix('}').unwrap_or(given);
        let inside = before.trim_end_matches([' ', ',']);
        // Without a window of its own a rule needs a unit.
        let unit = if inside.contains("unit") { "" } else { "unit: day" };
        let moved = format!(
            "domain: d\ndescriptors:\n  - key: k\n    metadata: {{sluicegate: {{{}: {given}}}}}\n    {inside}{unit}}}\n",
            option.name
        );
        let there = format!("domain: d\ndescriptors:\n  - key: k\n    {rule}\n");
        assert_eq!(rules(&moved).dump(), rules(&there).dump(), "{moved}");
        let twice = moved.replace(&format!("    {inside}{unit}}}\n"), &format!("    {rule}\n"));
        let found = refused(&twice);
        assert!(found[0].contains("beside"), "{found:?}");
    }
}

/// Whatever of a candidate differs, the dump does; in `metadata` it is the same.
#[test]
fn a_candidate_is_shown_with_all_that_counts() {
    let yaml = |candidate: &str| {
        format!("domain: d\ndescriptors:\n  - key: k\n    {candidate}\n    rate_limit: {{unlimited: true}}\n")
    };
    let inside = |options: &str| format!("candidate: {{unit: day, requests_per_unit: 5{options}}}");
    let dumps: BTreeSet<String> = [
        "",
        ", unit_multiplier: 2",
        ", precision: 7",
        ", count_denied: true",
        ", algorithm: fixed_window",
        ", algorithm: token_bucket",
        ", algorithm: token_bucket, burst: 9",
        ", algorithm: leaky_bucket, max_delay: 2s",
    ]
    .map(|options| rules(&yaml(&inside(options))).dump())
    .into();
    assert_eq!(dumps.len(), 8, "{dumps:?}");
    let moved = format!("metadata: {{sluicegate: {{{}}}}}", inside(""));
    assert_eq!(rules(&yaml(&moved)).dump(), rules(&yaml(&inside(""))).dump());
    let twice = refused(&yaml(&format!("{}\n    {moved}", inside(""))));
    assert!(twice[0].contains("`candidate` beside"), "{twice:?}");
    for (wrong, expected) in [
        ("candidate: 5", "must be a mapping"),
        ("candidate: {requests_per_unit: 5}", "has no `unit`"),
        ("candidate: {unit: day, burst: 5}", "burst"),
        (
            "candidate: {unit: day, algorithm: concurrency}",
            "cannot be `algorithm: concurrency`",
        ),
        ("candidate: {unit: day, nmae: x}", "unknown field"),
    ] {
        let found = refused(&yaml(wrong));
        assert!(found[0].contains(expected) && found[0].starts_with("4:"), "{found:?}");
    }
}

/// `UPDATE_DOCS=1 cargo test --test config documentation` writes the tables.
#[test]
fn the_documentation_holds_the_tables() {
    let pages: [(&str, &[(&str, String)]); 2] = [
        (
            "docs/rules.md",
            &[
                ("file", docs::fields(Level::File)),
                ("descriptor", docs::fields(Level::Descriptor)),
                ("rate_limit", docs::fields(Level::RateLimit)),
                ("candidate", docs::fields(Level::Candidate)),
                ("metadata", docs::in_metadata()),
            ],
        ),
        ("docs/migrating.md", &[("compared", docs::compared())]),
    ];
    for (page, tables) in pages {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page);
        let mut doc = std::fs::read_to_string(&path).expect("the document");
        for (name, table) in tables {
            let marks = [
                format!("<!-- options {name}: begin -->\n"),
                format!("<!-- options {name}: end -->"),
            ];
            let (before, rest) = doc.split_once(&marks[0]).expect("the first mark");
            let (old, after) = rest.split_once(&marks[1]).expect("the second mark");
            if std::env::var_os("UPDATE_DOCS").is_some() {
                doc = [before, &marks[0], table, &marks[1], after].concat();
            } else {
                assert_eq!(old, table, "{page} is out of date: run with UPDATE_DOCS=1");
            }
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, doc).expect("written");
        }
    }
}
