//! Raw rules → [`RuleSet`]: the one step that files and xDS share. Collects every error; what has one is left out, and
//! the whole is refused then.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | the tree: domains, levels, descriptors |
//! | `scope` | what holds on the way down; how errors there are reported |
//! | `rule`, `limits` | one `rate_limit` |
//! | `values` | which values a descriptor matches |
//! | `several` | all limits of one descriptor |
//! | `plans` | `plans`, `sources` and what names them |
//! | `calendar` | `window: { calendar, time_zone }` |
//! | `effect` | warnings about options that affect no rule |
//! | `sections` | the `ext_authz` sections of all files |

mod calendar;
mod effect;
mod limits;
mod plans;
mod rule;
mod scope;
mod sections;
mod several;
mod values;

use std::collections::{HashMap, HashSet, hash_map};
use std::sync::Arc;

use crate::model::HOLD_ENTRY;
use crate::rules::plans::PlanSource;
use crate::rules::{Defaults, Domain, Level, Node, QuotaMapping, Rule, RuleSet, pattern};

use super::error::{ConfigError, ConfigErrors, Severity, Warnings};
use super::field::Field;
use super::options::{Level as OptionLevel, Options};
use super::problem::{Clipped, Problem};
use super::raw::{self, Descriptor, File};
use scope::Scope;
use values::{LevelEntry, WrittenValues};

/// Deepest nesting of descriptors.
pub const MAX_LEVELS: usize = 32;

/// Compiles all files together, all or nothing, adding to errors that were found before.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn compile(
    files: &[File],
    defaults: &Defaults,
    mut errors: ConfigErrors,
) -> Result<(RuleSet, Warnings), ConfigErrors> {
    let mut compiler = Compiler {
        defaults,
        errors: &mut errors,
        rules: Vec::new(),
        paths: HashSet::new(),
        replaced: Vec::new(),
        regex_bytes: 0,
        sources: Vec::new(),
        domains: HashMap::new(),
    };
    for file in files {
        compiler.file(file);
    }
    compiler.warn_unreplaced();
    let (rules, sources, domains) = (compiler.rules, compiler.sources, compiler.domains.into_iter());
    let domains: HashMap<_, _> = domains
        .map(|(name, building)| {
            let domain = Domain::new(Arc::clone(&name), building.root).with_quota(building.quota);
            (name, domain)
        })
        .collect();
    let rules = RuleSet {
        ext_authz: sections::sections(files, &domains, &mut errors),
        domains,
        rules,
        sources,
    };
    errors.sort(files.iter().map(|file| &*file.origin.name));
    errors.with_warnings(rules)
}

/// The file's `rlqs`.
fn quota(file: &File) -> Option<QuotaMapping> {
    let rlqs = file.options.rlqs.value()?;
    let keys = rlqs.bucket.value().into_iter().flatten();
    Some(QuotaMapping {
        bucket: keys
            .filter_map(|key| key.value().map(|key| key.as_str().into()))
            .collect(),
        refill: rlqs.refill.is_true(),
    })
}

struct Compiler<'a> {
    defaults: &'a Defaults,
    errors: &'a mut ConfigErrors,
    rules: Vec<Arc<Rule>>,
    /// Domains and paths of the rules.
    paths: HashSet<(Arc<str>, Arc<str>)>,
    /// Domains and names that are to be replaced, each with the warning for when no rule has it.
    replaced: Vec<((Arc<str>, String), ConfigError)>,
    /// What the regular expressions of all rules compile to.
    regex_bytes: usize,
    sources: Vec<Arc<PlanSource>>,
    domains: HashMap<Arc<str>, Building>,
}

/// A domain while its files come in.
struct Building {
    /// The file that named it first.
    first: String,
    root: Level,
    seen: Seen,
    /// Where each source was first declared.
    sources: HashMap<String, String>,
    quota: Option<QuotaMapping>,
}

