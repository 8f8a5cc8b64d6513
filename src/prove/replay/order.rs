//! Lines that are a little out of order: a log has the time when a request began, and is written when it ended.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::record::Record;

/// Records that are held back at most; above, the earliest go on before the window is over.
const MAX_HELD: usize = 100_000;

/// Holds records back until nothing earlier can come.
pub struct Reorder {
    window_us: u64,
    /// Time, arrival, place.
    held: BinaryHeap<Reverse<(u64, u64, usize)>>,
    records: Vec<Record>,
    free: Vec<usize>,
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
            held: BinaryHeap::new(),
            records: Vec::new(),
            free: Vec::new(),
            arrivals: 0,
            newest_us: 0,
            released_us: 0,
        }
    }

    /// Takes a record (and leaves an old one in its place); `false` if it is too late: a later one has gone on already.
    pub fn push(&mut self, record: &mut Record) -> bool {
        if record.at_us < self.released_us {
            return false;
        }
        self.newest_us = self.newest_us.max(record.at_us);
        let place = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record::default());
            self.records.len() - 1
        });
        self.held.push(Reverse((record.at_us, self.arrivals, place)));
        self.arrivals += 1;
        if let Some(slot) = self.records.get_mut(place) {
            std::mem::swap(slot, record);
        }
        true
    }

    /// Swaps the earliest record in, if nothing earlier can come; at the end of the log (`all`) in any case.
    pub fn pop(&mut self, all: bool, record: &mut Record) -> bool {
        let Some(Reverse((at_us, _, place))) = self.held.peek().copied() else {
            return false;
        };
        let is_due = self.newest_us - at_us >= self.window_us || self.held.len() > MAX_HELD;
        if !all && !is_due {
            return false;
        }
        self.held.pop();
        self.free.push(place);
        self.released_us = at_us;
        if let Some(slot) = self.records.get_mut(place) {
            std::mem::swap(slot, record);
        }
        true
    }
}
