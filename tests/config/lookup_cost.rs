//! What a lookup costs among many values of each kind: how many tables are looked into.

#![allow(clippy::print_stdout, reason = "a test prints what it measured")]

use std::fmt::Write;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use sluicegate::rules::RuleSet;

use super::{entries, rules};

/// Rules with so many values of each kind.
fn many(count: u32) -> RuleSet {
    let mut out = "domain: d\ndescriptors:\n".to_owned();
    let mut add = |fields: String| {
        let _ = writeln!(out, "  - {{key: k, {fields}, rate_limit: {{unit: day}}}}");
    };
    for n in 0..count {
        let (high, low) = (n / 256, n % 256);
        add(format!("value: exact-{n}"));
        add(format!("value_in: [listed-{n}, other-{n}]"));
        add(format!("value_cidr: [10.{high}.{low}.0/24]"));
        add(format!("value: 'wild-{n}-*', share_threshold: true"));
        add(format!("value_regex: '/orders/{n}/[0-9]+'"));
    }
    add("value: other".to_owned());
    rules(&out)
}

/// Looks into tables, and nanoseconds, that a lookup takes.
fn cost(rules: &RuleSet, value: &str) -> (usize, u128) {
    const ROUNDS: u32 = 20_000;
    let (domain, entries) = (&rules.domains["d"], entries(&[("k", value)]));
    let mut probes = 0;
    domain.find_probed(&entries, &mut || probes += 1);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(domain.find(black_box(&entries)));
    }
    (probes, start.elapsed().as_nanos() / u128::from(ROUNDS))
}

/// Asserts only how many tables are looked into; run with `--nocapture` for the times. Expressions are one pass over the value,
/// which is no look into a table.
#[test]
fn a_level_of_ten_thousand_values_of_each_kind_costs_what_one_of_one_value_does() {
    let (one, all) = (many(1), many(10_000));
    for (single, value) in [
        ("exact-0", "exact-9999"),
        ("listed-0", "listed-9999"),
        ("10.0.0.7", "10.39.15.7"),
        ("wild-0-x", "wild-9999-x"),
        ("nothing", "nothing"),
    ] {
        let ((few, few_ns), (many, many_ns)) = (cost(&one, single), cost(&all, value));
        println!("{value}: {many} looks, {many_ns} ns; among one of each kind {few} looks, {few_ns} ns");
        // A wildcard looks once for each distinct length of its fixed parts.
        assert!(many <= 2 * few, "{value}: {many} looks against {few}");
    }
}

/// Networks with every prefix length from 8 to 32, as many of each.
fn networks(count: u32) -> RuleSet {
    let mut out = "domain: d\ndescriptors:\n".to_owned();
    for n in 0..count {
        let (length, index) = (8 + n % 25, n / 25);
        if u64::from(index) < 1 << length {
            let address = Ipv4Addr::from_bits(index << (32 - length));
            let _ = writeln!(
                out,
                "  - {{key: k, value_cidr: [{address}/{length}], rate_limit: {{unit: day}}}}"
            );
        }
    }
    rules(&out)
}

/// One look for each prefix length that there is, longest first, whatever the number of networks.
#[test]
fn networks_cost_a_look_for_each_prefix_length() {
    let (few, many) = (networks(25), networks(10_000));
    // In none, and in a network of each length.
    for (value, lengths) in [("255.255.255.255", 25), ("0.0.0.0", 1)] {
        let ((of_few, few_ns), (of_many, many_ns)) = (cost(&few, value), cost(&many, value));
        println!("{value}: {of_many} looks, {many_ns} ns; among 25 networks {of_few} looks, {few_ns} ns");
        // The key is one look, too.
        assert_eq!((of_few, of_many), (1 + lengths, 1 + lengths), "{value}");
    }
}
