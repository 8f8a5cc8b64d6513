//! One raw `rate_limit` → [`Limit`], its window and whether it may be leased.

use crate::algorithms::held::plain;
use crate::algorithms::limit::{self, LimitError, LimitSpec};
use crate::model::{Algorithm, AlgorithmKind, Limit, Unit, Window};
use crate::quota::terms::{self, leased};
use crate::rules::plans::Amount;
use crate::rules::{Candidate, Defaults};

use super::super::duration;
use super::super::error::{ConfigErrors, Place};
use super::super::field::{Field, Placed};
use super::super::options::{Options, WrittenWindow};
use super::super::problem::Problem;
use super::calendar;
use super::scope::Scope;

/// What a rule counts.
pub(super) struct Counted {
    pub(super) amount: Amount,
    /// Quotas of it may be leased to Envoys.
    pub(super) rlqs: bool,
    pub(super) lease: Option<bool>,
}

impl Counted {
    /// The same where no quotas are leased.
    pub(super) fn unleased(self) -> Self {
        let plain = |limit| if self.rlqs { plain(&limit) } else { limit };
        let limit = self.amount.limit.map(plain);
        Self {
            amount: Amount { limit, ..self.amount },
            rlqs: false,
            ..self
        }
    }
}

/// How long hits are held where a rule does not say.
const DEFAULT_TTL_US: u64 = 600 * crate::model::time::SECOND_US;

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
    rate_limit: &Placed<Options>,
    metadata: Option<&Options>,
    errors: &mut ConfigErrors,
) -> Option<Counted> {
    let mut step = Step { scope, errors };
    let before = step.errors.count();
    let requests_per_unit = rate_limit.value.requests_per_unit.value().copied().unwrap_or_default();
    let absent = Options::default();
    let metadata = metadata.unwrap_or(&absent);
    let options = rate_limit.value.merged(metadata, |field, place| {
        let other = "the same in `metadata.sluicegate`";
        step.report(Problem::Conflict { field, other }, place);
    });
    if options.unlimited.is_true() {
        step.unlimited(&options);
        let amount = Amount {
            limit: None,
            requests_per_unit,
            window: Window::of(Unit::Second),
            count_denied: false,
            hold_first: None,
        };
        return (step.errors.count() == before).then_some(Counted {
            amount,
            rlqs: false,
            lease: None,
        });
    }
    let window = step.window(&options, metadata, rate_limit.place);
    let algorithm = step.algorithm(&options.algorithm, window, defaults);
    let delay = options.max_delay.given();
    let max_delay_us = delay.and_then(|text| {
        let parsed = duration::delay_us(&text.value);
        step.keep(parsed, text.place)
    });
    let (algorithm, window) = (algorithm?, window?);
    let hold_first = step.hold_first(&options, algorithm);
    let count_denied = step.count_denied(&options.count_denied, algorithm, defaults);
    let spec = LimitSpec {
        algorithm,
        hits: options.requests_per_unit.value().copied().unwrap_or_default().into(),
        window,
        burst: options.burst.value().copied(),
        precision: step.precision(&options, algorithm),
        max_delay_us,
        hold_us: step.hold(&options, window),
        holds_mean: hold_first.is_some(),
    };
    let limit = step.build(spec, &options, rate_limit.place);
    let leased = limit.filter(|_| scope.has_rlqs()).and_then(|limit| leased(&limit));
    let amount = Amount {
        limit: Some(leased.or(limit)?),
        requests_per_unit,
        window,
        count_denied,
        hold_first,
    };
    (step.errors.count() == before).then_some(Counted {
        amount,
        rlqs: leased.is_some(),
        lease: options.lease.value().copied(),
    })
}

