//! One raw `rate_limit` → [`Limit`], its window and whether it may be leased.

use crate::algorithms::limit::{self, LimitError, LimitSpec};
use crate::model::{AlgorithmKind, Limit, Unit, Window};
use crate::rules::Defaults;

use super::compile::Scope;
use super::duration;
use super::error::{ConfigErrors, Place};
use super::problem::{Problem, nearest};
use super::raw::{Field, FromMetadata, Options, Placed, RateLimit};

/// What a rule counts.
pub(super) struct Counted {
    /// `None` = unlimited.
    pub(super) limit: Option<Limit>,
    pub(super) window: Window,
    pub(super) lease: Option<bool>,
    pub(super) count_denied: bool,
}

const UNITS: [&str; 7] = [
    Unit::Second.name(),
    Unit::Minute.name(),
    Unit::Hour.name(),
    Unit::Day.name(),
    Unit::Week.name(),
    Unit::Month.name(),
    Unit::Year.name(),
];

const ALGORITHMS: [&str; 6] = [
    AlgorithmKind::SlidingWindow.name(),
    AlgorithmKind::SlidingLog.name(),
    AlgorithmKind::TokenBucket.name(),
    AlgorithmKind::LeakyBucket.name(),
    AlgorithmKind::FixedWindow.name(),
    AlgorithmKind::Concurrency.name(),
];

/// Compiles a `rate_limit` with what `metadata` adds to it; `None` when something is wrong with it.
pub(super) fn compile(
    scope: &Scope<'_>,
    defaults: &Defaults,
    rate_limit: &Placed<RateLimit>,
    ours: &Placed<FromMetadata>,
    errors: &mut ConfigErrors,
) -> Option<Counted> {
    let mut step = Step { scope, errors };
    let raw = &rate_limit.value;
    let before = step.errors.count();
    let options = step.merge(&raw.options, &ours.value.options);
    if raw.unlimited.is_true() {
        step.unlimited(raw, &options);
        return (step.errors.count() == before).then_some(Counted {
            limit: None,
            window: Window::of(Unit::Second),
            lease: None,
            count_denied: false,
        });
    }
    let algorithm = step.algorithm(&options.algorithm, defaults);
    let window = step.window(rate_limit, &options, &ours.value.options);
    let delay = options.max_delay.given();
    let max_delay_us = delay.and_then(|text| {
        let parsed = duration::delay_us(&text.value);
        step.keep(parsed, text.place)
    });
    let (algorithm, window) = (algorithm?, window?);
    let lease = step.lease(&options.lease, algorithm);
    let count_denied = step.count_denied(&options.count_denied, algorithm, defaults);
    let spec = LimitSpec {
        algorithm,
        hits: raw.requests_per_unit.value().copied().unwrap_or_default().into(),
        window,
        burst: options.burst.value().copied(),
        precision: options.precision.value().copied(),
        max_delay_us,
    };
    let limit = step.build(spec, raw, &options, rate_limit.place);
    (step.errors.count() == before).then_some(Counted {
        limit: Some(limit?),
        window,
        lease,
        count_denied,
    })
}

/// Options in `metadata` of a descriptor without `rate_limit` would silently do nothing.
pub(super) fn refuse_without_rate_limit(scope: &Scope<'_>, ours: &Placed<FromMetadata>, errors: &mut ConfigErrors) {
    for (field, place) in counting(&ours.value.options) {
        let place = place.or(ours.place);
        scope.report(errors, Problem::NeedsRateLimit { field }, place);
    }
}

/// The options that say how to count, as far as they are there.
fn counting(options: &Options) -> impl Iterator<Item = (&'static str, Option<Place>)> {
    [
        ("algorithm", options.algorithm.is_there(), options.algorithm.place()),
        (
            "unit_multiplier",
            options.unit_multiplier.is_there(),
            options.unit_multiplier.place(),
        ),
        ("window", options.window.is_there(), options.window.place()),
        ("burst", options.burst.is_there(), options.burst.place()),
        ("precision", options.precision.is_there(), options.precision.place()),
        ("max_delay", options.max_delay.is_there(), options.max_delay.place()),
        (
            "count_denied",
            options.count_denied.is_true(),
            options.count_denied.place(),
        ),
    ]
    .into_iter()
    .filter_map(|(field, there, place)| there.then_some((field, place)))
}

struct Step<'s, 'f> {
    scope: &'s Scope<'f>,
    errors: &'s mut ConfigErrors,
}

impl Step<'_, '_> {
    fn report(&mut self, problem: Problem, place: Option<Place>) {
        self.scope.report(self.errors, problem, place);
    }

    fn keep<T>(&mut self, result: Result<T, Problem>, place: Option<Place>) -> Option<T> {
        result.map_err(|problem| self.report(problem, place)).ok()
    }

    /// Own options and those of `metadata`; the same one in both is an error.
    fn merge(&mut self, own: &Options, theirs: &Options) -> Options {
        macro_rules! either {
            ($($field:ident),*) => {
                Options { $($field: self.either(stringify!($field), &own.$field, &theirs.$field)),* }
            };
        }
        either!(
            algorithm,
            unit_multiplier,
            window,
            burst,
            precision,
            max_delay,
            count_denied,
            on_store_error,
            lease
        )
    }

    fn either<T: Clone>(&mut self, field: &'static str, own: &Field<T>, theirs: &Field<T>) -> Field<T> {
        if own.is_there() && theirs.is_there() {
            let other = "the same in `metadata.sluicegate`";
            self.report(Problem::Conflict { field, other }, own.place());
        }
        if own.is_there() { own.clone() } else { theirs.clone() }
    }

