//! Rules files: what is read, what is refused and how that is said, matching, and reloading.

mod errors;

use std::sync::Arc;

use sluicegate::config::{ConfigErrors, Text, load};
use sluicegate::rules::{Defaults, RuleSet};

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
