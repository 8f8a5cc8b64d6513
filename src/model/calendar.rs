//! Windows of a calendar: the days, weeks, months and years of a time zone. The zones' data is compiled in, so that replicas
//! agree whatever their hosts have installed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};

use super::time::SECOND_US;
use super::unit::Unit;

/// A time zone of the database that is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Zone(u16);

/// What is known of a zone.
struct ZoneEntry {
    name: String,
    /// Read when it is first used.
    rules: OnceLock<TimeZone>,
    /// By unit, the two windows that were looked at last, [packed](CalendarWindow::pack): the present one and, where the
    /// store wants to know it, the next.
    recent: [[AtomicU64; 2]; CALENDAR_UNITS.len()],
}

/// Units that are windows of a calendar.
pub const CALENDAR_UNITS: [Unit; 4] = [Unit::Day, Unit::Week, Unit::Month, Unit::Year];

static ZONES: LazyLock<Vec<ZoneEntry>> = LazyLock::new(|| {
    let database = TimeZoneDatabase::bundled();
    let entry = |name: jiff::tz::TimeZoneName<'_>| ZoneEntry {
        name: name.as_str().to_owned(),
        rules: OnceLock::new(),
        recent: Default::default(),
    };
    let mut zones: Vec<_> = database.available().map(entry).collect();
    zones.sort_by(|one, other| one.name.cmp(&other.name));
    zones
});

impl Zone {
    /// The zone of this name of the tz database, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let position = ZONES.iter().position(|zone| zone.name.eq_ignore_ascii_case(name))?;
        let zone = Self(u16::try_from(position).ok()?);
        zone.load().is_some().then_some(zone)
    }

    /// All of them, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        let zones = (0_u16..).zip(ZONES.iter());
        zones
            .map(|(position, _)| Self(position))
            .filter(|zone| zone.load().is_some())
    }

    /// Its name in the tz database.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("", |entry| &entry.name)
    }

    fn entry(self) -> Option<&'static ZoneEntry> {
        ZONES.get(usize::from(self.0))
    }

    fn load(self) -> Option<&'static TimeZone> {
        let entry = self.entry()?;
        if let Some(rules) = entry.rules.get() {
            return Some(rules);
        }
        let rules = TimeZoneDatabase::bundled().get(&entry.name).ok()?;
        Some(entry.rules.get_or_init(|| rules))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One window of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalendarWindow {
    /// When it starts, in seconds since the epoch; 0 where that is before it.
    pub start_s: u64,
    /// When the next one starts.
    pub end_s: u64,
}

impl CalendarWindow {
    /// Bits of a length: more than a year.
    const LENGTH_BITS: u32 = 26;

    const fn holds(self, now_s: u64) -> bool {
        self.start_s <= now_s && now_s < self.end_s
    }

    const fn pack(self) -> u64 {
        (self.start_s << Self::LENGTH_BITS) | (self.end_s - self.start_s)
    }

    const fn unpack(packed: u64) -> Self {
        let start_s = packed >> Self::LENGTH_BITS;
        Self {
            start_s,
            end_s: start_s + (packed & ((1 << Self::LENGTH_BITS) - 1)),
        }
    }
}

/// Days, weeks (from Monday), months or years of a zone. Each begins with the first instant that belongs to its first date
/// or a later one: mostly midnight, else, where clocks are set over midnight, the moment at which they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Calendar {
    unit: Unit,
    zone: Zone,
}

impl Calendar {
    /// `None` for a unit that is not of a calendar.
    #[must_use]
    pub fn new(unit: Unit, zone: Zone) -> Option<Self> {
        CALENDAR_UNITS.contains(&unit).then_some(Self { unit, zone })
    }

