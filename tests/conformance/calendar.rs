//! Windows of a calendar: against a model of each zone, and in each store over their edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use sluicegate::algorithms::op::Op;
use sluicegate::model::calendar::CALENDAR_UNITS;
use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::model::{Calendar, Hits, Outcome, RetryAfter, Unit, Zone};
use sluicegate::store::redis::script::{CallTime, ScriptId, encode};

use crate::subject::{Open, Subject, fresh_key, single};
use crate::support::redis::Redis;
use crate::traces::calendar_limit;

const HOUR_US: u64 = 3_600_000_000;

fn us(text: &str) -> u64 {
    let instant: Timestamp = text.parse().expect("an instant");
    u64::try_from(instant.as_microsecond()).expect("after the epoch")
}

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap_or_else(|| panic!("no zone {name}"))
}

/// Month and day of a number of days since the epoch.
fn civil(day: i64) -> (i64, i64) {
    // Eras of 400 years from March on, so that leap days are at the end of a year.
    let shifted = day + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, day)
}

/// Of each date of these years the first instant that belongs to it or to a later one. Between two changes of a zone's offset
/// time runs evenly, so dates are divisions; nothing here asks what midnight means.
fn dates(zone: Zone, years: std::ops::RangeInclusive<i64>) -> Vec<(i64, u64)> {
    let database = TimeZoneDatabase::bundled();
    let rules = database.get(zone.name()).expect("a zone");
    let from: i64 = (years.start() - 1970) * 365 * 86_400;
    let until: i64 = (years.end() + 2 - 1970) * 366 * 86_400;
    let mut edges = vec![from];
    let mut at = Timestamp::from_second(from).expect("a time");
    while let Some(change) = rules.following(at).next() {
        at = change.timestamp();
        if at.as_second() >= until {
            break;
        }
        edges.push(at.as_second());
    }
    edges.push(until);
    let mut dates: Vec<(i64, u64)> = Vec::new();
    for pair in edges.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let offset = i64::from(
            rules
                .to_offset(Timestamp::from_second(start).expect("a time"))
                .seconds(),
        );
        let day = |at: i64| (at + offset).div_euclid(86_400);
        let known = dates.last().map_or(day(start), |(day, _)| day + 1);
        for day in known..=day(end - 1) {
            let instant = start.max(day * 86_400 - offset);
            dates.push((day, u64::try_from(instant).expect("after the epoch")));
        }
    }
    dates
}

/// Where the windows of a unit begin.
fn starts(unit: Unit, dates: &[(i64, u64)]) -> Vec<u64> {
    let begins = |day: i64| {
        match unit {
            // 1970-01-01 was a Thursday.
            Unit::Week => (day + 3).rem_euclid(7) == 0,
            Unit::Month => civil(day).1 == 1,
            Unit::Year => civil(day) == (1, 1),
            _ => true,
        }
    };
    let mut starts: Vec<_> = dates
        .iter()
        .filter(|(day, _)| begins(*day))
        .map(|(_, at)| *at)
        .collect();
    // A date that a zone leaves out has no window.
    starts.dedup();
    starts
}

/// All windows but days that are like the days around them, of which every twentieth is looked at.
fn check_zone(zone: Zone) -> BTreeMap<u64, usize> {
    let dates = dates(zone, 2020..=2040);
    let mut lengths = BTreeMap::new();
    for unit in CALENDAR_UNITS {
        let calendar = Calendar::new(unit, zone).expect("a unit of a calendar");
        let starts = starts(unit, &dates);
        let length = |at: usize| starts[at + 1] - starts[at];
        // The first and the last begin or end outside of what the model knows.
        for at in 2..starts.len() - 3 {
            let is_plain = (at - 2..=at + 1).all(|near| length(near) == 86_400);
            if unit == Unit::Day && is_plain && at % 20 > 0 {
                continue;
            }
            let (start, end) = (starts[at], starts[at + 1]);
            for at_us in [start * 1_000_000, end * 1_000_000 - 1] {
                let found = calendar.window_at(at_us);
                assert_eq!(
                    (found.start_s, found.end_s),
                    (start, end),
                    "{unit:?} of {zone} at {at_us}"
                );
            }
            assert!(length(at) * 1_000_000 <= calendar.longest_us(), "{unit:?} of {zone}");
            if unit == Unit::Day {
                *lengths.entry(length(at) / 3600).or_insert(0) += 1;
            }
        }
    }
    lengths
}

