//! `window: { calendar: …, time_zone: … }` → [`Window`].

use crate::model::calendar::CALENDAR_UNITS;
use crate::model::{Unit, Window, Zone};

use super::super::error::{ConfigErrors, Place};
use super::super::field::Field;
use super::super::problem::{Problem, nearest};
use super::scope::Scope;

const UNITS: [&str; CALENDAR_UNITS.len()] = [
    Unit::Day.name(),
    Unit::Week.name(),
    Unit::Month.name(),
    Unit::Year.name(),
];

/// Where a rule does not say.
const DEFAULT_ZONE: &str = "UTC";

/// A unit of a zone's calendar; `None` when something is wrong with it.
pub(super) fn window(
    scope: &Scope<'_>,
    errors: &mut ConfigErrors,
    (calendar, time_zone): (&Field<String>, &Field<String>),
    whole: Option<Place>,
) -> Option<Window> {
    if !calendar.is_there() {
        let problem = Problem::Missing {
            field: "calendar",
            context: "a `window`",
            help: "add `calendar: month` (or `day`, `week`, `year`), or write a length, as in `window: 30s`",
        };
        scope.report(errors, problem, whole);
    }
    let zone = zone(scope, errors, time_zone);
    let parse = |word: &str| Unit::parse(word).filter(|unit| CALENDAR_UNITS.contains(unit));
    let unit = scope.word(errors, "calendar", calendar, &UNITS, parse)?;
    Some(Window {
        zone: Some(zone?),
        ..Window::of(unit)
    })
}

fn zone(scope: &Scope<'_>, errors: &mut ConfigErrors, field: &Field<String>) -> Option<Zone> {
    let given = match field {
        Field::Absent => return Zone::named(DEFAULT_ZONE),
        Field::Broken => return None,
        Field::Given(given) => given,
    };
    let zone = Zone::named(&given.value);
    if zone.is_none() {
        let names: Vec<_> = Zone::all().map(Zone::name).collect();
        let hint = match nearest(&given.value, &names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "write one of its names, such as `Europe/Berlin` or `UTC`".to_owned(),
        };
        let problem = Problem::Unusable {
            field: "time_zone",
            word: given.value.clone(),
            reason: format!("the tz database has no such zone: {hint}").into(),
        };
        scope.report(errors, problem, given.place);
    }
    zone
}
