//! Raw rules → [`RuleSet`]: the one step that files and xDS share. Collects every error; what has one is left out, and
//! the whole is refused then.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use crate::rules::{Defaults, Domain, Level, Node, OnStoreError, Rule, RuleSet, pattern};

use super::error::{ConfigError, ConfigErrors, Place};
use super::problem::{Clipped, Problem, nearest};
use super::raw::{Descriptor, Field, File, FromMetadata, METADATA_KEY, Placed, RateLimit};
use super::{limits, read};

/// Deepest nesting of descriptors.
pub const MAX_LEVELS: usize = 32;
/// Longest domain, key, value or name, in bytes.
pub const MAX_TEXT: usize = 4096;

/// Compiles all files together, all or nothing.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn compile(files: &[File], defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let rules = compile_into(files, defaults, &mut errors);
    errors.into_result(rules)
}

/// [`compile`], adding to errors that were found before.
pub(super) fn compile_into(files: &[File], defaults: &Defaults, errors: &mut ConfigErrors) -> RuleSet {
    let mut compiler = Compiler {
        defaults,
        errors,
        rules: Vec::new(),
        domains: HashMap::new(),
    };
    for file in files {
        compiler.file(file);
    }
    let domains = compiler.domains.into_iter();
    RuleSet {
        domains: domains
            .map(|(name, building)| (Arc::clone(&name), Domain::new(name, building.root)))
            .collect(),
        rules: compiler.rules,
    }
}

struct Compiler<'a> {
    defaults: &'a Defaults,
    errors: &'a mut ConfigErrors,
    rules: Vec<Arc<Rule>>,
    domains: HashMap<Arc<str>, Building>,
}

/// A domain while its files come in.
struct Building {
    /// The file that named it first.
    first: String,
    root: Level,
    seen: Seen,
}

/// Where each key and value of a level was first declared.
type Seen = HashMap<(String, Option<String>), String>;

/// What holds on the way down to a descriptor.
pub(super) struct Scope<'f> {
    pub(super) file: &'f File,
    domain: Arc<str>,
    levels: Vec<(String, String)>,
    value_to_metric: Vec<bool>,
    /// The path in errors.
    labels: Vec<String>,
    on_store_error: Option<OnStoreError>,
    lease: Option<bool>,
}

impl Scope<'_> {
    /// What a later error says of the place of an earlier declaration.
    fn place(&self, place: Option<Place>) -> String {
        let name = &self.file.origin.name;
        place.map_or_else(|| name.to_string(), |at| format!("{name}:{}", at.line))
    }

    pub(super) fn report(&self, errors: &mut ConfigErrors, problem: Problem, place: Option<Place>) {
        let path = self.labels.join(" / ");
        errors.push(ConfigError::new(&self.file.origin, place, path, problem));
    }
}