/// Where each key and value of a level was first declared.
type Seen = HashMap<(String, LevelEntry), String>;

impl Compiler<'_> {
    fn file(&mut self, file: &File) {
        let mut scope = Scope::new(file);
        let help = "add `domain: …`, the name that Envoy's filter sends";
        let sound = scope.required(self.errors, "domain", &file.domain, ("a rules file", help), None);
        let name = Arc::clone(&scope.domain);
        if !name.is_empty() {
            scope.labels.push(Clipped(&name).to_string());
        }
        scope.on_store_error = scope.on_store_error(self.errors, &file.options.on_store_error);
        let (mut root, mut seen, mut sources) = (Level::default(), Seen::new(), HashMap::new());
        let mut quota = quota(file);
        let mut first = file.origin.name.to_string();
        if let Some(known) = self.domains.remove(&name) {
            if self.defaults.merge_domains {
                (root, seen, sources) = (known.root, known.seen, known.sources);
                if let (Some(own), Some(_)) = (file.options.rlqs.given(), &known.quota) {
                    let (field, other) = ("rlqs", "that of another file of this domain");
                    scope.report(self.errors, Problem::Conflict { field, other }, own.place);
                }
                quota = quota.or(known.quota);
            } else {
                let problem = Problem::DuplicateDomain {
                    domain: name.to_string(),
                    first: known.first.clone(),
                };
                scope.report(self.errors, problem, file.domain.place());
            }
            first = known.first;
        }
        let before = self.mark();
        scope.plans = plans::compile(&mut scope, self.defaults, self.errors);
        plans::report_duplicates(&scope, &mut sources, self.errors);
        self.level(&mut scope, &file.descriptors, &mut root, &mut seen);
        plans::warn_unused(&scope, self.rules.get(before.0..).unwrap_or_default(), self.errors);
        self.sources.extend(scope.plans.sources.iter().cloned());
        self.warn_without_effect(&scope, OptionLevel::File, &file.options, &[], before);
        if sound {
            let building = Building {
                first,
                root,
                seen,
                sources,
                quota,
            };
            self.domains.insert(name, building);
        }
    }

    fn level(&mut self, scope: &mut Scope<'_>, descriptors: &[Descriptor], level: &mut Level, seen: &mut Seen) {
        if let Some(first) = descriptors.first()
            && scope.levels.len() == MAX_LEVELS
        {
            let problem = Problem::TooManyLevels { max: MAX_LEVELS };
            return scope.report(self.errors, problem, first.place);
        }
        for (number, descriptor) in (1..).zip(descriptors) {
            let key = descriptor.key.value().map_or("", String::as_str);
            let absent = Options::default();
            let in_metadata = descriptor.in_metadata.value().unwrap_or(&absent);
            let named = (!key.is_empty()).then_some(key);
            let text = descriptor.value.value().filter(|value| !value.is_empty());
            scope.labels.push(raw::label(number, named, text.map(String::as_str)));
            let values = values::values(scope, descriptor, in_metadata, &mut self.regex_bytes, self.errors);
            let name = values.as_ref().map(WrittenValues::name).unwrap_or_default();
            let (before_store, before_lease) = (scope.on_store_error, scope.lease);
            scope.levels.push((key.to_owned(), name));

            let node = self.descriptor(scope, descriptor, in_metadata, values.as_ref());
            let sound = self.names(scope, descriptor);
            if let (Some(values), true) = (&values, sound)
                && self.first_here(scope, descriptor, key, values, seen)
            {
                // Cannot be refused: it is the first here.
                let _ = match values {
                    WrittenValues::Any => level.insert(key, None, node),
                    WrittenValues::Text(value) => level.insert(key, Some(value), node),
                    WrittenValues::Set(set) => level.insert_set(key, set, node),
                };
            }

            scope.levels.pop();
            scope.labels.pop();
            (scope.on_store_error, scope.lease) = (before_store, before_lease);
        }
    }

    fn names(&mut self, scope: &Scope<'_>, descriptor: &Descriptor) -> bool {
        let help = "add `key: …`, the key of the descriptor entry that Envoy sends";
        let missing = ("a descriptor", help);
        let key = scope.required(self.errors, "key", &descriptor.key, missing, descriptor.place);
        if descriptor.key.value().is_some_and(|key| key == HOLD_ENTRY) {
            scope.warn(self.errors, Problem::HoldKey, descriptor.key.place());
        }
        let value = scope.short(self.errors, "value", &descriptor.value);
        key && value && !matches!(descriptor.value, Field::Broken)
    }

    fn first_here(
        &mut self,
        scope: &Scope<'_>,
        descriptor: &Descriptor,
        key: &str,
        values: &WrittenValues<'_>,
        seen: &mut Seen,
    ) -> bool {
        let place = descriptor.key.place().or(descriptor.place);
        for one in values.entries() {
            match seen.entry((key.to_owned(), one)) {
                hash_map::Entry::Vacant(entry) => {
                    entry.insert(scope.place(place));
                }
                hash_map::Entry::Occupied(entry) => {
                    let first = entry.get().clone();
                    let problem = match &entry.key().1 {
                        LevelEntry::Name(name) => Problem::SameName {
                            name: name.clone(),
                            first,
                        },
                        _ => Problem::DuplicateDescriptor { first },
                    };
                    scope.report(self.errors, problem, place);
                    return false;
                }
            }
        }
        true
    }

    fn descriptor(
        &mut self,
        scope: &mut Scope<'_>,
        descriptor: &Descriptor,
        in_metadata: &Options,
        values: Option<&WrittenValues<'_>>,
    ) -> Node {
        let options = &descriptor.options;
        let own = scope.on_store_error(self.errors, &options.on_store_error);
        scope.on_store_error = own.or(scope.on_store_error);
        scope.lease = options.lease.value().copied().or(scope.lease);
        let either = |own: &Field<bool>, metadata: &Field<bool>| own.is_true() || metadata.is_true();
        let to_metric = either(&options.value_to_metric, &in_metadata.value_to_metric);
        scope.value_to_metric.push(to_metric);
        scope
            .shared
            .push(either(&options.share_threshold, &in_metadata.share_threshold));

        let before = self.mark();
        let rules = self.rules(scope, descriptor, in_metadata);
        let shared = self.shared(scope, descriptor, in_metadata, values);
        let mut children = Level::default();
        self.level(scope, &descriptor.descriptors, &mut children, &mut Seen::new());
        self.warn_without_effect(scope, OptionLevel::Descriptor, options, &rules, before);
        self.warn_without_effect(scope, OptionLevel::Metadata, in_metadata, &rules, before);
        scope.value_to_metric.pop();
        scope.shared.pop();
        Node {
            rules: rules.into(),
            children,
            shared,
        }
    }

    /// The rules of one descriptor, each in its place among all.
    fn rules(&mut self, scope: &mut Scope<'_>, descriptor: &Descriptor, in_metadata: &Options) -> Vec<Arc<Rule>> {
        let limits = several::limits(scope, descriptor, in_metadata, self.errors);
        let mut rules = Vec::with_capacity(limits.len());
        for (number, limit) in limits.iter().enumerate() {
            let labels = scope.labels.len();
            scope.labels.extend((limits.len() > 1).then(|| several::label(number)));
            for replaced in limit.value.replaced() {
                let name = replaced.value.clone();
                let warning = scope.error(Problem::ReplacesNothing { name: name.clone() }, replaced.place);
                self.replaced.push(((Arc::clone(&scope.domain), name), warning));
            }
            let before = (self.rules.len(), self.errors.count());
            if let Some(rule) = rule::compile(scope, self.defaults, descriptor, limit, self.errors) {
                let rule = Arc::new(rule);
                let own = std::slice::from_ref(&rule);
                self.warn_without_effect(scope, OptionLevel::RateLimit, &limit.value, own, before);
                rules.extend(Arc::into_inner(rule));
            }
            scope.labels.truncate(labels);
        }
        several::tag(scope, &limits, &mut rules, self.errors);
        rules.iter_mut().for_each(|rule| self.tell_apart(rule));
        let index = self.rules.len();
        let numbered = (index..)
            .zip(rules)
            .map(|(index, rule)| Arc::new(Rule { index, ..rule }));
        self.rules.extend(numbered);
        self.rules.get(index..).unwrap_or_default().to_vec()
    }

    fn warn_unreplaced(&mut self) {
        let names: HashSet<_> = self.rules.iter().map(|rule| (&*rule.domain, &*rule.name)).collect();
        for ((domain, name), warning) in std::mem::take(&mut self.replaced) {
            if !names.contains(&(&*domain, &*name)) {
                self.errors.add(Severity::Warning, warning);
            }
        }
    }

    /// Levels are joined to a path without escapes, as envoyproxy/ratelimit does it: of rules whose paths read the same, the
    /// later ones are numbered.
    fn tell_apart(&mut self, rule: &mut Rule) {
        let plain = Arc::clone(&rule.path);
        let mut number = 1;
        while !self.paths.insert((Arc::clone(&rule.domain), Arc::clone(&rule.path))) {
            number += 1;
            rule.path = format!("{plain}~{number}").into();
        }
    }

    /// How many rules and errors there are.
    fn mark(&self) -> (usize, usize) {
        (self.rules.len(), self.errors.count())
    }

    /// `before` = the [`Self::mark`] when the level began; after an error below it nothing is known.
    fn warn_without_effect(
        &mut self,
        scope: &Scope<'_>,
        level: OptionLevel,
        options: &Options,
        own: &[Arc<Rule>],
        before: (usize, usize),
    ) {
        let (rules, errors) = before;
        if self.errors.count() == errors {
            let below = self.rules.get(rules..).unwrap_or_default();
            effect::check(scope, level, options, own, below, self.errors);
        }
    }

    fn shared(
        &mut self,
        scope: &Scope<'_>,
        descriptor: &Descriptor,
        in_metadata: &Options,
        values: Option<&WrittenValues<'_>>,
    ) -> Option<Box<str>> {
        let value = descriptor.value.value().map_or("", String::as_str);
        let wildcards = value.matches(pattern::WILDCARD).count();
        if wildcards > pattern::MAX_WILDCARDS {
            let problem = Problem::TooManyWildcards {
                max: pattern::MAX_WILDCARDS,
            };
            scope.report(self.errors, problem, descriptor.value.place());
        }
        let said = [&descriptor.options.share_threshold, &in_metadata.share_threshold];
        let Some(asked) = said.into_iter().find(|share| share.is_true()) else {
            let limits = [&descriptor.options.rate_limits, &in_metadata.rate_limits];
            let counts = descriptor.rate_limit.is_there()
                || limits.iter().any(|limits| limits.is_there())
                || !descriptor.descriptors.is_empty();
            let regex = [&descriptor.options.value_regex, &in_metadata.value_regex];
            let regex = regex.into_iter().find(|regex| regex.is_there());
            if (wildcards > 0 || regex.is_some()) && counts && said.iter().all(|share| !share.is_there()) {
                let place = regex.map_or_else(|| descriptor.value.place(), |regex| regex.place());
                scope.warn(self.errors, Problem::WildcardUnsaid, place);
            }
            return None;
        };
        if let Some(WrittenValues::Set(set)) = values {
            return Some(set.to_string().into());
        }
        if wildcards == 0 {
            if values.is_some() && !matches!(descriptor.value, Field::Broken) {
                scope.report(self.errors, Problem::SharesWithoutWildcard, asked.place());
            }
            return None;
        }
        Some(value.into())
    }
}