/// All zones, all units, 2020 to 2040.
#[test]
fn every_zone_as_a_model_of_it() {
    let zones: Vec<_> = Zone::all().collect();
    assert!(zones.len() > 400, "{}", zones.len());
    let half = zones.len() / 2;
    let lengths = std::thread::scope(|scope| {
        let other = scope.spawn(|| zones[..half].iter().map(|zone| check_zone(*zone)).collect::<Vec<_>>());
        let mut lengths: Vec<_> = zones[half..].iter().map(|zone| check_zone(*zone)).collect();
        lengths.extend(other.join().expect("no panic"));
        lengths
    });
    let mut all = BTreeMap::new();
    for (hours, days) in lengths.into_iter().flatten() {
        *all.entry(hours).or_insert(0) += days;
    }
    // Days that are an hour shorter or longer were met in many zones.
    assert!(all[&23] > 4000 && all[&25] > 4000, "{all:?}");
}

#[test]
fn midnights_that_do_not_exist_and_dates_that_are_left_out() {
    let window = |name: &str, unit: Unit, at: &str| {
        let found = Calendar::new(unit, zone(name)).expect("a unit").window_at(us(at));
        let text = |second: u64| Timestamp::from_second(second as i64).expect("a time").to_string();
        (text(found.start_s), text(found.end_s))
    };
    let span = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    // Clocks went from 23:59:59 to 01:00: the day has 23 hours and begins at one.
    let day = window("America/Sao_Paulo", Unit::Day, "2018-11-04T12:00:00Z");
    assert_eq!(day, span("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"));
    let day = window("Africa/Cairo", Unit::Day, "2024-04-26T12:00:00Z");
    assert_eq!(day, span("2024-04-25T22:00:00Z", "2024-04-26T21:00:00Z"));
    // Clocks went from 00:01 back to 23:01: the date had begun.
    let day = window("America/St_Johns", Unit::Day, "2010-11-07T03:00:00Z");
    assert_eq!(day, span("2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"));
    // Samoa had no 30 December 2011.
    let day = window("Pacific/Apia", Unit::Day, "2011-12-30T09:59:59Z");
    assert_eq!(day, span("2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"));
    let month = window("Pacific/Apia", Unit::Month, "2011-12-30T10:00:00Z");
    assert_eq!(month, span("2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z"));
    let month = window("utc", Unit::Month, "2028-02-29T23:59:59Z");
    assert_eq!(month, span("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"));
    let week = window("Asia/Kathmandu", Unit::Week, "2026-01-01T00:00:00Z");
    assert_eq!(week, span("2025-12-28T18:15:00Z", "2026-01-04T18:15:00Z"));
}

/// The last hit before the end of a local day, and the first after it.
pub fn days_of_23_and_25_hours(open: Open) {
    let subject = open();
    for (unit, start, hours) in [
        (Unit::Day, "2026-03-28T23:00:00Z", 23),
        (Unit::Day, "2026-10-24T22:00:00Z", 25),
        (Unit::Week, "2026-03-22T23:00:00Z", 7 * 24 - 1),
        (Unit::Month, "2028-01-31T23:00:00Z", 29 * 24),
        (Unit::Month, "2026-09-30T22:00:00Z", 31 * 24 + 1),
        (Unit::Year, "2027-12-31T23:00:00Z", 366 * 24),
    ] {
        let (key, limit) = (fresh_key(), calendar_limit(5, unit, zone("Europe/Berlin")));
        let (start_us, length_us) = (us(start), hours * HOUR_US);
        let before = subject.one(start_us - 1, &key, limit, Hits::Acquire(5));
        assert_eq!((before.allowed, before.reset_after_us), (true, 1), "{unit:?}");
        let first = subject.one(start_us, &key, limit, Hits::Acquire(3));
        assert_eq!(first.reset_after_us, length_us, "{unit:?}");
        let last_us = start_us + length_us - 1;
        let denied = subject.one(last_us, &key, limit, Hits::Acquire(3));
        assert_eq!(
            (denied.allowed, denied.retry_after),
            (false, RetryAfter::Micros(1)),
            "{unit:?}"
        );
        assert!(subject.one(last_us, &key, limit, Hits::Acquire(2)).allowed, "{unit:?}");
        let next = subject.one(last_us + 1, &key, limit, Hits::Acquire(5));
        assert!(next.allowed && next.reset_after_us > 22 * HOUR_US, "{unit:?}");
    }
}

