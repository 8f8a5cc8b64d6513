//! Raw rules → [`RuleSet`]: the one step that files and xDS share. Collects every error; what has one is left out, and
//! the whole is refused then.

use std::collections::{HashMap, hash_map};
use std::sync::Arc;

use crate::rules::{Defaults, Domain, Level, Node, OnStoreError, Rule, RuleSet, pattern};

use super::error::{ConfigError, ConfigErrors, Place};
use super::problem::{Clipped, Problem};
use super::raw::{Descriptor, Field, File, FromMetadata, METADATA_KEY, Placed};
use super::{ext_authz, limits, read};

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
    let (rules, domains) = (compiler.rules, compiler.domains.into_iter());
    let domains: HashMap<_, _> = domains
        .map(|(name, building)| (Arc::clone(&name), Domain::new(name, building.root)))
        .collect();
    RuleSet {
        ext_authz: ext_authz::compile::sections(files, &domains, errors),
        domains,
        rules,
    }
}

pub(super) struct Compiler<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) errors: &'a mut ConfigErrors,
    pub(super) rules: Vec<Arc<Rule>>,
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
    pub(super) domain: Arc<str>,
    pub(super) levels: Vec<(String, String)>,
    pub(super) value_to_metric: Vec<bool>,
    pub(super) shared: Vec<bool>,
    /// The path in errors.
    labels: Vec<String>,
    pub(super) on_store_error: Option<OnStoreError>,
    pub(super) lease: Option<bool>,
}

impl Scope<'_> {
    /// Where something is declared: what a later error says of an earlier one, and a rule of itself.
    pub(super) fn place(&self, place: Option<Place>) -> String {
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
            shared: Vec::new(),
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

    pub(super) fn short(&mut self, scope: &Scope<'_>, field: &Field<String>, name: &'static str) -> bool {
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
        let shares = descriptor.share_threshold.is_true() || ours.value.share_threshold.is_true();
        scope.shared.push(shares);

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
        scope.shared.pop();
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
}