    fn unlimited(&mut self, raw: &RateLimit, options: &Options) {
        // Templates write an empty one, which is none there, too.
        let is_given = raw.unit.is_there() && raw.unit.value().is_none_or(|unit| !unit.is_empty());
        let unit = is_given.then(|| ("unit", raw.unit.place()));
        for (field, place) in unit.into_iter().chain(counting(options)) {
            self.report(Problem::BesideUnlimited { field }, place);
        }
    }

    fn algorithm(&mut self, field: &Field<String>, defaults: &Defaults) -> Option<AlgorithmKind> {
        let given = match field {
            Field::Absent => return Some(defaults.algorithm),
            Field::Broken => return None,
            Field::Given(given) => given,
        };
        let kind = AlgorithmKind::parse(&given.value);
        if kind.is_none() {
            let problem = Problem::UnknownWord {
                field: "algorithm",
                suggestion: nearest(&given.value, &ALGORITHMS),
                word: given.value.clone(),
                allowed: &ALGORITHMS,
            };
            self.report(problem, given.place);
        }
        kind
    }

    /// `window`, or `unit` times `unit_multiplier`. A `window` in `metadata` stands above the `unit` beside it, because
    /// sources that need `metadata` cannot leave `unit` out.
    fn window(&mut self, rate_limit: &Placed<RateLimit>, options: &Options, theirs: &Options) -> Option<Window> {
        let raw = &rate_limit.value;
        match &options.window {
            Field::Broken => return None,
            Field::Given(text) => {
                for (other, there) in [
                    ("unit", raw.unit.is_there() && !theirs.window.is_there()),
                    ("unit_multiplier", options.unit_multiplier.is_there()),
                ] {
                    if there {
                        let field = "window";
                        self.report(Problem::Conflict { field, other }, text.place);
                    }
                }
                let parsed = duration::window(&text.value);
                return self.keep(parsed, text.place);
            }
            Field::Absent => {}
        }
        let unit = self.unit(rate_limit)?;
        let multiplier = match &options.unit_multiplier {
            Field::Broken => return None,
            Field::Absent => 1,
            Field::Given(given) if given.value == 0 => {
                let problem = Problem::OutOfRange {
                    field: "unit_multiplier",
                    min: 1,
                    max: u32::MAX.into(),
                    found: "0".to_owned(),
                };
                self.report(problem, given.place);
                return None;
            }
            Field::Given(given) => given.value,
        };
        Some(Window { unit, multiplier })
    }

    fn unit(&mut self, rate_limit: &Placed<RateLimit>) -> Option<Unit> {
        let given = match &rate_limit.value.unit {
            Field::Broken => return None,
            Field::Absent => {
                let problem = Problem::Missing {
                    field: "unit",
                    context: "a `rate_limit`",
                    help: "add `unit: minute` (or another), `window: 30s`, or `unlimited: true`",
                };
                self.report(problem, rate_limit.place);
                return None;
            }
            Field::Given(given) => given,
        };
        let unit = Unit::parse(&given.value);
        if unit.is_none() {
            let problem = Problem::UnknownWord {
                field: "unit",
                suggestion: nearest(&given.value, &UNITS),
                word: given.value.clone(),
                allowed: &UNITS,
            };
            self.report(problem, given.place);
        }
        unit
    }

    fn lease(&mut self, field: &Field<bool>, algorithm: AlgorithmKind) -> Option<bool> {
        let cannot = matches!(algorithm, AlgorithmKind::SlidingLog | AlgorithmKind::Concurrency);
        if cannot && field.is_true() {
            self.report(Problem::CannotLease { algorithm }, field.place());
        }
        field.value().copied()
    }

    /// Denied hits count if the rule says so; if it says nothing, if the server's setting does.
    fn count_denied(&mut self, field: &Field<bool>, algorithm: AlgorithmKind, defaults: &Defaults) -> bool {
        let can = algorithm.can_count_denied();
        if !can && field.is_true() {
            self.report(Problem::Limit(LimitError::CountDenied(algorithm)), field.place());
        }
        field.value().copied().unwrap_or(can && defaults.count_denied)
    }

    /// Builds the limit; after an error of one option goes on without it, to find what else is wrong.
    fn build(
        &mut self,
        mut spec: LimitSpec,
        raw: &RateLimit,
        options: &Options,
        whole: Option<Place>,
    ) -> Option<Limit> {
        loop {
            let error = match limit::build(&spec) {
                Ok(limit) => return Some(limit),
                Err(error) => error,
            };
            let option = match &error {
                LimitError::NotForThis { setting, .. } => *setting,
                LimitError::Precision(_) => "precision",
                LimitError::BurstEmpty | LimitError::BurstOfBan(_) | LimitError::BurstTooLarge { .. } => "burst",
                LimitError::MaxDelay(_) => "max_delay",
                LimitError::CountDenied(_) => "count_denied",
                LimitError::Hits(_) | LimitError::LogHits(_) | LimitError::Rate { .. } => "hits",
                LimitError::WindowEmpty | LimitError::WindowTooLong(_) => "window",
            };
            let (place, more) = match option {
                "precision" => (options.precision.place(), spec.precision.take().is_some()),
                "burst" => (options.burst.place(), spec.burst.take().is_some()),
                "max_delay" => (options.max_delay.place(), spec.max_delay_us.take().is_some()),
                "hits" => (raw.requests_per_unit.place(), false),
                _ => (options.window.place().or(raw.unit.place()), false),
            };
            self.report(Problem::Limit(error), place.or(whole));
            if !more {
                return None;
            }
        }
    }
}
