//! Lines that are a little out of order: a log has the time when a request began, and is written when it ended.

use std::collections::{BTreeMap, VecDeque};

use super::record::Record;

/// Records that are held back at most; above, the earliest go on before the window is over.
const MAX_HELD: usize = 100_000;
/// Bytes of their texts, likewise.
const MAX_HELD_BYTES: usize = 64 << 20;
/// Records with longer texts are not kept to be used again.
const MAX_SPARE_BYTES: usize = 4 << 10;

/// When, and which of the same time first.
type Turn = (u64, u64);

/// Holds records back until nothing earlier can come.
pub struct Reorder {
    window_us: u64,
    /// Those that came in order, which most do: at the front is the earliest.
    on_time: VecDeque<(Turn, Box<Record>)>,
    /// The others.
    late: BTreeMap<Turn, Box<Record>>,
    /// Records to be used again.
    #[allow(clippy::vec_box, reason = "records are handed on by their pointers")]
    spare: Vec<Box<Record>>,
    held_bytes: usize,
    /// Records went on before the window was over.
    cut_short: bool,
    arrivals: u64,
    newest_us: u64,
    released_us: u64,
}

impl Reorder {
    /// Sets right what is at most `window_us` late.
    #[must_use]
    pub const fn new(window_us: u64) -> Self {
        Self {
            window_us,
            on_time: VecDeque::new(),
            late: BTreeMap::new(),
            spare: Vec::new(),
            held_bytes: 0,
            cut_short: false,
            arrivals: 0,
            newest_us: 0,
            released_us: 0,
        }
    }

    /// Takes a record (and leaves an old one in its place); `false` if it is too late: a later one has gone on already.
    pub fn push(&mut self, record: &mut Box<Record>) -> bool {
        if record.at_us < self.released_us {
            return false;
        }
        let taken = std::mem::replace(record, self.spare.pop().unwrap_or_default());
        self.held_bytes += taken.text_bytes();
        let turn = (taken.at_us, self.arrivals);
        self.arrivals += 1;
        if taken.at_us >= self.newest_us {
            self.newest_us = taken.at_us;
            self.on_time.push_back((turn, taken));
        } else {
            self.late.insert(turn, taken);
        }
        true
    }

    /// What a record is that [`push`](Self::push) refuses.
    #[must_use]
    pub const fn refusal(&self) -> &'static str {
        match self.cut_short {
            false => "later than the reorder window",
            true => "later than the reorder window, which was cut short at 100,000 lines or 64 MiB",
        }
    }

    /// Swaps the earliest record in, if nothing earlier can come; at the end of the log (`all`) in any case.
    pub fn pop(&mut self, all: bool, record: &mut Box<Record>) -> bool {
        let on_time = self.on_time.front().map(|(turn, _)| *turn);
        let late = self.late.first_key_value().map(|(turn, _)| *turn);
        let is_late = late.is_some_and(|late| on_time.is_none_or(|on_time| late < on_time));
        let Some((at_us, _)) = (if is_late { late } else { on_time }) else {
            return false;
        };
        let is_full = self.on_time.len() + self.late.len() > MAX_HELD || self.held_bytes > MAX_HELD_BYTES;
        let is_due = all || self.newest_us - at_us >= self.window_us;
        if !is_due && !is_full {
            return false;
        }
        self.cut_short |= !is_due;
        self.released_us = at_us;
        let next = if is_late {
            self.late.pop_first()
        } else {
            self.on_time.pop_front()
        };
        if let Some((_, next)) = next {
            self.held_bytes -= next.text_bytes();
            let used = std::mem::replace(record, next);
            if used.text_bytes() <= MAX_SPARE_BYTES {
                self.spare.push(used);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Target;
    use super::*;

    fn at(at_us: u64) -> Box<Record> {
        let mut record = Box::new(Record::default());
        record.at_us = at_us;
        record
    }

    /// What comes out of times that go in, in this order.
    fn reordered(window_us: u64, times: &[u64]) -> Vec<u64> {
        let mut order = Reorder::new(window_us);
        let (mut record, mut out) = (Box::default(), Vec::new());
        for time in times {
            record = at(*time);
            order.push(&mut record);
            while order.pop(false, &mut record) {
                out.push(record.at_us);
            }
        }
        while order.pop(true, &mut record) {
            out.push(record.at_us);
        }
        out
    }

    #[test]
    fn late_records_find_their_place_within_the_window() {
        assert_eq!(
            reordered(5, &[10, 12, 11, 9, 13, 8, 20, 14, 19, 30]),
            [8, 9, 10, 11, 12, 13, 14, 19, 20, 30].as_slice(),
        );
        // 1 is later than the window, 15 is not.
        assert_eq!(reordered(5, &[10, 16, 1, 15, 30]), [10, 15, 16, 30].as_slice());
    }

    #[test]
    fn records_of_one_time_stay_in_the_order_of_their_arrival() {
        let mut order = Reorder::new(10);
        for (time, tag) in [(5, 1), (7, 2), (5, 3), (7, 4), (6, 5), (5, 6)] {
            let mut record = at(time);
            record.duration_us = Some(tag);
            assert!(order.push(&mut record));
        }
        let (mut record, mut tags) = (Box::default(), Vec::new());
        while order.pop(true, &mut record) {
            tags.push(record.duration_us.unwrap_or_default());
        }
        assert_eq!(tags, [1, 3, 6, 5, 2, 4]);
    }

    #[test]
    fn what_is_held_back_is_bounded_in_bytes() {
        let mut order = Reorder::new(u64::MAX);
        let mut out = 0;
        for time in 0..2000 {
            let mut record = at(1 + time);
            record.set(Target::Path, &"x".repeat(64 << 10)).expect("a path");
            assert!(order.push(&mut record));
            while order.pop(false, &mut record) {
                out += 1;
            }
        }
        assert!((900..1100).contains(&out), "of 125 MiB 64 stay: {out}");
        assert!(order.spare.iter().all(|record| record.text_bytes() <= MAX_SPARE_BYTES));
        assert!(!order.push(&mut at(1)));
        assert!(order.refusal().contains("cut short"));
    }
}