    /// Day, week, month or year.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.unit
    }

    /// Whose days.
    #[must_use]
    pub const fn zone(self) -> Zone {
        self.zone
    }

    /// No window is longer, in microseconds: a leap year, a month of 31 days, and clocks that are set back by up to a day.
    #[must_use]
    pub const fn longest_us(self) -> u64 {
        let days = match self.unit {
            Unit::Year => 366,
            Unit::Month => 31,
            Unit::Week => 7,
            _ => 1,
        };
        (days + 1) * Unit::Day.seconds() * SECOND_US
    }

    /// The window of a time. Mostly known: it costs two loads then.
    #[must_use]
    pub fn window_at(self, now_us: u64) -> CalendarWindow {
        let now_s = now_us / SECOND_US;
        let index = CALENDAR_UNITS.iter().position(|unit| *unit == self.unit);
        let recent = self
            .zone
            .entry()
            .zip(index)
            .and_then(|(entry, at)| entry.recent.get(at));
        let Some([one, other]) = recent else {
            return self.even(now_s);
        };
        let known = [one, other].map(|packed| CalendarWindow::unpack(packed.load(Relaxed)));
        if let Some(window) = known.into_iter().find(|window| window.holds(now_s)) {
            return window;
        }
        let window = self.find(now_s).unwrap_or_else(|| self.even(now_s));
        let older = if known[0].start_s <= known[1].start_s {
            one
        } else {
            other
        };
        older.store(window.pack(), Relaxed);
        window
    }

    /// When a window ends, in microseconds.
    #[must_use]
    pub fn end_us(self, now_us: u64) -> u64 {
        self.window_at(now_us).end_s * SECOND_US
    }

    /// When the window before the one of a time ends, that one, and the next one, in microseconds: who decides by a clock that
    /// is less than a window off finds its own in there.
    #[must_use]
    pub fn ends_near(self, now_us: u64) -> [u64; 3] {
        let own = self.window_at(now_us);
        let next = self.window_at(own.end_s * SECOND_US);
        [own.start_s, own.end_s, next.end_s].map(|end_s| end_s * SECOND_US)
    }

    fn find(self, now_s: u64) -> Option<CalendarWindow> {
        let rules = self.zone.load()?;
        let now = Timestamp::from_second(i64::try_from(now_s).ok()?).ok()?;
        let mut first = self.first(rules.to_datetime(now).date())?;
        let mut start_s = begins(rules, first)?;
        // Clocks that are set back over midnight come to a date twice: its window goes on.
        loop {
            first = self.next(first)?;
            let end_s = begins(rules, first)?;
            if end_s > now_s {
                return Some(CalendarWindow { start_s, end_s });
            }
            start_s = end_s;
        }
    }

    /// The first date of a window.
    fn first(self, date: Date) -> Option<Date> {
        match self.unit {
            Unit::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(days.days()).ok()
            }
            Unit::Month => Some(date.first_of_month()),
            Unit::Year => Some(date.first_of_year()),
            _ => Some(date),
        }
    }

    /// The first date of the window after.
    fn next(self, first: Date) -> Option<Date> {
        let length = match self.unit {
            Unit::Week => 1.week(),
            Unit::Month => 1.month(),
            Unit::Year => 1.year(),
            _ => 1.day(),
        };
        first.checked_add(length).ok()
    }

    /// Where no calendar reaches, after the year 9999.
    const fn even(self, now_s: u64) -> CalendarWindow {
        let start_s = now_s - now_s % self.unit.seconds();
        CalendarWindow {
            start_s,
            end_s: start_s + self.unit.seconds(),
        }
    }
}

/// The first instant of a date or a later one, in seconds since the epoch.
fn begins(rules: &TimeZone, date: Date) -> Option<u64> {
    let midnight = date.at(0, 0, 0, 0);
    let instant = match rules.to_ambiguous_timestamp(midnight).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(midnight).ok()?,
        // It comes twice.
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(midnight).ok()?,
        // It does not come: clocks are set over it, some time after it would have come by their new offset.
        AmbiguousOffset::Gap { after, .. } => {
            let earlier = after.to_timestamp(midnight).ok()?;
            rules.following(earlier).next()?.timestamp()
        }
    };
    Some(u64::try_from(instant.as_second()).unwrap_or(0))
}