impl Compiler<'_> {
    fn file(&mut self, file: &File) {
        let name = file.domain.value().map_or("", String::as_str);
        let mut scope = Scope {
            file,
            domain: name.into(),
            levels: Vec::new(),
            value_to_metric: Vec::new(),
            labels: Vec::new(),
            on_store_error: None,
            lease: file.lease.value().copied(),
        };
        let sound = self.required(
            &scope,
            &file.domain,
            (
                "domain",
                "a rules file",
                "add `domain: …`, the name that Envoy's filter sends",
            ),
            None,
        );
        if !name.is_empty() {
            scope.labels.push(Clipped(name).to_string());
        }
        scope.on_store_error = self.on_store_error(&scope, &file.on_store_error);
        let (mut root, mut seen) = (Level::default(), Seen::new());
        let mut first = file.origin.name.to_string();
        if let Some(known) = self.domains.remove(name) {
            if self.defaults.merge_domains {
                (root, seen) = (known.root, known.seen);
            } else {
                let problem = Problem::DuplicateDomain {
                    domain: name.to_owned(),
                    first: known.first.clone(),
                };
                scope.report(self.errors, problem, file.domain.place());
            }
            first = known.first;
        }
        self.level(&mut scope, &file.descriptors, &mut root, &mut seen);
        if sound {
            let building = Building { first, root, seen };
            self.domains.insert(Arc::clone(&scope.domain), building);
        }
    }

    /// Whether a text that must be there is there and can be used.
    fn required(
        &mut self,
        scope: &Scope<'_>,
        field: &Field<String>,
        (name, context, help): (&'static str, &'static str, &'static str),
        place: Option<Place>,
    ) -> bool {
        match field {
            Field::Broken => false,
            Field::Absent => {
                let problem = Problem::Missing {
                    field: name,
                    context,
                    help,
                };
                scope.report(self.errors, problem, place);
                false
            }
            Field::Given(text) if text.value.is_empty() => {
                scope.report(self.errors, Problem::Empty { field: name }, text.place);
                false
            }
            Field::Given(_) => self.short(scope, field, name),
        }
    }

    fn short(&mut self, scope: &Scope<'_>, field: &Field<String>, name: &'static str) -> bool {
        let long = field.given().filter(|text| text.value.len() > MAX_TEXT);
        if let Some(text) = long {
            let problem = Problem::TooLong {
                field: name,
                max: MAX_TEXT,
            };
            scope.report(self.errors, problem, text.place);
        }
        long.is_none()
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
            let value = descriptor.value.value().map(String::as_str);
            let value = value.filter(|value| !value.is_empty());
            let named = (!key.is_empty()).then_some(key);
            scope.labels.push(super::raw::label(number, named, value));
            let (before_store, before_lease) = (scope.on_store_error, scope.lease);
            scope
                .levels
                .push((key.to_owned(), value.unwrap_or_default().to_owned()));

            let node = self.descriptor(scope, descriptor);
            let sound = self.names(scope, descriptor);
            if sound && self.first_here(scope, descriptor, key, value, seen) {
                // Cannot be refused: it is the first here.
                let _ = level.insert(key, value, node);
            }

            scope.levels.pop();
            scope.labels.pop();
            (scope.on_store_error, scope.lease) = (before_store, before_lease);
        }
    }

    fn names(&mut self, scope: &Scope<'_>, descriptor: &Descriptor) -> bool {
        let help = "add `key: …`, the key of the descriptor entry that Envoy sends";
        let text = ("key", "a descriptor", help);
        let key = self.required(scope, &descriptor.key, text, descriptor.place);
        let value = self.short(scope, &descriptor.value, "value");
        key && value && !matches!(descriptor.value, Field::Broken)
    }

    fn first_here(
        &mut self,
        scope: &Scope<'_>,
        descriptor: &Descriptor,
        key: &str,
        value: Option<&str>,
        seen: &mut Seen,
    ) -> bool {
        let place = descriptor.key.place().or(descriptor.place);
        match seen.entry((key.to_owned(), value.map(ToOwned::to_owned))) {
            hash_map::Entry::Vacant(entry) => {
                entry.insert(scope.place(place));
                true
            }
            hash_map::Entry::Occupied(entry) => {
                let first = entry.get().clone();
                scope.report(self.errors, Problem::DuplicateDescriptor { first }, place);
                false
            }
        }
    }

    fn descriptor(&mut self, scope: &mut Scope<'_>, descriptor: &Descriptor) -> Node {
        let ours = self.options_in_metadata(scope, descriptor);
        let own = self.on_store_error(scope, &descriptor.on_store_error);
        scope.on_store_error = own.or(scope.on_store_error);
        scope.lease = descriptor.lease.value().copied().or(scope.lease);
        let to_metric = descriptor.value_to_metric.is_true() || ours.value.value_to_metric.is_true();
        scope.value_to_metric.push(to_metric);

        let rule = match &descriptor.rate_limit {
            Field::Given(rate_limit) => self.rule(scope, descriptor, rate_limit, &ours),
            Field::Absent => {
                limits::refuse_without_rate_limit(scope, &ours, self.errors);
                None
            }
            Field::Broken => None,
        };
        let shared = self.shared(scope, descriptor, &ours.value);
        let mut children = Level::default();
        self.level(scope, &descriptor.descriptors, &mut children, &mut Seen::new());
        scope.value_to_metric.pop();
        Node { rule, children, shared }
    }

    /// Our options in `metadata`, wherever they were read.
    fn options_in_metadata(&mut self, scope: &Scope<'_>, descriptor: &Descriptor) -> Placed<FromMetadata> {
        if let Some(read) = descriptor.from_metadata.given() {
            return read.clone();
        }
        let metadata = descriptor.metadata.given();
        let options = metadata.and_then(|metadata| metadata.value.get(METADATA_KEY));
        let value = options.map_or_else(FromMetadata::default, |options| {
            read::from_metadata(&scope.file.origin, &scope.labels, options, self.errors)
        });
        Placed {
            value,
            place: metadata.and_then(|metadata| metadata.place),
        }
    }

    fn shared(&mut self, scope: &Scope<'_>, descriptor: &Descriptor, ours: &FromMetadata) -> Option<Box<str>> {
        let value = descriptor.value.value().map_or("", String::as_str);
        let wildcards = value.matches(pattern::WILDCARD).count();
        if wildcards > pattern::MAX_WILDCARDS {
            let problem = Problem::TooManyWildcards {
                max: pattern::MAX_WILDCARDS,
            };
            scope.report(self.errors, problem, descriptor.value.place());
        }
        let asked = [&descriptor.share_threshold, &ours.share_threshold];
        let asked = asked.into_iter().find(|share| share.is_true())?;
        if wildcards == 0 {
            if !matches!(descriptor.value, Field::Broken) {
                scope.report(self.errors, Problem::SharesWithoutWildcard, asked.place());
            }
            return None;
        }
        Some(value.into())
    }

    fn rule(
        &mut self,
        scope: &Scope<'_>,
        descriptor: &Descriptor,
        rate_limit: &Placed<RateLimit>,
        ours: &Placed<FromMetadata>,
    ) -> Option<Arc<Rule>> {
        let raw = &rate_limit.value;
        let name = raw.name.value().map_or("", String::as_str);
        self.short(scope, &raw.name, "name");
        let replaces = self.replaces(scope, raw, name);
        let own = self.on_store_error(scope, &raw.options.on_store_error);
        let theirs = self.on_store_error(scope, &ours.value.options.on_store_error);
        let counted = limits::compile(scope, self.defaults, rate_limit, ours, self.errors)?;
        let metadata = descriptor.metadata.value().and_then(|metadata| {
            let mut metadata = metadata.clone();
            metadata.remove(METADATA_KEY);
            (!metadata.is_empty()).then(|| Arc::new(metadata))
        });
        let rule = Arc::new(Rule {
            index: self.rules.len(),
            domain: Arc::clone(&scope.domain),
            path: path(&scope.levels).into(),
            levels: scope.levels.as_slice().into(),
            name: name.into(),
            limit: counted.limit,
            requests_per_unit: raw.requests_per_unit.value().copied().unwrap_or_default(),
            window: counted.window,
            shadow_mode: descriptor.shadow_mode.is_true(),
            quota_mode: descriptor.quota_mode.is_true(),
            detailed_metric: descriptor.detailed_metric.is_true(),
            value_to_metric: scope.value_to_metric.as_slice().into(),
            replaces: replaces.into(),
            metadata,
            on_store_error: own.or(theirs).or(scope.on_store_error),
            lease: counted.lease.or(scope.lease),
        });
        self.rules.push(Arc::clone(&rule));
        Some(rule)
    }

    fn replaces(&mut self, scope: &Scope<'_>, raw: &RateLimit, own: &str) -> Vec<String> {
        let mut names = Vec::with_capacity(raw.replaces.len());
        for field in &raw.replaces {
            let Some(Placed { value, place }) = field.given() else {
                continue;
            };
            let problem = if value.is_empty() {
                Problem::Empty { field: "replaces.name" }
            } else if value == own {
                let name = value.clone();
                Problem::ReplacesItself { name }
            } else {
                names.push(value.clone());
                continue;
            };
            scope.report(self.errors, problem, *place);
        }
        names
    }

    fn on_store_error(&mut self, scope: &Scope<'_>, field: &Field<String>) -> Option<OnStoreError> {
        const WORDS: [&str; 3] = [
            OnStoreError::Local.name(),
            OnStoreError::Allow.name(),
            OnStoreError::Deny.name(),
        ];
        let given = field.given()?;
        let mode = OnStoreError::parse(&given.value);
        if mode.is_none() {
            let problem = Problem::UnknownWord {
                field: "on_store_error",
                suggestion: nearest(&given.value, &WORDS),
                word: given.value.clone(),
                allowed: &WORDS,
            };
            scope.report(self.errors, problem, given.place);
        }
        mode
    }
}

fn path(levels: &[(String, String)]) -> String {
    let mut path = String::new();
    for (at, (key, value)) in levels.iter().enumerate() {
        if at > 0 {
            path.push('.');
        }
        path.push_str(key);
        if !value.is_empty() {
            path.push('_');
            path.push_str(value);
        }
    }
    path
}