/// A rule that gets another zone or calendar does not go on with the windows of the old one.
pub fn another_zone_is_another_counter(open: Open) {
    let subject = open();
    let now_us = us("2026-06-15T12:00:00Z");
    let mut keys = Vec::new();
    for (unit, name) in [
        (Unit::Day, "Europe/Berlin"),
        (Unit::Day, "Europe/Vienna"),
        (Unit::Week, "Europe/Berlin"),
    ] {
        let limit = calendar_limit(2, unit, zone(name));
        let user = fresh_user(&subject);
        let key = counter_key("sg:", Owner::Rule, &limit, "d", [Part::Own("user", &user)]);
        assert!(subject.one(now_us, &key, limit, Hits::Acquire(2)).allowed, "{key}");
        assert!(!subject.one(now_us, &key, limit, Hits::Peek).allowed, "{key}");
        keys.push(key.to_string());
    }
    assert!(keys[0].starts_with("sg:fw:day:Europe/Berlin:{d|user="), "{}", keys[0]);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

/// The same for all counters of a subject, and no other test's: they share a server.
fn fresh_user(subject: &Subject) -> String {
    format!("{:p}", Arc::as_ptr(&subject.clock))
}

/// Redis' clock decides which window it is; that of a replica may be a day off.
#[test]
fn a_replica_whose_clock_is_off_decides_in_the_same_window() {
    let server = Redis::start();
    let limit = calendar_limit(5, Unit::Day, zone("Europe/Berlin"));
    let key = fresh_key();
    let evaluate = |decides_us: u64, near_us: u64, hits: Hits| -> Vec<Outcome> {
        let transaction = [single(&key, limit, hits).into_ops::<Op>()];
        let call = encode(&transaction, CallTime { decides_us, near_us });
        assert_eq!(call.script, ScriptId::of(limit.algorithm.kind()));
        let words = call.argument.as_chunks::<8>().0.iter();
        let words: Vec<_> = words.map(|word| format!("{:.0}", f64::from_le_bytes(*word))).collect();
        let mut arguments = vec!["eval", call.script.source(), "1", key.as_str()];
        arguments.extend(words.iter().map(String::as_str));
        let reply = server.cli(&arguments);
        let reply: Vec<u64> = reply.lines().map(|line| line.parse().expect("a number")).collect();
        let mut outcome = Outcome::admitted(reply[2], reply[4]);
        outcome.allowed = reply[1] == 1;
        vec![outcome]
    };
    // The day of 25 hours ends at 23:00 UTC.
    let end_us = us("2026-10-25T23:00:00Z");
    let mut left = 5;
    for off_us in [0, 20 * HOUR_US, 1] {
        for near_us in [end_us - 1 - off_us, end_us - 1 + off_us] {
            left -= u64::from(left > 0);
            let outcome = evaluate(end_us - 1, near_us, Hits::Acquire(1))[0];
            assert_eq!((outcome.remaining, outcome.reset_after_us), (left, 1), "{off_us}");
        }
    }
    for (left, off_us) in [(4, 23 * HOUR_US), (3, 0), (2, 1)] {
        let outcome = evaluate(end_us, end_us - off_us, Hits::Acquire(1))[0];
        assert_eq!(
            (outcome.remaining, outcome.reset_after_us),
            (left, 24 * HOUR_US),
            "{off_us}"
        );
    }
    // Further off it is a window all the same, and never one that has ended.
    let outcome = evaluate(end_us, end_us - 400 * HOUR_US, Hits::Peek)[0];
    assert!(
        outcome.reset_after_us <= 24 * HOUR_US && outcome.reset_after_us > 0,
        "{outcome:?}"
    );
}
