//! Rules files: what is read, what is refused and how that is said, matching, and reloading.

#[path = "../support/mod.rs"]
mod support;

mod calendar;
mod compile;
mod errors;
mod ext_authz;
mod holds;
mod hostile;
mod import;
mod lookup_cost;
mod matching;
mod names;
mod options;
mod plans;
mod properties;
mod reference;
mod reload;
mod several;
mod source;
mod values;
mod warnings;

use std::sync::Arc;

use sluicegate::config::{ConfigErrors, Text, load};
use sluicegate::model::Entry;
use sluicegate::rules::{Defaults, Domain, Matched, RuleSet};

/// A file called `rules.yaml`.
fn text(yaml: &str) -> Text {
    named("rules.yaml", yaml)
}

fn named(name: &str, yaml: &str) -> Text {
    Text {
        name: Arc::from(name),
        text: Arc::from(yaml),
    }
}

fn try_rules(yaml: &str) -> Result<RuleSet, ConfigErrors> {
    load(&[text(yaml)], &Defaults::default())
}

fn rules(yaml: &str) -> RuleSet {
    try_rules(yaml).unwrap_or_else(|errors| panic!("{errors}"))
}

fn entries(pairs: &[(&str, &str)]) -> Vec<Entry> {
    let entry = |(key, value): &(&str, &str)| Entry {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    pairs.iter().map(entry).collect()
}

/// The path of the rule that applies.
fn find<'r>(domain: &'r Domain, pairs: &[(&str, &str)]) -> Option<&'r str> {
    domain
        .find(&entries(pairs))
        .map(|Matched { rules, .. }| &*rules[0].path)
}
