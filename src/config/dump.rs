//! The rules as text, for `/rlconfig` and the configuration's hash: a line for each rule, in the shape that
//! envoyproxy/ratelimit prints, ours behind; then, after `#`, what else decides about requests.

use std::collections::HashMap;
use std::fmt::{self, Write};

use crate::rules::{Domain, Level, RuleSet};

use super::options::{Shown, TABLE};

impl RuleSet {
    /// Everything that two configurations can differ in: a line for each rule in order of declaration, for each node
    /// that exempts its value from its key's rules, and for each `ext_authz` section. Holds text of rules files only,
    /// with controls escaped so that a rule cannot forge a line.
    #[must_use]
    pub fn dump(&self) -> String {
        let tree = self.tree_notes();
        let mut out = String::new();
        // Writing to a String cannot fail.
        for rule in &self.rules {
            let shared = tree.shared.get(&rule.index).map_or(&[][..], Vec::as_slice);
            let _ = writeln!(out, "{}", Line(Shown { rule, shared }));
        }
        for note in self.notes_of(tree) {
            let _ = writeln!(out, "# {note}");
        }
        for (extension, mapping, default) in self.ext_authz.named() {
            let default = if default { ", default" } else { "" };
            let text = format!("{mapping:?}, context extension {extension:?}{default}");
            let _ = writeln!(out, "# ext_authz: {}", Escaped(&text));
        }
        out
    }

    /// What decides beside rules and `ext_authz` sections, a line each: values that are exempt from limits, plans, quotas
    /// that Envoys may enforce.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes_of(self.tree_notes())
    }

    fn tree_notes(&self) -> Notes<'_> {
        let mut notes = Notes::default();
        for domain in self.sorted_domains() {
            notes.walk(&domain.root, &domain.name, &mut Vec::new());
        }
        notes
    }

    fn sorted_domains(&self) -> Vec<&Domain> {
        let mut domains: Vec<_> = self.domains.values().collect();
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        domains
    }

    fn notes_of(&self, tree: Notes<'_>) -> Vec<String> {
        let mut notes = tree.exempt;
        for source in &self.sources {
            for plan in &source.plans {
                let text = format!("{}.{} plan {}: {}", source.domain, source.name, plan.name, plan.amount);
                notes.push(Escaped(&text).to_string());
            }
        }
        for domain in self.sorted_domains() {
            if let Some(quota) = &domain.quota {
                let refill = if quota.refill { ", refill" } else { "" };
                let text = format!("{}: bucket {:?}{refill}", domain.name, quota.bucket);
                notes.push(format!("rlqs: {}", Escaped(&text)));
            }
        }
        notes
    }
}

/// What the tree knows and its rules do not.
#[derive(Default)]
struct Notes<'r> {
    /// By a rule's index: patterns on the way to it whose values share a counter.
    shared: HashMap<usize, Vec<&'r str>>,
    /// A line for each node without a rule.
    exempt: Vec<String>,
}

impl<'r> Notes<'r> {
    /// `shared` holds the patterns above this level. As deep as rules are nested, which is bounded.
    fn walk(&mut self, level: &'r Level, path: &str, shared: &mut Vec<&'r str>) {
        let mut keys: Vec<_> = level.keys.iter().collect();
        keys.sort_by_key(|(key, _)| *key);
        for (key, values) in keys {
            let mut names = vec![""; values.nodes.len()];
            for (value, id) in values.exact.iter().chain(&values.sets) {
                if let Some(name) = usize::try_from(*id).ok().and_then(|id| names.get_mut(id)) {
                    *name = value;
                }
            }
            for (node, value) in values.nodes.iter().zip(names) {
                let path = match value {
                    "" => format!("{path}.{key}"),
                    value => format!("{path}.{key}_{value}"),
                };
                shared.extend(node.shared.as_deref());
                if node.rules.is_empty() {
                    self.exempt.push(format!("{}: no limit", Escaped(&path)));
                } else if !shared.is_empty() {
                    let rules = node.rules.iter();
                    self.shared.extend(rules.map(|rule| (rule.index, shared.clone())));
                }
                self.walk(&node.children, &path, shared);
                if node.shared.is_some() {
                    shared.pop();
                }
            }
        }
    }
}

struct Line<'r>(Shown<'r>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0.rule;
        write!(f, "{}.{}: ", Escaped(&rule.domain), Escaped(&rule.path))?;
        match rule.limit {
            Some(_) => write!(f, "unit={}", rule.window.unit.name().to_ascii_uppercase())?,
            None => f.write_str("unit=UNKNOWN")?,
        }
        write!(
            f,
            " requests_per_unit={}, shadow_mode: {}, quota_mode: {}",
            rule.requests_per_unit, rule.shadow_mode, rule.quota_mode
        )?;
        let mut values = Vec::new();
        for option in TABLE {
            (option.show)(&self.0, &mut values);
            for value in values.drain(..) {
                write!(f, ", {}: {}", option.name, Escaped(&value))?;
            }
        }
        Ok(())
    }
}

/// Rule text with its controls (and what would end a line for some reader) escaped.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