/// Compiles a `candidate`; `None` when something is wrong with it.
pub(super) fn candidate(
    scope: &Scope<'_>,
    defaults: &Defaults,
    candidate: &Placed<Box<Options>>,
    errors: &mut ConfigErrors,
) -> Option<Candidate> {
    let options = Placed {
        value: (*candidate.value).clone(),
        place: candidate.place,
    };
    let counted = compile(scope, defaults, &options, None, errors)?;
    let counted = counted.unleased();
    let limit = counted.amount.limit?;
    if limit.algorithm == Algorithm::Concurrency {
        let place = options.value.algorithm.place().or(options.place);
        scope.report(errors, Problem::ConcurrencyCandidate, place);
        return None;
    }
    Some(Candidate {
        limit,
        requests_per_unit: counted.amount.requests_per_unit,
        window: counted.amount.window,
        count_denied: counted.amount.count_denied,
    })
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

    fn unlimited(&mut self, options: &Options) {
        // Templates write an empty one, which counts as none in envoyproxy/ratelimit, too.
        let unit = &options.unit;
        let is_given = unit.is_there() && unit.value().is_none_or(|unit| !unit.is_empty());
        let unit = is_given.then(|| ("unit", unit.place()));
        let counting = options.counting().map(|(option, place)| (option.name, place));
        for (field, place) in unit.into_iter().chain(counting) {
            self.report(Problem::BesideUnlimited { field }, place);
        }
    }

    fn algorithm(
        &mut self,
        field: &Field<String>,
        window: Option<Window>,
        defaults: &Defaults,
    ) -> Option<AlgorithmKind> {
        if !field.is_there() {
            let is_of_calendar = window.is_some_and(|window| window.zone.is_some());
            return Some(if is_of_calendar {
                AlgorithmKind::FixedWindow
            } else {
                defaults.algorithm
            });
        }
        self.scope
            .word(self.errors, "algorithm", field, &ALGORITHMS, AlgorithmKind::parse)
    }

    /// `window`, or `unit` times `unit_multiplier`. A `window` in `metadata` stands above the `unit` beside it, because
    /// sources that need `metadata` cannot leave `unit` out.
    fn window(&mut self, options: &Options, metadata: &Options, whole: Option<Place>) -> Option<Window> {
        match &options.window {
            Field::Broken => return None,
            Field::Given(written) => {
                for (other, there) in [
                    ("unit", options.unit.is_there() && !metadata.window.is_there()),
                    ("unit_multiplier", options.unit_multiplier.is_there()),
                ] {
                    if there {
                        let field = "window";
                        self.report(Problem::Conflict { field, other }, written.place);
                    }
                }
                return match &written.value {
                    WrittenWindow::Length(text) => self.keep(duration::window(text), written.place),
                    WrittenWindow::Calendar { calendar, time_zone } => {
                        calendar::window(self.scope, self.errors, (calendar, time_zone), written.place)
                    }
                };
            }
            Field::Absent => {}
        }
        let unit = self.unit(&options.unit, whole)?;
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
        Some(Window::times(unit, multiplier))
    }

    fn unit(&mut self, field: &Field<String>, whole: Option<Place>) -> Option<Unit> {
        if !field.is_there() {
            let problem = Problem::Missing {
                field: "unit",
                context: "a `rate_limit`",
                help: "add `unit: minute` (or another), `window: 30s`, or `unlimited: true`",
            };
            self.report(problem, whole);
        }
        self.scope.word(self.errors, "unit", field, &Unit::NAMES, Unit::parse)
    }

    /// Denied hits count if the rule says so; if it says nothing, if the server's setting does.
    fn count_denied(&mut self, field: &Field<bool>, algorithm: AlgorithmKind, defaults: &Defaults) -> bool {
        let can = algorithm.can_count_denied();
        if !can && field.is_true() {
            self.report(Problem::Limit(LimitError::CountDenied(algorithm)), field.place());
        }
        field.value().copied().unwrap_or(can && defaults.count_denied)
    }

    /// What a hold of a mean cost keeps until that is known: 1 where the rule does not say.
    fn hold_first(&mut self, options: &Options, algorithm: AlgorithmKind) -> Option<u64> {
        let adaptive = options.hold.value()?.adaptive.given()?;
        if algorithm == AlgorithmKind::Concurrency {
            let problem = Problem::Conflict {
                field: "adaptive",
                other: "algorithm: concurrency",
            };
            self.report(problem, adaptive.place);
        }
        Some(adaptive.value.value().copied().unwrap_or(1).max(1))
    }

    /// Quotas are leased again when a slice has left the window: finer ones waste less of a limit.
    fn precision(&self, options: &Options, algorithm: AlgorithmKind) -> Option<u32> {
        let is_finer = self.scope.has_rlqs() && algorithm == AlgorithmKind::SlidingWindow;
        let own = options.precision.value().copied();
        own.or(is_finer.then_some(terms::PRECISION))
    }

    /// How long hits are held at most, if they are; never longer than a window, which they would outlast then.
    fn hold(&mut self, options: &Options, window: Window) -> Option<u64> {
        let hold = options.hold.given()?;
        if options.count_denied.is_true() {
            let problem = Problem::Conflict {
                field: "count_denied",
                other: "hold",
            };
            self.report(problem, options.count_denied.place());
        }
        let Some(ttl) = hold.value.ttl.given() else {
            return Some(DEFAULT_TTL_US);
        };
        let ttl_us = self.keep(duration::ttl_us(&ttl.value), ttl.place)?;
        if ttl_us > window.micros() {
            let ttl_text = ttl.value.clone();
            let problem = Problem::HoldOutlastsWindow { ttl: ttl_text, window };
            self.scope.warn(self.errors, problem, ttl.place);
        }
        Some(ttl_us)
    }

    /// Builds the limit; after an error of one option goes on without it, to find what else is wrong.
    fn build(&mut self, mut spec: LimitSpec, options: &Options, whole: Option<Place>) -> Option<Limit> {
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
                LimitError::Hold(_) | LimitError::HoldEmpty => "hold",
                LimitError::Hits(_) | LimitError::LogHits(_) | LimitError::Rate { .. } => "hits",
                LimitError::Calendar(_) => "algorithm",
                LimitError::WindowEmpty | LimitError::WindowTooLong(_) => "window",
            };
            let (place, more) = match option {
                "precision" => (options.precision.place(), spec.precision.take().is_some()),
                "burst" => (options.burst.place(), spec.burst.take().is_some()),
                "max_delay" => (options.max_delay.place(), spec.max_delay_us.take().is_some()),
                "hold" => (options.hold.place(), spec.hold_us.take().is_some()),
                "hits" => (options.requests_per_unit.place(), false),
                "algorithm" => (options.algorithm.place(), false),
                _ => (options.window.place().or(options.unit.place()), false),
            };
            self.report(Problem::Limit(error), place.or(whole));
            if !more {
                return None;
            }
        }
    }
}
