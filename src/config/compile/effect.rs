//! Warns of options that affect no rule: accepted, as envoyproxy/ratelimit does, but never in silence.

use std::sync::Arc;

use crate::rules::Rule;

use super::super::error::ConfigErrors;
use super::super::options::{Level, Options, TABLE};
use super::super::problem::Problem;
use super::scope::Scope;

/// Checks the options of one level against the rules that they can reach: the level's own and those below it.
pub(super) fn check(
    scope: &Scope<'_>,
    level: Level,
    options: &Options,
    own: &[Arc<Rule>],
    below: &[Arc<Rule>],
    errors: &mut ConfigErrors,
) {
    for option in TABLE.iter().filter(|option| option.stands_on(level)) {
        let (Some(effect), Some(place)) = (&option.effect, option.given(options)) else {
            continue;
        };
        let reaches = own.iter().any(|rule| (effect.applies)(rule))
            || (effect.below && below.iter().any(|rule| (effect.applies)(rule)));
        let is_repeated = !below.is_empty() && below.iter().all(|rule| (effect.repeated)(rule));
        if !reaches && !is_repeated {
            let problem = Problem::NoEffect {
                field: option.name,
                needs: effect.needs,
            };
            scope.warn(errors, problem, place);
        }
    }
}
